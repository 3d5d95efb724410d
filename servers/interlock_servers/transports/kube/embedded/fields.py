"""Which manager owns which field: sets of paths, as `metadata.managedFields` writes them.

A path is a tuple of the elements of FieldsV1: `f:spec`, `k:{"name":"a"}`, `v:"x"`.
Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from interlock_servers.transports.kube.embedded.schema import Schema, child, items_of

Path = tuple[str, ...]
Paths = dict[Path, Any]  # with the value of each leaf; a container that is owned itself: None
_UNOWNED: Final = frozenset(
    ("f:metadata", f"f:{each}")
    for each in (
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "managedFields",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    )
)


def paths_of(value: Mapping[str, Any], schema: Schema, *, containers: bool) -> Paths:
    """Every field that an object sets, but those that nobody owns.

    Args:
        value: the object.
        schema: of its kind.
        containers: also the maps and lists that hold them. An ordinary write that makes a map
            owns it; an apply owns what is inside.
    """
    found: Paths = {}
    for key, each in value.items():
        if key not in ("apiVersion", "kind"):
            _collect(each, child(schema, key), (f"f:{key}",), found, containers)
    return {
        path: leaf
        for path, leaf in found.items()
        if path[:2] not in _UNOWNED and path != ("f:metadata",)
    }


def _collect(value: Any, schema: Schema, path: Path, found: Paths, containers: bool) -> None:
    if isinstance(value, dict) and schema.get("x-kubernetes-map-type") != "atomic":
        if not value or (containers and "additionalProperties" in schema):
            found[path] = None
        for key, each in value.items():
            _collect(each, child(schema, key), (*path, f"f:{key}"), found, containers)
    elif isinstance(value, list) and (kind := schema.get("x-kubernetes-list-type")) in (
        "map",
        "set",
    ):
        if containers or not value:
            found[path] = None
        for each in value:
            element = list_element(each, schema)
            found[*path, element] = None
            if kind == "map":
                for key, inner in each.items():
                    at = (*path, element, f"f:{key}")
                    _collect(inner, child(items_of(schema), key), at, found, containers)
    else:
        found[path] = value


def list_element(item: Any, schema: Schema) -> str:
    """How a path names an item of a list that is a map or a set."""
    if schema.get("x-kubernetes-list-type") == "set":
        return f"v:{json.dumps(item, separators=(',', ':'))}"
    keys = schema["x-kubernetes-list-map-keys"]
    named = {key: item[key] for key in sorted(keys) if key in item}
    return f"k:{json.dumps(named, separators=(',', ':'))}"


def to_fields_v1(paths: Iterable[Path]) -> dict[str, Any]:
    """As managedFields writes them."""
    tree: dict[str, Any] = {}
    owned = set(paths)
    for path in sorted(owned):
        node = tree
        for part in path:
            node = node.setdefault(part, {})
    for path in owned:
        node = tree
        for part in path:
            node = node[part]
        if node:
            node["."] = {}
    return tree


def from_fields_v1(tree: Mapping[str, Any]) -> set[Path]:
    """As managedFields wrote them."""
    return set(_walk(tree, ()))


def _walk(tree: Mapping[str, Any], path: Path) -> Iterator[Path]:
    for part, inner in tree.items():
        if part == ".":
            yield path
        elif inner:
            yield from _walk(inner, (*path, part))
        else:
            yield (*path, part)


def shown(path: Path) -> str:
    """As a conflict names it: `.spec.taints`, `.status.conditions[type="Ready"].status`."""
    said = ""
    for part in path:
        kind, _, rest = part.partition(":")
        if kind == "f":
            said += f".{rest}"
        elif kind == "k":
            keys = ",".join(f"{k}={json.dumps(v)}" for k, v in json.loads(rest).items())
            said += f"[{keys}]"
        else:
            said += f"[={rest}]"
    return said
