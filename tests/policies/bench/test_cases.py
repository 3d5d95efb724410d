"""The cases of the house hold, a wrong one is told, and a typo refuses with its place."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from interlock_policies.bench.cases import Case, cases_of, check_names, run_cases
from interlock_policies.bench.errors import CaseError
from interlock_policies.bench.exhaustive import combinations
from interlock_policies.bench.mutation import explained_of
from interlock_policies.bench.suite import run_bench
from interlock_policies.bundles import BUNDLES, bundle_texts
from tests.policies.bench.conftest import Ready

CASE = """
[[case]]
name = "In a freeze nothing is changed."
situation.frozen = true
answer = "refuse"
rules = ["freeze-in-force"]
"""


def site_file(tmp_path: Path, text: str) -> Path:
    """A case file of a site."""
    path = tmp_path / "site.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_case_of_the_house_is_answered_as_it_says(
    ready: Mapping[str, Ready], bundle: str
) -> None:
    """By the answer, by exactly those rules, and by exactly those people."""
    one = ready[bundle]
    check_names(one.gate, one.cases)
    assert [tried for tried in run_cases(one.gate, one.cases) if tried.wrong] == []


def test_every_rule_decides_in_some_case(ready: Mapping[str, Ready]) -> None:
    """A rule that no case names is one that nobody has thought about."""
    for one in ready.values():
        named = frozenset().union(*(case.rules for case in one.cases.case))
        assert {rule.rule_id for rule in one.gate.rules} <= named


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"answer": "allow"}, "answered require_approval: .*, not allow"),
        ({"rules": ["freeze-in-force"]}, "decided by reversible-.*, not by freeze-in-force"),
        ({"quorum": {"people": 2, "role": "operator"}}, "asks for .*people=1.*, not .*people=2"),
    ],
)
def test_a_case_that_is_answered_otherwise_says_how(
    ready: Mapping[str, Ready], changed: dict[str, object], says: str
) -> None:
    """The finding is a sentence about the policy, not a stack of frames."""
    one = ready["supervised"]
    right = {"name": "x", "answer": "require_approval", "rules": ["reversible-needs-operator"]}
    wrong = one.cases.model_copy(update={"case": (Case.model_validate(right | changed),)})
    (tried,) = run_cases(one.gate, wrong)
    assert tried.wrong is not None
    assert re.search(says, tried.wrong)


def test_a_site_tries_a_bundle_with_its_own_cases(
    ready: Mapping[str, Ready], tmp_path: Path
) -> None:
    """On top of the ordinary situation and the operations of the house."""
    cases = cases_of("supervised", site_file(tmp_path, CASE))
    (tried,) = run_cases(ready["supervised"].gate, cases)
    assert tried.case.name == "In a freeze nothing is changed."
    assert tried.wrong is None


@pytest.mark.parametrize(
    ("right", "typo", "message"),
    [
        ("frozen = true", "frosen = true", r"site\.toml: case .In a freeze.*frosen: Extra"),
        ("frozen = true", 'frozen = "so"', r"site\.toml: case .In a freeze.*frozen: Input should"),
        ('"refuse"', '"refused"', r'site\.toml: case "In a freeze.* answer: Input should'),
        ("answer", "anser", r'site\.toml: case "In a freeze.* anser: Extra inputs'),
        ("[[case]]", "[[cases]]", r"site\.toml: cases: Extra inputs"),
        ("[[case]]", "[[case]", r"site\.toml: is not TOML: .*line 2"),
        ('"freeze-in-force"', '"freeze-in-forze"', r"no rule freeze-in-forze; .* freeze-in-force"),
        ("rules = [", 'rules = [] # ["', r'case "In a freeze.* rules: '),
        ("situation", 'situation.effect = "mutate"\nsituation', r"case .In a freeze.* effect: "),
        (CASE, CASE + CASE, r'site\.toml: case "In a freeze.*" stands there twice'),
        (CASE, "", r"site\.toml: it holds no case"),
        (CASE, 'promises = ["limit-hold"]' + CASE, r"no promise limit-hold; .* limits-hold"),
        (CASE, "[limits]\nunattended_gpus = 1" + CASE, r"site\.toml: limits\.unattended_gpus"),
        (CASE, "[ordinary]\nsite_gpus = -1" + CASE, r"site\.toml: ordinary: site_gpus: "),
        (CASE, '[operations]\n"nico.x" = "bad"' + CASE, r"site\.toml: operations\.nico\.x: "),
    ],
)
def test_a_typo_in_a_case_file_refuses_and_says_where(
    tmp_path: Path, right: str, typo: str, message: str
) -> None:
    """File, case and what is wrong; a case that silently tries nothing would look like a pass."""
    path = site_file(tmp_path, CASE.replace(right, typo))
    with pytest.raises(CaseError, match=message):
        run_bench("supervised", path, mutate_every=0)


def test_a_file_that_is_not_there_refuses(tmp_path: Path) -> None:
    """A site's directory brings its cases, or names others."""
    (tmp_path / "site.cedar").write_text(bundle_texts("observe")["observe/observe.cedar"])
    with pytest.raises(CaseError, match=r"cases\.toml: there is no such file"):
        run_bench(tmp_path)
    (tmp_path / "cases.toml").write_bytes(b"\xff")
    with pytest.raises(CaseError, match=r"cases\.toml: cannot be read"):
        cases_of(tmp_path)


def test_an_explanation_without_a_reason_refuses(tmp_path: Path) -> None:
    """Saying that it is fine is not a reason."""
    entry = '[[mutant]]\nrule = "freeze"\nchange = "the rule is removed"\nwhy = "fine"\n'
    (tmp_path / "mutants_explained.toml").write_text(entry)
    with pytest.raises(CaseError, match=r'explained\.toml: mutant "freeze" why: String should'):
        explained_of(tmp_path)


def test_a_situation_says_its_operation_or_its_effect(ready: Mapping[str, Ready]) -> None:
    """The other follows from what is registered; where both are given they stay as given."""
    cases = ready["supervised"].cases
    assert cases.situation({"effect": "disruptive"}, "x").operation == "nico.reboot_machine"
    assert cases.situation({"operation": "nico.wipe_machine"}, "x").effect == "irreversible"
    both = cases.situation({"operation": "nico.wipe_machine", "effect": "read"}, "x")
    assert (both.operation, both.effect) == ("nico.wipe_machine", "read")


def test_the_ordinary_situation_of_a_site_can_differ(tmp_path: Path) -> None:
    """A site of another size states it once, and its operations with it."""
    text = '[ordinary]\nsite_hosts = 4\n[operations]\n"lab.book" = "reversible"\n' + CASE
    cases = cases_of("supervised", site_file(tmp_path, text))
    assert cases.situation({}, "x").site_hosts == 4
    assert cases.situation({"operation": "lab.book"}, "x").effect == "reversible"
    assert combinations(bundle_texts("observe"), cases).whole
