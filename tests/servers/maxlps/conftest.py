"""A small factory with DPS in front of it, and the client that talks to it."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from interlock_plant import Job, JobClass, Plant, SiteSpec, SteadyLoad, hall_site
from interlock_servers.maxlps.client import DpsClient
from interlock_servers.maxlps.settings import MaxlpsSettings
from interlock_servers.maxlps.twin import DpsTwin
from interlock_servers.transports.grpc_settings import is_loopback, split_address
from interlock_tools.clock import ManualClock

START = datetime(2026, 9, 1, 12, tzinfo=UTC)


class WakefulClock(ManualClock):
    """Sleeping takes no time: the clock moves on at once, and remembers for how long."""

    def __init__(self, start: datetime) -> None:
        super().__init__(start)
        self.slept_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Move the clock on."""
        self.slept_s.append(seconds)
        self.advance(seconds)


@pytest.fixture
def clock() -> WakefulClock:
    """The one clock of plant, twin and client."""
    return WakefulClock(START)


@pytest.fixture
def site() -> SiteSpec:
    """Twelve nodes in two racks; with every GPU at its greatest they need 101 kW of 100."""
    hall = hall_site(12)
    return replace(
        hall,
        pdus=tuple(replace(pdu, rating_w=100_000.0) for pdu in hall.pdus),
        feeds=tuple(replace(feed, rating_w=120_000.0) for feed in hall.feeds),
    )


@pytest.fixture
def jobs() -> tuple[Job, ...]:
    """Serving with a promise on the first two nodes, training on the next six, the rest idle."""
    chat = tuple(range(16))
    train = tuple(range(16, 64))
    return (
        Job("chat", "borealis", JobClass.SERVING, chat, weight=1.5, floor_work=0.95),
        Job("pretrain", "aurora", JobClass.TRAIN, train),
    )


@pytest.fixture
def plant(site: SiteSpec, jobs: tuple[Job, ...]) -> Plant:
    """The factory, uncapped."""
    return Plant(site, jobs, seed=7, start=START, load=SteadyLoad(jobs))


def settings_for(address: str, *, deadline_s: float = 10.0) -> MaxlpsSettings:
    """Settings for a twin on loopback."""
    return MaxlpsSettings(address=address, tls=False, site_id="hall", deadline_s=deadline_s)


@pytest.fixture
async def twin(plant: Plant, clock: WakefulClock) -> AsyncIterator[DpsTwin]:
    """DPS over the plant, without faults."""
    async with DpsTwin(plant, clock) as running:
        yield running


@pytest.fixture
async def dps(twin: DpsTwin, clock: WakefulClock) -> AsyncIterator[DpsClient]:
    """A client of the twin."""
    async with DpsClient(settings_for(twin.address), clock) as client:
        yield client


@pytest.fixture(params=["twin", pytest.param("real", marks=pytest.mark.live)])
async def any_dps(
    request: pytest.FixtureRequest, plant: Plant, clock: WakefulClock
) -> AsyncIterator[DpsClient]:
    """The twin always; a real DPS where INTERLOCK_DPS_ADDRESS names one. For reads only."""
    if request.param == "twin":
        async with (
            DpsTwin(plant, clock) as running,
            DpsClient(settings_for(running.address), clock) as client,
        ):
            yield client
        return
    address = os.environ.get("INTERLOCK_DPS_ADDRESS", "")
    if not address:
        pytest.skip("INTERLOCK_DPS_ADDRESS names no DPS")
    settings = MaxlpsSettings(
        address=address,
        tls=not is_loopback(split_address(address)[0]),
        token_env="INTERLOCK_DPS_TOKEN" if "INTERLOCK_DPS_TOKEN" in os.environ else None,
        site_id="real",
    )
    async with DpsClient(settings, clock) as client:
        yield client
