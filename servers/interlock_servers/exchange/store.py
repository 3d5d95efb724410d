"""The last that is known of every point: bounded, safe between threads, honest about age."""

import threading
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from interlock_servers.exchange.models import (
    BMS,
    MAX_DETAIL_CHARS,
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

MAX_POINTS = 200_000
MAX_PUBLISHERS = 8  # of one point; the specification has one
EXAMPLE_CHARS = 200
FRESH_S = 250.0  # two and a half times the 100 s in which an unchanged value must return
HEARTBEAT_S = 30.0  # three missed beats of 10 s
HEARTBEATS = frozenset({"HeartbeatTimestampBms", "HeartbeatTimestampIntegration"})
AHEAD_S = 5.0  # how far a source's clock may run before ours


class PointState(StrEnum):
    """Whether the last reading of a point may be used, and if not why not."""

    GOOD = "good"
    NEVER_SEEN = "never_seen"
    NO_METADATA = "no_metadata"
    NO_VALUE = "no_value"
    BAD_QUALITY = "bad_quality"
    STALE = "stale"
    CLOCK_AHEAD = "clock_ahead"
    UNLISTED_STATE = "unlisted_state"
    UNKNOWN_UNIT = "unknown_unit"  # only where a number is converted
    AMBIGUOUS = "ambiguous"  # only where several points claim to be the same


class Point(NamedTuple):
    """What the store holds of one point at one moment.

    `latest` is the last reading of the publisher that owns the point; `last_good` the last of
    those with quality 1 and a value. `foreign` are publishers that wrote it without owning it.
    """

    topic: Topic
    metadata: PointMetadata | None
    metadata_at: datetime | None
    latest: PointValue | None
    last_good: PointValue | None
    foreign: tuple[str, ...]

    def age_s(self, now: datetime) -> float | None:
        """Seconds since the source saw the latest reading; negative where its clock is ahead."""
        return None if self.latest is None else now.timestamp() - self.latest.timestamp_ms / 1000

    def state(self, now: datetime, fresh_s: float = FRESH_S) -> PointState:
        """Whether the latest reading may be used at `now`."""
        value, age_s = self.latest, self.age_s(now)
        if value is None or age_s is None:
            return PointState.NEVER_SEEN
        if self.metadata is None:
            return PointState.NO_METADATA
        if value.quality != 1:
            return PointState.BAD_QUALITY
        if value.value is None:
            return PointState.NO_VALUE
        if age_s < -AHEAD_S:
            return PointState.CLOCK_AHEAD
        if age_s > fresh_s:
            return PointState.STALE
        if self.metadata.state_text and self.metadata.label(value.value) is None:
            return PointState.UNLISTED_STATE
        return PointState.GOOD


class Example(NamedTuple):
    """How often something was seen, and where it was seen last."""

    times: int
    last_topic: str
    last_detail: str
    last_at: datetime


class Catalogue(NamedTuple):
    """Which points exist and how they hang together, by what their metadata says."""

    keys: tuple[str, ...]
    by_object: dict[str, tuple[str, ...]]
    by_rack: dict[str, tuple[str, ...]]
    serves: dict[str, tuple[str, ...]]
    served_by: dict[str, tuple[str, ...]]
    heartbeats: tuple[str, ...]


class _Slot:
    __slots__ = ("good", "latest", "metadata", "metadata_at", "metadata_payload", "topic")

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
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
        self, compatibility: Compatibility = TOLERANT, max_points: int = MAX_POINTS
    ) -> None:
        self._compatibility = compatibility
        self._max_points = max_points
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}
        self._routes: dict[str, _Route] = {}
        self._accepted = 0
        self._last_at: datetime | None = None
        self._rejected: dict[str, Example] = {}
        self._deviations: dict[str, Example] = {}
        self._generation = 0
        self._catalogue: tuple[int, Catalogue] | None = None

    def ingest(self, topic: str, payload: bytes, received_at: datetime, *, retained: bool) -> bool:
        """Take one message in; False where it was rejected, and counted. Never raises."""
        with self._lock:
            try:
                route = self._routes.get(topic) or self._open(topic)
                if route.topic.kind is TopicKind.VALUE:
                    self._take_value(route, topic, payload, received_at, retained)
                else:
                    self._take_metadata(route, topic, payload, received_at)
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

    def points(self, keys: Iterable[str]) -> list[Point]:
        """The points of those keys that exist, in that order."""
        with self._lock:
            return [_view(slot) for key in keys if (slot := self._slots.get(key)) is not None]

    @property
    def generation(self) -> int:
        """Another number whenever the catalogue is another one."""
        return self._generation

    def catalogue(self) -> Catalogue:
        """All keys in order and the relations between objects; rebuilt only after a change."""
        with self._lock:
            if self._catalogue is None or self._catalogue[0] != self._generation:
                self._catalogue = (self._generation, _catalogue(self._slots))
            return self._catalogue[1]

    def _open(self, topic: str) -> _Route:
        """Find or make the place for a topic that was not seen before."""
        parsed = parse_topic(topic)
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
        if slot.metadata is not None and slot.metadata.owner != publisher:
            deviations += (Deviation.FOREIGN_VALUE,)
        if deviations:
            value = value._replace(deviations=deviations)
            for deviation in deviations:
                _count(self._deviations, deviation, topic, "", received_at)
        slot.latest[publisher] = value
        if value.quality == 1 and value.value is not None:
            slot.good[publisher] = value

    def _take_metadata(
        self, route: _Route, topic: str, payload: bytes, received_at: datetime
    ) -> None:
        slot = route.slot
        if not payload:  # how MQTT takes a retained message back
            if slot.metadata is not None:
                slot.metadata, slot.metadata_payload = None, b""
                self._generation += 1
            return
        if payload != slot.metadata_payload:
            metadata = parse_metadata(payload, route.topic, self._compatibility)
            self._keep(topic, route)
            slot.metadata, slot.metadata_payload = metadata, payload
            self._generation += 1
            for deviation in metadata.deviations:
                _count(self._deviations, deviation, topic, "", received_at)
        slot.metadata_at = received_at


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
    )


def _catalogue(slots: dict[str, _Slot]) -> Catalogue:
    by_object: dict[str, list[str]] = {}
    by_rack: dict[str, list[str]] = {}
    serves: dict[str, dict[str, None]] = {}
    served_by: dict[str, dict[str, None]] = {}
    for key in sorted(slots):
        metadata = slots[key].metadata
        if metadata is None:
            continue
        if metadata.object_id:
            by_object.setdefault(metadata.object_id, []).append(key)
            for served in metadata.serves_id:
                serves.setdefault(metadata.object_id, {})[served] = None
                served_by.setdefault(served, {})[metadata.object_id] = None
        if metadata.rack_location_id:
            by_rack.setdefault(metadata.rack_location_id, []).append(key)
    return Catalogue(
        tuple(sorted(slots)),
        {name: tuple(keys) for name, keys in by_object.items()},
        {name: tuple(keys) for name, keys in by_rack.items()},
        {name: tuple(others) for name, others in serves.items()},
        {name: tuple(others) for name, others in served_by.items()},
        tuple(key for key in sorted(slots) if slots[key].topic.point_type in HEARTBEATS),
    )
