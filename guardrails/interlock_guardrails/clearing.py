"""Clearing: a person has looked at what a change left, and gives back what it still holds.

A change that is stuck keeps its lock and its reservation: nobody knows what the plant is like
there, and another change that began on it would rest on a guess.
"""

from sqlalchemy import Connection

from interlock_guardrails import changes, reservations
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.people import check_person, check_words
from interlock_guardrails.statements import moment
from interlock_guardrails.store import Store
from interlock_tools.change import Change, ChangeState
from interlock_tools.clock import Clock
from interlock_tools.errors import ConflictError, InvalidRequestError
from interlock_tools.identity import Principal

ROLE = "operator"
CLEARED = "cleared"  # in the evidence of a change
CAN_BE_CLEARED = (ChangeState.STUCK, ChangeState.FAILED)


class Clearing:
    """Where a person gives back what a stuck or failed change holds."""

    def __init__(self, store: Store, ledger: Ledger, clock: Clock) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock

    async def clear(self, by: Principal, change_id: str, *, why: str) -> Change:
        """Give back lock and reservation; `why` says what the person found at the plant.

        Raises:
            InvalidRequestError: not an operator at a console, or without a reason.
            ConflictError: it is neither stuck nor failed, or holds nothing (any more).
            NotFoundError: there is no such change.
        """
        check_person(by, "clear")
        check_words("why", why)
        if ROLE not in by.roles:
            raise InvalidRequestError(f"{by.id} has not the role {ROLE!r}")
        now = self._clock.now()

        def give_back(connection: Connection) -> Change:
            change = changes.get(connection, change_id)
            if change.state not in CAN_BE_CLEARED:
                raise ConflictError(f"change {change_id} is {change.state}: nothing to clear")
            if not reservations.holds(connection, change_id):
                raise ConflictError(f"change {change_id} holds nothing")
            reservations.give_back(connection, change_id)
            cleared = {"by": by.id, "why": why, "at": moment(now)}
            amended = changes.amend(
                connection, change, evidence={**change.evidence, CLEARED: cleared}
            )
            body = {"change_id": change_id, "state": change.state.value, "what": CLEARED}
            self._ledger.append(
                connection, RecordKind.CHANGE_STATE, {**body, "by": by.id, "why": why}
            )
            return amended

        return await self._store.write(give_back)
