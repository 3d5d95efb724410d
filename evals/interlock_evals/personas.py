"""Personas: people of an eval, who vote through the same approvals as real ones."""

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from interlock_guardrails.approvals import Approvals
from interlock_servers.serving import Served
from interlock_tools.change import Change
from interlock_tools.clock import Clock
from interlock_tools.errors import ConflictError
from interlock_tools.identity import Principal, PrincipalKind
from interlock_tools.operation import Effect

LOOK_EVERY_S = 1.0
THINKS_S = 4.0

Persona = Callable[[Served], Coroutine[Any, Any, None]]  # who decides while a story runs

OPERATOR = Principal(
    id="person:shift-operator",
    kind=PrincipalKind.PERSON,
    authenticated_by="console:persona",
    roles=frozenset({"operator"}),
)
COLLEAGUE = OPERATOR.model_copy(update={"id": "person:second-operator"})


class OperatorPersona:
    """An operator who approves what `approves` says, after a moment, and leaves the rest alone.

    Where the grid's target names no feeds, or has no end, or work is interrupted, policy asks for
    one more: then a colleague looks too, and votes as the operator does.
    """

    def __init__(
        self, approvals: Approvals, clock: Clock, approves: Callable[[Change], bool]
    ) -> None:
        self._approvals = approvals
        self._clock = clock
        self._approves = approves

    async def run(self) -> None:
        """Look at the queue until cancelled."""
        while True:
            await self.look()
            await self._clock.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Look at the queue once, and vote on what has been thought over."""
        ripe = self._clock.now() - timedelta(seconds=THINKS_S)
        for change in await self._approvals.waiting():
            if change.created_at <= ripe and self._approves(change):
                await _approve(self._approvals, OPERATOR, change)
                await colleague_approves(self._approvals, change)


async def colleague_approves(approvals: Approvals, change: Change) -> None:
    """The yes of a second operator, where what a target leaves out or what stops takes one."""
    reach = change.blast_radius
    wide = reach is not None and (reach.all_feeds or reach.open_ended)
    if wide or change.effect is Effect.DISRUPTIVE:
        await _approve(approvals, COLLEAGUE, change)


async def _approve(approvals: Approvals, who: Principal, change: Change) -> None:
    try:
        await approvals.vote(
            who, change.change_id, approve=True, shown_digest=change.binding_digest or ""
        )
    except ConflictError:
        return  # somebody else was quicker, or it expired
