"""Which points exist and how the things that they belong to hang together, by metadata alone.

Points come and change one by one and are asked for as a whole: what changed is noted at once and
sorted in when somebody asks, or when much has gathered.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from interlock_servers.exchange.grammar import ELECTRICAL, PARTS, PLANT_ROOM
from interlock_servers.exchange.models import PointMetadata, Topic

HEARTBEATS = frozenset({"HeartbeatTimestampBms", "HeartbeatTimestampIntegration"})
ECHOES = frozenset({"HeartbeatEchoBms", "HeartbeatEchoIntegration"})
MAX_UNSETTLED = 5000  # points; so that neither a message nor a question waits long
_FEW = 64  # keys are sorted in one by one up to so many
_MEDIUM = {
    **dict.fromkeys(ELECTRICAL, "power"),
    **dict.fromkeys(PLANT_ROOM | PARTS, "fluid"),
}


class Described(NamedTuple):
    """A point's topic and what is said of it."""

    topic: Topic
    metadata: PointMetadata | None


@dataclass(frozen=True)
class Catalogue:
    """Which points exist and how they hang together, by what their metadata says.

    An edge of `serves` is from what serves to what is served. `associated` leads from a parent to
    the points that say they are part of it. `media` is what an object passes on, power or fluid.
    `conflicts` are ids that two things claim.
    """

    keys: tuple[str, ...]
    by_object: dict[str, tuple[str, ...]] = field(default_factory=dict)
    by_rack: dict[str, tuple[str, ...]] = field(default_factory=dict)
    associated: dict[str, tuple[str, ...]] = field(default_factory=dict)
    serves: dict[str, tuple[str, ...]] = field(default_factory=dict)
    served_by: dict[str, tuple[str, ...]] = field(default_factory=dict)
    media: dict[str, str] = field(default_factory=dict)
    conflicts: dict[str, str] = field(default_factory=dict)
    heartbeats: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()


class _Groups:
    """Sorted members by the name of their group."""

    def __init__(self) -> None:
        self.settled: dict[str, tuple[str, ...]] = {}
        self._moves: dict[str, dict[str, bool]] = {}

    def move(self, name: str, member: str, *, there: bool) -> None:
        """Note that it has come to a group, or gone from it."""
        self._moves.setdefault(name, {})[member] = there

    def settle(self) -> list[str]:
        """Take all that was noted in; the groups that it changed."""
        changed = list(self._moves)
        for name, moves in self._moves.items():
            members = [one for one in self.settled.get(name, ()) if one not in moves]
            members += [one for one, there in moves.items() if there]
            if members:
                self.settled[name] = tuple(sorted(members))
            else:
                self.settled.pop(name, None)
        self._moves.clear()
        return changed


class Index:
    """The catalogue as it grows; what is known of a key, and its number, it looks up.

    Not thread-safe.
    """

    def __init__(self, described: Callable[[str], Described], number: Callable[[str], int]) -> None:
        self._described = described
        self._number = number
        self._keys: list[str] = []
        self._numbers = array("I")  # of the points, in the order of their keys
        self._new: list[str] = []
        self._objects, self._racks, self._parts = _Groups(), _Groups(), _Groups()
        self._served_by, self._kinds = _Groups(), _Groups()
        self._serves: dict[str, tuple[str, ...]] = {}
        self._media: dict[str, str] = {}
        self._conflicts: dict[str, str] = {}
        self._unsettled: dict[str, None] = {}  # names of things of which a point has changed
        self._catalogue: Catalogue | None = None

    def change(self, key: str, before: Described | None, after: Described) -> None:
        """Note a new point, or what is said of one from now on."""
        self._catalogue = None
        if before is None:
            self._new.append(key)
        left, come = _places(before), _places(after)
        for places, there in ((left - come, False), (come - left, True)):
            for place, name in places:
                self._groups(place).move(name, key, there=there)
        self._unsettled.update((name, None) for place, name in left | come if place in _NAMED)
        if len(self._new) + len(self._unsettled) > MAX_UNSETTLED:
            self._settle()

    def catalogue(self) -> Catalogue:
        """Everything as it stands now; later changes do not touch it."""
        if self._catalogue is None:
            self._settle()
            self._catalogue = Catalogue(
                keys=tuple(self._keys),
                by_object=self._objects.settled.copy(),
                by_rack=self._racks.settled.copy(),
                associated=self._parts.settled.copy(),
                serves=self._serves.copy(),
                served_by=self._served_by.settled.copy(),
                media=self._media.copy(),
                conflicts=self._conflicts.copy(),
                heartbeats=self._kinds.settled.get("heartbeat", ()),
                leaks=self._kinds.settled.get("leak", ()),
            )
        return self._catalogue

    def beyond(self, cursor: str | None) -> Iterable[int]:
        """The numbers of the points whose keys come after this one, in the order of their keys."""
        self._settle_keys()
        start = 0 if cursor is None else bisect_right(self._keys, cursor)
        return islice(self._numbers, start, None)

    def _groups(self, place: str) -> _Groups:
        return {"object": self._objects, "rack": self._racks, "part": self._parts}.get(
            place, self._kinds
        )

    def _settle(self) -> None:
        self._settle_keys()
        for groups in (self._objects, self._racks, self._parts, self._kinds):
            groups.settle()
        for name in self._unsettled:
            self._settle_name(name)
        self._unsettled.clear()
        self._served_by.settle()

    def _settle_keys(self) -> None:
        if len(self._new) <= _FEW:
            for key in self._new:
                at = bisect_right(self._keys, key)
                self._keys.insert(at, key)
                self._numbers.insert(at, self._number(key))
        else:
            self._keys += self._new
            self._keys.sort()
            self._numbers = array("I", map(self._number, self._keys))
        self._new.clear()

    def _settle_name(self, name: str) -> None:
        """Say again what a thing serves, what it passes on, and whether two claim to be it."""
        own = [self._described(key) for key in self._objects.settled.get(name, ())]
        serves = dict.fromkeys(
            served for one in own if one.metadata for served in one.metadata.serves_id
        )
        had = self._serves.pop(name, ())
        for served in had:
            if served not in serves:
                self._served_by.move(served, name, there=False)
        for served in serves.keys() - set(had):
            self._served_by.move(served, name, there=True)
        if serves:
            self._serves[name] = tuple(serves)
        self._media.pop(name, None)
        for one in own:
            if medium := _MEDIUM.get(one.topic.object_type):
                self._media[name] = medium
                break
        racks = (self._described(key) for key in self._racks.settled.get(name, ()))
        claimants = _claimants(own, racks)
        self._conflicts.pop(name, None)
        if len(claimants) > 1:
            said = sorted(claimants)
            self._conflicts[name] = " and ".join(f"{kind} {word!r}" for kind, word in said)


_NAMED = frozenset({"object", "rack"})


def _places(one: Described | None) -> set[tuple[str, str]]:
    """The groups that a point belongs to."""
    places: set[tuple[str, str]] = set()
    if one is None:
        return places
    if one.topic.point_type in HEARTBEATS:
        places.add(("kind", "heartbeat"))
    elif one.topic.point_type == "LeakDetect":
        places.add(("kind", "leak"))
    if (metadata := one.metadata) is not None:
        if metadata.associate_id:
            places.add(("part", metadata.associate_id))
        elif metadata.object_id:
            places.add(("object", metadata.object_id))
        if metadata.rack_location_id:
            places.add(("rack", metadata.rack_location_id))
    return places


def _claimants(own: Iterable[Described], racks: Iterable[Described]) -> set[tuple[str, str]]:
    """Who claims one id; a point that names nobody is of whoever else is of its kind."""
    claims = {
        (f"{one.topic.prefix}{one.topic.object_type}", one.metadata and one.metadata.object_name)
        for one in own
        if one.topic.point_type not in HEARTBEATS | ECHOES
    }
    claims |= {
        (f"{one.topic.prefix}Rack", one.metadata and one.metadata.rack_location_name)
        for one in racks
    }
    named = {(kind, said) for kind, said in claims if said}
    kinds = {kind for kind, _ in named}
    return named | {(kind, "") for kind, said in claims if not said and kind not in kinds}
