"""What the store keeps of one point: small, because there are two hundred thousand of them."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from interlock_servers.exchange.history import Ring
from interlock_servers.exchange.models import BMS, PointMetadata, PointValue, Topic
from interlock_servers.exchange.points import Kept, Point
from interlock_servers.plant_text import plant_text

MAX_SHARED = 100_000  # of one field; beyond that sharing begins afresh
_NOBODY: Mapping[str, "Voice"] = MappingProxyType({})


class Voice(NamedTuple):
    """What a publisher said last, and last with quality 1 and a value."""

    latest: PointValue | None
    good: PointValue | None


NOTHING = Voice(None, None)


class Slot:
    """One point. `latest` and `good` are its owner's; `others` is what everybody else said.

    `kind` is its topic without its key: many points share it.
    """

    __slots__ = (
        "good",
        "key",
        "kind",
        "latest",
        "live_at",
        "meant",
        "metadata",
        "metadata_at",
        "number",
        "others",
        "owner",
        "payload",
        "remeant_ms",
        "retained",
        "ring",
    )

    def __init__(self, key: str, kind: Topic) -> None:
        self.key = key
        self.kind = kind
        self.owner = BMS
        self.latest: PointValue | None = None
        self.good: PointValue | None = None
        self.others: Mapping[str, Voice] = _NOBODY
        self.remeant_ms = 0  # since when it means what it means, where that was something else
        self.number = -1  # among the columns, once it is kept
        self.ring = Ring()
        self.metadata: PointMetadata | None = None
        self.meant: PointMetadata | None = None  # what it meant before it was taken back, too
        self.payload = b""
        self.metadata_at: datetime | None = None
        self.retained = False
        self.live_at: datetime | None = None  # when its metadata was last said, not replayed

    @property
    def topic(self) -> Topic:
        """The topic of its first message."""
        cpc, publisher, kind, object_type, point_type, _, older = self.kind
        return Topic(cpc, publisher, kind, object_type, point_type, self.key, older)

    def hear(self, publisher: str, value: PointValue) -> None:
        """Keep what a publisher said."""
        good = value if value.quality == 1 and value.value is not None else None
        if publisher == self.owner:
            self.latest, self.good = value, good or self.good
        else:
            before = self.others.get(publisher)
            voice = Voice(value, good or (before and before.good))
            self.others = {**self.others, publisher: voice}

    def give_to(self, owner: str, max_others: int) -> None:
        """Let another publisher own it; what each of them said goes with them."""
        if owner == self.owner:
            return
        others = dict(self.others)
        latest, good = others.pop(owner, NOTHING)
        if self.latest is not None and len(others) < max_others:
            others[self.owner] = Voice(self.latest, self.good)
        self.owner, self.latest, self.good, self.others = owner, latest, good, others or _NOBODY

    def forget(self, at: datetime) -> None:
        """Drop what anybody said: it came under another meaning than from now on."""
        self.latest = self.good = None
        self.others = _NOBODY
        self.remeant_ms = int(at.timestamp() * 1000)

    def view(self) -> Point:
        """The point at this moment."""
        foreign = tuple(sorted(self.others)) if self.others else ()
        return Point(
            self.topic,
            self.metadata,
            self.metadata_at,
            self.latest,
            self.good,
            foreign,
            self.remeant_ms > 0,
        )

    def kept(self) -> Kept | None:
        """Its metadata as it came; None where there is none."""
        if self.metadata is None or self.metadata_at is None:
            return None
        return Kept(self.topic.metadata_topic, self.payload, self.retained, self.metadata_at)


class Shared:
    """Gives equal parts one place in memory: many points say the same words."""

    def __init__(self) -> None:
        self._kinds: dict[Any, Any] = {}
        self._known: tuple[dict[Any, Any], ...] = tuple({} for _ in PointMetadata._fields)

    def metadata(self, said: PointMetadata) -> PointMetadata:
        """The same, made of parts that others have too."""
        return PointMetadata._make(map(_one, self._known, said))

    def kind(self, topic: Topic) -> Topic:
        """The topic without its key, as others have it too."""
        kind: Topic = _one(self._kinds, topic._replace(key=""))
        return kind


def repeats(before: PointValue | None, value: PointValue) -> bool:
    """Whether it says again what was said: a replay, or a broker's second copy."""
    return (
        before is not None
        and before.timestamp_ms == value.timestamp_ms
        and before.value == value.value
        and before.quality == value.quality
    )


def whose(metadata: PointMetadata) -> str:
    """Which rack or object it is of, for people."""
    named = metadata.rack_location_id or metadata.object_id or metadata.associate_id
    return plant_text(named or "nobody", 80)


def _one(known: dict[Any, Any], part: Any) -> Any:
    if len(known) >= MAX_SHARED:
        known.clear()
    return known.setdefault(part, part)
