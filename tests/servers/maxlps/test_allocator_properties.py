"""The allocator's promises on sites that nobody would build."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock_servers.maxlps.allocator import baselines, dual
from interlock_servers.maxlps.allocator.plan import CapPlan, HostPower, Infeasible, plan
from interlock_servers.maxlps.allocator.problem import Leaves
from interlock_servers.maxlps.allocator.tree import PowerTree
from interlock_servers.maxlps.allocator.waterfill import waterfill

NO_HOST = HostPower(fixed_w=0.0, slope=1.0)
FEW = settings(derandomize=True, max_examples=60, deadline=None, database=None)


@dataclass(frozen=True)
class Site:
    """A random tree of any shape with random GPUs; budgets may or may not hold the floors."""

    tree: PowerTree
    leaves: Leaves


@st.composite
def sites(draw: st.DrawFn, scarcity: tuple[float, float] = (0.3, 1.1)) -> Site:
    """Shapes are drawn, so that they shrink; the numbers come from a seed."""
    parents = [-1] + [draw(st.integers(0, i - 1)) for i in range(1, draw(st.integers(1, 9)))]
    childless = sorted(set(range(len(parents))) - set(parents))
    extra = draw(st.lists(st.integers(0, len(parents) - 1), max_size=30))
    leaf_node = np.array(childless + extra)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rng.shuffle(leaf_node)
    count = len(leaf_node)
    natural_w = rng.uniform(100, 1_300, count)
    leaves = Leaves.of(
        natural_w=natural_w,
        p0=rng.uniform(0, 0.49, count),
        gamma=rng.uniform(0.05, 0.95, count),
        weight=10 ** rng.uniform(-4, 4, count),
        lo_w=rng.uniform(0, 400, count),
        hi_w=np.maximum(natural_w * rng.uniform(0.85, 1.2, count), 400),
        floor_work=rng.choice([0.0, 0.3, 0.6], count),
    )
    open_tree = PowerTree.from_arrays(
        [f"n{i}" for i in range(len(parents))], parents, np.full(len(parents), np.inf), leaf_node
    )
    budget_w = open_tree.sums(leaves.problem().hi_w) * rng.uniform(*scarcity, len(parents))
    return Site(
        PowerTree.from_arrays(open_tree.names, parents, budget_w, leaf_node),
        leaves,
    )


@FEW
@given(sites())
def test_a_plan_keeps_every_budget_and_floor_or_says_what_does_not_fit(site: Site) -> None:
    """There is no third answer."""
    answer = plan(site.tree, site.leaves, host=NO_HOST, margin=0)
    problem = site.leaves.problem()
    floors_w = site.tree.sums(problem.lo_w)
    if isinstance(answer, Infeasible):
        node = site.tree.position(answer.node)
        assert floors_w[node] > site.tree.budget_w[node]
        assert set(answer.leaves) <= set(site.tree.leaves_under(node))
        assert len(answer.leaves)
        return
    assert (floors_w <= site.tree.budget_w).all()
    assert (site.tree.sums(answer.cap_w) <= site.tree.budget_w).all()
    assert (answer.cap_w >= problem.lo_w).all()
    assert (answer.cap_w <= problem.hi_w).all()
    assert (answer.work >= site.leaves.floor_work - 1e-9).all()


@FEW
@given(sites(scarcity=(0.75, 1.1)))
def test_a_plan_is_the_best_there_is(site: Site) -> None:
    """The gap is proved by the bound, at weights that differ by eight orders of magnitude."""
    answer = plan(site.tree, site.leaves, host=NO_HOST, margin=0)
    if isinstance(answer, CapPlan):
        assert -1e-12 <= answer.gap <= 1e-5


@FEW
@given(sites(scarcity=(0.75, 1.1)))
def test_the_bound_holds_for_any_prices_and_any_policy(site: Site) -> None:
    """So that it can be trusted where there is no solver to compare with."""
    problem, budget_w = site.leaves.problem(), site.tree.budget_w
    if (site.tree.sums(problem.lo_w) > budget_w).any():
        return
    log_price = np.random.default_rng(0).uniform(-12, 2, len(budget_w))
    bound = dual.upper_bound(site.tree, budget_w, problem, log_price) * (1 + 1e-12)
    args = (site.tree, budget_w, problem)
    assert problem.utility(waterfill(*args).cap_w) <= bound
    for policy in (baselines.uniform, baselines.max_min, baselines.proportional):
        caps = policy(*args)
        assert (site.tree.sums(caps) <= budget_w).all()
        assert problem.utility(caps) <= bound
    assert problem.utility(baselines.equal_deficit(*args)) <= bound


@FEW
@given(sites(scarcity=(0.75, 1.0)), st.integers(0, 8), st.floats(1.0, 1.3))
def test_more_budget_never_buys_less(site: Site, node: int, factor: float) -> None:
    """At any one node, whatever the others have."""
    problem, budget_w = site.leaves.problem(), site.tree.budget_w
    if (site.tree.sums(problem.lo_w) > budget_w).any():
        return
    more_w = budget_w.copy()
    more_w[node % len(budget_w)] *= factor
    less = problem.utility(waterfill(site.tree, budget_w, problem).cap_w)
    more = problem.utility(waterfill(site.tree, more_w, problem).cap_w)
    assert more >= less * (1 - 1e-6)


@FEW
@given(sites(scarcity=(0.75, 1.0)))
def test_gpus_may_come_in_any_order(site: Site) -> None:
    """The same GPU gets the same cap wherever it stands in the list."""
    problem = site.leaves.problem()
    if (site.tree.sums(problem.lo_w) > site.tree.budget_w).any():
        return
    caps = waterfill(site.tree, site.tree.budget_w, problem).cap_w
    moved = np.random.default_rng(1).permutation(len(caps))
    tree = PowerTree.from_arrays(
        site.tree.names, site.tree.parent, site.tree.budget_w, site.tree.leaf_node[moved]
    )
    columns = {name: values[moved] for name, values in vars(site.leaves).items()}
    again = waterfill(tree, tree.budget_w, Leaves.of(**columns).problem()).cap_w
    np.testing.assert_allclose(again, caps[moved], rtol=1e-4)
