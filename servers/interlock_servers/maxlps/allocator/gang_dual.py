"""An upper bound on what any caps can reach where GPUs run in step; any prices give one.

At fixed prices each job chooses its speed alone: its value less what its members' watts cost, a
concave function of one number. The bound closes the search by a tangent, so it needs no tolerance.
"""

from collections.abc import Sequence

import numpy as np

from interlock_servers.maxlps.allocator.dual import leaf_prices, surplus
from interlock_servers.maxlps.allocator.gang import ALONE, Gangs
from interlock_servers.maxlps.allocator.group_prices import Groups
from interlock_servers.maxlps.allocator.groups import GroupSolution, extra_of
from interlock_servers.maxlps.allocator.problem import Problem
from interlock_servers.maxlps.allocator.tree import Floats, PowerTree
from interlock_servers.maxlps.allocator.waterfill import Solution

HALVINGS = 14  # of a job's range of speeds; the tangent then misses less than 1e-8 of it


def upper_bound(
    tree: PowerTree,
    budget_w: Floats,
    problem: Problem,
    gangs: Gangs,
    priced: Solution | GroupSolution,
    parts: Sequence[Groups] = (),
) -> float:
    """No caps within these limits give more weighted relative work than this.

    Args:
        tree: the power tree.
        budget_w: watts that the GPUs under each node may take together, by node.
        problem: curves and bounds of the GPUs, in the caller's order.
        gangs: which GPUs run in step.
        priced: where the prices come from, as `gang.solve` gives it; any will do.
        parts: the groups that `priced` has prices for.
    """
    own, price = leaf_prices(tree, priced.log_price)
    priced_node = own > 0
    worth = float(own[priced_node] @ budget_w[priced_node])
    if isinstance(priced, GroupSolution):
        extra, of_groups = extra_of(parts, priced.group_price)
        price, worth = price + extra, worth + of_groups
    alone = surplus(problem, price)[gangs.job == ALONE].sum()
    return float(alone) + _jobs(problem, price, gangs) + worth


def _jobs(problem: Problem, price: Floats, gangs: Gangs) -> float:
    """The most that the jobs can leave at these prices, and a little more."""
    if not gangs.count:
        return 0.0
    at = gangs.members
    base_w = problem.p0[at] * problem.natural_w[at]
    usable_w = problem.natural_w[at] - base_w
    power = 1.0 / problem.gamma[at]
    lo_w, paid = problem.lo_w[at], price[at]
    # Who is paid to draw (a promise to its group) takes all, whatever speed its job has.
    unfree_w = np.where(paid > 0, lo_w, problem.hi_w[at])
    value = gangs.total(problem.weight[at])

    def look(speed: Floats) -> tuple[Floats, Floats]:
        """What is left of each job's value at a speed, and how that rises with it."""
        member = gangs.spread(speed)
        bought_w = usable_w * member**power
        free = (base_w + bought_w > lo_w) & (paid > 0)
        cost = gangs.total(paid * np.where(free, base_w + bought_w, unfree_w))
        rise = gangs.total(paid * np.where(free, power * bought_w / member, 0.0))
        return value * speed - cost, value - rise

    low = gangs.slowest(problem.work(problem.lo_w))
    high = gangs.slowest(problem.work(problem.hi_w))
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        rising = look(middle)[1] > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    left, rise = look(low)
    return float((left + np.maximum(rise, 0.0) * (high - low)).sum())
