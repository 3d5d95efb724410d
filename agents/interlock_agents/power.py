"""The power agent, rule planner: from a grid load target to a proposed, verified set of caps.

It observes over MCP, plans with the read-only allocator, proposes, and watches what becomes of it.
It never approves, never acts, and holds nothing that could reach the plant.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from interlock_agents.connection import Servers
from interlock_agents.spans import invoking_agent
from interlock_tools.clock import Clock
from interlock_tools.errors import ComponentError

NAME = "power"
OBSERVE_EVERY_S = 2.0
NOTICE_S = 180.0  # a target that starts within this is planned for now
BACK_OFF_S = 20.0  # after a change that did not succeed

log = logging.getLogger(__name__)


class Note(NamedTuple):
    """One thing that the agent saw, planned or did, for people who follow it."""

    at: datetime
    kind: str
    text: str
    change_id: str | None = None


@dataclass
class Wish:
    """The site limit that should hold, and where it came from. None lifts it.

    `correlation_id` names the grid's request, where that had a name.
    """

    limit_w: float | None
    starts_at: datetime | None
    correlation_id: str | None


@dataclass
class PowerAgent:
    """Follows the grid limit of one site. `notes` tells what it did and why."""

    servers: Servers
    clock: Clock
    tell: Callable[[Note], None] = lambda note: None
    held_limit_w: float | None = None
    _open_change: str | None = None
    _open_wish: Wish | None = None
    _wait_until: datetime | None = None
    _last_text: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Observe and act until cancelled; a server that fails is looked at again later."""
        while True:
            try:
                await self.step()
            except ComponentError as error:
                self._note("trouble", str(error))
            await self.clock.sleep(OBSERVE_EVERY_S)

    async def step(self) -> None:
        """Look once and take at most one action."""
        waits = self._wait_until is not None and self.clock.now() < self._wait_until
        if self._open_change is None and waits:
            return
        with invoking_agent(NAME):
            await self._round()

    async def _round(self) -> None:
        if self._open_change is not None:
            await self._follow(self._open_change)
            return
        wish = wish_of(await self.servers.call("flex", "grid_limit"), self.clock.now())
        if wish is None or wish.limit_w == self.held_limit_w:
            return
        if wish.limit_w is None:
            await self._release(wish)
        else:
            await self._cap(wish, wish.limit_w)

    async def _cap(self, wish: Wish, limit_w: float) -> None:
        when = "now" if wish.starts_at is None else f"from {wish.starts_at:%H:%M:%S}"
        self._note("observed", f"the grid asks for {limit_w / 1e3:.0f} kW at most, {when}")
        plan = await self.servers.call("maxlps", "plan_caps", site_limit_w=limit_w)
        if not plan["feasible"]:
            self._note("infeasible", plan["why"])
            self._back_off()
            return
        caps = plan["gpu_cap_w_by_node"]
        kept = plan["work_kept_pct"]
        self._note("planned", f"caps for {len(caps)} nodes keep {kept:.1f} % of the work")
        if not caps:
            self.held_limit_w = limit_w
            return
        reason = (
            f"grid load target {wish.correlation_id or 'unnamed'}: site at most "
            f"{limit_w / 1e3:.0f} kW {when}; "
            f"the plan keeps {kept:.1f} % of the work and every serving floor"
        )
        event = {} if wish.correlation_id is None else {"for_event_id": wish.correlation_id}
        await self._propose(wish, "set_caps", reason, gpu_cap_w_by_node=caps, **event)

    async def _release(self, wish: Wish) -> None:
        self._note("observed", "the grid limit has ended")
        reason = "the grid load target has ended; caps go back to the devices' defaults"
        await self._propose(wish, "release_caps", reason, node_ids=[])

    async def _propose(self, wish: Wish, tool: str, reason: str, **arguments: Any) -> None:
        change = await self.servers.call("maxlps", tool, reason=reason, **arguments)
        self._open_change, self._open_wish = change["change_id"], wish
        self._note("proposed", f"{tool}: {change['state']}", change["change_id"])

    async def _follow(self, change_id: str) -> None:
        change = await self.servers.call("maxlps", "get_change", change_id=change_id)
        self._note(change["state"], change["why"], change_id)
        if not change["ended"]:
            return
        wish, self._open_change, self._open_wish = self._open_wish, None, None
        if change["state"] != "succeeded" or wish is None:
            self._back_off()
            return
        self.held_limit_w = wish.limit_w
        await self._report(wish)

    async def _report(self, wish: Wish) -> None:
        """What the meter says, which is another source than the one that was written."""
        site = await self.servers.call("exchange", "site_power")
        power_w = site.get("power_w")
        if power_w is None:
            self._note("unknown", "the site meter gives no trustworthy reading")
        else:
            asked = "no limit" if wish.limit_w is None else f"{wish.limit_w / 1e3:.0f} kW asked"
            self._note("verified", f"the site meter shows {power_w / 1e3:.1f} kW, {asked}")

    def _back_off(self) -> None:
        self._wait_until = self.clock.now() + timedelta(seconds=BACK_OFF_S)

    def _note(self, kind: str, text: str, change_id: str | None = None) -> None:
        """Tell what is new; the same thing about the same change is told once."""
        subject = change_id or ""
        said = f"{kind}: {text}"
        if self._last_text.get(subject) == said:
            return
        self._last_text[subject] = said
        log.info("the power agent notes", extra={"kind": kind, "change_id": change_id})
        self.tell(Note(self.clock.now(), kind, text, change_id))


def wish_of(grid: dict[str, Any], now: datetime) -> Wish | None:
    """The limit to prepare for: the tighter of the one in force and one that starts soon.

    None where the grid's wish is unknown: then what holds stays.
    """
    if not grid["known"]:
        return None
    wishes: list[Wish] = []
    if grid.get("limit_w") is not None:
        wishes.append(Wish(grid["limit_w"], None, grid.get("correlation_id")))
    coming = grid.get("next")
    if coming is not None and coming.get("limit_w") is not None:
        starts_at = datetime.fromisoformat(coming["starts_at"])
        if (starts_at - now).total_seconds() <= NOTICE_S:
            wishes.append(Wish(coming["limit_w"], starts_at, coming.get("correlation_id")))
    if not wishes:
        return Wish(None, None, None)
    return min(wishes, key=lambda wish: wish.limit_w or 0.0)
