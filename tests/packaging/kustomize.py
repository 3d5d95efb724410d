"""The part of kustomize that our overlays use, readable where there is no kubectl.

`bases`, `resources` and `configMapGenerator` with files; anything else is an error here. The name
of a generated ConfigMap ends in a digest of its content, as with kustomize, though another one.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

Json = dict[str, Any]
OVERLAYS: Final = Path(__file__).parents[2] / "packaging" / "kubernetes" / "overlays"
NAMES: Final = tuple(sorted(folder.name for folder in OVERLAYS.iterdir()))
_KEYS: Final = {"bases", "resources", "configMapGenerator"}
_SUFFIX: Final = r"-[a-z0-9]{10}$"


def rendered(folder: Path) -> list[Json]:
    """Every object of this kustomization.

    Raises:
        ValueError: it uses what only kustomize itself understands.
    """
    written = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if strange := set(written) - _KEYS:
        raise ValueError(f"{folder.name}: not rendered here: {', '.join(sorted(strange))}")
    objects: list[Json] = []
    for base in written.get("bases", ()):
        objects += rendered((folder / base).resolve())
    for file in written.get("resources", ()):
        objects += yaml.safe_load_all((folder / file).read_text())
    for each in written.get("configMapGenerator", ()):
        data = {name: (folder / name).read_text() for name in each["files"]}
        digest = hashlib.sha256(json.dumps(data).encode()).hexdigest()[:10]
        objects = _renamed(objects, each["name"], f"{each['name']}-{digest}")
        objects.append(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": f"{each['name']}-{digest}", "namespace": each["namespace"]},
                "data": data,
            }
        )
    return objects


def without_digests(objects: list[Json]) -> dict[tuple[str, str, str], Json]:
    """The objects by kind, namespace and name, whatever digest their renderer gave."""
    plain = objects
    for name in [each["metadata"]["name"] for each in objects if each["kind"] == "ConfigMap"]:
        plain = _renamed(plain, name, re.sub(_SUFFIX, "", name))
    return {key_of(each): each for each in plain}


def key_of(made: Json) -> tuple[str, str, str]:
    """Its kind, its namespace or nothing, and its name."""
    about = made["metadata"]
    return made["kind"], about.get("namespace", ""), about["name"]


def only(objects: list[Json], kind: str) -> Json:
    """The one object of this kind."""
    (found,) = (each for each in objects if each["kind"] == kind)
    return found


def _renamed(found: Any, old: str, new: str) -> Any:
    """The same with a ConfigMap renamed, also where a volume names it."""
    if isinstance(found, list):
        return [_renamed(each, old, new) for each in found]
    if not isinstance(found, dict):
        return found
    out = {key: _renamed(value, old, new) for key, value in found.items()}
    place = out.get("metadata") if out.get("kind") == "ConfigMap" else out.get("configMap")
    if place and place.get("name") == old:
        place["name"] = new
    return out
