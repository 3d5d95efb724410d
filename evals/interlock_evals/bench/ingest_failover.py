"""From one broker to the next: how long the bus is out of sight, and whether ages stay true.

The first broker stands behind a relay of ours, which can close at once or fall silent with its
connections open. Each reading carries the moment at which it was sent as its value, so that a wrong
age shows by itself.
"""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
import anyio.to_thread
from anyio.abc import ByteStream, SocketAttribute, SocketStream

from interlock_evals.bench.measured import Measured, median
from interlock_evals.bench.mqtt_wire import PATIENCE_S, Sender, packet, send
from interlock_evals.reports import Figure, Promise
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.points import PointState
from interlock_servers.exchange.settings import ExchangeSettings
from interlock_servers.transports.broker import local_broker
from interlock_servers.transports.mqtt import MqttSettings
from interlock_servers.transports.mqtt_settings import parse_broker
from interlock_tools.clock import SystemClock

ROUNDS = 3
FAILOVER_LIMIT_S = 3.0
EVERY_S, LOOK_EVERY_S = 0.05, 0.005
FRESH_S = 0.5  # so that readings grow stale while the bus is out of sight
TOLERANCE_S = 0.02
KEY = "PowerMeter/ActivePower/bench"
WHY_NOT = "a broker that is silent is found only by a ping that stays unanswered"


def measure() -> Measured:
    """The longest of a few failovers of each kind, and readings with a wrong age meanwhile."""
    logging.disable(logging.WARNING)  # that a broker is lost is what is wanted
    try:
        return anyio.run(_measure)
    finally:
        logging.disable(logging.NOTSET)


class _Seen(NamedTuple):
    took_s: float
    looks: int
    wrong: int
    stale: int


class Relay:
    """Passes bytes on to a broker until it is told to stop."""

    def __init__(self, broker: str) -> None:
        self._to = parse_broker(broker)
        self._scope = anyio.CancelScope()
        self._silent = False
        self.url = ""

    def fall_silent(self) -> None:
        """Pass nothing on any more, and keep every connection open."""
        self._silent = True

    def close(self) -> None:
        """End every connection, and take none any more."""
        self._scope.cancel()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Relay"]:
        """Listen on a free loopback port."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no Django here
        self.url = f"mqtt://127.0.0.1:{port}"

        async def serve() -> None:
            with self._scope:
                async with listener:
                    await listener.serve(self._pass_on)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            try:
                yield self
            finally:
                tasks.cancel_scope.cancel()

    async def _pass_on(self, here: SocketStream) -> None:
        async with (
            here,
            await anyio.connect_tcp(self._to.host, self._to.port) as there,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(self._pump, here, there)
            tasks.start_soon(self._pump, there, here)

    async def _pump(self, out_of: ByteStream, into: ByteStream) -> None:
        try:
            async for some in out_of:
                if not self._silent:
                    await into.send(some)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass


async def _measure() -> Measured:
    seen: dict[str, list[_Seen]] = {"closed": [], "silent": []}
    async with local_broker() as first, local_broker() as second:
        for url in (first, second):
            await anyio.to_thread.run_sync(send, url, _description())
        for _ in range(ROUNDS):
            for how, found in seen.items():
                found.append(await _fail_over(first, second, silent=how == "silent"))
    figures: dict[str, Figure] = {}
    promises: dict[str, Promise] = {}
    for how, found in seen.items():
        key, took = f"failover_{how}_s", [one.took_s for one in found]
        figures[key] = median(took, "s")
        promises[key] = Promise.at_most(max(took), FAILOVER_LIMIT_S, "s", WHY_NOT)
    every = [one for found in seen.values() for one in found]
    figures["failover_readings"] = Figure(sum(one.looks for one in every), "")
    figures["failover_readings_stale"] = Figure(sum(one.stale for one in every), "")
    wrong = sum(one.wrong for one in every)
    promises["failover_wrong_ages"] = Promise.at_most(wrong, 0, "")
    return Measured(figures, promises)


async def _fail_over(first: str, second: str, *, silent: bool) -> _Seen:
    """Lose the first broker while readings come through both; until one came through the second."""
    relay = Relay(first)
    with Sender(first) as to_first, Sender(second) as to_second:
        async with relay.serving(), anyio.create_task_group() as tasks:
            tasks.start_soon(_publish, (to_first, to_second))
            mqtt = MqttSettings(brokers=(relay.url, second), client_id="bench-failover")
            settings = ExchangeSettings(mqtt=mqtt, site_id="lab", fresh_s=FRESH_S)
            async with ExchangeClient(settings, SystemClock()) as client:
                await client.wait_connected(PATIENCE_S)
                await _until_good(client)
                begun_s = time.perf_counter()
                if silent:
                    relay.fall_silent()
                else:
                    relay.close()
                seen = await _watch(client, second, begun_s)
            tasks.cancel_scope.cancel()
    return seen


async def _publish(senders: tuple[Sender, ...]) -> None:
    """What a BMS says of one point, through every broker that it knows."""
    while True:
        now_ms = time.time_ns() // 1_000_000
        said = packet(
            f"BMS/v1/PUB/Value/{KEY}", {"value": now_ms, "timestamp": now_ms, "quality": 1}
        )
        for sender in senders:
            sender.send(said)
        await anyio.sleep(EVERY_S)


async def _until_good(client: ExchangeClient) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not _is_good(client):  # noqa: ASYNC110 (the network's thread sets no event)
            await anyio.sleep(LOOK_EVERY_S)


def _is_good(client: ExchangeClient) -> bool:
    point = client.store.point(KEY)
    return point is not None and point.state(client.now(), FRESH_S) is PointState.GOOD


async def _watch(client: ExchangeClient, second: str, begun_s: float) -> _Seen:
    """Look at the point all the time; over once a reading came through the second broker."""
    looks = wrong = stale = 0
    came_s: float | None = None
    before = 0.0
    with anyio.fail_after(PATIENCE_S):
        while came_s is None:
            now_s = time.time()
            page = client.point(KEY)
            seen, looks = page.points[0], looks + 1
            sent_s = (seen.last_good_value or 0.0) / 1000
            wrong += seen.age_s is None or abs(seen.age_s - (now_s - sent_s)) > TOLERANCE_S
            wrong += sent_s < before
            wrong += (seen.value is None) is not (seen.state is not PointState.GOOD)
            wrong += seen.state is PointState.GOOD and now_s - sent_s > FRESH_S + TOLERANCE_S
            wrong += page.bus.connected is not (page.bus.stale_since is None)
            stale += seen.state is PointState.STALE
            if page.bus.broker == second and sent_s > before > 0:
                came_s = time.perf_counter()
            before = sent_s
            await anyio.sleep(LOOK_EVERY_S)
    return _Seen(came_s - begun_s, looks, wrong, stale)


def _description() -> bytes:
    said: dict[str, object] = {"objectType": "PowerMeter", "pointType": "ActivePower"}
    said |= {"engUnit": "kW", "objectId": "bench"}
    return packet(f"BMS/v1/PUB/Metadata/{KEY}", said, retained=True)
