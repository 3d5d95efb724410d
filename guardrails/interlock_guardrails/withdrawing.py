"""Taking back a change that has not begun: who may, and that it is no vote.

It needs no voting key, so a server can offer it to whoever asked for the change.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from interlock_guardrails import changes
from interlock_guardrails.delegations import lent_to
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.verify import VerifyKey
from interlock_guardrails.people import check_words, is_person
from interlock_guardrails.store import Store
from interlock_tools.change import Change, ChangeState
from interlock_tools.clock import Clock
from interlock_tools.errors import ConflictError, InvalidRequestError
from interlock_tools.identity import Principal

OPERATOR = "operator"  # whoever may withdraw what no rule asks people about
NOT_BEGUN = (ChangeState.AWAITING_APPROVAL, ChangeState.AUTHORISED)


async def withdraw(
    store: Store,
    ledger: Ledger,
    clock: Clock,
    keys: Sequence[VerifyKey],
    by: Principal,
    change_id: str,
    *,
    why: str,
) -> Change:
    """Take back a change that has not begun; it ends as rejected.

    Whoever asked for it or answers for it may, and any person of the role that decides on it;
    `keys` are those of the voting consoles, for a role that was lent.

    Raises:
        InvalidRequestError: somebody else, or without a reason.
        ConflictError: it has begun or ended; what runs is held by the stop, not by this.
        NotFoundError: there is no such change.
    """
    check_words("why", why)
    now = clock.now()

    def take_back(connection: Connection) -> Change:
        change = changes.get(connection, change_id)
        if change.state not in NOT_BEGUN:
            raise ConflictError(f"change {change_id} is {change.state}: it is not withdrawn")
        if not _may_withdraw(connection, change, by, now, keys):
            raise InvalidRequestError(f"{by.id} neither asked for it nor decides on it")
        withdrawn = changes.move(
            connection,
            change_id,
            ChangeState.REJECTED,
            at=now,
            why=f"withdrawn by {by.id}: {why}",
            came_from=change.state,
        )
        body = {"change_id": change_id, "state": "rejected", "what": "withdrawn"}
        body |= {"by": by.id, "why": why}
        ledger.append(connection, RecordKind.CHANGE_STATE, body)
        return withdrawn

    return await store.write(take_back)


def _may_withdraw(
    connection: Connection,
    change: Change,
    by: Principal,
    now: datetime,
    keys: Sequence[VerifyKey],
) -> bool:
    asked = change.requester
    if (by.id, by.kind) == (asked.id, asked.kind):
        return True
    if not is_person(by):
        return False
    quorum = None if change.decision is None else change.decision.quorum
    role = OPERATOR if quorum is None else quorum.role
    return (
        by.id in {asked.owner, asked.on_behalf_of}
        or role in by.roles
        or bool(lent_to(connection, by.id, role, now, keys))
    )
