"""How far our answers for jobs are from an independent solver's, and how long bare solvers take."""

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np

from interlock_evals.bench.measured import median
from interlock_evals.powerbench.cases import CURVES, draw
from interlock_evals.powerbench.policies import planned_w
from interlock_evals.powerbench.score import SMALL, Row, gap_of, with_jobs
from interlock_evals.reports import Figure
from interlock_servers.maxlps.allocator import gang
from interlock_servers.maxlps.allocator.waterfill import waterfill

SEEDS = {1_024: 3, 10_240: 1}  # HiGHS takes seconds on the larger one
TIMES = {1_024: 25, 10_240: 15, 102_400: 7, 1_024_000: 3}
GANG_TIMES = {1_024: 7, 10_240: 5, 102_400: 2, 1_024_000: 1}


def gang_behind_highs(gpus: int, rows: Sequence[Row] = ()) -> dict[str, Figure]:
    """The most by which HiGHS does better than we on sites with jobs; below 0: it never does.

    Its curves are chords of ours, 32 a job, and its caps are judged on the true ones, so it is
    behind by what they cut off. It also solves the site where our own bound leaves most.
    """
    if gpus > SMALL or not find_spec("highspy"):
        return {}
    from interlock_evals import gang_highs

    seeds = range(SEEDS.get(gpus, 1))
    teams = [draw("gang", gpus, seed, curves, 0.82) for curves in CURVES for seed in seeds]
    worst = max((r for r in rows if r.gpus == gpus and with_jobs(r)), key=gap_of, default=None)
    if worst is not None:
        teams += [
            draw("gang", gpus, worst.seed, curves, worst.budget_ratio)
            for curves in CURVES
            if curves == worst.curves
        ]
    gangs: list[float] = []
    for case in teams:
        jobs, site = case.gangs, case.seen
        if jobs is not None:
            theirs_w = gang_highs.solve(site.tree, site.budget_w, site.problem, jobs)
            gangs.append(100 * (case.utility(theirs_w) / case.utility(planned_w(case)) - 1))
    figure = Figure(max(gangs), "%", len(gangs), float(np.ptp(gangs)))
    return {f"gang_behind_highs_pct_{gpus}": figure}


def speed(gpus: int) -> dict[str, Figure]:
    """Time of the bare solvers, cold, at .80 (jobs .82), audited curves.

    Each by the clock and by the processor; where others use the machine, only the latter is ours.
    """
    case = draw("plain", gpus, 0, "h200", 0.80)
    tree, budget_w, problem = case.seen.tree, case.seen.budget_w, case.seen.problem
    times = TIMES.get(gpus, 3)
    out = _timed(f"solve_{gpus}", lambda: waterfill(tree, budget_w, problem), times)
    team = draw("gang", gpus, 0, "h200", 0.82)
    if team.gangs is not None:
        jobs, site, known = team.gangs, team.seen, team.seen.problem
        out |= _timed(
            f"gang_solve_{gpus}",
            lambda: gang.solve(site.tree, site.budget_w, known, jobs),
            GANG_TIMES.get(gpus, 1),
        )
    return out


def _timed(key: str, act: Callable[[], object], times: int) -> dict[str, Figure]:
    """Medians by the clock and by the processor."""
    clock: list[float] = []
    processor: list[float] = []
    for _ in range(times):
        before = time.perf_counter(), time.process_time()
        act()
        clock.append(time.perf_counter() - before[0])
        processor.append(time.process_time() - before[1])
    return {
        f"{key}_ms": median(clock, "ms", 1e3),
        f"{key}_cpu_ms": median(processor, "ms", 1e3),
    }
