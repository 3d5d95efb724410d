"""What is found out about a change, and the decision with all that it rests on."""

from typing import NamedTuple

from interlock_guardrails.facts import Gathered, Unconfirmed
from interlock_policies.situation import Situation
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.decision import Decision
from interlock_tools.fact import FactSet

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
