"""From ratings in watts to caps and an order of commands; what does not fit is said, not broken."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from interlock_servers.maxlps.allocator import dual, gang, gang_dual, groups, misfit
from interlock_servers.maxlps.allocator.gang import Gangs, GangSolution
from interlock_servers.maxlps.allocator.group_prices import Groups
from interlock_servers.maxlps.allocator.groups import GroupSolution
from interlock_servers.maxlps.allocator.limits import (
    MARGIN,
    HostPower,
    Ramp,
    Reserve,
    Supply,
    gpu_budget_w,
    ratings_w,
)
from interlock_servers.maxlps.allocator.misfit import Infeasible
from interlock_servers.maxlps.allocator.problem import Leaves, Problem
from interlock_servers.maxlps.allocator.tree import Floats, Ints, PowerTree
from interlock_servers.maxlps.allocator.waterfill import Solution, waterfill
from interlock_tools.errors import InvalidRequestError

__all__ = [
    "MARGIN",
    "CapPlan",
    "Emergency",
    "HostPower",
    "Infeasible",
    "Ramp",
    "Supply",
    "plan",
]

AnySolution = Solution | GroupSolution | GangSolution


@dataclass(frozen=True)
class Emergency:
    """Caps to arm in the devices before the reserve of the feeds is used; they only lower.

    Attributes:
        cap_w: cap of each GPU once feeds have failed, in watts; at most its cap in the plan.
        work: relative work then, in [0, 1]; in a job, that of its slowest member.
        floors_broken: GPUs whose promise these caps break; empty where the promises fit.
        within_s: in how many seconds they must act, or a breaker opens.
    """

    cap_w: Floats
    work: Floats
    floors_broken: Ints
    within_s: float


@dataclass(frozen=True)
class CapPlan:
    """Caps for each GPU and the order in which to command them; arrays are in the caller's order.

    Attributes:
        cap_w: cap of each GPU, in watts.
        work: relative work to expect of each GPU, in [0, 1]; in a job, that of its slowest member.
        gpu_w: sum of the caps under each node.
        gpu_budget_w: what that sum may be: budget less host power and margin.
        total_w: what each node draws at the meter when every GPU draws its cap.
        price: weighted work that one more GPU watt would buy at each node alone.
        gap: distance to the optimum at most, relative.
        lower: GPUs to lower first, largest step first; those whose present cap is unknown too.
        raise_: GPUs to raise once every lower cap is confirmed, largest step first.
        solution: what a later plan of this tree can start from.
        emergency: where the reserve of feeds is used: arm it before anything is raised.
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
    solution: AnySolution
    emergency: Emergency | None = None


def plan(
    tree: PowerTree,
    leaves: Leaves,
    *,
    host: HostPower | None = None,
    margin: float = MARGIN,
    ramp: Ramp | None = None,
    gangs: Gangs | None = None,
    parts: Sequence[Groups] = (),
    supplies: Sequence[Supply] = (),
    reserve: Reserve = "kept",
    emergency_s: float | None = None,
    present_cap_w: ArrayLike | None = None,
    deadband_w: float = 1.0,
    previous: AnySolution | None = None,
) -> CapPlan | Infeasible:
    """Caps that maximise weighted work within every budget, keeping every floor.

    Args:
        tree: the power tree; its budgets are ratings at the meter, in watts.
        leaves: what is known of each GPU.
        host: power that the caps do not reach; by default that of an 8x H100 air-cooled server.
        margin: share of each budget, host power aside, that is left free, in [0, 1).
        ramp: a target of the site and how fast to follow it; never lifts the site's own budget.
        gangs: which GPUs run in step; by default none does.
        parts: groups that cut across the tree (loops, tenants); limits in GPU watts, no margin.
        supplies: nodes carried by several feeds.
        reserve: `kept`: a node may draw what its feeds carry after the worst loss. `used`: what all
            of them carry; then the plan has emergency caps that fit after the loss.
        emergency_s: how soon emergency caps act; needed where the reserve is used.
        present_cap_w: caps in force; NaN where unknown. Without it every cap counts as unknown.
        deadband_w: raises smaller than this are not worth a command.
        previous: the last solution for this tree, jobs and groups; the plan comes sooner.

    Raises:
        InvalidRequestError: an argument can never work; names it and why.
        NotFoundError: a supply names a node that the tree does not have.
    """
    _check(tree, leaves, gangs, parts)
    if gangs is not None:
        leaves = gangs.promised(leaves)
    problem = leaves.problem()
    host = host or HostPower()
    budget_w = gpu_budget_w(tree, ratings_w(tree, supplies, reserve), host, margin, ramp)
    unfit = misfit.of_tree(tree, leaves, problem.lo_w, budget_w)
    unfit = unfit or misfit.of_groups(parts, leaves, problem.lo_w)
    if unfit is not None:
        return unfit
    solution, gap = _solve(tree, budget_w, problem, gangs, parts, previous)
    if isinstance(solution, GroupSolution | GangSolution) and not solution.is_sound:
        return misfit.of_promises(tree, budget_w, problem, parts, solution.short_w)
    emergency = None
    if supplies and reserve == "used":
        least_w = gpu_budget_w(tree, ratings_w(tree, supplies, "kept"), host, margin, ramp)
        within_s = _window_s(supplies, emergency_s)
        failed = _emergency(tree, least_w, leaves, gangs, solution.cap_w, within_s)
        if isinstance(failed, Infeasible):
            return failed
        emergency = failed
    gpu_w = tree.sums(solution.cap_w)
    lower, raise_ = _commands(solution.cap_w, present_cap_w, deadband_w)
    priced = solution.priced if isinstance(solution, GangSolution) else solution
    return CapPlan(
        cap_w=solution.cap_w,
        work=_work(problem, gangs, solution.cap_w),
        gpu_w=gpu_w,
        gpu_budget_w=budget_w,
        total_w=host.by_node(tree) + host.slope * gpu_w,
        price=dual.node_prices(tree, priced.log_price),
        gap=gap,
        lower=lower,
        raise_=raise_,
        solution=solution,
        emergency=emergency,
    )


def _check(tree: PowerTree, leaves: Leaves, gangs: Gangs | None, parts: Sequence[Groups]) -> None:
    """Everything speaks of the same GPUs."""
    counts = {"leaves": len(leaves)}
    counts |= {"gangs": len(gangs.job)} if gangs is not None else {}
    counts |= {f"parts: {part.names[0]}": len(part.group) for part in parts}
    for name, count in counts.items():
        if count != tree.leaf_count:
            raise InvalidRequestError(
                f"{name}: {count} GPUs are described, the tree has {tree.leaf_count}"
            )


def _solve(
    tree: PowerTree,
    budget_w: Floats,
    problem: Problem,
    gangs: Gangs | None,
    parts: Sequence[Groups],
    previous: AnySolution | None,
) -> tuple[AnySolution, float]:
    """The simplest solver that knows of everything that is there, and its proven distance."""
    if gangs is not None and gangs.count:
        known = previous if isinstance(previous, GangSolution) else None
        team = gang.solve(tree, budget_w, problem, gangs, parts, start=known)
        bound = gang_dual.upper_bound(tree, budget_w, problem, gangs, team.priced, parts)
        return team, (bound - gangs.utility(problem, team.cap_w)) / bound
    if parts:
        before = previous if isinstance(previous, GroupSolution) else None
        grouped = groups.solve(tree, budget_w, problem, parts, before)
        bound = groups.upper_bound(tree, budget_w, problem, parts, grouped)
        return grouped, (bound - problem.utility(grouped.cap_w)) / bound
    price = previous.log_price if isinstance(previous, Solution) else None
    plain = waterfill(tree, budget_w, problem, price)
    return plain, dual.gap(tree, budget_w, problem, plain.log_price, plain.cap_w)


def _work(problem: Problem, gangs: Gangs | None, cap_w: Floats) -> Floats:
    """Relative work of each GPU; in a job, that of its slowest."""
    return problem.work(cap_w) if gangs is None else gangs.work(problem, cap_w)


def _window_s(supplies: Sequence[Supply], emergency_s: float | None) -> float:
    """Seconds that the weakest of the surviving feeds gives, if the caps can act in them."""
    window_s = min(supply.window_s for supply in supplies)
    if emergency_s is None or not 0 <= emergency_s <= window_s:
        raise InvalidRequestError(
            "emergency_s: the reserve may be used only where emergency caps act before the feeds "
            f"left open: within {window_s:g} s, not {emergency_s}"
        )
    return window_s


def _emergency(
    tree: PowerTree,
    budget_w: Floats,
    leaves: Leaves,
    gangs: Gangs | None,
    cap_w: Floats,
    within_s: float,
) -> Emergency | Infeasible:
    """One set of caps that fits whichever feeds fail; promises go where they do not fit."""
    kept = replace(leaves.problem(), hi_w=cap_w)
    if misfit.of_tree(tree, leaves, kept.lo_w, budget_w) is not None:
        kept = replace(kept, lo_w=leaves.least_w())
        unfit = misfit.of_tree(tree, leaves, kept.lo_w, budget_w, "failover")
        if unfit is not None:
            return unfit
    if gangs is not None and gangs.count:
        safe_w = gang.solve(tree, budget_w, kept, gangs).cap_w
    else:
        safe_w = waterfill(tree, budget_w, kept).cap_w
    safe_w = np.minimum(safe_w, cap_w)
    work = _work(kept, gangs, safe_w)
    return Emergency(safe_w, work, np.flatnonzero(work < leaves.floor_work * (1 - 1e-9)), within_s)


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
