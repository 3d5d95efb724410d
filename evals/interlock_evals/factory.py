"""A simulated AI factory: the plant, stepped by a clock, shown by its twins on the real wires.

It gives addresses, as a real site would; whoever connects cannot tell, and need not know.
"""

import logging
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import anyio
from pydantic import BaseModel, ConfigDict, ValidationError

from interlock_plant.jobs import jobs_of
from interlock_plant.load import Load, SyntheticLoad, TraceLoad
from interlock_plant.plant import Plant
from interlock_plant.scenario import Scenario, parse_scenario
from interlock_plant.site import SiteSpec
from interlock_plant.site_file import SHIPPED, parse_site, shipped_site
from interlock_plant.trace import RequestTrace
from interlock_servers.exchange.settings import ExchangeSettings, RequestSettings, SupplyLimits
from interlock_servers.exchange.twin import ExchangeTwin
from interlock_servers.flex.settings import FlexSettings
from interlock_servers.flex.twin import FlexAgentTwin, GridIsvTwin, jwks, make_key, write_jwks
from interlock_servers.maxlps.node_settings import NodePowerSettings, PowerSettings
from interlock_servers.maxlps.settings import MaxlpsSettings
from interlock_servers.maxlps.twin import DpsTwin
from interlock_servers.nvsentinel.settings import NvsentinelSettings
from interlock_servers.transports.broker import Kind, local_broker
from interlock_servers.transports.kube.settings import ClusterSettings
from interlock_servers.transports.mqtt import MqttSettings
from interlock_tools.clock import Clock, ScaledClock
from interlock_tools.errors import InvalidRequestError, UnavailableError

ISV = "acme-energy"
AGENT = "maxlps"
INTEGRATION = "INTERLOCK"  # the points of the BMS that are ours to write
SUPPLY = SupplyLimits(min_c=24.0, max_c=34.0, safe_c=25.0)
CATCH_UP_STEPS = 50  # a plant that fell behind its clock is brought up in portions
LOOK_EVERY_S = 0.2

log = logging.getLogger(__name__)


class Addresses(BaseModel):
    """Where a factory can be reached; written to a file so that other processes can join it.

    `agents` is how its GPUs are limited through agents of its nodes, where it has those: then
    nobody may limit them through DPS.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site_id: str
    gpus: int
    hosts: int
    feeds: tuple[str, ...]
    broker: str
    dps: str
    jwks_file: Path
    kubernetes: Path | None = None  # a kubeconfig; None where the factory has no cluster
    trusted: dict[str, tuple[str, ...]]
    clock_epoch: datetime
    clock_anchor_unix_s: float
    clock_rate: float
    agents: NodePowerSettings | None = None

    def save(self, path: Path) -> None:
        """Write the file as a whole or not at all."""
        scratch = path.with_suffix(".part")
        scratch.write_text(self.model_dump_json(indent=2), "utf-8")
        scratch.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Addresses":
        """The addresses in this file.

        Raises:
            InvalidRequestError: there is no such file, or it holds something else.
        """
        try:
            return cls.model_validate_json(path.read_text("utf-8"))
        except (OSError, ValidationError) as error:
            raise InvalidRequestError(
                f"{path} does not hold a factory's addresses; `interlock plant` writes them"
            ) from error

    def clock(self) -> ScaledClock:
        """The factory's own time, the same in every process."""
        return ScaledClock(self.clock_epoch, self.clock_anchor_unix_s, self.clock_rate)

    def exchange(self, client_id: str) -> ExchangeSettings:
        """How to attach `exchange`."""
        return ExchangeSettings(
            mqtt=self._mqtt(f"{client_id}-exchange"),
            site_id=self.site_id,
            requests=RequestSettings(
                integration=INTEGRATION,
                mqtt=self._mqtt(f"{client_id}-requests"),
                supply=SUPPLY,
                isolation=True,
                not_ready={"Status": 0, "Available": 0},
            ),
        )

    def flex(self, client_id: str) -> FlexSettings:
        """How to attach `flex`."""
        return FlexSettings(
            mqtt=self._mqtt(f"{client_id}-flex"),
            jwks_file=self.jwks_file,
            trusted=self.trusted,
            site_id=self.site_id,
            feeds=self.feeds,
        )

    def maxlps(self) -> PowerSettings:
        """How to attach `maxlps`: through the agents of the nodes where there are any, else DPS."""
        if self.agents is not None:
            return self.agents
        return MaxlpsSettings(address=self.dps, tls=False, site_id=self.site_id)

    def nvsentinel(self) -> NvsentinelSettings | None:
        """How to attach `nvsentinel`, where the factory has a cluster."""
        if self.kubernetes is None:
            return None
        cluster = ClusterSettings(name=self.site_id, kubeconfig=self.kubernetes)
        return NvsentinelSettings(cluster=cluster, operations=True)

    def _mqtt(self, client_id: str) -> MqttSettings:
        return MqttSettings(brokers=(self.broker,), client_id=client_id)


@dataclass
class Factory:
    """A running factory: the plant behind it is for scorers, the addresses are for everyone."""

    plant: Plant
    exchange: ExchangeTwin
    dps: DpsTwin
    grid: GridIsvTwin
    flex_agent: FlexAgentTwin
    addresses: Addresses
    clock: Clock


def site_of(name: str) -> SiteSpec:
    """The shipped site of this name, else the one that the file of this name describes.

    Raises:
        InvalidRequestError: there is neither, or the file describes no site that can stand.
    """
    if name in SHIPPED:
        return shipped_site(name)
    try:
        text = Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            f"{name} is none of {', '.join(SHIPPED)}, nor a file that can be read: {error}"
        ) from error
    try:
        return parse_site(text)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{name}: {error}") from error


def scenario_in(path: Path) -> Scenario:
    """The scenario in this file.

    Raises:
        InvalidRequestError: it cannot be read, or holds none.
    """
    try:
        return parse_scenario(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} cannot be read: {error}") from error
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{path}: {error}") from error


@asynccontextmanager
async def running_factory(
    clock: ScaledClock,
    *,
    site: str = "lab",
    seed: int = 0,
    trace: RequestTrace | None = None,
    scenario: Scenario | None = None,
    broker: Kind | None = None,
    broker_url: str | None = None,
    agents: bool = False,
    kubernetes: bool = False,
) -> AsyncIterator[Factory]:
    """A site that runs until the block ends: a shipped one by name, or a file's.

    `trace` drives its serving load; `scenario` says what goes wrong, from the start of the clock.
    With `agents` its GPUs are read and limited through agents of its nodes, as without DPS.

    It brings a broker of its own, of the kind `broker`, unless `broker_url` names one that runs.
    With `kubernetes` it has a cluster as well, on which NVSentinel looks after the nodes.

    Raises:
        InvalidRequestError: there is no such site, or the scenario is for another one.
        UnavailableError: the broker did not start or does not answer.
    """
    spec = site_of(site)
    jobs = jobs_of(spec)
    load: Load = SyntheticLoad(jobs, seed=seed)
    if trace is not None:
        load = TraceLoad(jobs, trace, load)
    if scenario is not None:
        load = scenario.driving(jobs, load)
    plant = Plant(spec, jobs, seed=seed, start=clock.now(), load=load)
    if scenario is not None:
        scenario.prepare(plant)
    isv_key, agent_key = make_key(f"{ISV}-1"), make_key(f"{AGENT}-1")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="interlock-")))
        jwks_file = write_jwks(folder / "jwks.json", [isv_key, agent_key])
        address = broker_url
        if address is None:
            address = await stack.enter_async_context(local_broker(broker))
        exchange = await stack.enter_async_context(
            ExchangeTwin(plant, address, clock, integration=INTEGRATION)
        )
        dps = await stack.enter_async_context(DpsTwin(plant, clock))
        lock, by_agents = threading.Lock(), None
        if agents:  # only then loaded, as the cluster is: a server over stdio must start at once
            from interlock_evals.node_agents import power_settings, serving_nodes

            nodes = await stack.enter_async_context(serving_nodes(plant, clock, folder, lock))
            by_agents = power_settings(plant, nodes)
        grid = GridIsvTwin(address, isv_key, clock, identifier=ISV)
        await stack.enter_async_context(grid)
        agent = FlexAgentTwin(address, plant, agent_key, jwks([isv_key]), clock, identifier=AGENT)
        await stack.enter_async_context(agent)
        kubeconfig = None
        if kubernetes:
            from interlock_evals.on_a_cluster import nvsentinel_at_work

            (folder / "kubernetes").mkdir()
            there = nvsentinel_at_work(plant, clock, folder / "kubernetes")
            kubeconfig = await stack.enter_async_context(there)
        addresses = Addresses(
            site_id=spec.name,
            gpus=spec.gpu_count,
            hosts=len(spec.nodes),
            feeds=spec.feed_ids,
            broker=address,
            dps=dps.address,
            jwks_file=jwks_file,
            kubernetes=kubeconfig,
            trusted={grid.source: (isv_key.kid,), agent.source: (agent_key.kid,)},
            clock_epoch=clock.epoch,
            clock_anchor_unix_s=clock.anchor_unix_s,
            clock_rate=clock.rate,
            agents=by_agents,
        )
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(exchange.run)
        tasks.start_soon(_run_plant, plant, agent, clock, scenario, lock)
        try:
            yield Factory(plant, exchange, dps, grid, agent, addresses, clock)
        finally:
            tasks.cancel_scope.cancel()


async def _run_plant(
    plant: Plant,
    agent: FlexAgentTwin,
    clock: Clock,
    scenario: Scenario | None,
    lock: threading.Lock,
) -> None:
    """Keep the plant at the clock's second, and the Flex Agent with it; `lock` while it steps."""

    async def second() -> None:
        if scenario is not None:
            scenario.announce_due(plant, plant.second)
        with lock:
            plant.step()
        try:
            await agent.step()
        except UnavailableError as error:
            log.warning("the flex agent cannot reach its broker", extra={"error": str(error)})

    await keep_up(plant, clock, second, look_every_s=LOOK_EVERY_S)


async def keep_up(
    plant: Plant, clock: Clock, second: Callable[[], Awaitable[None]], *, look_every_s: float
) -> None:
    """Keep the plant at the clock's second, without end; `second` takes it one further."""
    while True:
        for _ in range(CATCH_UP_STEPS):
            if plant.now >= clock.now():
                break
            await second()
        await clock.sleep(look_every_s)
