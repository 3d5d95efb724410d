"""What guard and worker tell telemetry: a span for each step, and what came of how many changes.

Nothing here decides. The ledger's records take the ids of the spans that are opened here.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Span
from sqlalchemy import Engine, func, select

from interlock_guardrails.changes import changes
from interlock_guardrails.engine import read_only
from interlock_policies.decide import decide
from interlock_policies.gate import PolicyGate
from interlock_policies.situation import Situation
from interlock_tools import measures
from interlock_tools.change import ENDED, Change, ChangeState
from interlock_tools.decision import Decision
from interlock_tools.identity import Principal
from interlock_tools.telemetry import Attribute, Reading, span

S = ChangeState
STEPS = {
    S.AWAITING_APPROVAL: measures.EXPIRE,
    S.AUTHORISED: measures.BEGIN,
    S.EXECUTING: measures.ADOPT,
    S.UNKNOWN: measures.READ_BACK,
    S.VERIFYING: measures.VERIFY,
    S.COMPENSATING: measures.COMPENSATE,
}
_OPEN_STATES = tuple(state.value for state in ChangeState if state not in ENDED)
_OPEN_BY_STATE = (
    select(changes.c.state, func.count())
    .where(changes.c.state.in_(_OPEN_STATES))
    .group_by(changes.c.state)
)


class Proposal:
    """A proposal while it is assessed: its span, and the one of the call that brought it."""

    def __init__(self, own: Span, call: Span) -> None:
        self._spans = (own, call)
        self._began_s = time.perf_counter()

    def decided(self, decision: Decision, change: Change) -> None:
        """It was decided, and `change` is what stands on record for it now."""
        took_s = time.perf_counter() - self._began_s
        answer = decision.answer.value
        rule_ids = tuple(rule.rule_id for rule in decision.rules)
        for one in self._spans:
            one.set_attribute(measures.CHANGE_ID, change.change_id)
            one.set_attribute(measures.DECISION, answer)
            one.set_attribute(measures.RULE_IDS, rule_ids)
            one.set_attribute(measures.STATE, change.state.value)
        told: dict[str, Attribute] = {
            measures.DECISION: answer,
            measures.OPERATION: change.operation,
        }
        measures.TO_DECISION.record(took_s, told)
        measures.DECISIONS.add(1, {**told, measures.DRY_RUN: change.dry_run})
        for rule_id in rule_ids:
            measures.RULES.add(1, {measures.RULE_ID: rule_id, measures.DECISION: answer})


@contextmanager
def proposing(requester: Principal, operation: str, dry_run: bool) -> Iterator[Proposal]:
    """The span of a proposal, below that of the call."""
    call = trace.get_current_span()
    attributes: dict[str, Attribute] = {
        measures.OPERATION: operation,
        measures.DRY_RUN: dry_run,
        measures.PRINCIPAL_ID: requester.id,
        measures.PRINCIPAL_KIND: requester.kind.value,
    }
    with span(measures.PROPOSE, attributes=attributes) as own:
        yield Proposal(own, call)


@contextmanager
def carrying_out(change: Change, now: datetime) -> Iterator[Span]:
    """A trace of the worker's own, linked to the proposal's: hours may lie between.

    None for a change that waits for its moment: it is looked at every second.
    """
    if change.not_before is not None and now < change.not_before:
        yield INVALID_SPAN
        return
    with span(
        measures.CARRY_OUT,
        attributes=_about(change),
        begins_trace=True,
        follows=change.traceparent,
    ) as own:
        yield own


def stepping(change: Change, own: Span) -> AbstractContextManager[Span]:
    """The span of the worker's next step with this change, where `own` is the change's trace."""
    return nullcontext(own) if own is INVALID_SPAN else span(STEPS[change.state])


def acting(change: Change) -> AbstractContextManager[Span]:
    """The span of the act itself; calls of the component are below it."""
    return span(measures.ACT, attributes=_about(change))


def voting(voter: Principal, change_id: str, approve: bool) -> AbstractContextManager[Span]:
    """The span of a vote; `link_current_to` the proposal once the change is read."""
    attributes: dict[str, Attribute] = {
        measures.CHANGE_ID: change_id,
        measures.VOTE: "approve" if approve else "reject",
        measures.PRINCIPAL_ID: voter.id,
        measures.PRINCIPAL_KIND: voter.kind.value,
    }
    return span(measures.VOTING, attributes=attributes)


def ask_policy(gate: PolicyGate, situation: Situation) -> Decision:
    """What the policy decides, timed."""
    began_s = time.perf_counter()
    decision = decide(gate, situation)
    took_s = time.perf_counter() - began_s
    measures.POLICY.record(took_s, {measures.DECISION: decision.answer.value})
    return decision


def open_by_state(engine: Engine) -> list[Reading]:
    """How many changes are not at their end, by state."""
    with read_only(engine).connect() as connection:
        counted = {str(state): int(number) for state, number in connection.execute(_OPEN_BY_STATE)}
    return [(counted.get(state, 0), {measures.STATE: state}) for state in _OPEN_STATES]


def _about(change: Change) -> dict[str, Attribute]:
    return {measures.CHANGE_ID: change.change_id, measures.OPERATION: change.operation}
