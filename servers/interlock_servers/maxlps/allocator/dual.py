"""An upper bound on what any allocation can reach, so that a gap can be stated at any size.

Any prices give a bound (Lagrange); the prices of a water-filling give a tight one. It is computed
without a solver, and without trusting how the prices were found.
"""

import numpy as np

from interlock_servers.maxlps.allocator.problem import Problem
from interlock_servers.maxlps.allocator.tree import NO_NODE, Floats, PowerTree


def node_prices(tree: PowerTree, log_price: Floats) -> Floats:
    """What one more watt of budget at each node alone is worth; zero where it is worth nothing.

    A leaf pays the highest price above it; a node's own share of that is what it adds to the
    highest price among its ancestors.
    """
    return _shares(tree, np.exp(log_price))[0]


def leaf_prices(tree: PowerTree, log_price: Floats) -> tuple[Floats, Floats]:
    """Each node's own price (see `node_prices`), and what each leaf pays in all; caller's order."""
    own, paid = _shares(tree, np.exp(log_price))
    return own, tree.to_caller(paid)


def surplus(problem: Problem, price: Floats) -> Floats:
    """The most that each leaf can leave of its value once it has paid this price for its watts."""
    # Best answer of each leaf to its price: closed form, held inside its bounds.
    base_w = problem.p0 * problem.natural_w
    usable_w = problem.natural_w - base_w
    with np.errstate(divide="ignore"):
        log_price = np.log(np.maximum(price, 0.0))  # below 0 (a promise to a group): take the most
        log_ratio = np.log(problem.gamma * problem.weight) - np.log(usable_w) - log_price
    most = np.log((problem.hi_w - base_w) / usable_w)
    log_share = np.minimum(log_ratio / (1.0 - problem.gamma), most)
    cap_w = np.clip(base_w + usable_w * np.exp(log_share), problem.lo_w, problem.hi_w)
    return problem.weight * problem.work(cap_w) - price * cap_w


def upper_bound(tree: PowerTree, budget_w: Floats, problem: Problem, log_price: Floats) -> float:
    """No caps within these budgets give a higher utility than this, in weighted relative work."""
    own, price = leaf_prices(tree, log_price)
    priced = own > 0
    return float(surplus(problem, price).sum() + own[priced] @ budget_w[priced])


def gap(
    tree: PowerTree, budget_w: Floats, problem: Problem, log_price: Floats, cap_w: Floats
) -> float:
    """How far these caps can be from the optimum at most, relative to the bound."""
    bound = upper_bound(tree, budget_w, problem, log_price)
    return (bound - problem.utility(cap_w)) / bound


def _shares(tree: PowerTree, price: Floats) -> tuple[Floats, Floats]:
    """Each node's own share of the price, and what each leaf pays in all (inner order)."""
    own = np.zeros(len(tree.names))
    paid = np.zeros(tree.leaf_count)
    for level in reversed(tree.levels):
        here = level.pick(price, 0.0)
        above = paid[level.starts]
        real = level.node != NO_NODE
        own[level.node[real]] = np.maximum(here - above, 0.0)[real]
        np.maximum(paid, np.repeat(here, level.sizes), out=paid)
    return own, paid
