"""What is proposed when floors do not fit: the cheapest set of work, and how sure that is."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock_evals.instances import instance
from interlock_servers.maxlps.allocator.cover import cheapest
from interlock_servers.maxlps.allocator.infeasible import (
    NoRelief,
    Relief,
    Target,
    Work,
    paused,
    relieve,
)
from interlock_servers.maxlps.allocator.plan import CapPlan, HostPower, Infeasible, plan
from interlock_servers.maxlps.allocator.problem import Leaves
from interlock_servers.maxlps.allocator.tree import PowerTree, TreeNode
from interlock_tools.errors import InvalidRequestError

FEW = settings(derandomize=True, max_examples=150, deadline=None, database=None)


def site(rack_w: float = 1_000.0, site_w: float = 5_000.0) -> PowerTree:
    """Two racks of two GPUs; rack a holds GPUs 0 and 1."""
    nodes = [TreeNode("site", None, site_w)]
    nodes += [TreeNode(name, "site", rack_w) for name in ("a", "b")]
    return PowerTree.from_nodes(nodes, ["a", "a", "b", "b"])


FLOORS_W = np.array([600.0, 600.0, 300.0, 300.0])
WORKS = (
    Work("train", np.array([0]), lost=5.0),
    Work("serve", np.array([1]), lost=9.0),
    Work("dev", np.array([2]), lost=0.1),
)


def relief(answer: Relief | NoRelief) -> Relief:
    """The relief, where one is expected."""
    assert isinstance(answer, Relief), answer
    return answer


def test_the_cheapest_work_that_helps_is_paused() -> None:
    """Not the cheapest of all: that one runs in a rack that has room."""
    tree = site()
    found = relief(relieve(tree, tree.budget_w, FLOORS_W, WORKS))
    assert (found.pause, found.move, found.cost, found.is_proven) == (("train",), (), 5.0, True)
    assert (found.floors_w <= tree.budget_w).all()


def test_work_moves_where_that_costs_less_and_there_is_room() -> None:
    """A move takes GPUs and watts elsewhere; without either it is no way out."""
    tree = site()
    mover = Work("train", np.array([0]), lost=5.0, targets=(Target("b", 350.0, 1.0),))
    works = (mover, *WORKS[1:])
    found = relief(relieve(tree, tree.budget_w, FLOORS_W, works, spare_gpus={"b": 1}))
    assert (found.pause, found.move, found.cost) == ((), (("train", "b"),), 1.0)
    full = relief(relieve(tree, tree.budget_w, FLOORS_W, works, spare_gpus={"b": 0}))
    assert (full.pause, full.move) == (("train",), ())
    tight = np.where(np.array(tree.names) == "b", 750.0, tree.budget_w)
    both = relief(relieve(tree, tight, FLOORS_W, works, spare_gpus={"b": 1}))
    assert (both.pause, both.move, both.cost) == (("dev",), (("train", "b"),), 1.1)


def test_where_floors_fit_nothing_is_asked_of_anyone() -> None:
    """And it costs nothing."""
    tree = site(rack_w=2_000.0)
    found = relief(relieve(tree, tree.budget_w, FLOORS_W, WORKS))
    assert (found.pause, found.move, found.cost, found.bound) == ((), (), 0.0, 0.0)


def test_what_no_pause_can_help_is_said_with_what_is_missing() -> None:
    """Work that may not be paused holds more than the rack has."""
    tree = site()
    fixed = Work("serve", np.array([0, 1]), lost=9.0, can_pause=False)
    answer = relieve(tree, tree.budget_w, FLOORS_W, [fixed, WORKS[2]])
    assert isinstance(answer, NoRelief)
    assert answer.nodes == ("a",)
    assert answer.shortfall_w == pytest.approx((200.0,))


@FEW
@given(st.integers(0, 2**32 - 1))
def test_the_choice_is_as_cheap_as_that_of_brute_force(seed: int) -> None:
    """Every choice of every item, for small ones; gains may be below zero as in a move."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 3, rng.integers(1, 7))
    item = np.repeat(np.arange(len(sizes)), sizes)
    rows = int(rng.integers(1, 4))
    cost = rng.choice([0.0, 1.0, 2.0, 5.0, 7.5], len(item)) + rng.uniform(0, 1, len(item))
    gain = rng.uniform(-0.3, 1.0, (len(item), rows))
    need = rng.uniform(-0.5, 1.5, rows)
    options = [[None, *np.flatnonzero(item == i)] for i in range(len(sizes))]
    best = np.inf
    for choice in product(*options):
        picked = [o for o in choice if o is not None]
        if (gain[picked].sum(axis=0) >= need - 1e-12).all():
            best = min(best, float(cost[picked].sum()))
    found = cheapest(item, cost, gain, need)
    if found is None:
        assert best == np.inf
        return
    assert found.is_proven
    assert found.cost == pytest.approx(best)
    assert found.bound <= found.cost * (1 + 1e-9)


def test_hundreds_of_jobs_are_solved_with_a_tight_bound() -> None:
    """320 of them, of which few have to pause; where many have to, the bound is looser."""
    case = instance(2_560, seed=1, budget_ratio=0.72, serving_floor=0.95)
    rng = np.random.default_rng(0)
    servers = case.tree.leaf_node
    works = [
        Work(
            f"job-{i}",
            np.flatnonzero(servers == i),
            lost=float(case.leaves.weight[servers == i].sum() * rng.uniform(0.5, 1.5)),
            penalty=float(rng.uniform(0, 1)),
        )
        for i in range(320)
    ]
    answer = plan(case.tree, case.leaves, host=HostPower(0.0, 1.0), margin=0)
    assert isinstance(answer, Infeasible)
    found = relief(relieve(case.tree, case.budget_w, case.problem.lo_w, works))
    assert (found.floors_w <= case.budget_w).all()
    assert found.bound <= found.cost <= 1.01 * found.bound
    # The plan without this work is possible, and not with the dearest piece of it running.
    gone = np.concatenate([w.leaves for w in works if w.name in found.pause])
    rest = paused(case.leaves, gone)
    again = plan(case.tree, rest, host=HostPower(0.0, 1.0), margin=0)
    assert isinstance(again, CapPlan)
    np.testing.assert_allclose(again.cap_w[gone], 75.0)


def test_paused_gpus_take_what_they_draw_and_no_more() -> None:
    """Idle watts are reserved even below the device's least cap."""
    leaves = Leaves.of(natural_w=[600.0] * 4, p0=0.0, gamma=0.6, lo_w=200.0, hi_w=700.0)
    answer = plan(site(), paused(leaves, np.array([1])), host=HostPower(0.0, 1.0), margin=0)
    assert isinstance(answer, CapPlan)
    np.testing.assert_allclose(answer.cap_w, [600.0, 75.0, 500.0, 500.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("works", "told"),
    [
        ([WORKS[0], WORKS[0]], "same name"),
        ([WORKS[0], Work("x", np.array([0]), 1.0)], "GPU of x is named twice"),
        ([Work("x", np.array([], dtype=int), 1.0)], "x needs GPUs"),
        ([Work("x", np.array([9]), 1.0)], "x needs GPUs"),
        ([Work("x", np.array([0]), -1.0)], "costs of x"),
        ([Work("x", np.array([0]), float("nan"))], "costs of x"),
        ([Work("x", np.array([0]), 1.0, targets=(Target("b", 1.0, 1.0),))], "only with spare_gpus"),
    ],
)
def test_what_is_no_work_is_refused_by_name(works: list[Work], told: str) -> None:
    """An empty job would cost something and free nothing."""
    tree = site()
    with pytest.raises(InvalidRequestError, match=told):
        relieve(tree, tree.budget_w, FLOORS_W, works)
