"""What a policy would have decided on the recorded past, and what cannot be asked again."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from interlock_guardrails.ledger.records import RecordKind
from interlock_policies.bench.replay import (
    Compared,
    Replay,
    compare,
    operations_in,
    replay,
    situation_of,
)
from interlock_policies.bundles import load_bundle
from interlock_policies.decide import decide
from interlock_policies.gate import PolicyGate
from interlock_policies.situation import Situation
from interlock_tools.decision import Answer, Decision, Quorum, RuleHit
from interlock_tools.operation import Effect
from tests.policies.bench.records import decided, decided_body, recorded, refused_by_guard

Make = Callable[..., Situation]
Gates = Mapping[str, PolicyGate]


def only(found: Replay) -> Compared:
    """How the one decision compares."""
    (one,) = found.replayed
    return one.compared


def test_a_recorded_situation_is_exactly_the_one_that_was_decided_on(
    situation: Make, gates: Gates
) -> None:
    """Nothing is lost or masked on its way through the ledger; otherwise no replay is true."""
    asked = situation(
        Effect.DISRUPTIVE,
        reach={"racks": {"rack-1"}, "jobs": {"job-1"}, "tenants": {"tenant-1"}},
        open_reach={"hosts": {"node-007", "node-008"}, "gpus": 16, "watts_moved": 900},
        protected={"node-009", "site/hall-1"},
        changes_last_hour=7,
        in_window=False,
    )
    assert situation_of(decided(gates["supervised"], asked)) == asked


def test_the_policy_that_decided_decides_the_same_again(situation: Make, gates: Gates) -> None:
    """The past holds under the policy of the past."""
    gate = gates["autonomous"]
    asked = [situation(), situation(frozen=True), situation(Effect.DISRUPTIVE)]
    found = replay([decided(gate, one) for one in asked], gate)
    assert [one.compared for one in found.replayed] == [Compared.SAME] * 3
    assert found.contradicted == ()
    assert found.decided == 3


def test_another_policy_says_where_it_is_looser_and_where_stricter(
    situation: Make, gates: Gates
) -> None:
    """Before a policy is put in force, its authors see what it would have let through."""
    cut = situation()
    assert only(replay([decided(gates["supervised"], cut)], gates["autonomous"])) == "looser"
    assert only(replay([decided(gates["autonomous"], cut)], gates["supervised"])) == "stricter"
    assert only(replay([decided(gates["supervised"], cut)], gates["observe"])) == "stricter"


def test_the_same_answer_by_other_people_is_told(situation: Make, gates: Gates) -> None:
    """One operator or one site lead: the same number, not the same policy."""
    one = decide(gates["supervised"], situation())
    lead = one.model_copy(update={"quorum": Quorum(people=1, role="site_lead")})
    assert compare(was=lead, now=one) is Compared.OTHER_RULES
    two = one.model_copy(update={"quorum": Quorum(people=2, role="operator")})
    assert compare(was=two, now=one) is Compared.LOOSER


def test_records_of_other_kinds_are_passed_over(situation: Make, gates: Gates) -> None:
    """Votes and outcomes are no decisions of the policy."""
    vote = recorded({"change_id": "chg-1", "voter": "person:operator-1"}, RecordKind.VOTE)
    found = replay([vote, decided(gates["observe"], situation())], gates["observe"])
    assert found.decided == 1


def without_situation(body: dict[str, Any]) -> None:
    """As the ledger was before the situation was recorded."""
    del body["situation"]


def with_unknown_facts(body: dict[str, Any]) -> None:
    """The guard refused before any policy was asked."""
    body["situation"] = None
    body["decision"] = refused_by_guard("facts-unknown").model_dump(mode="json")


def with_a_fact_of_a_newer_version(body: dict[str, Any]) -> None:
    """A field that this version does not know."""
    body["situation"]["moon_phase"] = "full"


def without_decision(body: dict[str, Any]) -> None:
    """A record that says nothing."""
    body["decision"] = None


def of_an_operation_that_is_gone(body: dict[str, Any]) -> None:
    """It is no longer registered."""
    body["situation"]["operation"] = "nico.forgotten"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (without_situation, "the record holds no situation"),
        (with_unknown_facts, "its facts were unknown, so that no policy was asked"),
        (with_a_fact_of_a_newer_version, "its situation cannot be read: moon_phase"),
        (without_decision, "its decision cannot be read"),
        (of_an_operation_that_is_gone, "nico.forgotten (reversible) is not registered"),
    ],
)
def test_what_cannot_be_asked_again_is_counted_with_its_reason(
    situation: Make, gates: Gates, spoil: Callable[[dict[str, Any]], None], why: str
) -> None:
    """A past with holes is told as that; nothing is guessed."""
    gate = gates["supervised"]
    body = decided_body(situation(), decide(gate, situation()))
    spoil(body)
    found = replay([recorded(body), decided(gate, situation())], gate)
    assert len(found.replayed) == 1
    ((said, count),) = found.not_replayable.items()
    assert said.startswith(why)
    assert (count, found.decided) == (1, 2)


def test_what_the_component_refused_is_compared_only_where_that_is_possible(
    situation: Make, gates: Gates
) -> None:
    """The policy had not refused it; what it had answered instead is not recorded."""
    record = recorded(decided_body(situation(), refused_by_guard("component-refuses")))
    assert only(replay([record], gates["supervised"])) is Compared.NOT_COMPARED
    assert only(replay([record], gates["observe"])) is Compared.STRICTER


def test_a_record_that_its_own_policy_contradicts_is_called_out(
    situation: Make, gates: Gates
) -> None:
    """Same policy, same situation, another answer: then one of the two was not what it saw."""
    gate = gates["supervised"]
    forged = Decision(
        answer=Answer.ALLOW,
        rules=(RuleHit(rule_id="read-in-scope", reason="It was fine."),),
        policy_version=gate.version,
    )
    found = replay([recorded(decided_body(situation(), forged))], gate)
    assert [one.compared for one in found.contradicted] == [Compared.STRICTER]


def test_the_operations_of_the_past_make_the_gate(situation: Make, gates: Gates) -> None:
    """An export says for itself what was registered and with what effect."""
    records = [decided(gates["observe"], situation(effect)) for effect in Effect]
    operations = operations_in([{"kind": "vote"}, *records])
    assert operations == dict(gates["observe"].operations)
    assert replay(records, load_bundle("observe", operations)).not_replayable == {}
