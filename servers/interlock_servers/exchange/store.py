"""The last that is known of every point: bounded, safe between threads, honest about age."""

import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from interlock_servers.exchange.catalogue import Catalogue, catalogue_of
from interlock_servers.exchange.events import EVENT_OF, EventKind, EventRing
from interlock_servers.exchange.history import MAX_SAMPLES, Budget, Ring, Sample
from interlock_servers.exchange.models import (
    BMS,
    TOLERANT,
    Compatibility,
    Deviation,
    PointMetadata,
    PointValue,
    Reason,
    RejectedError,
    Topic,
    TopicKind,
    parse_metadata,
    parse_topic,
    parse_value,
)
from interlock_servers.exchange.others import Machines
from interlock_servers.exchange.points import (
    AHEAD_S,
    FRESH_S,
    HEARTBEAT_S,
    Example,
    Kept,
    Point,
    PointState,
)
from interlock_servers.exchange.reasons import MAX_DETAIL_CHARS
from interlock_servers.exchange.topics import OtherTopic, parse_other
from interlock_servers.plant_text import plant_text

__all__ = [
    "AHEAD_S",
    "FRESH_S",
    "HEARTBEAT_S",
    "Catalogue",
    "Example",
    "Point",
    "PointState",
    "PointStore",
]

MAX_POINTS = 200_000
MAX_PUBLISHERS = 8  # of one point; the specification has one
EXAMPLE_CHARS = 200


class _Slot:
    __slots__ = (
        "good",
        "latest",
        "live_at",
        "meant",
        "metadata",
        "metadata_at",
        "metadata_payload",
        "metadata_retained",
        "metadata_topic",
        "owner",
        "remeant",
        "ring",
        "topic",
    )

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.owner = BMS
        self.ring = Ring()
        self.remeant = False
        self.live_at: datetime | None = None  # when its metadata was last said, not replayed
        self.meant: PointMetadata | None = None
        self.metadata_retained = False
        self.metadata_topic = ""
        self.metadata: PointMetadata | None = None
        self.metadata_payload = b""
        self.metadata_at: datetime | None = None
        self.latest: dict[str, PointValue] = {}
        self.good: dict[str, PointValue] = {}


class _Route(NamedTuple):
    slot: _Slot
    topic: Topic


class PointStore:
    """Every point of a site by its key, as its messages came in.

    `ingest` may be called from the network's thread; reads may be called from any other. Nothing
    is ever evicted: when the store is full a new point is rejected, a known one goes on.
    """

    def __init__(
        self,
        compatibility: Compatibility = TOLERANT,
        max_points: int = MAX_POINTS,
        max_samples: int = MAX_SAMPLES,
    ) -> None:
        self.events = EventRing()
        self.machines = Machines(self.events)
        self._samples = Budget(max_samples)
        self._compatibility = compatibility
        self._max_points = max_points
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}
        self._routes: dict[str, _Route] = {}
        self._accepted = self._others = 0
        self._last_at: datetime | None = None
        self._rejected: dict[str, Example] = {}
        self._deviations: dict[str, Example] = {}
        self._generation = 0
        self._catalogue: tuple[int, Catalogue] | None = None

    def ingest(self, topic: str, payload: bytes, received_at: datetime, *, retained: bool) -> bool:
        """Take one message in; False where it was rejected, and counted. Never raises."""
        with self._lock:
            try:
                route = self._routes.get(topic)
                if route is None:
                    if (other := parse_other(topic)) is not None:
                        self._take_other(other, topic, payload, received_at)
                        return True
                    route = self._open(topic)
                if route.topic.kind is TopicKind.VALUE:
                    self._take_value(route, topic, payload, received_at, retained)
                else:
                    self._take_metadata(route, topic, payload, received_at, retained)
            except RejectedError as error:
                _count(self._rejected, error.reason, topic, error.detail, received_at)
                return False
            self._accepted += 1
            self._last_at = received_at
            return True

    @property
    def accepted(self) -> int:
        """How many messages were taken in."""
        return self._accepted

    @property
    def others(self) -> int:
        """How many messages of other spaces than the BMS were taken in."""
        return self._others

    @property
    def last_message_at(self) -> datetime | None:
        """When the last message that we could use came in, by our clock."""
        return self._last_at

    @property
    def rejected(self) -> dict[str, Example]:
        """Rejected messages by reason, each with the last example."""
        with self._lock:
            return dict(self._rejected)

    @property
    def deviations(self) -> dict[str, Example]:
        """Accepted departures from the specification by kind, each with the last example."""
        with self._lock:
            return dict(self._deviations)

    def __len__(self) -> int:
        return len(self._slots)

    def point(self, key: str) -> Point | None:
        """One point by its key, or None where nothing was ever heard of it."""
        with self._lock:
            slot = self._slots.get(key)
            return None if slot is None else _view(slot)

    def described(self, key: str) -> tuple[str, datetime | None]:
        """The topic on which a point was last described, and when that was said, not replayed.

        The moment is None while nothing but what a broker kept is known of it.
        """
        with self._lock:
            slot = self._slots.get(key)
            return ("", None) if slot is None else (slot.metadata_topic, slot.live_at)

    def points(self, keys: Iterable[str]) -> list[Point]:
        """The points of those keys that exist, in that order."""
        with self._lock:
            return [_view(slot) for key in keys if (slot := self._slots.get(key)) is not None]

    def samples(self, key: str) -> list[Sample]:
        """What the point said lately, oldest first; only what its owner said."""
        with self._lock:
            slot = self._slots.get(key)
            return [] if slot is None else slot.ring.samples()

    def retained(self, wanted: Callable[[str], bool], limit: int) -> list[Kept]:
        """Up to `limit` + 1 metadata messages as they came, of the topics that are wanted."""
        found: list[Kept] = []
        for key in self.catalogue().keys:
            with self._lock:
                slot = self._slots.get(key)
                kept = None if slot is None else _kept(slot)
            if kept is not None and wanted(kept.topic):
                found.append(kept)
                if len(found) > limit:
                    break
        return found

    @property
    def generation(self) -> int:
        """Another number whenever the catalogue is another one."""
        return self._generation

    def catalogue(self) -> Catalogue:
        """All keys in order and the relations between objects; rebuilt only after a change."""
        with self._lock:
            if self._catalogue is None or self._catalogue[0] != self._generation:
                described = ((key, slot.topic, slot.metadata) for key, slot in self._slots.items())
                self._catalogue = (self._generation, catalogue_of(described))
            return self._catalogue[1]

    def _open(self, topic: str) -> _Route:
        """Find or make the place for a topic that was not seen before."""
        parsed = parse_topic(topic, self._compatibility)
        slot = self._slots.get(parsed.key)
        if slot is None:
            if len(self._slots) >= self._max_points:
                raise RejectedError(Reason.STORE_FULL, f"{self._max_points} points are known")
            slot = _Slot(parsed)
        return _Route(slot, parsed)

    def _keep(self, topic: str, route: _Route) -> None:
        """Remember a place once a message for it was accepted; nonsense takes no room."""
        self._routes[topic] = route
        key = route.topic.key
        if key not in self._slots:
            self._slots[key] = route.slot
            self._generation += 1

    def _take_value(
        self, route: _Route, topic: str, payload: bytes, received_at: datetime, retained: bool
    ) -> None:
        value = parse_value(payload, self._compatibility)
        slot, publisher = route.slot, route.topic.publisher
        before = slot.latest.get(publisher)
        if before is None:
            if len(slot.latest) >= MAX_PUBLISHERS:
                raise RejectedError(Reason.STORE_FULL, "the point has too many publishers")
            self._keep(topic, route)
        elif value.timestamp_ms < before.timestamp_ms:
            # Unless what we hold is of the future: that clock was wrong, not this one.
            ahead_s = before.timestamp_ms / 1000 - received_at.timestamp()
            if ahead_s <= AHEAD_S:
                raise RejectedError(Reason.OUT_OF_ORDER, "older than the reading that is known")
        deviations = value.deviations
        if retained:
            deviations += (Deviation.VALUE_RETAINED,)
        if slot.owner != publisher and slot.metadata is not None:
            deviations += (Deviation.FOREIGN_VALUE,)
        if deviations:
            value = value._replace(deviations=deviations)
            for deviation in deviations:
                _count(self._deviations, deviation, topic, "", received_at)
        slot.latest[publisher] = value
        good = slot.good.get(publisher)
        if value.quality == 1 and value.value is not None:
            slot.good[publisher] = value
        if publisher == slot.owner and not _repeats(before, value):
            slot.remeant = False
            slot.ring.add(value.timestamp_ms, value.value, value.quality, self._samples)
            if good is not None and good.value != value.value and slot.metadata is not None:
                self._tell_state(slot, slot.metadata, good, value, received_at)

    def _tell_state(
        self,
        slot: _Slot,
        metadata: PointMetadata,
        before: PointValue,
        value: PointValue,
        at: datetime,
    ) -> None:
        """Put the change of a state that may be believed on the ring."""
        if not metadata.state_text or before.value is None or value.value is None:
            return
        if _view(slot).state(at) is not PointState.GOOD:
            return
        kind = EVENT_OF.get(slot.topic.point_type, EventKind.STATE)
        after = metadata.label(value.value) or f"{value.value:g}"
        said = metadata.label(before.value) or f"{before.value:g}"
        self.events.add(kind, slot.topic.key, said, after, at)

    def _take_other(self, other: OtherTopic, topic: str, payload: bytes, at: datetime) -> None:
        for deviation in self.machines.take(other, payload, at):
            _count(self._deviations, deviation, topic, "", at)
        self._others += 1
        self._last_at = at

    def _take_metadata(
        self, route: _Route, topic: str, payload: bytes, received_at: datetime, retained: bool
    ) -> None:
        slot = route.slot
        if not payload:  # how MQTT takes a retained message back
            if slot.metadata is not None:
                slot.metadata, slot.metadata_payload, slot.live_at = None, b"", None
                slot.owner = BMS
                self._generation += 1
            return
        if payload != slot.metadata_payload:
            if retained and self._said_lately(slot, received_at):
                raise RejectedError(Reason.RETAINED_CONFLICT, "other words were said since")
            metadata = parse_metadata(payload, route.topic, self._compatibility)
            self._keep(topic, route)
            self._mean(slot, metadata, topic, received_at)
            slot.metadata_payload = payload
            self._generation += 1
            for deviation in metadata.deviations:
                _count(self._deviations, deviation, topic, "", received_at)
        slot.metadata_at, slot.metadata_retained = received_at, retained
        slot.metadata_topic = topic
        if not retained:
            slot.live_at = received_at

    def _said_lately(self, slot: _Slot, at: datetime) -> bool:
        """Whether its metadata was said, not only kept, so lately that it outweighs what was kept.

        A broker may have kept words of another time; what is right comes again within 100 s.
        """
        return slot.live_at is not None and (at - slot.live_at).total_seconds() <= FRESH_S

    def _mean(self, slot: _Slot, metadata: PointMetadata, topic: str, at: datetime) -> None:
        """Give the point this meaning; readings that came under another no longer count."""
        before, slot.meant = slot.meant, metadata  # what it meant before it was taken back, too
        slot.metadata, slot.owner = metadata, metadata.owner
        if slot.topic.older:
            slot.topic = slot.topic._replace(
                object_type=metadata.object_type, point_type=metadata.point_type
            )
        if before is not None and before.meaning != metadata.meaning:
            slot.latest.clear()
            slot.good.clear()
            slot.ring.clear(self._samples)
            slot.remeant = True
            _count(self._deviations, Deviation.MEANING_CHANGED, topic, "", at)
            said = f"{before.eng_unit or 'states'} of {_whose(before)}"
            now = f"{metadata.eng_unit or 'states'} of {_whose(metadata)}"
            self.events.add(EventKind.MEANING, slot.topic.key, said, now, at)
        elif before is not None and before.owner != metadata.owner:
            slot.ring.clear(self._samples)


def _repeats(before: PointValue | None, value: PointValue) -> bool:
    """Whether it says again what was said: a replay, or a broker's second copy."""
    return (
        before is not None
        and before.timestamp_ms == value.timestamp_ms
        and before.value == value.value
        and before.quality == value.quality
    )


def _count(counters: dict[str, Example], name: str, topic: str, detail: str, at: datetime) -> None:
    before = counters.get(name)
    counters[name] = Example(
        1 if before is None else before.times + 1,
        topic[:EXAMPLE_CHARS],
        detail[:MAX_DETAIL_CHARS],
        at,
    )


def _view(slot: _Slot) -> Point:
    owner = BMS if slot.metadata is None else slot.metadata.owner
    return Point(
        slot.topic,
        slot.metadata,
        slot.metadata_at,
        slot.latest.get(owner),
        slot.good.get(owner),
        tuple(sorted(publisher for publisher in slot.latest if publisher != owner)),
        slot.remeant,
    )


def _kept(slot: _Slot) -> Kept | None:
    if slot.metadata is None or slot.metadata_at is None:
        return None
    return Kept(
        slot.metadata_topic, slot.metadata_payload, slot.metadata_retained, slot.metadata_at
    )


def _whose(metadata: PointMetadata) -> str:
    whose = metadata.rack_location_id or metadata.object_id or metadata.associate_id
    return plant_text(whose or "nobody", 80)
