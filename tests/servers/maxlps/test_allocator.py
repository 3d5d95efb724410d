"""What the power allocator promises: every budget, every floor, the most work, and plain words."""

from collections.abc import Callable

import numpy as np
import pytest

from interlock_evals import highs
from interlock_evals.instances import CurveSet, Instance, instance
from interlock_servers.maxlps.allocator import baselines, dual
from interlock_servers.maxlps.allocator.plan import CapPlan, HostPower, Infeasible, Ramp, plan
from interlock_servers.maxlps.allocator.problem import Leaves
from interlock_servers.maxlps.allocator.tree import PowerTree, TreeNode
from interlock_servers.maxlps.allocator.waterfill import waterfill
from interlock_tools.errors import InvalidRequestError, NotFoundError

NO_HOST = HostPower(fixed_w=0.0, slope=1.0)


def two_racks(site_w: float = 2_000.0, rack_w: float = 1_300.0) -> PowerTree:
    """Two racks of two GPUs, listed in an order that no tree would choose."""
    return PowerTree.from_nodes(
        [
            TreeNode("rack-b", "site", rack_w),
            TreeNode("site", None, site_w),
            TreeNode("rack-a", "site", rack_w),
        ],
        ["rack-a", "rack-b", "rack-a", "rack-b"],
    )


def four_gpus(weight: float | list[float] = 1.0, floor_work: float | list[float] = 0.0) -> Leaves:
    """Four GPUs of 700 W on the audited training curve."""
    return Leaves.of(
        natural_w=[700.0] * 4,
        p0=0.0,
        gamma=0.61,
        lo_w=200.0,
        hi_w=700.0,
        weight=weight,
        floor_work=floor_work,
    )


def planned(answer: CapPlan | Infeasible) -> CapPlan:
    """The plan; fails the test where there is none."""
    assert isinstance(answer, CapPlan), answer
    return answer


@pytest.mark.parametrize("curves", ["h200", "prior"])
@pytest.mark.parametrize("budget_ratio", [0.95, 0.80, 0.70])
def test_no_node_is_ever_above_its_budget(budget_ratio: float, curves: CurveSet) -> None:
    """A breaker does not know about tolerances: the sums are compared exactly, in any order."""
    case = instance(10_240, seed=3, budget_ratio=budget_ratio, curves=curves)
    caps = planned(plan(case.tree, case.leaves, host=NO_HOST, margin=0)).cap_w
    assert (case.tree.sums(caps) <= case.budget_w).all()
    shuffled = np.random.default_rng(0).permutation(len(caps))
    assert caps[shuffled].sum() <= case.budget_w[case.tree.root]


@pytest.mark.parametrize("curves", ["h200", "prior"])
@pytest.mark.parametrize("budget_ratio", [0.95, 0.80, 0.70])
def test_nothing_within_the_budgets_does_more_work(budget_ratio: float, curves: CurveSet) -> None:
    """The bound is Lagrange's and holds for any caps, so the gap is to the true optimum."""
    case = instance(2_560, seed=1, budget_ratio=budget_ratio, curves=curves)
    answer = planned(plan(case.tree, case.leaves, host=NO_HOST, margin=0))
    assert 0 <= answer.gap <= 1e-6


@pytest.mark.parametrize("curves", ["h200", "prior"])
def test_an_independent_solver_finds_the_same_work(curves: CurveSet) -> None:
    """HiGHS on 64 chords a GPU is behind by no more than its chords, and never ahead."""
    case = instance(512, seed=2, curves=curves)
    theirs_w = highs.solve(case.tree, case.budget_w, case.problem, segments=64)
    solution = waterfill(case.tree, case.budget_w, case.problem)
    ours = case.problem.utility(solution.cap_w)
    theirs = case.problem.utility(theirs_w)
    bound = dual.upper_bound(case.tree, case.budget_w, case.problem, solution.log_price)
    assert theirs <= ours * (1 + 1e-9)
    assert theirs == pytest.approx(ours, rel=1e-5)
    assert theirs <= bound


def test_floors_are_kept() -> None:
    """A promise to serving holds in every plan that is given out."""
    case = instance(1_024, budget_ratio=0.92, serving_floor=0.95)
    answer = planned(plan(case.tree, case.leaves, host=NO_HOST, margin=0))
    assert (answer.work >= case.leaves.floor_work - 1e-12).all()
    assert (answer.cap_w >= case.leaves.natural_w / 2).all()


def test_floors_that_do_not_fit_are_named_and_nothing_is_planned() -> None:
    """Who must shed is a decision of people: the answer says where, how much and who holds it."""
    answer = plan(
        two_racks(rack_w=1_000.0),
        four_gpus(floor_work=[0.9, 0.0, 0.9, 0.0]),
        host=NO_HOST,
        margin=0,
    )
    assert isinstance(answer, Infeasible)
    assert answer.node == "rack-a"
    assert answer.floors_w == pytest.approx(2 * 700 * 0.9 ** (1 / 0.61))
    assert answer.shortfall_w == pytest.approx(answer.floors_w - 1_000.0)
    assert answer.leaves.tolist() == [0, 2]


def test_where_even_the_least_caps_do_not_fit_all_gpus_are_named() -> None:
    """Breaking every promise would not be enough there: some must pause."""
    answer = plan(two_racks(site_w=1_000.0), four_gpus(), host=NO_HOST, margin=0)
    assert isinstance(answer, Infeasible)
    assert (answer.node, answer.leaves.tolist()) == ("site", [0, 1, 2, 3])


def test_host_power_that_leaves_nothing_is_infeasible_too() -> None:
    """The default host takes 1,600 W a server, which these racks do not have."""
    answer = plan(two_racks(), four_gpus())
    assert isinstance(answer, Infeasible)
    assert answer.budget_w < 0
    assert answer.also == ("site", "rack-a")


def test_a_gpu_worth_more_gets_more() -> None:
    """Prices, not shares: the same curve, twice the weight."""
    caps = planned(plan(two_racks(), four_gpus([2, 1, 1, 1]), host=NO_HOST, margin=0)).cap_w
    assert caps[0] > caps[2]
    assert caps[1] == pytest.approx(caps[3])


def test_the_order_of_input_does_not_matter() -> None:
    """Nodes and GPUs may come in any order; the answer comes in the caller's."""
    case = instance(640, seed=4)
    caps = waterfill(case.tree, case.budget_w, case.problem).cap_w
    rng = np.random.default_rng(5)
    leaf, node = rng.permutation(640), rng.permutation(len(case.tree.names))
    moved = np.argsort(node)
    tree = PowerTree.from_arrays(
        [case.tree.names[i] for i in node],
        np.where(case.tree.parent[node] < 0, -1, moved[case.tree.parent[node]]),
        case.tree.budget_w[node],
        moved[case.tree.leaf_node[leaf]],
    )
    columns = {name: values[leaf] for name, values in vars(case.leaves).items()}
    again = waterfill(tree, tree.budget_w, Leaves.of(**columns).problem()).cap_w
    np.testing.assert_allclose(again, caps[leaf], rtol=1e-6)


def test_starting_from_the_last_prices_changes_only_the_speed() -> None:
    """A plan must not depend on the plans before it."""
    case = instance(640, seed=6)
    before = waterfill(case.tree, case.budget_w * 1.03, case.problem)
    warm = waterfill(case.tree, case.budget_w, case.problem, before.log_price).cap_w
    cold = waterfill(case.tree, case.budget_w, case.problem).cap_w
    np.testing.assert_allclose(warm, cold, rtol=1e-6)


def test_prices_say_where_one_more_watt_helps() -> None:
    """The price of the site is what its budget buys, found by giving it one watt more."""
    case = instance(640, seed=7)
    answer = planned(plan(case.tree, case.leaves, host=NO_HOST, margin=0))
    more = case.budget_w.copy()
    more[case.tree.root] += 50.0
    richer = waterfill(case.tree, more, case.problem).cap_w
    gained = case.problem.utility(richer) - case.problem.utility(answer.cap_w)
    assert answer.price[case.tree.root] == pytest.approx(gained / 50.0, rel=0.01)


def test_host_power_and_margin_come_off_before_the_caps() -> None:
    """A cap does not reach fans and processors: what the meter sees stays below the rating."""
    tree = PowerTree.from_nodes(
        [TreeNode("site", None, 15_000.0), TreeNode("a", "site", 9e3), TreeNode("b", "site", 9e3)],
        ["a"] * 8 + ["b"] * 8,
    )
    leaves = Leaves.of(natural_w=[700.0] * 16, p0=0.0, gamma=0.61, lo_w=200.0, hi_w=700.0)
    answer = planned(plan(tree, leaves))
    expected_w = (15_000.0 - 2 * 1_600.0) * 0.97 / 1.22
    assert answer.gpu_budget_w[0] == pytest.approx(expected_w)
    assert answer.gpu_w[0] == pytest.approx(expected_w)
    assert answer.total_w[0] == pytest.approx(3_200.0 + 1.22 * expected_w)
    assert answer.total_w[0] < 15_000.0


@pytest.mark.parametrize(
    ("target_w", "bound_w"), [(1_500.0, 1_900.0), (1_950.0, 1_950.0), (2_500.0, 2_000.0)]
)
def test_a_target_is_followed_no_faster_than_the_ramp_allows(
    target_w: float, bound_w: float
) -> None:
    """Down by 20 W/s for 5 s at most; up too, and never above the site's own budget."""
    ramp = Ramp(target_w=target_w, draw_w=2_000.0, limit_w_per_s=20.0, interval_s=5.0)
    answer = planned(plan(two_racks(), four_gpus(), host=NO_HOST, margin=0, ramp=ramp))
    assert answer.gpu_w[1] == pytest.approx(bound_w)


def test_lower_caps_come_before_raised_ones() -> None:
    """Largest step first; what is unknown is lowered, never trusted; a watt is not worth a call."""
    present_w = [700.0, 499.5, 300.0, np.nan]
    answer = planned(
        plan(two_racks(), four_gpus(), host=NO_HOST, margin=0, present_cap_w=present_w)
    )
    assert answer.lower.tolist() == [3, 0]
    assert answer.raise_.tolist() == [2]
    unknown = planned(plan(two_racks(), four_gpus(), host=NO_HOST, margin=0))
    assert (unknown.lower.tolist(), unknown.raise_.tolist()) == ([0, 1, 2, 3], [])


def test_a_cap_above_natural_draw_is_not_given() -> None:
    """It saves nothing and hides what can be given to others; the device's own minimum stays."""
    leaves = Leaves.of(
        natural_w=[150.0, 300.0, 700.0, 700.0], p0=0.0, gamma=0.7, lo_w=200.0, hi_w=700.0
    )
    answer = planned(plan(two_racks(), leaves, host=NO_HOST, margin=0))
    np.testing.assert_allclose(answer.cap_w, [200.0, 300.0, 700.0, 700.0])
    np.testing.assert_allclose(answer.work, 1.0)


def test_racks_of_one_gpu_and_uneven_depths_are_trees_too() -> None:
    """A GPU may hang under the site itself, and a rack may hold just one."""
    tree = PowerTree.from_nodes(
        [
            TreeNode("site", None, 1_500.0),
            TreeNode("rack", "site", 450.0),
            TreeNode("pdu", "site", 900.0),
            TreeNode("inner", "pdu", 500.0),
        ],
        ["site", "inner", "rack"],
    )
    leaves = Leaves.of(natural_w=[700.0] * 3, p0=0.0, gamma=0.61, lo_w=200.0, hi_w=700.0)
    answer = planned(plan(tree, leaves, host=NO_HOST, margin=0))
    np.testing.assert_allclose(answer.cap_w, [550.0, 500.0, 450.0], rtol=1e-6)
    assert (answer.gpu_w <= tree.budget_w).all()
    assert tree.leaves_under(tree.position("pdu")).tolist() == [1]


def case_for_baselines() -> Instance:
    """One site where racks, PDUs, feeds and the site are all full somewhere."""
    return instance(1_280, seed=8)


POLICIES: dict[str, Callable[[Instance], np.ndarray]] = {
    "uniform": lambda c: baselines.uniform(c.tree, c.budget_w, c.problem),
    "max_min": lambda c: baselines.max_min(c.tree, c.budget_w, c.problem),
    "proportional": lambda c: baselines.proportional(c.tree, c.budget_w, c.problem),
    "equal_deficit": lambda c: baselines.equal_deficit(c.tree, c.budget_w, c.problem),
    "priority_first": lambda c: baselines.priority_first(c.tree, c.budget_w, c.problem, c.priority),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_baseline_keeps_the_budgets_and_is_never_better(name: str) -> None:
    """A comparison counts only where the others play by the same rules."""
    case = case_for_baselines()
    caps, problem = POLICIES[name](case), case.problem
    assert (case.tree.sums(caps) <= case.budget_w).all()
    assert (caps >= problem.lo_w).all()
    assert (caps <= problem.hi_w).all()
    assert case.tree.sums(caps)[case.tree.root] > 0.9 * case.budget_w[case.tree.root]
    best = problem.utility(waterfill(case.tree, case.budget_w, problem).cap_w)
    assert 0.8 * best < problem.utility(caps) <= best


def test_each_baseline_shares_what_it_says() -> None:
    """On a site with one limit and wide bounds each rule can be written down by hand."""
    tree = PowerTree.from_nodes([TreeNode("site", None, 1_500.0)], ["site"] * 3)
    natural = np.array([400.0, 600.0, 700.0])
    problem = Leaves.of(natural_w=natural, p0=0.0, gamma=0.6, lo_w=200.0, hi_w=700.0).problem()
    args = (tree, tree.budget_w, problem)
    np.testing.assert_allclose(baselines.uniform(*args), [400.0, 550.0, 550.0], rtol=1e-6)
    np.testing.assert_allclose(baselines.max_min(*args), [400.0, 550.0, 550.0], rtol=1e-6)
    np.testing.assert_allclose(baselines.proportional(*args), natural * 1_500 / 1_700, rtol=1e-6)
    np.testing.assert_allclose(baselines.equal_deficit(*args), natural - 200 / 3, rtol=1e-6)
    first = baselines.priority_first(*args, [1, 0, 2])
    np.testing.assert_allclose(first, [400.0, 600.0, 500.0], rtol=1e-6)


SITE = TreeNode("site", None, 1e4)


@pytest.mark.parametrize(
    ("nodes", "leaf_parents", "told"),
    [
        ([SITE, TreeNode("rack", "pdu", 1e3)], ["rack"], "orphans.*rack"),
        ([SITE, TreeNode("other", None, 1e3)], ["site", "other"], "orphans, one root.*other"),
        ([SITE], ["site", "rack-9"], "orphans.*GPU 1"),
        (
            [SITE, TreeNode("a", "b", 1e3), TreeNode("b", "a", 1e3)],
            ["site", "a"],
            "cycle.*a, b",
        ),
        ([SITE, TreeNode("a", "a", 1e3)], ["site", "a"], "cycle.*a"),
        ([TreeNode("a", "b", 1e3), TreeNode("b", "a", 1e3)], ["a"], "cycle.*a, b"),
        ([SITE, TreeNode("rack", "site", 0.0)], ["rack"], r"budget_w.*above zero: rack \(0 W\)"),
        ([SITE, TreeNode("rack", "site", -5.0)], ["rack"], "budget_w.*rack"),
        ([SITE, TreeNode("rack", "site", float("nan"))], ["rack"], "budget_w.*rack"),
        ([SITE, TreeNode("rack", "site", 1e3)], ["site"], "empty, no GPU under rack"),
        ([SITE], [], "feeds no GPU"),
        ([], [], "nodes"),
        ([SITE, SITE], ["site"], "same name"),
    ],
)
def test_what_is_no_tree_is_refused_by_name(
    nodes: list[TreeNode], leaf_parents: list[str], told: str
) -> None:
    """Whoever wired it must find the node without reading the table again."""
    with pytest.raises(InvalidRequestError, match=told):
        PowerTree.from_nodes(nodes, leaf_parents)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("natural_w", float("nan"), "natural_w: must be a finite number; 1 do not, first GPU 2"),
        ("natural_w", 0.0, "natural_w"),
        ("natural_w", 1_500.0, "natural_w: must be at most twice hi_w"),
        ("p0", 0.5, "p0"),
        ("p0", -0.1, "p0"),
        ("gamma", 1.0, "gamma"),
        ("gamma", 0.0, "gamma"),
        ("weight", 0.0, "weight"),
        ("weight", float("inf"), "weight"),
        ("lo_w", -1.0, "lo_w"),
        ("hi_w", 100.0, "hi_w"),
        ("floor_work", 1.1, "floor_work"),
        ("floor_work", float("nan"), "floor_work"),
    ],
)
def test_what_no_gpu_can_be_is_refused_by_name(column: str, value: float, told: str) -> None:
    """The argument and the first GPU are named."""
    good = {"natural_w": 600.0, "p0": 0.1, "gamma": 0.6, "weight": 1.0, "floor_work": 0.0}
    good |= {"lo_w": 200.0, "hi_w": 700.0}
    columns = {name: np.full(4, each) for name, each in good.items()}
    columns[column][2] = value
    with pytest.raises(InvalidRequestError, match=told):
        Leaves.of(**columns).problem()


def test_a_floor_above_the_device_can_never_be_kept() -> None:
    """No budget helps there, so it is the request that is wrong."""
    leaves = Leaves.of(
        natural_w=[700.0], p0=0.0, gamma=0.6, lo_w=200.0, hi_w=600.0, floor_work=0.99
    )
    with pytest.raises(InvalidRequestError, match="floor_work: must be reachable"):
        leaves.problem()


def test_other_arguments_are_refused_by_name() -> None:
    """The same for a plan's own arguments."""
    tree, leaves = two_racks(), four_gpus()
    with pytest.raises(InvalidRequestError, match="margin"):
        plan(tree, leaves, margin=1.0)
    with pytest.raises(InvalidRequestError, match="margin"):
        plan(tree, leaves, margin=float("nan"))
    with pytest.raises(InvalidRequestError, match="host"):
        plan(tree, leaves, host=HostPower(slope=0.9))
    with pytest.raises(InvalidRequestError, match="host"):
        plan(tree, leaves, host=HostPower(fixed_w=[1.0, 2.0]))
    with pytest.raises(InvalidRequestError, match="ramp"):
        plan(tree, leaves, ramp=Ramp(float("nan"), 1.0, 1.0, 1.0))
    with pytest.raises(InvalidRequestError, match="present_cap_w"):
        plan(tree, leaves, host=NO_HOST, present_cap_w=[700.0, 700.0])
    with pytest.raises(InvalidRequestError, match="leaves: 4 GPUs"):
        plan(PowerTree.from_nodes([SITE], ["site"]), leaves)
    with pytest.raises(InvalidRequestError, match="weight: need one value"):
        four_gpus(weight=[1.0, 2.0])
    with pytest.raises(InvalidRequestError, match="floors under site"):
        waterfill(tree, np.array([1e4, 100.0, 1e4]), leaves.problem())
    with pytest.raises(NotFoundError, match="rack-z"):
        tree.position("rack-z")
