"""What stands in the simulated factory, as its BMS describes it: points with their metadata.

Written from the specification of the bus; it shares no code with the reader of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from interlock_plant.plant import Plant

REPUBLISH_S: Final = 100.0
HEARTBEAT_S: Final = 10.0
LIE: Final = 0.6  # what a lying meter shows of the truth


@dataclass
class Point:
    """One point: its topic's tail, its metadata, how to read it, and what was said last.

    Without a way to read it somebody else writes its value, and the BMS only describes it.
    """

    tail: str
    metadata: dict[str, Any]
    read: Callable[["Sight"], float | None] | None
    beats: bool = False
    said: float | None = None
    said_at: datetime | None = None
    described_at: datetime | None = None

    def value_is_due(self, value: float, now: datetime, cadence_s: float) -> bool:
        """Whether this value has to be said now."""
        if self.said_at is None:
            return True
        waited_s = (now - self.said_at).total_seconds()
        if self.beats:
            return waited_s >= HEARTBEAT_S
        return waited_s >= REPUBLISH_S or (value != self.said and waited_s >= cadence_s)

    def metadata_is_due(self, now: datetime) -> bool:
        """Whether it has to be described now."""
        return self.described_at is None or (now - self.described_at).total_seconds() >= REPUBLISH_S

    def forget(self) -> None:
        """Say and describe it anew at the next round."""
        self.said = self.said_at = self.described_at = None


class Sight:
    """The plant's sensors read once, so that one round of messages is of one moment."""

    def __init__(self, plant: Plant, now: datetime, lying: str | None) -> None:
        site = plant.site
        self.now_ms = int(now.timestamp() * 1000)
        self.power_w = {site.name: plant.site_meter_w}
        for ids, meters_w in (
            (site.feed_ids, plant.feed_meter_w),
            (site.pdu_ids, plant.pdu_meter_w),
            (site.rack_ids, plant.rack_meter_w),
        ):
            self.power_w.update(zip(ids, meters_w.tolist(), strict=True))
        if lying is not None:
            self.power_w[lying] *= LIE
        self.rack_supply_c = plant.rack_liquid_supply_c.tolist()
        self.rack_return_c = plant.rack_liquid_return_c.tolist()
        self.rack_flow_lpm = plant.rack_liquid_flow_lpm.tolist()
        self.rack_leaks = plant.rack_leaks.tolist()
        self.cdu_supply_c = plant.cdu_supply_c.tolist()
        self.cdu_return_c = plant.cdu_return_c.tolist()
        self.cdu_flow_lpm = plant.cdu_flow_lpm.tolist()
        self.cdu_target_c = plant.cdu_target_c.tolist()
        self.rack_is_open = plant.rack_is_open.tolist()
        self.pdu_is_closed = plant.pdu_breaker_is_closed.tolist()
        self.feed_is_closed = plant.feed_breaker_is_closed.tolist()
        self.feed_is_present = plant.feed_is_present.tolist()
        self.ups_is_failed = plant.ups_is_failed.tolist()
        self.heard_beat_ms: float | None = None  # of the integration


def states(*texts: str) -> list[dict[str, Any]]:
    """The numbers from 0 with what each means."""
    return [{"value": value, "text": text} for value, text in enumerate(texts)]


def meters(plant: Plant) -> Iterator[Point]:
    """Every meter of the power tree, with what it serves."""
    site = plant.site
    serves = {site.name: list(site.feed_ids)}
    serves |= {
        feed.feed_id: [pdu.pdu_id for pdu in site.pdus if pdu.feed_id == feed.feed_id]
        for feed in site.feeds
    }
    racks_of: dict[str, list[str]] = {pdu.pdu_id: [] for pdu in site.pdus}
    for rack in site.racks:
        racks_of[rack.pdu_id].append(rack.rack_id)
    for meter, served in (serves | racks_of).items():
        yield Point(
            f"PowerMeter/ActivePower/{site.name}/{meter}/activePower",
            {
                "objectType": "PowerMeter",
                "pointType": "ActivePower",
                "engUnit": "kW",
                "objectName": meter.upper(),
                "objectId": meter,
                "servesId": served,
            },
            kilowatts(meter),
        )


def racks(plant: Plant) -> Iterator[Point]:
    """What the BMS reads at every rack."""
    for place, rack in enumerate(plant.site.rack_ids):
        readings: list[tuple[str, dict[str, Any], Callable[[Sight], float]]] = [
            ("RackPower", {"engUnit": "kW"}, kilowatts(rack)),
            ("RackLiquidSupplyTemperature", {"engUnit": "C"}, at("rack_supply_c", place, 2)),
            ("RackLiquidReturnTemperature", {"engUnit": "C"}, at("rack_return_c", place, 2)),
            ("RackLiquidFlow", {"engUnit": "LPM"}, at("rack_flow_lpm", place, 1)),
            ("RackLeakDetect", {"stateText": states("NoLeak", "Leak")}, _leak(place)),
            ("RackLeakSensorFault", {"stateText": states("NoFault", "Fault")}, lambda _: 0),
            (
                "RackLiquidIsolationStatus",
                {"stateText": states("NotIsolated", "Isolated")},
                _isolated(place),
            ),
        ]
        for point_type, meaning, read in readings:
            metadata = {
                "objectType": "Rack",
                "pointType": point_type,
                "rackLocationName": rack.upper(),
                "rackLocationId": rack,
                **meaning,
            }
            tail = f"Rack/{point_type}/{plant.site.name}/{rack}/{point_type}"
            yield Point(tail, metadata, read)


def cdus(plant: Plant) -> Iterator[Point]:
    """What it reads at every CDU."""
    site = plant.site
    for place, cdu in enumerate(site.cdu_ids):
        named = {
            "objectType": "CDU",
            "objectName": cdu.upper(),
            "objectId": cdu,
            "servesId": [rack.rack_id for rack in site.racks if rack.cdu_id == cdu],
        }
        readings: list[tuple[str, str, dict[str, Any], Callable[[Sight], float]]] = [
            ("LiquidTemperature", "supply", {"engUnit": "C"}, at("cdu_supply_c", place, 2)),
            ("LiquidTemperature", "return", {"engUnit": "C"}, at("cdu_return_c", place, 2)),
            ("LiquidFlow", "flow", {"engUnit": "LPM"}, at("cdu_flow_lpm", place, 1)),
            ("Status", "status", {"stateText": states("Stopped", "Running")}, _runs(place)),
        ]
        for point_type, name, meaning, read in readings:
            metadata = {**named, "pointType": point_type, **meaning}
            if name in {"supply", "return"}:
                metadata["processArea"] = ["Secondary", name.capitalize()]
            yield Point(f"CDU/{point_type}/{site.name}/{cdu}/{name}", metadata, read)


def heartbeat(plant: Plant) -> Point:
    """Its own life sign."""
    metadata = {
        "objectType": "System",
        "pointType": "HeartbeatTimestampBms",
        "objectName": "BMS",
        "objectId": "BMS",
    }
    tail = f"System/HeartbeatTimestampBms/{plant.site.name}/bms/heartbeat"
    return Point(tail, metadata, lambda sight: sight.now_ms, beats=True)


def kilowatts(meter: str) -> Callable[[Sight], float]:
    """How to read a meter."""
    return lambda sight: round(sight.power_w[meter] / 1000, 3)


def at(sensor: str, place: int, digits: int) -> Callable[[Sight], float]:
    """How to read one of many sensors of a kind, rounded."""

    def read(sight: Sight) -> float:
        values: list[float] = getattr(sight, sensor)
        return round(values[place], digits)

    return read


def _leak(place: int) -> Callable[[Sight], float]:
    return lambda sight: int(sight.rack_leaks[place])


def _isolated(place: int) -> Callable[[Sight], float]:
    return lambda sight: int(sight.rack_flow_lpm[place] <= 0.0)


def _runs(place: int) -> Callable[[Sight], float]:
    return lambda sight: int(sight.cdu_flow_lpm[place] > 0.0)
