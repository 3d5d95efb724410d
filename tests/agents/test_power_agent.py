"""The power agent's rule planner against scripted servers: what it wishes, asks and leaves be."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from interlock_agents.power import BACK_OFF_S, NOTICE_S, wish_of
from interlock_tools.errors import ComponentError
from tests.agents.scripted import (
    LOOKS_EVERY_S,
    NOW,
    PARTIAL,
    PLAN,
    SITE,
    Rig,
    change,
    coming,
    going_up,
    grid,
    planned,
)

# ── what to wish for ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "limit_w"),
    [
        (grid(), None),
        (grid(400e3), 400e3),
        (grid(next=coming(300e3, NOTICE_S)), 300e3),
        (grid(next=coming(300e3, NOTICE_S + 1)), None),
        (grid(400e3, next=coming(300e3, 60)), 300e3),
        (grid(400e3, next=coming(450e3, 60)), 400e3),
        (grid(400e3, next=coming(300e3, NOTICE_S + 1)), 400e3),
        (grid(400e3, next=None), 400e3),
    ],
    ids=[
        "nothing asked",
        "in force",
        "starts within the notice",
        "starts after the notice",
        "the next is tighter",
        "the one in force is tighter",
        "tighter but too far off",
        "nothing announced",
    ],
)
def test_the_wish_is_the_tightest_limit_that_matters_now(
    said: dict[str, Any], limit_w: float | None
) -> None:
    """In force or starting soon, whichever leaves less; none lifts the limit."""
    wish = wish_of(said, NOW)

    assert wish is not None
    assert wish.limit_w == limit_w


def test_an_unknown_grid_is_no_wish_at_all() -> None:
    """Not even for release: what holds stays."""
    assert wish_of({"known": False, "why": "disconnected", "limit_w": 400e3}, NOW) is None
    assert wish_of({"known": False, "why": "disconnected"}, NOW) is None


def test_a_wish_says_from_when_and_from_whom() -> None:
    """The reason that approvers read names the event."""
    now = wish_of(grid(400e3), NOW)
    later = wish_of(grid(next=coming(300e3, 60)), NOW)

    assert now is not None
    assert later is not None
    assert (now.starts_at, now.correlation_id) == (None, "event-1")
    assert (later.starts_at, later.correlation_id) == (NOW + timedelta(seconds=60), "event-2")


# ── what it does about it ─────────────────────────────────────────────────────────────────────────


async def test_it_proposes_the_plan_once_and_then_only_follows() -> None:
    """One grid event is one change, however long people take."""
    rig = Rig()

    await rig.steps(10)

    assert rig.servers.asked("plan_caps") == [{"site_limit_w": 400_000.0, "moves": "down"}]
    (proposed,) = rig.servers.asked("set_caps")
    assert proposed["gpu_cap_w_by_node"] == {"node-001": 450}
    assert "event-1" in proposed["reason"]
    assert "400 kW" in proposed["reason"]
    assert len(rig.servers.asked("get_change")) == 9
    assert rig.kinds() == ["observed", "planned", "proposed", "awaiting_approval"]


@pytest.mark.parametrize(
    ("said", "event"),
    [
        (grid(400e3), {"for_event_id": "event-1"}),
        (grid(next=coming(300e3, 60)), {"for_event_id": "event-2"}),
        ({"known": True, "limit_w": 400e3}, {}),
    ],
    ids=["in force", "announced", "without a name"],
)
async def test_it_names_the_event_that_it_acts_on(
    said: dict[str, Any], event: dict[str, str]
) -> None:
    """So that the guard can ask whether there is one; what has no name cannot be claimed."""
    rig = Rig(grid_limit=said)
    await rig.steps(1)

    (proposed,) = rig.servers.asked("set_caps")
    assert {key: proposed[key] for key in proposed if key == "for_event_id"} == event


async def test_it_proposes_nothing_while_nothing_is_asked_of_it() -> None:
    """Nor while the grid is unknown; it looks at meters and for caps of before, and keeps still."""
    for said in (grid(), {"known": False, "why": "disconnected"}):
        rig = Rig(grid_limit=said)
        await rig.steps(3)
        assert not rig.servers.asked("set_caps")
        assert not rig.servers.asked("release_caps")
        assert len(rig.plans("up")) <= 1
        assert rig.notes == []


async def test_after_a_success_it_reports_what_the_meter_shows_and_rests() -> None:
    """The meter is another source than the change; the same wish is not proposed again."""
    rig = Rig(get_change=change("succeeded", ended=True, why="the meter shows it"))

    await rig.steps(6)

    assert rig.agent.held_limit_w == 400_000.0
    assert len(rig.servers.asked("set_caps")) == 1
    (verified,) = [note for note in rig.notes if note.kind == "verified"]
    assert "391.0 kW" in verified.text


async def test_a_meter_without_a_reading_is_reported_as_unknown() -> None:
    """It does not repeat the change's own word as if it had seen it."""
    rig = Rig(get_change=change("succeeded", ended=True), site_power={**SITE, "power_w": None})

    await rig.steps(2)

    assert "unknown" in rig.kinds()
    assert "verified" not in rig.kinds()


@pytest.mark.parametrize("state", ["expired", "failed", "compensated"])
async def test_after_a_no_it_waits_longer_each_time_before_it_asks_again(state: str) -> None:
    """An agent that asks at once again wears people down, and runs into its own rate limit."""
    rig = Rig(get_change=change(state, ended=True))
    asked_at: list[float] = []
    for look in range(400):
        await rig.steps(1)
        if len(rig.servers.asked("set_caps")) > len(asked_at):
            asked_at.append(look * LOOKS_EVERY_S)

    waits = [later - earlier for earlier, later in pairwise(asked_at)]
    for tries, wait_s in enumerate(waits):
        assert BACK_OFF_S * 2**tries <= wait_s <= BACK_OFF_S * 2**tries + 3 * LOOKS_EVERY_S
    assert len(waits) == 5
    assert rig.agent.held_limit_w is None


async def test_what_policy_refused_is_rehearsed_before_it_is_asked_again() -> None:
    """The same thing is no new change; only facts that make it possible are a reason to ask."""
    rig = Rig(get_change=change("refused", ended=True), set_caps=change("refused"))
    await rig.seconds(600)
    asked = rig.servers.asked("set_caps")
    assert [one.get("dry_run", False) for one in asked] == [False, *[True] * (len(asked) - 1)]
    assert 3 <= len(asked) <= 6
    assert rig.kinds().count("waits") == 1

    rig.servers.answers["set_caps"] = change("awaiting_approval")
    rig.servers.answers["get_change"] = change("succeeded", ended=True)
    await rig.seconds(700)
    assert rig.agent.held_limit_w == 400_000.0
    assert "dry_run" not in rig.servers.asked("set_caps")[-1]


async def test_another_plan_after_a_refusal_is_asked_at_once() -> None:
    """Facts changed: that is what back-off waits for."""
    rig = Rig(get_change=change("refused", ended=True), set_caps=change("refused"))
    await rig.steps(2)
    rig.servers.answers["plan_caps"] = planned({**PLAN, "gpu_cap_w_by_node": {"node-001": 430}})
    await rig.seconds(BACK_OFF_S + 2 * LOOKS_EVERY_S)

    assert "dry_run" not in rig.servers.asked("set_caps")[-1]


async def test_what_people_said_no_to_is_not_asked_again() -> None:
    """Until something else is possible, or wanted."""
    rig = Rig(get_change=change("rejected", ended=True))
    await rig.seconds(3600)
    assert len(rig.servers.asked("set_caps")) == 1

    rig.servers.answers["grid_limit"] = grid(390_000.0)
    await rig.steps(1)
    assert len(rig.servers.asked("set_caps")) == 2


# ── what cannot be met ────────────────────────────────────────────────────────────────────────────


async def test_what_cannot_be_met_is_met_as_far_as_floors_allow_and_people_hear_the_rest() -> None:
    """The closest caps as a partial proposal; pausing is for people, since no tool does it."""
    rig = Rig(plan_caps=planned(PARTIAL))

    await rig.steps(3)

    (asked,) = rig.servers.asked("set_caps")
    assert asked["gpu_cap_w_by_node"] == {"node-001": 450}
    assert "partial" in asked["reason"]
    assert "9000 W at lab" in asked["reason"]
    told = {note.kind: note.text for note in rig.notes}
    assert "9000 W are missing" in told["infeasible"]
    assert "pause label-images, 31.5 GPU-hours" in told["proposal"]
    assert "people have to" in told["proposal"]


async def test_after_a_partial_plan_it_looks_again_ever_less_often_and_never_spins() -> None:
    """Three hours of a cut that cannot be met are some twenty looks, not hundreds."""
    rig = Rig(plan_caps=planned(PARTIAL), get_change=change("succeeded", ended=True))
    await rig.steps(2)
    rig.servers.answers["plan_caps"] = planned({**PARTIAL, "gpu_cap_w_by_node": {}})
    await rig.seconds(3 * 3600)

    assert len(rig.servers.asked("set_caps")) == 1
    assert 10 <= len(rig.plans("down")) <= 25
    assert rig.kinds().count("proposal") == 1
    assert rig.agent.held_limit_w == 400_000.0


async def test_a_partial_plan_goes_on_where_facts_make_more_possible() -> None:
    """Work moved away: the next look finds caps that still fall."""
    rig = Rig(plan_caps=planned(PARTIAL), get_change=change("succeeded", ended=True))
    await rig.steps(2)
    rig.servers.answers["plan_caps"] = planned({**PLAN, "gpu_cap_w_by_node": {"node-002": 400}})
    await rig.seconds(60)

    assert [a["gpu_cap_w_by_node"] for a in rig.servers.asked("set_caps")] == [
        {"node-001": 450},
        {"node-002": 400},
    ]


async def test_a_tighter_limit_is_planned_anew() -> None:
    """Each limit has its own plan and its own approval."""
    rig = Rig(get_change=change("succeeded", ended=True))
    await rig.steps(2)
    rig.servers.answers["grid_limit"] = grid(400_000.0, next=coming(350_000.0, 60))

    await rig.steps(2)

    assert [a["site_limit_w"] for a in rig.plans("down")] == [400_000.0, 350_000.0]


async def test_a_server_that_fails_is_looked_at_again_later() -> None:
    """Trouble is told once, and the agent lives on."""
    rig = Rig()
    del rig.servers.answers["grid_limit"]

    with pytest.raises(ComponentError):
        await rig.agent.step()
    rig.servers.answers["grid_limit"] = grid(400_000.0)
    await rig.steps(1)

    assert len(rig.servers.asked("set_caps")) == 1


async def test_it_calls_nothing_but_what_it_was_given() -> None:
    """Through a whole event: reads, a plan and proposals, and no tool that decides."""
    up = going_up({"node-001": 700}, releases=True)
    rig = Rig(get_change=change("succeeded", ended=True))
    await rig.steps(3)
    rig.servers.answers |= {"grid_limit": grid(), "plan_caps": planned(PLAN, up)}
    await rig.steps(3)

    assert {(component, tool) for component, tool, _ in rig.servers.calls} == {
        ("flex", "grid_limit"),
        ("maxlps", "plan_caps"),
        ("maxlps", "power_tree"),
        ("maxlps", "set_caps"),
        ("maxlps", "release_caps"),
        ("maxlps", "get_change"),
        ("maxlps", "list_changes"),
        ("exchange", "site_power"),
        ("exchange", "list_leaks"),
        ("exchange", "list_points"),
    }
