"""The power agent's loop: look, take at most one action, follow it to its end.

What it knows of the plant it reads anew; what it proposed or set before a restart it finds in the
list of changes and in the limits. Only which caps were once too high it remembers by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from interlock_agents.connection import Servers
from interlock_agents.hearing import Ear
from interlock_agents.notes import Note, Notebook
from interlock_agents.patience import Patience
from interlock_agents.power.declaring import promises_at
from interlock_agents.power.foreseeing import Outlook
from interlock_agents.power.remembering import Ceilings
from interlock_agents.power.taking_over import own_open
from interlock_agents.power.watching import Excursion, Watch, unanswered
from interlock_agents.power.wishes import Wish
from interlock_agents.power.words import (
    RESTORE,
    cap_reason,
    excursion_reason,
    for_people,
    kilowatts,
    of_grid,
    raise_reason,
)
from interlock_agents.spans import invoking_agent
from interlock_tools.clock import Clock

NAME = "power"
OBSERVE_EVERY_S = 0.5  # at the latest; a limit that is listened to tells when it moves
GRID = "flex://limit"
REHEARSED_NO, AWAITING = "refused", "awaiting_approval"


@dataclass
class _Open:
    """A change that was proposed and has not ended."""

    change_id: str
    purpose: str
    asked: dict[str, Any]
    wish: Wish | None = None
    excursion: Excursion | None = None
    is_partial: bool = False
    state: str = ""

    @property
    def raises(self) -> bool:
        """Whether it takes power up again."""
        return self.purpose == RESTORE


@dataclass
class PowerAgent:
    """Keeps one site below the grid's limit and its breakers; `notes` tells what it did and why.

    Attributes:
        held_limit_w: the grid's limit for which caps are set; None: none.
        cap_moved_w: sum of |change of a GPU's limit| of each change that succeeded, in watts.
    """

    servers: Servers
    clock: Clock
    tell: Callable[[Note], None] = lambda note: None
    held_limit_w: float | None = None
    cap_moved_w: list[int] = field(default_factory=list)
    _open: _Open | None = None
    _is_partial: bool = False
    _restores: bool = True  # caps of before a restart are found and taken back

    def __post_init__(self) -> None:
        self._notes = Notebook(self.clock, self.tell)
        self._patience = Patience()
        self._watch = Watch(self.servers, self.clock, self._notes)
        self._ear = Ear(self.servers, self.clock, self._notes)
        self._ceilings = Ceilings()
        self._has_taken_over = False
        self._asked_people: set[str] = set()
        self._outlook = Outlook(self.servers, self.clock, self._notes)

    @property
    def at_most_w(self) -> dict[str, int]:
        """What it does not raise nodes above, in watts per GPU: that was once too much."""
        return self._ceilings.at_most_w

    async def run(self) -> None:
        """Observe and act until cancelled; a server that fails is looked at again later.

        It looks when the grid's limit tells that it moved, and every half second whatever is told.
        """
        await self._ear.keep_looking(self.step, "flex", GRID, every_s=OBSERVE_EVERY_S)

    async def step(self) -> None:
        """Look once and take at most one action."""
        with invoking_agent(NAME):
            await self._round()

    async def _round(self) -> None:
        if not self._has_taken_over:
            await self._take_over()
        if self._open is not None:
            await self._follow(self._open)
        grid = await self.servers.call("flex", "grid_limit")
        wish = await self._outlook.wish(grid)
        if self._open is not None and not self._is_overtaken(self._open, wish):
            return
        self._take_note_of(wish)
        if await self._lower_for_grid(wish):
            return
        coming = await self._outlook.misfit(grid, wish)
        if coming is not None:  # people need longer than caps do
            whom = f"for the grid from {coming.starts_at:%H:%M:%S}: "
            await self._tell_misfit(coming.plan, coming.limit_w, whom)
        if any(one.kind != "breaker" for one in await self._watch.look()):
            self._restores = True  # a breaker's caps are within its budget: they stay, and are calm
        if self._ceilings.forget(self._watch.budgets_w, self.clock.now()):
            self._restores = True
        for one in unanswered(self._watch.open.values()):
            if await self._lower_for(one):
                break
        await self._declare()
        if self._open is None:
            await self._restore(wish)

    async def _take_over(self) -> None:
        """Follow what was proposed before a restart, instead of proposing it twice."""
        own = await own_open(self.servers)
        self._has_taken_over = True
        if own is None:
            return
        what, _, rest = own.purpose.partition(" ")
        wish = Wish(float(rest), None, None) if what == "grid" else None
        # Whether its plan was all that is wanted nobody knows any more: look again once it is done.
        self._open = _Open(own.seen["change_id"], own.purpose, {}, wish=wish, is_partial=True)
        text = f"it goes on with what it proposed before its restart, for {own.purpose}"
        self._notes.note("taken over", text, self._open.change_id)

    # ── what the grid wants ───────────────────────────────────────────────────────────────────

    def _is_overtaken(self, change: _Open, wish: Wish | None) -> bool:
        """Whether something tighter is wanted than what waits for people.

        It is followed no more. If people say yes to it all the same, the guard decides on the facts
        of that moment: a rise above the new limit is refused.
        """
        if wish is None or wish.limit_w is None or wish.limit_w == self.held_limit_w:
            return False
        asked_w = None if change.wish is None else change.wish.limit_w
        if not change.raises and asked_w is not None and asked_w <= wish.limit_w:
            return False
        if change.state != AWAITING:
            return False  # it is under way, holds its reservation, and ends soon
        text = (
            f"{change.change_id} is left: the grid now asks for {kilowatts(wish.limit_w)} at most"
        )
        self._notes.note("left", text, change.change_id)
        self._open = None
        return True

    def _take_note_of(self, wish: Wish | None) -> None:
        """Where the limit ended or was loosened, caps may rise again."""
        if wish is None or self.held_limit_w is None:
            return
        if wish.limit_w is None:
            self._notes.note("observed", "the grid limit has ended")
        elif wish.limit_w > self.held_limit_w:
            self._notes.note("observed", f"the grid limit is {kilowatts(wish.limit_w)} now")
        else:
            return
        self._patience.forget(of_grid(self.held_limit_w))
        self._asked_people.discard(of_grid(self.held_limit_w))
        self._patience.forget(RESTORE)
        self.held_limit_w, self._is_partial, self._restores = wish.limit_w, False, True

    async def _lower_for_grid(self, wish: Wish | None) -> bool:
        """Whether something was proposed for the limit that is wanted."""
        if wish is None or wish.limit_w is None:
            return False
        limit_w = wish.limit_w
        if limit_w == self.held_limit_w and not self._is_partial:
            return False
        purpose, now = of_grid(limit_w), self.clock.now()
        if not self._patience.ready(purpose, now):
            return False
        self._notes.note(
            "observed", f"the grid asks for {kilowatts(limit_w)} at most, {wish.when}", about="grid"
        )
        plan = await self.servers.call("maxlps", "plan_caps", site_limit_w=limit_w, moves="down")
        await self._tell_plan(plan, limit_w, f"for the grid {wish.when}: ")
        caps = plan["gpu_cap_w_by_node"]
        if not caps:
            self.held_limit_w, self._is_partial = limit_w, not plan["feasible"]
            if self._is_partial:
                self._patience.wait(purpose, now)
            return False
        asked: dict[str, Any] = {"gpu_cap_w_by_node": caps}
        if wish.correlation_id is not None:
            asked["for_event_id"] = wish.correlation_id
        change = _Open("", purpose, asked, wish=wish, is_partial=not plan["feasible"])
        return await self._propose("set_caps", change, cap_reason(wish, plan))

    # ── what the site wants ───────────────────────────────────────────────────────────────────

    async def _lower_for(self, one: Excursion) -> bool:
        """Whether something was proposed for an excursion: lower caps under its domain."""
        now = self.clock.now()
        if not self._patience.ready(one.purpose, now):
            return False
        plan = await self.servers.call(
            "maxlps", "plan_caps", domain_limits_w={one.domain: one.limit_w}, moves="down"
        )
        caps = plan["gpu_cap_w_by_node"]
        people = for_people(plan)
        if people and one.kind != "heat":
            self._notes.note(
                "proposal", f"for {one.domain}: {people}", about=f"people {one.purpose}"
            )
        if not caps:
            one.answered_at = now
            text = f"{one.why}; nothing under it is left to lower"
            self._notes.note("watched", text, about=one.purpose)
            return False
        change = _Open("", one.purpose, {"gpu_cap_w_by_node": caps}, excursion=one)
        return await self._propose("set_caps", change, excursion_reason(one, plan))

    async def _declare(self) -> None:
        """Say whose promise a leak breaks, before it is broken: no cap keeps it."""
        for one in self._watch.open.values():
            if one.kind == "leak" and not one.is_declared:
                for group, text in (await promises_at(self.servers, one.domain)).items():
                    self._notes.note("declared", text, about=f"declared {group} {one.purpose}")
                one.is_declared = True

    async def _restore(self, wish: Wish | None) -> None:
        """Propose the next step up, as far as every limit that holds now allows."""
        now = self.clock.now()
        if wish is None or not self._restores or not self._patience.ready(RESTORE, now):
            return
        limits: dict[str, Any] = {}
        if wish.limit_w is not None:
            limits["site_limit_w"] = wish.limit_w
        if self._watch.open:
            limits["domain_limits_w"] = self._watch.limits_w
        if self.at_most_w:
            limits["at_most_w"] = self.at_most_w
        plan = await self.servers.call("maxlps", "plan_caps", moves="up", **limits)
        caps = plan["gpu_cap_w_by_node"]
        if not caps:
            self._restores = False
            if self.cap_moved_w:
                held = "" if plan["feasible"] else f"; {plan['why']}"
                self._notes.note("restored", f"no cap can rise further now{held}", about=RESTORE)
            return
        if plan["releases"]:
            tool, asked = "release_caps", {"node_ids": sorted(caps)}
        else:
            tool, asked = "set_caps", {"gpu_cap_w_by_node": caps}
        await self._propose(tool, _Open("", RESTORE, asked, wish=wish), raise_reason(plan))

    # ── proposing and following ───────────────────────────────────────────────────────────────

    async def _propose(self, tool: str, change: _Open, reason: str) -> bool:
        """Propose it, unless it is what was refused or rejected before and would be again."""
        now, purpose = self.clock.now(), change.purpose
        if self._patience.was_rejected(purpose, change.asked):
            self._patience.wait(purpose, now)
            self._notes.note(
                "waits", "people said no to this; nothing else is possible", about=purpose
            )
            return False
        if self._patience.was_refused(purpose, change.asked):
            seen = await self.servers.call(
                "maxlps", tool, reason=reason, dry_run=True, **change.asked
            )
            if seen["state"] == REHEARSED_NO:
                self._patience.wait(purpose, now)
                self._notes.note("waits", f"still not possible: {seen['why']}", about=purpose)
                return False
        made = await self.servers.call("maxlps", tool, reason=reason, **change.asked)
        change.change_id = made["change_id"]
        self._open = change
        self._notes.note("proposed", f"{tool}: {made['state']}", change.change_id)
        return True

    async def _follow(self, change: _Open) -> None:
        seen = await self.servers.call("maxlps", "get_change", change_id=change.change_id)
        change.state = seen["state"]
        self._notes.note(seen["state"], seen["why"], change.change_id)
        if not seen["ended"]:
            return
        self._open = None
        if seen["state"] != "succeeded":
            self._patience.ended_badly(change.purpose, seen["state"], change.asked)
            self._patience.wait(change.purpose, self.clock.now())
            return
        self._patience.forget(change.purpose)
        self._count(seen)
        if change.excursion is not None:
            self._learn(change.excursion, change.asked["gpu_cap_w_by_node"])
        elif not change.raises and change.wish is not None:
            self.held_limit_w, self._is_partial = change.wish.limit_w, change.is_partial
            if self._is_partial:  # look again later: work may have moved
                self._patience.wait(change.purpose, self.clock.now())
        await self._report(change.wish)

    def _learn(self, one: Excursion, caps: dict[str, int]) -> None:
        """It is answered; of a breaker's it is known now what was too much."""
        one.answered_at = now = self.clock.now()
        if one.kind == "breaker":
            self._ceilings.learn(one.domain, one.limit_w, caps, now)

    def _count(self, seen: dict[str, Any]) -> None:
        """Add up how far caps moved: a plan that goes to and fro shows here."""
        moved_w = int((seen.get("reach") or {}).get("watts_moved", 0))
        self.cap_moved_w.append(moved_w)
        self._notes.note(
            "moved",
            f"sum of |change of a GPU's limit|: {moved_w} W in this step, "
            f"{sum(self.cap_moved_w)} W in {len(self.cap_moved_w)} steps",
            seen["change_id"],
        )

    async def _report(self, wish: Wish | None) -> None:
        """What the meter says, which is another source than the one that was written."""
        site = await self.servers.call("exchange", "site_power")
        power_w = site.get("power_w")
        if power_w is None:
            self._notes.note("unknown", "the site meter gives no trustworthy reading", about="site")
            return
        free = wish is None or wish.limit_w is None
        asked = "no limit" if free or wish is None else f"{kilowatts(wish.limit_w)} asked"
        self._notes.note(
            "verified", f"the site meter shows {power_w / 1e3:.1f} kW, {asked}", about="site"
        )

    async def _tell_plan(self, plan: dict[str, Any], limit_w: float, whom: str) -> None:
        kept = plan["work_kept_pct"]
        if not plan["feasible"]:
            await self._tell_misfit(plan, limit_w, whom)
            return
        caps = len(plan["gpu_cap_w_by_node"])
        self._notes.note("planned", f"caps for {caps} nodes keep {kept:.1f} % of the work")

    async def _tell_misfit(self, plan: dict[str, Any], limit_w: float, whom: str) -> None:
        """Say what caps cannot do, and once what people could.

        A plan does not see at once that work was paused, and may then name other work. Whether what
        people did is enough the meter says, once caps are set: only above the limit more is asked.
        """
        purpose = of_grid(limit_w)
        self._notes.note("infeasible", plan["why"], about=f"plan {purpose}")
        people = for_people(plan)
        if people and (purpose not in self._asked_people or await self._is_above(limit_w)):
            self._asked_people.add(purpose)
            self._notes.note("proposal", f"{whom}{people}", about=f"people {purpose}")

    async def _is_above(self, limit_w: float) -> bool:
        """Whether caps for this limit are set, and the site draws more all the same."""
        if self.held_limit_w != limit_w:
            return False
        power_w = (await self.servers.call("exchange", "site_power")).get("power_w")
        return power_w is not None and power_w > limit_w
