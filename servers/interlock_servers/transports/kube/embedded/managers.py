"""Server-side apply, and the books of who set what that every write keeps.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interlock_servers.transports.kube.embedded.fields import (
    Path,
    from_fields_v1,
    list_element,
    paths_of,
    shown,
    to_fields_v1,
)
from interlock_servers.transports.kube.embedded.schema import Schema, child, items_of
from interlock_servers.transports.kube.embedded.statuses import ApiError

Json = dict[str, Any]


@dataclass(frozen=True)
class Manager:
    """Who writes: one name is several managers by operation, version and subresource."""

    name: str
    operation: str  # Apply or Update
    api_version: str
    subresource: str = ""

    def shown(self) -> str:
        """As a conflict names it."""
        using = f" using {self.api_version}" if self.operation == "Update" else ""
        subresource = f' with subresource "{self.subresource}"' if self.subresource else ""
        return f'conflict with "{self.name}"{subresource}{using}'


Books = dict[Manager, tuple[set[Path], str]]  # what each owns, and since when


def read_books(value: Json) -> Books:
    """The books of an object."""
    return {
        Manager(
            each.get("manager", ""),
            each["operation"],
            each["apiVersion"],
            each.get("subresource", ""),
        ): (from_fields_v1(each.get("fieldsV1") or {}), each.get("time", ""))
        for each in value["metadata"].get("managedFields") or ()
    }


def write_books(value: Json, books: Books) -> None:
    """Put the books into an object; who owns nothing is struck off."""
    entries = []
    for manager, (owned, since) in books.items():
        if owned:
            entry = {
                "manager": manager.name,
                "operation": manager.operation,
                "apiVersion": manager.api_version,
                "time": since,
                "fieldsType": "FieldsV1",
                "fieldsV1": to_fields_v1(owned),
            }
            if manager.subresource:
                entry["subresource"] = manager.subresource
            entries.append(entry)
    value["metadata"].pop("managedFields", None)
    if entries:
        value["metadata"]["managedFields"] = entries


def note_update(old: Json | None, new: Json, schema: Schema, by: Manager, now: str) -> None:
    """Enter into the books of `new` what an ordinary write changed."""
    books = read_books(old) if old is not None else {}
    before = paths_of(old, schema, containers=True) if old is not None else {}
    after = paths_of(new, schema, containers=True)
    set_now = {path for path, leaf in after.items() if path not in before or before[path] != leaf}
    gone = before.keys() - after.keys()
    _take(books, set_now | gone, by)
    if set_now or gone:
        owned, since = books.get(by, (set(), now))
        changed = (owned | set_now) - gone
        books[by] = (changed, since if changed == owned else now)
    write_books(new, books)


def apply(
    live: Json | None, config: Json, schema: Schema, by: Manager, now: str, *, force: bool
) -> Json:
    """The object after an apply.

    Raises:
        ApiError: 409, another manager owns a field that this would change.
    """
    books = read_books(live) if live is not None else {}
    wanted = paths_of(config, schema, containers=False)
    present = paths_of(live, schema, containers=True) if live is not None else {}
    merged: Json = (
        _merge(copy.deepcopy(live), config, schema) if live is not None else copy.deepcopy(config)
    )
    changed = {path for path, leaf in wanted.items() if path in present and present[path] != leaf}
    clashes = [
        (manager, sorted(changed & owned))
        for manager, (owned, _) in sorted(books.items(), key=lambda book: book[0].name)
        if manager != by and changed & owned
    ]
    if clashes and not force:
        raise _clash(clashes)
    before, since = books.get(by, (set(), now))
    others = set().union(*(owned for manager, (owned, _) in books.items() if manager != by))
    for path in sorted(before - wanted.keys(), key=len):
        kept = (each[: len(path)] == path for each in (*others, *wanted))
        if not any(kept):
            _drop(merged, schema, path)
    _take(books, changed, by)
    owned = set(wanted)
    books[by] = (owned, since if owned == before else now)
    write_books(merged, books)
    return merged


def _take(books: Books, taken: set[Path], by: Manager) -> None:
    for manager, (owned, since) in books.items():
        if manager != by:
            books[manager] = (owned - taken, since)


def _clash(clashes: list[tuple[Manager, list[Path]]]) -> ApiError:
    causes = [
        {"reason": "FieldManagerConflict", "message": manager.shown(), "field": shown(path)}
        for manager, paths in clashes
        for path in paths
    ]
    count = len(causes)
    if count == 1:
        said = f"{causes[0]['message']}: {causes[0]['field']}"
    else:
        parts = []
        for manager, paths in clashes:
            whom = manager.shown().replace("conflict with", "conflicts with", 1)
            parts.append(f"{whom}:\n" + "\n".join(f"- {shown(path)}" for path in paths))
        said = "\n".join(parts)
    plural = "conflict" if count == 1 else "conflicts"
    message = f"Apply failed with {count} {plural}: {said}"
    return ApiError(409, "Conflict", message, {"causes": causes})


def _merge(live: Any, config: Any, schema: Schema) -> Any:
    if isinstance(live, dict) and isinstance(config, dict):
        if schema.get("x-kubernetes-map-type") == "atomic":
            return copy.deepcopy(config)
        for key, value in config.items():
            live[key] = _merge(live.get(key), value, child(schema, key))
        return live
    kind = schema.get("x-kubernetes-list-type")
    if isinstance(live, list) and isinstance(config, list) and kind in ("map", "set"):
        places = {list_element(each, schema): number for number, each in enumerate(live)}
        for each in config:
            place = places.get(list_element(each, schema))
            if place is None:
                live.append(copy.deepcopy(each))
            else:
                live[place] = _merge(live[place], each, items_of(schema))
        return live
    return copy.deepcopy(config)


def _drop(value: Any, schema: Schema, path: Path) -> None:
    """Remove what a path names, and the containers that this leaves empty."""
    trail: list[tuple[Any, Any]] = []
    for part in path:
        if part.startswith("f:"):
            if not isinstance(value, dict) or part[2:] not in value:
                return
            trail.append((value, part[2:]))
            value, schema = value[part[2:]], child(schema, part[2:])
        else:
            if not isinstance(value, list):
                return
            names = [list_element(each, schema) for each in value]
            if part not in names:
                return
            trail.append((value, names.index(part)))
            value, schema = value[names.index(part)], items_of(schema)
    for depth, (container, at) in enumerate(reversed(trail)):
        if depth and container[at]:
            return
        if len(trail) - depth > 1 or depth == 0:
            del container[at]


def without_books(value: Mapping[str, Any]) -> Json:
    """An object to compare: without what changes by the writing alone."""
    metadata = {
        key: each
        for key, each in value["metadata"].items()
        if key not in ("managedFields", "resourceVersion")
    }
    return {**value, "metadata": metadata}


def same_books(one: Json, other: Json) -> bool:
    """Whether the same managers own the same fields, however long since."""
    return _entries(one) == _entries(other)


def _entries(value: Json) -> list[str]:
    return sorted(
        json.dumps({key: each for key, each in entry.items() if key != "time"}, sort_keys=True)
        for entry in value["metadata"].get("managedFields") or ()
    )
