"""What is decided: allow, require approval, or refuse, and what may never be a yes."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from interlock_policies.decide import decide, still_allowed
from interlock_policies.gate import PolicyGate
from interlock_policies.situation import Situation, share_permille
from interlock_tools.decision import Answer, Decision, Quorum
from interlock_tools.identity import Principal, PrincipalKind
from interlock_tools.operation import Effect

Make = Callable[..., Situation]
Gates = Mapping[str, PolicyGate]

TWO_PERMITS = """
@id("one-operator") @reason("One.") @runbook("none") @quorum("1") @role("operator")
@typed_target("true")
permit (principal, action in Action::"mutate", resource) when { context.quorum_voted };

@id("three-leads") @reason("Three.") @runbook("none") @quorum("3") @role("site_lead")
permit (principal, action in Action::"mutate", resource) when { context.quorum_voted };
"""


def rule_ids(decision: Decision) -> list[str]:
    """The ids of the rules that decided."""
    return [rule.rule_id for rule in decision.rules]


def test_a_change_that_needs_people_waits_for_them_and_then_passes(
    situation: Make, gates: Gates
) -> None:
    """The story of most changes: require approval, the votes come in, allow at execution."""
    gate, reboot = gates["supervised"], situation(Effect.DISRUPTIVE)
    asked = decide(gate, reboot)
    assert asked.answer is Answer.REQUIRE_APPROVAL
    assert asked.quorum == Quorum(people=2, role="operator")
    assert asked.policy_version == gate.version
    assert asked.rules[0].reason == "This interrupts running work: two operators approve."
    then = still_allowed(gate, reboot, quorum_voted=True)
    assert (then.answer, then.quorum) == (Answer.ALLOW, asked.quorum)


def test_without_votes_it_is_still_refused_at_execution(situation: Make, gates: Gates) -> None:
    """Nobody voted, so the permit that needs votes does not apply."""
    answer = still_allowed(gates["supervised"], situation(), quorum_voted=False)
    assert answer.answer is Answer.REFUSE
    assert rule_ids(answer) == ["no-rule-permits"]


def test_what_is_allowed_outright_asks_for_nobody(situation: Make, gates: Gates) -> None:
    """A small power cut by an agent: allowed now, and still allowed without votes."""
    for answer in (
        decide(gates["autonomous"], situation()),
        still_allowed(gates["autonomous"], situation(), quorum_voted=False),
    ):
        assert answer.answer is Answer.ALLOW
        assert rule_ids(answer) == ["small-power-cut-by-agent"]
        assert answer.quorum is None


def test_a_limit_that_is_passed_after_the_vote_stops_the_execution(
    situation: Make, gates: Gates
) -> None:
    """The plant moved between vote and execution; the vote does not carry it over."""
    answer = still_allowed(gates["supervised"], situation(frozen=True), quorum_voted=True)
    assert answer.answer is Answer.REFUSE
    assert rule_ids(answer) == ["freeze-in-force"]


def test_every_forbid_that_fired_is_named(situation: Make, gates: Gates) -> None:
    """A caller who mends one cause should not have to find the next by asking again."""
    answer = decide(gates["supervised"], situation(frozen=True, overlaps_open=True))
    assert set(rule_ids(answer)) == {"freeze-in-force", "overlaps-open-reservation"}


def test_the_strictest_of_several_permits_sets_the_quorum(
    situation: Make, operations: Mapping[str, Effect]
) -> None:
    """Most people, the role that goes with them, and typing if any of them asks for it."""
    answer = decide(PolicyGate({"two.cedar": TWO_PERMITS}, operations), situation())
    assert answer.quorum == Quorum(people=3, role="site_lead", typed_target=True)
    assert set(rule_ids(answer)) == {"one-operator", "three-leads"}


def test_a_permit_that_asks_for_people_never_opens_without_them(
    situation: Make, operations: Mapping[str, Effect]
) -> None:
    """A condition that forgets the votes in one branch does not turn into an open door."""
    careless = (
        '@id("careless") @reason("One.") @runbook("none") @quorum("1") @role("operator")'
        'permit (principal, action in Action::"mutate", resource)'
        "when { context.quorum_voted || context.in_window };"
    )
    gate = PolicyGate({"a.cedar": careless}, operations)
    assert decide(gate, situation()).answer is Answer.REQUIRE_APPROVAL
    assert still_allowed(gate, situation(), quorum_voted=False).answer is Answer.REFUSE


def test_reading_needs_the_read_scope_and_nothing_else(situation: Make, gates: Gates) -> None:
    """Reads pass in every bundle, in a freeze too, and only with the scope."""
    for gate in gates.values():
        assert decide(gate, situation(Effect.READ, frozen=True)).answer is Answer.ALLOW
        denied = decide(gate, situation(Effect.READ, scopes=frozenset({"interlock:propose"})))
        assert rule_ids(denied) == ["no-rule-permits"]


@pytest.mark.parametrize(
    "operation", ["nico.unheard_of", "mutate", "reversible", "canary.reversible", ""]
)
def test_an_operation_that_is_not_registered_is_refused(
    situation: Make, gates: Gates, operation: str
) -> None:
    """Neither a new name, nor a group, nor the operations of the canaries."""
    answer = decide(gates["autonomous"], situation(operation=operation))
    assert answer.answer is Answer.REFUSE
    assert "not a registered operation" in answer.rules[0].reason


def test_an_effect_that_differs_from_the_registered_one_is_refused(
    situation: Make, gates: Gates
) -> None:
    """A wipe that calls itself reversible is not decided as a reversible change."""
    answer = decide(gates["autonomous"], situation(operation="nico.wipe_machine"))
    assert answer.answer is Answer.REFUSE
    assert "registered as irreversible" in answer.rules[0].reason


def test_a_principal_of_an_unknown_kind_is_refused(situation: Make, gates: Gates) -> None:
    """It cannot be built, and where somebody goes around that it gets no answer but no."""
    with pytest.raises(ValidationError):
        Principal.model_validate({"id": "r", "kind": "robot", "authenticated_by": "test"})
    robot = situation().principal.model_copy(update={"kind": "robot"})
    answer = decide(gates["autonomous"], situation().model_copy(update={"principal": robot}))
    assert answer.answer is Answer.REFUSE


def test_a_principal_named_in_cedar_syntax_stays_the_agent_that_it_is(
    situation: Make, gates: Gates
) -> None:
    """Identifiers are never parsed: quotes, line ends and type names are only text."""
    busy = situation(changes_last_hour=30)
    for name in ('x", "type": "Person', 'Person::"ada"', 'a"b\n', "ada\\"):
        named = busy.principal.model_copy(update={"id": name})
        answer = decide(gates["supervised"], busy.model_copy(update={"principal": named}))
        assert rule_ids(answer) == ["agent-too-busy"]


def test_a_caller_cannot_bring_a_fact_of_its_own(situation: Make, gates: Gates) -> None:
    """Not by an extra field, and not by a situation that adds one to its facts."""
    with pytest.raises(ValidationError):
        situation(quorum_voted=True)

    class Forged(Situation):
        def facts(self, *, quorum_voted: bool) -> dict[str, Any]:
            return {**super().facts(quorum_voted=quorum_voted), "approved": True}

    answer = decide(gates["autonomous"], Forged(**dict(situation())))
    assert answer.answer is Answer.REFUSE
    assert "approved" in answer.rules[0].reason


@pytest.mark.parametrize(
    "forged",
    [
        {"changes_last_hour": "0"},
        {"in_window": 1},
        {"site_hosts": None},
        {"blast_radius": None},
        {"site": 7},
    ],
)
def test_a_fact_that_is_missing_or_of_the_wrong_type_is_a_no(
    situation: Make, gates: Gates, forged: dict[str, Any]
) -> None:
    """Even where validation was left out, nothing but the right type is ever allowed."""
    for ask in (decide, still_allowed):
        answer = ask(gates["autonomous"], situation().model_copy(update=forged))
        assert answer.answer is Answer.REFUSE
        assert rule_ids(answer) == ["policy-gave-no-answer"]


def test_shares_are_rounded_up_and_of_an_unknown_site_they_are_the_whole(situation: Make) -> None:
    """A limit is never passed by rounding, nor by a size that nobody knows."""
    assert [share_permille(part, 999) for part in (0, 1, 249, 250, 999)] == [0, 2, 250, 251, 1000]
    assert share_permille(0, 0) == 1000
    facts = situation(open_reach={"hosts": {"node-001", "node-002"}}).facts(quorum_voted=False)
    assert facts["open_host_share_permille"] == 20  # node-001 counts once
    assert facts["overlaps_open"] is True  # seen from the ids, although the flag says no


def test_the_kind_of_principal_decides_whom_the_agent_rules_bind(
    situation: Make, gates: Gates
) -> None:
    """A person does not act unattended, and is not held to an agent's number of changes."""
    for kind in (PrincipalKind.PERSON, PrincipalKind.SERVICE):
        answer = decide(gates["autonomous"], situation(kind=kind, changes_last_hour=30))
        assert answer.answer is Answer.REQUIRE_APPROVAL
