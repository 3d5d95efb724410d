"""The simple policies to beat, on the same tree and with the same bounds; all keep every budget."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from interlock_servers.maxlps.allocator.fill import Filled, fill
from interlock_servers.maxlps.allocator.problem import Problem
from interlock_servers.maxlps.allocator.tree import Floats, Ints, PowerTree


@dataclass(frozen=True)
class LinearDemand:
    """Demand `base_w + rate_w * level` in a level of any unit, held inside the bounds."""

    base_w: Floats
    rate_w: Floats
    lo_w: Floats
    hi_w: Floats

    def take(self, leaves: Ints | slice) -> "LinearDemand":
        """The demand of these leaves only."""
        return LinearDemand(
            self.base_w[leaves], self.rate_w[leaves], self.lo_w[leaves], self.hi_w[leaves]
        )

    def span(self) -> tuple[Floats, Floats]:
        """The levels at which each leaf leaves `lo_w` and reaches `hi_w`."""
        return (self.lo_w - self.base_w) / self.rate_w, (self.hi_w - self.base_w) / self.rate_w

    def at(self, level: Floats) -> tuple[Floats, Floats]:
        """Watts at one level for each leaf, and watts per unit of level (0 at either end)."""
        wanted = self.base_w + self.rate_w * level
        free = (wanted > self.lo_w) & (wanted < self.hi_w)
        slopes: Floats = self.rate_w * free
        return np.clip(wanted, self.lo_w, self.hi_w), slopes

    def step(self, level: Floats, units: Floats) -> Floats:
        """Newton's step as it is."""
        moved: Floats = level + units
        return moved


def uniform(tree: PowerTree, budget_w: Floats, problem: Problem) -> Floats:
    """One cap for all, as high as every budget allows (bounds of a GPU aside)."""
    filled = _fill(tree, budget_w, problem, base_w=0.0, rate_w=1.0)
    alike_w: Floats = np.clip(filled.level.min(), problem.lo_w, problem.hi_w)
    return np.minimum(alike_w, tree.to_caller(filled.watts))


def max_min(tree: PowerTree, budget_w: Floats, problem: Problem) -> Floats:
    """Equal watts, local to each full node: nobody gains but at the cost of someone with less."""
    return tree.to_caller(_fill(tree, budget_w, problem, base_w=0.0, rate_w=1.0).watts)


def proportional(tree: PowerTree, budget_w: Floats, problem: Problem) -> Floats:
    """The same share of natural draw, local to each full node."""
    filled = _fill(tree, budget_w, problem, base_w=0.0, rate_w=problem.natural_w)
    return tree.to_caller(filled.watts)


def equal_deficit(tree: PowerTree, budget_w: Floats, problem: Problem) -> Floats:
    """The least sum of squared deficits against natural draw."""
    filled = _fill(tree, budget_w, problem, base_w=problem.natural_w, rate_w=1.0)
    return tree.to_caller(filled.watts)


def priority_first(
    tree: PowerTree, budget_w: Floats, problem: Problem, priority: ArrayLike
) -> Floats:
    """Classes served strictly in order, lowest number first; max-min inside a class."""
    rank = np.asarray(priority)
    cap_w = problem.lo_w.copy()
    for served in np.unique(rank):
        most = np.where(rank == served, problem.hi_w, cap_w)
        zero, one = np.zeros(tree.leaf_count), np.ones(tree.leaf_count)
        demand = LinearDemand(zero, one, tree.to_inner(cap_w), tree.to_inner(most))
        cap_w = tree.to_caller(fill(tree, budget_w, demand).watts)
    return cap_w


def _fill(
    tree: PowerTree, budget_w: Floats, problem: Problem, base_w: ArrayLike, rate_w: ArrayLike
) -> Filled:
    """Fill the tree by a straight line for each leaf."""
    shape = problem.natural_w.shape
    demand = LinearDemand(
        tree.to_inner(np.broadcast_to(np.asarray(base_w, dtype=np.float64), shape)),
        tree.to_inner(np.broadcast_to(np.asarray(rate_w, dtype=np.float64), shape)),
        tree.to_inner(problem.lo_w),
        tree.to_inner(problem.hi_w),
    )
    return fill(tree, budget_w, demand)
