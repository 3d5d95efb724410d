"""One point as it stands at one moment, and whether its last reading may be used."""

import math
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from interlock_servers.exchange.models import PointMetadata, PointValue, Topic

FRESH_S = 250.0  # two and a half times the 100 s in which an unchanged value must return
HEARTBEAT_S = 30.0  # three missed beats of 10 s
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
    CONTRADICTED = "contradicted"
    MEANING_CHANGED = "meaning_changed"


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
    remeant: bool = False  # what it means has changed, and it has said nothing since

    def age_s(self, now: datetime) -> float | None:
        """Seconds since the source saw the latest reading; negative where its clock is ahead."""
        return None if self.latest is None else now.timestamp() - self.latest.timestamp_ms / 1000

    def state(self, now: datetime, fresh_s: float = FRESH_S) -> PointState:
        """Whether the latest reading may be used at `now`."""
        lasting, age_s = standing(self.metadata, self.latest, self.remeant), self.age_s(now)
        if lasting is not None or age_s is None:
            return lasting or PointState.NEVER_SEEN
        if age_s < -AHEAD_S:
            return PointState.CLOCK_AHEAD
        return PointState.STALE if age_s > fresh_s else PointState.GOOD


def ages_s(state: PointState, fresh_s: float) -> tuple[float, float] | None:
    """The least and the greatest age of a reading in this state; None where age has no part."""
    return {
        PointState.CLOCK_AHEAD: (-math.inf, math.nextafter(-AHEAD_S, -math.inf)),
        PointState.GOOD: (-AHEAD_S, fresh_s),
        PointState.STALE: (math.nextafter(fresh_s, math.inf), math.inf),
    }.get(state)


def standing(
    metadata: PointMetadata | None, latest: PointValue | None, remeant: bool
) -> PointState | None:
    """Why a reading may not be used at any age; None where its age alone decides."""
    if latest is None:
        return PointState.MEANING_CHANGED if remeant else PointState.NEVER_SEEN
    if metadata is None:
        return PointState.NO_METADATA
    if metadata.contradiction is not None:
        return PointState.CONTRADICTED
    if latest.quality != 1:
        return PointState.BAD_QUALITY
    if latest.value is None:
        return PointState.NO_VALUE
    if metadata.state_text and metadata.label(latest.value) is None:
        return PointState.UNLISTED_STATE
    return None


class Example(NamedTuple):
    """How often something was seen, and where it was seen last."""

    times: int
    last_topic: str
    last_detail: str
    last_at: datetime


class Kept(NamedTuple):
    """A metadata message as it came."""

    topic: str
    payload: bytes
    retained: bool
    received_at: datetime
