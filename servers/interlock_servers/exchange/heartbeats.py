"""Who is alive on the bus, by the life signs that it gives itself.

An echo is no life sign of whom it names: it says only that a beat of that one once arrived.
"""

from collections.abc import Sequence
from datetime import datetime

from interlock_servers.exchange.models import SECONDS_BELOW, moment
from interlock_servers.exchange.points import HEARTBEAT_S, Point, PointState
from interlock_servers.exchange.readings import Heartbeat, why_not


def all_alive(beats: Sequence[Heartbeat]) -> tuple[bool | None, str | None]:
    """Whether all of these live, and why not: one that is surely dead outweighs one unknown."""
    if not beats:
        return None, "no heartbeat of the BMS was ever seen"
    for verdict in (False, None):
        for beat in beats:
            if beat.alive is verdict:
                return verdict, beat.why
    return True, None


def heartbeat(point: Point, now: datetime) -> Heartbeat:
    """Judge by the older of the beat and its timestamp: either may have been left standing."""
    state = point.state(now, HEARTBEAT_S)
    metadata, beat_ms = point.metadata, _beat_ms(point)
    age_s = None if beat_ms is None else now.timestamp() - beat_ms / 1000
    alive: bool | None = None
    why = why_not(point, state, now, HEARTBEAT_S)
    if state in {PointState.GOOD, PointState.STALE} and age_s is not None:
        alive = age_s <= HEARTBEAT_S
        if not alive:
            why = f"the last beat is {age_s:.0f} s old, and {HEARTBEAT_S:g} s is the limit"
    return Heartbeat(
        kind="bms" if point.topic.point_type == "HeartbeatTimestampBms" else "integration",
        publisher=metadata.owner if metadata else point.topic.publisher,
        object_id=metadata.object_id if metadata else None,
        scope=metadata.scope if metadata else None,
        alive=alive,
        last_beat_at=None if beat_ms is None else moment(beat_ms),
        last_beat_age_s=age_s,
        why=why,
    )


def _beat_ms(point: Point) -> int | None:
    latest = point.latest
    if latest is None or latest.value is None:
        return None
    value_ms = latest.value * 1000 if latest.value < SECONDS_BELOW else latest.value
    return int(min(max(value_ms, 0.0), latest.timestamp_ms))
