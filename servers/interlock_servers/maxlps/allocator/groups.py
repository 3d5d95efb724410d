"""Caps within a power tree and groups that do not nest in it: loops that are full, promised sums.

Prices of the tree at fixed prices of the groups, then the other way round: each half is exact, so
the bound falls each time. What rounding leaves is taken off at the end; the answer keeps all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from interlock_servers.maxlps.allocator import dual
from interlock_servers.maxlps.allocator.baselines import LinearDemand
from interlock_servers.maxlps.allocator.fill import fill
from interlock_servers.maxlps.allocator.group_prices import Curve, Groups, find_prices
from interlock_servers.maxlps.allocator.problem import Problem
from interlock_servers.maxlps.allocator.tree import Floats, Ints, PowerTree
from interlock_servers.maxlps.allocator.waterfill import waterfill
from interlock_tools.errors import InvalidRequestError

ROUNDS = 40  # at most
SETTLED = 2e-5  # of a limit: how far its group may be from it when the rounds end
SLACK = 1e-9  # of a limit, left free: no order of summing shows it exceeded
LEAST_PRICE = 1e-9  # of what a leaf pays: where a bracket ends that would reach zero


@dataclass(frozen=True)
class OfferedDemand:
    """Demand in a level `-scale * log(price)` where each leaf pays `extra` besides.

    `extra` may be below zero. At a level of infinity a leaf takes what `extra` alone leaves it.
    """

    curve: Curve
    extra: Floats
    scale: float
    lo_w: Floats
    hi_w: Floats

    def take(self, leaves: Ints | slice) -> "OfferedDemand":
        """The demand of these leaves only."""
        if isinstance(leaves, slice):
            return self
        return OfferedDemand(
            self.curve.take(leaves),
            self.extra[leaves],
            self.scale,
            self.lo_w[leaves],
            self.hi_w[leaves],
        )

    def span(self) -> tuple[Floats, Floats]:
        """The levels at which each leaf leaves `lo_w` and reaches `hi_w`."""
        low, high = self.curve.price_at(self.lo_w), self.curve.price_at(self.hi_w)
        return tuple(  # type: ignore[return-value]  # two of them
            -self.scale * np.log(np.maximum(price - self.extra, LEAST_PRICE * price))
            for price in (low, high)
        )

    def at(self, level: Floats) -> tuple[Floats, Floats]:
        """Watts at one level for each leaf, and watts per unit of level (0 at either end)."""
        price = np.exp(level / -self.scale)
        watts, fall = self.curve.at(price + self.extra)
        free = watts < self.hi_w
        slopes: Floats = fall * price * free / -self.scale
        return np.minimum(watts, self.hi_w), slopes

    def step(self, level: Floats, units: Floats) -> Floats:
        """Newton's step in `exp(level)`; NaN where it would leave the positive numbers."""
        moved: Floats = level + np.log1p(units)
        return moved


@dataclass(frozen=True)
class GroupSolution:
    """Caps and what a later solve can start from.

    Attributes:
        cap_w: cap of each GPU, in watts (caller's order).
        log_price: log price of each node of the tree.
        group_price: price of each group, for each way to part the GPUs; below zero: it is lifted.
        short_w: by how much each group misses what it was promised; 0 where it has it. Anything
            above 0 means that no answer was found and the caps must not be used.
        rounds: how many were used.
    """

    cap_w: Floats
    log_price: Floats
    group_price: tuple[Floats, ...]
    short_w: tuple[Floats, ...]
    rounds: int

    @property
    def is_sound(self) -> bool:
        """Whether every promise to a group is kept."""
        return not any(short.any() for short in self.short_w)


def solve(
    tree: PowerTree,
    budget_w: Floats,
    problem: Problem,
    parts: Sequence[Groups],
    start: GroupSolution | None = None,
    rounds: int = ROUNDS,
) -> GroupSolution:
    """Caps that do the most weighted work within every budget of the tree and of the groups.

    Args:
        tree: the power tree.
        budget_w: watts that the GPUs under each node may take together, by node.
        problem: curves and bounds of the GPUs, in the caller's order.
        parts: ways to part the GPUs, each with limits on its groups.
        start: an earlier solution of a similar problem with the same groups; it saves rounds.
        rounds: at most.

    Raises:
        InvalidRequestError: the least caps exceed a node's budget or what a group may take.
    """
    for part in parts:
        over = part.sums(problem.lo_w) - part.most_w
        if (over > 0).any():
            name = part.names[int(np.argmax(over))]
            raise InvalidRequestError(f"most_w: the floors in {name} exceed what it may take")
    search = _Search(tree, budget_w, problem, parts, start)
    for _ in range(rounds):
        search.move_groups()
        search.fill_tree()
        if search.is_settled():
            break
    return search.answer()


def upper_bound(
    tree: PowerTree,
    budget_w: Floats,
    problem: Problem,
    parts: Sequence[Groups],
    found: GroupSolution,
) -> float:
    """No caps within all these limits give a higher utility than this; any prices give one."""
    own, price = dual.leaf_prices(tree, found.log_price)
    priced = own > 0
    paid, worth = extra_of(parts, found.group_price)
    kept = dual.surplus(problem, price + paid).sum()
    return float(kept + own[priced] @ budget_w[priced] + worth)


def extra_of(parts: Sequence[Groups], prices: Sequence[Floats]) -> tuple[Floats, float]:
    """What each GPU pays for its groups, and what all their limits are worth at these prices."""
    paid, worth = np.zeros(len(parts[0].group)) if parts else np.zeros(()), 0.0
    for part, price in zip(parts, prices, strict=True):
        paid = paid + part.spread(price)
        full, lifted = price > 0, price < 0
        worth += float(price[full] @ part.most_w[full] + price[lifted] @ part.least_w[lifted])
    return paid, worth


class _Search:
    """The rounds' state: prices of the tree, of the groups, and the caps that follow."""

    def __init__(
        self,
        tree: PowerTree,
        budget_w: Floats,
        problem: Problem,
        parts: Sequence[Groups],
        start: GroupSolution | None,
    ) -> None:
        self._tree, self._budget_w, self._problem, self._parts = tree, budget_w, problem, parts
        self._curve = Curve.of(problem)
        inner = {name: tree.to_inner(values) for name, values in vars(self._curve).items()}
        self._inner = Curve(**inner)
        self._scale = float(self._curve.exponent.mean())
        if start is None:
            plain = waterfill(tree, budget_w, problem)
            self._cap_w, self._log_price = plain.cap_w, plain.log_price
            self._prices = [np.zeros(len(part.names)) for part in parts]
        else:
            self._cap_w, self._log_price = start.cap_w, start.log_price
            self._prices = list(start.group_price)
        self._rounds = 0

    def move_groups(self) -> None:
        """The prices of the groups at fixed prices of the tree, one way to part after the other."""
        price = dual.leaf_prices(self._tree, self._log_price)[1]
        for place, part in enumerate(self._parts):
            others = [p for i, p in enumerate(self._parts) if i != place]
            of_others = [p for i, p in enumerate(self._prices) if i != place]
            paid = price + (extra_of(others, of_others)[0] if others else 0.0)
            self._prices[place] = find_prices(part, self._curve, paid, self._prices[place])

    def fill_tree(self) -> None:
        """The prices of the tree at fixed prices of the groups."""
        tree = self._tree
        extra = tree.to_inner(extra_of(self._parts, self._prices)[0])
        hi_w = self._inner.at(np.where(extra > 0, extra, 0.0))[0]
        demand = OfferedDemand(self._inner, extra, self._scale, self._inner.lo_w, hi_w)
        filled = fill(tree, self._budget_w, demand, -self._scale * self._log_price)
        cap_w = np.clip(filled.watts, self._inner.lo_w, self._inner.hi_w)
        self._cap_w, self._log_price = tree.to_caller(cap_w), -filled.level / self._scale
        self._rounds += 1

    def is_settled(self) -> bool:
        """Whether every group keeps its limits, and is at the one that it pays for."""
        for part, price in zip(self._parts, self._prices, strict=True):
            drawn = part.sums(self._cap_w)
            limit = np.where(price < 0, part.least_w, part.most_w)
            off = np.where(price != 0, np.abs(drawn - limit), np.maximum(drawn - limit, 0.0))
            off = np.maximum(off, part.least_w - drawn)
            with np.errstate(invalid="ignore"):
                if (off > SETTLED * np.where(np.isfinite(limit), limit, 1.0)).any():
                    return False
        return True

    def answer(self) -> GroupSolution:
        """Take what is above a limit off its group, give back what others can use, and check."""
        problem, parts = self._problem, self._parts
        cap_w = _clip(parts, problem.lo_w, self._cap_w)
        cap_w = _lift(self._tree, self._budget_w, problem, parts, cap_w)
        lo_w, hi_w = problem.lo_w, problem.hi_w
        for part, price in zip(self._parts, self._prices, strict=True):
            hi_w = np.where(part.spread(price) > 0, np.minimum(hi_w, cap_w), hi_w)
        for part, price in zip(self._parts, self._prices, strict=True):
            lo_w = np.where(part.spread(price) < 0, np.maximum(lo_w, cap_w), lo_w)
        hi_w = np.maximum(hi_w, lo_w)
        again = waterfill(
            self._tree, self._budget_w, replace(problem, lo_w=lo_w, hi_w=hi_w), self._log_price
        )
        if all((p.sums(again.cap_w) <= p.most_w).all() for p in self._parts):
            cap_w = again.cap_w
        short = tuple(
            np.where(missing > 0, missing, 0.0)
            for missing in (part.least_w - part.sums(cap_w) for part in self._parts)
        )
        return GroupSolution(cap_w, self._log_price, tuple(self._prices), short, self._rounds)


def _clip(parts: Sequence[Groups], lo_w: Floats, cap_w: Floats) -> Floats:
    """Take what is above a group's most off its GPUs, in proportion to what they have above lo."""
    for part in parts:
        room = np.maximum(part.most_w * (1 - SLACK) - part.sums(lo_w), 0.0)
        spare = part.sums(cap_w - lo_w)
        share = np.where(spare > room, room / np.maximum(spare, SLACK), 1.0)
        cap_w = lo_w + (cap_w - lo_w) * part.spread(share, 1.0)
    return cap_w


def _lift(
    tree: PowerTree,
    budget_w: Floats,
    problem: Problem,
    parts: Sequence[Groups],
    cap_w: Floats,
) -> Floats:
    """Give groups what they still miss of a promise, off the others; caps stay within all limits.

    The groups' GPUs move towards the most that they could have, just far enough; the others then
    share what is left. A promise that does not fit stays missed.
    """
    missing = [part.least_w - part.sums(cap_w) for part in parts]
    if not any((short > 0).any() for short in missing):
        return cap_w
    promised = np.zeros(len(cap_w), dtype=bool)
    for part in parts:
        promised |= part.spread((part.least_w > 0).astype(float)) > 0
    floor_w = np.where(promised, cap_w, problem.lo_w)
    most_w = _share_out(tree, budget_w, floor_w, np.where(promised, problem.hi_w, floor_w))
    most_w = _clip(parts, floor_w, most_w)
    lifted_w = cap_w
    for part, short in zip(parts, missing, strict=True):
        gain = part.sums(np.where(promised, most_w - cap_w, 0.0))
        share = np.where(short > 0, np.minimum(short * (1 + SLACK) / np.maximum(gain, SLACK), 1), 0)
        lifted_w = np.maximum(lifted_w, cap_w + part.spread(share) * (most_w - cap_w) * promised)
    floor_w = np.where(promised, lifted_w, problem.lo_w)
    rest_w = _share_out(tree, budget_w, floor_w, np.where(promised, lifted_w, cap_w))
    return _clip(parts, floor_w, rest_w)


def _share_out(tree: PowerTree, budget_w: Floats, lo_w: Floats, hi_w: Floats) -> Floats:
    """From `lo_w` towards `hi_w`, the same share of the way under each full node."""
    inner = [tree.to_inner(values) for values in (lo_w, np.maximum(hi_w - lo_w, 1e-9), lo_w, hi_w)]
    inner[3] = np.maximum(inner[3], inner[2])
    watts = fill(tree, budget_w, LinearDemand(*inner)).watts
    return np.clip(tree.to_caller(watts), lo_w, np.maximum(lo_w, hi_w))


def reachable_w(
    tree: PowerTree, budget_w: Floats, problem: Problem, parts: Sequence[Groups], chosen: Ints
) -> float:
    """The chosen GPUs can never have more than this together, the others at their least.

    Exact for the tree alone; each way to part the GPUs gives a bound of its own.
    """
    mask = np.zeros(tree.leaf_count, dtype=bool)
    mask[chosen] = True
    most_w = np.where(mask, problem.hi_w, problem.lo_w)
    full_w = _share_out(tree, budget_w, problem.lo_w, most_w)
    bounds = [float(full_w[mask].sum())]
    for part in parts:
        inside = part.sums(np.where(mask, problem.hi_w, 0.0))
        others = part.sums(np.where(mask, 0.0, problem.lo_w))
        free = float(problem.hi_w[mask & (part.group < 0)].sum())
        bounds.append(free + float(np.minimum(inside, part.most_w - others).sum()))
    return min(bounds)
