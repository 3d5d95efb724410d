"""Whether an approval still stands for the plant as it is, for a change and for what it covers."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from sqlalchemy import Connection

from interlock_guardrails import changes
from interlock_guardrails.action import parse
from interlock_guardrails.approvals import binding_digest, quorum_voted
from interlock_guardrails.assessment import Assessment
from interlock_guardrails.guard import Guard
from interlock_guardrails.ledger.verify import VerifyKey
from interlock_guardrails.plans import PlanArguments, child_of
from interlock_tools.change import Change, ChangeState
from interlock_tools.decision import Answer, Quorum
from interlock_tools.fact import FactSet
from interlock_tools.operation import Expiry

EXPIRY_TRIED_FOR = timedelta(days=1)
EXPIRY_NUMBER = -1  # among the children of a change; the steps of a plan count from 0

MADE_OF = (
    "change_id",
    "operation",
    "arguments",
    "target",
    "requester",
    "reason",
    "action_digest",
    "binding_digest",
)

End = tuple[ChangeState, str]
S = ChangeState


def is_expiry(change: Change) -> bool:
    """Whether it brings the effect of an earlier change to its safe value."""
    return change.parent_id is not None and change.not_before is not None


def expiry_of(guard: Guard, change: Change, expiry: Expiry, now: datetime) -> Change:
    """The change that is due when the time of this one is over; its approval covers it."""
    due = now + timedelta(seconds=expiry.after_s)
    return child_of(
        guard,
        change,
        EXPIRY_NUMBER,
        expiry.operation,
        expiry.arguments,
        None,
        not_before=due,
        created_at=now,
        expires_at=due + EXPIRY_TRIED_FOR,
    )


def parents_of(connection: Connection, change: Change) -> list[Change]:
    """What covers this change, nearest first; people voted on the last: a plan, for its steps."""
    found: list[Change] = []
    while (above := (found or [change])[-1].parent_id) is not None:
        found.append(changes.get(connection, above))
    return found


def still_stands(
    guard: Guard, change: Change, parents: Sequence[Change], now: Assessment
) -> End | None:
    """None where the approval holds for the plant as it is now, else the end and its reason."""
    keys = guard.vote_keys
    decision = now.decision
    if decision.answer is Answer.REFUSE:
        return S.REFUSED, f"looked at again: {now.why()}"
    if parents:
        for below, above in pairwise((change, *parents)):
            if not _leads_to(guard, above, below):
                return S.REFUSED, f"{above.change_id} does not lead to {below.change_id}"
        ended = _parents_fail(change, parents, now, keys)
        if ended is not None or is_expiry(change):
            return ended
    if binding_digest(change.action_digest, decision, now.facts) != change.binding_digest:
        return S.SUPERSEDED, "the plant or the policy moved since it was decided; propose it again"
    if parents or decision.answer is Answer.ALLOW:
        return None
    if not quorum_voted(change, keys):
        return S.REFUSED, "the votes do not reach the quorum that the policy asks for"
    return None


def _leads_to(guard: Guard, parent: Change, child: Change) -> bool:
    """Whether the parent's own arguments make this child: an id in a row proves nothing."""
    operation = guard.operation(parent.operation)
    arguments = parse(operation, parent.arguments)
    made: list[Change] = []
    if isinstance(arguments, PlanArguments):
        made += [
            child_of(guard, parent, number, step.operation, step.arguments, step.binding_digest)
            for number, step in enumerate(arguments.steps)
        ]
    expiry = operation.expiry(arguments, FactSet(parent.facts))
    if expiry is not None:
        made.append(expiry_of(guard, parent, expiry, parent.created_at))
    return any(all(getattr(m, f) == getattr(child, f) for f in MADE_OF) for m in made)


def _parents_fail(
    change: Change, parents: Sequence[Change], now: Assessment, keys: Sequence[VerifyKey]
) -> End | None:
    """Why the approval that people gave does not cover this change, if it does not."""
    parent, voted_on = parents[0], parents[-1]
    wanted = S.SUCCEEDED if is_expiry(change) else S.EXECUTING
    if parent.state is not wanted:
        return S.REFUSED, f"{parent.change_id}, which covers it, is {parent.state}"
    if now.decision.answer is Answer.ALLOW:
        return None
    given = None if voted_on.decision is None else voted_on.decision.quorum
    if not _covers(given, now.decision.quorum) or not quorum_voted(voted_on, keys):
        return S.REFUSED, f"the votes on {voted_on.change_id} do not cover this"
    return None


def _covers(given: Quorum | None, asked: Quorum | None) -> bool:
    if given is None or asked is None:
        return False
    return (
        given.role == asked.role
        and given.people >= asked.people
        and given.typed_target >= asked.typed_target
    )
