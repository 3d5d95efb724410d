"""The allocation of a site with synchronous jobs as a linear program for HiGHS: the exact answer.

A job is one column of speed, cut into segments; each costs its members the watts that their own
curves ask for. Watts are convex in speed, so chords overstate them: every answer keeps the budgets.
"""

import highspy
import numpy as np
from numpy.typing import NDArray

from interlock_servers.maxlps.allocator.gang import ALONE, Gangs
from interlock_servers.maxlps.allocator.problem import Problem
from interlock_servers.maxlps.allocator.tree import NO_NODE, PowerTree
from interlock_tools.power_curve import cap_for

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


def solve(
    tree: PowerTree, budget_w: Floats, problem: Problem, gangs: Gangs, segments: int = 32
) -> Floats:
    """Caps in watts, optimal for curves of this many chords, members of a job at one speed.

    Columns: the chords of each GPU alone, those of each job, and the GPU watts under each node.
    One row for each node says that its watts are those of its GPUs and child nodes.

    Raises:
        RuntimeError: HiGHS found no optimum.
    """
    nodes = len(tree.names)
    alone = np.flatnonzero(gangs.job == ALONE)
    steps = np.linspace(0, 1, segments + 1)[:, None]

    edges_w = problem.lo_w[alone] + steps * (problem.hi_w - problem.lo_w)[alone]
    columns = [_curve(problem, alone, edges_w)]
    at = gangs.members
    low = gangs.slowest(problem.work(problem.lo_w))
    high = gangs.slowest(problem.work(problem.hi_w))
    speed = low + steps * (high - low)
    member = speed[:, gangs.job[at]]
    needed_w = cap_for(member, problem.natural_w[at], problem.p0[at], problem.gamma[at])
    needed_w = np.maximum(needed_w, problem.lo_w[at])
    worth = np.diff(speed, axis=0) * gangs.total(problem.weight[at])

    # A column's length is 1: all of the chord. Chords of a job lay watts on many servers.
    count = segments * (len(alone) + gangs.count)
    chord = np.arange(segments)[:, None]
    entry = [
        (
            chord * len(alone) + np.arange(len(alone)),
            tree.leaf_node[alone],
            np.diff(edges_w, axis=0),
        ),
        (
            segments * len(alone) + chord * gangs.count + gangs.job[at],
            tree.leaf_node[at],
            np.diff(needed_w, axis=0),
        ),
    ]
    child = np.flatnonzero(tree.parent != NO_NODE)
    column = np.concatenate(
        [e[0].ravel() for e in entry] + [count + np.arange(nodes), count + child]
    )
    row = np.concatenate(
        [np.tile(e[1], segments) for e in entry] + [np.arange(nodes), tree.parent[child]]
    )
    value = np.concatenate([e[2].ravel() for e in entry] + [-np.ones(nodes), np.ones(len(child))])
    least_w = problem.lo_w.copy()
    least_w[at] = needed_w[0]
    fixed_w = np.bincount(tree.leaf_node, weights=least_w, minlength=nodes)

    taken = _run(
        cost=np.concatenate((columns[0].ravel(), worth.ravel(), np.zeros(nodes))),
        upper=np.concatenate((np.ones(count), budget_w)),
        rhs=np.negative(fixed_w, dtype=np.float64),
        triplets=(row, column, value),
    )[:count]
    cap_w = problem.lo_w.copy()
    part = taken[: segments * len(alone)].reshape(segments, -1)
    cap_w[alone] += (part * np.diff(edges_w, axis=0)).sum(axis=0)
    run = low + (taken[segments * len(alone) :].reshape(segments, -1) * np.diff(speed, axis=0)).sum(
        0
    )
    exact_w = cap_for(gangs.spread(run), problem.natural_w[at], problem.p0[at], problem.gamma[at])
    cap_w[at] = np.maximum(exact_w, problem.lo_w[at])
    return np.clip(cap_w, problem.lo_w, problem.hi_w)


def _curve(problem: Problem, leaves: Ints, edges_w: Floats) -> Floats:
    """What each chord of these GPUs is worth, chords by GPUs."""
    share = (edges_w / problem.natural_w[leaves] - problem.p0[leaves]) / (1 - problem.p0[leaves])
    return np.diff(np.clip(share, 0, 1) ** problem.gamma[leaves], axis=0) * problem.weight[leaves]


def _run(cost: Floats, upper: Floats, rhs: Floats, triplets: tuple[Ints, Ints, Floats]) -> Floats:
    """Maximise `cost @ x` with 0 <= x <= upper and the rows equal to `rhs`."""
    row, column, value = triplets
    key, place = np.unique(column * len(rhs) + row, return_inverse=True)
    summed = np.bincount(place, weights=value).astype(np.float64)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(cost), len(rhs)
    lp.sense_ = highspy.ObjSense.kMaximize
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, np.zeros(len(cost)), upper
    lp.row_lower_ = lp.row_upper_ = rhs
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    counts = np.bincount(key // len(rhs), minlength=len(cost))
    lp.a_matrix_.start_ = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    lp.a_matrix_.index_ = (key % len(rhs)).astype(np.int32)
    lp.a_matrix_.value_ = summed
    highs = highspy.Highs()  # type: ignore[no-untyped-call]  # its constructor has no types
    highs.silent()
    highs.passModel(lp)
    highs.run()
    if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"HiGHS ended with {highs.getModelStatus()}")
    return np.array(highs.getSolution().col_value)
