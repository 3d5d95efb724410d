"""Limits that cut across the power tree: a cooling loop's most watts, a tenant's least.

One price for each group comes on top of what the tree asks of a GPU: above zero where the group is
full, below zero where it must be lifted to what it was promised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from interlock_servers.maxlps.allocator.problem import Problem
from interlock_servers.maxlps.allocator.tree import Floats, Ints
from interlock_tools.errors import InvalidRequestError

NO_GROUP = -1
OVER_AIM = 2e-6  # of a limit: aimed below a most and above a least by this much
MOST_STEPS = 60


@dataclass(frozen=True)
class Groups:
    """One way to part the GPUs (loops, or tenants), and limits on each group's watts.

    Attributes:
        names: of each group.
        group: group of each GPU (caller's order), NO_GROUP where it has none.
        most_w: what the GPUs of each group may take together; infinite where unlimited.
        least_w: what they were promised together; 0 where nothing.
    """

    names: tuple[str, ...]
    group: Ints
    most_w: Floats
    least_w: Floats

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        group: ArrayLike,
        *,
        most_w: ArrayLike = np.inf,
        least_w: ArrayLike = 0.0,
    ) -> Self:
        """Groups, checked; one limit for each group or one for all.

        Raises:
            InvalidRequestError: a name is there twice, a group is empty, a GPU's group is not one
                of them, or a limit is NaN, below 0 or crossed.
        """
        number = np.asarray(group)
        if number.ndim != 1 or not np.issubdtype(number.dtype, np.integer):
            raise InvalidRequestError("group: need one whole number for each GPU")
        count = len(names)
        if len(set(names)) != count or not count:
            raise InvalidRequestError("groups: need names, each once")
        if len(bad := np.flatnonzero((number < NO_GROUP) | (number >= count))):
            raise InvalidRequestError(f"group: {number[bad[0]]} of GPU {bad[0]} is no group")
        sizes = np.bincount(number[number != NO_GROUP], minlength=count)
        if len(empty := np.flatnonzero(sizes == 0)):
            raise InvalidRequestError(f"group: {names[empty[0]]} has no GPU")
        limits = []
        for name, given in (("most_w", most_w), ("least_w", least_w)):
            try:
                limit = np.broadcast_to(np.asarray(given, dtype=np.float64), (count,)).copy()
            except ValueError:
                raise InvalidRequestError(f"{name}: need one value, or one a group") from None
            wrong = np.isnan(limit) | (limit < 0) | ((name == "least_w") & ~np.isfinite(limit))
            if len(bad := np.flatnonzero(wrong)):
                raise InvalidRequestError(f"{name}: {limit[bad[0]]:g} W of {names[bad[0]]}")
            limits.append(limit)
        if len(bad := np.flatnonzero(limits[1] > limits[0])):
            raise InvalidRequestError(f"least_w: {names[bad[0]]} is promised more than its most_w")
        return cls(tuple(names), number.astype(np.intp), *limits)

    def sums(self, by_leaf: Floats) -> Floats:
        """Sum over the GPUs of each group."""
        first_is_outside = self.group - NO_GROUP
        sums = np.bincount(first_is_outside, weights=by_leaf, minlength=len(self.names) + 1)
        return sums[1:].astype(np.float64)

    def spread(self, by_group: Floats, outside: float = 0.0) -> Floats:
        """One value of each group, to its GPUs (caller's order)."""
        return np.where(self.group == NO_GROUP, outside, by_group[self.group])

    def leaves_of(self, group: int) -> Ints:
        """Caller's positions of the GPUs of a group."""
        return np.flatnonzero(self.group == group)


@dataclass(frozen=True)
class Curve:
    """Demand of each GPU at a price, in its bounds: `base_w + exp(shift) * price ** -exponent`."""

    base_w: Floats
    shift: Floats
    exponent: Floats
    lo_w: Floats
    hi_w: Floats

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """From the curves and bounds of a problem."""
        exponent = 1.0 / (1.0 - problem.gamma)
        base_w = problem.p0 * problem.natural_w
        slope = np.log(problem.gamma * problem.weight) - problem.gamma * np.log(
            problem.natural_w - base_w
        )
        return cls(base_w, exponent * slope, exponent, problem.lo_w, problem.hi_w)

    def take(self, leaves: Ints) -> "Curve":
        """The demand of these GPUs only."""
        return Curve(
            self.base_w[leaves],
            self.shift[leaves],
            self.exponent[leaves],
            self.lo_w[leaves],
            self.hi_w[leaves],
        )

    def price_at(self, cap_w: Floats) -> Floats:
        """The price at which each GPU asks for this cap; infinite where that buys no work."""
        with np.errstate(divide="ignore"):
            log_w = np.log(np.maximum(cap_w - self.base_w, 0.0))
        price: Floats = np.exp((self.shift - log_w) / self.exponent)
        return price

    def at(self, price: Floats) -> tuple[Floats, Floats]:
        """Watts at these prices (any sign), and how they fall as the price rises (0 at a bound)."""
        with np.errstate(divide="ignore", over="ignore"):
            above_w = np.exp(self.shift - self.exponent * np.log(np.maximum(price, 0.0)))
            steep = self.exponent * above_w
        wanted_w = self.base_w + above_w
        free = (wanted_w > self.lo_w) & (wanted_w < self.hi_w)
        fall = np.divide(steep, -price, out=np.zeros_like(price), where=free)
        return np.clip(wanted_w, self.lo_w, self.hi_w), fall


def find_prices(groups: Groups, curve: Curve, other: Floats, guess: Floats) -> Floats:
    """The price of each group at which it keeps its limits; all groups at once.

    Args:
        groups: the groups.
        curve: demand of all GPUs.
        other: what each GPU pays besides (tree, and other ways to part them).
        guess: earlier prices of the groups; only the speed depends on them.

    Returns:
        One price for each group: 0 where both limits hold without one.
    """
    drawn = groups.sums(curve.at(other)[0])
    most_w = groups.most_w * (1 - OVER_AIM)
    least_w = np.minimum(groups.least_w * (1 + OVER_AIM), groups.sums(curve.hi_w))
    full, short = drawn > most_w, drawn < least_w
    price = np.zeros(len(groups.names))
    todo = np.flatnonzero(full | short)
    if not len(todo):
        return price
    number = np.full(len(groups.names) + 1, NO_GROUP)  # the last: of GPUs without a group
    number[todo] = np.arange(len(todo))
    inside = np.flatnonzero(number[groups.group] != NO_GROUP)
    here, paid, own = curve.take(inside), other[inside], number[groups.group[inside]]
    target = np.where(full, most_w, least_w)[todo]

    def total(values: Floats) -> Floats:
        return np.bincount(own, weights=values, minlength=len(todo)).astype(np.float64)

    low, high = np.zeros(len(todo)), np.zeros(len(todo))
    np.maximum.at(high, own, here.price_at(here.lo_w) - paid)
    np.minimum.at(low, own, here.price_at(here.hi_w) - paid)
    low, high = np.where(full[todo], 0.0, low), np.where(full[todo], high, 0.0)
    known = guess[todo]
    at = np.where((known > low) & (known < high), known, 0.5 * (low + high))
    for _ in range(MOST_STEPS):
        watts, fall = here.at(paid + at[own])
        above = total(watts) - target
        low, high = np.where(above > 0, at, low), np.where(above > 0, high, at)
        if (np.abs(above) <= 0.1 * OVER_AIM * target).all():
            break
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = at - above / total(fall)
        sound = (newton > low) & (newton < high)  # not for NaN
        at = np.where(sound, newton, 0.5 * (low + high))
    price[todo] = at
    return price
