"""The rest of the simulated facility: what an integration may write, and equipment of every type.

Written from the specification of the bus; it shares no code with the reader of it.
"""

from collections.abc import Callable, Iterator
from typing import Any

from interlock_plant.plant import Plant
from interlock_servers.exchange.twin_points import Point, Sight, at, states

SECONDARY_SUPPLY = ["Secondary", "Supply"]
_ASKED = ("NoIsolationRequested", "IsolationRequested")


def of_integration(plant: Plant, integration: str) -> Iterator[Point]:
    """Requests that it may write, with what the BMS shows of them, and the handshake with it."""
    site = plant.site
    for place, cdu in enumerate(site.cdu_ids):
        named = {
            "objectType": "CDU",
            "objectName": cdu.upper(),
            "objectId": cdu,
            "servesId": [rack.rack_id for rack in site.racks if rack.cdu_id == cdu],
            "engUnit": "C",
            "processArea": SECONDARY_SUPPLY,
        }
        target = {**named, "pointType": "LiquidTemperature", "isSetpoint": True}
        yield Point(
            f"CDU/LiquidTemperature/{site.name}/{cdu}/supplySetpoint",
            target,
            at("cdu_target_c", place, 2),
        )
        asked = {
            **named,
            "pointType": "LiquidTemperatureSpRequest",
            "integration": integration,
        }
        yield Point(f"CDU/LiquidTemperatureSpRequest/{site.name}/{cdu}/request", asked, None)
    for place, rack in enumerate(site.rack_ids):
        named = {
            "objectType": "Rack",
            "rackLocationName": rack.upper(),
            "rackLocationId": rack,
        }
        isolated = {
            **named,
            "pointType": "RackElectricalIsolationStatus",
            "stateText": states("NotIsolated", "Isolated"),
        }
        yield Point(
            f"Rack/RackElectricalIsolationStatus/{site.name}/{rack}/electrical",
            isolated,
            at("rack_is_open", place, 0),
        )
        for point_type, texts in (
            ("RackLiquidIsolationRequest", _ASKED),
            ("RackElectricalIsolationRequest", _ASKED),
            ("RackLeakDetectTray", ("NoLeak", "Leak")),
        ):
            written = {
                **named,
                "pointType": point_type,
                "stateText": states(*texts),
                "integration": integration,
            }
            yield Point(f"Rack/{point_type}/{site.name}/{rack}/{point_type}", written, None)
    yield from _handshake(site.name, integration)


def _handshake(site: str, integration: str) -> Iterator[Point]:
    bms = {"objectType": "System", "objectName": "BMS", "objectId": "BMS"}
    theirs = {"objectType": "System", "objectName": integration, "objectId": integration}
    of_them = {"integration": integration}
    for point_type, fields in (
        ("HeartbeatTimestampIntegration", {**theirs, **of_them}),
        ("HeartbeatEchoIntegration", {**bms, **of_them}),
        ("Status", {**theirs, **of_them, "stateText": states("Stopped", "AI ready")}),
        ("Available", {**theirs, **of_them, "stateText": states("NotAvailable", "Available")}),
    ):
        metadata = {**fields, "pointType": point_type}
        yield Point(f"System/{point_type}/{site}/{integration}/{point_type}", metadata, None)
    echo = {**theirs, "pointType": "HeartbeatEchoBms"}
    yield Point(f"System/HeartbeatEchoBms/{site}/{integration}/echo", echo, _echo)


def equipment(plant: Plant) -> Iterator[Point]:
    """One of every kind of equipment that no other point describes.

    The plant knows breakers, feeds and UPS; what it does not model reads as it was designed.
    """
    site = plant.site
    for place, pdu in enumerate(site.pdu_ids):
        yield _part("Breaker", "Status", pdu, ("Open", "Closed"), at("pdu_is_closed", place, 0))
    for place, feed in enumerate(site.feed_ids):
        yield _part("Shunt", "Status", feed, ("Open", "Closed"), at("feed_is_closed", place, 0))
        yield _part("ATS", "Status", feed, ("Reserve", "Utility"), at("feed_is_present", place, 0))
        yield _part("Generator", "Available", feed, ("Maintenance", "Available"), _fixed(1))
    for place, ups in enumerate(site.ups):
        read = at("ups_is_failed", place, 0)
        yield _part("UPS", "Status", ups.feed_id, ("Running", "Bypass"), read, named=ups.ups_id)
    if not site.ups:
        yield _part("UPS", "Available", site.name, ("NotAvailable", "Available"), _fixed(0))
    yield _part("BESS", "Available", site.name, ("NotAvailable", "Available"), _fixed(0))
    for cdu in site.cdu_ids:
        yield _part("Pump", "PumpSpeed", cdu, "%", _fixed(80.0))
        yield _part("Valve", "ValvePosition", cdu, "%", _fixed(60.0))
        yield _part("Sensor", "LiquidPressure", cdu, "kPa", _fixed(210.0))
    yield from _plant_room(site.name, list(site.cdu_ids))


def _plant_room(site: str, cdus: list[str]) -> Iterator[Point]:
    """Towers cool chillers, chillers the exchangers, exchangers the CDUs; beside them the air."""
    chain: tuple[tuple[str, str, list[str], str, str, float], ...] = (
        ("CoolingTower", "tower-1", ["chiller-1"], "LiquidTemperature", "C", 22.0),
        ("Chiller", "chiller-1", ["hx-1"], "LiquidTemperature", "C", 24.0),
        ("HX", "hx-1", cdus, "LiquidTemperature", "C", 25.0),
        ("Tank", "tank-1", [], "LiquidPressure", "kPa", 150.0),
        ("CRAH", "crah-1", [], "AirTemperature", "C", 24.0),
        ("CRAC", "crac-1", [], "AirTemperature", "C", 24.0),
        ("AHU", "ahu-1", [], "AirFlow", "m3/h", 9000.0),
        ("GenericObject", "other-1", [], "Sound", "dB", 71.0),
    )
    for object_type, name, serves, point_type, unit, reads in chain:
        metadata = {
            "objectType": object_type,
            "pointType": point_type,
            "objectName": name.upper(),
            "objectId": name,
            "engUnit": unit,
            **({"servesId": serves} if serves else {}),
        }
        yield Point(
            f"{object_type}/{point_type}/{site}/{name}/{point_type}", metadata, _fixed(reads)
        )
    for object_type, point_type, of in (
        ("Fan", "FanSpeed", "crah-1"),
        ("Damper", "DamperPosition", "ahu-1"),
    ):
        yield _part(object_type, point_type, of, "%", _fixed(50.0))


def _part(
    object_type: str,
    point_type: str,
    of: str,
    meaning: str | tuple[str, ...],
    read: Callable[[Sight], float],
    named: str | None = None,
) -> Point:
    """A point that says which object it is part of and has no id of its own."""
    said: dict[str, Any] = {"engUnit": meaning}
    if not isinstance(meaning, str):
        said = {"stateText": states(*meaning)}
    metadata = {"objectType": object_type, "pointType": point_type, "associateId": of, **said}
    return Point(f"{object_type}/{point_type}/{named or of}/{object_type.lower()}", metadata, read)


def _fixed(value: float) -> Callable[[Sight], float]:
    return lambda _: value


def _echo(sight: Sight) -> float | None:
    return sight.heard_beat_ms
