"""Fills a power tree from the root down: each full node gets the level at which its leaves fit.

A level is what all leaves under a full node share, whatever it stands for: a price, a cap, a
share of natural draw. A leaf obeys the lowest level among the nodes above it. Where the demands
come from a concave utility this is the optimum, because budgets nest (KKT: the multipliers of
the ancestors add up to the price of the tightest). What is shared is the business of `Demand`.

What a node draws at a level is the sum of what its children draw, each at most its budget. So the
root's level is found without those of the nodes under it, and a node is solved only where it is too
full at the level that it inherits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, Self

import numpy as np

from interlock_servers.maxlps.allocator.tree import Floats, Ints, PowerTree, runs
from interlock_tools.errors import InvalidRequestError

TOLERANCE = 1e-7  # of a node's budget: how close a level must come
EXACT = 1e-9  # of a node's budget: left free, so that no order of summing shows it exceeded
MOST_ROUNDS = 80  # about 4 are used; bisection alone needs 60


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
        """The levels at which each leaf leaves `lo_w` and reaches `hi_w`; used before any `at`."""
        ...

    def at(self, level: Floats) -> tuple[Floats, Floats]:
        """Watts at one level for each leaf, and watts per unit of level (0 at either end).

        One level may stand for all leaves. Use the answer before the next call: that may reuse it.
        """
        ...

    def step(self, level: Floats, units: Floats) -> Floats:
        """Levels moved on by Newton's `units` (missing watts over slope); NaN where it cannot."""
        ...


@dataclass(frozen=True)
class Filled:
    """Watts by leaf (inner order), and the level that each node sets.

    A level is infinite where the node has room at the level that it inherits.
    """

    watts: Floats
    level: Floats


@dataclass(frozen=True)
class Row:
    """The nodes of one height that can be full, as runs over the row below or over the leaves.

    Attributes:
        node: position of each node; NO_NODE where there is none.
        sizes: how many runs of the row below each takes; in the first row, how many leaves.
        leaf_sizes: how many leaves each takes.
        budget: watts; infinite where there is no node.
        least: watts that its leaves take at least.
    """

    node: Ints
    sizes: Ints
    leaf_sizes: Ints
    budget: Floats
    least: Floats

    def add(self, below: Floats) -> Floats:
        """The sum over each run, of values of the row below."""
        out: Floats = np.add.reduceat(below, np.cumsum(self.sizes) - self.sizes)
        return out

    def take(self, runs_taken: Ints) -> "Row":
        """These runs only."""
        return Row(*(values[runs_taken] for values in vars(self).values()))


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
    rows = _rows(tree, budget_w, demand)
    watts = demand.hi_w.copy()
    node_level = np.full(len(tree.names), np.inf)
    if not rows:
        return Filled(watts, node_level)
    held = np.full(len(rows[-1].node), np.inf)
    for height in reversed(range(len(rows))):
        row = rows[height]
        over = np.flatnonzero(_drawn(rows[: height + 1], watts)[-1] > row.budget)
        if len(over):
            under, leaves = _under(rows[: height + 1], over)
            here, nodes = demand.take(leaves), row.node[over]
            guess = np.full(len(over), np.nan) if start is None else start[nodes]
            found = _levels(here, under, held[over], guess)
            watts[leaves] = here.at(_spread(found, under[-1].leaf_sizes))[0]
            held[over] = node_level[nodes] = found
        if height:
            held = np.repeat(held, row.sizes)
    _trim(rows, watts, demand.lo_w)
    return Filled(watts, node_level)


def _rows(tree: PowerTree, budget_w: Floats, demand: Demand) -> list[Row]:
    """The heights at which some node is full when each leaf takes its most, the lowest first."""
    rows: list[Row] = []
    least, most, starts = demand.lo_w, demand.hi_w, np.arange(0)
    for level in tree.levels:
        budget = level.pick(budget_w, np.inf)
        firsts = np.searchsorted(starts, level.starts) if rows else level.starts
        drawn = np.add.reduceat(most, firsts)
        if (drawn <= budget).all():
            continue
        sizes = np.diff(np.append(firsts, len(most)))
        least, most, starts = (
            np.add.reduceat(least, firsts),
            np.minimum(drawn, budget),
            level.starts,
        )
        if (least > budget).any():
            name = tree.names[level.node[np.argmax(least - budget)]]
            raise InvalidRequestError(f"budget_w: the floors under {name} exceed its budget")
        rows.append(Row(level.node, sizes, level.sizes, budget, least))
    return rows


def _under(rows: Sequence[Row], top: Ints) -> tuple[list[Row], Ints | slice]:
    """The rows under these nodes of the last row, and the positions of their leaves."""
    if len(top) == len(rows[-1].node):
        return list(rows), slice(None)
    out = []
    for row in reversed(rows):
        out.append(row.take(top))
        top = runs((np.cumsum(row.sizes) - row.sizes)[top], row.sizes[top])
    return out[::-1], top


def _drawn(rows: Sequence[Row], watts: Floats) -> list[Floats]:
    """What the nodes of each row draw when those below keep their budgets."""
    drawn = [rows[0].add(watts)]
    for below, row in pairwise(rows):
        drawn.append(row.add(np.minimum(drawn[-1], below.budget)))
    return drawn


def _answer(demand: Demand, rows: Sequence[Row], level: Floats) -> tuple[Floats, Floats]:
    """What the nodes of the last row draw at these levels, and how that changes with them."""
    watts, slopes = demand.at(_spread(level, rows[-1].leaf_sizes))
    drawn, slope = _drawn(rows, watts), rows[0].add(slopes)
    for (below, row), total in zip(pairwise(rows), drawn, strict=False):
        slope = row.add(np.where(total < below.budget, slope, 0.0))  # a full child draws no more
    return drawn[-1], slope


def _spread(level: Floats, sizes: Ints) -> Floats:
    """The level of each node to its leaves; one for all stays one."""
    return level if len(level) == 1 else np.repeat(level, sizes)


def _levels(demand: Demand, rows: Sequence[Row], held: Floats, guess: Floats) -> Floats:
    """The level of each node of the last row at which its leaves take its budget; all at once.

    Newton's method inside a bracket, aimed half a tolerance above the budget: `_trim` takes the
    rest. A step that leaves the bracket, or that follows one which did not halve the error, halves
    the bracket instead. Nodes that have converged leave the iteration as soon as half of the leaves
    are theirs.
    """
    sizes = rows[-1].leaf_sizes
    firsts = np.cumsum(sizes) - sizes
    leaves_lo, reaches_hi = demand.span()
    low = np.minimum.reduceat(leaves_lo, firsts)
    high = np.minimum(np.maximum.reduceat(reaches_hi, firsts), held)
    first = np.where(np.isfinite(held), high, 0.5 * (low + high))
    level = np.where(np.isfinite(guess), np.clip(guess, low, high), first)
    out, todo = low.copy(), np.arange(len(low))
    done, error = np.zeros(len(low), dtype=bool), np.full(len(low), np.inf)
    for _ in range(MOST_ROUNDS):
        (drawn, slope), budget = _answer(demand, rows, level), rows[-1].budget
        missing = budget * (1 + 0.5 * TOLERANCE) - drawn
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
        if 2 * int(rows[-1].leaf_sizes[~done].sum()) <= len(demand.lo_w):
            keep = np.flatnonzero(~done)
            rows, leaves = _under(rows, keep)
            demand = demand.take(leaves)
            todo, low, high, level, error = (x[keep] for x in (todo, low, high, level, error))
            done = np.zeros(len(keep), dtype=bool)
    return out


def _trim(rows: Sequence[Row], watts: Floats, lo_w: Floats) -> None:
    """Take what is above a budget off each leaf, in proportion to what it has above `lo_w`."""
    watts -= lo_w
    spare, shares = watts, []
    for row in rows:
        spare, room = row.add(spare), np.maximum(row.budget * (1 - EXACT) - row.least, 0.0)
        shares.append(np.minimum(room, spare) / np.maximum(spare, np.finfo(float).tiny))
        spare = spare * shares[-1]
    kept = np.ones(len(rows[-1].node))
    for row, share in zip(reversed(rows), reversed(shares), strict=True):
        kept = np.repeat(kept * share, row.sizes)
    watts *= kept
    watts += lo_w
