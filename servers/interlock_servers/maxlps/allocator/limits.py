"""What the GPUs under each node may draw: ratings less host power and margin, on the feeds left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from interlock_servers.maxlps.allocator.tree import NO_NODE, Floats, PowerTree
from interlock_tools.errors import InvalidRequestError

MARGIN = 0.03  # of a budget; enough for an in-band loop of 1 to 5 s, not for a BMC's 40 s
MARGIN_SLOW = 0.118  # for a loop of 40 s on inference rows: their largest rise in it (POLCA)
UPS_WINDOW_S = 10.0  # what an overloaded UPS is sure to carry, low end of what is published

Reserve = Literal["kept", "used"]


@dataclass(frozen=True)
class HostPower:
    """Power that a GPU cap does not reach.

    Calibrated to public figures of an air-cooled 8x H100 server: 8.4 kW at full draw, 76 % of its
    10.2 kW nameplate on average. Servers differ by more than any policy gains: measure yours.

    Attributes:
        fixed_w: watts at each node that GPUs hang under directly (a server); or one value for each
            node of the tree, where GPUs hang under something else.
        slope: watts at the meter for one watt of GPU power; at least 1.
    """

    fixed_w: ArrayLike = 1600.0
    slope: float = 1.22

    def by_node(self, tree: PowerTree) -> Floats:
        """Fixed watts under each node."""
        fixed = np.asarray(self.fixed_w, dtype=np.float64)
        if fixed.ndim not in (0, 1) or (fixed.ndim and fixed.shape != tree.budget_w.shape):
            raise InvalidRequestError("host: fixed_w needs one value, or one for each node")
        if not (np.isfinite(fixed).all() and (fixed >= 0).all() and 1 <= self.slope < np.inf):
            raise InvalidRequestError("host: fixed_w must be at least 0 W and slope at least 1")
        if not fixed.ndim:
            fixed = np.where(np.bincount(tree.leaf_node, minlength=len(tree.names)) > 0, fixed, 0.0)
        # Each node's watts are laid on its first leaf, so that they are summed like the leaves'.
        by_leaf = np.zeros(tree.leaf_count)
        out = np.zeros(len(tree.names))
        for level in tree.levels:
            by_leaf[level.starts] += level.pick(fixed, 0.0)
            real = level.node != NO_NODE
            out[level.node[real]] = np.add.reduceat(by_leaf, level.starts)[real]
        return out


@dataclass(frozen=True)
class Ramp:
    """How fast the site's draw may follow a target.

    Attributes:
        target_w: what the site is asked to draw at most, in watts at the meter.
        draw_w: what it draws now.
        limit_w_per_s: most change in a second, up or down.
        interval_s: seconds until the next plan.
    """

    target_w: float
    draw_w: float
    limit_w_per_s: float
    interval_s: float

    def bound_w(self) -> float:
        """What the site may draw until the next plan: towards the target, as fast as allowed."""
        values = (self.target_w, self.draw_w, self.limit_w_per_s, self.interval_s)
        if not (np.isfinite(values).all() and min(values) >= 0 and self.target_w > 0):
            raise InvalidRequestError(
                "ramp: every value must be a number of at least 0, target above"
            )
        reach_w = self.limit_w_per_s * self.interval_s
        return max(self.draw_w - reach_w, min(self.target_w, self.draw_w + reach_w))


@dataclass(frozen=True)
class Supply:
    """Feeds that carry one node together, some of which may fail.

    Attributes:
        node: name of the node in the power tree; its own budget still holds.
        feed_w: rating of each feed by name, in watts at the meter.
        spare: how many may fail at once; at least 1.
        window_s: how long the others carry everything, overloaded, once they have.
    """

    node: str
    feed_w: Mapping[str, float]
    spare: int = 1
    window_s: float = UPS_WINDOW_S

    def checked(self) -> "Supply":
        """This supply.

        Raises:
            InvalidRequestError: a rating is no number of at least 0, or no feed would be left.
        """
        ratings = np.array(list(self.feed_w.values()), dtype=np.float64)
        if not (np.isfinite(ratings).all() and (ratings >= 0).all()):
            raise InvalidRequestError(f"supplies: a feed of {self.node} needs at least 0 W")
        if not 1 <= self.spare < len(ratings):
            raise InvalidRequestError(
                f"supplies: {self.node} has {len(ratings)} feeds, {self.spare} cannot be spare"
            )
        if not self.window_s >= 0:
            raise InvalidRequestError(f"supplies: window_s of {self.node} must be at least 0 s")
        return self

    @property
    def all_w(self) -> float:
        """What all feeds carry together."""
        return float(sum(self.feed_w.values()))

    @property
    def surviving_w(self) -> float:
        """What the feeds that survive the worst loss carry."""
        return float(sum(sorted(self.feed_w.values())[: len(self.feed_w) - self.spare]))


def ratings_w(tree: PowerTree, supplies: Sequence[Supply], reserve: Reserve) -> Floats:
    """Watts at the meter that each node may draw; the reserve of its feeds is kept, or used.

    Raises:
        InvalidRequestError: a supply is none.
        NotFoundError: the tree has no such node.
    """
    rating_w = tree.budget_w.copy()
    for supply in supplies:
        at = tree.position(supply.checked().node)
        carried_w = supply.surviving_w if reserve == "kept" else supply.all_w
        rating_w[at] = min(rating_w[at], carried_w)
    return rating_w


def gpu_budget_w(
    tree: PowerTree,
    rating_w: Floats,
    host: HostPower,
    margin: float = MARGIN,
    ramp: Ramp | None = None,
) -> Floats:
    """GPU watts that each node has left; below zero where its host power alone is too much.

    Raises:
        InvalidRequestError: margin, host or ramp is out of range.
    """
    if not 0 <= margin < 1:
        raise InvalidRequestError(f"margin: must be in [0, 1), not {margin:g}")
    budget_w = rating_w.copy()
    if ramp is not None:
        budget_w[tree.root] = min(budget_w[tree.root], ramp.bound_w())
    left: Floats = (budget_w - host.by_node(tree)) * (1 - margin) / host.slope
    return left
