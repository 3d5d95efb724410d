"""At most one option for each item, at least cost, so that every row is covered: exact, or bounded.

A Lagrangian gives a bound that holds at any size; options that it shows to be too dear are dropped,
and what is left is searched depth first. Where the search is cut short the bound still stands.
"""

from dataclasses import dataclass

import numpy as np

from interlock_servers.maxlps.allocator.tree import Floats, Ints

KEEP = -1  # no option: the item stays as it is
RESTARTS = 3  # of the bound, each from the last prices and the best choice so far
BOUND_ROUNDS = 1_000  # of the Lagrangian
MOST_VISITS = 100_000  # of the search: some seconds
SAME = 1e-9  # costs that differ by less, relatively, are the same


@dataclass(frozen=True)
class Cover:
    """What was chosen, and how far from the best it can be.

    Attributes:
        choice: position of the option chosen for each item, or KEEP.
        cost: of all of it.
        bound: no cover costs less than this.
        is_proven: whether no cheaper cover exists.
    """

    choice: Ints
    cost: float
    bound: float
    is_proven: bool


def cheapest(
    item: Ints, cost: Floats, gain: Floats, need: Floats, visits: int = MOST_VISITS
) -> Cover | None:
    """The cheapest choice with `sum of gains >= need` in every row; None where there is none.

    Args:
        item: item of each option, ascending from 0, none left out.
        cost: of each option, at least 0.
        gain: options by rows; below 0 where an option takes instead of gives.
        need: of each row; below 0 where there is room.
        visits: how many branches to look at, at most.

    Raises:
        RuntimeError: nothing was found and the search was cut short, so there may be a cover.
    """
    # What an option gives beyond the need of a row covers nothing; without it the bound is closer.
    gives = (need > 0) & (gain >= 0).all(axis=0)
    gain = np.where(gives, np.minimum(gain, np.maximum(need, 0.0)), gain)
    scale = np.maximum(np.abs(gain).max(axis=0, initial=0.0), np.abs(need)) + 1e-300
    gain, need = gain / scale, need / scale
    found = _greedy(item, cost, cost, gain, need)
    limit = _total(cost, found)
    price, bound = np.zeros(len(need)), 0.0
    for _ in range(RESTARTS):
        price, bound = _prices(item, cost, gain, need, limit, price)
        # What the prices call cheap is chosen first: closer to the best than need alone.
        other = _greedy(item, cost, np.maximum(cost - gain @ price, 0.0), gain, need)
        if _total(cost, other) < limit:
            found, limit = other, _total(cost, other)
    search = _Search(item, cost, gain, need, price, found, limit, visits)
    search.run(bound)
    if search.best is None:
        if search.left <= 0:
            raise RuntimeError("the search for a cover was cut short before one was found")
        return None
    proven = search.left > 0
    chosen = search.best
    total = float(cost[chosen[chosen != KEEP]].sum())
    return Cover(chosen, total, total if proven else min(bound, total), proven)


def _total(cost: Floats, choice: Ints | None) -> float:
    """What a choice costs; infinite where there is none."""
    return np.inf if choice is None else float(cost[choice[choice != KEEP]].sum())


def _greedy(item: Ints, cost: Floats, felt: Floats, gain: Floats, need: Floats) -> Ints | None:
    """Most need covered for the cost as felt, one option after the other; then drop what can go."""
    items = int(item.max(initial=-1)) + 1
    choice = np.full(items, KEEP)
    left = need.copy()
    open_ = np.ones(len(cost), dtype=bool)
    while (left > 0).any():
        wanted = np.maximum(left, 0.0)
        helps = np.minimum(np.maximum(gain, 0.0), wanted).sum(axis=1)
        fits = (gain >= np.minimum(0.0, left)).all(axis=1) | (gain >= 0).all(axis=1)
        usable = open_ & fits & (helps > 0)
        if not usable.any():
            return None
        worth = np.where(usable, helps / (felt + 1e-6 * (1e-9 + cost.max())), -np.inf)
        best = int(np.argmax(worth))
        choice[item[best]] = best
        left = left - gain[best]
        open_ &= item != item[best]
    for each in sorted(np.flatnonzero(choice != KEEP), key=lambda i: -cost[choice[i]]):
        without = left + gain[choice[each]]
        if (without <= 0).all():
            left, choice[each] = without, KEEP
    return choice


def _prices(
    item: Ints, cost: Floats, gain: Floats, need: Floats, limit: float, price: Floats
) -> tuple[Floats, float]:
    """A price for each row that makes the Lagrangian bound high, by projected subgradients."""
    best_price, best = price, 0.0
    if not len(cost):
        return best_price, best
    firsts = np.flatnonzero(np.append(True, np.diff(item) != 0))
    goal = limit if np.isfinite(limit) else float(cost.sum())
    step, since = 1.0, 0
    for _ in range(BOUND_ROUNDS):
        reduced = cost - gain @ price
        least = np.minimum(np.minimum.reduceat(reduced, firsts), 0.0)
        value = float(price @ need + least.sum())
        since += 1
        if value > best:
            best, best_price, since = value, price, 0
        chosen = reduced <= np.repeat(least, np.diff(np.append(firsts, len(item))))
        chosen &= reduced < 0
        away = need - (gain * chosen[:, None]).sum(axis=0)
        length = float(away @ away)
        if length < 1e-24:
            break
        if since >= 30:
            step, since = 0.6 * step, 0
        price = np.maximum(price + step * max(goal - value, SAME) / length * away, 0.0)
    return best_price, best


class _Search:
    """Depth first, dearest regret first; a branch ends where the bound reaches the best."""

    def __init__(
        self,
        item: Ints,
        cost: Floats,
        gain: Floats,
        need: Floats,
        price: Floats,
        found: Ints | None,
        limit: float,
        visits: int,
    ) -> None:
        self.best, self._limit, self.left = found, limit, visits
        self._need, self._gain = need, gain
        items = int(item.max(initial=-1)) + 1
        reduced = cost - gain @ price
        self._choices: list[list[tuple[float, int]]] = []
        for each in range(items):
            options = [(float(reduced[o]), int(o)) for o in np.flatnonzero(item == each)]
            options = sorted([(0.0, KEEP), *options])
            least = options[0][0]
            self._choices.append([(value - least, option) for value, option in options])
        self._cost = cost

    def run(self, bound: float) -> None:
        """Search under the root's bound."""
        slack = self._limit - bound
        kept = [[c for c in options if c[0] < slack or c[0] == 0.0] for options in self._choices]
        order = sorted(
            range(len(kept)), key=lambda i: -(kept[i][1][0] if len(kept[i]) > 1 else 1e30)
        )
        self._order = order
        self._kept = kept
        rows = len(self._need)
        # The most that the items from here on can still give to each row.
        self._rest = np.zeros((len(order) + 1, rows))
        for place in range(len(order) - 1, -1, -1):
            most = [
                np.zeros(rows) if option == KEEP else self._gain[option]
                for _, option in kept[order[place]]
            ]
            self._rest[place] = self._rest[place + 1] + np.maximum.reduce(most)
        self._choice = np.full(len(order), KEEP)
        self._visit(bound)

    def _visit(self, root: float) -> None:
        """An explicit stack: hundreds of items are deeper than Python likes to recurse."""
        stack: list[tuple[int, float, Floats, tuple[int, int] | None]] = [
            (0, root, self._need, None)
        ]
        while stack and self.left > 0:
            place, bound, left, chosen = stack.pop()
            self.left -= 1
            if chosen is not None:
                self._choice[chosen[0]] = chosen[1]
            if bound >= self._limit * (1 - SAME) or (left > self._rest[place] + 1e-12).any():
                continue
            if place == len(self._order):
                picked = self._choice[self._choice != KEEP]
                total = float(self._cost[picked].sum())
                if total < self._limit * (1 - SAME) or self.best is None:
                    self._limit, self.best = total, self._choice.copy()
                continue
            item = self._order[place]
            for regret, option in reversed(self._kept[item]):
                rest = left if option == KEEP else left - self._gain[option]
                stack.append((place + 1, bound + regret, rest, (item, option)))
