"""Decide: ask as things stand and as if the quorum had voted, and say which rules spoke."""

from interlock_policies.gate import Evaluation, PolicyGate
from interlock_policies.rules import strictest
from interlock_policies.situation import Situation
from interlock_tools.decision import Answer, Decision, RuleHit

NO_RULE_PERMITS = "no-rule-permits"
NO_USABLE_ANSWER = "policy-gave-no-answer"


def decide(gate: PolicyGate, situation: Situation) -> Decision:
    """Allow, or require the quorum under which a permit would apply, or refuse.

    A refusal names the forbids that fired; where none did, `no-rule-permits`, or
    `policy-gave-no-answer` with what went wrong. Never raises for a situation.
    """
    now = gate.evaluate(situation, quorum_voted=False)
    if now.trouble:
        return _refused(gate, situation, now)
    if allowed := _unattended(gate, now):
        return allowed
    voted = gate.evaluate(situation, quorum_voted=True)
    quorum = strictest(voted.rules)
    if not voted.allowed or quorum is None:
        return _refused(gate, situation, voted)
    return Decision(
        answer=Answer.REQUIRE_APPROVAL,
        rules=tuple(rule.hit for rule in voted.rules if rule.quorum),
        policy_version=gate.version,
        quorum=quorum,
    )


def still_allowed(gate: PolicyGate, situation: Situation, *, quorum_voted: bool = True) -> Decision:
    """Allow or refuse at the moment of execution; `quorum_voted`: people have approved.

    The quorum of the answer is what the rules ask for now: a caller who holds fewer votes than
    that holds none. It is None where nobody has to vote.
    """
    found = gate.evaluate(situation, quorum_voted=quorum_voted)
    if allowed := _unattended(gate, found):
        return allowed
    if not (found.allowed and quorum_voted):
        return _refused(gate, situation, found)
    return Decision(
        answer=Answer.ALLOW,
        rules=tuple(rule.hit for rule in found.rules),
        policy_version=gate.version,
        quorum=strictest(found.rules),
    )


def _unattended(gate: PolicyGate, found: Evaluation) -> Decision | None:
    """Allow by the rules that ask for nobody; a rule that asks for people never counts here."""
    rules = tuple(rule.hit for rule in found.rules if rule.quorum is None)
    if not (found.allowed and rules):
        return None
    return Decision(answer=Answer.ALLOW, rules=rules, policy_version=gate.version)


def _refused(gate: PolicyGate, situation: Situation, found: Evaluation) -> Decision:
    rules = tuple(rule.hit for rule in found.rules if not rule.permits)
    if found.trouble:
        sentence = f"The policy gave no usable answer, and that is a no: {found.trouble}."
        rules = (RuleHit(rule_id=NO_USABLE_ANSWER, reason=sentence),)
    if not rules:
        sentence = f"No rule of this policy permits {situation.operation} in this situation."
        rules = (RuleHit(rule_id=NO_RULE_PERMITS, reason=sentence),)
    return Decision(answer=Answer.REFUSE, rules=rules, policy_version=gate.version)
