"""The allocator's speed from 1,024 to 1,024,000 GPUs, and how far from the optimum it can be.

Then the same with synchronous jobs, and with cooling loops and tenants across the tree.
"""

from importlib.util import find_spec

from interlock_evals.bench.measured import Measured, median, seconds
from interlock_evals.gang_instances import (
    GangInstance,
    cooling_loops,
    gang_instance,
    tenants,
)
from interlock_evals.instances import Instance, instance
from interlock_evals.reports import Figure, Promise
from interlock_servers.maxlps.allocator import baselines, gang, gang_dual, groups
from interlock_servers.maxlps.allocator.dual import gap
from interlock_servers.maxlps.allocator.waterfill import waterfill

TIMES = {1_024: 25, 10_240: 25, 102_400: 15, 1_024_000: 5}
LIMIT_MS = {102_400: 50.0, 1_024_000: 1_000.0}
GAP_LIMIT = 1e-4
BUDGET_RATIOS = (0.95, 0.80, 0.70)  # gaps and violations; the middle one is timed
HIGHS_TIMES = {1_024: 3, 10_240: 1}
GANG_SIZES = {1_024: 5, 5_120: 5, 102_400: 1}  # seeds of each, for gap, gain and violations
GANG_RATIOS = (0.92, 0.82)
GANG_GAP_LIMIT = 3e-3
GANG_GAIN_LEAST = 0.03  # at 0.82, over the best of max-min, proportional and uniform
WHOLE_GPUS, WHOLE_LIMIT_MS = 102_400, 2_000.0  # jobs, cold; groups, warm


def measure() -> Measured:
    """Cold and warm speeds, gaps to our own bound at every size, and HiGHS on the small ones."""
    figures: dict[str, Figure] = {}
    gaps: list[float] = []
    over_w: list[float] = []
    for gpus, times in TIMES.items():
        for curves in ("h200", "prior"):
            for ratio in BUDGET_RATIOS:
                _check(instance(gpus, budget_ratio=ratio, curves=curves), gaps, over_w)
        figures |= _speed(instance(gpus), gpus, times)
    figures["allocator_gap"] = Figure(max(gaps), "", len(gaps), max(gaps) - min(gaps))
    figures["allocator_violations"] = Figure(sum(w > 0 for w in over_w), "nodes", len(over_w))
    if find_spec("highspy"):  # a development extra
        for gpus, times in HIGHS_TIMES.items():
            figures |= _against_highs(instance(gpus), gpus, times, figures)
    promises = {
        f"allocator_{gpus}_ms": Promise.at_most(figures[f"allocator_{gpus}_ms"].value, limit, "ms")
        for gpus, limit in LIMIT_MS.items()
    }
    promises["allocator_gap"] = Promise.at_most(max(gaps), GAP_LIMIT, "")
    broken = figures["allocator_violations"].value
    promises["allocator_violations"] = Promise.at_most(broken, 0, "nodes")
    for part in (_gangs(), _groups()):
        figures |= part.figures
        promises |= part.promises
    return Measured(figures, promises)


def _gangs() -> Measured:
    """Synchronous jobs: gap to the bound at every size, gain over fair rules, speed at 102,400."""
    gaps: dict[int, list[float]] = {gpus: [] for gpus in GANG_SIZES}
    gains: list[float] = []
    broken = 0
    for gpus, seeds in GANG_SIZES.items():
        for curves in ("h200", "prior"):
            for ratio in GANG_RATIOS:
                for seed in range(seeds):
                    site = gang_instance(gpus, seed=seed, budget_ratio=ratio, curves=curves)
                    found, over, gain = _gang(site)
                    gaps[gpus].append(found)
                    broken += over
                    gains += [gain] if ratio == min(GANG_RATIOS) else []
    site = gang_instance(WHOLE_GPUS)
    case, problem = site.case, site.case.problem
    before = gang.solve(case.tree, case.budget_w * 1.01, problem, site.gangs)
    cold = seconds(lambda: gang.solve(case.tree, case.budget_w, problem, site.gangs), 5)
    warm = seconds(
        lambda: gang.solve(case.tree, case.budget_w, problem, site.gangs, start=before), 5
    )
    figures = {
        f"gang_{gpus}_gap": Figure(max(each), "", len(each), max(each) - min(each))
        for gpus, each in gaps.items()
    }
    figures |= {
        "gang_gain": Figure(min(gains), "", len(gains), max(gains) - min(gains)),
        "gang_violations": Figure(broken, "nodes", sum(map(len, gaps.values()))),
        f"gang_{WHOLE_GPUS}_ms": median(cold, "ms", 1e3),
        f"gang_{WHOLE_GPUS}_warm_ms": median(warm, "ms", 1e3),
    }
    if find_spec("highspy"):
        figures["gang_1024_behind_highs"] = _gang_against_highs()
    worst = max(max(each) for each in gaps.values())
    took = figures[f"gang_{WHOLE_GPUS}_ms"].value
    return Measured(
        figures,
        {
            "gang_gap": Promise.at_most(worst, GANG_GAP_LIMIT, ""),
            "gang_gain": Promise.at_least(min(gains), GANG_GAIN_LEAST, ""),
            "gang_violations": Promise.at_most(broken, 0, "nodes"),
            f"gang_{WHOLE_GPUS}_ms": Promise.at_most(took, WHOLE_LIMIT_MS, "ms"),
        },
    )


def _gang(site: GangInstance) -> tuple[float, int, float]:
    """Gap to the bound, nodes above their budget, and gain over the best fair rule."""
    case, problem, gangs = site.case, site.case.problem, site.gangs
    args = (case.tree, case.budget_w, problem)
    found = gang.solve(*args, gangs)
    ours = gangs.utility(problem, found.cap_w)
    bound = gang_dual.upper_bound(*args, gangs, found.priced)
    rules = (baselines.max_min, baselines.proportional, baselines.uniform)
    fair = max(gangs.utility(problem, rule(*args)) for rule in rules)
    over = int((case.tree.sums(found.cap_w) > case.budget_w).sum())
    return 1 - ours / bound, over, ours / fair - 1


def _gang_against_highs() -> Figure:
    """How far our answer is behind the linear program's, at worst, on the true curves."""
    from interlock_evals import gang_highs

    behind = []
    for curves in ("h200", "prior"):
        for ratio in GANG_RATIOS:
            site = gang_instance(1_024, budget_ratio=ratio, curves=curves)
            case, problem, gangs = site.case, site.case.problem, site.gangs
            theirs_w = gang_highs.solve(case.tree, case.budget_w, problem, gangs, segments=24)
            ours_w = gang.solve(case.tree, case.budget_w, problem, gangs).cap_w
            behind.append(1 - gangs.utility(problem, ours_w) / gangs.utility(problem, theirs_w))
    return Figure(max(behind), "", len(behind), max(behind) - min(behind))


def _groups() -> Measured:
    """Loops and tenants across the tree: gap to the bound, violations, warm speed at 102,400."""
    gaps, broken = [], 0
    for curves in ("h200", "prior"):
        for ratio in GANG_RATIOS:
            case = instance(12_800, budget_ratio=ratio, curves=curves)
            parts = [cooling_loops(case), tenants(case, promised=ratio + 0.02)]
            args = (case.tree, case.budget_w, case.problem, parts)
            found = groups.solve(*args)
            bound = groups.upper_bound(*args, found)
            gaps.append(1 - case.problem.utility(found.cap_w) / bound)
            broken += int((case.tree.sums(found.cap_w) > case.budget_w).sum())
            for part in parts:
                sums = part.sums(found.cap_w)
                broken += int(((sums > part.most_w) | (sums < part.least_w)).sum())
    case = instance(WHOLE_GPUS, budget_ratio=min(GANG_RATIOS))
    parts = [cooling_loops(case), tenants(case, promised=min(GANG_RATIOS) + 0.02)]
    before = groups.solve(case.tree, case.budget_w * 1.01, case.problem, parts)
    warm = seconds(lambda: groups.solve(case.tree, case.budget_w, case.problem, parts, before), 5)
    figure = median(warm, "ms", 1e3)
    return Measured(
        {
            "groups_gap": Figure(max(gaps), "", len(gaps), max(gaps) - min(gaps)),
            "groups_violations": Figure(broken, "nodes and groups", len(gaps)),
            f"groups_{WHOLE_GPUS}_warm_ms": figure,
        },
        {
            "groups_gap": Promise.at_most(max(gaps), GAP_LIMIT, ""),
            "groups_violations": Promise.at_most(broken, 0, "nodes and groups"),
            f"groups_{WHOLE_GPUS}_warm_ms": Promise.at_most(figure.value, WHOLE_LIMIT_MS, "ms"),
        },
    )


def _check(case: Instance, gaps: list[float], over_w: list[float]) -> None:
    """Add the gap of one instance, and each node's watts above its budget."""
    problem = case.problem
    solution = waterfill(case.tree, case.budget_w, problem)
    gaps.append(gap(case.tree, case.budget_w, problem, solution.log_price, solution.cap_w))
    over_w.extend(case.tree.sums(solution.cap_w) - case.budget_w)


def _speed(case: Instance, gpus: int, times: int) -> dict[str, Figure]:
    """From nothing, and from the prices of a budget that was 1 % higher."""
    problem = case.problem
    before = waterfill(case.tree, case.budget_w * 1.01, problem).log_price
    cold = seconds(lambda: waterfill(case.tree, case.budget_w, problem), times)
    warm = seconds(lambda: waterfill(case.tree, case.budget_w, problem, before), times)
    return {
        f"allocator_{gpus}_ms": median(cold, "ms", 1e3),
        f"allocator_{gpus}_warm_ms": median(warm, "ms", 1e3),
    }


def _against_highs(
    case: Instance, gpus: int, times: int, figures: dict[str, Figure]
) -> dict[str, Figure]:
    """Time and answer of HiGHS, 8 chords a GPU, on the true curve; below 0: ours is better."""
    from interlock_evals import highs

    problem = case.problem
    theirs_w = highs.solve(case.tree, case.budget_w, problem)
    took = seconds(lambda: highs.solve(case.tree, case.budget_w, problem), times)
    ours_w = waterfill(case.tree, case.budget_w, problem).cap_w
    best = problem.utility(ours_w)
    ratio = median(took, "ms", 1e3).value / figures[f"allocator_{gpus}_ms"].value
    return {
        f"highs_{gpus}_ms": median(took, "ms", 1e3),
        f"highs_{gpus}_time_ratio": Figure(ratio, "", times),
        f"highs_{gpus}_ahead": Figure(problem.utility(theirs_w) / best - 1, ""),
    }
