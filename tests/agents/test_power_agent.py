"""The power agent's rule planner against scripted servers: what it wishes, asks and leaves be."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from interlock_agents.connection import Servers
from interlock_agents.power import BACK_OFF_S, NOTICE_S, OBSERVE_EVERY_S, Note, PowerAgent, wish_of
from interlock_tools.clock import ManualClock
from interlock_tools.errors import ComponentError

NOW = datetime(2026, 9, 1, 6, 0, tzinfo=UTC)
PLAN = {
    "feasible": True,
    "why": "at most 1e-9 from the optimum",
    "gpu_cap_w_by_node": {"node-001": 450},
    "work_kept_pct": 91.5,
}
Answer = dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]]


class ScriptedServers(Servers):
    """Servers that answer from a table, and remember what they were asked."""

    def __init__(self, **answers: Answer) -> None:
        super().__init__({})
        self.answers = answers
        self.calls: list[tuple[str, str, dict[str, Any]]] = []

    async def call(self, component: str, tool: str, **arguments: Any) -> dict[str, Any]:
        """What the table says of this tool; one that it does not name is an error."""
        self.calls.append((component, tool, arguments))
        answer = self.answers.get(tool)
        if answer is None:
            raise ComponentError(component, tool, "not in the script")
        return answer(arguments) if callable(answer) else answer

    def asked(self, tool: str) -> list[dict[str, Any]]:
        """The arguments of every call of one tool."""
        return [arguments for _, name, arguments in self.calls if name == tool]


def change(state: str, *, ended: bool = False, why: str = "because") -> dict[str, Any]:
    """A change as a server shows it."""
    return {"change_id": "chg-0123456789ab", "state": state, "ended": ended, "why": why}


def grid(limit_w: float | None = None, **more: Any) -> dict[str, Any]:
    """What the grid asks; unlimited unless told."""
    answer: dict[str, Any] = {"known": True, **more}
    if limit_w is not None:
        answer |= {"limit_w": limit_w, "correlation_id": "event-1"}
    return answer


def coming(limit_w: float, in_s: float) -> dict[str, Any]:
    """An announced limit."""
    starts_at = (NOW + timedelta(seconds=in_s)).isoformat()
    return {"limit_w": limit_w, "starts_at": starts_at, "correlation_id": "event-2"}


class Rig:
    """An agent, its scripted servers, and what it told."""

    def __init__(self, **answers: Answer) -> None:
        self.clock = ManualClock(NOW)
        usual: dict[str, Answer] = {
            "grid_limit": grid(400_000.0),
            "plan_caps": PLAN,
            "set_caps": change("awaiting_approval"),
            "release_caps": change("awaiting_approval"),
            "get_change": change("awaiting_approval"),
            "site_power": {"power_w": 391_000.0},
        }
        self.servers = ScriptedServers(**(usual | answers))
        self.notes: list[Note] = []
        self.agent = PowerAgent(self.servers, self.clock, self.notes.append)

    def kinds(self) -> list[str]:
        """The kinds of what it told."""
        return [note.kind for note in self.notes]

    async def steps(self, count: int) -> None:
        """Let it look so often, at its own pace."""
        for _ in range(count):
            await self.agent.step()
            self.clock.advance(OBSERVE_EVERY_S)


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

    assert rig.servers.asked("plan_caps") == [{"site_limit_w": 400_000.0}]
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


async def test_it_asks_for_nothing_while_nothing_is_asked_of_it() -> None:
    """Nor while the grid is unknown."""
    for said in (grid(), {"known": False, "why": "disconnected"}):
        rig = Rig(grid_limit=said)
        await rig.steps(3)
        assert {tool for _, tool, _ in rig.servers.calls} == {"grid_limit"}
        assert rig.notes == []


async def test_after_a_success_it_reports_what_the_meter_shows_and_rests() -> None:
    """The meter is another source than the change; the same wish is not proposed again."""
    rig = Rig(get_change=change("succeeded", ended=True, why="the meter shows it"))

    await rig.steps(6)

    assert rig.agent.held_limit_w == 400_000.0
    assert len(rig.servers.asked("set_caps")) == 1
    assert rig.notes[-1].kind == "verified"
    assert "391.0 kW" in rig.notes[-1].text


async def test_a_meter_without_a_reading_is_reported_as_unknown() -> None:
    """It does not repeat the change's own word as if it had seen it."""
    rig = Rig(get_change=change("succeeded", ended=True), site_power={"why": "stale"})

    await rig.steps(2)

    assert rig.notes[-1].kind == "unknown"
    assert "verified" not in rig.kinds()


@pytest.mark.parametrize("state", ["refused", "rejected", "expired", "failed", "compensated"])
async def test_after_a_no_it_waits_before_it_asks_again(state: str) -> None:
    """An agent that asks at once again wears people down, and runs into its own rate limit."""
    rig = Rig(get_change=change(state, ended=True))
    await rig.steps(2)
    backed_off_at = rig.clock.now() - timedelta(seconds=OBSERVE_EVERY_S)

    while rig.clock.now() < backed_off_at + timedelta(seconds=BACK_OFF_S):
        await rig.steps(1)
        assert len(rig.servers.asked("set_caps")) == 1
    await rig.steps(1)

    assert len(rig.servers.asked("set_caps")) == 2
    assert rig.agent.held_limit_w is None


async def test_what_cannot_be_met_is_told_and_not_proposed() -> None:
    """No half plan; it looks again later, when work may have moved."""
    why = "the floors under lab need more"
    rig = Rig(
        plan_caps={"feasible": False, "why": why, "gpu_cap_w_by_node": {}, "work_kept_pct": None}
    )

    await rig.steps(3)

    assert rig.servers.asked("set_caps") == []
    assert rig.notes[-1] == Note(NOW, "infeasible", why, None)
    await rig.steps(int(BACK_OFF_S / OBSERVE_EVERY_S))
    assert len(rig.servers.asked("plan_caps")) == 2


async def test_when_the_limit_ends_the_caps_are_released_once() -> None:
    """Only what it brought in force itself is taken back."""
    rig = Rig(get_change=change("succeeded", ended=True))
    await rig.steps(2)
    rig.servers.answers["grid_limit"] = grid()

    await rig.steps(5)

    assert rig.servers.asked("release_caps") == [
        {
            "node_ids": [],
            "reason": "the grid load target has ended; caps go back to the devices' defaults",
        }
    ]
    assert rig.agent.held_limit_w is None


async def test_a_tighter_limit_is_planned_anew() -> None:
    """Each limit has its own plan and its own approval."""
    rig = Rig(get_change=change("succeeded", ended=True))
    await rig.steps(2)
    rig.servers.answers["grid_limit"] = grid(400_000.0, next=coming(350_000.0, 60))

    await rig.steps(2)

    assert [a["site_limit_w"] for a in rig.servers.asked("plan_caps")] == [400_000.0, 350_000.0]


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
    rig = Rig(get_change=change("succeeded", ended=True))
    await rig.steps(3)
    rig.servers.answers["grid_limit"] = grid()
    await rig.steps(3)

    assert {(component, tool) for component, tool, _ in rig.servers.calls} == {
        ("flex", "grid_limit"),
        ("maxlps", "plan_caps"),
        ("maxlps", "set_caps"),
        ("maxlps", "release_caps"),
        ("maxlps", "get_change"),
        ("exchange", "site_power"),
    }
