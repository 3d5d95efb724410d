"""The tool list of another server as a document, its digest, and how two of them differ.

Every word of it is the other server's: it is compared and shown, and never believed.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mcp.types import Implementation, Tool

from interlock_servers.plant_text import plant_text
from interlock_tools.canonical import canonical, digest
from interlock_tools.errors import ComponentError, InvalidRequestError

MAX_TOOLS = 500
MAX_LIST_BYTES = 1_048_576
NAME_SHOWN_CHARS = 60
NAME_CHARS = 41  # `^[a-z][a-z0-9_]{1,40}$`, what every client takes
RESERVED = frozenset({"get_change", "list_changes", "federation_status"})
# What of a tool reaches a model, or decides how it is called. `_meta` and icons do neither.
PARTS = ("title", "description", "inputSchema", "outputSchema", "annotations")

Document = Mapping[str, Any]


class ToolList(NamedTuple):
    """Who the server says it is, and each of its tools by name, as JSON."""

    server: dict[str, Any]
    tools: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, component: str, server: Implementation | None, tools: Iterable[Tool]) -> "ToolList":
        """The list as the server gave it.

        Raises:
            ComponentError: two tools have one name, it is too large, or no canonical JSON.
        """
        named: dict[str, dict[str, Any]] = {}
        for tool in tools:
            said = tool.model_dump(mode="json", by_alias=True, exclude_none=True)
            if tool.name in named:
                raise _unusable(component, f"two tools are called {_shown(tool.name)}")
            named[tool.name] = {part: said[part] for part in PARTS if part in said}
        if len(named) > MAX_TOOLS:
            raise _unusable(component, f"it has {len(named)} tools, more than {MAX_TOOLS}")
        identity = {} if server is None else {"name": server.name, "version": server.version}
        listed = cls(identity, named)
        try:
            size = len(canonical(listed.document()))
        except InvalidRequestError as error:
            raise _unusable(component, plant_text(str(error))) from error
        if size > MAX_LIST_BYTES:
            raise _unusable(component, f"it has {size} bytes, more than {MAX_LIST_BYTES}")
        return listed

    @classmethod
    def from_document(cls, document: Document) -> "ToolList":
        """The list that was written down."""
        return cls(dict(document["server"]), dict(document["tools"]))

    def document(self) -> dict[str, Any]:
        """What is digested, approved and kept."""
        return {"server": self.server, "tools": self.tools}

    def digest(self) -> str:
        """SHA-256 of its canonical form: one changed word is another list."""
        return digest(self.document())


class Difference(NamedTuple):
    """One thing in which a list differs from the one that was approved.

    `sentence` names tools and parts but repeats no text of the server, whose new description may be
    the attack; `lines` is that text, for people.
    """

    sentence: str
    lines: tuple[str, ...]


def differences(approved: ToolList, present: ToolList) -> list[Difference]:
    """Everything that changed, tool by tool."""
    found: list[Difference] = []
    if approved.server != present.server:
        found.append(Difference("the server calls itself something else", _diff(approved, present)))
    for name in sorted(approved.tools.keys() | present.tools.keys()):
        before, after = approved.tools.get(name), present.tools.get(name)
        if before == after:
            continue
        if before is None:
            found.append(Difference(f"{_shown(name)} is new", _json_diff({}, after or {})))
        elif after is None:
            found.append(Difference(f"{_shown(name)} is gone", _json_diff(before, {})))
        else:
            parts = [part for part in PARTS if before.get(part) != after.get(part)]
            sentence = f"{_shown(name)}: {', '.join(parts)} changed"
            found.append(Difference(sentence, _json_diff(before, after)))
    return found


def local_name(tool: str, component: str) -> str:
    """What a tool is called here: its own name where every client takes that, else one like it.

    `listWorkloads` and `list-workloads` become `list_workloads`; what begins with no letter gets
    `t_` in front, what would hide a tool of ours `upstream_`; one that is too long together with
    the component, which stands before it on the server of the whole site, is cut and ends in a
    digest of the whole.
    """
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", tool).lower()
    name = re.sub(r"[^a-z0-9_]+", "_", name).strip("_")
    if name in RESERVED:
        name = f"upstream_{name}"
    if len(name) < 2 or not name[0].isalpha():
        name = f"t_{name}"
    room = NAME_CHARS - len(component) - 1
    if len(name) > room:
        name = f"{name[: room - 9]}_{hashlib.sha256(tool.encode()).hexdigest()[:8]}"
    return name


def _diff(approved: ToolList, present: ToolList) -> tuple[str, ...]:
    return _json_diff(approved.server, present.server)


def _json_diff(before: Document, after: Document) -> tuple[str, ...]:
    lines = difflib.unified_diff(_lines(before), _lines(after), lineterm="", n=1)
    return tuple(line for line in lines if not line.startswith(("---", "+++", "@@")))


def _lines(document: Document) -> list[str]:
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) if document else ""
    return text.splitlines()


def _shown(name: str) -> str:
    return repr(plant_text(name, NAME_SHOWN_CHARS))


def _unusable(component: str, why: str) -> ComponentError:
    return ComponentError(component, "BAD_LIST", f"its tool list cannot be used: {why}")
