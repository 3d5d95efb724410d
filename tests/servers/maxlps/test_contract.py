"""What DPS promises, asked through our client: of the twin always, of a real one if configured."""

import math

import anyio
import pytest

from interlock_plant import Fault, FaultKind, Plant, SiteSpec
from interlock_servers.maxlps.client import DpsClient
from interlock_servers.maxlps.models import Level
from interlock_servers.maxlps.twin import DpsTwin
from interlock_tools.errors import ComponentError, InvalidRequestError

PATIENCE_S = 20.0
WRITE = "UpdateGPUPolicies"


# ── what every deployment promises ────────────────────────────────────────────────────────────


async def test_the_active_topology_is_a_tree_of_the_nodes_that_dps_lists(
    any_dps: DpsClient,
) -> None:
    """Two answers of DPS about the same site must agree before anything is budgeted on them."""
    with anyio.fail_after(PATIENCE_S):
        topology = await any_dps.active_topology()
        listed = await any_dps.list_topologies()
    active = next(entry for entry in listed if entry.is_active)
    assert topology.name == active.name
    assert set(topology.node_ids) == set(active.node_ids)
    assert topology.root.level is Level.SITE


async def test_groups_hold_nodes_of_the_topology(any_dps: DpsClient) -> None:
    """A group of nodes that no budget covers could be capped and never checked."""
    with anyio.fail_after(PATIENCE_S):
        topology = await any_dps.active_topology()
        groups = await any_dps.resource_groups()
    for group in groups:
        assert set(group.node_ids) <= set(topology.node_ids), group.name


async def test_every_limit_that_is_known_lies_in_its_range(any_dps: DpsClient) -> None:
    """Limits are of one GPU each; a sum over the node would lie far above `max_w`."""
    with anyio.fail_after(PATIENCE_S):
        topology = await any_dps.active_topology()
        nodes = await any_dps.node_power(topology.node_ids)
    known = [gpu for node in nodes.values() for gpu in node.gpus if gpu.set_w is not None]
    assert known
    for gpu in known:
        assert gpu.min_w is not None
        assert gpu.max_w is not None
        assert gpu.set_w is not None
        assert gpu.min_w <= gpu.set_w <= gpu.max_w


# ── reads, against the plant behind the twin ──────────────────────────────────────────────────


async def test_budgets_and_levels_are_those_of_the_site(dps: DpsClient, site: SiteSpec) -> None:
    """DPS knows no feeds or racks; where an entity stands in the tree says what it is."""
    with anyio.fail_after(PATIENCE_S):
        topology = await dps.active_topology()
    found = {(node.name, node.level, node.budget_w) for node in topology.root.walk()}
    wanted = {(site.name, Level.SITE, sum(feed.rating_w for feed in site.feeds))}
    wanted |= {(feed.feed_id, Level.FEED, feed.rating_w) for feed in site.feeds}
    wanted |= {(pdu.pdu_id, Level.PDU, pdu.rating_w) for pdu in site.pdus}
    wanted |= {(rack.rack_id, Level.RACK, rack.rating_w) for rack in site.racks}
    wanted |= {(node.node_id, Level.NODE, node.rating_w) for node in site.nodes}
    assert found == wanted


async def test_a_group_says_whose_it_is_and_what_it_was_promised(dps: DpsClient) -> None:
    """The promise decides how far its GPUs may be capped."""
    with anyio.fail_after(PATIENCE_S):
        chat, pretrain = await dps.resource_groups()
    assert (chat.name, chat.tenant, chat.workload_class) == ("chat", "borealis", "serving")
    assert (chat.slo_floor, chat.priority, chat.is_active) == (0.95, 0, True)
    assert chat.node_ids == ("node-001", "node-002")
    assert (pretrain.slo_floor, pretrain.priority) == (None, 1)


async def test_watts_of_every_gpu_are_those_of_the_plant(
    dps: DpsClient, plant: Plant, site: SiteSpec
) -> None:
    """The n-th number is of the n-th GPU, in watts."""
    plant.step()
    with anyio.fail_after(PATIENCE_S):
        nodes = await dps.node_power(site.node_ids)
    shown = [watts for name in site.node_ids for watts in nodes[name].gpu_power_w]
    assert shown == list(plant.gpu_power_w)
    assert nodes["node-003"].power_w == plant.node_power_w[2]
    assert {nodes["node-003"].min_w, nodes["node-003"].max_w} == {200.0, 700.0}


async def test_a_node_that_is_dark_is_unknown_and_not_zero(dps: DpsClient, plant: Plant) -> None:
    """A node that draws zero watts would look like headroom."""
    plant.inject(Fault(FaultKind.NODE_DOWN, "node-003"))
    with anyio.fail_after(PATIENCE_S):
        node = (await dps.node_power(["node-003"]))["node-003"]
        statuses = await dps.nodes_status(["node-003", "node-004"])
    assert node.power_w is None
    assert node.gpu_power_w == (None,) * 8
    assert node.set_w == (None,) * 8
    assert node.max_w is None
    assert statuses["node-003"].inaccessible_since is not None
    assert statuses["node-003"].errors == ("BMC connection failed",)
    assert statuses["node-004"].inaccessible_since is None
    assert statuses["node-004"].resource_group == "pretrain"


async def test_a_node_that_dps_does_not_know_is_absent(dps: DpsClient) -> None:
    """Nothing is made up for it."""
    with anyio.fail_after(PATIENCE_S):
        assert await dps.node_power(["node-404"]) == {}
        assert await dps.nodes_status(["node-404"]) == {}


async def test_reading_no_nodes_asks_nothing(dps: DpsClient, twin: DpsTwin) -> None:
    """What DPS takes an empty list for is not public; it could be every node of the site."""
    with anyio.fail_after(PATIENCE_S):
        assert await dps.node_power([]) == {}
        assert await dps.nodes_status([]) == {}
    assert not twin.calls


async def test_the_dry_run_names_the_budget_that_is_too_small_and_changes_nothing(
    dps: DpsClient, plant: Plant, twin: DpsTwin
) -> None:
    """It is the only headroom that DPS tells, and safe to ask at any time."""
    before = list(plant.gpu_cap_set_w)
    with anyio.fail_after(PATIENCE_S):
        roomy = await dps.validate_allocation(["node-001"], "MaxQ")
        tight = await dps.validate_allocation(plant.site.node_ids, "MaxP")
    assert roomy.would_succeed
    assert not roomy.downgraded
    assert set(roomy.power_w) == {"rack-01", "pdu-1", "feed-a"}
    allocated_w, capacity_w = tight.power_w["pdu-1"]
    assert allocated_w is not None
    assert capacity_w == plant.site.pdus[0].rating_w
    assert allocated_w > capacity_w
    assert not tight.would_succeed
    assert tight.notes == ("pdu-1 would have 101184 W of 100000 W allocated",)
    assert list(plant.gpu_cap_set_w) == before
    assert not twin.calls[WRITE]


async def test_a_dry_run_of_an_unknown_policy_fails(dps: DpsClient) -> None:
    """A verdict of a dry run that could not be made is no verdict."""
    with anyio.fail_after(PATIENCE_S), pytest.raises(ComponentError, match="nothing was changed"):
        await dps.validate_allocation(["node-001"], "Turbo")


# ── the write ─────────────────────────────────────────────────────────────────────────────────


async def test_watts_are_of_one_gpu_and_not_of_the_node(dps: DpsClient, plant: Plant) -> None:
    """Trap: a policy of element type GPU holds the node's total; `UpdateGPUPolicies` does not."""
    with anyio.fail_after(PATIENCE_S):
        results = await dps.set_gpu_limits({"node-002": dict.fromkeys(range(8), 500.0)})
        node = (await dps.node_power(["node-002"]))["node-002"]
    assert list(plant.gpu_cap_set_w[8:16]) == [500.0] * 8
    assert node.set_w == (500.0,) * 8
    assert [result.set_w for result in results] == [500.0] * 8
    assert not any(result.is_clamped for result in results)


async def test_a_nodes_total_is_refused_as_the_watts_of_a_gpu(dps: DpsClient, plant: Plant) -> None:
    """Trap: 4000 W is 500 W for each of eight GPUs; one GPU cannot take it, and DPS says so."""
    with anyio.fail_after(PATIENCE_S), pytest.raises(ComponentError) as caught:
        await dps.set_gpu_limits({"node-002": dict.fromkeys(range(8), 4000.0)})
    assert caught.value.code == "GPU_NOT_OK"
    assert "0 of 8 limits were set" in str(caught.value)
    assert list(plant.gpu_cap_set_w[8:16]) == [700.0] * 8


async def test_only_the_gpus_that_are_named_change(dps: DpsClient, plant: Plant) -> None:
    """The others keep what they have."""
    with anyio.fail_after(PATIENCE_S):
        await dps.set_gpu_limits({"node-001": {3: 450.0}, "node-003": {0: 300.0}})
    changed = {gpu: watts for gpu, watts in enumerate(plant.gpu_cap_set_w) if watts != 700.0}
    assert changed == {3: 450.0, 16: 300.0}


async def test_none_clears_a_limit(dps: DpsClient, plant: Plant) -> None:
    """Absent `power_limit` clears the policy: power may rise."""
    with anyio.fail_after(PATIENCE_S):
        await dps.set_gpu_limits({"node-001": {3: 450.0}})
        (cleared,) = await dps.set_gpu_limits({"node-001": {3: None}})
    assert (cleared.asked_w, cleared.set_w, cleared.is_clamped) == (None, 700.0, False)
    assert plant.gpu_cap_set_w[3] == 700.0


async def test_one_gpu_that_failed_fails_the_write_and_says_how_many_were_set(
    dps: DpsClient, plant: Plant
) -> None:
    """Every result's `ok` counts; half a change must not look like a whole one."""
    with anyio.fail_after(PATIENCE_S), pytest.raises(ComponentError) as caught:
        await dps.set_gpu_limits({"node-001": {0: 500.0, 1: 100.0}, "node-002": {9: 500.0}})
    assert caught.value.code == "GPU_NOT_OK"
    assert "'node-001'/1" in str(caught.value)
    assert "'node-002'/9" in str(caught.value)
    assert "1 of 3 limits were set: read back" in str(caught.value)
    assert plant.gpu_cap_set_w[0] == 500.0


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"node-001": {}},
        {"node-001": {0: math.nan}},
        {"node-001": {0: math.inf}},
        {"node-001": {0: 0.0}},
        {"node-001": {-1: 500.0}},
        {"": {0: 500.0}},
    ],
)
async def test_what_can_never_be_a_limit_is_never_sent(
    dps: DpsClient, twin: DpsTwin, limits: dict[str, dict[int, float | None]]
) -> None:
    """An empty request above all: what DPS takes it for is not public."""
    with anyio.fail_after(PATIENCE_S), pytest.raises(InvalidRequestError):
        await dps.set_gpu_limits(limits)
    assert not twin.calls
