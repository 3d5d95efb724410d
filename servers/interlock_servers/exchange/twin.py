"""The building management system of the simulated factory, as raw messages on a real broker.

It is written from the specification of the bus and shares no code with the reader of it.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self, get_args

from interlock_plant.plant import Plant
from interlock_servers.exchange.twin_facility import equipment, of_integration
from interlock_servers.exchange.twin_points import (
    Sight,
    cdus,
    heartbeat,
    meters,
    racks,
)
from interlock_servers.exchange.twin_requests import RequestsAtBms
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
    "ignore_requests",
    "clamp_requests",
    "default_for_requests",
]

CADENCE_S: Final = 1.0
CONNECT_TIMEOUT_S: Final = 10.0
_AT_ONCE: Final = 256  # messages in flight; a site of any size is sent in portions

_MALFORMED: Final = (
    b'{"value": 47.7',
    b'{"value": NaN, "timestamp": 1743620423000, "quality": 1}',
    b"\xff\xfe",
    b"[]",
    b"",
)


class _Outgoing(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool


class ExchangeTwin:
    """Publishes what the plant's sensors show, the way a BMS does. It never steps the plant.

    With an `integration` it also has everything that such a one may ask for, and all equipment.
    """

    def __init__(
        self,
        plant: Plant,
        broker: str,
        clock: Clock,
        *,
        cadence_s: float = CADENCE_S,
        integration: str | None = None,
    ) -> None:
        """Describe the twin.

        Args:
            plant: what it sees.
            broker: the address of the broker, `mqtt://host:port`.
            clock: the plant's clock; its moments become the timestamps.
            cadence_s: the least time between two values of a point, 1 to 2 in the field.
            integration: the id of whom it lets ask for setpoints and isolation; None: nobody.
        """
        self._plant = plant
        self._clock = clock
        self._cadence_s = cadence_s
        settings = MqttSettings(brokers=(broker,), client_id=f"bms-twin-{plant.site.name}")
        self.requests = RequestsAtBms(plant, integration)
        self._bus = MqttBus(
            settings, clock, self.requests.hear, subscriptions=self.requests.subscriptions
        )
        self._points = [*meters(plant), *racks(plant), *cdus(plant), heartbeat(plant)]
        if integration is not None:
            self._points += [*of_integration(plant, integration), *equipment(plant)]
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
                `string_quality`, `seconds`, `lying_meter`, `no_heartbeat`; of requests
                `ignore_requests`, `clamp_requests` (to 27 to 29 C), `default_for_requests`.
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
        """Do what was asked for and say whatever is due now; how many messages that was.

        Raises:
            UnavailableError: the broker is gone; everything is said anew once it is back.
        """
        now = self._clock.now()
        self.requests.obey(now, self._faults)
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
        sight = Sight(self._plant, now, self._faults.get("lying_meter"))
        sight.heard_beat_ms = self.requests.last_beat_ms
        for place, point in enumerate(self._points):
            if ("no_heartbeat" if point.beats else "stale") in self._faults:
                continue
            value = None if point.read is None else point.read(sight)
            if value is not None and point.value_is_due(value, now, self._cadence_s):
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
            point.forget()
