"""What a caller gets: readings with their age, and why where there is none."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from interlock_servers.exchange.models import Deviation
from interlock_servers.exchange.points import Example, Point, PointState
from interlock_servers.plant_text import plant_text

MeterKind = Literal["site", "feed", "pdu", "rack"]

MAX_WHY_CHARS = 400
_W_PER_UNIT = {"W": 1.0, "kW": 1e3, "MW": 1e6}  # exact: mW is not MW

_WHY = {
    PointState.NEVER_SEEN: "no value was ever seen",
    PointState.NO_METADATA: "its metadata was not seen, so its value means nothing yet",
    PointState.NO_VALUE: "the BMS says that it has no valid reading",
    PointState.MEANING_CHANGED: "what it means has changed, and it has said nothing since",
    PointState.UNLISTED_STATE: "its value is none of the states that its metadata lists",
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BusState(_Frozen):
    """Whether the bus is there; `stale_since` is when we last heard of it, if it is not."""

    connected: bool
    broker: str | None
    stale_since: datetime | None
    last_error: str | None


class Answer(_Frozen):
    """Base of every answer: the moment up to which the bus was heard, and whether it still is."""

    observed_at: datetime
    bus: BusState


class Reading(_Frozen):
    """One point. `value` is None unless `state` is good; `last_good_value` says what it was."""

    key: str
    object_type: str
    point_type: str
    publisher: str
    object_id: str | None
    object_name: str | None
    rack_location_id: str | None
    associate_id: str | None
    process_area: tuple[str, ...]
    is_setpoint: bool
    unit: str | None
    value: float | None
    label: str | None
    state: PointState
    why: str | None
    measured_at: datetime | None
    age_s: float | None
    last_good_value: float | None
    last_good_at: datetime | None
    deviations: tuple[Deviation, ...]
    foreign_publishers: tuple[str, ...]


class PointPage(Answer):
    """Some of the points that match; `next_cursor` leads to the rest."""

    points: tuple[Reading, ...]
    next_cursor: str | None


class Power(_Frozen):
    """What a meter says. `power_w` is None wherever the reading may not be used; `why` says so."""

    kind: MeterKind
    id: str
    power_w: float | None
    state: PointState
    why: str | None
    measured_at: datetime | None
    timestamp_ms: int | None
    age_s: float | None
    key: str | None
    unit: str | None


class PowerAnswer(Answer):
    """The power of one site, feed, PDU or rack."""

    power: Power


class Rack(Answer):
    """All points of one rack location, its power and the meters and equipment that serve it."""

    rack_location_id: str
    name: str | None
    power: Power
    points: tuple[Reading, ...]
    served_by: tuple[str, ...]


class Meter(Answer):
    """All points of one object, and what it serves and is served by."""

    object_id: str
    name: str | None
    points: tuple[Reading, ...]
    serves: tuple[str, ...]
    served_by: tuple[str, ...]


class Node(_Frozen):
    """One thing of the power or coolant path; `distance` is in steps from where one asked.

    `lost`: whether it loses power or coolant altogether when the start fails; None upwards.
    """

    id: str
    kind: Literal["meter", "equipment", "rack", "unknown"]
    distance: int
    lost: bool | None = None


class Topology(Answer):
    """What an object reaches through `servesId`; an edge is (what serves, what is served)."""

    id: str
    direction: Literal["down", "up"]
    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    truncated: bool
    warnings: tuple[str, ...] = ()


class Heartbeat(_Frozen):
    """The life sign of one BMS client or integration; `alive` is None where it cannot be told."""

    kind: Literal["bms", "integration"]
    publisher: str
    object_id: str | None
    scope: str | None
    alive: bool | None
    last_beat_at: datetime | None
    last_beat_age_s: float | None
    why: str | None


class Heartbeats(Answer):
    """Every life sign, and whether all clients of the BMS give one (None: cannot be told)."""

    bms_alive: bool | None
    why: str | None
    beats: tuple[Heartbeat, ...]


class Ingest(Answer):
    """What came in, what was rejected and why, and which liberties were taken."""

    points: int
    accepted: int
    rejected: dict[str, Example]
    deviations: dict[str, Example]


def reading(point: Point, now: datetime, fresh_s: float) -> Reading:
    """A point as a caller sees it at `now`."""
    state = point.state(now, fresh_s)
    latest, metadata = point.latest, point.metadata
    good = state is PointState.GOOD and latest is not None
    deviations = (
        *(metadata.deviations if metadata else ()),
        *(latest.deviations if latest else ()),
    )
    value = latest.value if good and latest is not None else None
    last_good = None if state is PointState.CONTRADICTED else point.last_good
    return Reading(
        key=point.topic.key,
        object_type=point.topic.object_type,
        point_type=point.topic.point_type,
        publisher=metadata.owner if metadata else point.topic.publisher,
        object_id=metadata.object_id if metadata else None,
        object_name=metadata.object_name if metadata else None,
        rack_location_id=metadata.rack_location_id if metadata else None,
        associate_id=metadata.associate_id if metadata else None,
        process_area=metadata.process_area if metadata else (),
        is_setpoint=metadata.is_setpoint if metadata else False,
        unit=metadata.eng_unit if metadata else None,
        value=value,
        label=metadata.label(value) if metadata and value is not None else None,
        state=state,
        why=why_not(point, state, now, fresh_s),
        measured_at=latest.measured_at if latest else None,
        age_s=point.age_s(now),
        last_good_value=last_good.value if last_good else None,
        last_good_at=last_good.measured_at if last_good else None,
        deviations=tuple(dict.fromkeys(deviations)),
        foreign_publishers=point.foreign,
    )


def why_not(point: Point, state: PointState, now: datetime, fresh_s: float) -> str | None:
    """Why a point's last reading may not be used, or None where it may."""
    if state is PointState.GOOD or point.latest is None:
        return None if state is PointState.GOOD else _WHY[state]
    age_s = point.age_s(now) or 0.0
    match state:
        case PointState.BAD_QUALITY:
            return f"its quality is {point.latest.quality}, and only 1 is trustworthy"
        case PointState.STALE:
            since = point.latest.measured_at + timedelta(seconds=fresh_s)
            return f"stale since {since.isoformat(timespec='seconds')}, {age_s:.0f} s old"
        case PointState.CONTRADICTED:
            return point.metadata.contradiction if point.metadata else None
        case PointState.CLOCK_AHEAD:
            return f"its timestamp lies {-age_s:.0f} s in the future"
        case _:
            return _WHY[state]


def power(
    kind: MeterKind, subject_id: str, found: Sequence[Point], now: datetime, fresh_s: float
) -> Power:
    """The power that the one point of `found` measures; none or several of them are no answer."""
    state, why, power_w = PointState.NEVER_SEEN, None, None
    point = found[0] if len(found) == 1 else None
    unit = point.metadata.eng_unit if point and point.metadata else None
    if point is None:
        why = f"no point on the bus says that it is the power of {kind} {subject_id}"
        if found:
            state = PointState.AMBIGUOUS
            why = f"{len(found)} points claim to be it: " + ", ".join(p.topic.key for p in found)
    else:
        state = point.state(now, fresh_s)
        why = why_not(point, state, now, fresh_s)
        if state is PointState.GOOD and unit not in _W_PER_UNIT:
            state = PointState.UNKNOWN_UNIT
            why = f"its unit is {unit!r}, and watts can be had from {', '.join(_W_PER_UNIT)}"
    latest = point.latest if point else None
    if state is PointState.GOOD and latest is not None and latest.value is not None:
        power_w = latest.value * _W_PER_UNIT[unit or ""]
    return Power(
        kind=kind,
        id=subject_id,
        power_w=power_w,
        state=state,
        why=plant_text(why, MAX_WHY_CHARS) if why else None,
        measured_at=latest.measured_at if latest else None,
        timestamp_ms=latest.timestamp_ms if latest else None,
        age_s=point.age_s(now) if point else None,
        key=point.topic.key if point else None,
        unit=unit,
    )
