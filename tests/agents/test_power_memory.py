"""What the power agent carries on: caps that were too much, its open change over a restart."""

from typing import Any

import pytest

from interlock_agents.own_changes import tagged
from interlock_agents.power import PowerAgent
from interlock_agents.power.remembering import MEMORY_S, Ceilings
from interlock_agents.power.taking_over import purpose_in
from interlock_agents.power.watching import BUDGETS_EVERY_S, FAR, HOLD_S, NEAR
from interlock_tools.errors import ComponentError
from tests.agents.scripted import NOW, PLAN, TREE, Rig, change, going_up, grid, metered, planned

BUDGET_W = 200_000.0
DONE = change("succeeded", ended=True)
REASONS: dict[str, tuple[dict[str, Any], str]] = {
    "grid": ({}, "grid 400000"),
    "restore": (
        {"grid_limit": grid(), "plan_caps": planned(PLAN, going_up({"node-001": 600}))},
        "restore",
    ),
    "breaker": ({"grid_limit": grid(), "site_power": metered(BUDGET_W)}, "breaker pdu-1"),
}


async def after_an_excursion() -> Rig:
    """The breaker of pdu-1 was near its limit, caps were set, and it is over."""
    rig = Rig(grid_limit=grid(), get_change=DONE, site_power=metered(NEAR * BUDGET_W))
    await rig.seconds(20)
    assert rig.servers.asked("set_caps")[0]["gpu_cap_w_by_node"] == {"node-001": 450}
    rig.servers.answers["site_power"] = metered(FAR * BUDGET_W)
    await rig.seconds(HOLD_S + 60)
    return rig


async def test_a_rise_above_what_was_too_much_is_not_asked_for_again() -> None:
    """Another event's restore lifts everything else; under caps the draw is not seen any more."""
    rig = await after_an_excursion()
    rig.servers.answers["grid_limit"] = grid(400_000.0)
    await rig.seconds(10)
    rig.servers.answers["grid_limit"] = grid()
    await rig.seconds(20)

    assert rig.plans("up")[-1]["at_most_w"] == {"node-001": 450}


async def test_what_was_too_much_is_forgotten_after_a_day_and_then_caps_may_rise() -> None:
    """Work moves; what was lowered once must not stay low for good."""
    rig = await after_an_excursion()
    ups = len(rig.plans("up"))
    rig.clock.advance(MEMORY_S)
    await rig.seconds(20)

    assert len(rig.plans("up")) > ups
    assert "at_most_w" not in rig.plans("up")[-1]


async def test_what_was_too_much_is_forgotten_when_the_domain_carries_another_load() -> None:
    """A larger breaker was put in: what tripped the old one says nothing of it."""
    rig = await after_an_excursion()
    tree: list[dict[str, Any]] = TREE["domains"]
    rig.servers.answers["power_tree"] = {"domains": [{**tree[0], "budget_w": 1.5 * BUDGET_W}]}
    await rig.seconds(BUDGETS_EVERY_S + 20)

    assert rig.plans("up")
    assert "at_most_w" not in rig.plans("up")[-1]


def test_of_two_excursions_of_a_domain_the_lower_caps_count() -> None:
    """A second one shows that the first caps were still too high, where it lowers them."""
    ceilings = Ceilings()
    ceilings.learn("pdu-1", BUDGET_W, {"a": 500, "b": 500}, NOW)
    ceilings.learn("pdu-1", BUDGET_W, {"a": 450, "b": 520}, NOW)
    ceilings.learn("rack-1", 60_000.0, {"b": 480}, NOW)

    assert ceilings.at_most_w == {"a": 450, "b": 480}


# ── over a restart ────────────────────────────────────────────────────────────────────────────────


def open_changes(rig: Rig, *states: str) -> dict[str, Any]:
    """What list_changes says: these states, newest first, and other people's changes between."""
    rows = [{"change_id": "chg-bbbbbbbbbbbb", "state": "verifying", "operation": "nico.reboot"}]
    rows += [
        {"change_id": f"chg-{n:012d}", "state": state, "operation": "maxlps.set_caps"}
        for n, state in enumerate(states)
    ]
    return {"changes": rows}


@pytest.mark.parametrize("kind", REASONS)
async def test_after_a_restart_its_open_change_is_followed_and_not_proposed_twice(
    kind: str,
) -> None:
    """Whatever it was for: people are asked once."""
    answers, purpose = REASONS[kind]
    rig = Rig(**answers)
    await rig.steps(8)
    (asked,) = rig.servers.asked("set_caps")
    assert purpose_in(asked["reason"]) == purpose

    waiting = change("awaiting_approval") | {"reason": asked["reason"]}
    rig.servers.answers |= {
        "list_changes": open_changes(rig, "awaiting_approval"),
        "get_change": waiting,
        "plan_caps": planned(PLAN, going_up({"node-001": 600})),
    }
    rig.agent = PowerAgent(rig.servers, rig.clock, rig.notes.append)
    await rig.seconds(120)

    assert len(rig.servers.asked("set_caps")) == 1
    assert [n.kind for n in rig.notes].count("taken over") == 1


async def test_what_was_taken_over_counts_as_held_once_it_succeeded() -> None:
    """And is looked at again, since whether its plan was all is not known any more."""
    rig = Rig(
        list_changes=open_changes(Rig(), "awaiting_approval"),
        get_change=change("awaiting_approval") | {"reason": tagged("why", "grid 400000", 99)},
    )
    await rig.steps(3)
    assert rig.servers.asked("set_caps") == []
    rig.servers.answers["get_change"] = DONE | {"reason": tagged("why", "grid 400000", 99)}
    rig.servers.answers["plan_caps"] = planned({**PLAN, "gpu_cap_w_by_node": {}})
    await rig.seconds(60)

    assert rig.agent.held_limit_w == 400_000.0
    assert len(rig.plans("down")) == 1


async def test_a_tighter_limit_goes_before_what_was_taken_over() -> None:
    """What waited for people before the restart is for a limit of before."""
    rig = Rig(
        grid_limit=grid(350_000.0),
        list_changes=open_changes(Rig(), "awaiting_approval"),
        get_change=change("awaiting_approval") | {"reason": tagged("why", "grid 400000", 99)},
    )
    await rig.steps(2)

    assert [one["site_limit_w"] for one in rig.plans("down")] == [350_000.0]
    assert len(rig.servers.asked("set_caps")) == 1


async def test_what_ended_or_is_of_others_is_not_taken_over() -> None:
    """A change without its mark is somebody else's, and what ended asks nothing of anybody."""
    rig = Rig(
        list_changes=open_changes(Rig(), "awaiting_approval", "succeeded"),
        get_change=change("awaiting_approval") | {"reason": "a person wants it [please]"},
    )
    await rig.steps(1)

    assert len(rig.servers.asked("set_caps")) == 1
    assert [one["change_id"] for one in rig.servers.asked("get_change")] == ["chg-000000000000"]


async def test_as_long_as_it_does_not_know_what_is_open_it_proposes_nothing() -> None:
    """Twice is worse than late: the next look asks again."""
    rig = Rig()
    known = rig.servers.answers.pop("list_changes")
    with pytest.raises(ComponentError):
        await rig.agent.step()
    assert rig.servers.asked("set_caps") == []

    rig.servers.answers["list_changes"] = known
    await rig.steps(1)
    assert len(rig.servers.asked("set_caps")) == 1


def test_a_long_reason_keeps_its_mark() -> None:
    """It is cut before it, within what a reason may have."""
    reason = tagged("x" * 600, "breaker pdu-1", 500)

    assert len(reason) == 500
    assert purpose_in(reason) == "breaker pdu-1"
    assert purpose_in("for the grid [urgent]") is None
