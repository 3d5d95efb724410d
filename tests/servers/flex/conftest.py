"""A small site, its grid and its agent on a real broker, in simulated time."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from interlock_plant.jobs import Job
from interlock_plant.load import SteadyLoad
from interlock_plant.parameters import JobClass
from interlock_plant.plant import Plant
from interlock_plant.site import Cdu, Feed, Node, Pdu, Rack, SiteSpec
from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.facts import GRID_EVENT, GRID_EVENT_KIND, GRID_LIMIT, FlexFacts
from interlock_servers.flex.settings import FlexSettings
from interlock_servers.flex.twin import FlexAgentTwin, GridIsvTwin, TwinKey, jwks, make_key
from interlock_servers.flex.twin import write_jwks as write_keys
from interlock_servers.transports.broker import local_broker
from interlock_servers.transports.mqtt import MqttSettings
from interlock_tools.clock import ManualClock
from interlock_tools.fact import Fact, FactNeed, Unknown
from interlock_tools.identity import Target

START = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
PATIENCE_S = 20.0
FEEDS = ("main-a", "main-b")
SITE = Target(kind="site", id="lab")
ISV = "//grid/v1/isv/acme-energy"
OTHER_ISV = "//grid/v1/isv/other-grid"
AGENT = "//grid/v1/dsx-flex-agent/maxlps"
OLD_AGENT = "//grid/v1/poweragent/maxlps"


def two_feeds() -> Plant:
    """One eight-GPU node on each of two feeds, both burning at 700 W a GPU: 8.4 kW a feed."""
    site = SiteSpec(
        name="lab",
        feeds=tuple(Feed(feed, 12_000.0) for feed in FEEDS),
        pdus=tuple(Pdu(f"pdu-{feed}", feed, 12_000.0) for feed in FEEDS),
        cdus=(Cdu("cdu-1", 24_000.0),),
        racks=tuple(Rack(f"rack-{feed}", f"pdu-{feed}", "cdu-1", 12_000.0) for feed in FEEDS),
        nodes=tuple(Node(f"node-{feed}", f"rack-{feed}") for feed in FEEDS),
    )
    jobs = (Job("burn", "acme", JobClass.BURN, tuple(range(site.gpu_count))),)
    return Plant(site, jobs, seed=1, start=START, load=SteadyLoad(jobs))


MakeSettings = Callable[..., FlexSettings]


class Bench:
    """Everything that a contract test touches."""

    def __init__(
        self,
        broker: str,
        plant: Plant,
        clock: ManualClock,
        isv: GridIsvTwin,
        agent: FlexAgentTwin,
        client: FlexClient,
        end_broker: Callable[[], Awaitable[None]],
    ) -> None:
        self.broker = broker
        self.plant = plant
        self.clock = clock
        self.isv = isv
        self.agent = agent
        self.client = client
        self.end_broker = end_broker

    def isv_of(self, prefix: str) -> GridIsvTwin:
        """The same ISV, speaking to another cluster."""
        return GridIsvTwin(self.broker, self.isv.key, self.clock, topic_prefix=prefix)

    @property
    def facts(self) -> FlexFacts:
        """The fact source over the present client."""
        return FlexFacts(self.client, self.clock)

    async def limit(self) -> Fact | Unknown:
        """The fact `grid.limit` of the site."""
        return await self.facts.fact(FactNeed(kind=GRID_LIMIT, subject=SITE, max_age_s=60.0))

    async def event(self, correlation_id: str) -> str | None:
        """The fact `grid.event` of one request; None where it is unknown."""
        event = Target(kind=GRID_EVENT_KIND, id=correlation_id)
        need = FactNeed(kind=GRID_EVENT, subject=event, max_age_s=60.0)
        fact = await self.facts.fact(need)
        return str(fact.value) if isinstance(fact, Fact) else None

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait, bounded, until the client shows it."""
        with anyio.fail_after(PATIENCE_S):
            await self.client.wait_until(holds)

    async def tell_agent(self, send: Awaitable[str]) -> str:
        """Send a target and let the agent hear it; gives the correlation id."""
        before = self.agent.heard
        correlation_id = await send
        with anyio.fail_after(PATIENCE_S):
            await self.agent.wait_heard(before + 1)
        return correlation_id

    def cap_all(self, cap_w: float) -> None:
        """Cap every GPU: 700 W is 16.9 kW for the site, 200 W is 7.1 kW."""
        self.plant.command_caps(range(self.plant.site.gpu_count), cap_w)

    async def seconds(self, count: int) -> None:
        """Let plant, clock and agent go on together."""
        for _ in range(count):
            self.plant.step()
            self.clock.advance(1.0)
            await self.agent.step()


OpenBench = Callable[..., AbstractAsyncContextManager[Bench]]


@pytest.fixture(scope="session")
def isv_key() -> TwinKey:
    """The key of the trusted ISV."""
    return make_key("acme-1")


@pytest.fixture(scope="session")
def other_key() -> TwinKey:
    """The key of another trusted ISV."""
    return make_key("other-1")


@pytest.fixture(scope="session")
def agent_key() -> TwinKey:
    """The key of the Flex Agent."""
    return make_key("maxlps-1")


@pytest.fixture
def settings(
    tmp_path: Path, isv_key: TwinKey, other_key: TwinKey, agent_key: TwinKey
) -> MakeSettings:
    """Settings for a broker, an agent's role, and a cluster where the bus is the common one."""

    def of(broker: str, role: str = "dsx-flex-agent", cpc_id: str | None = None) -> FlexSettings:
        return FlexSettings(
            mqtt=MqttSettings(brokers=(broker,), client_id="interlock-flex"),
            jwks_file=write_keys(tmp_path / "jwks.json", (isv_key, other_key, agent_key)),
            trusted={
                ISV: (isv_key.kid,),
                OTHER_ISV: (other_key.kid,),
                f"//grid/v1/{role}/maxlps": (agent_key.kid,),
            },
            site_id=SITE.id,
            feeds=FEEDS,
            cpc_id=cpc_id,
        )

    return of


@pytest.fixture
def bench(settings: MakeSettings, isv_key: TwinKey, agent_key: TwinKey) -> OpenBench:
    """Open a broker with ISV and agent on it; the client too, unless `listening` is false."""

    @asynccontextmanager
    async def opened(
        *, listening: bool = True, prefix: str = "", role: str = "dsx-flex-agent"
    ) -> AsyncIterator[Bench]:
        plant, clock = two_feeds(), ManualClock(START)
        async with AsyncExitStack() as brokers:
            broker = await brokers.enter_async_context(local_broker())
            isv = GridIsvTwin(broker, isv_key, clock, topic_prefix=prefix)
            agent = FlexAgentTwin(
                broker, plant, agent_key, jwks([isv_key]), clock, role=role, topic_prefix=prefix
            )
            cpc_id = prefix.split("/")[1] if prefix else None
            client = FlexClient(settings(broker, role, cpc_id), clock)
            bench = Bench(broker, plant, clock, isv, agent, client, brokers.aclose)
            async with isv, agent:
                if not listening:
                    yield bench
                    return
                async with client:
                    await client.wait_connected(PATIENCE_S)
                    yield bench

    return opened
