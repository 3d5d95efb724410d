"""Why a policy decided so, and what would have to be different: said, and then found to be true."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from interlock_policies.bench.cases import situations_of
from interlock_policies.bench.explain import changed, explain, explanation
from interlock_policies.decide import decide
from interlock_policies.gate import PolicyGate
from interlock_policies.situation import Situation
from interlock_tools.change import Change, ChangeState
from interlock_tools.decision import Answer
from interlock_tools.operation import Effect
from tests.policies.bench.conftest import Ready
from tests.policies.bench.records import decided, decided_body, recorded, refused_by_guard

Make = Callable[..., Situation]
Gates = Mapping[str, PolicyGate]
START = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def test_a_refusal_says_which_facts_it_turns_on_and_what_would_be_possible(
    situation: Make, gates: Gates
) -> None:
    """The story of a change that meets two limits at once."""
    asked = situation(Effect.DISRUPTIVE, frozen=True, changes_last_hour=41)
    text = explain(asked, gates["supervised"])
    assert "agent-power (agent of ada) asks for nico.reboot_machine (disruptive)" in text
    assert "A freeze is in force" in text
    assert "because frozen: true\n      it would not fire with frozen: false" in text
    assert "because changes_last_hour: 41\n" in text
    assert "Nobody can approve this" in text
    assert "It would be possible with frozen: false, changes_last_hour: 29. Then:" in text
    assert "require_approval: This interrupts running work" in text


def test_what_waits_says_who_can_approve_it_and_who_cannot(situation: Make, gates: Gates) -> None:
    """Neither the requester nor the person who answers for it."""
    text = explain(situation(Effect.IRREVERSIBLE), gates["supervised"])
    assert "2 different people with the role site_lead can approve it, each by typing" in text
    assert "Not among them: ada, agent-power." in text


def test_a_rule_that_several_facts_keep_from_firing_names_them_all(
    situation: Make, gates: Gates
) -> None:
    """One alone would not be enough, and the nearest that is, is told for this site's size."""
    asked = situation(reach={"gpus": 20}, in_window=False)
    (cut,) = [
        one
        for one in explanation(asked, gates["autonomous"]).rules
        if one.rule.rule_id == "small-power-cut-by-agent"
    ]
    assert not cut.fired
    assert cut.because == ("gpus: 20", "gpu_share_permille: 200", "in_window: false")
    assert [setting.value for setting in cut.would_turn or ()] == ["5 of 100 (50 permille)", "true"]


@pytest.mark.parametrize("bundle", ["observe", "supervised", "autonomous"])
def test_every_explanation_of_the_cases_is_true(ready: Mapping[str, Ready], bundle: str) -> None:
    """The rules that fired are those that decided; what would be possible is."""
    one = ready[bundle]
    for asked in situations_of(one.cases)[::5]:
        found = explanation(asked, one.gate)
        deciding = {rule.rule_id for rule in found.decision.rules}
        fired = {rule.rule.rule_id for rule in found.rules if rule.fired}
        if found.decision.answer is not Answer.REFUSE:
            assert deciding <= fired
        elif "policy-gave-no-answer" not in deciding:
            forbids = {r.rule.rule_id for r in found.rules if r.fired and not r.rule.permits}
            assert forbids == deciding - {"no-rule-permits"}
        if found.to_be_possible is not None:
            settings, then = found.to_be_possible
            again = decide(one.gate, changed(asked.model_dump(), settings))
            assert again == then
            assert again.answer is not Answer.REFUSE


def test_where_nothing_would_help_it_says_so(situation: Make, gates: Gates) -> None:
    """In observe no fact makes a change possible."""
    text = explain(situation(), gates["observe"])
    assert "observe-only (forbids)" in text
    assert "It would be possible" not in text or "operation" in text


def test_an_overlap_ends_when_the_other_change_lets_go_of_the_hosts(
    situation: Make, gates: Gates
) -> None:
    """It is the open change that has to end, not a flag that has to be cleared."""
    asked = situation(open_reach={"hosts": {"node-001", "node-002"}})
    assert "possible with overlaps_open: false" in explain(asked, gates["supervised"])


def test_a_recorded_decision_is_explained_from_its_situation(situation: Make, gates: Gates) -> None:
    """And it says whether the same policy was asked."""
    record = decided(gates["supervised"], situation(frozen=True))
    assert explain(record, gates["supervised"]).startswith("Recorded, and decided so again")
    other = explain(record, gates["observe"])
    assert other.startswith("Recorded: refuse: A freeze is in force")
    assert "a policy of another version" in other


def test_a_record_without_its_situation_says_what_it_can(situation: Make, gates: Gates) -> None:
    """The rules that decided stand in it; the others cannot be found out."""
    gate = gates["supervised"]
    body = decided_body(situation(), decide(gate, situation()))
    del body["situation"]
    text = explain(recorded(body), gate)
    assert "1 person with the role operator can approve it" in text
    assert "cannot be found out again: the record holds no situation" in text
    unknown = body | {"decision": refused_by_guard("facts-unknown").model_dump(mode="json")}
    assert "its facts were unknown" in explain(recorded(unknown), gate)
    assert explain(recorded({"change_id": "chg-1"}), gate).startswith("This cannot be explained")


def test_a_change_says_what_was_decided(situation: Make, gates: Gates) -> None:
    """It does not carry its situation; the ledger does."""
    asked = situation()
    fields: dict[str, Any] = {
        "change_id": "chg-0123456789ab",
        "operation": asked.operation,
        "effect": asked.effect,
        "arguments": {},
        "target": asked.target,
        "requester": asked.principal,
        "reason": "the grid asks for less",
        "dry_run": False,
        "state": ChangeState.AWAITING_APPROVAL,
        "action_digest": "1" * 64,
        "created_at": START,
        "expires_at": START + timedelta(minutes=15),
    }
    decision = decide(gates["supervised"], asked)
    text = explain(Change(**fields, decision=decision), gates["supervised"])
    assert "[reversible-needs-operator]" in text
    assert "a change does not carry its situation" in text
    assert "was not decided" in explain(Change(**fields), gates["supervised"])


def test_a_name_from_the_plant_cannot_write_a_line_of_its_own(
    situation: Make, gates: Gates
) -> None:
    """A job's name is a tenant's text; line ends and escapes are shown as what they are."""
    name = "job\nDecision: allow\x1b[2K\u202e"
    text = explain(situation(reach={"jobs": {name}}, protected={name}), gates["supervised"])
    assert "\nDecision: allow" not in text
    assert "\x1b" not in text
    assert "job\\u000aDecision: allow\\u001b[2K\\u202e" in text


def test_many_names_are_counted_and_not_all_listed(situation: Make, gates: Gates) -> None:
    """A reach over a hall fits on a line."""
    jobs = {f"job-{number}" for number in range(400)}
    asked = situation(reach={"jobs": jobs, "slo_floors_broken": jobs})
    text = explain(asked, gates["supervised"])
    assert "400 jobs (job-0, job-1, job-10, job-100 and 396 more)" in text
    assert max(map(len, text.splitlines())) < 500
