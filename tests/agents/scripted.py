"""Servers that answer from a table, and an agent that looks at them on a clock of its own."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from interlock_agents.connection import Servers
from interlock_agents.power import Note, PowerAgent
from interlock_tools.clock import ManualClock
from interlock_tools.errors import ComponentError

LOOKS_EVERY_S = 2.0
NOW = datetime(2026, 9, 1, 6, 0, tzinfo=UTC)
PLAN: dict[str, Any] = {
    "feasible": True,
    "why": "at most 1e-9 from the optimum",
    "gpu_cap_w_by_node": {"node-001": 450},
    "work_kept_pct": 91.5,
    "missing_w": {},
    "pause": [],
    "move": {},
    "dark": [],
    "steps_left": 0,
    "releases": False,
}
NOTHING = {**PLAN, "gpu_cap_w_by_node": {}}
PARTIAL = {
    **PLAN,
    "feasible": False,
    "why": "the floors do not fit: 9000 W are missing at lab",
    "missing_w": {"lab": 9000},
    "pause": ["label-images"],
    "cost_gpu_h": 31.5,
}
SITE = {"site_id": "lab", "power_w": 391_000.0, "below": []}
TREE: dict[str, Any] = {
    "domains": [{"id": "pdu-1", "level": "pdu", "budget_w": 200_000.0}, {"id": "rack-1"}]
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
    told = {"change_id": "chg-0123456789ab", "state": state, "ended": ended, "why": why}
    return {**told, "reach": {"watts_moved": 2000}}


def planned(down: Answer = PLAN, up: Answer = NOTHING) -> Answer:
    """What plan_caps answers: going down, and going up."""

    def answer(arguments: dict[str, Any]) -> dict[str, Any]:
        given = up if arguments.get("moves") == "up" else down
        return given(arguments) if callable(given) else given

    return answer


def metered(power_w: float | None, meter: str = "pdu-1") -> dict[str, Any]:
    """What the site's meters say."""
    return {**SITE, "below": [{"id": meter, "kind": "meter", "power_w": power_w}]}


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
            "plan_caps": planned(),
            "set_caps": change("awaiting_approval"),
            "release_caps": change("awaiting_approval"),
            "get_change": change("awaiting_approval"),
            "site_power": SITE,
            "power_tree": TREE,
            "list_leaks": {"racks": []},
            "list_points": {"points": []},
            "list_changes": {"changes": []},
            "list_groups": {"groups": []},
            "list_nodes": {"nodes": []},
            "grid_schedule": {"steps": []},
        }
        self.servers = ScriptedServers(**(usual | answers))
        self.notes: list[Note] = []
        self.agent = PowerAgent(self.servers, self.clock, self.notes.append)

    def kinds(self) -> list[str]:
        """The kinds of what it told."""
        return [note.kind for note in self.notes]

    async def steps(self, count: int) -> None:
        """Let it look so often, every two seconds."""
        for _ in range(count):
            await self.agent.step()
            self.clock.advance(LOOKS_EVERY_S)

    async def seconds(self, seconds: float) -> None:
        """Let it look for so long."""
        await self.steps(int(seconds / LOOKS_EVERY_S))

    def plans(self, moves: str) -> list[dict[str, Any]]:
        """The arguments of the plans of this direction."""
        return [asked for asked in self.servers.asked("plan_caps") if asked["moves"] == moves]


def going_up(*steps: dict[str, int], releases: bool = False) -> Answer:
    """Plans up, one after the other, then nothing more."""
    left = list(steps)

    def answer(arguments: dict[str, Any]) -> dict[str, Any]:
        if not left:
            return NOTHING
        caps = left.pop(0)
        more = {"gpu_cap_w_by_node": caps, "steps_left": len(left), "releases": releases}
        return {**PLAN, **more}

    return answer
