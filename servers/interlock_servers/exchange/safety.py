"""Leaks and isolation, as far as the bus may be believed about them.

A state is known only from a good reading. A leak sensor that is at fault says nothing either way,
and the tray sensors of an integration are information, never proof.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, NamedTuple

from interlock_servers.exchange.points import Point, PointState
from interlock_servers.exchange.readings import why_not
from interlock_servers.exchange.store import PointStore

_STATES = (
    "RackLeakDetect",
    "RackLeakSensorFault",
    "RackLiquidIsolationStatus",
    "RackElectricalIsolationStatus",
    "RackLeakDetectTray",
    "RackLiquidIsolationRequest",
    "RackElectricalIsolationRequest",
)


class Safety(NamedTuple):
    """One rack or piece of equipment; None is unknown, and `why` says why.

    `says` is the text of a leak point whose states no specification fixes.
    """

    id: str
    kind: Literal["rack", "equipment"]
    leak: bool | None = None
    sensor_fault: bool | None = None
    tray_leak: bool | None = None
    liquid_isolated: bool | None = None
    electrical_isolated: bool | None = None
    liquid_requested: bool | None = None
    electrical_requested: bool | None = None
    says: str | None = None
    why: str | None = None
    measured_at: datetime | None = None

    @property
    def calm(self) -> bool:
        """Whether it is surely dry, and neither isolated nor asked to be."""
        busy = (
            self.tray_leak,
            self.liquid_isolated,
            self.electrical_isolated,
            self.liquid_requested,
            self.electrical_requested,
        )
        return self.kind == "rack" and self.leak is False and not any(busy)


def safety(
    store: PointStore, now: datetime, fresh_s: float, rack_id: str | None = None
) -> tuple[Safety, ...]:
    """All racks, then all other equipment with a leak sensor, by id; or one rack alone."""
    catalogue = store.catalogue()
    if rack_id is not None:
        return (rack_safety(rack_id, store.points(catalogue.by_rack[rack_id]), now, fresh_s),)
    racks = (
        rack_safety(name, store.points(keys), now, fresh_s)
        for name, keys in sorted(catalogue.by_rack.items())
    )
    return (*racks, *(_equipment(p, now, fresh_s) for p in store.points(catalogue.leaks)))


def rack_safety(rack_id: str, points: Iterable[Point], now: datetime, fresh_s: float) -> Safety:
    """What the points of one rack say; several of one kind: the worst, unknown before none."""
    seen: dict[str, bool | None] = {}
    why: dict[str, str | None] = {}
    moments: list[datetime] = []
    for point in points:
        name = point.topic.point_type
        if name not in _STATES or point.topic.object_type != "Rack":
            continue
        known = _known(point, now, fresh_s)
        if known is None:
            why[name] = why_not(point, point.state(now, fresh_s), now, fresh_s) or "it is no state"
        elif point.latest is not None:
            moments.append(point.latest.measured_at)
        seen[name] = _worse(seen[name], known) if name in seen else known
    leak, fault = seen.get("RackLeakDetect"), seen.get("RackLeakSensorFault")
    said = why.get("RackLeakDetect")
    if "RackLeakDetect" not in seen:
        said = "no leak sensor is described"
    elif fault is True:
        leak, said = None, f"its leak sensor is at fault, and shows {_word(leak)}"
    elif "RackLeakSensorFault" in seen and fault is None and leak is False:
        leak, said = None, f"whether its sensor works is unknown: {why['RackLeakSensorFault']}"
    return Safety(
        id=rack_id,
        kind="rack",
        leak=leak,
        sensor_fault=fault,
        tray_leak=seen.get("RackLeakDetectTray"),
        liquid_isolated=seen.get("RackLiquidIsolationStatus"),
        electrical_isolated=seen.get("RackElectricalIsolationStatus"),
        liquid_requested=seen.get("RackLiquidIsolationRequest"),
        electrical_requested=seen.get("RackElectricalIsolationRequest"),
        why=said,
        measured_at=min(moments, default=None),
    )


def _known(point: Point, now: datetime, fresh_s: float) -> bool | None:
    """Whether the state is 1; None where it is neither 0 nor 1, or may not be believed."""
    value = point.latest.value if point.latest else None
    good = point.state(now, fresh_s) is PointState.GOOD
    return bool(value) if good and value in {0.0, 1.0} else None


def _worse(one: bool | None, other: bool | None) -> bool | None:
    if one is True or other is True:
        return True
    return None if one is None or other is None else False


def _word(leak: bool | None) -> str:
    return {True: "a leak", False: "no leak", None: "nothing"}[leak]


def _equipment(point: Point, now: datetime, fresh_s: float) -> Safety:
    metadata, latest = point.metadata, point.latest
    whose = metadata and (metadata.object_id or metadata.associate_id)
    state = point.state(now, fresh_s)
    good = state is PointState.GOOD and latest is not None and latest.value is not None
    return Safety(
        id=whose or point.topic.key,
        kind="equipment",
        says=metadata.label(latest.value)
        if good and metadata and latest and latest.value is not None
        else None,
        why=why_not(point, state, now, fresh_s),
        measured_at=latest.measured_at if good and latest else None,
    )
