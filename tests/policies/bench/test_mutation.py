"""Faults in a policy are noticed, and one that is not is told.

A slice of the mutants here; `make policy` judges every one.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from interlock_policies.bench.errors import CaseError
from interlock_policies.bench.mutants import mutants
from interlock_policies.bench.mutation import (
    START_UP,
    Explained,
    Mutation,
    check_explained,
    explained_of,
    judge_all,
)
from interlock_policies.bench.suite import run_bench
from tests.policies.bench.conftest import Ready

TINY = """
@id("two") @reason("Two.") @runbook("none") @quorum("2") @role("operator") @typed_target("true")
permit (principal is Agent, action in Action::"disruptive", resource)
when { context.quorum_voted && (context.racks < 3 || context.in_window) };
"""

# The house's rules without the limit on an agent's changes, and one of its own.
SITE_RULE = """
@id("night") @reason("Not outside the window.") @runbook("none") @canary("in_window = false")
forbid (principal, action in Action::"mutate", resource) when { !context.in_window };
"""
SITE_CASES = """
promises = ["reads-pass"]
[[case]]
name = "A small power cut waits for one operator."
answer = "require_approval"
rules = ["reversible-needs-operator"]
"""
NIGHT_CASE = """
[[case]]
name = "Outside the window nothing is changed."
situation.in_window = false
answer = "refuse"
rules = ["night"]
"""


def judged(one: Ready, every: int) -> Mutation:
    """Every so many mutants of a bundle, over the nearest combinations."""
    return judge_all(mutants(one.texts)[::every], one.cases, one.combinations)


def test_the_mutants_of_a_rule_are_these() -> None:
    """What is tried is written down; a kind of fault that is lost from it is seen here."""
    assert [mutant.change for mutant in mutants({"tiny.cedar": TINY})] == [
        "the rule is removed",
        "@quorum is 1",
        '@role is "anybody"',
        '@typed_target is "false"',
        "it holds for every principal",
        "it holds for Person, not for Agent",
        "it holds for Service, not for Agent",
        "it holds for every action",
        "it holds for mutate, not for disruptive",
        "it holds for read, not for disruptive",
        "it holds for reversible, not for disruptive",
        "it holds for irreversible, not for disruptive",
        "when { context.quorum_voted && ((context.racks < 3) || context.in_window) } is removed",
        "when: context.quorum_voted is dropped",
        "when: context.quorum_voted && ((context.racks < 3) || context.in_window) becomes "
        "context.quorum_voted || ((context.racks < 3) || context.in_window)",
        "when: context.quorum_voted is negated",
        "when: context.racks < 3 is dropped",
        "when: context.in_window is dropped",
        "when: (context.racks < 3) || context.in_window becomes "
        "(context.racks < 3) && context.in_window",
        "when: context.racks < 3 becomes context.racks > 3",
        "when: context.racks < 3 becomes context.racks < 2",
        "when: context.racks < 3 becomes context.racks < 4",
        "when: context.racks < 3 is negated",
        "when: context.in_window is negated",
        "when: context.quorum_voted && ((context.racks < 3) || context.in_window) is negated",
    ]


@pytest.mark.parametrize(("bundle", "every"), [("supervised", 5), ("autonomous", 7)])
def test_the_faults_of_a_bundle_are_caught(
    ready: Mapping[str, Ready], bundle: str, every: int
) -> None:
    """By the start-up checks, by a case or by a promise."""
    found = judged(ready[bundle], every)
    assert len(found.judged) >= 10
    assert [str(one.mutant) for one in found.survivors] == []
    assert 0 < found.caught_by(START_UP) < len(found.judged)


def test_the_one_survivor_of_observe_is_explained(ready: Mapping[str, Ready]) -> None:
    """It changes no answer; the explanation says why, and the score counts it all the same."""
    one = ready["observe"]
    explained = explained_of("observe")
    found = judge_all(mutants(one.texts), one.cases, one.combinations, explained)
    assert [str(survivor.mutant) for survivor in found.survivors] == [
        "read-in-scope: it holds for every action"
    ]
    assert found.unexplained == ()
    assert 0.9 < found.score < 1
    check_explained(found, explained)


def test_a_hole_in_the_cases_is_told(ready: Mapping[str, Ready]) -> None:
    """Without the cases of a rule and without promises its loss goes unnoticed, and is listed."""
    one = ready["supervised"]
    kept = tuple(case for case in one.cases.case if "freeze-in-force" not in case.rules)
    blind = one.combinations._replace(promises=())
    lost = [m for m in mutants(one.texts) if str(m) == "freeze-in-force: the rule is removed"]
    found = judge_all(lost, one.cases.model_copy(update={"case": kept}), blind)
    assert [str(hole.mutant) for hole in found.unexplained] == [
        "freeze-in-force: the rule is removed"
    ]
    assert found.score == 0


def test_an_explanation_of_what_is_caught_is_an_error(ready: Mapping[str, Ready]) -> None:
    """An explanation that stayed behind would one day excuse a real hole."""
    stale = Explained(
        rule="observe-only", change="the rule is removed", why="It used to be equivalent, long ago."
    )
    found = judged(ready["observe"], 1)
    with pytest.raises(CaseError, match=r'"observe-only: the rule is removed" does not survive'):
        check_explained(found, [stale])


def site(tmp_path: Path, cases: str) -> Path:
    """A site's own directory: its rules and its cases."""
    permit = (
        '@id("reversible-needs-operator") @reason("One.") @runbook("none") '
        '@quorum("1") @role("operator")\n'
        'permit (principal, action in Action::"reversible", resource)'
        " when { context.quorum_voted };\n"
        '@id("read") @reason("Read.") @runbook("none")\n'
        'permit (principal, action in Action::"read", resource)'
        ' when { principal.scopes.contains("interlock:read") };\n'
    )
    (tmp_path / "site.cedar").write_text(permit + SITE_RULE)
    (tmp_path / "cases.toml").write_text(cases)
    return tmp_path


def test_a_sites_own_rule_without_a_case_is_a_hole(tmp_path: Path) -> None:
    """Start-up proves that the rule can fire; that it is still there tomorrow needs a case."""
    found = run_bench(site(tmp_path, SITE_CASES))
    assert found.mutation is not None
    holes = {str(one.mutant) for one in found.mutation.unexplained}
    assert "night: the rule is removed" in holes
    assert not found.passes


def test_a_case_closes_the_hole(tmp_path: Path) -> None:
    """One sentence more, and the loss of the rule is noticed."""
    found = run_bench(site(tmp_path, SITE_CASES + NIGHT_CASE))
    assert found.mutation is not None
    assert "night: the rule is removed" not in {str(m.mutant) for m in found.mutation.survivors}


def test_a_policy_that_fails_its_own_cases_is_not_mutated(tmp_path: Path) -> None:
    """Every mutant would be caught by the fault that is there already."""
    wrong = SITE_CASES + NIGHT_CASE.replace('["night"]', '["read"]')
    found = run_bench(site(tmp_path, wrong))
    assert found.mutation is None
    assert not found.passes
    assert [tried.case.name for tried in found.wrong] == ["Outside the window nothing is changed."]
