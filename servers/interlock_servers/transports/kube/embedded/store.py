"""What is stored: objects as JSON once written, one counter of versions, and what changed when.

Reads of the past (pages of one list, a watch from a version) come from the log of changes, which
is bounded; what is older than it is gone, as after etcd's compaction.
"""

import json
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

Json = dict[str, Any]
Key = tuple[str, str]  # namespace (empty: of the cluster), name
LOG_LENGTH: Final = 100_000  # changes of one resource that can be looked back on


@dataclass(frozen=True, slots=True)
class Entry:
    """One object: `body` is its JSON without kind and apiVersion, the rest is what is asked for."""

    key: Key
    uid: str
    version: int
    body: bytes
    labels: Mapping[str, str]
    fields: Mapping[str, str]
    owners: tuple[str, ...]
    deleting: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What happened: `entry` is the object after it, or, of a deletion, as it last was."""

    version: int
    deleted: bool
    entry: Entry
    previous: Entry | None


@dataclass
class Table:
    """The objects of one resource, by key and in order, and their changes."""

    entries: dict[Key, Entry] = field(default_factory=dict)
    order: list[Key] = field(default_factory=list)
    log: list[Change] = field(default_factory=list)
    dropped: int = 0  # changes before log[0]
    forgotten: int = 0  # the last version that cannot be looked back on
    changed: anyio.Event = field(default_factory=anyio.Event)

    def keys(self, namespace: str | None) -> tuple[int, int]:
        """The range in `order` of a namespace, or of all."""
        if namespace is None:
            return 0, len(self.order)
        return bisect_left(self.order, (namespace, "")), bisect_left(
            self.order, (f"{namespace}\0", "")
        )

    def within(self, namespace: str | None) -> list[Entry]:
        """The objects of a namespace, or all, in order."""
        start, end = self.keys(namespace)
        return [self.entries[key] for key in self.order[start:end]]

    def position_after(self, version: int) -> int:
        """Where, counted from the first change ever, changes after a version begin."""
        return self.dropped + bisect_right(self.log, version, key=lambda change: change.version)

    def append(self, change: Change) -> None:
        """Log a change and wake who watches."""
        self.log.append(change)
        if len(self.log) > 2 * LOG_LENGTH:
            self.forget(len(self.log) - LOG_LENGTH)
        self.wake()

    def forget(self, count: int) -> None:
        """Drop the oldest changes."""
        if count:
            self.forgotten = self.log[count - 1].version
            del self.log[:count]
            self.dropped += count

    def wake(self) -> None:
        """Let who watches look again."""
        self.changed.set()
        self.changed = anyio.Event()

    def at(self, version: int, namespace: str | None) -> tuple[list[Key], Callable[[Key], Entry]]:
        """Keys in order, and their objects, as they were at a version that is not forgotten."""
        start, end = self.keys(namespace)
        keys = self.order[start:end]
        past: dict[Key, Entry | None] = {}
        for change in reversed(self.log):
            if change.version <= version:
                break
            past[change.entry.key] = change.previous
        if past:
            there = set(keys)
            for key, entry in past.items():
                if namespace is None or key[0] == namespace:
                    (there.discard if entry is None else there.add)(key)
            keys = sorted(there)
        return keys, lambda key: past.get(key) or self.entries[key]


class Store:
    """Every table, and the counter that all of them share."""

    def __init__(self) -> None:
        self.version = 1
        self.compacted = 0  # the last version that no table can be looked back on
        self.tables: dict[str, Table] = {}
        self.owned: dict[str, set[tuple[str, Key]]] = {}  # owner's uid: what names it
        self.by_uid: dict[str, tuple[str, Key]] = {}
        self.observers: list[Callable[[str, Change], None]] = []

    def table(self, resource_key: str) -> Table:
        """The table of a resource; a new one where nothing of it is stored."""
        found = self.tables.get(resource_key)
        if found is None:
            found = self.tables[resource_key] = Table(forgotten=self.compacted)
        return found

    def put(self, resource_key: str, key: Key, value: Json, fields: Mapping[str, str]) -> Entry:
        """Store an object under the next version, which it carries afterwards."""
        self.version += 1
        metadata = value["metadata"]
        metadata["resourceVersion"] = str(self.version)
        table = self.table(resource_key)
        previous = table.entries.get(key)
        entry = Entry(
            key=key,
            uid=metadata["uid"],
            version=self.version,
            body=_body(value),
            labels=metadata.get("labels") or {},
            fields=fields,
            owners=tuple(each["uid"] for each in metadata.get("ownerReferences") or ()),
            deleting="deletionTimestamp" in metadata,
        )
        table.entries[key] = entry
        if previous is None:
            insort(table.order, key)
            self.by_uid[entry.uid] = (resource_key, key)
        self._own(resource_key, previous, entry)
        self._note(resource_key, table, Change(self.version, False, entry, previous))
        return entry

    def remove(self, resource_key: str, key: Key, last: Json) -> None:
        """Remove an object, whose last state is `last`."""
        self.version += 1
        last["metadata"]["resourceVersion"] = str(self.version)
        table = self.table(resource_key)
        previous = table.entries.pop(key)
        del table.order[bisect_left(table.order, key)]
        del self.by_uid[previous.uid]
        self._own(resource_key, previous, None)
        gone = Entry(
            key, previous.uid, self.version, _body(last), previous.labels, previous.fields, (), True
        )
        self._note(resource_key, table, Change(self.version, True, gone, previous))

    def compact(self) -> None:
        """Forget every state but the present one."""
        self.compacted = self.version
        for table in self.tables.values():
            table.forget(len(table.log))
            table.forgotten = self.version
            table.wake()

    def _own(self, resource_key: str, previous: Entry | None, entry: Entry | None) -> None:
        before = previous.owners if previous is not None else ()
        now = entry.owners if entry is not None else ()
        if before == now:
            return
        key = entry.key if entry is not None else previous.key if previous is not None else ("", "")
        for uid in before:
            self.owned.get(uid, set()).discard((resource_key, key))
            if not self.owned.get(uid, True):
                del self.owned[uid]
        for uid in now:
            self.owned.setdefault(uid, set()).add((resource_key, key))

    def _note(self, resource_key: str, table: Table, change: Change) -> None:
        table.append(change)
        for observer in self.observers:
            observer(resource_key, change)


def _body(value: Json) -> bytes:
    kept = {name: each for name, each in value.items() if name not in ("kind", "apiVersion")}
    return json.dumps(kept, separators=(",", ":"), ensure_ascii=False).encode()[1:]


def decode(prefix: bytes, entry: Entry) -> Json:
    """The object, anew."""
    value: Json = json.loads(prefix + entry.body)
    return value
