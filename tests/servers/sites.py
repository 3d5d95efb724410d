"""The lab with every wire real and a clock that stands still, met through MCP as an agent does."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
from mcp import Client
from numpy.typing import ArrayLike

from interlock_agents.connection import Servers
from interlock_evals.node_agents import power_settings
from interlock_guardrails.rules import SiteRules
from interlock_plant import JobClass
from interlock_plant.halls import hall_site, lab_site
from interlock_plant.jobs import Job, lab_jobs
from interlock_plant.load import SyntheticLoad
from interlock_plant.plant import Plant
from interlock_servers.exchange.settings import ExchangeSettings, RequestSettings, SupplyLimits
from interlock_servers.exchange.twin import ExchangeTwin
from interlock_servers.flex.settings import FlexSettings, PublishSettings
from interlock_servers.flex.twin import (
    FlexAgentTwin,
    GridIsvTwin,
    TwinKey,
    jwks,
    make_key,
    write_jwks,
)
from interlock_servers.identity import SCOPE_PROPOSE, SCOPE_READ
from interlock_servers.maxlps.node_settings import PowerSettings
from interlock_servers.maxlps.settings import MaxlpsSettings
from interlock_servers.maxlps.twin import DpsTwin, TwinFault
from interlock_servers.site import Site, SiteSettings, connections, open_site
from interlock_servers.transports.broker import local_broker
from interlock_servers.transports.mqtt import MqttSettings
from interlock_tools.change import ENDED, Change, ChangeState
from interlock_tools.clock import ManualClock
from interlock_tools.identity import Principal, PrincipalKind
from tests.servers.devices.nodes import Nodes, StepClock, running

START = datetime(2026, 9, 1, 6, 0, tzinfo=UTC)
INTEGRATION = "ACME"
FEEDS = ("feed-a", "feed-b")
HOLD_S = 60.0  # of a cap on a node
FOUR_NODES = (
    Job("pretrain", "aurora", JobClass.TRAIN, tuple(range(24))),
    Job("chat", "borealis", JobClass.SERVING, tuple(range(24, 32)), floor_work=0.95),
)
PATIENCE_S = 20.0  # of the machine's time
DPS_DEADLINE_S = 2.0
ISV = "//grid/v1/isv/interlock"  # who we are where we send targets
ECHO_WITHIN_S = 2.0
DPS_WRITES = (
    "UpdateGPUPolicies",
    "ResourceGroupCreate",
    "ResourceGroupAddResources",
    "ResourceGroupRemoveResources",
    "ActivateResourceGroup",
    "ResourceGroupUpdate",
    "ResourceGroupUpdateResources",
    "ResourceGroupDelete",
)
INFRA = "//grid/v1/infra/ima-prod"  # the infrastructure agent; nobody plays it unless a test does
INFRA_KEY, AGENT_KEY = make_key("ima-prod-1"), make_key("maxlps-1")
AGENT = Principal(
    id="agent:power",
    kind=PrincipalKind.AGENT,
    authenticated_by="token:local",
    scopes=frozenset({SCOPE_READ, SCOPE_PROPOSE}),
    owner="person:owner",
)
OPERATOR = Principal(
    id="person:operator-1",
    kind=PrincipalKind.PERSON,
    authenticated_by="console:local",
    roles=frozenset({"operator"}),
)
AT_REST = ENDED | {ChangeState.AWAITING_APPROVAL}


class CountingClock(ManualClock):
    """A manual clock that knows how many wait for it: the worker's pulse, and each open change."""

    def __init__(self, start: datetime) -> None:
        super().__init__(start)
        self.waiting = 0

    async def sleep(self, seconds: float) -> None:
        """Wait for `advance`."""
        self.waiting += 1
        try:
            await super().sleep(seconds)
        finally:
            self.waiting -= 1


class ListenedPlant(Plant):
    """A plant that tells when it was commanded, so that a test can act in that very moment."""

    when_commanded: Callable[[], None] = staticmethod(lambda: None)

    def command_caps(self, gpu_index: ArrayLike, cap_w: ArrayLike) -> None:
        """Set power caps, then tell."""
        super().command_caps(gpu_index, cap_w)
        self.when_commanded()


@dataclass
class Lab:
    """A plant, its twins and a site of ours over them; the site is met through `call` only."""

    clock: CountingClock
    plant: ListenedPlant
    bms: ExchangeTwin
    dps: DpsTwin
    grid: GridIsvTwin
    agent: FlexAgentTwin
    site: Site
    end_broker: Callable[[], Awaitable[None]]
    clients: dict[str, Client] = field(default_factory=dict)
    nodes: Nodes | None = None  # their agents, where there are any
    sleepers: int = 2  # of ours while a change waits: the worker's pulse and the change itself

    async def call(self, component: str, tool: str, **arguments: Any) -> dict[str, Any]:
        """The structured answer of a tool; ComponentError carries the text of a tool's error."""
        return await Servers(self.clients).call(component, tool, **arguments)

    async def propose(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Propose a change of power; the change as the agent sees it."""
        return await self.call("maxlps", tool, reason="a test of limits", **arguments)

    async def propose_group(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Propose a change of a group; the change as the agent sees it."""
        given = "dps" if tool.startswith("set_") else "dps_groups"
        return await self.call(given, tool, reason="a test of groups", **arguments)

    async def shown(self, change: dict[str, Any]) -> dict[str, Any]:
        """The change in full, as the agent sees it."""
        return await self.call("maxlps", "get_change", change_id=change["change_id"])

    async def second(self) -> None:
        """Let a second pass for everybody, and wait until the site has heard of it."""
        if self.nodes is None:
            self.plant.step()
        else:
            await self.nodes.step()
        self.clock.advance(1.0)
        await self.agent.step()
        before, sent = await self._taken(), self._sent()
        said = await self.bms.publish_once()
        with anyio.fail_after(PATIENCE_S):
            while await self._taken() < before + said + self._sent() - sent:  # noqa: ASYNC110
                await anyio.sleep(0.002)

    async def silence(self, seconds: int) -> None:
        """Let time pass while no meter says a word."""
        for _ in range(seconds):
            self.plant.step()
        self.clock.advance(seconds)

    async def until(self, component: str, tool: str, holds: Callable[[Any], bool]) -> Any:
        """The first answer of a read for which `holds`, bounded in real time."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                answer = await self.call(component, tool)
                if holds(answer):
                    return answer
                await anyio.sleep(0.01)

    async def until_heard(self, within_s: int = 40) -> None:
        """Let time pass until our heartbeat has come off the bus."""
        for _ in range(within_s):
            await self.second()
            if (await self.call("bms", "list_requests")).get("beat_at"):
                return
        raise TimeoutError("our heartbeat is not heard")

    async def limit(self, limit_w: float) -> None:
        """The grid limits the site from now on, and the site knows."""
        await self.grid.set_target(limit_w)
        await self.until("flex", "grid_limit", lambda grid: grid.get("limit_w") == limit_w)

    async def approve(self, change: dict[str, Any], people: int = 1) -> None:
        """As many operators vote yes."""
        row = await self.site.guard.get(change["change_id"])
        for number in range(people):
            voter = OPERATOR.model_copy(update={"id": f"{OPERATOR.id}{'-' * number}"})
            await self.site.approvals.vote(
                voter, row.change_id, approve=True, shown_digest=row.binding_digest or ""
            )

    async def end_of(self, change: dict[str, Any], within_s: int = 200) -> Change:
        """The change at its end, at most `within_s` simulated seconds from now."""
        for _ in range(within_s):
            await self.second()
            row = await self._settled(change["change_id"])
            if row.ended:
                return row
        raise TimeoutError(row.sentence())

    async def _settled(self, change_id: str) -> Change:
        """The change once the worker waits for the clock again: its pulse, and its own sleep."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                row = await self.site.guard.get(change_id)
                if row.state in AT_REST or self.clock.waiting >= self.sleepers:
                    return row
                self.site.guard.wake_worker()
                await anyio.sleep(0.002)

    async def _taken(self) -> int:
        health = await self.call("exchange", "bus_health")
        rejected: dict[str, int] = health["rejected"]
        return int(health["accepted"]) + sum(rejected.values())

    def _sent(self) -> int:
        """How many values of ours are on the bus."""
        asks = self.site.requesting
        return 0 if asks is None else asks.publisher.sent

    def writes(self) -> int:
        """How often DPS was told to change something."""
        return sum(self.dps.calls[name] for name in DPS_WRITES)

    def spare_groups(self) -> None:
        """Let DPS have a group that is not active, node-064 in none, and power to allocate."""
        groups = self.dps.groups
        for name in ("embed-corpus", "finetune-vega"):  # one under each PDU
            lesser = groups.by_name[name]
            lesser.policy = "MaxQ"
            lesser.applied = dict.fromkeys(lesser.nodes, "MaxQ")
            groups.command(lesser.applied)
        idle = groups.by_name["evaluate-nightly"]
        idle.status, idle.policy = "inactive", "MaxQ"
        idle.applied.clear()
        groups.by_name["sandbox"].nodes.clear()
        groups.by_name["sandbox"].applied.clear()

    def says(self, component: str) -> str:
        """What the site says of the health of a component."""
        return next(one.says for one in connections(self.site) if one.component == component)


@asynccontextmanager
async def open_lab(
    folder: Path,
    *,
    bundle: str = "supervised",
    requests: bool = False,
    sends: bool = False,
    newer_dps: bool = False,
    beside_dps: tuple[str, ...] = (),
    without_dps: bool = False,
) -> AsyncIterator[Lab]:
    """64 nodes at work, every meter and the grid known, nothing limited.

    With `requests` the BMS lets itself be asked, and our heartbeat is on the bus; with `sends` we
    are an ISV that the Flex Agent obeys; `newer_dps` takes priorities. Nodes `beside_dps` have an
    agent that is read. `without_dps` there are four nodes only, whose agents limit their GPUs:
    training on three, and serving with a promise on the last.
    """
    site = hall_site(4) if without_dps else lab_site()
    jobs = FOUR_NODES if without_dps else lab_jobs(site)
    clock = CountingClock(START)
    plant = ListenedPlant(site, jobs, seed=7, start=START, load=SyntheticLoad(jobs, seed=7))
    isv_key, agent_key = make_key("acme-1"), AGENT_KEY
    our_key = make_key("interlock-1")
    keys = write_jwks(folder / "jwks.json", [isv_key, agent_key, our_key, INFRA_KEY])
    async with AsyncExitStack() as stack:
        brokers = await stack.enter_async_context(AsyncExitStack())
        broker = await brokers.enter_async_context(local_broker())
        named = INTEGRATION if requests else None
        newer = (TwinFault.EXTRA_FIELDS,) if newer_dps else ()
        bms = await stack.enter_async_context(ExchangeTwin(plant, broker, clock, integration=named))
        dps = await stack.enter_async_context(DpsTwin(plant, clock, faults=newer))
        grid = GridIsvTwin(broker, isv_key, clock)
        agent = FlexAgentTwin(broker, plant, agent_key, jwks([isv_key, our_key]), clock)
        await stack.enter_async_context(grid)
        await stack.enter_async_context(agent)
        power: PowerSettings = MaxlpsSettings(
            address=dps.address, tls=False, site_id=site.name, deadline_s=DPS_DEADLINE_S
        )
        nodes = None
        if beside_dps or without_dps:
            ids = site.node_ids if without_dps else beside_dps
            nodes = await stack.enter_async_context(
                running(plant, StepClock(START), folder, node_ids=ids)
            )
        if nodes is not None and without_dps:
            agents = nodes.settings(deadline_s=PATIENCE_S)
            power = power_settings(plant, agents).model_copy(update={"hold_s": HOLD_S})
        settings = SiteSettings(
            rules=SiteRules(site_id=site.name, gpus=site.gpu_count, hosts=len(site.nodes)),
            bundle=bundle,
            data_dir=folder / "site",
            exchange=ExchangeSettings(
                mqtt=_mqtt(broker, "exchange"),
                site_id=site.name,
                requests=_may_ask(broker) if requests else None,
            ),
            flex=FlexSettings(
                mqtt=_mqtt(broker, "flex"),
                jwks_file=keys,
                trusted={
                    grid.source: (isv_key.kid,),
                    agent.source: (agent_key.kid,),
                    ISV: (our_key.kid,),
                    INFRA: (INFRA_KEY.kid,),
                },
                site_id=site.name,
                feeds=site.feed_ids,
                publish=_may_send(broker, folder, our_key) if sends else None,
            ),
            maxlps=power,
            devices=nodes.settings("reader") if nodes is not None and beside_dps else None,
        )
        ours = await stack.enter_async_context(open_site(settings, clock, lambda: AGENT))
        lab = Lab(clock, plant, bms, dps, grid, agent, ours, brokers.aclose, nodes=nodes)
        lab.sleepers += nodes is not None  # who reads the agents
        lab.sleepers += without_dps  # who holds caps
        for name, face in ours.faces.items():
            lab.clients[name] = await stack.enter_async_context(Client(face.server()))
        await lab.until("exchange", "bus_health", lambda health: bool(health["connected"]))
        await lab.second()
        await lab.until("exchange", "site_power", lambda power: power.get("power_w") is not None)
        await lab.until("flex", "grid_limit", lambda limit: bool(limit["known"]))
        if requests:
            lab.sleepers += 1  # who holds requests
            await lab.until_heard()
        if sends:
            lab.sleepers += 1  # who keeps the connection of the ISV
        yield lab


def _may_send(broker: str, folder: Path, key: TwinKey) -> PublishSettings:
    key_file = folder / "isv.json"
    key_file.write_text(json.dumps(key.key.as_dict(private=True)))
    return PublishSettings(
        identifier=ISV.rpartition("/")[2],
        mqtt=_mqtt(broker, "isv"),
        key_file=key_file,
        kid=key.kid,
        echo_within_s=ECHO_WITHIN_S,
    )


def _may_ask(broker: str) -> RequestSettings:
    return RequestSettings(
        integration=INTEGRATION,
        mqtt=_mqtt(broker, "requests"),
        supply=SupplyLimits(min_c=24.0, max_c=34.0, safe_c=25.0, max_step_c=4.0),
        isolation=True,
        not_ready={"Status": 0, "Available": 0},
    )


def _mqtt(broker: str, client_id: str) -> MqttSettings:
    return MqttSettings(brokers=(broker,), client_id=f"interlock-{client_id}")
