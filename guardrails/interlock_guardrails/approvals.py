"""Approvals: who may vote, on what exactly, and when enough people have said yes.

A vote is bound to a digest of the action, the policy version, the rules that asked for it and the
identities that the decision rested on. It is single use: it counts for one change, in one state.
Before anything is done `quorum_voted` asks again, and believes signatures only, not the row.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from interlock_guardrails import break_glass, changes, statements
from interlock_guardrails.action import digest_of_action
from interlock_guardrails.delegations import Delegation, lent_to
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.verify import VerifyKey, parse_key
from interlock_guardrails.people import behind, check_person
from interlock_guardrails.store import Store
from interlock_guardrails.telling import voting
from interlock_guardrails.withdrawing import withdraw
from interlock_tools.canonical import digest
from interlock_tools.change import Change, ChangeState, Vote
from interlock_tools.clock import Clock
from interlock_tools.decision import Decision, Quorum
from interlock_tools.errors import ConflictError, FactoryError, InvalidRequestError
from interlock_tools.fact import Fact, Nature
from interlock_tools.identity import Principal
from interlock_tools.telemetry import link_current_to

STATEMENT = "vote"


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
        self._keys = (parse_key(signer.vkey),)

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
        typed where the rules ask for it. Who has no such role votes for whoever lent it to them.

        Raises:
            InvalidRequestError: this voter may not vote on it, or typed another target.
            ConflictError: it no longer waits, was voted on by them, or is not what they were shown.
            NotFoundError: there is no such change.
        """
        now = self._clock.now()

        def cast(connection: Connection) -> Change:
            change = changes.get(connection, change_id)
            link_current_to(change.traceparent)
            quorum = _check_open(change, shown_digest, now)
            check_person(voter, "vote")
            lent = self._capacity(connection, change, voter, quorum, now)
            if approve and quorum.typed_target and typed_target != change.target.id:
                raise InvalidRequestError(
                    f"type the target's name, {change.target.id!r}, to approve"
                )
            vote = self._signed(change, voter, lent, quorum, approve, now)
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
                    why=f"{vote.who()} rejected it",
                    came_from=ChangeState.AWAITING_APPROVAL,
                    votes=votes,
                )
            if len(votes) < quorum.people:
                return changes.amend(connection, change, votes=votes)
            return changes.move(
                connection,
                change_id,
                ChangeState.AUTHORISED,
                at=now,
                why="approved by " + ", ".join(vote.who() for vote in votes),
                came_from=ChangeState.AWAITING_APPROVAL,
                votes=votes,
            )

        with voting(voter, change_id, approve):
            voted = await self._store.write(cast)
        self._store.announce(voted)
        return voted

    async def withdraw(self, by: Principal, change_id: str, *, why: str) -> Change:
        """Take back a change that has not begun; it ends as rejected.

        Whoever asked for it or answers for it may, and any person of the role that decides on it.

        Raises:
            InvalidRequestError: somebody else, or without a reason.
            ConflictError: it has begun or ended; what runs is held by the stop, not by this.
            NotFoundError: there is no such change.
        """
        return await withdraw(
            self._store, self._ledger, self._clock, self._keys, by, change_id, why=why
        )

    def _capacity(
        self,
        connection: Connection,
        change: Change,
        voter: Principal,
        quorum: Quorum,
        now: datetime,
    ) -> Delegation | None:
        """Under which delegation the voter has a say; None where they have one of their own."""
        lent: list[Delegation | None] = [None]
        if quorum.role not in voter.roles:
            lent = [*lent_to(connection, voter.id, quorum.role, now, self._keys)]
        objection: FactoryError = InvalidRequestError(
            f"{voter.id} has no say here; people of role {quorum.role!r} can vote"
        )
        for delegation in lent:
            found = _objection(change, voter, delegation)
            if found is None:
                return delegation
            objection = found
        raise objection

    def _signed(
        self,
        change: Change,
        voter: Principal,
        lent: Delegation | None,
        quorum: Quorum,
        approve: bool,
        now: datetime,
    ) -> Vote:
        vote = Vote(
            voter=voter.id,
            role=quorum.role,
            approve=approve,
            binding_digest=change.binding_digest or "",
            at=now,
            channel=voter.authenticated_by,
            signature="",
            on_behalf_of=None if lent is None else lent.delegator,
            delegation_id=None if lent is None else lent.delegation_id,
        )
        signature = statements.sign(self._signer, STATEMENT, what_a_vote_says(change, vote))
        return vote.model_copy(update={"signature": signature})


def quorum_voted(change: Change, keys: Sequence[VerifyKey]) -> bool:
    """Whether enough people, or one who broke the glass, have authorised exactly this change.

    `keys` are those of the voting consoles. Of the row nothing is believed: the action is digested
    again, each vote must be a note by such a key that says exactly this voter, change, digest and
    expiry, and whoever is behind the change, or has looked already, does not count.
    """
    decision = change.decision
    quorum = None if decision is None else decision.quorum
    if quorum is None or not _digests_hold(change):
        return False
    if break_glass.authorises(change, keys):
        return True
    if not all(vote.approve for vote in change.votes):
        return False
    looked: set[str] = set(behind(change))
    pairs_of_eyes = 0
    for vote in change.votes:
        if vote.role == quorum.role and not vote.eyes & looked and _is_genuine(change, vote, keys):
            looked |= vote.eyes
            pairs_of_eyes += 1
    return pairs_of_eyes >= quorum.people


def _check_open(change: Change, shown_digest: str, now: datetime) -> Quorum:
    """The quorum that is asked for, while a vote is open on what was shown."""
    quorum = None if change.decision is None else change.decision.quorum
    if change.state is not ChangeState.AWAITING_APPROVAL or quorum is None:
        raise ConflictError(f"change {change.change_id} is {change.state}: no vote is open")
    if not change.open_at(now):
        raise ConflictError(
            f"change {change.change_id} expired: it was open from {change.created_at} to "
            f"{change.expires_at}"
        )
    if not change.binding_digest or shown_digest != change.binding_digest:
        raise ConflictError("what you were shown is not what would be done; open it again")
    return quorum


def _objection(
    change: Change, voter: Principal, delegation: Delegation | None
) -> FactoryError | None:
    """Why these eyes cannot judge the change, or have done so already."""
    eyes = {voter.id} if delegation is None else {voter.id, delegation.delegator}
    if eyes & behind(change):
        return _not_by_who_asked()
    for vote in change.votes:
        if vote.voter == voter.id:
            return ConflictError(f"{voter.id} has voted already; another person is needed")
        if eyes & vote.eyes:
            return ConflictError(
                f"{vote.who()} voted already, and who lends a role and who borrows it are one "
                "pair of eyes; another person is needed"
            )
    return None


def _not_by_who_asked() -> InvalidRequestError:
    return InvalidRequestError(
        "the requester and an agent's owner cannot approve it, nor can anybody for them"
    )


def _digests_hold(change: Change) -> bool:
    """Whether what stands in the row is what its digests say: a vote binds nothing else."""
    action_digest = digest_of_action(
        change.operation, change.target, change.arguments, change.requester, change.reason
    )
    return change.decision is not None and change.binding_digest == binding_digest(
        action_digest, change.decision, change.facts
    )


def _is_genuine(change: Change, vote: Vote, keys: Sequence[VerifyKey]) -> bool:
    return (
        vote.binding_digest == change.binding_digest
        and change.open_at(vote.at)
        and statements.says(vote.signature, keys, STATEMENT, what_a_vote_says(change, vote))
    )


def what_a_vote_says(change: Change, vote: Vote) -> dict[str, Any]:
    """What the note of a vote says."""
    return {
        "change_id": change.change_id,
        "voter": vote.voter,
        "on_behalf_of": vote.on_behalf_of,
        "delegation_id": vote.delegation_id,
        "role": vote.role,
        "approve": vote.approve,
        "binding_digest": vote.binding_digest,
        "expires_at": statements.moment(change.expires_at),
        "at": statements.moment(vote.at),
        "channel": vote.channel,
    }
