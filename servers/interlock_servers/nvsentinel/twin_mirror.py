"""What the twin's controllers know of one kind: a list kept by a watch, and their own writes."""

from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Any

import anyio

from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.kinds import Kind
from interlock_servers.transports.kube.watching import Heard, Watching

Json = dict[str, Any]
Key = tuple[str, str]  # namespace (empty: of the cluster), name


class Mirror:
    """The objects of one kind, raw but for `managedFields`; never older than what was written.

    Attributes:
        listed: is set once they were listed.
        changed: keys that changed or went since somebody last emptied it.
    """

    def __init__(
        self,
        client: KubeClient,
        kind: Kind,
        *,
        namespace: str | None = None,
        index: Callable[[Json], str] | None = None,
    ) -> None:
        self.kind = kind
        self.listed = anyio.Event()
        self.changed: set[Key] = set()
        self._watching = Watching(client, kind, namespace=namespace)
        self._objects: dict[Key, Json] = {}
        self._gone: set[str] = set()
        self._value = index
        self._under: dict[str, set[Key]] = {}

    async def run(self) -> None:
        """Follow the kind, without end."""
        async with aclosing(self._watching.steps()) as steps:
            async for step in steps:
                match step.heard:
                    case Heard.LISTED:
                        gone = self._objects.keys() - {_key(raw) for raw in step.objects}
                        for key in gone:
                            self.drop(self._objects[key])
                        for raw in step.objects:
                            self.put(raw)
                    case Heard.CHANGED:
                        self.put(step.objects[0])
                    case Heard.DELETED:
                        self.drop(step.objects[0])
                    case Heard.LOST:
                        continue
                self.listed.set()

    def put(self, raw: Json) -> None:
        """Take an object as the server has it, unless a later state of it is known."""
        key, about = _key(raw), raw["metadata"]
        known = self._objects.get(key)
        if about["uid"] in self._gone:
            return
        if known is not None:
            if known["metadata"]["uid"] == about["uid"] and _version(known) >= _version(raw):
                return
            self._unindex(key, known)
        about.pop("managedFields", None)
        self._objects[key] = raw
        if self._value is not None:
            self._under.setdefault(self._value(raw), set()).add(key)
        self.changed.add(key)

    def drop(self, raw: Json) -> None:
        """Forget an object that is gone."""
        key = _key(raw)
        self._gone.add(raw["metadata"]["uid"])
        known = self._objects.get(key)
        if known is not None and known["metadata"]["uid"] == raw["metadata"]["uid"]:
            del self._objects[key]
            self._unindex(key, known)
            self.changed.add(key)

    def get(self, name: str, namespace: str = "") -> Json | None:
        """One object, or None."""
        return self._objects.get((namespace, name))

    def values(self) -> list[Json]:
        """Every object."""
        return list(self._objects.values())

    def by(self, value: str) -> list[Json]:
        """The objects that the index has under a value."""
        return [self._objects[key] for key in sorted(self._under.get(value, ()))]

    def take_changed(self) -> Iterable[Key]:
        """What changed since this was last asked."""
        taken, self.changed = self.changed, set()
        return taken

    def __len__(self) -> int:
        return len(self._objects)

    def _unindex(self, key: Key, known: Json) -> None:
        if self._value is not None:
            self._under[self._value(known)].discard(key)


def _key(raw: Json) -> Key:
    about = raw["metadata"]
    return str(about.get("namespace") or ""), str(about["name"])


def _version(raw: Json) -> int:
    return int(raw["metadata"]["resourceVersion"])
