"""The guard: every change enters here, and nothing reaches a component's write but through here."""

import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import anyio
from sqlalchemy import Connection

from interlock_guardrails import changes, reservations
from interlock_guardrails.action import digest_of_action, parse, summary
from interlock_guardrails.approvals import binding_digest
from interlock_guardrails.facts import FactRegistry
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.rules import SiteRules
from interlock_guardrails.stop import StopState, record_stop
from interlock_guardrails.store import Store
from interlock_policies.decide import decide
from interlock_policies.gate import PolicyGate
from interlock_policies.situation import Situation
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.change import Change, ChangeState, Step
from interlock_tools.clock import Clock
from interlock_tools.decision import Answer, Decision, RuleHit
from interlock_tools.errors import FactoryError, InvalidRequestError, NotFoundError
from interlock_tools.fact import FactSet, Unknown
from interlock_tools.identity import Principal
from interlock_tools.operation import Arguments, DryRun, Operation

REASON_MAX_CHARS = 500
UNKNOWN_SHOWN = 5
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # Unicode categories


class Assessment(NamedTuple):
    """Steps 2 and 3 of a change's life: the facts, the reach and the decision."""

    facts: FactSet
    reach: BlastRadius | None
    decision: Decision
    overlaps: bool = False  # with what another change has reserved


class Guard:
    """Decides on proposed changes and keeps their record; the worker carries them out."""

    def __init__(
        self,
        *,
        store: Store,
        ledger: Ledger,
        gate: PolicyGate,
        facts: FactRegistry,
        clock: Clock,
        rules: SiteRules,
        operations: Iterable[Operation[Any]],
    ) -> None:
        self.store = store
        self.ledger = ledger
        self.facts = facts
        self.clock = clock
        self.rules = rules
        self.gate = gate
        self.operations: Mapping[str, Operation[Any]] = {op.name: op for op in operations}
        self.authorised = anyio.Event()

    def operation(self, name: str) -> Operation[Any]:
        """The registered operation of this name.

        Raises:
            NotFoundError: none is; a row may come from a newer version of ours.
        """
        try:
            return self.operations[name]
        except KeyError:
            raise NotFoundError(f"no operation {name!r} is registered") from None

    async def propose(
        self,
        requester: Principal,
        operation_name: str,
        arguments: Mapping[str, Any],
        *,
        reason: str,
        dry_run: bool,
    ) -> Change:
        """Assess a change and, unless `dry_run`, put it on its way.

        Returns the change: refused, waiting for people, or authorised. An action that is already
        on its way is returned as it stands, not begun twice.

        Raises:
            InvalidRequestError: the arguments can never work; it is on the ledger that they came.
            NotFoundError: there is no such operation, or they name what does not exist.
        """
        operation = self.operation(operation_name)
        now = self.clock.now()
        try:
            parsed = parse(operation, arguments)
            _check_reason(reason)
            assessment = await self.assess(requester, operation, parsed, now)
        except (InvalidRequestError, NotFoundError) as error:
            await self._record_impossible(requester, operation_name, str(error))
            raise
        rehearsal = None
        if assessment.decision.answer is not Answer.REFUSE:
            rehearsal, assessment = await self._rehearse(operation, parsed, assessment)
        change = self._new(
            requester, operation, parsed, reason, dry_run, assessment, rehearsal, now
        )
        entered = await self.store.write(lambda connection: self._enter(connection, change))
        self.wake_worker()
        return entered

    async def assess(
        self,
        requester: Principal,
        operation: Operation[Any],
        arguments: Arguments,
        now: datetime,
        change_id: str | None = None,
    ) -> Assessment:
        """Gather the facts, compute the reach and ask the policy; a missing fact is a refusal."""
        gathered = await self.facts.gather(operation.facts(arguments), self.clock)
        if gathered.unknown:
            return Assessment(gathered.facts, None, self._refuse_unknown(gathered.unknown))
        reach = operation.blast_radius(arguments, gathered.facts)
        target = operation.target(arguments)

        def look(connection: Connection) -> tuple[list[BlastRadius], int]:
            return (
                reservations.held_by_others(connection, change_id),
                changes.count_last_hour(connection, requester, now, change_id),
            )

        others, recent = await self.store.read(look)
        overlaps = any(reach.overlaps(other) for other in others)
        situation = Situation(
            principal=requester,
            operation=operation.name,
            effect=operation.effect,
            target=target,
            site=self.rules.site_id,
            blast_radius=reach,
            open_reach=reduce(or_, others, BlastRadius()),
            site_gpus=self.rules.gpus,
            site_hosts=self.rules.hosts,
            overlaps_open=overlaps,
            frozen=self.rules.frozen_at(now),
            in_window=self.rules.in_window(now),
            changes_last_hour=recent,
            protected=self.rules.protected,
        )
        return Assessment(gathered.facts, reach, decide(self.gate, situation), overlaps)

    async def get(self, change_id: str) -> Change:
        """One change as it stands.

        Raises:
            NotFoundError: there is none with this id.
        """
        return await self.store.read(lambda connection: changes.get(connection, change_id))

    async def latest(self, limit: int = 20) -> list[Change]:
        """The newest changes first."""
        return await self.store.read(lambda connection: changes.latest(connection, limit=limit))

    async def stop(self, by: Principal, why: str) -> StopState:
        """Hold everything that has not begun; what runs is finished to its verification."""
        return await record_stop(self.store, self.ledger, self.clock, by, stopped=True, why=why)

    async def resume(self, by: Principal, why: str) -> StopState:
        """Let changes begin again.

        Raises:
            InvalidRequestError: only a person may resume.
        """
        state = await record_stop(self.store, self.ledger, self.clock, by, stopped=False, why=why)
        self.wake_worker()
        return state

    def wake_worker(self) -> None:
        """Say that something may be ready to execute."""
        self.authorised.set()

    def _refuse_unknown(self, unknown: tuple[Unknown, ...]) -> Decision:
        hits = tuple(
            RuleHit(
                rule_id="facts-unknown",
                reason=f"{item.kind} of {item.subject} is unknown: {item.why}",
            )
            for item in unknown[:UNKNOWN_SHOWN]
        )
        return Decision(answer=Answer.REFUSE, rules=hits, policy_version=self.gate.version)

    async def _rehearse(
        self, operation: Operation[Any], arguments: Arguments, assessment: Assessment
    ) -> tuple[DryRun | None, Assessment]:
        """The component's own dry run; its no, or its silence, is a refusal."""
        try:
            rehearsal = await operation.dry_run(arguments)
        except FactoryError as error:
            rehearsal = DryRun(would_succeed=False, notes=(f"the dry run failed: {error}",))
        if rehearsal is None or rehearsal.would_succeed:
            return rehearsal, assessment
        why = "; ".join(rehearsal.notes) or "the component gave no reason"
        refusal = Decision(
            answer=Answer.REFUSE,
            rules=(RuleHit(rule_id="component-refuses", reason=why),),
            policy_version=self.gate.version,
        )
        return rehearsal, assessment._replace(decision=refusal)

    def _new(
        self,
        requester: Principal,
        operation: Operation[Any],
        arguments: Arguments,
        reason: str,
        dry_run: bool,
        assessment: Assessment,
        rehearsal: DryRun | None,
        now: datetime,
    ) -> Change:
        plain = arguments.model_dump(mode="json")
        target = operation.target(arguments)
        action_digest = digest_of_action(operation.name, target, plain, requester, reason)
        decision = assessment.decision
        return Change(
            change_id=changes.new_change_id(),
            operation=operation.name,
            effect=operation.effect,
            arguments=plain,
            target=target,
            requester=requester,
            reason=reason,
            dry_run=dry_run,
            state=ChangeState.PROPOSED,
            action_digest=action_digest,
            binding_digest=binding_digest(action_digest, decision, assessment.facts),
            decision=decision,
            blast_radius=assessment.reach,
            facts=tuple(assessment.facts),
            rehearsal=rehearsal,
            created_at=now,
            expires_at=now + timedelta(seconds=self.rules.approval_expires_s),
            history=(Step(ChangeState.PROPOSED, now, f"{requester.id}: {reason}"),),
        )

    def _enter(self, connection: Connection, change: Change) -> Change:
        """Write the change and its decision, and move it to where the decision says."""
        decision = change.decision
        if decision is None:
            raise ValueError("a change enters with its decision")
        if not change.dry_run:
            twin = changes.open_with_digest(connection, change.action_digest)
            if twin is not None:
                return twin
        self.ledger.append(connection, RecordKind.REQUESTED, summary(change))
        self.ledger.append(
            connection,
            RecordKind.DECIDED,
            {
                "change_id": change.change_id,
                "binding_digest": change.binding_digest,
                "decision": decision.model_dump(mode="json"),
                "facts": [fact.model_dump(mode="json", exclude={"value"}) for fact in change.facts],
                "blast_radius": None
                if change.blast_radius is None
                else change.blast_radius.model_dump(mode="json"),
            },
        )
        if change.dry_run:
            return change
        changes.insert(connection, change)
        to = {
            Answer.ALLOW: ChangeState.AUTHORISED,
            Answer.REQUIRE_APPROVAL: ChangeState.AWAITING_APPROVAL,
            Answer.REFUSE: ChangeState.REFUSED,
        }[decision.answer]
        if to is ChangeState.REFUSED:
            self.ledger.append(
                connection,
                RecordKind.REFUSED,
                {"change_id": change.change_id, "why": decision.sentence()},
            )
        return changes.move(
            connection,
            change.change_id,
            to,
            at=change.created_at,
            why=decision.sentence(),
            came_from=ChangeState.PROPOSED,
        )

    async def _record_impossible(self, requester: Principal, operation: str, why: str) -> None:
        body = {"requester": requester.id, "operation": operation, "why": why, "change_id": None}
        await self.store.write(
            lambda connection: self.ledger.append(connection, RecordKind.REFUSED, body)
        )


def _check_reason(reason: str) -> None:
    """Approvers read it: it must say something, and cannot move the cursor or hide letters."""
    if not reason.strip() or len(reason) > REASON_MAX_CHARS:
        raise InvalidRequestError(
            f"reason: say why in 1 to {REASON_MAX_CHARS} characters; approvers read it"
        )
    if any(unicodedata.category(letter) in UNSEEN for letter in reason):
        raise InvalidRequestError("reason: one line without control or invisible characters")
