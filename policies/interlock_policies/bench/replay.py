"""Replay: what a policy would have decided on the past that the ledger records.

It reads the situation that the guard recorded beside each decision. Where there is none it says so
and does not guess.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import ValidationError

from interlock_policies.decide import decide
from interlock_policies.gate import PolicyGate
from interlock_policies.situation import Situation
from interlock_tools.decision import Answer, Decision
from interlock_tools.operation import Effect

DECIDED = "decided"  # the kind of ledger record that is replayed

# Refusals of the guard itself: in the first no policy was asked, in the second it had not refused.
FACTS_UNKNOWN = "facts-unknown"
COMPONENT_REFUSES = "component-refuses"


class Compared(StrEnum):
    """The answer of this policy beside the recorded one."""

    SAME = "same"
    OTHER_RULES = "same answer, other rules or people"
    LOOSER = "looser"
    STRICTER = "stricter"
    NOT_COMPARED = "refused by the component, so the policy's own answer is not recorded"


class Replayed(NamedTuple):
    """One decision of the past, and what this policy says to it."""

    change_id: str
    at: str
    situation: Situation
    was: Decision
    now: Decision
    compared: Compared

    def sentence(self) -> str:
        """One line for a person."""
        what = f"{self.situation.operation} on {self.situation.target}"
        return (
            f"{self.at} {self.change_id} {what}: {self.compared}; "
            f"was {self.was.sentence()} now {self.now.sentence()}"
        )


class Replay(NamedTuple):
    """The whole past.

    Attributes:
        replayed: the decisions that could be asked again, in the order of the ledger.
        not_replayable: why others could not, and how many.
    """

    replayed: tuple[Replayed, ...]
    not_replayable: Mapping[str, int]

    @property
    def decided(self) -> int:
        """How many decisions the ledger holds."""
        return len(self.replayed) + sum(self.not_replayable.values())

    def of(self, compared: Compared) -> tuple[Replayed, ...]:
        """The decisions that compare like this."""
        return tuple(one for one in self.replayed if one.compared is compared)

    @property
    def contradicted(self) -> tuple[Replayed, ...]:
        """The very policy that decided answers otherwise: what was recorded is not what it saw."""
        return tuple(
            one
            for one in self.replayed
            if one.was.policy_version == one.now.policy_version
            and one.compared not in {Compared.SAME, Compared.NOT_COMPARED}
        )


class NotReplayableError(ValueError):
    """This record cannot be asked again; says why."""


def replay(records: Iterable[Mapping[str, Any]], gate: PolicyGate) -> Replay:
    """Ask this policy what it would have decided in each `decided` record; others are passed over.

    It never raises for a record: one that cannot be read is counted with its reason.
    """
    found: list[Replayed] = []
    missed: Counter[str] = Counter()
    for record in records:
        if record.get("kind") != DECIDED:
            continue
        try:
            found.append(_replay_one(record, gate))
        except NotReplayableError as error:
            missed[str(error)] += 1
    return Replay(tuple(found), dict(missed))


def situation_of(record: Mapping[str, Any]) -> Situation:
    """The situation in a `decided` record, exactly as the policy was asked about it.

    Raises:
        NotReplayableError: there is none, or it is none that we can read.
    """
    body = record.get("body", {})
    recorded = body.get("situation")
    if recorded is None:
        if FACTS_UNKNOWN in _rule_ids(body):
            raise NotReplayableError("its facts were unknown, so that no policy was asked")
        raise NotReplayableError("the record holds no situation")
    try:
        return Situation.model_validate(recorded)
    except ValidationError as error:
        fields = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
        where = ", ".join(sorted(fields)) or "the whole"
        raise NotReplayableError(f"its situation cannot be read: {where}") from error


def decision_of(record: Mapping[str, Any]) -> Decision:
    """The decision in a `decided` record.

    Raises:
        NotReplayableError: there is none that we can read.
    """
    try:
        return Decision.model_validate(record.get("body", {}).get("decision"))
    except ValidationError as error:
        raise NotReplayableError("its decision cannot be read") from error


def operations_in(records: Iterable[Mapping[str, Any]]) -> dict[str, Effect]:
    """The operations that the records were about; the newest effect of each counts."""
    found: dict[str, Effect] = {}
    for record in records:
        if record.get("kind") == DECIDED:
            try:
                situation = situation_of(record)
            except NotReplayableError:
                continue
            found[situation.operation] = situation.effect
    return found


def _replay_one(record: Mapping[str, Any], gate: PolicyGate) -> Replayed:
    situation, was = situation_of(record), decision_of(record)
    if gate.operations.get(situation.operation) is not situation.effect:
        raise NotReplayableError(
            f"{situation.operation} ({situation.effect}) is not registered with this policy"
        )
    now = decide(gate, situation)
    change_id = str(record["body"].get("change_id"))
    return Replayed(
        change_id, str(record.get("at")), situation, was, now, compare(was=was, now=now)
    )


def compare(*, was: Decision, now: Decision) -> Compared:
    """How an answer compares with the one before it."""
    if any(rule.rule_id == COMPONENT_REFUSES for rule in was.rules):
        # It got as far as the component, so the policy had not refused it then.
        return Compared.STRICTER if now.answer is Answer.REFUSE else Compared.NOT_COMPARED
    before, after = _strictness(was), _strictness(now)
    if after != before:
        return Compared.LOOSER if after < before else Compared.STRICTER
    rules_differ = {rule.rule_id for rule in was.rules} != {rule.rule_id for rule in now.rules}
    return Compared.OTHER_RULES if rules_differ or was.quorum != now.quorum else Compared.SAME


def _strictness(decision: Decision) -> tuple[int, int, bool]:
    """Allow, then by how many people and whether they type the target, then refuse."""
    if decision.answer is Answer.REQUIRE_APPROVAL and decision.quorum is not None:
        return 1, decision.quorum.people, decision.quorum.typed_target
    return (0 if decision.answer is Answer.ALLOW else 2), 0, False


def _rule_ids(body: Mapping[str, Any]) -> set[str]:
    decision = body.get("decision")
    rules = decision.get("rules", []) if isinstance(decision, dict) else []
    return {str(rule.get("rule_id")) for rule in rules if isinstance(rule, dict)}
