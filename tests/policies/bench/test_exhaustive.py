"""Every combination of the boundary values, and what must hold in all of them.

Those that depart in at most three settings here; `make policy` decides every one.
"""

from collections.abc import Mapping

import pytest

from interlock_policies.bench import exhaustive
from interlock_policies.bench.cases import parse_cases
from interlock_policies.bench.errors import CaseError
from interlock_policies.bench.exhaustive import Exhaustive, combinations, run_exhaustive
from interlock_policies.bench.promises import PROMISES
from interlock_policies.bundles import BUNDLES
from interlock_policies.gate import PolicyGate
from tests.policies.bench.conftest import Ready

KEPT = {
    (bundle, promise)
    for bundle, promises in {
        "observe": ("nothing-is-changed", "reads-need-the-scope", "reads-pass"),
        "supervised": set(PROMISES)
        - {
            "nothing-is-changed",
            "only-small-cuts-go-without-people",
            "small-cuts-need-nobody",
        },
        "autonomous": set(PROMISES) - {"nothing-is-changed", "nothing-goes-without-people"},
    }.items()
    for promise in promises
}

RACKS = """
@id("any") @reason("Any.") @runbook("none") @quorum("1") @role("operator")
permit (principal, action in Action::"mutate", resource) when { context.quorum_voted };
@id("racks") @reason("Two racks at most.") @runbook("none")
@canary("blast_radius.racks = ['r1', 'r2', 'r3']")
forbid (principal, action in Action::"mutate", resource)
when { context.racks > 2 && resource.kind == "rack" };
"""


@pytest.fixture(scope="module")
def found(ready: Mapping[str, Ready]) -> Mapping[str, Exhaustive]:
    """What was decided, by bundle."""
    return {name: run_exhaustive(one.gate, one.combinations) for name, one in ready.items()}


@pytest.mark.parametrize(("bundle", "promise"), sorted(KEPT))
def test_a_promise_of_a_bundle_holds_in_every_combination(
    found: Mapping[str, Exhaustive], bundle: str, promise: str
) -> None:
    """Safety, and what must still be possible; each applied somewhere."""
    assert found[bundle].met[promise] > 0
    broken = [one.sentence() for one in found[bundle].broken if one.promise.name == promise]
    assert broken == []


def test_there_is_no_promise_that_no_bundle_keeps() -> None:
    """Half of them say what must never happen, half what must stay possible."""
    assert {promise for _, promise in KEPT} == set(PROMISES)
    assert sum(promise.must_allow for promise in PROMISES.values()) >= 4


@pytest.mark.parametrize(
    ("bundle", "least"), [("observe", 40), ("supervised", 600), ("autonomous", 1_100)]
)
def test_everything_that_a_bundle_looks_at_is_varied(
    ready: Mapping[str, Ready], bundle: str, least: int
) -> None:
    """The whole products, and nothing that a rule reads is left as it is."""
    tried = ready[bundle].combinations
    assert len(tried.all) >= least
    assert tried.whole
    assert tried.unvaried == ()
    assert len({one.asked.situation for one in tried.all}) == len(tried.all)


def test_a_rule_on_a_new_fact_is_varied_without_being_listed(
    ready: Mapping[str, Ready],
) -> None:
    """Both sides of its limit, and the kind of target that it names."""
    cases = ready["supervised"].cases.model_copy(update={"promises": ()})
    tried = combinations({"site.cedar": RACKS}, cases)
    assert {one.asked.facts["racks"] for one in tried.all} >= {2, 3}
    assert {one.asked.situation.target.kind for one in tried.all} == {"node", "rack"}
    values = {s.value for one in tried.all for s in one.settings if s.dimension == "target"}
    assert "rack/node-001" in values


def test_a_promise_that_is_broken_says_where(ready: Mapping[str, Ready]) -> None:
    """A limit that is one too high is found at the limit, with the facts that show it."""
    one = ready["supervised"]
    loose = {file: text.replace("> 250", "> 251") for file, text in one.texts.items()}
    found = run_exhaustive(PolicyGate(loose, one.cases.operations), one.combinations)
    (broken,) = found.broken
    assert not found.ok
    assert broken.promise.name == "limits-hold"
    assert "63 of 251 (251 permille)" in broken.sentence()


def test_a_promise_that_applies_nowhere_is_not_kept(ready: Mapping[str, Ready]) -> None:
    """It would look like a proof of something that was never tried."""
    one = ready["observe"]
    cases = one.cases.model_copy(update={"promises": ("small-cuts-need-nobody",)})
    tried = combinations(one.texts, cases)
    found = run_exhaustive(one.gate, tried._replace(all=tried.all[:200]))
    assert found.never_met == ("small-cuts-need-nobody",)
    assert not found.ok


def test_a_policy_too_large_for_the_product_is_varied_rule_by_rule_and_says_so(
    ready: Mapping[str, Ready], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less is tried, and nobody takes it for everything."""
    monkeypatch.setattr(exhaustive, "MOST", 100)
    one = ready["autonomous"]
    tried = combinations(one.texts, one.cases)
    assert not tried.whole
    assert 100 < len(tried.all) < 40_000  # the product has 250,000 and more
    shares = {one.asked.facts["open_host_share_permille"] for one in tried.all}
    assert shares >= {250, 251}
    assert run_exhaustive(one.gate, tried).broken == ()


@pytest.mark.parametrize("permille", [0, 1, 49, 50, 51, 249, 250, 251, 333, 999, 1000])
def test_a_share_is_met_exactly(ready: Mapping[str, Ready], permille: int) -> None:
    """A limit in thousandths is tried at that thousandth and not near it."""
    rule = RACKS.replace("racks > 2", f"gpu_share_permille == {permille}")
    cases = ready["supervised"].cases.model_copy(update={"promises": ()})
    tried = combinations({"site.cedar": rule}, cases)
    shares = {one.asked.facts["gpu_share_permille"] for one in tried.all}
    assert shares >= {max(permille - 1, 0), permille, permille + 1} - {1001}


def test_the_ordinary_situation_must_exist() -> None:
    """Everything is made from it."""
    with pytest.raises(CaseError, match=r"empty\.toml: ordinary"):
        parse_cases({}, "empty.toml")


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_nearest_combination_departs_in_nothing(
    ready: Mapping[str, Ready], bundle: str
) -> None:
    """The first that is decided is as ordinary as the boundaries allow, and passes no limit."""
    first = ready[bundle].combinations.all[0].asked
    assert first.situation.principal.kind == "agent"
    assert not first.situation.frozen
    assert first.facts["protected_reached"] == []
