"""Explain: why a policy decided so, found out by asking it again with single facts changed.

Whether a rule fires is always the engine's answer to that rule alone. From the rule's text comes
only which facts are worth changing and to what.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, product
from typing import Any, NamedTuple

from interlock_policies.bench.dimensions import Dimension, Setting, dimensions
from interlock_policies.bench.replay import (
    NotReplayableError,
    decision_of,
    situation_of,
)
from interlock_policies.bench.syntax import Tree, id_of, reads_of, rules_in, text_of
from interlock_policies.bench.words import (
    approvers_in_words,
    facts_in_words,
    settings_in_words,
    situation_in_words,
    text_of_lines,
)
from interlock_policies.decide import decide
from interlock_policies.gate import PolicyGate
from interlock_policies.rules import Rule
from interlock_policies.situation import Situation, merged
from interlock_tools.change import Change
from interlock_tools.decision import Answer, Decision

MOST_CHANGES = 3  # facts at once; what takes more is another request
_NOT_A_FACT = {"operation", "who asks"}  # changed only where no fact will do

Settings = tuple[Setting, ...]


class RuleAsked(NamedTuple):
    """One rule in one situation.

    Attributes:
        rule: the rule.
        fired: whether its own conditions are met, with the votes given.
        because: the facts that it turns on, as they are; each of them alone would turn it.
        would_turn: the nearest facts with which it would be the other way; None if more than
            `MOST_CHANGES` would have to differ, or nothing would do.
    """

    rule: Rule
    fired: bool
    because: tuple[str, ...]
    would_turn: Settings | None

    @property
    def about_other_operations(self) -> bool:
        """Whether it does not fire because of what is asked for, and no fact would change that."""
        turned_by = {setting.dimension for setting in self.would_turn or ()}
        return not self.fired and "operation" in turned_by


class Explanation(NamedTuple):
    """Why a policy decides so in this situation.

    Attributes:
        situation: the situation.
        decision: what it decides.
        rules: every rule.
        to_be_possible: for a refusal, what would have to be different, and what the policy then
            answers; None where nothing near was found.
    """

    situation: Situation
    decision: Decision
    rules: tuple[RuleAsked, ...]
    to_be_possible: tuple[Settings, Decision] | None


def explain(subject: Situation | Change | Mapping[str, Any], gate: PolicyGate) -> str:
    """The explanation in words, of a situation, a change, or a `decided` record of the ledger.

    A change does not carry its situation, and older records do not: then it says what was
    recorded and that the rest cannot be found out again.
    """
    if isinstance(subject, Situation):
        return in_words(explanation(subject, gate))
    if isinstance(subject, Change):
        if subject.decision is None:
            return f"{subject.change_id} was not decided."
        return _without_situation(subject.decision, "a change does not carry its situation")
    try:
        recorded = decision_of(subject)
    except NotReplayableError as error:
        return f"This cannot be explained: {error}."
    try:
        situation = situation_of(subject)
    except NotReplayableError as error:
        return _without_situation(recorded, str(error))
    found = explanation(situation, gate)
    return "\n\n".join([_recorded(recorded, found.decision), in_words(found)])


def explanation(situation: Situation, gate: PolicyGate) -> Explanation:
    """Ask every rule alone, as things are and with facts changed."""
    trees = [(file, tree) for file, text in gate.policies.items() for tree in rules_in(text)]
    alone = {id_of(tree): _Alone(file, tree, gate, situation) for file, tree in trees}
    rules = tuple(alone[rule.rule_id].asked(rule) for rule in gate.rules)
    decision = decide(gate, situation)
    to_be_possible = None
    if decision.answer is Answer.REFUSE:
        to_be_possible = _to_be_possible(situation, gate, rules)
    return Explanation(situation, decision, rules, to_be_possible)


def in_words(found: Explanation) -> str:
    """The explanation as text for a person."""
    lines = [*situation_in_words(found.situation), "", f"Decision: {found.decision.sentence()}"]
    lines += [f"  {line}" for line in approvers_in_words(found.decision, found.situation)]
    if found.decision.answer is Answer.REFUSE:
        if found.to_be_possible is None:
            lines.append("  Nothing near this situation was found that would be possible.")
        else:
            settings, then = found.to_be_possible
            lines.append(f"  It would be possible with {settings_in_words(settings)}. Then:")
            lines.append(f"  {then.sentence()}")
    elsewhere = [asked for asked in found.rules if asked.about_other_operations]
    for title, fired in (("Rules that fired", True), ("Rules that did not fire", False)):
        lines += ["", f"{title}:"]
        ours = [one for one in found.rules if one.fired is fired and one not in elsewhere]
        lines += [line for asked in ours for line in _rule_in_words(asked)] or ["  none"]
    if elsewhere:
        names = ", ".join(asked.rule.rule_id for asked in elsewhere)
        lines += ["", f"Rules about other operations: {names}."]
    return text_of_lines(lines)


class _Alone:
    """One rule by itself, in one situation."""

    def __init__(self, file: str, tree: Tree, gate: PolicyGate, situation: Situation) -> None:
        self._gate = PolicyGate({file: text_of([tree])}, gate.operations)
        self._situation = situation
        self._document = situation.model_dump()
        self._varied = dimensions([tree], gate.operations, self._document, same_site=True).varied
        self._looked_at = {path.partition(".")[2] for path in reads_of([tree])}

    def fires(self, situation: Situation) -> bool:
        """Whether it is met; asked with the votes given, which are no fact."""
        return bool(self._gate.evaluate(situation, quorum_voted=True).rules)

    def asked(self, rule: Rule) -> RuleAsked:
        """Whether it fires, on what that turns, and what would turn it."""
        fired = self.fires(self._situation)
        facts = [one for one in self._varied if one.name not in _NOT_A_FACT]
        turning = [
            dimension.name
            for dimension in self._varied
            if any(self._turns((setting,), fired) for setting in dimension.settings)
        ]
        would_turn = next(
            (
                settings
                for varied in (facts, self._varied)
                for settings in _changes(varied)
                if self._turns(settings, fired)
            ),
            None,
        )
        names = [one.name for one in facts if one.name in turning]
        names = names or turning or [setting.dimension for setting in would_turn or ()]
        because = facts_in_words(self._situation, names, self._looked_at)
        return RuleAsked(rule, fired, because, would_turn)

    def _turns(self, settings: Settings, fired: bool) -> bool:
        return self.fires(changed(self._document, settings)) != fired


def changed(document: Mapping[str, Any], settings: Iterable[Setting]) -> Situation:
    """The situation of this document with these settings."""
    for setting in settings:
        document = merged(document, setting.patch)
    return Situation.model_validate(document)


def _changes(varied: Iterable[Dimension]) -> Iterator[Settings]:
    """Settings to try, the fewest first and the nearest of those first."""
    listed = list(varied)
    for count in range(1, MOST_CHANGES + 1):
        for some in combinations(listed, count):
            yield from product(*(dimension.settings for dimension in some))


def _to_be_possible(
    situation: Situation, gate: PolicyGate, rules: Iterable[RuleAsked]
) -> tuple[Settings, Decision] | None:
    """What has to differ for the answer not to be a refusal; it is tried before it is said."""
    document = situation.model_dump()
    listed = list(rules)
    forbids = [asked for asked in listed if asked.fired and not asked.rule.permits]
    if any(asked.would_turn is None for asked in forbids):
        return None
    needed = {s.dimension: s for asked in forbids for s in asked.would_turn or ()}
    permits = [a.would_turn or () for a in listed if a.rule.permits and not a.fired]
    for opening in ((), *sorted(permits, key=len)):
        settings = tuple((needed | {setting.dimension: setting for setting in opening}).values())
        if not settings:
            continue
        then = decide(gate, changed(document, settings))
        if then.answer is not Answer.REFUSE:
            return settings, then
    return None


def _rule_in_words(asked: RuleAsked) -> Iterator[str]:
    rule = asked.rule
    verb = "permits" if rule.permits else "forbids"
    if rule.quorum is not None:
        verb = f"permits once {rule.quorum.people} x {rule.quorum.role} voted"
    yield f"  {rule.rule_id} ({verb}): {rule.reason}"
    turn = "not fire" if asked.fired else "fire"
    if asked.because:
        yield f"      because {', '.join(asked.because)}"
    if asked.would_turn is None:
        yield f"      no {MOST_CHANGES} of the facts that it looks at would change that"
    else:
        yield f"      it would {turn} with {settings_in_words(asked.would_turn)}"


def _recorded(recorded: Decision, now: Decision) -> str:
    if recorded == now:
        return "Recorded, and decided so again by the same policy."
    same = recorded.policy_version == now.policy_version
    which = "the same policy" if same else "a policy of another version than the one asked here"
    by = f"(decided by {which}, {recorded.policy_version[:12]})"
    return text_of_lines([f"Recorded: {recorded.sentence()}", by])


def _without_situation(decision: Decision, why: str) -> str:
    lines = [f"Decision: {decision.sentence()}"]
    if decision.quorum is not None:
        lines += approvers_in_words(decision, None)
    lines.append(f"Why each rule did or did not fire cannot be found out again: {why}.")
    return text_of_lines(lines)
