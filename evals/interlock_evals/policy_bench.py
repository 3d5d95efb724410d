"""The policy bench as a report: `make policy` writes `reports/policy.json`."""

from collections.abc import Sequence

from interlock_evals.reports import Figure, Promise, Report
from interlock_policies.bench.suite import Bench

VERSIONS_OF = ("interlock-dsx", "cedarpy")
LEAST_SCORE = 0.95  # of all mutants, explained or not
LEAST_COMBINATIONS = 10_000


def report_of(benches: Sequence[Bench]) -> Report:
    """One report over these policies: four promises over all, and figures of each.

    A mutation that did not run, because the policy fails its own cases, promises nothing.
    """
    figures: dict[str, Figure] = {}
    for bench in benches:
        name = bench.policy.replace("/", "_").strip("._")
        figures |= {
            f"{name}_rules": Figure(bench.rules, ""),
            f"{name}_cases": Figure(len(bench.cases), ""),
            f"{name}_combinations": Figure(bench.exhaustive.tried, ""),
        }
        if bench.mutation is not None:
            figures |= {
                f"{name}_mutants": Figure(len(bench.mutation.judged), ""),
                f"{name}_mutation_score": Figure(bench.mutation.score, ""),
                f"{name}_survivors": Figure(len(bench.mutation.survivors), ""),
            }
    return Report.of(
        "policy",
        figures,
        {
            "cases": _cases(benches),
            "exhaustive_combinations": _combinations(benches),
            "mutation_score": _score(benches),
            "survivors_explained": _explained(benches),
        },
        VERSIONS_OF,
    )


def _cases(benches: Sequence[Bench]) -> Promise:
    """The part of the cases that is answered as they say: all of them."""
    wrong = [tried for bench in benches for tried in bench.wrong]
    every = sum(len(bench.cases) for bench in benches)
    why_not = "; ".join(f"{tried.case.name} It {tried.wrong}" for tried in wrong)
    right = every - len(wrong)
    return Promise(f"{right}/{every}", f"{every}/{every}", "", not wrong, why_not or None)


def _combinations(benches: Sequence[Bench]) -> Promise:
    """How many were decided, with every promise of the policy kept in all of them."""
    tried = sum(bench.exhaustive.tried for bench in benches)
    faults = [broken.sentence() for bench in benches for broken in bench.exhaustive.broken]
    faults += [
        f"{bench.policy}: {name} applied nowhere"
        for bench in benches
        for name in bench.exhaustive.never_met
    ]
    if faults:
        return Promise(tried, LEAST_COMBINATIONS, "", held=False, why_not="; ".join(faults))
    return Promise.at_least(tried, LEAST_COMBINATIONS, "")


def _score(benches: Sequence[Bench]) -> Promise:
    mutations = [bench.mutation for bench in benches if bench.mutation is not None]
    if len(mutations) < len(benches):
        return Promise.unmeasured(LEAST_SCORE, "", "not every policy was mutated")
    judged = sum(len(mutation.judged) for mutation in mutations)
    survived = sum(len(mutation.survivors) for mutation in mutations)
    return Promise.at_least(1 - survived / max(judged, 1), LEAST_SCORE, "")


def _explained(benches: Sequence[Bench]) -> Promise:
    """Of the survivors, those that a person has explained: all of them."""
    mutations = [bench.mutation for bench in benches if bench.mutation is not None]
    if len(mutations) < len(benches):
        return Promise(None, "all", "", held=False, why_not="not every policy was mutated")
    survivors = sum(len(mutation.survivors) for mutation in mutations)
    holes = [str(one.mutant) for mutation in mutations for one in mutation.unexplained]
    explained = survivors - len(holes)
    return Promise(
        f"{explained}/{survivors}",
        f"{survivors}/{survivors}",
        "",
        held=not holes,
        why_not="; ".join(holes) or None,
    )
