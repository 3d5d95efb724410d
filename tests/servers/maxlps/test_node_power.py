"""A site without DPS: the same facts and limits, over agents of its nodes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from interlock_plant import Job, JobClass, Plant, SteadyLoad, hall_site
from interlock_servers.devices.client import NodeClient
from interlock_servers.devices.twin import GpuFault
from interlock_servers.maxlps.facts import (
    POWER_GPU_LIMITS,
    POWER_GROUPS,
    POWER_TOPOLOGY,
    MaxlpsFacts,
)
from interlock_servers.maxlps.node_power import NodePowerClient
from interlock_servers.maxlps.node_settings import (
    EntitySettings,
    GroupSettings,
    NodePowerSettings,
)
from interlock_servers.maxlps.picture import Picture
from interlock_tools.errors import ComponentError, InvalidRequestError, UnavailableError
from interlock_tools.fact import Fact, FactNeed
from interlock_tools.identity import Target
from tests.servers.devices.conftest import START
from tests.servers.devices.nodes import Nodes, StepClock, client_of, running

ONE, TWO = "node-001", "node-002"
SITE = Target(kind="site", id="hall")


def settings(nodes: Nodes, **other: Any) -> NodePowerSettings:
    """Two nodes in one rack of 15 kW; work on the first."""
    return NodePowerSettings(
        **{
            "site_id": "hall",
            "agents": nodes.settings(fresh_s=5.0),
            "entities": (
                EntitySettings(name="hall", kind="PowerDomain", children=("pdu-1",)),
                EntitySettings(
                    name="pdu-1", kind="PowerDistribution", budget_w=20_000, children=("rack-1",)
                ),
                EntitySettings(
                    name="rack-1", kind="PowerDistribution", budget_w=15_000, children=(ONE, TWO)
                ),
                EntitySettings(name=ONE, kind="ComputerSystem"),
                EntitySettings(name=TWO, kind="ComputerSystem"),
            ),
            "groups": (GroupSettings(name="pretrain", node_ids=(ONE,), tenant="aurora"),),
            "hold_s": 60.0,
            "safe_w": 500.0,
            **other,
        }
    )


@asynccontextmanager
async def power_of(nodes: Nodes, **other: Any) -> AsyncIterator[NodePowerClient]:
    """The site over its agents."""
    given = settings(nodes, **other)
    async with NodeClient(given.agents, nodes.clock) as client:
        yield NodePowerClient(given, client, nodes.clock)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    """Two agents that take writes."""
    site = hall_site(2)
    jobs = (Job("pretrain", "aurora", JobClass.TRAIN, tuple(range(8))),)
    plant = Plant(site, jobs, seed=7, start=START, load=SteadyLoad(jobs))
    async with running(plant, StepClock(START), tmp_path) as both:
        yield both


async def test_the_facts_of_dps_come_from_nodes_and_make_the_same_picture(nodes: Nodes) -> None:
    """The guard and the allocator see no difference, but for the origin of each answer."""
    await nodes.step(3)
    async with power_of(nodes) as power:
        facts = MaxlpsFacts(power, "hall")
        values = []
        for kind in (POWER_TOPOLOGY, POWER_GROUPS, POWER_GPU_LIMITS):
            fact = await facts.fact(FactNeed(kind=kind, subject=SITE, max_age_s=30.0))
            assert isinstance(fact, Fact)
            values.append(fact.value)
    picture = Picture.of(*values)
    view = picture.node(ONE)
    assert (view.gpu_count, view.rack_id, view.limits[:2]) == (8, "rack-1", (200.0, 700.0))
    assert view.group is not None
    assert view.group.tenant == "aurora"
    shown = values[2][ONE]["power_w"]
    assert shown == pytest.approx([float(w) for w in nodes.plant.gpu_power_w[:8]], abs=0.01)


async def test_limits_are_set_by_gpu_and_end_at_the_safe_value_without_a_sign_of_life(
    nodes: Nodes,
) -> None:
    """DPS keeps a limit for ever; here it lasts as long as we are heard."""
    async with power_of(nodes) as power:
        results = await power.set_gpu_limits({ONE: {3: 450.0}, TWO: {0: 300.0}}, change_id="chg-1")
        assert [(r.node_id, r.gpu_id, r.set_w) for r in results] == [
            (ONE, 3, 450.0),
            (TWO, 0, 300.0),
        ]
        for _ in range(3):
            await nodes.step(40)
            assert (await power.keep()).lost == ()
        assert [float(w) for w in nodes.plant.gpu_cap_set_w[[3, 8]]] == [450.0, 300.0]
    await nodes.step(61)
    assert [float(w) for w in nodes.plant.gpu_cap_set_w[[3, 8]]] == [500.0, 500.0]
    async with power_of(nodes) as power:
        assert (await power.keep()).lost == ()


async def test_what_is_no_longer_held_is_told(nodes: Nodes) -> None:
    """Whoever counted on the limit must count anew."""
    async with power_of(nodes) as power:
        await power.set_gpu_limits({ONE: {0: 450.0}, TWO: {0: 450.0}}, change_id="chg-1")
        await nodes.agents[TWO].end([f"GPU-{TWO}-0"], controller_id="interlock-1")
        await nodes.step()
        assert (await power.keep()).lost == (TWO,)
        assert (await power.keep()).lost == ()


async def test_none_clears_to_the_devices_default(nodes: Nodes) -> None:
    """As with DPS: power may rise."""
    async with power_of(nodes, safe_w=700.0) as power:
        await power.set_gpu_limits({ONE: {0: 450.0}}, change_id="chg-1")
        (cleared,) = await power.set_gpu_limits({ONE: {0: None}}, change_id="chg-2")
    assert (cleared.asked_w, cleared.set_w, cleared.is_clamped) == (None, 700.0, False)


@pytest.mark.parametrize(
    ("fault", "code"), [(GpuFault.REFUSES, "refused"), (GpuFault.IGNORES, "ignored")]
)
async def test_one_gpu_that_did_not_take_it_fails_the_write_and_says_which(
    nodes: Nodes, fault: GpuFault, code: str
) -> None:
    """Half a change must not look like a whole one."""
    nodes.twins[ONE].inject(fault, [1])
    async with power_of(nodes) as power:
        with pytest.raises(ComponentError) as caught:
            await power.set_gpu_limits({ONE: {0: 450.0, 1: 450.0}}, change_id="chg-1")
    assert caught.value.code == "GPU_NOT_OK"
    assert f"{ONE}/1: {code}" in str(caught.value)
    assert "read back" in str(caught.value)


async def test_a_clamped_limit_is_a_result_as_with_dps(nodes: Nodes) -> None:
    """Operations look at it and say so."""
    nodes.twins[ONE].inject(GpuFault.CLAMPS, [0])
    async with power_of(nodes) as power:
        (result,) = await power.set_gpu_limits({ONE: {0: 500.0}}, change_id="chg-1")
    assert result.is_clamped
    assert result.set_w == 450.0


async def test_a_stale_node_is_dark_and_takes_no_limit(nodes: Nodes) -> None:
    """Its last reading is too old to be used; the other node goes on."""
    async with power_of(nodes) as power:
        await power.node_power([ONE, TWO])
        nodes.clock.advance(10)  # nobody looked since
        await nodes.agents[TWO].look()
        shown = await power.node_power([ONE, TWO])
        status = await power.nodes_status([ONE, TWO])
        with pytest.raises(UnavailableError, match="nothing was sent"):
            await power.set_gpu_limits({ONE: {0: 450.0}, TWO: {0: 450.0}}, change_id="chg-1")
    assert set(shown) == {TWO}
    assert status[ONE].inaccessible_since == START
    assert status[TWO].inaccessible_since is None
    assert not any(nodes.twins[TWO].commands)


async def test_a_node_without_a_budget_is_no_site(nodes: Nodes) -> None:
    """An agent that no entity names could be capped and never checked."""
    fewer = settings(nodes).entities[:4]
    tree = (*fewer[:2], fewer[2].model_copy(update={"children": (ONE,)}), fewer[3])
    async with power_of(nodes, entities=tree) as power:
        with pytest.raises(ComponentError, match=TWO):
            await power.active_topology()


@pytest.mark.parametrize("limits", [{}, {ONE: {}}, {ONE: {8: 450.0}}])
async def test_what_names_no_gpu_is_never_sent(nodes: Nodes, limits: Any) -> None:
    """As with DPS."""
    async with power_of(nodes) as power:
        with pytest.raises(InvalidRequestError):
            await power.set_gpu_limits(limits, change_id="chg-1")
    assert not any(nodes.twins[ONE].commands)


async def test_a_reader_of_the_site_caps_nothing(nodes: Nodes) -> None:
    """The token decides, on the node's side."""
    async with client_of(nodes, "reader") as client:
        power = NodePowerClient(settings(nodes), client, nodes.clock)
        with pytest.raises(ComponentError, match="PERMISSION_DENIED"):
            await power.set_gpu_limits({ONE: {0: 450.0}}, change_id="chg-1")
