"""From ratings in watts to caps and an order of commands; what does not fit is said, not broken."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from interlock_servers.maxlps.allocator import dual
from interlock_servers.maxlps.allocator.problem import Leaves
from interlock_servers.maxlps.allocator.tree import NO_NODE, Floats, Ints, PowerTree
from interlock_servers.maxlps.allocator.waterfill import Solution, waterfill
from interlock_tools.errors import InvalidRequestError

MARGIN = 0.03  # of a budget; enough for an in-band loop of 1 to 5 s, not for a BMC's 40 s


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
class Infeasible:
    """The promised floors do not fit: shed or move work, or pause some; nothing was planned.

    Attributes:
        node: the lowest node that does not fit; of several, the one that lacks most.
        budget_w: GPU watts that remain at this node after host power and margin (may be negative).
        floors_w: GPU watts that the floors under it need.
        shortfall_w: what is missing, in GPU watts.
        leaves: GPUs under it that hold more than their device and curve need, for their promise;
            where that would not help, all GPUs under it.
        also: names of further nodes that do not fit.
    """

    node: str
    budget_w: float
    floors_w: float
    shortfall_w: float
    leaves: Ints
    also: tuple[str, ...]


@dataclass(frozen=True)
class CapPlan:
    """Caps for each GPU and the order in which to command them; arrays are in the caller's order.

    Attributes:
        cap_w: cap of each GPU, in watts.
        work: relative work to expect of each GPU, in [0, 1].
        gpu_w: sum of the caps under each node.
        gpu_budget_w: what that sum may be: budget less host power and margin.
        total_w: what each node draws at the meter when every GPU draws its cap.
        price: weighted work that one more GPU watt would buy at each node alone.
        gap: distance to the optimum at most, relative.
        lower: GPUs to lower first, largest step first; those whose present cap is unknown too.
        raise_: GPUs to raise once every lower cap is confirmed, largest step first.
        solution: what a later plan of this tree can start from.
    """

    cap_w: Floats
    work: Floats
    gpu_w: Floats
    gpu_budget_w: Floats
    total_w: Floats
    price: Floats
    gap: float
    lower: Ints
    raise_: Ints
    solution: Solution


def plan(
    tree: PowerTree,
    leaves: Leaves,
    *,
    host: HostPower | None = None,
    margin: float = MARGIN,
    ramp: Ramp | None = None,
    present_cap_w: ArrayLike | None = None,
    deadband_w: float = 1.0,
    previous: Solution | None = None,
) -> CapPlan | Infeasible:
    """Caps that maximise weighted work within every budget, keeping every floor.

    Args:
        tree: the power tree; its budgets are ratings at the meter, in watts.
        leaves: what is known of each GPU.
        host: power that the caps do not reach; by default that of an 8x H100 air-cooled server.
        margin: share of each budget, host power aside, that is left free, in [0, 1).
        ramp: a target of the site and how fast to follow it; never lifts the site's own budget.
        present_cap_w: caps in force; NaN where unknown. Without it every cap counts as unknown.
        deadband_w: raises smaller than this are not worth a command.
        previous: the last solution for this tree; the plan is the same, only sooner.

    Raises:
        InvalidRequestError: an argument can never work; names it and why.
    """
    if len(leaves) != tree.leaf_count:
        raise InvalidRequestError(
            f"leaves: {len(leaves)} GPUs are described, the tree has {tree.leaf_count}"
        )
    problem = leaves.problem()
    host = host or HostPower()
    fixed_w = host.by_node(tree)
    gpu_budget_w = _gpu_budget_w(tree, host, fixed_w, margin, ramp)
    misfit = _misfit(tree, leaves, problem.lo_w, gpu_budget_w)
    if misfit is not None:
        return misfit
    start = None if previous is None else previous.log_price
    solution = waterfill(tree, gpu_budget_w, problem, start)
    gpu_w = tree.sums(solution.cap_w)
    lower, raise_ = _commands(solution.cap_w, present_cap_w, deadband_w)
    return CapPlan(
        cap_w=solution.cap_w,
        work=problem.work(solution.cap_w),
        gpu_w=gpu_w,
        gpu_budget_w=gpu_budget_w,
        total_w=fixed_w + host.slope * gpu_w,
        price=dual.node_prices(tree, solution.log_price),
        gap=dual.gap(tree, gpu_budget_w, problem, solution.log_price, solution.cap_w),
        lower=lower,
        raise_=raise_,
        solution=solution,
    )


def _gpu_budget_w(
    tree: PowerTree, host: HostPower, fixed_w: Floats, margin: float, ramp: Ramp | None
) -> Floats:
    """GPU watts that each node has left."""
    if not 0 <= margin < 1:
        raise InvalidRequestError(f"margin: must be in [0, 1), not {margin:g}")
    budget_w = tree.budget_w.copy()
    if ramp is not None:
        budget_w[tree.root] = min(budget_w[tree.root], ramp.bound_w())
    left: Floats = (budget_w - fixed_w) * (1 - margin) / host.slope
    return left


def _misfit(
    tree: PowerTree, leaves: Leaves, lo_w: Floats, gpu_budget_w: Floats
) -> Infeasible | None:
    """The lowest node whose floors exceed its budget, if any."""
    floors_w = tree.sums(lo_w)
    short = np.maximum(floors_w - gpu_budget_w, 0.0)
    if not short.any():
        return None
    for level in tree.levels:
        missing = level.pick(short, 0.0)
        if missing.any():
            node = int(level.node[np.argmax(missing)])
            break
    under = tree.leaves_under(node)
    least_w = leaves.least_w()[under]
    holding = under[lo_w[under] > least_w]
    return Infeasible(
        node=tree.names[node],
        budget_w=float(gpu_budget_w[node]),
        floors_w=float(floors_w[node]),
        shortfall_w=float(short[node]),
        leaves=holding if least_w.sum() <= gpu_budget_w[node] else under,
        also=tuple(tree.names[i] for i in np.flatnonzero(short) if i != node),
    )


def _commands(
    cap_w: Floats, present_cap_w: ArrayLike | None, deadband_w: float
) -> tuple[Ints, Ints]:
    """Whom to lower, then whom to raise: at no moment do the caps in force exceed both plans."""
    if present_cap_w is None:
        present_cap_w = np.nan
    try:
        present = np.broadcast_to(np.asarray(present_cap_w, dtype=np.float64), cap_w.shape)
    except ValueError:
        raise InvalidRequestError("present_cap_w: need one cap for each GPU") from None
    change = np.where(np.isnan(present), -np.inf, cap_w - present)
    lower, raise_ = np.flatnonzero(change < 0), np.flatnonzero(change >= max(deadband_w, 1e-9))
    return (
        lower[np.argsort(change[lower], kind="stable")],
        raise_[np.argsort(-change[raise_], kind="stable")],
    )
