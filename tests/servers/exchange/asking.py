"""The writing half on a real broker with the BMS of the lab: what stands is what a test says."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
from sqlalchemy import Engine

from interlock_guardrails.engine import create_store_engine, create_tables
from interlock_guardrails.store import Store
from interlock_servers.exchange.attached import Requesting, requesting
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.intents import Intent, Intents, Where
from interlock_servers.exchange.operations import DOES
from interlock_servers.exchange.requests import Asked
from interlock_servers.exchange.settings import ExchangeSettings, RequestSettings, SupplyLimits
from interlock_servers.exchange.twin import ExchangeTwin
from interlock_servers.transports.mqtt import Message, MqttBus, MqttSettings
from interlock_tools.clock import Clock, ManualClock
from tests.servers.exchange.conftest import START, Rig, lab_plant
from tests.servers.waiting import until

ACME = "ACME"


class Told(Intents):
    """What stands is what a test says; it can also be unreadable, or never answer."""

    def __init__(self, store: Store, does: Any = DOES) -> None:
        super().__init__(store, does)
        self.said: dict[Where, Intent] = {}
        self.broken: Exception | None = None
        self.hangs = False

    async def standing(self, now: datetime) -> dict[Where, Intent]:
        """What the test says."""
        if self.hangs:
            await anyio.sleep_forever()
        if self.broken is not None:
            raise self.broken
        return dict(self.said)

    def ask(
        self, asked: Asked, whose: str, value: float | str | None, **more: Any
    ) -> tuple[Asked, str]:
        """Let something stand; None takes back."""
        intent = Intent("chg-000000000001", asked, whose, value, START, None)
        self.said[asked, whose] = intent._replace(**more)
        return asked, whose


@dataclass
class Asking:
    """A plant with its BMS, a client, and the holder of requests, on one clock."""

    rig: Rig
    asks: Requesting
    told: Told
    heard: list[Message] = field(default_factory=list)

    @property
    def ours(self) -> list[Message]:
        """What we have put on the bus, as anyone hears it, without the life signs."""
        return [m for m in self.of_us if "Heartbeat" not in m.topic]

    async def round(self) -> str | None:
        """One round of the holder; what it published has reached the BMS. Gives its trouble."""
        holder, bms = self.asks.wires.holder, self.rig.twin.requests
        sent, heard = self.asks.publisher.sent, len(self.of_us)
        await holder.round()
        sent = self.asks.publisher.sent - sent
        await until(lambda: len(self.of_us) >= heard + sent)
        beats = [m for m in self.of_us if "/HeartbeatTimestampIntegration/" in m.topic]
        last_ms = float(json.loads(beats[-1].payload)["value"]) if beats else None
        await until(lambda: bms.heard >= len(self.ours) and bms.last_beat_ms == last_ms)
        return holder.trouble

    @property
    def of_us(self) -> list[Message]:
        """Everything that we have put on the bus."""
        return [m for m in self.heard if f"BMS/v1/{ACME}/" in m.topic]

    async def pass_s(self, seconds: int, *, every_s: int = 10, holds: bool = True) -> None:
        """Let time pass for plant, BMS and holder; then the client knows what the BMS shows."""
        for _ in range(0, seconds, every_s):
            self.rig.wait(every_s)
            if holds:
                await self.round()
            await self.rig.twin.publish_once()
        await self.seen()

    async def seen(self) -> None:
        """Return once the client has heard the BMS's beat of this moment, and all before it."""
        now = self.rig.clock.now()
        self.rig.twin.repair("no_heartbeat")  # everything is said anew
        await self.rig.twin.publish_once()
        await until(
            lambda: any(
                beat.last_beat_at == now
                for beat in self.rig.client.heartbeats().beats
                if beat.kind == "bms"
            )
        )


def may_ask(broker: str, **more: Any) -> RequestSettings:
    """Everything may be asked for, within the limits of a test."""
    said = {
        "integration": ACME,
        "mqtt": MqttSettings(brokers=(broker,), client_id="requests"),
        "supply": SupplyLimits(min_c=22.0, max_c=34.0, safe_c=25.0, max_step_c=4.0),
        "isolation": True,
        "not_ready": {"Status": 0, "Available": 0},
    }
    return RequestSettings.model_validate(said | more)


def empty_store(folder: Path) -> tuple[Engine, Store]:
    """A store without a change."""
    engine = create_store_engine(f"sqlite:///{folder / 'store.db'}")
    create_tables(engine)
    return engine, Store(engine)


@asynccontextmanager
async def asking_on(
    broker: str, folder: Path, *, password: dict[str, str] | None = None
) -> AsyncIterator[Asking]:
    """The lab on this broker, everything said once, our connection up and nothing asked for."""
    plant, clock = lab_plant(), ManualClock(START)
    engine, store = empty_store(folder)
    own = password or {}
    heard: list[Message] = []
    listener = MqttSettings(brokers=(broker,), client_id="listener", **own)  # type: ignore[arg-type]
    reading = MqttSettings(brokers=(broker,), client_id="reading", **own)  # type: ignore[arg-type]
    settings = ExchangeSettings(mqtt=reading, site_id="lab")
    try:
        async with (
            ExchangeClient(settings, clock) as client,
            MqttBus(listener, clock, heard.append, subscriptions=[("#", 0)]) as bus,
            ExchangeTwin(plant, broker, clock, integration=ACME) as twin,
        ):
            await client.wait_connected(15)
            await bus.wait_connected(15)
            rig = Rig(plant, clock, twin, client, broker)
            async with asking(rig, store, clock) as asked:
                asked.heard = heard
                await rig.hear()
                await until(lambda: len(heard) > 0)
                yield asked
    finally:
        engine.dispose()


@asynccontextmanager
async def asking(rig: Rig, store: Store, clock: Clock, **more: Any) -> AsyncIterator[Asking]:
    """The writing half beside a rig; its connection is up."""
    asks = requesting(rig.client, may_ask(rig.broker, **more), store, clock)
    told = Told(store)
    asks.wires.holder._intents = told
    async with asks.publisher:
        await until(lambda: asks.publisher.connected)
        yield Asking(rig, asks, told)


def after(seconds: float) -> datetime:
    """A moment of the test."""
    return START + timedelta(seconds=seconds)
