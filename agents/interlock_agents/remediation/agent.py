"""The remediation agent's loop: look, judge, take at most one step for each ill node, follow it.

What it knows it reads anew: which nodes are ill, which it holds, what was done to them. Changes of
before a restart it finds in the list of changes.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from interlock_agents.connection import PAGE, Servers
from interlock_agents.hearing import Ear
from interlock_agents.notes import Note, Notebook
from interlock_agents.patience import Patience
from interlock_agents.remediation.causes import Incident, Places, incidents
from interlock_agents.remediation.deciding import (
    MAINTENANCE,
    Asked,
    Step,
    arguments_of,
    asked,
    is_repeat,
    next_step,
)
from interlock_agents.remediation.diagnosing import Diagnosis, diagnose
from interlock_agents.remediation.installation import (
    acts_on_faults,
    is_at_work,
    left_alone,
    why_wait,
)
from interlock_agents.remediation.open_now import TOOLS, Open, own_open
from interlock_agents.remediation.room import FLEET_KEPT, Room
from interlock_agents.remediation.words import purpose, reason, told_of
from interlock_agents.spans import invoking_agent
from interlock_tools.clock import Clock
from interlock_tools.errors import ComponentError

NAME: Final = "remediation"
OBSERVE_EVERY_S: Final = 2.0  # at the latest; the faults that are listened to tell when they move
FAULTS: Final = "nvsentinel://faults"
MOST_AN_HOUR: Final = 28  # changes; the policy stops an agent at thirty, with nodes out or not
TO_RETURN: Final = 3  # changes that one node takes: drain, reset, return
HOUR: Final = timedelta(hours=1)
HEAT_SPREADS_S: Final = 60.0  # the nodes of one CDU get hot within half a minute of each other
DARK_S: Final = 300.0  # a node that starts anew is not ready for minutes


class _Sight(NamedTuple):
    """A node that needs a look: its row, all that is known of it, and what it calls for."""

    row: Mapping[str, Any]
    story: Mapping[str, Any]
    found: Diagnosis | None


@dataclass
class RemediationAgent:
    """Brings ill nodes back; `notes` tells what it did and why.

    Attributes:
        returned: nodes that are verified to be in service again, in that order.
    """

    servers: Servers
    clock: Clock
    tell: Callable[[Note], None] = lambda note: None
    returned: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._notes = Notebook(self.clock, self.tell)
        self._patience = Patience()
        self._ear = Ear(self.servers, self.clock, self._notes)
        self._room = Room(self.servers, self.clock)
        self._places = Places(self.servers)
        self._open: dict[str, Open] = {}
        self._sights: dict[str, _Sight] = {}
        self._since: dict[str, datetime] = {}
        self._gpus: dict[str, int] = {}
        self._made_at: deque[datetime] = deque()
        self._incidents: set[str] = set()
        self._has_taken_over = False

    async def run(self) -> None:
        """Observe and act until cancelled; a server that fails is looked at again later."""
        await self._ear.keep_looking(
            self.step, "nvsentinel", FAULTS, every_s=OBSERVE_EVERY_S, about="look"
        )

    async def step(self) -> None:
        """Look once, and take at most one step for each ill node."""
        with invoking_agent(NAME):
            await self._round()

    async def _round(self) -> None:
        if not self._has_taken_over:
            await self._take_over()
        for change in list(self._open.values()):
            await self._follow(change)
        status = await self.servers.call("nvsentinel", "sentinel_status")
        rows, page = await self._rows()
        if (why := why_wait(status, page)) is not None:
            self._notes.note("waits", why, about="site")
            return
        if not rows:
            self._sights.clear()
            self._since.clear()
            self._over(set())
            await self._room.know_the_fleet(FLEET_KEPT)
            return
        await self._count_out()
        mine = await self._look(rows, status)
        found = [one.found for one in mine.values() if one.found is not None]
        racks = {name: one.story.get("rack") for name, one in mine.items()}
        now_there = await incidents(found, racks, self._places, self._incidents)
        self._over({one.key for one in now_there})
        for incident in now_there:
            await self._handle(incident, mine)
        for name, one in mine.items():
            if one.found is None and name in self._room.out:
                await self._advance(name, one, name)
        await self._room.know_the_fleet(FLEET_KEPT)

    # ── what is there ─────────────────────────────────────────────────────────────────────────

    async def _take_over(self) -> None:
        """Follow what was proposed before a restart, instead of proposing it twice."""
        try:
            async for change in own_open(self.servers):
                if change.node_id not in self._open:
                    self._open[change.node_id] = change
                    text = f"it goes on with the {change.step} of {change.node_id}"
                    self._notes.note("taken over", text, change.change_id)
        except ComponentError as error:
            self._notes.note("trouble", f"nothing can be proposed here: {error}", about="offer")
        self._has_taken_over = True

    async def _rows(self) -> tuple[dict[str, Mapping[str, Any]], Mapping[str, Any]]:
        rows: dict[str, Mapping[str, Any]] = {}
        last: Mapping[str, Any] = {}
        async for page in self.servers.pages("nvsentinel", "list_node_health", limit=PAGE):
            rows |= {row["node_id"]: row for row in page["nodes"]}
            last = page
        return rows, last

    async def _count_out(self) -> None:
        """Which nodes are out by our doing: held by a maintenance of ours, or about to be."""
        out = {o.node_id for o in self._open.values() if o.step in {Step.DRAIN, Step.REBOOT}}
        async for page in self.servers.pages(
            "nvsentinel", "list_remediations", kind=MAINTENANCE, open_only=True, limit=PAGE
        ):
            for row in page["requests"]:
                if row.get("change_id") is not None:
                    out.update(row.get("node_ids") or [])
        self._room.are_out(out)

    async def _look(
        self, rows: Mapping[str, Mapping[str, Any]], status: Mapping[str, Any]
    ) -> dict[str, _Sight]:
        """The nodes that are ours to bring back; of the others is told why they are not."""
        now, mine, dark = self.clock.now(), dict[str, _Sight](), list[str]()
        acts = acts_on_faults(status, await self._rules())
        self._since = {name: self._since.get(name, now) for name in rows}
        self._sights = {name: one for name, one in self._sights.items() if name in rows}
        for name, row in rows.items():
            if (why := left_alone(row)) is not None:
                self._notes.note("left", f"{name}: {why}", about=name)
                continue
            seen_for_s = (now - self._since[name]).total_seconds()
            if not row.get("faults") and name not in self._room.out:
                if row.get("ready") is not True and seen_for_s >= DARK_S:
                    dark.append(name)
                continue
            one = await self._see(name, row)
            if acts and name not in self._room.out and is_at_work(row, one.story, seen_for_s):
                self._notes.note("left", f"{name}: NVSentinel is at work on it", about=name)
                continue
            mine[name] = one
        if dark:
            text = f"not ready for minutes, and no monitor says why: {', '.join(sorted(dark))}"
            self._notes.note("unclear", text, about="dark")
        return mine

    async def _rules(self) -> list[Mapping[str, Any]]:
        return [
            rule
            async for page in self.servers.pages("nvsentinel", "list_rules", limit=PAGE)
            for rule in page["rules"]
        ]

    async def _see(self, name: str, row: Mapping[str, Any]) -> _Sight:
        """All about a node; asked anew once its row moved."""
        known = self._sights.get(name)
        if known is not None and known.row == row:
            return known
        story: dict[str, Any] = {}
        pods: list[Any] = []
        async for page in self.servers.pages(
            "nvsentinel", "explain_node", node_id=name, limit=PAGE
        ):
            story, pods = page, [*pods, *page["pods"]]
        one = _Sight(row, {**story, "pods": pods}, diagnose(story))
        self._sights[name] = one
        if not pods:
            self._room.is_empty(name)
        if one.found is not None:
            self._gpus.setdefault(name, story["gpus"])
        return one

    # ── what to do about it ───────────────────────────────────────────────────────────────────

    async def _handle(self, incident: Incident, mine: Mapping[str, _Sight]) -> None:
        """One chain for one cause: its nodes in order, as many at once as there is room for."""
        if incident.is_shared and incident.key not in self._incidents:
            self._incidents.add(incident.key)
            flow = await self._places.flow_of(incident.place) if incident.is_hot else ""
            self._notes.note("incident", told_of(incident, flow), about=incident.key)
        if incident.is_hot and (incident.is_shared or self._is_new(incident)):
            return  # said once, for all its nodes
        for one in incident.members:
            if not incident.is_shared:
                text = f"{one.node_id}: {one.evidence}"
                self._notes.note("observed", text, about=f"seen {one.node_id}")
            cause = incident.key if incident.is_shared else one.node_id
            await self._advance(one.node_id, mine[one.node_id], cause)

    def _over(self, there: set[str]) -> None:
        """Tell which of the incidents are not there any more."""
        for key in sorted(self._incidents - there):
            self._notes.note("over", f"{key}: no node of it is ill any more", about=key)
            self._incidents.discard(key)

    def _is_new(self, incident: Incident) -> bool:
        """Whether heat that shows at one node may still turn out to be its neighbours' too."""
        since = self._since[incident.members[0].node_id]
        return (self.clock.now() - since).total_seconds() < HEAT_SPREADS_S

    async def _advance(self, name: str, sight: _Sight, cause: str) -> None:
        now = self.clock.now()
        if name in self._open or not self._patience.ready(purpose(name), now):
            return
        requests = await self._asked(name, now)
        step, why = next_step(sight.found, sight.story, requests)
        if sight.found is not None and (step is Step.HOLD or is_repeat(requests)):
            text = f"{name}: {sight.found.evidence}; {why}. Nothing more is tried: open a ticket"
            self._notes.note("ticket", text, about=f"ticket {name}")
        if step in {Step.NOTHING, Step.HOLD, Step.AWAIT_EMPTY}:
            self._notes.note(str(step), f"{name}: {why}", about=name)
            return
        spare = None
        if step in {Step.DRAIN, Step.REBOOT} and sight.story["cordoned_by"] == "nobody":
            no, spare = await self._room_for(sight.story, cause)
            if no is not None:
                self._notes.note("waits", f"{name}: {no}", about=name)
                return
        arguments = arguments_of(step, name, sight.found, requests)
        told = reason(name, step, why, sight.found, spare, cause)
        if await self._propose(Open("", name, step, arguments), told) and step in {
            Step.DRAIN,
            Step.REBOOT,
        }:
            self._room.take(name, cause, with_work=bool(sight.story["pods"]), spare=spare)

    async def _asked(self, name: str, now: datetime) -> Asked:
        rows = [
            row
            async for page in self.servers.pages(
                "nvsentinel", "list_remediations", node_id=name, limit=PAGE
            )
            for row in page["requests"]
        ]
        return asked(rows, now)

    async def _room_for(
        self, story: Mapping[str, Any], cause: str
    ) -> tuple[str | None, str | None]:
        """Why the node may not go out now, and the node that is free for its work."""
        while self._made_at and self.clock.now() - self._made_at[0] > HOUR:
            self._made_at.popleft()
        if len(self._made_at) + TO_RETURN * (len(self._room.out) + 1) > MOST_AN_HOUR:
            made = f"{len(self._made_at)} changes within an hour"
            return f"{made}: what is left of {MOST_AN_HOUR} is for the nodes that are out", None
        return await self._room.for_one_more(story, cause)

    # ── proposing and following ───────────────────────────────────────────────────────────────

    async def _propose(self, change: Open, told: str) -> bool:
        """Whether it was proposed: not what was refused or rejected before and would be again."""
        now, about = self.clock.now(), purpose(change.node_id)
        component, tool = TOOLS[change.step]
        key = {"step": change.step, **change.asked}
        if self._patience.was_rejected(about, key):
            self._patience.wait(about, now)
            text = f"{change.node_id}: people said no to its {change.step}; they decide"
            self._notes.note("waits", text, about=change.node_id)
            return False
        try:
            if self._patience.was_refused(about, key):
                seen = await self.servers.call(
                    component, tool, reason=told, dry_run=True, **change.asked
                )
                if seen["state"] == "refused":
                    self._patience.wait(about, now)
                    text = f"{change.node_id}: still not possible: {seen['why']}"
                    self._notes.note("waits", text, about=change.node_id)
                    return False
            made = await self.servers.call(component, tool, reason=told, **change.asked)
        except ComponentError as error:
            self._patience.wait(about, now)
            text = f"{change.node_id}: no {change.step} can be proposed, people have to: {error}"
            self._notes.note("not possible", text, about=change.node_id)
            return False
        self._made_at.append(now)
        change.change_id = made["change_id"]
        self._open[change.node_id] = change
        text = f"{change.node_id}: {tool}: {made['state']}"
        self._notes.note("proposed", text, change.change_id, about=change.node_id)
        return True

    async def _follow(self, change: Open) -> None:
        seen = await self.servers.call(change.component, "get_change", change_id=change.change_id)
        text = f"{change.node_id}, {change.step}: {seen['why']}"
        self._notes.note(seen["state"], text, change.change_id)
        if not seen["ended"]:
            return
        del self._open[change.node_id]
        self._sights.pop(change.node_id, None)
        about = purpose(change.node_id)
        if seen["state"] != "succeeded":
            self._patience.ended_badly(about, seen["state"], {"step": change.step, **change.asked})
            self._patience.wait(about, self.clock.now())
            return
        self._patience.forget(about)
        if change.step is Step.RETURN:
            await self._report(change.node_id)

    async def _report(self, name: str) -> None:
        """Whether it is in service again, by the node itself and not by the change's own word."""
        story = await self.servers.call("nvsentinel", "explain_node", node_id=name, limit=1)
        was = self._gpus.pop(name, None)
        missing = [
            text
            for text, is_so in {
                "it is not ready": story.get("ready") is not True,
                f"it is cordoned by {story['cordoned_by']}": story["cordoned_by"] != "nobody",
                "a fault shows": bool(story["faults"]),
                f"it has {story['gpus']} of {was} GPUs": was is not None and story["gpus"] < was,
            }.items()
            if is_so
        ]
        if missing:
            self._notes.note("not returned", f"{name}: {', '.join(missing)}", about=f"seen {name}")
            return
        self.returned.append(name)
        text = f"{name} is in service: ready, schedulable, no fault, {story['gpus']} GPUs"
        self._notes.note("returned", text, about=f"seen {name}")
