"""Bundles: the three that come with the house, and a site's own from a directory."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from interlock_policies.gate import PolicyGate
from interlock_policies.rules import BundleError
from interlock_tools.operation import Effect

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

# Each name and the folders that it is made of: autonomous is supervised and a little more.
BUNDLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "observe": ("observe",),
        "supervised": ("supervised",),
        "autonomous": ("supervised", "autonomous"),
    }
)


def load_bundle(name_or_path: str | Path, operations: Mapping[str, Effect]) -> PolicyGate:
    """The gate over a bundle, by its name or from the `*.cedar` files of a directory.

    A directory stands by itself: nothing of the house's bundles is added to it.

    Raises:
        BundleError: it cannot be served; the message names the file and the rule.
    """
    return PolicyGate(bundle_texts(name_or_path), operations)


def bundle_texts(name_or_path: str | Path) -> dict[str, str]:
    """The policy texts of a bundle by file, in a fixed order.

    Raises:
        BundleError: there is no such bundle, or a file of it cannot be read.
    """
    if isinstance(name_or_path, str) and name_or_path in BUNDLES:
        root = resources.files("interlock_policies").joinpath("bundles")
        folders: list[Traversable] = [root.joinpath(part) for part in BUNDLES[name_or_path]]
    else:
        folders = [Path(name_or_path)]
    try:
        texts = {
            f"{folder.name}/{file.name}": file.read_text("utf-8")
            for folder in folders
            for file in sorted(folder.iterdir(), key=lambda found: found.name)
            if file.name.endswith(".cedar")
        }
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"the bundle {name_or_path} cannot be read: {error}") from error
    if not texts:
        raise BundleError(f"the bundle {name_or_path} holds no .cedar file")
    return texts
