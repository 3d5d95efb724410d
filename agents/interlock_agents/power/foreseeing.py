"""What the grid has announced: when its ramp begins, and whether caps alone will be enough."""

from datetime import datetime
from typing import Any, Final, NamedTuple

from interlock_agents.connection import Servers
from interlock_agents.notes import Notebook
from interlock_agents.power.wishes import Wish, ramp_begins_at, wish_of
from interlock_tools.clock import Clock
from interlock_tools.errors import ComponentError

STEPS: Final = 50  # of the grid's schedule: a ramp is a few of them


class Misfit(NamedTuple):
    """An announced limit that caps alone cannot meet, and the plan that says so."""

    limit_w: float
    starts_at: datetime
    plan: dict[str, Any]


class Outlook:
    """Reads schedule and plans of limits that are announced, each once."""

    def __init__(self, servers: Servers, clock: Clock, notes: Notebook) -> None:
        self._servers, self._clock, self._notes = servers, clock, notes
        self._begins_at: dict[_Next, datetime | None] = {}
        self._foreseen: _Next | None = None

    async def wish(self, grid: dict[str, Any]) -> Wish | None:
        """The limit to prepare for, early enough that caps are there before its ramp begins."""
        coming = _next_of(grid)
        begins_at = None if coming is None else await self._ramp(coming)
        return wish_of(grid, self._clock.now(), begins_at)

    async def misfit(self, grid: dict[str, Any], wish: Wish | None) -> Misfit | None:
        """The next limit, where people have to do something for it; told once.

        What is as tight as that already, by `wish`, has its own plan.

        Raises:
            ComponentError: there is no plan to be had.
        """
        coming = _next_of(grid)
        if coming is None or coming == self._foreseen:
            return None
        if wish is not None and wish.limit_w is not None and wish.limit_w <= coming.limit_w:
            return None
        plan = await self._servers.call(
            "maxlps", "plan_caps", site_limit_w=coming.limit_w, moves="down"
        )
        self._foreseen = coming
        return None if plan["feasible"] else Misfit(*coming, plan)

    async def _ramp(self, coming: "_Next") -> datetime | None:
        if coming not in self._begins_at:
            try:
                found = await self._servers.call(
                    "flex", "grid_schedule", limit=STEPS, fields=["ends_at", "kind"]
                )
            except ComponentError as error:
                self._notes.note("trouble", f"the ramp is not known: {error}", about="ramp")
                return None
            self._begins_at = {coming: ramp_begins_at(found["steps"], coming.starts_at)}
        return self._begins_at[coming]


class _Next(NamedTuple):
    limit_w: float
    starts_at: datetime


def _next_of(grid: dict[str, Any]) -> _Next | None:
    """The next limit, where the grid is known and has announced one."""
    coming = grid.get("next")
    if not grid["known"] or coming is None or coming.get("limit_w") is None:
        return None
    return _Next(coming["limit_w"], datetime.fromisoformat(coming["starts_at"]))
