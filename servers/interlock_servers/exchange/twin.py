"""The building management system of the simulated factory, as raw messages on a real broker.

It is written from the specification of the bus and shares no code with the reader of it.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self, get_args

from interlock_plant.plant import Plant
from interlock_servers.transports.mqtt import MqttBus, MqttSettings
from interlock_tools.clock import Clock
from interlock_tools.errors import InvalidRequestError, UnavailableError

FaultName = Literal[
    "stale",
    "bad_quality",
    "malformed",
    "string_quality",
    "seconds",
    "lying_meter",
    "no_heartbeat",
]

REPUBLISH_S: Final = 100.0
HEARTBEAT_S: Final = 10.0
CADENCE_S: Final = 1.0
CONNECT_TIMEOUT_S: Final = 10.0
LIE: Final = 0.6  # what a lying meter shows of the truth
_AT_ONCE: Final = 256  # messages in flight; a site of any size is sent in portions

_MALFORMED: Final = (
    b'{"value": 47.7',
    b'{"value": NaN, "timestamp": 1743620423000, "quality": 1}',
    b"\xff\xfe",
    b"[]",
    b"",
)


@dataclass
class _Point:
    """One point: its topic's tail, its metadata, how to read it, and what was said last."""

    tail: str
    metadata: dict[str, Any]
    read: Callable[["_Sight"], float]
    beats: bool = False
    said: float | None = None
    said_at: datetime | None = None
    described_at: datetime | None = None

    def value_is_due(self, value: float, now: datetime, cadence_s: float) -> bool:
        if self.said_at is None:
            return True
        waited_s = (now - self.said_at).total_seconds()
        if self.beats:
            return waited_s >= HEARTBEAT_S
        return waited_s >= REPUBLISH_S or (value != self.said and waited_s >= cadence_s)

    def metadata_is_due(self, now: datetime) -> bool:
        return self.described_at is None or (now - self.described_at).total_seconds() >= REPUBLISH_S


class _Outgoing(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool


class _Sight:
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


class ExchangeTwin:
    """Publishes what the plant's sensors show, the way a BMS does. It never steps the plant."""

    def __init__(
        self, plant: Plant, broker: str, clock: Clock, *, cadence_s: float = CADENCE_S
    ) -> None:
        """Describe the twin.

        Args:
            plant: what it sees.
            broker: the address of the broker, `mqtt://host:port`.
            clock: the plant's clock; its moments become the timestamps.
            cadence_s: the least time between two values of a point, 1 to 2 in the field.
        """
        self._plant = plant
        self._clock = clock
        self._cadence_s = cadence_s
        settings = MqttSettings(brokers=(broker,), client_id=f"bms-twin-{plant.site.name}")
        self._bus = MqttBus(settings, clock, lambda _: None, subscriptions=())
        self._points = [*_meters(plant), *_racks(plant), *_cdus(plant), _heartbeat(plant)]
        self._faults: dict[str, str] = {}
        self._rounds = 0

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            UnavailableError: the broker does not answer.
        """
        await self._bus.enter_connected(CONNECT_TIMEOUT_S)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the broker."""
        await self._bus.__aexit__(kind, error, traceback)

    @property
    def connected(self) -> bool:
        """Whether its broker is there."""
        return self._bus.connected

    def fault(self, name: FaultName, target: str | None = None) -> None:
        """Go wrong in a named way until `repair`; everything is said anew at the next round.

        Args:
            name: `stale` (no values, though heartbeats go on), `bad_quality`, `malformed`,
                `string_quality`, `seconds`, `lying_meter`, `no_heartbeat`.
            target: the meter that lies; by default the first feed's.

        Raises:
            InvalidRequestError: no such fault, or no such meter.
        """
        site = self._plant.site
        if name not in get_args(FaultName):
            raise InvalidRequestError(f"the twin has no fault {name!r}")
        target = target or site.feed_ids[0]
        if target not in {site.name, *site.feed_ids, *site.pdu_ids, *site.rack_ids}:
            raise InvalidRequestError(f"the twin has no meter {target!r}")
        self._faults[name] = target
        self._forget()

    def repair(self, name: FaultName) -> None:
        """End a fault; ending one that is not there changes nothing."""
        self._faults.pop(name, None)
        self._forget()

    async def publish_once(self) -> int:
        """Say whatever is due now; how many messages that was.

        Raises:
            UnavailableError: the broker is gone; everything is said anew once it is back.
        """
        now = self._clock.now()
        described = list(self._descriptions(now))
        await self._send(described)  # first, because values mean nothing without it
        said = list(self._values(now))
        await self._send(said)
        self._rounds += 1
        return len(described) + len(said)

    async def run(self) -> None:
        """Publish until cancelled, whatever becomes of the broker."""
        while True:
            try:
                await self.publish_once()
            except UnavailableError:
                with suppress(UnavailableError):
                    await self._bus.wait_connected(CONNECT_TIMEOUT_S)
            await self._clock.sleep(self._cadence_s)

    async def _send(self, due: list[_Outgoing]) -> None:
        for begin in range(0, len(due), _AT_ONCE):
            answers = await asyncio.gather(
                *(
                    self._bus.publish(out.topic, out.payload, qos=out.qos, retain=out.retain)
                    for out in due[begin : begin + _AT_ONCE]
                ),
                return_exceptions=True,
            )
            lost = [answer for answer in answers if isinstance(answer, BaseException)]
            if lost:
                self._forget()
                raise lost[0]

    def _descriptions(self, now: datetime) -> Iterator[_Outgoing]:
        for point in self._points:
            if point.metadata_is_due(now):
                point.described_at = now
                payload = json.dumps(point.metadata).encode()
                yield _Outgoing(f"BMS/v1/PUB/Metadata/{point.tail}", payload, 1, True)

    def _values(self, now: datetime) -> Iterator[_Outgoing]:
        sight = _Sight(self._plant, now, self._faults.get("lying_meter"))
        for place, point in enumerate(self._points):
            if ("no_heartbeat" if point.beats else "stale") in self._faults:
                continue
            value = point.read(sight)
            if point.value_is_due(value, now, self._cadence_s):
                point.said, point.said_at = value, now
                payload = self._payload(value, sight.now_ms, place)
                yield _Outgoing(f"BMS/v1/PUB/Value/{point.tail}", payload, 0, False)

    def _payload(self, value: float, now_ms: int, place: int) -> bytes:
        if "malformed" in self._faults:
            return _MALFORMED[(self._rounds + place) % len(_MALFORMED)]
        quality: int | str = 0 if "bad_quality" in self._faults else 1
        if "string_quality" in self._faults:
            quality = str(quality)
        stamp = now_ms // 1000 if "seconds" in self._faults else now_ms
        return json.dumps({"value": value, "timestamp": stamp, "quality": quality}).encode()

    def _forget(self) -> None:
        for point in self._points:
            point.said = point.said_at = point.described_at = None


# What stands in the factory, as its BMS describes it.


def _states(*texts: str) -> list[dict[str, Any]]:
    return [{"value": value, "text": text} for value, text in enumerate(texts)]


def _meters(plant: Plant) -> Iterator[_Point]:
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
        yield _Point(
            f"PowerMeter/ActivePower/{site.name}/{meter}/activePower",
            {
                "objectType": "PowerMeter",
                "pointType": "ActivePower",
                "engUnit": "kW",
                "objectName": meter.upper(),
                "objectId": meter,
                "servesId": served,
            },
            _kilowatts(meter),
        )


def _racks(plant: Plant) -> Iterator[_Point]:
    for place, rack in enumerate(plant.site.rack_ids):
        readings: list[tuple[str, dict[str, Any], Callable[[_Sight], float]]] = [
            ("RackPower", {"engUnit": "kW"}, _kilowatts(rack)),
            ("RackLiquidSupplyTemperature", {"engUnit": "C"}, _at("rack_supply_c", place, 2)),
            ("RackLiquidReturnTemperature", {"engUnit": "C"}, _at("rack_return_c", place, 2)),
            ("RackLiquidFlow", {"engUnit": "LPM"}, _at("rack_flow_lpm", place, 1)),
            ("RackLeakDetect", {"stateText": _states("NoLeak", "Leak")}, _leak(place)),
            ("RackLeakSensorFault", {"stateText": _states("NoFault", "Fault")}, lambda _: 0),
            (
                "RackLiquidIsolationStatus",
                {"stateText": _states("NotIsolated", "Isolated")},
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
            yield _Point(tail, metadata, read)


def _cdus(plant: Plant) -> Iterator[_Point]:
    site = plant.site
    for place, cdu in enumerate(site.cdu_ids):
        named = {
            "objectType": "CDU",
            "objectName": cdu.upper(),
            "objectId": cdu,
            "servesId": [rack.rack_id for rack in site.racks if rack.cdu_id == cdu],
        }
        readings: list[tuple[str, str, dict[str, Any], Callable[[_Sight], float]]] = [
            ("LiquidTemperature", "supply", {"engUnit": "C"}, _at("cdu_supply_c", place, 2)),
            ("LiquidTemperature", "return", {"engUnit": "C"}, _at("cdu_return_c", place, 2)),
            ("LiquidFlow", "flow", {"engUnit": "LPM"}, _at("cdu_flow_lpm", place, 1)),
            ("Status", "status", {"stateText": _states("Stopped", "Running")}, _runs(place)),
        ]
        for point_type, name, meaning, read in readings:
            metadata = {**named, "pointType": point_type, **meaning}
            if name in {"supply", "return"}:
                metadata["processArea"] = ["Secondary", name.capitalize()]
            yield _Point(f"CDU/{point_type}/{site.name}/{cdu}/{name}", metadata, read)


def _heartbeat(plant: Plant) -> _Point:
    metadata = {
        "objectType": "System",
        "pointType": "HeartbeatTimestampBms",
        "objectName": "BMS",
        "objectId": "BMS",
    }
    tail = f"System/HeartbeatTimestampBms/{plant.site.name}/bms/heartbeat"
    return _Point(tail, metadata, lambda sight: sight.now_ms, beats=True)


def _kilowatts(meter: str) -> Callable[[_Sight], float]:
    return lambda sight: round(sight.power_w[meter] / 1000, 3)


def _at(sensor: str, place: int, digits: int) -> Callable[[_Sight], float]:
    def read(sight: _Sight) -> float:
        values: list[float] = getattr(sight, sensor)
        return round(values[place], digits)

    return read


def _leak(place: int) -> Callable[[_Sight], float]:
    return lambda sight: int(sight.rack_leaks[place])


def _isolated(place: int) -> Callable[[_Sight], float]:
    return lambda sight: int(sight.rack_flow_lpm[place] <= 0.0)


def _runs(place: int) -> Callable[[_Sight], float]:
    return lambda sight: int(sight.cdu_flow_lpm[place] > 0.0)
