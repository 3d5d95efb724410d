"""Personas: people of an eval, who vote through the same approvals as real ones."""

from collections.abc import Callable
from datetime import timedelta

from interlock_guardrails.approvals import Approvals
from interlock_tools.change import Change
from interlock_tools.clock import Clock
from interlock_tools.errors import ConflictError
from interlock_tools.identity import Principal, PrincipalKind

LOOK_EVERY_S = 1.0
THINKS_S = 4.0

OPERATOR = Principal(
    id="person:shift-operator",
    kind=PrincipalKind.PERSON,
    authenticated_by="console:persona",
    roles=frozenset({"operator"}),
)


class OperatorPersona:
    """An operator who approves what `approves` says, after a moment, and leaves the rest alone."""

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
                await self._vote(change)

    async def _vote(self, change: Change) -> None:
        try:
            await self._approvals.vote(
                OPERATOR,
                change.change_id,
                approve=True,
                shown_digest=change.binding_digest or "",
            )
        except ConflictError:
            return  # somebody else was quicker, or it expired
