"""Runs a day: steps plant, twins, agent and people in one order, and settles before the next.

The agent is asked every two seconds, a quarter as often as it asks itself; the BMS says its values
every ten seconds while nothing is under way, and every second while a change is; the grid's targets
come signed.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

import anyio

from interlock_agents.power import Note, PowerAgent
from interlock_evals.day.record import DayRecord
from interlock_evals.day.rig import POWER_AGENT, START, Rig, running_rig, until
from interlock_evals.day.story import Story
from interlock_evals.personas import THINKS_S, OperatorPersona
from interlock_evals.scenarios.proving import Proof, prove
from interlock_plant.grid import GridEvent
from interlock_plant.jobs import Job
from interlock_plant.trace import RequestTrace
from interlock_servers.transports.broker import Kind
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import ComponentError
from interlock_tools.identity import Target

BMS_EVERY_S: Final = 10
AGENT_EVERY_S: Final = 2
PAGE: Final = 200
# One control delay: the agent looks every 2 s, a person thinks for 4 s and looks once a second, the
# worker begins at once, caps follow within 1 s and the meter shows it in the next second. Twice
# that, so that one repeated look is no violation.
CONTROL_DELAY_S: Final = 2 * (AGENT_EVERY_S + THINKS_S + 1.0 + 1.0 + 1.0)
PAUSED_BEFORE_S: Final = 300  # by people, before a limit that caps cannot meet begins
RULE_OF_PEOPLE: Final = (
    f"an operator approves whatever agent:power asks and policy lets through, {THINKS_S:g} s after"
    " it was asked, at any hour; a second one with him where policy wants two"
)
RULE_OF_PAUSES: Final = (
    f"somebody pauses what agent:power names for a limit of the grid, {PAUSED_BEFORE_S} s before it"
    " begins or at once, and lets it go on once the agent says that the limit has ended"
)
FOR_THE_GRID: Final = "for the grid "  # how the agent begins what it proposes to people for it


@dataclass
class Day:
    """What came of it."""

    story: Story
    traced: bool
    record: DayRecord
    notes: list[Note] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    sent: list[tuple[GridEvent, str]] = field(default_factory=list)
    troubles: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0
    proof: Proof = field(default_factory=Proof)
    moved_w: list[int] = field(default_factory=list)
    could_rise: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    people_pause: bool = False

    @property
    def declared(self) -> list[Note]:
        """Whose promise could not be kept, said by the agent when it saw why."""
        return [note for note in self.notes if note.kind == "declared"]

    @property
    def excursions(self) -> list[Note]:
        """What the agent saw of breakers, leaks and heat."""
        return [note for note in self.notes if note.kind == "excursion"]

    @property
    def by_state(self) -> Counter[str]:
        """Changes by the state in which the day left them."""
        return Counter(str(change.state) for change in self.changes)

    @property
    def by_rule(self) -> Counter[str]:
        """How often each rule decided on a proposal, with what it answered."""
        return Counter(
            f"{change.operation} {change.decision.answer.value}: {rule.rule_id}"
            for change in self.changes
            if change.decision is not None
            for rule in change.decision.rules
        )

    @property
    def by_people(self) -> Counter[str]:
        """What people said yes to, by operation."""
        return Counter(
            change.operation
            for change in self.changes
            if any(step.state is ChangeState.AUTHORISED for step in change.history)
        )


async def run_day(
    story: Story,
    folder: Path,
    *,
    trace: RequestTrace | None,
    seed: int = 0,
    broker: Kind | None = None,
    watch: Callable[[int], None] = lambda second: None,
    jobs: Sequence[Job] | None = None,
    people_pause: bool = False,
) -> Day:
    """Run it; store, keys and export go to `folder`, and `watch` hears of every second.

    `jobs` replace the house's mix, at full load; `people_pause`: see `RULE_OF_PAUSES`.

    Raises:
        UnavailableError: a part did not come up, or came to no rest.
    """
    began_s = time.monotonic()
    async with running_rig(story, folder, trace=trace, seed=seed, broker=broker, jobs=jobs) as rig:
        record = DayRecord(rig.plant, story.seconds, CONTROL_DELAY_S)
        day = Day(story, trace is not None, record, people_pause=people_pause)
        course = _Course(rig, day)
        await course.run(watch)
        known = {"at_most_w": most_w} if (most_w := course.at_most_w) else {}
        plan = await rig.servers.call("maxlps", "plan_caps", moves="up", **known)
        day.could_rise = sorted(plan["gpu_cap_w_by_node"])
        day.changes = await _all_changes(rig)
        day.proof = await prove(rig.site, folder)
    day.wall_s = time.monotonic() - began_s
    return day


class _Course:
    """The order of things in each second."""

    def __init__(self, rig: Rig, day: Day) -> None:
        self._rig, self._day = rig, day
        self._pause_at: dict[str, int] = {}
        self._paused: list[str] = []
        self._busy = False
        self._agent = PowerAgent(rig.servers, rig.clock, self._told)
        self._operator = OperatorPersona(
            rig.site.approvals, rig.clock, lambda change: change.requester.id == POWER_AGENT.id
        )
        self._here = Target(kind="site", id=rig.plant.site.name)

    @property
    def at_most_w(self) -> dict[str, int]:
        """What the agent knows to have been too much, by node."""
        return self._agent.at_most_w

    async def run(self, watch: Callable[[int], None]) -> None:
        rig, plant = self._rig, self._rig.plant
        for second in range(self._day.story.seconds):
            for announced_s, event in self._day.story.scenario.grid:
                if announced_s == second:
                    await self._announce(event)
            for announced_s, event in self._day.story.others:
                if announced_s == second:
                    await self._announce_other(event)
            for job_id in [job for job, at in self._pause_at.items() if at <= second]:
                plant.pause(job_id)
                self._paused.append(job_id)
                del self._pause_at[job_id]
            plant.step()
            rig.clock.advance(1.0)
            self._day.record.take()
            await rig.flex_agent.step()
            if self._busy or plant.second % BMS_EVERY_S == 0:
                await self._meters()
            if plant.second % AGENT_EVERY_S == 0:
                await self._agent_looks()
            if self._busy:
                await self._operator.look()
                self._busy = bool(await rig.settle())
            watch(plant.second)
        self._day.moved_w = self._agent.cap_moved_w

    async def _announce(self, event: GridEvent) -> None:
        """The grid's word, signed, on the bus; the day goes on once both ends have heard it."""
        rig = self._rig
        heard = rig.flex_agent.heard + 1
        name = await rig.grid.set_target(
            event.target_w,
            start=START + timedelta(seconds=event.begins_s),
            end=START + timedelta(seconds=event.ends_s),
        )
        self._day.sent.append((event, name))

        async def known() -> bool:
            grid = await rig.servers.call("flex", "grid_limit")
            coming = grid.get("next") or {}
            return name in {grid.get("correlation_id"), coming.get("correlation_id")}

        await until(known, f"the target {name}")
        with anyio.fail_after(10.0):
            await rig.flex_agent.wait_heard(heard)

    async def _announce_other(self, event: GridEvent) -> None:
        """What a second ISV asks; what the schedule then remarks is kept."""
        rig = self._rig
        name = await rig.other_grid.set_target(
            event.target_w,
            start=START + timedelta(seconds=event.begins_s),
            end=START + timedelta(seconds=event.ends_s),
        )

        async def known() -> bool:
            found = await rig.servers.call("flex", "list_load_targets")
            return name in {target.get("correlation_id") for target in found["targets"]}

        await until(known, f"the target {name} of the other ISV")
        schedule = await rig.servers.call("flex", "grid_schedule")
        self._day.remarks += [one for one in schedule["remarks"] if one not in self._day.remarks]

    async def _meters(self) -> None:
        now = self._rig.clock.now()
        await self._rig.bms.publish_once()
        if self._rig.plant.second % BMS_EVERY_S == 0:  # then it beats, after everything else
            await self._rig.until_heard("bus.bms_alive", self._here, now)

    async def _agent_looks(self) -> None:
        try:
            await self._agent.step()
        except ComponentError as error:  # as its own loop does: it looks again
            self._day.troubles[str(error)[:200]] += 1

    def _told(self, note: Note) -> None:
        self._day.notes.append(note)
        if note.kind == "proposed":
            self._busy = True
        if self._day.people_pause:
            self._people(note)

    def _people(self, note: Note) -> None:
        """Pause what the agent proposes to pause for the grid; let it go on afterwards."""
        plant = self._rig.plant
        if note.kind == "proposal" and note.text.startswith(FOR_THE_GRID):
            ahead = [event.begins_s for event, _ in self._day.sent if event.ends_s > plant.second]
            begins_s = min(ahead, default=0)
            words = set(note.text.replace(",", " ").split())
            for job in plant.jobs:
                if job.job_id in words and job.job_id not in self._paused:
                    self._pause_at.setdefault(job.job_id, begins_s - PAUSED_BEFORE_S)
        elif note.kind == "observed" and note.text == "the grid limit has ended":
            for job_id in self._paused:
                plant.resume(job_id)
            self._paused.clear()


async def _all_changes(rig: Rig) -> list[Change]:
    """Every change of the day, oldest first."""
    found: list[Change] = []
    while True:
        before = found[-1].change_id if found else None
        page = await rig.site.guard.latest(PAGE, before=before)
        found += page
        if len(page) < PAGE:
            return found[::-1]
