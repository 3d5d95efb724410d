"""Beginning: the last look at everything, and the intent, in one transaction.

What is decided here is decided while nobody else can write: no reservation, stop, vote or grant
comes in between the look and the act.
"""

from typing import NamedTuple

from sqlalchemy import Connection

from interlock_guardrails import changes, reservations
from interlock_guardrails.action import parse
from interlock_guardrails.assessment import Seen
from interlock_guardrails.guard import Guard
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.sole_worker import Holds
from interlock_guardrails.standing import End, is_expiry, parents_of, still_stands
from interlock_guardrails.stop import read_stop
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import FactoryError


class Begun(NamedTuple):
    """The change: executing, with its intent on the ledger, or as it was, to wait or to `end`."""

    change: Change
    end: End | None = None


async def look_again(guard: Guard, change: Change) -> Seen:
    """The facts and the reach as they are now.

    Raises:
        FactoryError: it can not be done any more.
    """
    operation = guard.operation(change.operation)
    return await guard.see(operation, parse(operation, change.arguments))


def begin(connection: Connection, guard: Guard, change: Change, seen: Seen, holds: Holds) -> Begun:
    """Ask the policy again with what was seen; if it stands, reserve, lock and write the intent.

    A change waits for another that it overlaps, for the lock on its target, for the stop to end,
    and for whoever `holds` the right to work here.
    """
    now = guard.clock.now()
    try:
        parents = parents_of(connection, change)
        family = (change.change_id, *(parent.change_id for parent in parents))
        assessment = guard.judge(
            connection,
            change.requester,
            guard.operation(change.operation),
            change.target,
            seen,
            now,
            besides=family,
            spends=not is_expiry(change),
        )
        if assessment.overlaps:
            return Begun(change)
        verdict = still_stands(guard, change, parents, assessment)
    except FactoryError as error:
        verdict = ChangeState.REFUSED, f"looked at again: {error}"
    if verdict is not None:
        return Begun(change, verdict)
    reach = assessment.reach or BlastRadius()
    makes_safer = is_expiry(change) and reach.power_rise_w == 0
    if read_stop(connection).stopped and not makes_safer:
        return Begun(change)
    if not change.open_at(now) or not holds(connection):
        return Begun(change)
    if not reservations.take(connection, change.change_id, change.target, reach):
        return Begun(change)
    body = {
        "change_id": change.change_id,
        "operation": change.operation,
        "action_digest": change.action_digest,
        "binding_digest": change.binding_digest,
        "decision": assessment.decision.model_dump(mode="json"),
    }
    guard.ledger.append(connection, RecordKind.INTENT, body)
    moved = changes.move(
        connection,
        change.change_id,
        ChangeState.EXECUTING,
        at=now,
        why="the intent is on the ledger",
        came_from=ChangeState.AUTHORISED,
        facts=tuple(assessment.facts),
        blast_radius=reach,
    )
    return Begun(moved)
