"""What the allocator promises to synchronous jobs: one speed, every budget, a proven distance."""

import numpy as np
import pytest

from interlock_evals import gang_highs
from interlock_evals.gang_instances import gang_instance
from interlock_evals.instances import CurveSet
from interlock_servers.maxlps.allocator import baselines, gang, gang_dual
from interlock_servers.maxlps.allocator.gang import ALONE, Gangs
from interlock_servers.maxlps.allocator.problem import Leaves
from interlock_servers.maxlps.allocator.tree import PowerTree, TreeNode
from interlock_servers.maxlps.allocator.waterfill import waterfill
from interlock_tools.errors import InvalidRequestError

BOTH: tuple[CurveSet, ...] = ("h200", "prior")


def one_rack(budget_w: float, count: int) -> PowerTree:
    """One limit over this many GPUs."""
    return PowerTree.from_nodes([TreeNode("rack", None, budget_w)], ["rack"] * count)


@pytest.mark.parametrize("curves", BOTH)
@pytest.mark.parametrize("budget_ratio", [0.92, 0.82])
def test_an_independent_solver_finds_no_more_than_a_little(
    budget_ratio: float, curves: CurveSet
) -> None:
    """HiGHS on 32 chords; ours may be behind by 0.3 %, and the bound is above both."""
    site = gang_instance(1_024, seed=0, budget_ratio=budget_ratio, curves=curves)
    case, gangs, problem = site.case, site.gangs, site.case.problem
    theirs_w = gang_highs.solve(case.tree, case.budget_w, problem, gangs, segments=16)
    found = gang.solve(case.tree, case.budget_w, problem, gangs)
    ours, theirs = (gangs.utility(problem, caps) for caps in (found.cap_w, theirs_w))
    bound = gang_dual.upper_bound(case.tree, case.budget_w, problem, gangs, found.priced)
    assert (case.tree.sums(theirs_w) <= case.budget_w * (1 + 1e-7)).all()
    assert ours >= theirs * (1 - 3e-3)
    assert max(ours, theirs) <= bound * (1 + 1e-12)


@pytest.mark.parametrize("curves", BOTH)
def test_jobs_gain_at_least_three_percent_over_every_fair_rule(curves: CurveSet) -> None:
    """At a budget of 82 %, with all budgets kept; plain water-filling would lose to the rules."""
    for seed in range(3):
        site = gang_instance(2_560, seed=seed, budget_ratio=0.82, curves=curves)
        case, gangs, problem = site.case, site.gangs, site.case.problem
        args = (case.tree, case.budget_w, problem)
        found = gang.solve(*args, gangs)
        assert (case.tree.sums(found.cap_w) <= case.budget_w).all()
        ours = gangs.utility(problem, found.cap_w)
        for rule in (baselines.max_min, baselines.proportional, baselines.uniform):
            assert ours >= 1.03 * gangs.utility(problem, rule(*args))
        assert ours > 1.01 * gangs.utility(problem, waterfill(*args).cap_w)


def test_members_run_at_one_speed_and_slow_silicon_gets_more_watts() -> None:
    """Watts above the job's speed would buy nothing and are not given."""
    site = gang_instance(1_024, seed=0)
    problem, gangs = site.case.problem, site.gangs
    found = gang.solve(site.case.tree, site.case.budget_w, problem, gangs)
    work = problem.work(found.cap_w)
    for job in range(gangs.count):
        members = np.flatnonzero(gangs.job == job)
        assert np.ptp(work[members]) < 1e-9
        hungry = np.argsort(problem.natural_w[members])
        assert found.cap_w[members][hungry[-1]] > found.cap_w[members][hungry[0]]


@pytest.mark.parametrize("seed", [8, 9])
def test_rounds_go_on_until_the_members_are_even(seed: int) -> None:
    """On these sites 25 rounds leave .52 and .31 % to the bound."""
    site = gang_instance(1_024, seed=seed, budget_ratio=0.95)
    case, gangs, problem = site.case, site.gangs, site.case.problem
    found = gang.solve(case.tree, case.budget_w, problem, gangs)
    bound = gang_dual.upper_bound(case.tree, case.budget_w, problem, gangs, found.priced)
    assert gangs.utility(problem, found.cap_w) >= bound * (1 - 3e-3)


def test_two_pieces_of_silicon_are_solved_as_by_hand() -> None:
    """At p0 = 0 one speed means watts in proportion to natural draw."""
    leaves = Leaves.of(natural_w=[600.0, 650.0], p0=0.0, gamma=0.61, lo_w=200.0, hi_w=700.0)
    tree, gangs = one_rack(1_000.0, 2), Gangs.of([0, 0], 2)
    found = gang.solve(tree, tree.budget_w, leaves.problem(), gangs)
    np.testing.assert_allclose(found.cap_w, [480.0, 520.0], rtol=1e-5)


def test_without_jobs_it_is_plain_water_filling() -> None:
    """The same caps, so that one call serves every site."""
    site = gang_instance(512, seed=1)
    case, nobody = site.case, Gangs.of(np.full(512, ALONE), 512)
    found = gang.solve(case.tree, case.budget_w, case.problem, nobody)
    plain = waterfill(case.tree, case.budget_w, case.problem)
    np.testing.assert_allclose(found.cap_w, plain.cap_w)


def test_an_earlier_solution_saves_rounds_and_keeps_the_answer() -> None:
    """A third of the rounds, no worse than the limit that a cold start is held to."""
    site = gang_instance(2_560, seed=2)
    case, gangs, problem = site.case, site.gangs, site.case.problem
    before = gang.solve(case.tree, case.budget_w, problem, gangs)
    less_w = case.budget_w * 0.98
    warm = gang.solve(case.tree, less_w, problem, gangs, start=before)
    bound = gang_dual.upper_bound(case.tree, less_w, problem, gangs, warm.priced)
    assert (case.tree.sums(warm.cap_w) <= less_w).all()
    assert gangs.utility(problem, warm.cap_w) >= bound * (1 - 3e-3)


def test_the_bound_holds_at_any_prices() -> None:
    """It must not depend on how well the prices were found."""
    site = gang_instance(512, seed=3)
    case, gangs, problem = site.case, site.gangs, site.case.problem
    best = gang.solve(case.tree, case.budget_w, problem, gangs)
    utility = gangs.utility(problem, best.cap_w)
    for seed in range(5):
        shifted = np.random.default_rng(seed).normal(0, 0.5, len(case.tree.names))
        priced = waterfill(case.tree, case.budget_w, problem)
        moved = type(priced)(priced.cap_w, priced.log_price + shifted)
        bound = gang_dual.upper_bound(case.tree, case.budget_w, problem, gangs, moved)
        assert utility <= bound


def test_a_promise_to_one_member_binds_the_job() -> None:
    """The job runs at its slowest GPU, so that one has to keep the promise too."""
    leaves = Leaves.of(
        natural_w=[600.0] * 3, p0=0.0, gamma=0.61, lo_w=200.0, hi_w=700.0, floor_work=[0.9, 0, 0]
    )
    promised = Gangs.of([0, 0, ALONE], 3).promised(leaves)
    assert promised.floor_work.tolist() == [0.9, 0.9, 0.0]


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ([0, 0], "one whole number for each of 3"),
        ([0.5, 0, 0], "one whole number"),
        ([0, 2, 2], "1 have no GPU, first job 1"),
        ([0, -2, 0], "-2 of GPU 1 is no job"),
    ],
)
def test_what_is_no_job_is_refused_by_name(job: list[int], told: str) -> None:
    """An empty job would run at no speed at all."""
    with pytest.raises(InvalidRequestError, match=told):
        Gangs.of(job, 3)
