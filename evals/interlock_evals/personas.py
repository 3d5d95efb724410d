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

LOOK_EVERY_S = 1.0
THINKS_S = 4.0

Persona = Callable[[Served], Coroutine[Any, Any, None]]  # who decides while a story runs

OPERATOR = Principal(
    id="person:shift-operator",
    kind=PrincipalKind.PERSON,
    authenticated_by="console:persona",
    roles=frozenset({"operator"}),
)
COLLEAGUES = tuple(
    OPERATOR.model_copy(update={"id": f"person:{which}-operator"}) for which in ("second", "third")
)


class OperatorPersona:
    """An operator who approves what `approves` says, after a moment, and leaves the rest alone.

    Where policy asks for more than one, colleagues look too, and vote as the operator does.
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
                await approve(self._approvals, change)


async def approve(approvals: Approvals, change: Change) -> None:
    """The yes of an operator, and of as many colleagues as policy asks for."""
    await _approve(approvals, OPERATOR, change)
    await colleagues_approve(approvals, change)


async def colleagues_approve(approvals: Approvals, change: Change) -> None:
    """The yes of the others, where one has said it."""
    quorum = None if change.decision is None else change.decision.quorum
    for who in COLLEAGUES[: 0 if quorum is None else quorum.people - 1]:
        await _approve(approvals, who, change)


async def _approve(approvals: Approvals, who: Principal, change: Change) -> None:
    try:
        await approvals.vote(
            who, change.change_id, approve=True, shown_digest=change.binding_digest or ""
        )
    except ConflictError:
        return  # somebody else was quicker, or it expired
