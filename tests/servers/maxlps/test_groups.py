"""Changes of resource groups as an agent meets them: whom they reach, who decides, what shows."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from interlock_guardrails.facts import FactRegistry
from interlock_plant.faults import Fault, FaultKind
from interlock_servers.maxlps.group_facts import DPS_NODES
from interlock_servers.maxlps.twin import TwinFault
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import ComponentError
from interlock_tools.fact import Fact, FactNeed, Unknown
from tests.servers.sites import Lab, open_lab

CUT = {"group": "label-images", "policy": "MaxQ"}  # batch, 4 nodes, no promise


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The lab with a DPS that takes priorities; see `spare_groups`."""
    async with open_lab(tmp_path, newer_dps=True) as opened:
        opened.spare_groups()
        await opened.second()
        yield opened


def set_w(lab: Lab, node_id: str) -> set[float]:
    """The limits of a node's GPUs in the plant itself."""
    return set(lab.plant.gpu_cap_set_w[lab.plant.site.gpus_of_node(node_id)].tolist())


async def reach(lab: Lab, change: dict[str, Any]) -> dict[str, Any]:
    """Whom a change reaches, as approvers see it."""
    found: dict[str, Any] = (await lab.shown(change))["reach"]
    return found


async def rules(lab: Lab, change: dict[str, Any]) -> list[str]:
    """The rules that decided it."""
    return [rule["rule_id"] for rule in (await lab.shown(change))["rules"]]


async def done(lab: Lab, tool: str, **arguments: Any) -> Change:
    """Propose, approve and see the end."""
    change = await lab.propose_group(tool, **arguments)
    await lab.approve(change)
    return await lab.end_of(change)


# ── the way that it should go ─────────────────────────────────────────────────────────────────────


async def test_a_lower_policy_is_one_operators_and_shown_by_the_meters(lab: Lab) -> None:
    """Reach in watts of GPUs, the dry run of DPS, one call, and the facility's own meters."""
    change = await lab.propose_group("set_group_policy", **CUT)
    found = await reach(lab, change)
    assert (found["watts_moved"], found["power_rise_w"]) == (4 * 8 * 210, 0)
    assert found["jobs"] == ["label-images"]
    assert found["tenants"] == ["aurora"]
    assert await rules(lab, change) == ["reversible-needs-operator"]
    assert lab.dps.calls["ValidateAllocation"] > 0

    await lab.approve(change)
    ended = await lab.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED
    assert (set_w(lab, "node-045"), lab.writes()) == ({490.0}, 1)
    assert "the facility's metering" in ended.history[-1].why


async def test_the_policy_of_each_node_before_the_change_is_on_record(lab: Lab) -> None:
    """DPS remembers no earlier policy of a group: whoever wants it back must find it with us."""
    ended = await done(lab, "set_group_policy", **CUT)
    assert "policies_before" in ended.model_dump_json()
    nodes = [f"node-{number:03d}" for number in range(45, 49)]
    assert f'"{nodes[0]}":"MaxP"' in ended.model_dump_json().replace(" ", "")


async def test_a_group_is_made_filled_and_started(lab: Lab) -> None:
    """Three changes; only the last reaches hardware, and says so beforehand."""
    made = await done(lab, "create_group", group="fresh", policy="MaxQ")
    filled = await done(lab, "add_nodes", group="fresh", node_ids=["node-064"])
    assert set_w(lab, "node-064") == {700.0}
    started = await lab.propose_group("activate_group", group="fresh")
    assert (await reach(lab, started))["watts_moved"] == 8 * 210
    await lab.approve(started)
    ended = await lab.end_of(started)

    assert {made.state, filled.state, ended.state} == {ChangeState.SUCCEEDED}
    assert set_w(lab, "node-064") == {490.0}
    shown = await lab.call("dps", "group_nodes", group="fresh")
    assert shown["nodes"] == [
        {
            "node_id": "node-064",
            "requested": "MaxQ",
            "applied": "MaxQ",
            "downgraded": False,
            "set_w": 490.0,
        }
    ]


# ── power that goes up, and power of others ───────────────────────────────────────────────────────


@pytest.mark.trap("DP-G05")
async def test_deleting_a_group_counts_as_a_rise_to_what_its_devices_can(lab: Lab) -> None:
    """Which policy the topology has nobody tells, so the worst is counted and a person looks."""
    change = await lab.propose_group("delete_group", group="finetune-vega")
    found = await reach(lab, change)
    assert found["power_rise_w"] == 4 * 8 * 210
    assert await rules(lab, change) == ["power-rise-needs-operator"]

    await lab.approve(change)
    assert (await lab.end_of(change)).state is ChangeState.SUCCEEDED
    assert set_w(lab, "node-052") == {700.0}


@pytest.mark.trap("DP-G05")
async def test_no_group_is_deleted_into_a_limit_of_the_grid(lab: Lab) -> None:
    """The rise breaks a budget as any other would."""
    await lab.limit(400_000.0)
    change = await lab.propose_group("delete_group", group="finetune-vega")
    assert change["state"] == "refused"
    assert await rules(lab, change) == ["budget-broken"]


@pytest.mark.trap("DP-G06")
async def test_a_node_that_leaves_an_active_group_may_rise(lab: Lab) -> None:
    """Of a group that is not active nothing follows."""
    active = await lab.propose_group("remove_nodes", group="finetune-vega", node_ids=["node-052"])
    idle = await lab.propose_group("remove_nodes", group="evaluate-nightly", node_ids=["node-058"])
    assert (await reach(lab, active))["power_rise_w"] == 8 * 210
    assert (await reach(lab, idle))["watts_moved"] == 0


async def test_a_raise_that_is_for_a_time_ends_by_itself(lab: Lab) -> None:
    """Back to the policy before, which takes no second yes: it is lower."""
    raised = await done(
        lab, "set_group_policy", group="embed-corpus", policy="MaxLPS", expires_in_s=60.0
    )
    assert raised.state is ChangeState.SUCCEEDED
    assert set_w(lab, "node-023") == {560.0}
    for _ in range(200):
        await lab.second()
        if set_w(lab, "node-023") == {490.0}:
            break
    assert set_w(lab, "node-023") == {490.0}


@pytest.mark.trap("DP-G04")
async def test_taking_power_from_others_reaches_all_who_may_lose(lab: Lab) -> None:
    """DPS cannot say whom it takes from; one who was promised a floor is enough to refuse."""
    change = await lab.propose_group(
        "add_nodes",
        group="adapt-mini",
        node_ids=["node-064"],
        policy="MaxP",
        dry_run=True,
    )
    assert "power taken from" not in change["reach"]
    lab.plant.command_caps(lab.plant.site.gpus_of_node("node-064"), 400.0)
    await lab.second()
    taking = await lab.propose_group(
        "add_nodes",
        group="adapt-mini",
        node_ids=["node-064"],
        policy="MaxP",
        allow_reprovision=True,
    )
    found = await reach(lab, taking)
    assert taking["state"] == "refused"
    assert "slo-floor-broken" in await rules(lab, taking)
    assert {"speech", "code-assist"} <= set(found["slo_floors_broken"])
    assert {"label-images", "speech"} <= set(found["power_taken_from"])
    assert lab.writes() == 0


@pytest.mark.trap("DP-G04")
async def test_taking_power_is_decided_by_two_operators(lab: Lab) -> None:
    """Where nobody was promised a floor; DPS then lowers the least important first."""
    for name in ("embed-corpus", "finetune-vega"):
        lab.dps.groups.command(dict.fromkeys(lab.dps.groups.by_name[name].nodes, "MaxP"))
    for group in lab.dps.groups.by_name.values():
        group.properties["slo_floor"] = None
    lab.plant.command_caps(lab.plant.site.gpus_of_node("node-064"), 400.0)
    await lab.second()
    taking = await lab.propose_group(
        "add_nodes",
        group="adapt-mini",
        node_ids=["node-064"],
        policy="MaxP",
        allow_reprovision=True,
    )
    assert await rules(lab, taking) == ["power-taken-needs-two-operators"]
    assert taking["needs_people"] == 2
    found = await reach(lab, taking)
    assert "adapt-mini" not in found["power_taken_from"]
    assert found["hosts"] > 1  # whom it may hit is reached, too


async def test_taking_power_for_nothing_is_an_error(lab: Lab) -> None:
    """Where nothing rises there is nothing to take."""
    with pytest.raises(ComponentError, match="nothing rises"):
        await lab.propose_group("activate_group", group="evaluate-nightly", allow_reprovision=True)


@pytest.mark.trap("DP-G17")
async def test_a_priority_names_who_loses_first_from_then_on(lab: Lab) -> None:
    """The lower number is the more important; two operators decide, though no watt moves."""
    up = await lab.propose_group("set_group_priority", group="notebooks", priority=0)
    found = await reach(lab, up)
    assert "label-images" in found["power_taken_from"]  # priority 1, before it and now behind
    assert "notebooks" not in found["power_taken_from"]
    assert found["watts_moved"] == 0
    assert await rules(lab, up) == ["power-taken-needs-two-operators"]
    down = await lab.propose_group("set_group_priority", group="label-images", priority=9)
    assert (await reach(lab, down))["power_taken_from"] == ["label-images"]


# ── what is refused, and what can never work ──────────────────────────────────────────────────────


async def test_a_policy_below_a_promised_floor_is_refused(lab: Lab) -> None:
    """Serving was promised 95 %."""
    change = await lab.propose_group("set_group_policy", group="speech", policy="MaxQ")
    assert change["state"] == "refused"
    assert await rules(lab, change) == ["slo-floor-broken"]


async def test_nodes_that_join_are_under_the_promise_of_their_group(lab: Lab) -> None:
    """A node of nobody has no floor; in a group that was promised one it has."""
    change = await lab.propose_group(
        "add_nodes", group="speech", node_ids=["node-064"], policy="MaxQ"
    )
    assert await rules(lab, change) == ["slo-floor-broken"]


@pytest.mark.trap("DP-G03")
async def test_what_dps_would_not_allocate_is_refused_by_its_dry_run(lab: Lab) -> None:
    """Its own words are the reason; strict, so that nothing is downgraded."""
    for name in ("embed-corpus", "finetune-vega"):
        lab.dps.groups.command(dict.fromkeys(lab.dps.groups.by_name[name].nodes, "MaxP"))
    await lab.second()
    change = await lab.propose_group(
        "add_nodes", group="adapt-mini", node_ids=["node-064"], policy="MaxP"
    )
    assert change["state"] == "refused"
    assert await rules(lab, change) == ["component-refuses"]
    shown = await lab.shown(change)
    assert "MaxP does not fit on 1 nodes" in str(shown)


async def test_room_that_is_gone_at_the_act_stops_it(lab: Lab) -> None:
    """DPS is asked again in the moment of the act; nothing is sent."""
    change = await lab.propose_group(
        "add_nodes", group="adapt-mini", node_ids=["node-064"], policy="MaxP"
    )
    for name in ("embed-corpus", "finetune-vega"):
        lab.dps.groups.command(dict.fromkeys(lab.dps.groups.by_name[name].nodes, "MaxP"))
    await lab.approve(change)
    ended = await lab.end_of(change)
    assert ended.state is not ChangeState.SUCCEEDED
    assert lab.dps.calls["ResourceGroupAddResources"] == 0


@pytest.mark.trap("DP-G14")
async def test_a_policy_that_nobody_understands_is_not_applied(lab: Lab) -> None:
    """It limits something whose effect is unknown; it is shown, and left alone."""
    lab.dps.inject(TwinFault.UNKNOWN_ELEMENT)
    with pytest.raises(ComponentError, match="limits the element type 9, which is not known here"):
        await lab.propose_group("set_group_policy", **CUT)
    shown = await lab.call("dps", "list_policies")
    assert shown["policies"][0]["other"] == ["9: 100 W"]


class OutOfReach(FactRegistry):
    """The facts of a site whose DPS has lost one BMC a moment ago: it still has its readings."""

    def __init__(self, whole: FactRegistry, node_id: str) -> None:
        super().__init__()
        self._whole = whole
        self._node_id = node_id

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """As the whole, but for this node's reach."""
        answer = await self._whole.fact(need)
        if need.kind != DPS_NODES or not isinstance(answer, Fact):
            return answer
        return answer.model_copy(update={"value": {**answer.value, self._node_id: "12:00"}})


async def test_a_node_that_dps_does_not_reach_is_named(lab: Lab) -> None:
    """Its policy would be on paper only: where DPS says so itself, as where its GPUs are dark."""
    whole = lab.site.guard.facts
    lab.site.guard.facts = OutOfReach(whole, "node-046")
    with pytest.raises(ComponentError, match="node-046: DPS has not reached its BMC since 12:00"):
        await lab.propose_group("set_group_policy", **CUT)
    lab.site.guard.facts = whole
    lab.plant.inject(Fault(FaultKind.NODE_DOWN, "node-046"))
    await lab.second()
    with pytest.raises(ComponentError, match="node-046: its GPUs' limits are not known"):
        await lab.propose_group("set_group_policy", **CUT)
    shown = await lab.call("dps", "group_nodes", group="label-images")
    assert [("out_of_reach_since" in row, "set_w" in row) for row in shown["nodes"]] == [
        (False, True),
        (True, False),
        (False, True),
        (False, True),
    ]


@pytest.mark.trap("DP-G20")
async def test_a_group_between_active_and_inactive_is_left_alone(lab: Lab) -> None:
    """DPS refuses it then; so it is said at once."""
    lab.dps.groups.by_name["label-images"].status = "activating"
    with pytest.raises(ComponentError, match="'activating'; wait until"):
        await lab.propose_group("set_group_policy", **CUT)


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("activate_group", {"group": "speech"}, "active already"),
        ("activate_group", {"group": "nobody"}, "no resource group 'nobody'"),
        ("create_group", {"group": "speech", "policy": "MaxQ"}, "already has a group"),
        ("create_group", {"group": "fresh", "policy": "MaxZ"}, "there are MaxLPS, MaxP, MaxQ"),
        ("add_nodes", {"group": "speech", "node_ids": ["node-001"]}, "in the group 'pretrain-a"),
        ("remove_nodes", {"group": "speech", "node_ids": ["node-001"]}, "not in the group"),
        ("set_group_priority", {"group": "speech", "priority": 0}, "it is 0 already"),
    ],
)
async def test_what_can_never_work_says_why(
    lab: Lab, tool: str, arguments: dict[str, Any], says: str
) -> None:
    """No change comes of it."""
    with pytest.raises(ComponentError, match=says):
        await lab.propose_group(tool, **arguments)
    assert await lab.site.guard.latest() == []


@pytest.mark.trap("DP-G16")
async def test_a_dps_without_priorities_says_so(tmp_path: Path) -> None:
    """The field is named; all else of groups goes on."""
    async with open_lab(tmp_path) as older:
        with pytest.raises(ComponentError, match=r"ResourceGroupInfo\.priority"):
            await older.propose_group("set_group_priority", group="speech", priority=3)
        assert "priority" not in (await older.call("dps", "resource_groups"))["groups"][0]


# ── what goes wrong on the way ────────────────────────────────────────────────────────────────────


@pytest.mark.trap("DP-G10")
async def test_a_downgrade_is_a_failure_and_shows(lab: Lab) -> None:
    """DPS says ok, applies less, and nobody calls that success."""
    change = await lab.propose_group("set_group_policy", group="label-images", policy="MaxLPS")
    lab.dps.inject(TwinFault.DOWNGRADE)
    await lab.approve(change)
    ended = await lab.end_of(change)
    assert ChangeState.SUCCEEDED not in [step.state for step in ended.history]
    shown = await lab.call("dps", "resource_groups")
    (row,) = [group for group in shown["groups"] if group["name"] == "label-images"]
    assert row["downgraded_nodes"] == 4


@pytest.mark.trap("DP-G11")
async def test_a_raise_that_was_done_in_part_is_taken_back(lab: Lab) -> None:
    """The nodes that rose are lowered again, GPU by GPU."""
    change = await lab.propose_group(
        "set_node_policies",
        group="finetune-vega",
        policy_by_node={"node-052": "MaxLPS", "node-053": "MaxLPS"},
    )
    lab.dps.inject(TwinFault.PARTIAL, times=1)
    await lab.approve(change)
    ended = await lab.end_of(change)
    assert ChangeState.SUCCEEDED not in [step.state for step in ended.history]
    assert set_w(lab, "node-053") == set_w(lab, "node-052") == {490.0}


# ── what is read ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.trap("DP-G02")
async def test_policies_show_watts_of_the_node_and_of_one_gpu(lab: Lab) -> None:
    """Both, so that neither is taken for the other."""
    shown = await lab.call("dps", "list_policies")
    rows = {row["name"]: (row["gpus_of_node_w"], row["each_gpu_w"]) for row in shown["policies"]}
    assert rows["MaxP"] == (5600.0, 700.0)


async def test_headroom_is_what_dps_itself_has_allocated(lab: Lab) -> None:
    """By its dry run of the policies that hold; of each PDU as of each rack."""
    shown = await lab.call("dps", "headroom")
    rows = {row["id"]: row for row in shown["entities"]}
    caps_w = lab.plant.gpu_cap_set_w
    nodes = [node for node in lab.plant.site.nodes if node.rack_id == "rack-04"]
    host = lab.plant.site.host
    gpus_w = sum(caps_w[lab.plant.site.gpus_of_node(n.node_id)].sum() for n in nodes)
    assert rows["rack-04"]["allocated_w"] == round(len(nodes) * host.base_w + host.slope * gpus_w)
    assert rows["rack-04"]["headroom_w"] == 72_000 - rows["rack-04"]["allocated_w"]


async def test_the_dry_run_is_a_read(lab: Lab) -> None:
    """Of anything, without a change."""
    shown = await lab.call("dps", "validate_allocation", node_ids=["node-064"], policy="MaxQ")
    assert (shown["would_succeed"], shown["downgraded"]) == (True, False)
    assert {row["id"] for row in shown["entities"]} == {"rack-08", "pdu-2", "feed-b"}
    assert lab.writes() == 0


@pytest.mark.trap("DP-G21")
async def test_no_tool_touches_a_topology(lab: Lab) -> None:
    """Activating or deactivating one moves the whole site."""
    names = [
        tool.name for client in lab.clients.values() for tool in (await client.list_tools()).tools
    ]
    assert not [name for name in names if "topolog" in name]
    assert not [name for name in lab.site.guard.operations if "topolog" in name]
