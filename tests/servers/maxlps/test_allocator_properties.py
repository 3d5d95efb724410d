"""The allocator's promises on sites that nobody would build."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock_servers.maxlps.allocator import baselines, dual
from interlock_servers.maxlps.allocator.gang import Gangs
from interlock_servers.maxlps.allocator.group_prices import Groups
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
def test_a_node_sets_a_price_only_where_it_is_full(site: Site) -> None:
    """Prices are shown as what one more watt is worth; with room left it is worth nothing."""
    problem, budget_w = site.leaves.problem(), site.tree.budget_w
    if (site.tree.sums(problem.lo_w) > budget_w).any():
        return
    found = waterfill(site.tree, budget_w, problem)
    priced = np.isfinite(found.log_price)
    np.testing.assert_allclose(site.tree.sums(found.cap_w)[priced], budget_w[priced], rtol=3e-7)


@FEW
@given(sites())
def test_segments_of_a_height_are_runs_of_those_below(site: Site) -> None:
    """Else the sum of a node would count leaves of its neighbour."""
    for below, above in pairwise(site.tree.levels):
        assert set(above.starts) <= set(below.starts)


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


@dataclass(frozen=True)
class Whole:
    """A random site with random jobs, loops and tenants."""

    site: Site
    gangs: Gangs
    parts: tuple[Groups, ...]

    def plan(self, budget_factor: float = 1.0) -> CapPlan | Infeasible:
        """The plan for it, with budgets raised by a factor."""
        tree = self.site.tree
        raised = PowerTree.from_arrays(
            tree.names, tree.parent, tree.budget_w * budget_factor, tree.leaf_node
        )
        args = {"host": NO_HOST, "margin": 0.0, "gangs": self.gangs, "parts": self.parts}
        return plan(raised, self.site.leaves, **args)  # type: ignore[arg-type]

    def moved(self, order: np.ndarray) -> "Whole":
        """The same with the GPUs listed in another order."""
        tree = self.site.tree
        columns = {name: values[order] for name, values in vars(self.site.leaves).items()}
        moved_tree = PowerTree.from_arrays(
            tree.names, tree.parent, tree.budget_w, tree.leaf_node[order]
        )
        parts = tuple(
            Groups.of(p.names, p.group[order], most_w=p.most_w, least_w=p.least_w)
            for p in self.parts
        )
        gangs = Gangs.of(self.gangs.job[order], len(order))
        return Whole(Site(moved_tree, Leaves.of(**columns)), gangs, parts)


def deal(rng: np.random.Generator, count: int, most: int, none: bool) -> np.ndarray:
    """Numbers from 0 without a gap, for each GPU; -1 for some where `none`."""
    kinds = int(rng.integers(1, min(most, count) + 1))
    dealt = rng.integers(-1 if none else 0, kinds, count)
    return np.unique(dealt, return_inverse=True)[1] - int(none and (dealt == -1).any())


@st.composite
def wholes(draw: st.DrawFn) -> Whole:
    """GPUs of one job share curve and weight, as a job's do; floors may differ."""
    site = draw(sites(scarcity=(0.6, 1.1)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = len(site.leaves)
    job, loop, tenant = (
        deal(rng, count, most, none) for most, none in ((4, True), (4, False), (3, True))
    )
    columns = dict(vars(site.leaves))
    for number in range(job.max() + 1):
        members = np.flatnonzero(job == number)
        for name in ("p0", "gamma", "weight"):
            values = columns[name].copy()
            values[members] = values[members[0]]
            columns[name] = values
    columns["floor_work"] = np.minimum(columns["floor_work"], 0.5)
    leaves = Leaves.of(**columns)
    hi_w = leaves.problem().hi_w
    loops = np.bincount(loop, weights=hi_w) * rng.uniform(0.7, 1.2, loop.max() + 1)
    parts = [Groups.of([f"l{i}" for i in range(len(loops))], loop, most_w=loops)]
    if tenant.max() >= 0:
        inside = tenant >= 0
        drawn = np.bincount(tenant[inside], weights=hi_w[inside])
        least_w = drawn * rng.choice([0.0, 0.7, 0.8], len(drawn))
        parts.append(Groups.of([f"t{i}" for i in range(len(drawn))], tenant, least_w=least_w))
    return Whole(Site(site.tree, leaves), Gangs.of(job, count), tuple(parts))


@FEW
@given(wholes())
def test_a_whole_plan_keeps_every_limit_or_says_which_does_not_fit(whole: Whole) -> None:
    """Trees, floors, jobs, loops and tenants at once; there is no third answer."""
    answer = whole.plan()
    if isinstance(answer, Infeasible):
        assert answer.shortfall_w > 0
        assert len(answer.leaves)
        return
    problem = whole.gangs.promised(whole.site.leaves).problem()
    assert (whole.site.tree.sums(answer.cap_w) <= whole.site.tree.budget_w).all()
    assert (answer.cap_w >= problem.lo_w).all()
    assert (answer.cap_w <= problem.hi_w).all()
    assert (answer.work >= whole.site.leaves.floor_work - 1e-9).all()
    for part in whole.parts:
        assert (part.sums(answer.cap_w) <= part.most_w).all()
        assert (part.sums(answer.cap_w) >= part.least_w).all()
    assert answer.gap >= -1e-9


@FEW
@given(wholes(), st.floats(1.0, 1.3))
def test_more_budget_buys_no_less_by_more_than_the_proven_gap(whole: Whole, factor: float) -> None:
    """A search is not exact; what it may lose is what it says itself."""
    less, more = whole.plan(), whole.plan(factor)
    if isinstance(less, Infeasible):
        return
    assert not isinstance(more, Infeasible)
    weight = whole.site.leaves.weight
    assert weight @ more.work >= (weight @ less.work) * (1 - max(more.gap, 0.0) - 1e-9)


@FEW
@given(wholes())
def test_a_whole_plan_does_not_depend_on_the_order_of_gpus(whole: Whole) -> None:
    """The same work in all, up to the gap that both prove."""
    order = np.random.default_rng(2).permutation(len(whole.site.leaves))
    one, other = whole.plan(), whole.moved(order).plan()
    assert isinstance(one, Infeasible) == isinstance(other, Infeasible)
    if isinstance(one, Infeasible) or isinstance(other, Infeasible):
        return
    weight = whole.site.leaves.weight
    assert weight[order] @ other.work >= (weight @ one.work) * (1 - 1e-6)
