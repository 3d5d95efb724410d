"""Plans: ordered changes under one approval.

Each step is a change of its own and is looked at again before it begins; the first one that does
not succeed halts the plan.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar

from pydantic import Field

from interlock_guardrails import changes
from interlock_guardrails.action import digest_of_action, parse
from interlock_guardrails.approvals import binding_digest
from interlock_guardrails.guard import Guard
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.change import Change, ChangeState
from interlock_tools.decision import Answer
from interlock_tools.errors import ComponentError, InvalidRequestError
from interlock_tools.fact import Claim, FactNeed, FactSet
from interlock_tools.identity import Principal, Target
from interlock_tools.operation import (
    Arguments,
    Effect,
    Happened,
    Held,
    Operation,
    ReadBack,
    Verdict,
)

MAX_STEPS = 50
LOOK_EVERY_S = 1.0
DAY_S = 86_400.0
HARDNESS = (Effect.REVERSIBLE, Effect.DISRUPTIVE, Effect.IRREVERSIBLE)


class PlanStep(Arguments):
    """One step: an operation, its arguments, and what the approval of the plan binds it to."""

    operation: str
    arguments: dict[str, Any]
    binding_digest: str


class PlanArguments(Arguments):
    """The steps, in order."""

    plan_id: str
    steps: Annotated[list[PlanStep], Field(min_length=1, max_length=MAX_STEPS)]


class RunPlan(Operation[PlanArguments]):
    """Carry out the steps in order, each one a change of its own; halt at the first that fails."""

    arguments = PlanArguments
    deadline_s = 60.0
    act_timeout_s = DAY_S
    resumes = True  # its steps are rows: those that are there are not begun again

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def target(self, arguments: PlanArguments) -> Target:
        """The plan itself; the steps lock what they act on."""
        return Target(kind="plan", id=arguments.plan_id)

    def facts(self, arguments: PlanArguments) -> tuple[FactNeed, ...]:
        """Everything that any step needs, as young as the strictest of them needs it."""
        needs: dict[tuple[str, Target], FactNeed] = {}
        for operation, parsed in self._parsed(arguments):
            for need in operation.facts(parsed):
                key = (need.kind, need.subject)
                if key not in needs or need.max_age_s < needs[key].max_age_s:
                    needs[key] = need
        return tuple(needs.values())

    def claims(self, arguments: PlanArguments) -> tuple[Claim, ...]:
        """Everything that any step claims, once."""
        found: list[Claim] = []
        for operation, parsed in self._parsed(arguments):
            found += [claim for claim in operation.claims(parsed) if claim not in found]
        return tuple(found)

    def blast_radius(self, arguments: PlanArguments, facts: FactSet) -> BlastRadius:
        """The reach of all steps together."""
        reach = BlastRadius()
        for operation, parsed in self._parsed(arguments):
            reach |= operation.blast_radius(parsed, facts)
        return reach

    async def execute(self, arguments: PlanArguments, key: str) -> dict[str, Any]:
        """Begin one step after the other has succeeded.

        Raises:
            ComponentError: a step did not succeed; those after it were not begun.
        """
        for number, step in enumerate(arguments.steps):
            child = await self._end_of_step(key, number, step)
            if child.state is not ChangeState.SUCCEEDED:
                raise ComponentError("plan", "HALTED", f"step {number + 1}: {child.sentence()}")
        return {"steps": len(arguments.steps)}

    async def read_back(self, arguments: PlanArguments) -> ReadBack:
        """How far it came; a step that still runs leaves it unknown."""
        children = await self._children(arguments.plan_id)
        states = [str(child.state) for child in children]
        if any(not child.ended for child in children):
            return ReadBack(happened=Happened.UNKNOWN, evidence={"steps": states})
        done = sum(child.state is ChangeState.SUCCEEDED for child in children)
        happened = Happened.PARTLY
        if done in {0, len(arguments.steps)}:
            happened = Happened.YES if done else Happened.NO
        return ReadBack(happened=happened, evidence={"steps": states})

    async def verify(self, arguments: PlanArguments, before: FactSet, since: datetime) -> Verdict:
        """Every step was verified by its own independent source."""
        children = await self._children(arguments.plan_id)
        held = len(children) == len(arguments.steps) and all(
            child.state is ChangeState.SUCCEEDED for child in children
        )
        return Verdict(held=Held.YES if held else Held.NO, source="the steps' own verification")

    async def _end_of_step(self, plan_id: str, number: int, step: PlanStep) -> Change:
        plan = await self._guard.get(plan_id)
        now = self._guard.clock.now()
        child = child_of(
            self._guard,
            plan,
            number,
            step.operation,
            step.arguments,
            step.binding_digest,
            created_at=now,
            expires_at=now + timedelta(seconds=self._guard.rules.approval_expires_s),
        )
        await self._guard.store.write(lambda connection: changes.insert_once(connection, child))
        self._guard.wake_worker()
        while True:
            child = await self._guard.get(child.change_id)
            if child.ended:
                return child
            await self._guard.clock.sleep(LOOK_EVERY_S)

    async def _children(self, plan_id: str) -> list[Change]:
        return await self._guard.store.read(
            lambda connection: changes.children(connection, plan_id)
        )

    def _parsed(self, arguments: PlanArguments) -> list[tuple[Operation[Any], Arguments]]:
        pairs: list[tuple[Operation[Any], Arguments]] = []
        for step in arguments.steps:
            operation = self._guard.operation(step.operation)
            if isinstance(operation, RunPlan):
                raise InvalidRequestError("steps: a plan holds changes, not plans")
            pairs.append((operation, parse(operation, step.arguments)))
        return pairs


class RunReversiblePlan(RunPlan):
    """Carry out reversible changes in order, under one approval; halt at the first that fails."""

    name: ClassVar[str] = "plan.run_reversible"
    effect: ClassVar[Effect] = Effect.REVERSIBLE


class RunDisruptivePlan(RunPlan):
    """Carry out changes of which one is disruptive, in order, under one approval."""

    name: ClassVar[str] = "plan.run_disruptive"
    effect: ClassVar[Effect] = Effect.DISRUPTIVE


class RunIrreversiblePlan(RunPlan):
    """Carry out changes of which one is irreversible, in order, under one approval."""

    name: ClassVar[str] = "plan.run_irreversible"
    effect: ClassVar[Effect] = Effect.IRREVERSIBLE


PLANS: tuple[type[RunPlan], ...] = (RunReversiblePlan, RunDisruptivePlan, RunIrreversiblePlan)


def effects(operations: Sequence[Operation[Any]]) -> dict[str, Effect]:
    """What a policy must know: the effect of every operation, plans among them."""
    plans = {plan.name: plan.effect for plan in PLANS}
    return {op.name: op.effect for op in operations} | plans


def offer_plans(guard: Guard) -> None:
    """Let this guard carry out plans of its operations."""
    for kind in PLANS:
        plan = kind(guard)
        guard.operations[plan.name] = plan


async def propose_plan(
    guard: Guard,
    requester: Principal,
    steps: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    reason: str,
    dry_run: bool,
) -> Change:
    """Assess every step as things stand and propose them as one change.

    Raises:
        InvalidRequestError, NotFoundError: a step can never work; names it.
        InvalidRequestError: policy refuses a step by itself; nothing was proposed.
    """
    now = guard.clock.now()
    planned: list[PlanStep] = []
    hardest = Effect.REVERSIBLE
    for number, (name, arguments) in enumerate(steps):
        operation = guard.operation(name)
        parsed = parse(operation, arguments)
        assessment = await guard.assess(requester, operation, parsed, now)
        if assessment.decision.answer is Answer.REFUSE:
            raise InvalidRequestError(f"steps: step {number + 1}: {assessment.why()}")
        plain = parsed.model_dump(mode="json")
        action = digest_of_action(name, operation.target(parsed), plain, requester, reason)
        bound = binding_digest(action, assessment.decision, assessment.facts)
        planned.append(PlanStep(operation=name, arguments=plain, binding_digest=bound))
        hardest = max(hardest, operation.effect, key=HARDNESS.index)
    plan_id = changes.new_change_id()
    wanted = PlanArguments(plan_id=plan_id, steps=planned).model_dump(mode="json")
    return await guard.propose(
        requester,
        PLANS[HARDNESS.index(hardest)].name,
        wanted,
        reason=reason,
        dry_run=dry_run,
        change_id=plan_id,
    )


def child_of(
    guard: Guard,
    parent: Change,
    number: int,
    operation_name: str,
    arguments: Mapping[str, Any],
    bound: str | None,
    **more: Any,
) -> Change:
    """The change that is this step of that parent; the same every time it is asked for."""
    operation = guard.operation(operation_name)
    parsed = parse(operation, arguments)
    plain = parsed.model_dump(mode="json")
    target = operation.target(parsed)
    name = hashlib.sha256(f"{parent.change_id}/{number}".encode()).hexdigest()[:12]
    return parent.model_copy(
        update={
            "change_id": f"chg-{name}",
            "operation": operation_name,
            "effect": operation.effect,
            "arguments": plain,
            "target": target,
            "state": ChangeState.AUTHORISED,
            "action_digest": digest_of_action(
                operation_name, target, plain, parent.requester, parent.reason
            ),
            "binding_digest": bound,
            "facts": (),
            "blast_radius": None,
            "votes": (),
            "glass_broken": None,
            "evidence": {},
            "parent_id": parent.change_id,
            "history": parent.history[:1],
            **more,
        }
    )
