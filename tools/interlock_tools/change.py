"""A change and its life: the states, the transitions that exist, the record that people read."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from interlock_tools.blast_radius import BlastRadius
from interlock_tools.decision import Decision
from interlock_tools.fact import Fact
from interlock_tools.identity import Principal, Target
from interlock_tools.operation import DryRun, Effect


class ChangeState(StrEnum):
    """Where a change stands."""

    PROPOSED = "proposed"
    REFUSED = "refused"
    AWAITING_APPROVAL = "awaiting_approval"
    REJECTED = "rejected"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    AUTHORISED = "authorised"
    EXECUTING = "executing"
    UNKNOWN = "unknown"
    VERIFYING = "verifying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    STUCK = "stuck"


S = ChangeState

TRANSITIONS: dict[ChangeState, frozenset[ChangeState]] = {
    S.PROPOSED: frozenset({S.REFUSED, S.AWAITING_APPROVAL, S.AUTHORISED}),
    S.AWAITING_APPROVAL: frozenset({S.REJECTED, S.EXPIRED, S.SUPERSEDED, S.AUTHORISED}),
    S.AUTHORISED: frozenset({S.EXECUTING, S.REFUSED, S.REJECTED, S.EXPIRED, S.SUPERSEDED, S.STUCK}),
    S.EXECUTING: frozenset({S.VERIFYING, S.UNKNOWN, S.FAILED}),
    S.UNKNOWN: frozenset({S.VERIFYING, S.FAILED, S.STUCK}),
    S.VERIFYING: frozenset({S.SUCCEEDED, S.FAILED}),
    S.FAILED: frozenset({S.COMPENSATING}),
    S.COMPENSATING: frozenset({S.COMPENSATED, S.STUCK}),
    S.REFUSED: frozenset(),
    S.REJECTED: frozenset(),
    S.EXPIRED: frozenset(),
    S.SUPERSEDED: frozenset(),
    S.SUCCEEDED: frozenset(),
    S.COMPENSATED: frozenset(),
    S.STUCK: frozenset(),
}

# A failed change that can be brought back is moved on to compensating in the same transaction.
ENDED = frozenset(
    {
        S.REFUSED,
        S.REJECTED,
        S.EXPIRED,
        S.SUPERSEDED,
        S.SUCCEEDED,
        S.FAILED,
        S.COMPENSATED,
        S.STUCK,
    }
)


CLOCK_STEP = timedelta(seconds=5)  # a clock that is set right moves back by less than this


class Step(NamedTuple):
    """One transition as it happened."""

    state: ChangeState
    at: datetime
    why: str


class Vote(BaseModel):
    """One person's yes or no, bound to the digest that was shown to them.

    `signature` is a C2SP signed note over the canonical vote, by the key of the voting console.
    A delegate votes in the role of another: `on_behalf_of` is that person, `delegation_id` says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    voter: str
    role: str
    approve: bool
    binding_digest: str
    at: datetime
    channel: str
    signature: str
    on_behalf_of: str | None = None
    delegation_id: str | None = None

    @property
    def eyes(self) -> frozenset[str]:
        """The people who have looked through this one pair of eyes: a delegate and who sent it."""
        return frozenset(
            {self.voter} if self.on_behalf_of is None else {self.voter, self.on_behalf_of}
        )

    def who(self) -> str:
        """Who voted, and for whom."""
        return self.voter if self.on_behalf_of is None else f"{self.voter} for {self.on_behalf_of}"


class GlassBroken(BaseModel):
    """One person authorised a waiting change alone, in an emergency; others review it afterwards.

    `signature` is a signed note like that of a vote.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    role: str
    reason: str
    binding_digest: str
    at: datetime
    channel: str
    signature: str


class Change(BaseModel):
    """A proposed change of the plant, from its first word to its verified end.

    `parent_id` names the change whose approval covers this one: the plan that it is a step of, or
    the change whose expiry it is; that one also waits for `not_before`. `traceparent` (W3C) names
    the span that proposed it; no digest covers it, and nothing is decided by it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    change_id: str
    operation: str
    effect: Effect
    arguments: dict[str, Any]
    target: Target
    requester: Principal
    reason: str
    dry_run: bool
    state: ChangeState
    action_digest: str
    binding_digest: str | None = None
    decision: Decision | None = None
    blast_radius: BlastRadius | None = None
    facts: tuple[Fact, ...] = ()
    rehearsal: DryRun | None = None
    votes: tuple[Vote, ...] = ()
    glass_broken: GlassBroken | None = None
    evidence: dict[str, Any] = {}
    created_at: datetime
    expires_at: datetime
    history: tuple[Step, ...] = ()
    parent_id: str | None = None
    not_before: datetime | None = None
    traceparent: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED

    def open_at(self, now: datetime) -> bool:
        """Whether it can still be approved or begun.

        Not after it expired, nor at a moment before it was proposed: a clock that went back would
        lengthen the life of an approval.
        """
        return self.created_at - CLOCK_STEP <= now < self.expires_at

    def sentence(self) -> str:
        """One line for a person or a model: what it is, where it stands and why."""
        why = self.history[-1].why if self.history else ""
        return f"change {self.change_id}: {self.operation} on {self.target} is {self.state}. {why}"
