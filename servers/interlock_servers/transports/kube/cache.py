"""What is known of one kind: projected to what is needed, kept by a watch, with its age.

Reads never ask the server. Whoever needs the truth of this moment, as a change does, asks it by
`KubeClient.get`.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

import anyio

from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.connection import Json
from interlock_servers.transports.kube.kinds import Kind
from interlock_servers.transports.kube.watching import Heard, Watching
from interlock_tools.errors import NotFoundError

T = TypeVar("T")
Key = tuple[str, str]  # namespace, or empty; name
PATIENCE: Final = 1.5  # a watch may be as quiet as it is allowed to be, and take time to come back
NO_INDEX: Mapping[str, Callable[[Any], Iterable[str]]] = {}


class Known(StrEnum):
    """How far the cache may be used."""

    FRESH = "fresh"
    STALE = "stale"
    NEVER = "never"  # nothing was listed yet
    ABSENT = "absent"  # the server does not serve the kind


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a cache stands.

    Attributes:
        observed_at: the moment up to which it is complete.
        why: why it is not fresh; empty where it is.
        count: objects in it.
        unreadable: objects that are there and cannot be read, by `namespace/name`.
        missed: changes that a resync found and no watch had told.
    """

    known: Known
    observed_at: datetime | None
    why: str
    count: int
    unreadable: Mapping[str, str]
    missed: int


class KindCache(Generic[T]):
    """The objects of one kind of one cluster.

    `project` makes of a raw object what is kept, and raises ValueError, KeyError or TypeError where
    it cannot be read. `indexes` name values under which objects are found.
    """

    def __init__(
        self,
        client: KubeClient,
        kind: Kind,
        project: Callable[[Json], T],
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        indexes: Mapping[str, Callable[[T], Iterable[str]]] = NO_INDEX,
    ) -> None:
        self.kind = kind
        self._client = client
        self._project = project
        self._watching = Watching(client, kind, namespace=namespace, labels=labels, fields=fields)
        self._of = dict(indexes)
        self._objects: dict[Key, T] = {}
        self._versions: dict[Key, tuple[str, str]] = {}
        self._index: dict[str, dict[str, dict[Key, T]]] = {name: {} for name in indexes}
        self._unreadable: dict[Key, str] = {}
        self._heard_at: datetime | None = None
        self._known = Known.NEVER
        self._why = "nothing was listed yet"
        self._missed = 0
        self._listeners: list[Callable[[Key, T | None], None]] = []
        self.listed = anyio.Event()

    def listen(self, told: Callable[[Key, T | None], None]) -> None:
        """Be told of each object that is new, changed or gone (None); it must not block."""
        self._listeners.append(told)

    async def run(self) -> None:
        """Keep it, until cancelled."""
        async with aclosing(self._watching.steps()) as steps:
            async for step in steps:
                match step.heard:
                    case Heard.LISTED:
                        self._take_all(step.objects)
                    case Heard.CHANGED:
                        self._take(step.objects[0])
                    case Heard.DELETED:
                        self._drop(_key(step.objects[0]))
                    case Heard.LOST:
                        self._why = step.why
                        continue
                    case Heard.ABSENT:
                        self._known, self._why = Known.ABSENT, step.why
                        for key in list(self._versions):
                            self._drop(key)
                        self.listed.set()
                        continue
                self._known, self._why = Known.FRESH, ""
                self._heard_at = self._client.clock.now()
                self.listed.set()

    # ── reads ─────────────────────────────────────────────────────────────────────────────────

    def snapshot(self) -> Snapshot:
        """How it stands now."""
        known, why = self._known, self._why
        if known is Known.FRESH and self._heard_at is not None:
            age_s = (self._client.clock.now() - self._heard_at).total_seconds()
            most_s = PATIENCE * self._client.settings.quiet_s
            if age_s > most_s:
                known, why = Known.STALE, self._why or f"nothing was heard for {age_s:.0f} s"
        return Snapshot(
            known,
            self._heard_at,
            why,
            len(self._objects),
            {"/".join(filter(None, key)): told for key, told in self._unreadable.items()},
            self._missed,
        )

    def get(self, name: str, namespace: str = "") -> T:
        """One object.

        Raises:
            NotFoundError: it is not there, or could not be read; the message says which.
        """
        found = self._objects.get((namespace, name))
        if found is None:
            why = self._unreadable.get((namespace, name))
            told = f"cannot be read: {why}" if why else "is not there"
            raise NotFoundError(f"{self.kind.name} {name!r} {told}")
        return found

    def find(self, name: str, namespace: str = "") -> T | None:
        """One object, or None."""
        return self._objects.get((namespace, name))

    def values(self) -> Iterable[T]:
        """Every object, in no order."""
        return self._objects.values()

    def by(self, index: str, value: str) -> Iterable[T]:
        """The objects that an index has under a value."""
        return self._index[index].get(value, {}).values()

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    def _take_all(self, objects: Iterable[Json]) -> None:
        """What was listed replaces what is known; where a watch should have told, it is counted."""
        first = self._known is Known.NEVER
        gone = set(self._versions)
        for raw in objects:
            key = _key(raw)
            gone.discard(key)
            if self._versions.get(key) != _version(raw):
                self._missed += not first
                self._take(raw)
        for key in gone:
            self._missed += 1
            self._drop(key)

    def _take(self, raw: Json) -> None:
        key = _key(raw)
        before = self._objects.pop(key, None)
        if before is not None:
            self._unindex(key, before)
        self._unreadable.pop(key, None)
        self._versions[key] = _version(raw)
        try:
            found = self._project(raw)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._unreadable[key] = f"{type(error).__name__}: {error}"[:200]
            self._tell(key, None)
            return
        self._objects[key] = found
        for name, values in self._of.items():
            for value in values(found):
                self._index[name].setdefault(value, {})[key] = found
        self._tell(key, found)

    def _drop(self, key: Key) -> None:
        self._versions.pop(key, None)
        self._unreadable.pop(key, None)
        before = self._objects.pop(key, None)
        if before is not None:
            self._unindex(key, before)
            self._tell(key, None)

    def _unindex(self, key: Key, found: T) -> None:
        for name, values in self._of.items():
            for value in values(found):
                under = self._index[name].get(value)
                if under is not None:
                    under.pop(key, None)
                    if not under:
                        del self._index[name][value]

    def _tell(self, key: Key, found: T | None) -> None:
        for told in self._listeners:
            told(key, found)


def _key(raw: Json) -> Key:
    about = raw.get("metadata") or {}
    return str(about.get("namespace") or ""), str(about.get("name") or "")


def _version(raw: Json) -> tuple[str, str]:
    about = raw.get("metadata") or {}
    return str(about.get("uid")), str(about.get("resourceVersion"))
