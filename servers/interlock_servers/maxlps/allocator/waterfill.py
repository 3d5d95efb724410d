"""Exact allocation of watts over a power tree: one price per full node, all nodes at once.

At price p (work per watt) a GPU wants the cap at which one more watt would buy less than p. With
T(c) = ((c - P0) / (D - P0)) ** gamma that cap has a closed form. The budgets nest and T is
concave, so pricing each node that is too full at the price above it gives the true optimum.
"""

from dataclasses import dataclass

import numpy as np

from interlock_servers.maxlps.allocator.fill import fill
from interlock_servers.maxlps.allocator.problem import Problem
from interlock_servers.maxlps.allocator.tree import Floats, Ints, PowerTree


@dataclass(frozen=True)
class Solution:
    """Caps by leaf, in watts, and the log price of each node (minus infinity: it has room).

    Prices are in weighted relative work per watt of GPU power.
    """

    cap_w: Floats
    log_price: Floats


@dataclass(frozen=True)
class PriceDemand:
    """Demand in a level `-k * log(price)`, with one `k` for all leaves.

    At such a level a leaf takes `base_w + exp(shift + rate * level)`, and `rate` is near 1. So in
    `exp(level)` demand is nearly a straight line, which Newton's method follows in few rounds.
    What `at` and `span` return lies in `scratch`, two rows that the next call writes again: on a
    large site half of the time went into pages for new arrays.
    """

    base_w: Floats
    shift: Floats
    rate: Floats
    lo_w: Floats
    hi_w: Floats
    scratch: Floats

    def take(self, leaves: Ints | slice) -> "PriceDemand":
        """The demand of these leaves only."""
        return PriceDemand(
            self.base_w[leaves],
            self.shift[leaves],
            self.rate[leaves],
            self.lo_w[leaves],
            self.hi_w[leaves],
            self.scratch,
        )

    def span(self) -> tuple[Floats, Floats]:
        """The levels at which each leaf leaves `lo_w` and reaches `hi_w`."""
        low, high = self.scratch[:, : len(self.rate)]
        for level, watts in ((low, self.lo_w), (high, self.hi_w)):
            np.subtract(watts, self.base_w, out=level)
            np.log(level, out=level)
            level -= self.shift
            level /= self.rate
        return low, high

    def at(self, level: Floats) -> tuple[Floats, Floats]:
        """Watts at one level for each leaf, and watts per unit of level (0 at either end)."""
        watts, slopes = self.scratch[:, : len(self.rate)]
        np.multiply(self.rate, level, out=watts)
        watts += self.shift
        with np.errstate(over="ignore"):  # far above `hi_w`
            np.exp(watts, out=watts)
            np.multiply(watts, self.rate, out=slopes)
        watts += self.base_w
        slopes[(watts <= self.lo_w) | (watts >= self.hi_w)] = 0.0
        np.maximum(watts, self.lo_w, out=watts)
        np.minimum(watts, self.hi_w, out=watts)
        return watts, slopes

    def step(self, level: Floats, units: Floats) -> Floats:
        """Newton's step in `exp(level)`; NaN where it would leave the positive numbers."""
        moved: Floats = level + np.log1p(units)
        return moved


def waterfill(
    tree: PowerTree, budget_w: Floats, problem: Problem, start: Floats | None = None
) -> Solution:
    """Caps that maximise weighted relative work within every budget of the tree.

    Args:
        tree: the power tree.
        budget_w: watts that the GPUs under each node may take together, by node.
        problem: curves and bounds of the leaves, in the caller's order.
        start: `log_price` of an earlier solution of this tree; only the speed depends on it.

    Raises:
        InvalidRequestError: the least caps under some node exceed its budget.
    """
    gamma, natural_w = tree.to_inner(problem.gamma), tree.to_inner(problem.natural_w)
    lo_w, hi_w = tree.to_inner(problem.lo_w), tree.to_inner(problem.hi_w)
    base_w = tree.to_inner(problem.p0) * natural_w
    scratch = np.empty((2, tree.leaf_count))
    usable_w = np.subtract(natural_w, base_w, out=scratch[0])
    rate = np.divide(1.0, 1.0 - gamma)  # each from here on in place: see `scratch`
    shift = gamma * tree.to_inner(problem.weight)
    np.log(shift, out=shift)
    shift -= np.multiply(gamma, np.log(usable_w, out=usable_w), out=usable_w)
    shift *= rate
    scale = float(rate.mean())
    rate /= scale
    demand = PriceDemand(base_w, shift, rate, lo_w, hi_w, scratch)
    filled = fill(tree, budget_w, demand, None if start is None else -scale * start)
    # exp and log may miss a bound by a rounding error
    cap_w = np.clip(filled.watts, lo_w, hi_w, out=filled.watts)
    return Solution(tree.to_caller(cap_w), -filled.level / scale)
