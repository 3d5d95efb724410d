"""The allocation problem as a linear program for HiGHS: an independent solver to be judged by.

Each GPU's concave curve becomes chords, so every answer is a true allocation within the budgets
and its utility on the true curve is one that the optimum reaches at least.
"""

import highspy
import numpy as np
from numpy.typing import NDArray

from interlock_servers.maxlps.allocator.problem import Problem
from interlock_servers.maxlps.allocator.tree import NO_NODE, PowerTree

Floats = NDArray[np.float64]


def solve(tree: PowerTree, budget_w: Floats, problem: Problem, segments: int = 8) -> Floats:
    """Caps in watts, optimal for curves of this many chords, by HiGHS at its default settings.

    Columns are the chords of each GPU and the GPU watts under each node; one row for each node says
    that its watts are those of its GPUs and child nodes. That keeps the matrix sparse.

    Raises:
        RuntimeError: HiGHS found no optimum.
    """
    leaves, nodes = tree.leaf_count, len(tree.names)
    edges = problem.lo_w + np.linspace(0, 1, segments + 1)[:, None] * (problem.hi_w - problem.lo_w)
    worth = problem.weight * problem.work(edges)
    width = np.diff(edges, axis=0)
    slope = np.diff(worth, axis=0) / np.maximum(width, 1e-12)

    chords = leaves * segments
    child = np.flatnonzero(tree.parent != NO_NODE)
    column = np.concatenate((np.arange(chords), chords + np.arange(nodes), chords + child))
    row = np.concatenate((np.tile(tree.leaf_node, segments), np.arange(nodes), tree.parent[child]))
    value = np.concatenate((np.ones(chords), -np.ones(nodes), np.ones(len(child))))
    by_column = np.lexsort((row, column))
    fixed_w = np.bincount(tree.leaf_node, weights=problem.lo_w, minlength=nodes)

    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = chords + nodes, nodes
    lp.sense_ = highspy.ObjSense.kMaximize
    lp.col_cost_ = np.concatenate((slope.ravel(), np.zeros(nodes)))
    lp.col_lower_ = np.zeros(chords + nodes)
    lp.col_upper_ = np.concatenate((width.ravel(), budget_w))
    lp.row_lower_ = lp.row_upper_ = np.negative(fixed_w, dtype=np.float64)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.concatenate(([0], np.cumsum(np.bincount(column)))).astype(np.int32)
    lp.a_matrix_.index_ = row[by_column].astype(np.int32)
    lp.a_matrix_.value_ = value[by_column]

    highs = highspy.Highs()  # type: ignore[no-untyped-call]  # its constructor has no types
    highs.silent()
    highs.passModel(lp)
    highs.run()
    if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"HiGHS ended with {highs.getModelStatus()}")
    taken = np.array(highs.getSolution().col_value)[:chords].reshape(segments, leaves)
    cap_w: Floats = np.clip(problem.lo_w + taken.sum(axis=0), problem.lo_w, problem.hi_w)
    return cap_w
