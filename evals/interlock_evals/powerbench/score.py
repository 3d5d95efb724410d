"""Runs every policy on a site and judges its caps: work done, budgets, promises, time."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from interlock_evals.instances import Floats
from interlock_evals.powerbench.cases import BUDGETS, CURVES, Case, Variant, draw
from interlock_evals.powerbench.policies import BASELINES, OURS, Policy, ours

SMALL = 10_240  # up to here every variant is run
ALL_SIZES = (1_024, 10_240, 102_400, 1_024_000)
SEEDS = {1_024: 10, 10_240: 10, 102_400: 3, 1_024_000: 1}  # at most, by size
KEPT = 1 - 1e-9  # of a promise: rounding breaks none

BUDGETS_OF: Mapping[Variant, Sequence[float]] = {
    "plain": BUDGETS,
    "floors": BUDGETS[:4],
    "gang": (0.95, 0.92, 0.90, 0.85, 0.82, 0.80, 0.75, 0.70),
    "loops": (0.90, 0.80),
    "tenants": (0.90, 0.80),
    "noisy": (0.90, 0.80, 0.70),
    "pessimistic": (0.90, 0.80, 0.70),
}
LARGE_BUDGETS_OF: Mapping[Variant, Sequence[float]] = {"plain": BUDGETS, "gang": (0.82,)}


@dataclass(frozen=True)
class Row:
    """What one policy did on one site.

    Attributes:
        variant: of the site.
        gpus: of the site.
        seed: of the site.
        curves: curve set of the site.
        budget_ratio: of the site.
        policy: name.
        utility: weighted useful work over that without caps; NaN where it was declared unfit.
        over_nodes: nodes and loops above their budget.
        promises: GPUs or tenants with a promise.
        missed: of these, how many do not get it although nothing was declared.
        is_declared: whether the policy said that the promises do not fit.
        solve_s: seconds.
        gap: proven distance to the best, relative; only ours has one.
        unfit_nodes: nodes that the promises do not fit, where that was declared.
        unused_share: of the site's budget, what these caps leave; NaN where it was declared unfit.
    """

    variant: Variant
    gpus: int
    seed: int
    curves: str
    budget_ratio: float
    policy: str
    utility: float
    over_nodes: int
    promises: int
    missed: int
    is_declared: bool
    solve_s: float
    gap: float | None = None
    unfit_nodes: int = 0
    unused_share: float = np.nan


def with_jobs(row: Row) -> bool:
    """Whether it is our answer on a site with synchronous jobs."""
    return row.variant == "gang" and row.policy == OURS and row.gap is not None


def gap_of(row: Row) -> float:
    """Proven distance to the best, relative."""
    return row.gap or 0.0


def by_site(rows: Iterable[Row]) -> Iterable[dict[str, Row]]:
    """The rows of each site by policy."""
    sites: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in rows:
        at = (row.variant, row.gpus, row.seed, row.curves, row.budget_ratio)
        sites.setdefault(at, {})[row.policy] = row
    return sites.values()


@dataclass(frozen=True)
class Scope:
    """What to run: sizes, how many seeds at most, and whether only what fits in a minute."""

    sizes: Sequence[int] = ALL_SIZES
    seeds: int = 10
    quick: bool = False
    policies: Mapping[str, Policy] = field(default_factory=lambda: BASELINES)

    def seeds_for(self, gpus: int) -> range:
        """Seeds from 0; the fewer, the larger the site."""
        known = [SEEDS[size] for size in ALL_SIZES if gpus <= size]
        return range(min(self.seeds, known[0] if known else 1))

    def sites(self) -> Iterator[tuple[Variant, int, int, float]]:
        """Variant, size, seed and budget of every site, for each curve set."""
        for gpus in self.sizes:
            by_variant = BUDGETS_OF if gpus <= SMALL else LARGE_BUDGETS_OF
            for variant, budgets in by_variant.items():
                for seed in self.seeds_for(gpus):
                    yield from ((variant, gpus, seed, ratio) for ratio in budgets)


def run(scope: Scope) -> Iterator[Row]:
    """Every policy on every site of this scope."""
    for variant, gpus, seed, ratio in scope.sites():
        for curves in CURVES[: 1 if variant == "pessimistic" else None]:
            yield from compete(draw(variant, gpus, seed, curves, ratio), scope.policies)


def compete(case: Case, policies: Mapping[str, Policy] = BASELINES) -> Iterator[Row]:
    """Our planner and these policies on one site."""
    answer = ours(case)
    unfit = 0 if answer.unfit is None else 1 + len(answer.unfit.also)
    yield judge(case, OURS, answer.cap_w, answer.solve_s, answer.gap, unfit)
    for name, policy in policies.items():
        before = time.perf_counter()
        cap_w = policy(case)
        yield judge(case, name, cap_w, time.perf_counter() - before)


def judge(
    case: Case,
    policy: str,
    cap_w: Floats | None,
    solve_s: float,
    gap: float | None = None,
    unfit_nodes: int = 0,
) -> Row:
    """What these caps do; None for caps: the policy said that the promises do not fit."""
    where = (case.variant, case.gpus, case.seed, case.curves, case.budget_ratio, policy)
    floor = case.seen.leaves.floor_work
    promises = int((floor > 0).sum()) + sum(int((p.least_w > 0).sum()) for p in case.parts)
    if cap_w is None:
        return Row(*where, np.nan, 0, promises, 0, True, solve_s, None, unfit_nodes)
    over = int((case.seen.tree.sums(cap_w) > case.seen.budget_w).sum())
    missed = int((case.work(cap_w) < floor * KEPT).sum())
    for part in case.parts:
        drawn_w = part.sums(cap_w)
        over += int((drawn_w > part.most_w).sum())
        missed += int((drawn_w < part.least_w).sum())
    unused = 1 - float(cap_w.sum() / case.seen.budget_w[case.seen.tree.root])
    utility = case.utility(cap_w)
    return Row(*where, utility, over, promises, missed, False, solve_s, gap, 0, unused)
