"""The exchange's ingest against a bare subscriber that only counts, on one broker, in turns.

The messages are on the wire as fast as the broker takes them, so that whoever listens is what is
measured: one interpreter with paho's loop in it, with and without our parsing and our store.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple

import anyio
import anyio.to_thread
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from interlock_evals.bench.measured import Measured, median
from interlock_evals.bench.mqtt_wire import PATIENCE_S, packet, send
from interlock_evals.reports import Promise
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.settings import ExchangeSettings
from interlock_servers.transports.broker import local_broker
from interlock_servers.transports.mqtt import MqttSettings
from interlock_servers.transports.mqtt_settings import parse_broker
from interlock_tools.clock import SystemClock

ROUNDS = 7
POINTS, VALUES_PER_POINT = 500, 40
MESSAGES = POINTS * VALUES_PER_POINT
RATIO_LIMIT = 0.5
LOOK_EVERY_S = 0.002
WHY_NOT = "parsing JSON and keeping the point cost more than paho's own loop"
FILTERS = [("BMS/v1/PUB/Metadata/#", 1), ("BMS/v1/+/Value/#", 0)]
Taken = Callable[[], int]


def measure() -> Measured:
    """Messages a second from the first byte sent to the last message taken in."""
    ours, bare = anyio.run(_measure)
    pairs = list(zip(ours, bare, strict=True))
    figures = {
        "ingest_ratio": median([one.per_s / other.per_s for one, other in pairs], ""),
        "ingest_cpu_ratio": median([other.cpu_s / one.cpu_s for one, other in pairs], ""),
        "ingest_per_s": median([one.per_s for one in ours], "messages/s"),
        "bare_subscriber_per_s": median([one.per_s for one in bare], "messages/s"),
    }
    ratio = figures["ingest_ratio"].value
    return Measured(figures, {"ingest_ratio": Promise.at_least(ratio, RATIO_LIMIT, "", WHY_NOT)})


class _Speed(NamedTuple):
    per_s: float
    cpu_s: float  # of this process, with what sending the flood takes in it


async def _measure() -> tuple[list[_Speed], list[_Speed]]:
    ours: list[_Speed] = []
    bare: list[_Speed] = []
    async with local_broker() as url:
        await anyio.to_thread.run_sync(send, url, _descriptions())
        for turn in range(ROUNDS):
            flood = _values(turn)
            order = [(_exchange, ours), (_bare, bare)]
            for listening, speeds in order if turn % 2 else reversed(order):
                speeds.append(await _speed(url, flood, listening(url)))
    return ours, bare


async def _speed(url: str, flood: bytes, listening: AbstractAsyncContextManager[Taken]) -> _Speed:
    """How fast all of a flood is taken in."""
    async with listening as taken:
        before = taken()
        begun_s, cpu_s = time.perf_counter(), time.process_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, send, url, flood)
            await _until(lambda: taken() >= before + MESSAGES)
            took_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
    return _Speed(MESSAGES / took_s, cpu_s)


async def _until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 (the network's thread sets no event)
            await anyio.sleep(LOOK_EVERY_S)


@asynccontextmanager
async def _exchange(url: str) -> AsyncIterator[Taken]:
    """Our client, once it knows every point."""
    mqtt = MqttSettings(brokers=(url,), client_id="bench-exchange")
    client = ExchangeClient(ExchangeSettings(mqtt=mqtt, site_id="lab"), SystemClock())
    async with client:
        await client.wait_connected(PATIENCE_S)
        await _until(lambda: client.store.accepted >= POINTS)
        yield lambda: client.store.accepted
        if client.store.rejected:
            raise RuntimeError(f"messages of the measure were refused: {client.store.rejected}")


@asynccontextmanager
async def _bare(url: str) -> AsyncIterator[Taken]:
    """Paho with a callback that adds one."""
    heard = 0

    def count(_: Client, __: object, ___: MQTTMessage) -> None:
        nonlocal heard
        heard += 1

    def subscribe(client: Client, *_: object) -> None:
        client.subscribe(FILTERS)

    address = parse_broker(url)
    client = Client(CallbackAPIVersion.VERSION2, client_id="bench-bare")
    client.on_connect = subscribe
    client.on_message = count
    client.connect(address.host, address.port)
    client.loop_start()
    try:
        await _until(lambda: heard >= POINTS)
        yield lambda: heard
    finally:
        client.disconnect()
        client.loop_stop()


def _descriptions() -> bytes:
    """The retained metadata of every point."""
    return b"".join(
        packet(
            f"BMS/v1/PUB/Metadata/{_tail(point)}",
            {
                "objectType": "Rack",
                "pointType": "RackPower",
                "engUnit": "kW",
                "rackLocationName": f"RACK-{point:03d}",
                "rackLocationId": f"rack-{point:03d}",
            },
            retained=True,
        )
        for point in range(POINTS)
    )


def _values(turn: int) -> bytes:
    """Every point in turn, so often; later turns are later in time."""
    now_ms = int(SystemClock().now().timestamp() * 1000)
    return b"".join(
        packet(
            f"BMS/v1/PUB/Value/{_tail(point)}",
            {"value": 47.7 + turn + point / 7, "timestamp": now_ms + step, "quality": 1},
        )
        for step in range(VALUES_PER_POINT)
        for point in range(POINTS)
    )


def _tail(point: int) -> str:
    return f"Rack/RackPower/lab/rack-{point:03d}/RackPower"
