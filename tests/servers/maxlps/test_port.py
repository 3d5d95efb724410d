"""What facts and operations rely on, of DPS and of agents of the nodes alike."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from interlock_evals.node_agents import power_settings
from interlock_plant import Fault, FaultKind, Plant, SiteSpec
from interlock_servers.devices.client import NodeClient
from interlock_servers.devices.twin import GpuFault
from interlock_servers.maxlps.client import DpsClient
from interlock_servers.maxlps.facts import (
    POWER_GPU_LIMITS,
    POWER_GROUPS,
    POWER_TOPOLOGY,
    MaxlpsFacts,
)
from interlock_servers.maxlps.models import Level
from interlock_servers.maxlps.node_power import NodePowerClient
from interlock_servers.maxlps.picture import Picture
from interlock_servers.maxlps.port import PowerPort
from interlock_servers.maxlps.twin import DpsTwin, TwinFault
from interlock_tools.errors import ComponentError, InvalidRequestError
from interlock_tools.fact import Fact, FactNeed
from interlock_tools.identity import Target
from tests.servers.devices.nodes import Nodes, StepClock, running
from tests.servers.maxlps.conftest import START, WakefulClock, settings_for

CHANGE = "chg-1"
NODE, OTHER = "node-001", "node-002"


@dataclass
class Given:
    """One way to a plant's GPUs, and what can be made to go wrong behind it."""

    power: PowerPort
    dps: DpsTwin | None = None
    nodes: Nodes | None = None

    async def step(self, plant: Plant) -> None:
        """Let a second pass."""
        if self.nodes is None:
            plant.step()
        else:
            await self.nodes.step()

    def clamp(self) -> None:
        """Let devices take less than they are asked for."""
        if self.dps is not None:
            self.dps.inject(TwinFault.CLAMP)
        if self.nodes is not None:
            self.nodes.twins[NODE].inject(GpuFault.CLAMPS)

    def refuse(self) -> None:
        """Let limits not be taken."""
        if self.dps is not None:
            self.dps.inject(TwinFault.OK_FALSE)
        if self.nodes is not None:
            self.nodes.twins[NODE].inject(GpuFault.REFUSES)


@pytest.fixture(params=["dps", "nodes"])
async def given(
    request: pytest.FixtureRequest, plant: Plant, clock: WakefulClock, tmp_path: Path
) -> AsyncIterator[Given]:
    """Each way."""
    if request.param == "dps":
        async with (
            DpsTwin(plant, clock) as twin,
            DpsClient(settings_for(twin.address), clock) as client,
        ):
            yield Given(client, dps=twin)
        return
    async with running(plant, StepClock(START), tmp_path) as nodes:
        settings = power_settings(plant, nodes.settings())
        async with NodeClient(settings.agents, nodes.clock) as agents:
            yield Given(NodePowerClient(settings, agents, nodes.clock), nodes=nodes)


async def test_the_tree_has_the_budgets_of_the_site(given: Given, site: SiteSpec) -> None:
    """And the nodes of it are those that limits are known of."""
    topology = await given.power.active_topology()
    assert topology.root.level is Level.SITE
    assert set(topology.node_ids) == set(site.node_ids)
    assert set((await given.power.active()).node_ids) == set(site.node_ids)
    budgets = {node.name: node.budget_w for node in topology.root.walk()}
    assert budgets["pdu-1"] == 100_000.0


async def test_groups_say_who_works_where_and_what_was_promised(given: Given) -> None:
    """As the picture needs it."""
    chat, pretrain = await given.power.resource_groups()
    assert (chat.name, chat.tenant, chat.slo_floor) == ("chat", "borealis", 0.95)
    assert chat.node_ids == (NODE, OTHER)
    assert not pretrain.slo_floor


async def test_power_and_limits_are_by_gpu(given: Given, plant: Plant) -> None:
    """In watts, by the place on the host."""
    await given.step(plant)
    node = (await given.power.node_power([NODE]))[NODE]
    assert node.gpu_count == 8
    assert node.set_w == (700.0,) * 8
    assert (node.min_w, node.max_w) == (200.0, 700.0)
    drawn = [float(w) for w in plant.gpu_power_w[:8]]
    assert node.gpu_power_w == pytest.approx(drawn, abs=0.5)
    assert node.power_w is None or node.power_w > sum(drawn)


async def test_a_dark_node_is_unknown_and_not_zero(given: Given, plant: Plant) -> None:
    """A node that draws zero watts would look like headroom."""
    plant.inject(Fault(FaultKind.NODE_DOWN, "node-003"))
    await given.step(plant)
    shown = (await given.power.node_power(["node-003"])).get("node-003")
    assert shown is None or (shown.max_w is None and shown.gpu_power_w == (None,) * 8)


async def test_a_node_that_nobody_knows_is_absent(given: Given) -> None:
    """Neither zero nor an error."""
    assert await given.power.node_power(["node-999"]) == {}
    assert await given.power.nodes_status(["node-999"]) == {}


async def test_watts_are_of_one_gpu_and_only_those_named_change(given: Given, plant: Plant) -> None:
    """And the count of writes moves, so that nobody believes what was read before."""
    before = given.power.writes
    asked = {NODE: {0: 450.0, 3: 500.0}, OTHER: {1: 400.0}}
    results = await given.power.set_gpu_limits(asked, change_id=CHANGE)
    assert [(r.node_id, r.gpu_id, r.set_w) for r in results] == [
        (NODE, 0, 450.0),
        (NODE, 3, 500.0),
        (OTHER, 1, 400.0),
    ]
    assert given.power.writes > before
    moved = {int(gpu): float(w) for gpu, w in enumerate(plant.gpu_cap_set_w) if w != 700.0}
    assert moved == {0: 450.0, 3: 500.0, 9: 400.0}


async def test_none_goes_back_to_the_devices_default(given: Given, plant: Plant) -> None:
    """Power may rise."""
    await given.power.set_gpu_limits({NODE: {0: 450.0}}, change_id=CHANGE)
    await given.step(plant)
    await given.power.set_gpu_limits({NODE: {0: None}}, change_id=CHANGE)
    assert float(plant.gpu_cap_set_w[0]) == 700.0


async def test_less_than_asked_is_told_as_clamped(given: Given) -> None:
    """Whoever asked decides what that means."""
    given.clamp()
    (result,) = await given.power.set_gpu_limits({NODE: {0: 500.0}}, change_id=CHANGE)
    assert result.is_clamped
    assert result.set_w == 450.0


async def test_a_limit_that_was_not_taken_is_a_failure_that_says_to_read_back(given: Given) -> None:
    """Half a change must not look like a whole one."""
    given.refuse()
    with pytest.raises(ComponentError, match="read back"):
        await given.power.set_gpu_limits({NODE: {0: 450.0}}, change_id=CHANGE)


async def test_what_names_no_gpu_is_never_sent(given: Given) -> None:
    """What an empty request means is for nobody to guess."""
    before = given.power.writes
    with pytest.raises(InvalidRequestError):
        await given.power.set_gpu_limits({}, change_id=CHANGE)
    assert given.power.writes == before


async def test_facts_make_the_same_picture(given: Given, plant: Plant) -> None:
    """The guard and the allocator cannot tell which it is."""
    await given.step(plant)
    facts = MaxlpsFacts(given.power, "hall")
    values = []
    for kind in (POWER_TOPOLOGY, POWER_GROUPS, POWER_GPU_LIMITS):
        need = FactNeed(kind=kind, subject=Target(kind="site", id="hall"), max_age_s=30.0)
        fact = await facts.fact(need)
        assert isinstance(fact, Fact)
        values.append(fact.value)
    picture = Picture.of(*values)
    view = picture.node(NODE)
    assert (view.rack_id, view.pdu_id, view.gpu_count) == ("rack-01", "pdu-1", 8)
    assert view.group is not None
    assert (view.group.name, view.group.slo_floor) == ("chat", 0.95)
    assert picture.load_w({})["pdu-1"] > 50_000
    assert picture.dark == ()
