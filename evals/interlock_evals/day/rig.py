"""A site on a stepped clock: twins on their wires, our own side as it ships, an agent in memory.

Who steps the clock waits until everybody who has something to do at this moment has done it, so a
day does not depend on how fast the machine is.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio
from mcp import Client

from interlock_agents.connection import Servers
from interlock_evals.day.load import DayLoad
from interlock_evals.day.story import Story
from interlock_evals.factory import AGENT, ISV
from interlock_guardrails import changes
from interlock_guardrails.rules import SiteRules
from interlock_plant.jobs import Job, jobs_of
from interlock_plant.load import SteadyLoad
from interlock_plant.plant import Plant
from interlock_plant.trace import RequestTrace
from interlock_servers.exchange.settings import ExchangeSettings
from interlock_servers.exchange.twin import ExchangeTwin
from interlock_servers.flex.settings import FlexSettings
from interlock_servers.flex.twin import FlexAgentTwin, GridIsvTwin, jwks, make_key, write_jwks
from interlock_servers.identity import local_caller
from interlock_servers.maxlps.settings import MaxlpsSettings
from interlock_servers.maxlps.twin import DpsTwin
from interlock_servers.serving import agent_principal
from interlock_servers.site import Site, SiteSettings, open_site
from interlock_servers.transports.broker import Kind, local_broker
from interlock_servers.transports.mqtt import MqttSettings
from interlock_tools.change import Change, ChangeState
from interlock_tools.clock import ManualClock
from interlock_tools.errors import UnavailableError
from interlock_tools.fact import Fact, FactNeed
from interlock_tools.identity import Target

START: Final = datetime(2026, 1, 15, tzinfo=UTC)  # midnight
POWER_AGENT: Final = agent_principal("power", owner="person:power-team")
OTHER_ISV: Final = "second-energy"
ALWAYS_ASLEEP: Final = 1  # the worker's alarm; every change under verification has one more
PATIENCE_S: Final = 60.0  # of the machine's time, for anything that should happen now
LOOK_AGAIN_S: Final = 0.001  # likewise
SLEEPS_BETWEEN: Final = frozenset({ChangeState.VERIFYING, ChangeState.UNKNOWN})


@dataclass
class Rig:
    """A running site and what stands behind it."""

    clock: ManualClock
    plant: Plant
    bms: ExchangeTwin
    dps: DpsTwin
    grid: GridIsvTwin
    other_grid: GridIsvTwin
    flex_agent: FlexAgentTwin
    site: Site
    servers: Servers

    async def settle(self) -> list[Change]:
        """Wait until the worker can do nothing more at this moment; the changes that are open.

        Raises:
            UnavailableError: it came to no rest; names what was open.
        """
        open_now: list[Change] = []
        with anyio.move_on_after(PATIENCE_S):
            while True:
                open_now = await self.site.guard.store.read(changes.unfinished)
                if self._rests(open_now):
                    return open_now
                await anyio.sleep(LOOK_AGAIN_S)
        states = ", ".join(f"{change.change_id} {change.state}" for change in open_now)
        raise UnavailableError(f"the worker came to no rest: {states or 'nothing is open'}")

    def _rests(self, open_now: list[Change]) -> bool:
        now, sleeping = self.clock.now(), 0
        for change in open_now:
            waits = change.state is ChangeState.AWAITING_APPROVAL and change.open_at(now)
            if change.state in SLEEPS_BETWEEN:
                sleeping += 1
            elif not waits and change.state is not ChangeState.STUCK:
                return False
        return self.clock.sleepers == ALWAYS_ASLEEP + sleeping

    async def heard(self, kind: str, subject: Target, since: datetime) -> bool:
        """Whether our side knows this fact as of `since` or later."""
        need = FactNeed(kind=kind, subject=subject, max_age_s=86_400.0)
        answer = await self.site.guard.facts.fact(need)
        return isinstance(answer, Fact) and answer.observed_at >= since

    async def until_heard(self, kind: str, subject: Target, since: datetime) -> None:
        """Wait for that.

        Raises:
            UnavailableError: it did not come.
        """
        await until(lambda: self.heard(kind, subject, since), f"{kind} of {subject}")


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask again and again, without letting the day go on.

    Raises:
        UnavailableError: it did not come to be; says what.
    """
    with anyio.move_on_after(PATIENCE_S):
        while True:
            if await holds():
                return
            await anyio.sleep(LOOK_AGAIN_S)
    raise UnavailableError(f"{what} did not come through in {PATIENCE_S:g} s")


@asynccontextmanager
async def running_rig(
    story: Story,
    folder: Path,
    *,
    trace: RequestTrace | None,
    seed: int = 0,
    broker: Kind | None = None,
    jobs: Sequence[Job] | None = None,
) -> AsyncIterator[Rig]:
    """The site of the story, at its first second, with store and keys in `folder`.

    `jobs` run there at a steady full load, where they are given; else the house's mix by the day.

    Raises:
        InvalidRequestError: the scenario is for another site.
        UnavailableError: a broker or a component did not come up.
    """
    spec, clock = story.site, ManualClock(START)
    placed = jobs_of(spec) if jobs is None else tuple(jobs)
    by_day = DayLoad(placed, trace, seed=seed) if jobs is None else SteadyLoad(placed)
    load = story.scenario.driving(placed, by_day)
    plant = Plant(spec, placed, seed=seed, start=START, load=load)
    story.scenario.prepare(plant)
    isv_key, agent_key = make_key(f"{ISV}-1"), make_key(f"{AGENT}-1")
    other_key = make_key(f"{OTHER_ISV}-1")
    async with AsyncExitStack() as stack:
        keys = write_jwks(folder / "jwks.json", [isv_key, other_key, agent_key])
        address = await stack.enter_async_context(local_broker(broker))
        bms = await stack.enter_async_context(ExchangeTwin(plant, address, clock))
        dps = await stack.enter_async_context(DpsTwin(plant, clock))
        grid = await stack.enter_async_context(GridIsvTwin(address, isv_key, clock, identifier=ISV))
        other_grid = await stack.enter_async_context(
            GridIsvTwin(address, other_key, clock, identifier=OTHER_ISV)
        )
        flex_agent = await stack.enter_async_context(
            FlexAgentTwin(address, plant, agent_key, jwks([isv_key]), clock, identifier=AGENT)
        )

        def mqtt(name: str) -> MqttSettings:
            return MqttSettings(brokers=(address,), client_id=f"interlock-{name}")

        settings = SiteSettings(
            rules=SiteRules(site_id=spec.name, gpus=spec.gpu_count, hosts=len(spec.nodes)),
            bundle="supervised",
            data_dir=folder / "site",
            exchange=ExchangeSettings(mqtt=mqtt("exchange"), site_id=spec.name),
            flex=FlexSettings(
                mqtt=mqtt("flex"),
                jwks_file=keys,
                trusted={
                    grid.source: (isv_key.kid,),
                    other_grid.source: (other_key.kid,),
                    flex_agent.source: (agent_key.kid,),
                },
                site_id=spec.name,
                feeds=spec.feed_ids,
            ),
            maxlps=MaxlpsSettings(address=dps.address, tls=False, site_id=spec.name),
        )
        site = await stack.enter_async_context(
            open_site(settings, clock, local_caller(POWER_AGENT))
        )
        clients = {
            name: await stack.enter_async_context(Client(face.server()))
            for name, face in site.faces.items()
        }
        rig = Rig(clock, plant, bms, dps, grid, other_grid, flex_agent, site, Servers(clients))
        await _until_known(rig)
        yield rig


async def _until_known(rig: Rig) -> None:
    """Wait until the meters and the grid are known, and the worker has begun its rounds."""
    here = Target(kind="site", id=rig.plant.site.name)

    async def listens() -> bool:
        return bool((await rig.servers.call("exchange", "bus_health"))["connected"])

    await until(listens, "the bus")
    await rig.bms.publish_once()
    await rig.flex_agent.step()
    for kind in ("meter.power", "grid.limit"):
        await rig.until_heard(kind, here, START)
    await rig.settle()
