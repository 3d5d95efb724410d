"""Fills a power tree from the leaves up: each full node gets the level at which its leaves fit.

A level is what all leaves under a full node share, whatever it stands for: a price, a cap, a
share of natural draw. A leaf obeys the lowest level among the nodes above it. Where the demands
come from a concave utility this is the optimum, because budgets nest (KKT: the multipliers of
the ancestors add up to the price of the tightest). What is shared is the business of `Demand`.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from interlock_servers.maxlps.allocator.tree import Floats, Ints, PowerTree
from interlock_tools.errors import InvalidRequestError

TOLERANCE = 1e-7  # of a node's budget: how close a level must come
EXACT = 1e-9  # of a node's budget: left free, so that no order of summing shows it exceeded
MOST_ROUNDS = 80  # about 6 are used; bisection alone needs 60


class Demand(Protocol):
    """What each leaf takes at a level, in watts: never falling in it, continuous, in [lo, hi]."""

    @property
    def lo_w(self) -> Floats:
        """Least watts of each leaf."""
        ...

    @property
    def hi_w(self) -> Floats:
        """Most watts of each leaf, taken at level infinity."""
        ...

    def take(self, leaves: Ints | slice) -> Self:
        """The demand of these leaves only."""
        ...

    def span(self) -> tuple[Floats, Floats]:
        """The levels at which each leaf leaves `lo_w` and reaches `hi_w`."""
        ...

    def at(self, level: Floats) -> tuple[Floats, Floats]:
        """Watts at one level for each leaf, and watts per unit of level (0 at either end)."""
        ...

    def step(self, level: Floats, units: Floats) -> Floats:
        """Levels moved on by Newton's `units` (missing watts over slope); NaN where it cannot."""
        ...


@dataclass(frozen=True)
class Filled:
    """Watts by leaf (inner order) and the level of each node, infinite where the node has room."""

    watts: Floats
    level: Floats


def fill(tree: PowerTree, budget_w: Floats, demand: Demand, start: Floats | None = None) -> Filled:
    """Fill the tree; no node's sum exceeds its budget, and a full node is full.

    Args:
        tree: the power tree.
        budget_w: watts that the leaves under each node may take together, by node.
        demand: the leaves' demand, in the tree's inner order.
        start: levels of an earlier, similar fill by node; only the speed depends on them.

    Raises:
        InvalidRequestError: the least watts of the leaves under some node exceed its budget.
    """
    watts = demand.hi_w.copy()
    leaf_level = np.full(tree.leaf_count, np.inf)
    node_level = np.full(len(tree.names), np.inf)
    for level in tree.levels:
        budget = level.pick(budget_w, np.inf)
        over = np.flatnonzero(np.add.reduceat(watts, level.starts) > budget)
        if not len(over):
            continue
        leaves, sizes, budget = level.leaves(over), level.sizes[over], budget[over]
        firsts = np.cumsum(sizes) - sizes
        here, held = demand.take(leaves), leaf_level[leaves]
        least = np.add.reduceat(here.lo_w, firsts)
        if (least > budget).any():
            name = tree.names[level.node[over[np.argmax(least - budget)]]]
            raise InvalidRequestError(f"budget_w: the floors under {name} exceed its budget")
        guess = np.full(len(over), np.nan) if start is None else start[level.node[over]]
        found = _levels(here, held, sizes, budget, guess)
        held = np.minimum(held, np.repeat(found, sizes))
        taken = np.minimum(here.at(held)[0], watts[leaves])
        watts[leaves] = _trim(taken, here.lo_w, least, sizes, budget)
        leaf_level[leaves] = held
        node_level[level.node[over]] = found
    return Filled(watts, node_level)


def _levels(demand: Demand, held: Floats, sizes: Ints, budget: Floats, guess: Floats) -> Floats:
    """The level of each node at which its leaves take its budget; all nodes at once.

    Newton's method inside a bracket, aimed half a tolerance above the budget: `_trim` takes the
    rest. A step that leaves the bracket, or that follows one which did not halve the error, halves
    the bracket instead. Nodes that have converged leave the iteration as soon as half of the leaves
    are theirs.
    """
    firsts = np.cumsum(sizes) - sizes
    leaves_lo, reaches_hi = demand.span()
    low = np.minimum.reduceat(np.minimum(held, leaves_lo), firsts)
    high = np.maximum.reduceat(np.minimum(held, reaches_hi), firsts)
    level = np.where(np.isfinite(guess), np.clip(guess, low, high), 0.5 * (low + high))
    out, todo = low.copy(), np.arange(len(budget))
    done, error = np.zeros(len(budget), dtype=bool), np.full(len(budget), np.inf)
    for _ in range(MOST_ROUNDS):
        shared = np.repeat(level, sizes)
        watts, slopes = demand.at(np.minimum(held, shared))
        slopes *= held > shared
        missing = budget * (1 + 0.5 * TOLERANCE) - np.add.reduceat(watts, firsts)
        slope = np.add.reduceat(slopes, firsts)
        low, high = np.where(missing >= 0, level, low), np.where(missing < 0, level, high)
        met = ~done & (np.abs(missing) <= 0.5 * TOLERANCE * budget)
        out[todo] = np.where(done, out[todo], np.where(met, level, low))  # low: never too high
        done |= met
        if done.all():
            break
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            newton = demand.step(level, missing / slope)
        sound = (newton > low) & (newton < high) & (np.abs(missing) <= 0.5 * error)  # not for NaN
        level = np.where(sound, newton, 0.5 * (low + high))
        error = np.abs(missing)
        if 2 * int(sizes[~done].sum()) <= len(held):
            keep = np.flatnonzero(np.repeat(~done, sizes))
            demand, held = demand.take(keep), held[keep]
            todo, sizes, budget = todo[~done], sizes[~done], budget[~done]
            low, high, level, error = low[~done], high[~done], level[~done], error[~done]
            firsts, done = np.cumsum(sizes) - sizes, np.zeros(len(todo), dtype=bool)
    return out


def _trim(watts: Floats, lo_w: Floats, least: Floats, sizes: Ints, budget: Floats) -> Floats:
    """Take what is above the budget off each leaf, in proportion to what it has above `lo_w`."""
    total = np.add.reduceat(watts, np.cumsum(sizes) - sizes)
    room = np.maximum(budget * (1 - EXACT) - least, 0.0)
    spare = np.maximum(total - least, np.finfo(float).tiny)
    share = np.where(total > budget * (1 - EXACT), np.minimum(room / spare, 1.0), 1.0)
    trimmed: Floats = lo_w + (watts - lo_w) * np.repeat(share, sizes)
    return trimmed
