"""Limits of power as an agent meets them: what is refused, what is done, and what shows."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from interlock_agents.connection import Servers
from interlock_plant.faults import Fault, FaultKind
from interlock_servers.maxlps.twin import TwinFault
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import ComponentError
from tests.servers.sites import Lab, open_lab

RACK_1 = tuple(f"node-{number:03d}" for number in range(1, 9))  # training, no floor
PDU_1_TRAINING = tuple(f"node-{number:03d}" for number in range(1, 17))
CUT = dict.fromkeys(RACK_1, 400)
SERVING = "node-019"  # of chat-large, which was promised 95 %


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The lab, supervised, nothing limited."""
    async with open_lab(tmp_path) as opened:
        yield opened


def states(change: Change) -> list[ChangeState]:
    """The states that it went through, in order."""
    return [step.state for step in change.history]


def set_w(lab: Lab, node_id: str) -> set[float]:
    """The limits of a node's GPUs in the plant itself."""
    return set(lab.plant.gpu_cap_set_w[lab.plant.site.gpus_of_node(node_id)].tolist())


async def limited(lab: Lab, node_ids: tuple[str, ...], cap_w: int) -> Change:
    """Propose, approve and see the end."""
    change = await lab.propose("set_caps", gpu_cap_w_by_node=dict.fromkeys(node_ids, cap_w))
    await lab.approve(change)
    return await lab.end_of(change)


# ── the way that it should go ─────────────────────────────────────────────────────────────────────


async def test_a_grid_limit_is_met_by_the_plan_and_shown_by_the_meter(lab: Lab) -> None:
    """Plan, propose, vote, act, and the facility's own meter below the limit; no floor broken."""
    limit_w = 400_000.0
    await lab.limit(limit_w)
    plan = await lab.call("maxlps", "plan_caps", site_limit_w=limit_w)

    change = await lab.propose("set_caps", gpu_cap_w_by_node=plan["gpu_cap_w_by_node"])
    assert change["state"] == "awaiting_approval"
    reach = (await lab.shown(change))["reach"]
    assert reach["slo_floors_broken"] == reach["budgets_broken"] == []
    assert lab.writes() == 0
    await lab.approve(change)
    ended = await lab.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED
    assert lab.writes() == 1
    lab.plant.score.mark()
    for _ in range(30):
        await lab.second()
        assert lab.plant.site_meter_w <= limit_w
    assert not any(lab.plant.score.below_floor_s.values())
    assert (await lab.call("exchange", "site_power"))["power_w"] <= limit_w


async def test_what_is_lowered_is_confirmed_before_anything_is_raised(lab: Lab) -> None:
    """A swap of watts between nodes never stands with both ends up."""
    assert (await limited(lab, RACK_1[:1], 400)).state is ChangeState.SUCCEEDED
    seen: list[tuple[set[float], set[float]]] = []
    lab.plant.when_commanded = lambda: seen.append((set_w(lab, RACK_1[0]), set_w(lab, RACK_1[1])))

    change = await lab.propose("set_caps", gpu_cap_w_by_node={RACK_1[0]: 500, RACK_1[1]: 300})
    shown = await lab.shown(change)
    assert shown["reach"]["power_rise_w"] == 8 * 100
    assert shown["rules"][0]["rule_id"] == "power-rise-needs-operator"
    await lab.approve(change)

    assert (await lab.end_of(change)).state is ChangeState.SUCCEEDED
    assert seen == [({400.0}, {300.0}), ({500.0}, {300.0})]


async def test_watts_that_go_from_one_job_to_another_take_two_operators(lab: Lab) -> None:
    """Judged by its effect, not by the tool: the reach names who loses."""
    batch = "node-023"  # of embed-corpus
    assert (await limited(lab, RACK_1[:1], 400)).state is ChangeState.SUCCEEDED

    change = await lab.propose("set_caps", gpu_cap_w_by_node={RACK_1[0]: 500, batch: 500})

    shown = await lab.shown(change)
    assert shown["reach"]["power_taken_from"] == ["embed-corpus"]
    assert [rule["rule_id"] for rule in shown["rules"]] == ["power-taken-needs-two-operators"]
    assert change["needs_people"] == 2
    assert "power taken from: embed-corpus" in change["reach"]
    await lab.approve(change)
    row = await lab.site.guard.get(change["change_id"])
    assert row.state is ChangeState.AWAITING_APPROVAL  # one is not enough


async def test_released_limits_go_back_to_the_device(lab: Lab) -> None:
    """Release names no watts: the devices' own greatest limit comes back."""
    await limited(lab, RACK_1, 450)

    change = await lab.propose("release_caps", node_ids=list(RACK_1))
    await lab.approve(change)

    assert (await lab.end_of(change)).state is ChangeState.SUCCEEDED
    assert all(set_w(lab, node_id) == {700.0} for node_id in RACK_1)


async def test_a_dry_run_reaches_no_device(lab: Lab) -> None:
    """Facts, reach and the people that it would take; no write to DPS."""
    change = await lab.propose("set_caps", gpu_cap_w_by_node={"node-001": 400}, dry_run=True)

    assert change["needs_people"] == 1
    assert change["reach"] == (
        "8 GPUs on 1 host, 2400 W moved, 0 W of it up; jobs: pretrain-atlas; tenants: aurora"
    )
    assert "uri" not in change
    await lab.second()
    assert lab.writes() == 0
    assert await lab.site.guard.latest() == []


# ── what is refused, and what can never work ──────────────────────────────────────────────────────


async def test_a_cap_below_a_promised_floor_is_refused(lab: Lab) -> None:
    """No vote buys a broken promise; the job is named."""
    change = await lab.propose("set_caps", gpu_cap_w_by_node={SERVING: 300})

    assert change["state"] == "refused"
    shown = await lab.shown(change)
    assert [rule["rule_id"] for rule in shown["rules"]] == ["slo-floor-broken"]
    assert shown["reach"]["slo_floors_broken"] == ["chat-large"]


@pytest.mark.parametrize("cap_w", [199, 701])
async def test_a_cap_outside_the_device_is_an_error_that_names_the_node(
    lab: Lab, cap_w: int
) -> None:
    """It can never work, so it is no change; the range is told."""
    with pytest.raises(ComponentError, match=f"node-002 takes 200 to 700 W per GPU, not {cap_w}"):
        await lab.propose("set_caps", gpu_cap_w_by_node={"node-001": 400, "node-002": cap_w})
    assert await lab.site.guard.latest() == []


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("set_caps", {"gpu_cap_w_by_node": {"node-999": 400}}),
        ("release_caps", {"node_ids": ["node-001", "node-999"]}),
    ],
)
async def test_an_unknown_node_is_named(lab: Lab, tool: str, arguments: dict[str, Any]) -> None:
    """A typing mistake does not become a smaller change."""
    with pytest.raises(ComponentError, match="node-999"):
        await lab.propose(tool, **arguments)


@pytest.mark.parametrize("tool", ["set_caps", "release_caps"])
async def test_power_does_not_rise_while_the_grid_limits_the_site(lab: Lab, tool: str) -> None:
    """The grid's limit is a budget like any other, whoever would approve."""
    await limited(lab, RACK_1, 400)
    await lab.limit(400_000.0)

    arguments: dict[str, dict[str, Any]] = {
        "set_caps": {"gpu_cap_w_by_node": dict.fromkeys(RACK_1, 500)},
        "release_caps": {"node_ids": []},
    }
    change = await lab.propose(tool, **arguments[tool])

    assert change["state"] == "refused"
    shown = await lab.shown(change)
    assert [rule["rule_id"] for rule in shown["rules"]] == ["budget-broken"]
    assert shown["reach"]["budgets_broken"] == ["lab"]


async def test_a_limit_that_comes_after_the_vote_stops_a_rise(lab: Lab) -> None:
    """The decision is made again in the moment of the act."""
    await limited(lab, RACK_1, 400)
    change = await lab.propose("set_caps", gpu_cap_w_by_node=dict.fromkeys(RACK_1, 500))
    await lab.limit(400_000.0)
    await lab.approve(change)

    ended = await lab.end_of(change)

    assert ended.state is ChangeState.REFUSED
    assert "budget-broken" in ended.history[-1].why
    assert lab.writes() == 1  # the lowering before


# ── what is said to ask for it ────────────────────────────────────────────────────────────────────


async def test_caps_for_a_grid_event_wait_for_people_while_it_is_open(lab: Lab) -> None:
    """The event is among the facts that approvers see, from who heard it."""
    await lab.limit(400_000.0)
    event_id = (await lab.call("flex", "grid_limit"))["correlation_id"]

    change = await lab.propose("set_caps", gpu_cap_w_by_node=CUT, for_event_id=event_id)

    assert change["state"] == "awaiting_approval"
    row = await lab.site.guard.get(change["change_id"])
    (event,) = [fact for fact in row.facts if fact.kind == "grid.event"]
    assert (event.origin, event.value, event.subject.id) == ("flex", "open", event_id)


@pytest.mark.parametrize(
    ("named", "ends", "people", "rule"),
    [
        (True, True, 1, "reversible-needs-operator"),
        (False, True, 2, "all-feeds-needs-two-operators"),
        (True, False, 2, "no-end-needs-two-operators"),
        (False, False, 3, "all-feeds-without-end-needs-three-operators"),
    ],
)
async def test_what_a_target_leaves_out_is_approved_apart_from_its_watts(
    lab: Lab, named: bool, ends: bool, people: int, rule: str
) -> None:
    """Caps that follow a target for every feed, or for ever, take one operator more for each."""
    event_id = await lab.grid.set_target(
        200_000.0,
        feed_tags=lab.plant.site.feed_ids if named else None,
        end=lab.clock.now() + timedelta(hours=1) if ends else None,
    )
    await lab.until("flex", "grid_limit", lambda grid: grid.get("limit_w") is not None)

    change = await lab.propose("set_caps", gpu_cap_w_by_node=CUT, for_event_id=event_id)

    assert (change["state"], change["needs_people"]) == ("awaiting_approval", people)
    assert rule in change["why"]


async def test_caps_for_an_event_that_nobody_sent_are_refused(lab: Lab) -> None:
    """A caller's word for a grid event is none."""
    await lab.limit(400_000.0)

    change = await lab.propose("set_caps", gpu_cap_w_by_node=CUT, for_event_id="event-1")

    assert change["state"] == "refused"
    assert "[claim-unconfirmed]" in change["why"]
    assert "not confirmed: grid.event of grid_event/event-1" in change["why"]


async def test_caps_for_an_event_that_was_lifted_after_the_vote_are_not_set(lab: Lab) -> None:
    """What people approved it for is over."""
    await lab.limit(400_000.0)
    event_id = (await lab.call("flex", "grid_limit"))["correlation_id"]
    change = await lab.propose("set_caps", gpu_cap_w_by_node=CUT, for_event_id=event_id)
    await lab.grid.set_target(None)
    await lab.until("flex", "grid_limit", lambda grid: grid.get("limit_w") is None)
    await lab.approve(change, people=3)

    ended = await lab.end_of(change)

    assert ended.state is ChangeState.REFUSED
    assert "claim-unconfirmed" in ended.history[-1].why
    assert lab.writes() == 0


# ── facts that are not there ──────────────────────────────────────────────────────────────────────


async def test_on_a_meter_that_fell_silent_nothing_is_changed_and_reads_say_how_old(
    lab: Lab,
) -> None:
    """Stale is no number to act on, and no reason to stop answering."""
    lab.bms.fault("stale")
    await lab.silence(121)

    change = await lab.propose("set_caps", gpu_cap_w_by_node={"node-001": 500})
    power = await lab.call("exchange", "site_power")

    assert change["state"] == "refused"
    assert [rule["rule_id"] for rule in (await lab.shown(change))["rules"]] == ["facts-unknown"]
    assert "meter.power of site/lab is unknown" in change["why"]
    assert "121 s old" in change["why"]
    assert {meter["age_s"] for meter in power["below"]} == {121.0}


async def test_without_a_broker_changes_are_refused_and_reads_say_since_when(lab: Lab) -> None:
    """The hub is no single point of failure for looking; for acting it is."""
    await lab.end_broker()
    await lab.until("exchange", "bus_health", lambda health: not health["connected"])
    heard = lab.clock.now()
    await lab.silence(31)

    change = await lab.propose("set_caps", gpu_cap_w_by_node={"node-001": 500})
    power = await lab.call("exchange", "site_power")
    grid = await lab.call("flex", "grid_limit")

    assert change["state"] == "refused"
    assert "grid.limit of site/lab is unknown" in change["why"]
    assert power["stale_since"] == power["observed_at"] == heard.isoformat().replace("+00:00", "Z")
    assert power["power_w"] > 0  # the last that is known, with its age
    assert grid["known"] is False
    assert "disconnected" in grid["why"]


async def test_when_dps_says_no_a_change_is_refused_and_a_read_says_what_is_missing(
    lab: Lab,
) -> None:
    """No topology, no reach; no reach, no change."""
    lab.dps.inject(TwinFault.OK_FALSE)

    change = await lab.propose("set_caps", gpu_cap_w_by_node={"node-001": 500})

    assert change["state"] == "refused"
    assert "power.topology of site/lab is unknown" in change["why"]
    with pytest.raises(ComponentError, match=r"power\.topology is unknown"):
        await lab.call("maxlps", "power_tree")


# ── acts that go wrong ────────────────────────────────────────────────────────────────────────────


async def test_caps_that_dps_takes_and_does_not_set_are_never_called_done(lab: Lab) -> None:
    """DPS says ok and does nothing: its word is not the proof."""
    lab.dps.inject(TwinFault.IGNORE_CAPS)

    ended = await limited(lab, PDU_1_TRAINING, 400)

    assert ended.state is ChangeState.COMPENSATED
    assert ChangeState.FAILED in states(ended)
    assert ended.evidence["verified"]["source"] == "the limits read back"
    assert lab.writes() == 1


async def test_caps_that_the_gpus_do_not_follow_are_seen_at_the_meter(lab: Lab) -> None:
    """Everything reads back as set, and the power does not fall: the meter decides."""
    for node_id in PDU_1_TRAINING:
        lab.plant.inject(Fault(FaultKind.CAP_IGNORED, node_id))

    ended = await limited(lab, PDU_1_TRAINING, 400)

    assert ended.state is ChangeState.COMPENSATED
    assert ChangeState.FAILED in states(ended)
    above = ended.evidence["verified"]["evidence"]["above"]
    assert "rack-01" in above
    assert all(reading["metered_w"] > reading["allowed_w"] for reading in above.values())


async def test_one_node_that_ignores_its_cap_is_seen_at_its_rack(lab: Lab) -> None:
    """The slack of a whole PDU would hide it."""
    lab.plant.inject(Fault(FaultKind.CAP_IGNORED, "node-001"))

    ended = await limited(lab, RACK_1, 300)

    assert ended.state is ChangeState.COMPENSATED
    assert set(ended.evidence["verified"]["evidence"]["above"]) == {"rack-01"}


async def test_a_rise_that_no_meter_confirms_is_taken_back(lab: Lab) -> None:
    """The meters fall silent after the act: what was raised goes down again."""
    await limited(lab, RACK_1, 400)
    lab.plant.when_commanded = lambda: lab.bms.fault("stale")
    change = await lab.propose("set_caps", gpu_cap_w_by_node=dict.fromkeys(RACK_1, 500))
    await lab.approve(change)

    ended = await lab.end_of(change)

    assert ended.state is ChangeState.COMPENSATED
    assert all(set_w(lab, node_id) == {400.0} for node_id in RACK_1)


async def test_an_answer_that_never_comes_is_read_back_and_nothing_is_sent_twice(lab: Lab) -> None:
    """DPS acts and hangs: the state is unknown until it is read, and it is not sent again."""
    lab.plant.when_commanded = lambda: lab.dps.inject(TwinFault.HANG, times=1)

    ended = await limited(lab, PDU_1_TRAINING, 500)

    assert states(ended)[3:] == [
        ChangeState.EXECUTING,
        ChangeState.UNKNOWN,
        ChangeState.VERIFYING,
        ChangeState.SUCCEEDED,
    ]
    assert ended.evidence["read_back"]["happened"] == "yes"
    assert lab.writes() == 1


async def test_a_result_that_is_missing_is_no_success_until_it_is_read_back(lab: Lab) -> None:
    """Status is ok under gRPC OK, and one GPU has no answer: unknown, then read."""
    lab.dps.inject(TwinFault.MISSING_RESULT, times=1)

    ended = await limited(lab, PDU_1_TRAINING, 500)

    assert ChangeState.UNKNOWN in states(ended)
    assert ended.state is ChangeState.SUCCEEDED
    assert lab.writes() == 1


async def test_a_clamped_cap_is_not_called_done(lab: Lab) -> None:
    """The devices took another limit than was approved."""
    lab.dps.inject(TwinFault.CLAMP, times=1)

    ended = await limited(lab, PDU_1_TRAINING, 500)

    assert ChangeState.SUCCEEDED not in states(ended)
    assert "node-001" in ended.evidence["read_back"]["evidence"]["nodes_not_set"]
    assert lab.writes() == 1


async def test_an_agent_follows_a_change_with_get_change_alone(lab: Lab) -> None:
    """All that an agent needs to know of the end comes over MCP."""
    change = await lab.propose("set_caps", gpu_cap_w_by_node=dict.fromkeys(RACK_1, 500))
    await lab.approve(change)
    await lab.end_of(change)

    agent = Servers(lab.clients)
    seen = await agent.call("maxlps", "get_change", change_id=change["change_id"])

    assert (seen["state"], seen["ended"]) == ("succeeded", True)
    assert seen["evidence"]["verified"]["held"] == "yes"
    listed = await agent.call("maxlps", "list_changes")
    assert [row["change_id"] for row in listed["changes"]] == [change["change_id"]]
