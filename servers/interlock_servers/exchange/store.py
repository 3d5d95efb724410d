"""The last that is known of every point: bounded, safe between threads, honest about age."""

import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from interlock_servers.exchange.catalogue import Catalogue, Described, Index
from interlock_servers.exchange.columns import Columns, Wanted
from interlock_servers.exchange.events import EVENT_OF, EventKind, EventRing
from interlock_servers.exchange.history import MAX_SAMPLES, Budget, Sample
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
    standing,
)
from interlock_servers.exchange.reasons import MAX_DETAIL_CHARS
from interlock_servers.exchange.slot import NOTHING, Shared, Slot, repeats, whose
from interlock_servers.exchange.topics import MAX_TOPIC_CHARS, OtherTopic, parse_other

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
MAX_SENDERS = 1000
MAX_METADATA_BYTES = 134_217_728  # of all points: twice what the event bus keeps of a stream
EXAMPLE_CHARS = 200


class _Sender(NamedTuple):
    prefix: str
    publisher: str


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
        self._slots: dict[str, Slot] = {}
        self._senders: dict[str, _Sender] = {}
        self._shared = Shared()
        self._columns = Columns()
        self._numbered: list[Slot] = []
        self._metadata_bytes = 0
        self._accepted = self._others = 0
        self._last_at: datetime | None = None
        self._rejected: dict[str, Example] = {}
        self._deviations: dict[str, Example] = {}
        self._generation = 0
        self._index = Index(
            lambda key: _described(self._slots[key]), lambda key: self._slots[key].number
        )

    def ingest(self, topic: str, payload: bytes, received_at: datetime, *, retained: bool) -> bool:
        """Take one message in; False where it was rejected, and counted. Never raises."""
        with self._lock:
            try:
                sender, slot = self._known(topic)
                if sender is not None and slot is not None:
                    self._take_value(slot, sender.publisher, topic, payload, received_at, retained)
                elif (other := parse_other(topic)) is not None:
                    self._take_other(other, topic, payload, received_at)
                    return True
                else:
                    self._take(topic, payload, received_at, retained)
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
            return None if slot is None else slot.view()

    def described(self, key: str) -> tuple[str, datetime | None]:
        """The topic on which a point was last described, and when that was said, not replayed.

        The moment is None while nothing but what a broker kept is known of it.
        """
        with self._lock:
            slot = self._slots.get(key)
            return ("", None) if slot is None else (slot.topic.metadata_topic, slot.live_at)

    def points(self, keys: Iterable[str]) -> list[Point]:
        """The points of those keys that exist, in that order."""
        with self._lock:
            return [slot.view() for key in keys if (slot := self._slots.get(key)) is not None]

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
                kept = None if slot is None else slot.kept()
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
        """All keys in order and the relations between objects, as they stand now."""
        with self._lock:
            return self._index.catalogue()

    def each(self, keys: Iterable[str]) -> Iterator[Point]:
        """The points of those keys that exist, each as it stands when it is its turn."""
        for key in keys:
            if (point := self.point(key)) is not None:
                yield point

    def find(self, wanted: Wanted, cursor: str | None, count: int) -> list[Point]:
        """The first points beyond the cursor that are wanted, in the order of their keys."""
        with self._lock:
            numbers = self._index.beyond(cursor)
            found = self._columns.first(numbers, wanted, count)
            return [self._numbered[number].view() for number in found]

    def _known(self, topic: str) -> tuple[_Sender | None, Slot | None]:
        """Whose value of which point it is, where both were heard before; that is most of all."""
        head, _, tail = topic.partition("/Value/")
        sender = self._senders.get(head)
        if sender is None or len(topic) > MAX_TOPIC_CHARS:
            return None, None
        slot = self._slots.get(sender.prefix + tail)
        return (None, None) if slot is None or slot.kind.older else (sender, slot)

    def _take(self, topic: str, payload: bytes, received_at: datetime, retained: bool) -> None:
        """Take in what is metadata, or the first value of a point or of a publisher."""
        parsed = parse_topic(topic, self._compatibility)
        slot = self._slots.get(parsed.key)
        if slot is None:
            if len(self._slots) >= self._max_points:
                raise RejectedError(Reason.STORE_FULL, f"{self._max_points} points are known")
            slot = Slot(parsed.key, self._shared.kind(parsed))
        elif slot.kind.older != parsed.older:
            raise RejectedError(Reason.TOPIC_GRAMMAR, "another grammar has a point of this name")
        if parsed.kind is TopicKind.VALUE:
            self._take_value(slot, parsed.publisher, topic, payload, received_at, retained)
            if not parsed.older and len(self._senders) < MAX_SENDERS:
                sender = _Sender(parsed.prefix, parsed.publisher)
                self._senders.setdefault(parsed.sender, sender)
        else:
            self._take_metadata(slot, parsed, payload, received_at, retained)

    def _keep(self, slot: Slot) -> None:
        """Remember a place once a message for it was accepted; nonsense takes no room."""
        key = slot.key
        if key not in self._slots:
            self._slots[key] = slot
            self._numbered.append(slot)
            slot.number = self._columns.add(slot.topic)
            self._index.change(key, None, Described(slot.topic, None))
            self._generation += 1

    def _take_value(
        self,
        slot: Slot,
        publisher: str,
        topic: str,
        payload: bytes,
        received_at: datetime,
        retained: bool,
    ) -> None:
        value = parse_value(payload, self._compatibility)
        owned = publisher == slot.owner
        before, good = (slot.latest, slot.good) if owned else slot.others.get(publisher, NOTHING)
        if before is None:
            if not owned and len(slot.others) >= MAX_PUBLISHERS - 1:
                raise RejectedError(Reason.STORE_FULL, "the point has too many publishers")
        elif value.timestamp_ms < before.timestamp_ms:
            # Unless what we hold is of the future: that clock was wrong, not this one.
            ahead_s = before.timestamp_ms / 1000 - received_at.timestamp()
            if ahead_s <= AHEAD_S:
                raise RejectedError(Reason.OUT_OF_ORDER, "older than the reading that is known")
        if value.timestamp_ms < slot.remeant_ms:
            raise RejectedError(Reason.OUT_OF_ORDER, "older than what the point means now")
        deviations = value.deviations
        if retained:
            deviations += (Deviation.VALUE_RETAINED,)
        if not owned and slot.metadata is not None:
            deviations += (Deviation.FOREIGN_VALUE,)
        if deviations:
            value = value._replace(deviations=deviations)
            for deviation in deviations:
                _count(self._deviations, deviation, topic, "", received_at)
        if before is None:
            self._keep(slot)
        slot.hear(publisher, value)
        if owned and not repeats(before, value):
            self._judge(slot)
            slot.ring.add(value.timestamp_ms, value.value, value.quality, self._samples)
            if good is not None and good.value != value.value and slot.metadata is not None:
                self._tell_state(slot, slot.metadata, good, value, received_at)

    def _tell_state(
        self,
        slot: Slot,
        metadata: PointMetadata,
        before: PointValue,
        value: PointValue,
        at: datetime,
    ) -> None:
        """Put the change of a state that may be believed on the ring."""
        if not metadata.state_text or before.value is None or value.value is None:
            return
        if slot.view().state(at) is not PointState.GOOD:
            return
        kind = EVENT_OF.get(slot.kind.point_type, EventKind.STATE)
        after = metadata.label(value.value) or f"{value.value:g}"
        said = metadata.label(before.value) or f"{before.value:g}"
        self.events.add(kind, slot.key, said, after, at)

    def _take_other(self, other: OtherTopic, topic: str, payload: bytes, at: datetime) -> None:
        for deviation in self.machines.take(other, payload, at):
            _count(self._deviations, deviation, topic, "", at)
        self._others += 1
        self._last_at = at

    def _take_metadata(
        self, slot: Slot, topic: Topic, payload: bytes, received_at: datetime, retained: bool
    ) -> None:
        if not payload:  # how MQTT takes a retained message back
            if slot.metadata is not None:
                self._describe(slot, None, b"")
            return
        if payload != slot.payload:
            if retained and self._said_lately(slot, received_at):
                raise RejectedError(Reason.RETAINED_CONFLICT, "other words were said since")
            metadata = parse_metadata(payload, topic, self._compatibility)
            more_bytes = len(payload) - len(slot.payload)
            if more_bytes > 0 and self._metadata_bytes + more_bytes > MAX_METADATA_BYTES:
                raise RejectedError(Reason.STORE_FULL, f"{MAX_METADATA_BYTES} bytes of metadata")
            self._keep(slot)
            self._mean(slot, self._shared.metadata(metadata), received_at)
            self._describe(slot, slot.meant, payload)
            for deviation in metadata.deviations:
                _count(self._deviations, deviation, slot.topic.metadata_topic, "", received_at)
        slot.metadata_at, slot.retained = received_at, retained
        if not retained:
            slot.live_at = received_at

    def _describe(self, slot: Slot, metadata: PointMetadata | None, payload: bytes) -> None:
        """Keep what is said of a point, or that it was taken back, and tell the catalogue."""
        before = _described(slot)
        self._metadata_bytes += len(payload) - len(slot.payload)
        slot.metadata, slot.payload = metadata, payload
        if metadata is None:
            slot.live_at = None
        elif slot.kind.older:
            slot.kind = slot.kind._replace(
                object_type=metadata.object_type, point_type=metadata.point_type
            )
            self._columns.set_kind(slot.number, slot.topic)
        slot.give_to(BMS if metadata is None else metadata.owner, MAX_PUBLISHERS - 1)
        self._judge(slot)
        self._index.change(slot.key, before, _described(slot))
        self._generation += 1

    def _judge(self, slot: Slot) -> None:
        """Say again how a point stands, once a part of that has changed."""
        latest = slot.latest
        lasting = standing(slot.metadata, latest, slot.remeant_ms > 0)
        self._columns.judge(slot.number, lasting, 0 if latest is None else latest.timestamp_ms)

    def _said_lately(self, slot: Slot, at: datetime) -> bool:
        """Whether its metadata was said, not only kept, so lately that it outweighs what was kept.

        A broker may have kept words of another time; what is right comes again within 100 s.
        """
        return slot.live_at is not None and (at - slot.live_at).total_seconds() <= FRESH_S

    def _mean(self, slot: Slot, metadata: PointMetadata, at: datetime) -> None:
        """Give the point this meaning; readings that came under another no longer count."""
        before, slot.meant = slot.meant, metadata
        if before is None:
            return
        if before.meaning != metadata.meaning:
            slot.forget(at)
            slot.ring.clear(self._samples)
            topic, key = slot.topic.metadata_topic, slot.key
            _count(self._deviations, Deviation.MEANING_CHANGED, topic, "", at)
            said = f"{before.eng_unit or 'states'} of {whose(before)}"
            now = f"{metadata.eng_unit or 'states'} of {whose(metadata)}"
            self.events.add(EventKind.MEANING, key, said, now, at)
        elif before.owner != metadata.owner:
            slot.ring.clear(self._samples)


def _count(counters: dict[str, Example], name: str, topic: str, detail: str, at: datetime) -> None:
    before = counters.get(name)
    counters[name] = Example(
        1 if before is None else before.times + 1,
        topic[:EXAMPLE_CHARS],
        detail[:MAX_DETAIL_CHARS],
        at,
    )


def _described(slot: Slot) -> Described:
    return Described(slot.topic, slot.metadata)
