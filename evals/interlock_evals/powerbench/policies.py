"""Who competes: our planner, the simple policies, the POLCA rule, and a bound that is no policy."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from interlock_evals.instances import LEVELS, Floats
from interlock_evals.powerbench.cases import Case
from interlock_servers.maxlps.allocator import baselines
from interlock_servers.maxlps.allocator.limits import HostPower
from interlock_servers.maxlps.allocator.plan import Infeasible, plan
from interlock_servers.maxlps.allocator.tree import Level
from interlock_servers.maxlps.allocator.waterfill import waterfill
from interlock_tools.power_curve import cap_for

Policy = Callable[[Case], Floats]

OURS: Final = "ours"
BOUND: Final = "site_only"
NO_HOST: Final = HostPower(fixed_w=0.0, slope=1.0)  # budgets here are GPU watts already

# POLCA (ASPLOS'24): thresholds of a row's load, and A100 clocks against 1,410 MHz. Throughput is
# taken to follow the clock.
LOW_AT, HIGH_AT, BRAKE_AT = 0.80, 0.89, 1.00
LOW_FIRST, LOW_SECOND, HIGH_FIRST = 1275 / 1410, 1110 / 1410, 1305 / 1410
ROW_LEVEL: Final = LEVELS.index("pdu")


@dataclass(frozen=True)
class Answer:
    """What our planner says: caps and their proven distance, or that the promises do not fit."""

    cap_w: Floats | None
    gap: float | None
    unfit: Infeasible | None
    solve_s: float


def ours(case: Case) -> Answer:
    """The plan of the product, told of promises, jobs and loops."""
    before = time.perf_counter()
    found = plan(
        case.seen.tree,
        case.seen.leaves,
        host=NO_HOST,
        margin=0.0,
        gangs=case.gangs,
        parts=case.parts,
    )
    solve_s = time.perf_counter() - before
    if isinstance(found, Infeasible):
        return Answer(None, None, found, solve_s)
    return Answer(found.cap_w, found.gap, None, solve_s)


def planned_w(case: Case) -> Floats:
    """Our caps where nothing was promised, so that there must be some."""
    answer = ours(case)
    if answer.cap_w is None:
        raise RuntimeError(f"{case.seen.name}: the least caps do not fit")
    return answer.cap_w


def uniform(case: Case) -> Floats:
    """One cap for all, as high as every budget allows."""
    return _in_loops(case, baselines.uniform(case.seen.tree, case.seen.budget_w, case.bare))


def max_min(case: Case) -> Floats:
    """Equal watts, local to each full node."""
    return _in_loops(case, baselines.max_min(case.seen.tree, case.seen.budget_w, case.bare))


def proportional(case: Case) -> Floats:
    """The same share of natural draw, local to each full node."""
    return _in_loops(case, baselines.proportional(case.seen.tree, case.seen.budget_w, case.bare))


def equal_deficit(case: Case) -> Floats:
    """The least sum of squared deficits against natural draw."""
    return _in_loops(case, baselines.equal_deficit(case.seen.tree, case.seen.budget_w, case.bare))


def priority_first(case: Case) -> Floats:
    """Classes served strictly in order."""
    seen = case.seen
    return _in_loops(
        case, baselines.priority_first(seen.tree, seen.budget_w, case.bare, seen.priority)
    )


def polca(case: Case) -> Floats:
    """The POLCA rule, row by row, each against the row's own rating; it reads no other meter."""
    return _polca(case, case.seen.tree.levels[ROW_LEVEL : ROW_LEVEL + 1])


def polca_shared(case: Case) -> Floats:
    """The POLCA rule where a row's budget is at most its share of the feed's and the site's."""
    return _polca(case, case.seen.tree.levels[ROW_LEVEL:])


def site_only(case: Case) -> Floats:
    """The optimum were the site's budget the only one: no policy, it breaks the others."""
    tree = case.seen.tree
    only_w = np.full(len(tree.names), np.inf)
    only_w[tree.root] = case.seen.budget_w[tree.root]
    return waterfill(tree, only_w, case.bare).cap_w


BASELINES: Final[Mapping[str, Policy]] = {
    "uniform": uniform,
    "max_min": max_min,
    "proportional": proportional,
    "equal_deficit": equal_deficit,
    "priority_first": priority_first,
    "polca": polca,
    "polca_shared": polca_shared,
    BOUND: site_only,
}


def _polca(case: Case, levels: tuple[Level, ...]) -> Floats:
    """The steps of the rule, each taken by the rows that the last one left too full."""
    tree, problem, rows = case.seen.tree, case.bare, levels[0]
    natural_w = tree.sums(problem.natural_w)
    ratio = np.full(tree.leaf_count, np.inf)  # budget over natural draw, the least above each GPU
    for level in levels:
        here = level.pick(case.seen.budget_w / natural_w, np.inf)
        ratio = np.minimum(ratio, np.repeat(here, level.sizes))
    row_w = ratio[rows.starts] * natural_w[rows.node]
    is_low = case.seen.priority > 0

    def above(threshold: float) -> NDArray[np.bool_]:
        load = np.add.reduceat(tree.to_inner(cap_w), rows.starts) / row_w
        return tree.to_caller(np.repeat(load > threshold, rows.sizes).astype(np.float64)) > 0

    def at(work: float) -> Floats:
        wanted_w = cap_for(work, problem.natural_w, problem.p0, problem.gamma)
        return np.clip(wanted_w, problem.lo_w, problem.hi_w)

    cap_w = problem.hi_w
    low, high = above(LOW_AT), above(HIGH_AT)
    cap_w = np.where(low & is_low, at(LOW_FIRST), cap_w)
    cap_w = np.where(high & is_low, at(LOW_SECOND), cap_w)
    cap_w = np.where(above(HIGH_AT) & ~is_low, at(HIGH_FIRST), cap_w)
    return _in_loops(case, np.where(above(BRAKE_AT), problem.lo_w, cap_w))


def _in_loops(case: Case, cap_w: Floats) -> Floats:
    """Whoever sits on a loop that is too full gives back the same share above the least cap."""
    least_w = case.bare.lo_w
    for part in case.parts:
        room_w = np.maximum(part.most_w * (1 - 1e-9) - part.sums(least_w), 0.0)
        above_w = part.sums(cap_w - least_w)
        share = np.minimum(room_w / np.maximum(above_w, 1e-9), 1.0)
        cap_w = least_w + (cap_w - least_w) * part.spread(share, 1.0)
    return cap_w
