"""The allocator's speed from 1,024 to 1,024,000 GPUs, and how far from the optimum it can be."""

from importlib.util import find_spec

from interlock_evals.bench.measured import Measured, median, seconds
from interlock_evals.instances import Instance, instance
from interlock_evals.reports import Figure, Promise
from interlock_servers.maxlps.allocator.dual import gap
from interlock_servers.maxlps.allocator.waterfill import waterfill

TIMES = {1_024: 25, 10_240: 25, 102_400: 15, 1_024_000: 5}
LIMIT_MS = {102_400: 50.0, 1_024_000: 1_000.0}
GAP_LIMIT = 1e-4
BUDGET_RATIOS = (0.95, 0.80, 0.70)  # gaps and violations; the middle one is timed
HIGHS_TIMES = {1_024: 3, 10_240: 1}


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
    return Measured(figures, promises)


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
