"""Approvals: who may vote, on what exactly, and when enough people have said yes.

A vote is bound to a digest of the action, the policy version, the rules that asked for it and the
identities that the decision rested on. It is single use: it counts for one change, in one state.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from interlock_guardrails import changes
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.store import Store
from interlock_tools.canonical import canonical, digest
from interlock_tools.change import Change, ChangeState, Vote
from interlock_tools.clock import Clock
from interlock_tools.decision import Decision
from interlock_tools.errors import ConflictError, InvalidRequestError
from interlock_tools.fact import Fact, Nature
from interlock_tools.identity import Principal, PrincipalKind

VOTING_CHANNELS = frozenset({"console", "slack", "cli"})


def binding_digest(action_digest: str, decision: Decision, facts: Iterable[Fact]) -> str:
    """What a vote is bound to: identities by their version, measurements by the rules they met."""
    identities = sorted(
        (fact.kind, str(fact.subject), fact.version)
        for fact in facts
        if fact.nature is Nature.IDENTITY
    )
    return digest(
        {
            "action": action_digest,
            "policy": decision.policy_version,
            "rules": sorted(rule.rule_id for rule in decision.rules),
            "quorum": None if decision.quorum is None else decision.quorum.model_dump(mode="json"),
            "identities": [list(identity) for identity in identities],
        }
    )


class Approvals:
    """The one way to vote; console, Slack and CLI all call it. No MCP server does."""

    def __init__(self, store: Store, ledger: Ledger, clock: Clock, signer: Signer) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._signer = signer

    async def waiting(self) -> list[Change]:
        """The changes that wait for people, newest first, at most 100."""
        return await self._store.read(
            lambda connection: changes.latest(
                connection, limit=100, states=[ChangeState.AWAITING_APPROVAL]
            )
        )

    async def vote(
        self,
        voter: Principal,
        change_id: str,
        *,
        approve: bool,
        shown_digest: str,
        typed_target: str | None = None,
    ) -> Change:
        """Record one person's vote; the last one that is needed authorises the change.

        `shown_digest` is the binding digest that the person was shown; `typed_target` what they
        typed where the rules ask for it.

        Raises:
            InvalidRequestError: this voter may not vote on it, or typed another target.
            ConflictError: it no longer waits, was voted on by them, or is not what they were shown.
            NotFoundError: there is no such change.
        """
        now = self._clock.now()

        def cast(connection: Any) -> Change:
            change = changes.get(connection, change_id)
            self._check(change, voter, shown_digest, typed_target, approve, now)
            vote = self._signed(change, voter, approve, now)
            votes = (*change.votes, vote)
            self._ledger.append(
                connection,
                RecordKind.VOTE,
                {"change_id": change_id, **vote.model_dump(mode="json")},
            )
            if not approve:
                return changes.move(
                    connection,
                    change_id,
                    ChangeState.REJECTED,
                    at=now,
                    why=f"{voter.id} rejected it",
                    came_from=ChangeState.AWAITING_APPROVAL,
                    votes=votes,
                )
            if len(votes) < quorum_of(change):
                return changes.amend(connection, change, votes=votes)
            return changes.move(
                connection,
                change_id,
                ChangeState.AUTHORISED,
                at=now,
                why="approved by " + ", ".join(vote.voter for vote in votes),
                came_from=ChangeState.AWAITING_APPROVAL,
                votes=votes,
            )

        return await self._store.write(cast)

    def _check(
        self,
        change: Change,
        voter: Principal,
        shown_digest: str,
        typed_target: str | None,
        approve: bool,
        now: datetime,
    ) -> None:
        decision = change.decision
        if change.state is not ChangeState.AWAITING_APPROVAL or decision is None:
            raise ConflictError(f"change {change.change_id} is {change.state}: no vote is open")
        if not change.open_at(now):
            raise ConflictError(
                f"change {change.change_id} expired: it was open from {change.created_at} to "
                f"{change.expires_at}"
            )
        if shown_digest != change.binding_digest:
            raise ConflictError("what you were shown is not what would be done; open it again")
        channel = voter.authenticated_by.partition(":")[0]
        if voter.kind is not PrincipalKind.PERSON or channel not in VOTING_CHANNELS:
            raise InvalidRequestError("only a person, authenticated by a console, can vote")
        requester = change.requester
        if voter.id in {requester.id, requester.owner, requester.on_behalf_of}:
            raise InvalidRequestError("the requester and an agent's owner cannot approve it")
        quorum = decision.quorum
        if quorum is None or quorum.role not in voter.roles:
            role = "nobody" if quorum is None else f"people of role {quorum.role!r}"
            raise InvalidRequestError(f"{voter.id} has no say here; {role} can vote")
        if any(vote.voter == voter.id for vote in change.votes):
            raise ConflictError(f"{voter.id} has voted already; another person is needed")
        if approve and quorum.typed_target and typed_target != change.target.id:
            raise InvalidRequestError(f"type the target's name, {change.target.id!r}, to approve")

    def _signed(self, change: Change, voter: Principal, approve: bool, now: datetime) -> Vote:
        if change.decision is None or change.decision.quorum is None or not change.binding_digest:
            raise ConflictError(f"change {change.change_id} asks nobody")
        said = {
            "change_id": change.change_id,
            "voter": voter.id,
            "role": change.decision.quorum.role,
            "approve": approve,
            "binding_digest": change.binding_digest,
            "at": now.isoformat(),
            "channel": voter.authenticated_by,
        }
        return Vote(
            voter=voter.id,
            role=change.decision.quorum.role,
            approve=approve,
            binding_digest=change.binding_digest,
            at=now,
            channel=voter.authenticated_by,
            signature=self._signer.sign_note(canonical(said).decode() + "\n"),
        )


def quorum_of(change: Change) -> int:
    """How many approving people the change needs."""
    quorum = None if change.decision is None else change.decision.quorum
    return 0 if quorum is None else quorum.people


def quorum_voted(change: Change) -> bool:
    """Whether enough distinct people approved exactly this change."""
    people = {
        vote.voter
        for vote in change.votes
        if vote.approve and vote.binding_digest == change.binding_digest
    }
    return len(people) >= max(1, quorum_of(change))
