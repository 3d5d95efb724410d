"""The exchange's ingest against a bare subscriber that only counts, on one broker, in turns.

The messages are on the wire as fast as the broker takes them, so that whoever listens is what is
measured: one interpreter with paho's loop in it, with and without our parsing and our store.
"""

import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import anyio.to_thread
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from interlock_evals.bench.measured import Measured, median
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
PATIENCE_S = 60.0
LOOK_EVERY_S = 0.002
WHY_NOT = "parsing JSON and keeping the point cost more than paho's own loop"
FILTERS = [("BMS/v1/PUB/Metadata/#", 1), ("BMS/v1/+/Value/#", 0)]
Taken = Callable[[], int]

_CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05flood"
_CONNACK = b"\x20\x02\x00\x00"
_DISCONNECT = b"\xe0\x00"


def measure() -> Measured:
    """Messages a second from the first byte sent to the last message taken in."""
    ours, bare = anyio.run(_measure)
    figures = {
        "ingest_ratio": median([one / other for one, other in zip(ours, bare, strict=True)], ""),
        "ingest_per_s": median(ours, "messages/s"),
        "bare_subscriber_per_s": median(bare, "messages/s"),
    }
    ratio = figures["ingest_ratio"].value
    return Measured(figures, {"ingest_ratio": Promise.at_least(ratio, RATIO_LIMIT, "", WHY_NOT)})


async def _measure() -> tuple[list[float], list[float]]:
    ours: list[float] = []
    bare: list[float] = []
    async with local_broker() as url:
        await anyio.to_thread.run_sync(_send, url, _descriptions())
        for turn in range(ROUNDS):
            flood = _values(turn)
            order = [(_exchange, ours), (_bare, bare)]
            for listening, per_s in order if turn % 2 else reversed(order):
                per_s.append(await _speed(url, flood, listening(url)))
    return ours, bare


async def _speed(url: str, flood: bytes, listening: AbstractAsyncContextManager[Taken]) -> float:
    """Messages a second until all of a flood is taken in."""
    async with listening as taken:
        before = taken()
        begun = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, _send, url, flood)
            await _until(lambda: taken() >= before + MESSAGES)
            took_s = time.perf_counter() - begun
    return MESSAGES / took_s


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


# ── the flood, as bytes ───────────────────────────────────────────────────────────────────────────


def _send(url: str, flood: bytes) -> None:
    """Send packets over a connection of their own, without an interpreter in the way."""
    address = parse_broker(url)
    with socket.create_connection((address.host, address.port), timeout=PATIENCE_S) as wire:
        wire.sendall(_CONNECT)
        if wire.recv(4) != _CONNACK:
            raise RuntimeError("the broker did not accept the flood")
        wire.sendall(flood)
        wire.sendall(_DISCONNECT)


def _descriptions() -> bytes:
    """The retained metadata of every point."""
    return b"".join(
        _packet(
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
        _packet(
            f"BMS/v1/PUB/Value/{_tail(point)}",
            {"value": 47.7 + turn + point / 7, "timestamp": now_ms + step, "quality": 1},
        )
        for step in range(VALUES_PER_POINT)
        for point in range(POINTS)
    )


def _tail(point: int) -> str:
    return f"Rack/RackPower/lab/rack-{point:03d}/RackPower"


def _packet(topic: str, document: dict[str, object], *, retained: bool = False) -> bytes:
    """One PUBLISH of MQTT 3.1.1 at QoS 0."""
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + json.dumps(document).encode()
    length, left = b"", len(body)
    while True:
        left, low = divmod(left, 128)
        length += bytes([low | 0x80 if left else low])
        if not left:
            return (b"\x31" if retained else b"\x30") + length + body
