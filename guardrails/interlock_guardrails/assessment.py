"""What is found out about a change, and the decision with all that it rests on."""

from typing import Any, NamedTuple

from interlock_guardrails.facts import Gathered, Unconfirmed
from interlock_policies.situation import Situation
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.decision import Answer, Decision, RuleHit
from interlock_tools.errors import FactoryError
from interlock_tools.fact import FactSet
from interlock_tools.operation import Arguments, DryRun, Operation

SHOWN = 5  # of what is unknown or not confirmed


class Seen(NamedTuple):
    """What the sources say about a change, and whom it reaches; None while a fact is unknown."""

    gathered: Gathered
    reach: BlastRadius | None


class Assessment(NamedTuple):
    """Steps 2 and 3 of a change's life: the facts, the reach and the decision."""

    facts: FactSet
    reach: BlastRadius | None
    decision: Decision
    overlaps: bool = False  # with what another change has reserved
    situation: Situation | None = None
    unconfirmed: tuple[Unconfirmed, ...] = ()

    def why(self) -> str:
        """The decision in a sentence, with the names of what would break or is not confirmed."""
        broken = "" if self.reach is None else self.reach.broken()
        claims = "; ".join(item.sentence() for item in self.unconfirmed[:SHOWN])
        return " ".join(part for part in (self.decision.sentence(), broken, claims) if part)


async def rehearse(
    operation: Operation[Any], arguments: Arguments, assessment: Assessment
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
        policy_version=assessment.decision.policy_version,
    )
    return rehearsal, assessment._replace(decision=refusal)
