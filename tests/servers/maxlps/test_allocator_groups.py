"""What the allocator promises to loops and tenants: limits that cut across the tree are kept."""

from collections.abc import Sequence

import numpy as np
import pytest

from interlock_evals.gang_instances import cooling_loops, gang_instance, tenants
from interlock_evals.instances import CurveSet, Instance, instance
from interlock_servers.maxlps.allocator import gang, gang_dual, groups
from interlock_servers.maxlps.allocator.group_prices import NO_GROUP, Groups
from interlock_servers.maxlps.allocator.problem import Leaves
from interlock_servers.maxlps.allocator.tree import Floats, PowerTree, TreeNode
from interlock_servers.maxlps.allocator.waterfill import waterfill
from interlock_tools.errors import InvalidRequestError


def assert_kept(case: Instance, parts: Sequence[Groups], cap_w: Floats) -> None:
    """Every budget of the tree, every most and every least."""
    assert (case.tree.sums(cap_w) <= case.budget_w).all()
    assert (cap_w >= case.problem.lo_w).all()
    assert (cap_w <= case.problem.hi_w).all()
    for part in parts:
        assert (part.sums(cap_w) <= part.most_w).all()
        assert (part.sums(cap_w) >= part.least_w).all()


@pytest.mark.parametrize("curves", ["h200", "prior"])
@pytest.mark.parametrize("budget_ratio", [0.92, 0.82])
def test_loops_and_tenants_are_kept_at_the_optimum(budget_ratio: float, curves: CurveSet) -> None:
    """The bound proves it; to solve the tree and clip the loops leaves more."""
    case = instance(2_560, seed=1, budget_ratio=budget_ratio, curves=curves)
    parts = [cooling_loops(case), tenants(case, promised=budget_ratio + 0.02)]
    found = groups.solve(case.tree, case.budget_w, case.problem, parts)
    assert found.is_sound
    assert_kept(case, parts, found.cap_w)
    assert (found.group_price[0] > 0).any()
    assert (found.group_price[1] < 0).any()
    bound = groups.upper_bound(case.tree, case.budget_w, case.problem, parts, found)
    assert 0 <= bound - case.problem.utility(found.cap_w) <= 1e-4 * bound


def test_a_group_without_a_binding_limit_costs_nothing() -> None:
    """No price, and the same caps as the tree alone."""
    case = instance(640, seed=2)
    wide = Groups.of(["all"], np.zeros(640, dtype=int))
    found = groups.solve(case.tree, case.budget_w, case.problem, [wide])
    plain = waterfill(case.tree, case.budget_w, case.problem)
    assert found.group_price[0].tolist() == [0.0]
    np.testing.assert_allclose(found.cap_w, plain.cap_w, rtol=1e-5)


def test_an_earlier_solution_changes_only_the_speed() -> None:
    """A plan must not depend on the plans before it."""
    case = instance(1_280, seed=3)
    parts = [cooling_loops(case), tenants(case, promised=0.82)]
    before = groups.solve(case.tree, case.budget_w * 1.02, case.problem, parts)
    warm = groups.solve(case.tree, case.budget_w, case.problem, parts, before)
    cold = groups.solve(case.tree, case.budget_w, case.problem, parts)
    assert_kept(case, parts, warm.cap_w)
    utilities = [case.problem.utility(found.cap_w) for found in (warm, cold)]
    assert utilities[0] == pytest.approx(utilities[1], rel=1e-5)


def test_a_promise_that_cannot_be_kept_is_said_and_bounded() -> None:
    """The caps are marked unsound, and what the tenant can reach at most proves it."""
    case = instance(640, seed=4, budget_ratio=0.80)
    tenant = np.where(np.arange(640) < 320, 0, NO_GROUP)
    wanted_w = float(case.leaves.natural_w[:320].sum())
    part = Groups.of(["greedy"], tenant, least_w=wanted_w)
    found = groups.solve(case.tree, case.budget_w, case.problem, [part])
    most_w = groups.reachable_w(case.tree, case.budget_w, case.problem, [part], part.leaves_of(0))
    assert not found.is_sound
    assert most_w < wanted_w
    assert (case.tree.sums(found.cap_w) <= case.budget_w).all()


def test_a_promise_just_within_reach_is_kept() -> None:
    """Up to a millionth of the most that the tree can bring to the tenant."""
    case = instance(640, seed=5, budget_ratio=0.80)
    tenant = np.where(np.arange(640) < 320, 0, NO_GROUP)
    open_part = Groups.of(["tenant"], tenant)
    most_w = groups.reachable_w(
        case.tree, case.budget_w, case.problem, [open_part], open_part.leaves_of(0)
    )
    part = Groups.of(["tenant"], tenant, least_w=most_w * (1 - 1e-6))
    found = groups.solve(case.tree, case.budget_w, case.problem, [part])
    assert found.is_sound
    assert_kept(case, [part], found.cap_w)


@pytest.mark.parametrize("curves", ["h200", "prior"])
def test_jobs_loops_and_tenants_together(curves: CurveSet) -> None:
    """One answer that keeps all of it, within 1 % of what any could reach."""
    site = gang_instance(2_560, seed=0, budget_ratio=0.85, curves=curves)
    case, problem = site.case, site.case.problem
    parts = [cooling_loops(case), tenants(case, promised=0.87)]
    found = gang.solve(case.tree, case.budget_w, problem, site.gangs, parts)
    assert found.is_sound
    assert_kept(case, parts, found.cap_w)
    bound = gang_dual.upper_bound(
        case.tree, case.budget_w, problem, site.gangs, found.priced, parts
    )
    utility = site.gangs.utility(problem, found.cap_w)
    assert bound * 0.99 <= utility <= bound


def test_floors_above_a_loop_are_refused_by_name() -> None:
    """A loop that cannot carry the least caps needs work to move."""
    tree = PowerTree.from_nodes([TreeNode("site", None, 5e3)], ["site"] * 4)
    leaves = Leaves.of(natural_w=[600.0] * 4, p0=0.0, gamma=0.6, lo_w=300.0, hi_w=700.0)
    loop = Groups.of(["a", "b"], [0, 0, 1, 1], most_w=[500.0, 1e3])
    with pytest.raises(InvalidRequestError, match="floors in a exceed"):
        groups.solve(tree, tree.budget_w, leaves.problem(), [loop])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"names": ["a", "a"]}, "each once"),
        ({"group": [0, 2, 1]}, "2 of GPU 1 is no group"),
        ({"group": [0, 0, 0]}, "b has no GPU"),
        ({"group": [0.5, 0, 1]}, "whole number"),
        ({"most_w": [1.0, -1.0]}, "most_w: -1 W of b"),
        ({"most_w": float("nan")}, "most_w: nan W of a"),
        ({"least_w": float("inf")}, "least_w: inf W of a"),
        ({"least_w": [2.0, 0.0], "most_w": 1.0}, "a is promised more"),
        ({"most_w": [1.0, 2.0, 3.0]}, "one value, or one a group"),
    ],
)
def test_what_is_no_group_is_refused_by_name(arguments: dict[str, object], told: str) -> None:
    """The argument and the group are named."""
    good: dict[str, object] = {"names": ["a", "b"], "group": [0, 1, NO_GROUP]}
    with pytest.raises(InvalidRequestError, match=told):
        Groups.of(**(good | arguments))  # type: ignore[arg-type]
