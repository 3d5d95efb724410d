"""The small lab with its BMS on a real broker, and a client that listens to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from interlock_plant.halls import lab_site
from interlock_plant.jobs import lab_jobs
from interlock_plant.load import SteadyLoad
from interlock_plant.plant import Plant
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.models import Compatibility
from interlock_servers.exchange.settings import ExchangeSettings
from interlock_servers.exchange.twin import ExchangeTwin
from interlock_servers.transports.broker import local_broker
from interlock_servers.transports.mqtt import MqttSettings
from interlock_tools.clock import ManualClock
from tests.servers.waiting import until

START = datetime(2026, 9, 1, 6, 0, tzinfo=UTC)


@dataclass
class Rig:
    """A plant, its BMS on the bus and a client of that bus, all on one clock."""

    plant: Plant
    clock: ManualClock
    twin: ExchangeTwin
    client: ExchangeClient
    broker: str

    async def hear(self) -> None:
        """Let the BMS say what is due, and return once the client has taken all of it in."""
        before = self._taken()
        said = await self.twin.publish_once()
        await until(lambda: self._taken() >= before + said)

    def wait(self, seconds: int) -> None:
        """Let time pass for the plant and everyone who looks at it, in silence."""
        for _ in range(seconds):
            self.plant.step()
        self.clock.advance(seconds)

    def _taken(self) -> int:
        rejected = self.client.store.rejected.values()
        return self.client.store.accepted + sum(example.times for example in rejected)


def lab_plant() -> Plant:
    """The 512 GPUs of the lab under a steady load."""
    site = lab_site()
    jobs = lab_jobs(site)
    return Plant(site, jobs, seed=7, start=START, load=SteadyLoad(jobs))


def listening(
    clock: ManualClock,
    *brokers: str,
    client_id: str = "interlock",
    compatibility: Compatibility | None = None,
) -> ExchangeClient:
    """A client for the lab's bus."""
    settings = ExchangeSettings(
        mqtt=MqttSettings(brokers=brokers, client_id=client_id),
        site_id="lab",
        compatibility=compatibility or Compatibility(),
    )
    return ExchangeClient(settings, clock)


@asynccontextmanager
async def rig_on(
    broker: str, *others: str, compatibility: Compatibility | None = None
) -> AsyncIterator[Rig]:
    """The lab on this broker; the client also knows the others."""
    plant, clock = lab_plant(), ManualClock(START)
    client = listening(clock, broker, *others, compatibility=compatibility)
    async with client, ExchangeTwin(plant, broker, clock) as twin:
        await client.wait_connected(15)
        yield Rig(plant, clock, twin, client, broker)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """The lab on the best broker that is installed, with everything said once."""
    async with local_broker() as broker, rig_on(broker) as it:
        await it.hear()
        yield it
