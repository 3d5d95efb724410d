"""The guard: every change enters here, and nothing reaches a component's write but through here."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any

import anyio
from sqlalchemy import Connection

from interlock_guardrails import autonomy, changes, reservations, spending
from interlock_guardrails.action import decided, digest_of_action, parse, summary
from interlock_guardrails.approvals import binding_digest
from interlock_guardrails.assessment import SHOWN, Assessment, Seen, rehearse
from interlock_guardrails.facts import FactRegistry
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.verify import parse_key
from interlock_guardrails.paging import LogPager, Pager
from interlock_guardrails.people import check_words
from interlock_guardrails.rules import SiteRules
from interlock_guardrails.stop import StopState, record_stop
from interlock_guardrails.store import Store
from interlock_guardrails.telling import ask_policy, proposing
from interlock_policies.gate import PolicyGate
from interlock_policies.situation import Situation
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.change import Change, ChangeState, Step
from interlock_tools.clock import Clock
from interlock_tools.decision import Answer, Decision, RuleHit
from interlock_tools.errors import InvalidRequestError, NotFoundError
from interlock_tools.fact import Unknown
from interlock_tools.identity import Principal, Target
from interlock_tools.operation import Arguments, DryRun, Operation
from interlock_tools.telemetry import current_traceparent

HANDED_MOST = 64
ENTERS_AS = {
    Answer.ALLOW: ChangeState.AUTHORISED,
    Answer.REQUIRE_APPROVAL: ChangeState.AWAITING_APPROVAL,
    Answer.REFUSE: ChangeState.REFUSED,
}


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
        vote_keys: Iterable[str] = (),  # public keys of the voting consoles; none: no vote counts
        pager: Pager | None = None,
    ) -> None:
        self.store = store
        self.ledger = ledger
        self.facts = facts
        self.clock = clock
        self.rules = rules
        self.gate = gate
        self.vote_keys = tuple(parse_key(vkey) for vkey in vote_keys)
        self.pager = pager or LogPager()
        self.operations: dict[str, Operation[Any]] = {op.name: op for op in operations}
        self.authorised = anyio.Event()
        self._handed: list[Change] | None = None  # None: the store has to be looked through
        store.listeners.append(self.hand_over)

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
        change_id: str | None = None,
    ) -> Change:
        """Assess a change and, unless `dry_run`, put it on its way.

        Returns the change: refused, waiting, or authorised; one already on its way as it stands.

        Raises:
            InvalidRequestError: the arguments can never work; it is on the ledger that they came.
            NotFoundError: there is no such operation, or they name what does not exist.
        """
        with proposing(requester, operation_name, dry_run) as proposal:
            decision, entered = await self._propose(
                requester, operation_name, arguments, reason, dry_run, change_id
            )
            proposal.decided(decision, entered)
        self.hand_over(entered)
        return entered

    async def _propose(
        self,
        requester: Principal,
        operation_name: str,
        arguments: Mapping[str, Any],
        reason: str,
        dry_run: bool,
        change_id: str | None,
    ) -> tuple[Decision, Change]:
        """The decision, and the change that stands for it: this one, or the same on its way."""
        operation = self.operation(operation_name)
        now = self.clock.now()
        try:
            parsed = parse(operation, arguments)
            check_words("reason", reason)
            seen = await self.see(operation, parsed)
            target = operation.target(parsed)
        except (InvalidRequestError, NotFoundError) as error:
            await self._record_impossible(requester, operation_name, str(error))
            raise

        def judge(connection: Connection) -> Assessment:
            return self.judge(connection, requester, operation, target, seen, now)

        rehearsed: tuple[DryRun | None, Assessment] | None = None
        if operation.rehearses:  # what the component is asked takes time: not while others wait
            assessment = await self.store.read(judge)
            rehearsed = None, assessment
            if assessment.decision.answer is not Answer.REFUSE:
                rehearsed = await rehearse(operation, parsed, assessment)

        def enter(connection: Connection) -> tuple[Decision, Change]:
            rehearsal, found = rehearsed or (None, judge(connection))
            change = self._new(
                change_id or changes.new_change_id(),
                requester,
                operation,
                parsed,
                reason,
                dry_run,
                found,
                rehearsal,
                now,
            )
            return found.decision, self._enter(connection, change, found)

        return await self.store.write(enter)

    async def assess(
        self,
        requester: Principal,
        operation: Operation[Any],
        arguments: Arguments,
        now: datetime,
    ) -> Assessment:
        """Gather the facts, compute the reach and ask the policy; a missing fact is a refusal.

        Raises:
            InvalidRequestError, NotFoundError: the arguments name what cannot be.
        """
        seen = await self.see(operation, arguments)
        target = operation.target(arguments)
        return await self.store.read(
            lambda connection: self.judge(connection, requester, operation, target, seen, now)
        )

    async def see(self, operation: Operation[Any], arguments: Arguments) -> Seen:
        """What the sources say now, and the reach that follows from it.

        Raises:
            InvalidRequestError, NotFoundError: the arguments name what cannot be.
        """
        gathered = await self.facts.gather(
            operation.facts(arguments), self.clock, operation.claims(arguments)
        )
        if gathered.unknown:
            return Seen(gathered, None)
        return Seen(gathered, operation.blast_radius(arguments, gathered.facts))

    def judge(
        self,
        connection: Connection,
        requester: Principal,
        operation: Operation[Any],
        target: Target,
        seen: Seen,
        now: datetime,
        *,
        besides: tuple[str, ...] = (),
        spends: bool = True,
    ) -> Assessment:
        """What the policy says to what was seen, as the store stands in this transaction.

        `besides` are changes that do not count as others: the change itself, and its parent. What
        brings an effect to its safe value `spends` nothing: neither a budget that is used up nor
        the number of changes since may hold it.
        """
        gathered, reach = seen
        if reach is None:
            return Assessment(gathered.facts, None, self._refuse_unknown(gathered.unknown))
        others = reservations.held_by_others(connection, *besides)
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
            changes_last_hour=changes.count_last_hour(connection, requester, now, besides)
            if spends
            else 0,
            agent_budget_spent_permille=spending.spent_with_permille(
                connection, self.rules, requester, reach, now, besides
            )
            if spends
            else 0,
            claims_unconfirmed=frozenset(str(item.claim.need) for item in gathered.unconfirmed),
            protected=self.rules.protected,
            autonomy_granted=autonomy.granted(
                connection,
                operation.name,
                operation.effect,
                site=self.rules.site_id,
                now=now,
                keys=self.vote_keys,
            ),
        )
        decision = ask_policy(self.gate, situation)
        return Assessment(
            gathered.facts, reach, decision, overlaps, situation, gathered.unconfirmed
        )

    async def get(self, change_id: str) -> Change:
        """One change as it stands.

        Raises:
            NotFoundError: there is none with this id.
        """
        return await self.store.read(lambda connection: changes.get(connection, change_id))

    async def latest(self, limit: int = 20, *, before: str | None = None) -> list[Change]:
        """The newest changes first; with `before` those that come behind that change.

        Raises:
            NotFoundError: there is no change `before`.
        """
        return await self.store.read(
            lambda connection: changes.latest(connection, limit=limit, before=before)
        )

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

    async def record_start(self, bundle: str) -> None:
        """Put on record what this process decides by: the operations, the policy, the rules."""
        body = {
            "what": "started",
            "bundle": bundle,
            "policy_version": self.gate.version,
            "operations": {op.name: op.effect.value for op in self.operations.values()},
            "rules": self.rules.model_dump(mode="json"),
        }
        await self.store.write(
            lambda connection: self.ledger.append(connection, RecordKind.CONFIG_CHANGED, body)
        )

    def hand_over(self, change: Change) -> None:
        """Give the worker of this process a change that has just moved, before it finds it."""
        if change.state is not ChangeState.AUTHORISED:
            return
        if self._handed is not None:
            self._handed.append(change)
            if len(self._handed) > HANDED_MOST:  # nobody works here
                self._handed = None
        self.authorised.set()

    def take_handed(self) -> list[Change] | None:
        """What was handed over since the last time; None: something else may be ready as well."""
        handed, self._handed = self._handed, []
        return handed

    def wake_worker(self) -> None:
        """Say that something may be ready to execute: the store is to be looked through."""
        self._handed = None
        self.authorised.set()

    def _refuse_unknown(self, unknown: tuple[Unknown, ...]) -> Decision:
        hits = tuple(
            RuleHit(
                rule_id="facts-unknown",
                reason=f"{item.kind} of {item.subject} is unknown: {item.why}",
            )
            for item in unknown[:SHOWN]
        )
        return Decision(answer=Answer.REFUSE, rules=hits, policy_version=self.gate.version)

    def _new(
        self,
        change_id: str,
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
            change_id=change_id,
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
            traceparent=current_traceparent(),
        )

    def _enter(self, connection: Connection, change: Change, assessment: Assessment) -> Change:
        """Write the change with its decision, in the state where the decision puts it."""
        if not change.dry_run:
            twin = changes.open_with_digest(connection, change.action_digest)
            if twin is not None:
                return twin
        why = assessment.why()
        to = ENTERS_AS[assessment.decision.answer]
        entered = change.model_copy(
            update={"state": to, "history": (*change.history, Step(to, change.created_at, why))}
        )
        if not change.dry_run:
            kept = {"facts": ()} if to is ChangeState.REFUSED else {}  # nobody looks again
            changes.insert(connection, entered.model_copy(update=kept))
        records = [
            (RecordKind.REQUESTED, summary(change)),
            (RecordKind.DECIDED, decided(change, assessment.situation)),
        ]
        if to is ChangeState.REFUSED and not change.dry_run:
            records.append((RecordKind.REFUSED, {"change_id": change.change_id, "why": why}))
        self.ledger.append_all(connection, records)
        return change if change.dry_run else entered

    async def _record_impossible(self, requester: Principal, operation: str, why: str) -> None:
        body = {"requester": requester.id, "operation": operation, "why": why, "change_id": None}
        await self.store.write(
            lambda connection: self.ledger.append(connection, RecordKind.REFUSED, body)
        )
