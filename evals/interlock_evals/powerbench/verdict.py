"""From rows to figures and promises; what does not hold is said with its number and a diagnosis."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np

from interlock_evals.powerbench.cases import CURVES
from interlock_evals.powerbench.policies import OURS
from interlock_evals.powerbench.score import Row, by_site, gap_of, with_jobs
from interlock_evals.reports import Figure, Promise

BEST_SIMPLE: Final = "best_simple"  # the better of these two, site by site
SIMPLE: Final = ("max_min", "proportional")
GAP_LIMIT: Final = 1e-4
GANG_GAP_LIMIT_PCT: Final = 0.3
TIME_LIMITS_MS: Final = {
    "solve_102400_ms": 50.0,
    "solve_1024000_ms": 1_000.0,
    "gang_solve_102400_ms": 2_000.0,
}


class Claim(NamedTuple):
    """What we say we gain, in percent, on both curve sets and at every size."""

    variant: str
    policy: str
    budget_ratio: float
    least_pct: float


CLAIMS: Final = (
    Claim("plain", "uniform", 0.80, 4.0),
    Claim("plain", "proportional", 0.80, 4.0),
    Claim("plain", "equal_deficit", 0.80, 5.0),
    Claim("plain", "max_min", 0.80, 1.5),
    Claim("gang", BEST_SIMPLE, 0.82, 3.0),
)

K = TypeVar("K")
Key = tuple[str, str, float, str, int]  # variant, policy, budget, curves, GPUs


def gain_key(variant: str, policy: str, budget_ratio: float) -> str:
    """`gain_<policy>_pct_at_<budget>`, with the variant before it where there is one."""
    before = "" if variant == "plain" else f"{variant}_"
    return f"{before}gain_{policy}_pct_at_{round(100 * budget_ratio)}"


def gains(rows: Sequence[Row]) -> dict[Key, list[float]]:
    """By how many percent our work exceeds each policy's, site by site; unfit sites left out."""
    out: dict[Key, list[float]] = {}
    for site in by_site(rows):
        best = site[OURS].utility
        if np.isnan(best):
            continue
        other = {name: row.utility for name, row in site.items() if name != OURS}
        if set(SIMPLE) <= set(other):
            other[BEST_SIMPLE] = max(other[name] for name in SIMPLE)
        first = site[OURS]
        for name, utility in other.items():
            key = (first.variant, name, first.budget_ratio, first.curves, first.gpus)
            out.setdefault(key, []).append(100 * (best / utility - 1))
    return out


def figures(rows: Sequence[Row]) -> dict[str, Figure]:
    """Gains by size and curve set, the least of them, violations, floors, gaps and times."""
    out: dict[str, Figure] = {}
    worst: dict[str, list[Figure]] = {}
    for (variant, policy, ratio, curves, gpus), several in sorted(gains(rows).items()):
        key = gain_key(variant, policy, ratio)
        figure = _figure(several, "%")
        out[f"{key}_{curves}_{gpus}"] = figure
        worst.setdefault(key, []).append(figure)
        worst.setdefault(f"{key}_{curves}", []).append(figure)
    for key, by_size in worst.items():
        out[key] = min(by_size, key=lambda figure: figure.value)
    out |= _violations(rows) | _floors(rows) | _gaps(rows) | _noise(rows)
    plain = [r for r in rows if r.variant == "plain"]
    promised = [r for r in plain if r.budget_ratio in {c.budget_ratio for c in CLAIMS}]
    by = _grouped(promised, lambda r: (r.policy, r.budget_ratio, r.curves, r.gpus))
    for (policy, ratio, curves, gpus), group in by:
        key = f"unused_{policy}_pct_at_{round(100 * ratio)}_{curves}_{gpus}"
        out[key] = _figure([100 * r.unused_share for r in group], "%")
    for (policy, gpus), group in _grouped(plain, lambda r: (r.policy, r.gpus)):
        out[f"time_{policy}_{gpus}_ms"] = _figure([1e3 * r.solve_s for r in group], "ms")
    return out


def promises(found: Mapping[str, Figure], rows: Sequence[Row]) -> dict[str, Promise]:
    """Every promise of this benchmark, held or not, on what was run."""
    of_jobs = _diagnosis_of_jobs(rows)
    out: dict[str, Promise] = {}
    for claim in CLAIMS:
        for curves in CURVES:
            key = f"{gain_key(claim.variant, claim.policy, claim.budget_ratio)}_{curves}"
            if key in found:
                why = diagnosis(claim, curves, found)
                out[key] = Promise.at_least(found[key].value, claim.least_pct, "%", why)
            else:
                out[key] = Promise.unmeasured(claim.least_pct, "%", "not run")
    out["violations"] = Promise.at_most(found["violations"].value, 0, "nodes")
    out["floor_breaks"] = Promise.at_most(found["floor_breaks"].value, 0, "")
    out["gap"] = _most(found, ("gap",), GAP_LIMIT, "")
    out["gang_gap_pct"] = _most(found, ("gang_gap_pct",), GANG_GAP_LIMIT_PCT, "%", of_jobs)
    sized = [key for key in found if key.startswith("behind_highs_")]
    out["behind_highs"] = _most(found, sized, GAP_LIMIT, "")
    sized = [key for key in found if key.startswith("gang_behind_highs_pct_")]
    out["gang_behind_highs_pct"] = _most(found, sized, GANG_GAP_LIMIT_PCT, "%", of_jobs)
    for key, limit in TIME_LIMITS_MS.items():
        if key in found:
            used = found.get(key.removesuffix("_ms") + "_cpu_ms")
            told = None if used is None else f"by the clock; {used.value:.0f} ms by the processor"
            out[key] = Promise.at_most(found[key].value, limit, "ms", told)
    return out


def diagnosis(claim: Claim, curves: str, found: Mapping[str, Figure]) -> str:
    """Why a gain may be short of its limit, from what was measured beside it."""
    start = f"{gain_key(claim.variant, claim.policy, claim.budget_ratio)}_{curves}_"
    sizes = {key.removeprefix(start): f.value for key, f in found.items() if key.startswith(start)}
    told = ", ".join(f"{int(gpus):,} GPUs {value:+.2f}" for gpus, value in sizes.items())
    why = f"median by size: {told}."
    for gpus, value in sizes.items():
        most, exact = (found.get(f"{kind}_{start}{gpus}") for kind in ("most", "exact"))
        if most is not None and value < claim.least_pct and most.value < claim.least_pct:
            why += f" No caps can gain it at {int(gpus):,} GPUs: the optimum is {most.value:+.2f}"
            why += "." if exact is None else f", and HiGHS finds {exact.value:+.2f}."
    end = f"gain_{claim.policy}_pct_at_80_{curves}"
    rated = {k: f.value for k, f in found.items() if k.startswith("slack_") and k.endswith(end)}
    if claim.variant == "plain" and rated:
        by = [f"{int(k.split('_')[1]) / 100:.2f} {value:+.1f}" for k, value in rated.items()]
        why += (
            " It hangs on how loosely racks and PDUs are rated, which our sources do not say;"
            f" at 12,800 GPUs by rating: {', '.join(by)}."
        )
        cooler = found.get(f"cooler_decode_{end}")
        if cooler is not None:
            why += f" And on decode's draw: 70 W less each gives {cooler.value:+.1f}."
        if claim.policy == "uniform":
            start = f"unused_uniform_pct_at_80_{curves}_"
            left = {k.removeprefix(start): f.value for k, f in found.items() if k.startswith(start)}
            told = ", ".join(f"{int(gpus):,} GPUs {value:.1f}" for gpus, value in left.items())
            why += (
                " One cap stops at the tightest rack, and the fewer racks, the less tight it is:"
                f" of the site's budget it leaves unused, in %, {told}."
                " At 1.20 the site is nearly the only full node,"
                " so one cap for all loses no more than equal watts do."
            )
    return why


def _violations(rows: Sequence[Row]) -> dict[str, Figure]:
    """Nodes and loops above their budget: of ours, and of each policy."""
    out = {}
    for (policy,), group in _grouped(rows, lambda r: (r.policy,)):
        key = "violations" if policy == OURS else f"violations_{policy}"
        out[key] = Figure(sum(r.over_nodes for r in group), "nodes", len(group))
    return out


def _floors(rows: Sequence[Row]) -> dict[str, Figure]:
    """Promises that were not kept although nothing was declared; sites where that was declared."""
    out = {}
    promised = [r for r in rows if r.promises]
    for (policy,), group in _grouped(promised, lambda r: (r.policy,)):
        key = "floor_breaks" if policy == OURS else f"floor_breaks_{policy}"
        out[key] = Figure(sum(r.missed for r in group), "", len(group))
    by = _grouped(promised, lambda r: (r.variant, r.policy, r.budget_ratio, r.curves))
    for (variant, policy, ratio, curves), group in by:
        end = f"pct_at_{round(100 * ratio)}_{curves}"
        missed = [100 * r.missed / r.promises for r in group]
        out[f"{variant}_missed_{policy}_{end}"] = _figure(missed, "%")
        if policy == OURS:
            declared = [100.0 * r.is_declared for r in group]
            out[f"{variant}_declared_{end}"] = Figure(float(np.mean(declared)), "%", len(group))
            nodes = [float(r.unfit_nodes) for r in group]
            out[f"{variant}_unfit_nodes_at_{end[7:]}"] = _figure(nodes, "nodes")
    out.setdefault("floor_breaks", Figure(0, "", 0))
    return out


def _gaps(rows: Sequence[Row]) -> dict[str, Figure]:
    """The largest proven distance to the best by what cuts across the tree."""
    out = {}
    names = {"gang": ("gang_gap_pct", 100.0, "%")}
    names |= {name: (f"{name}_gap", 1.0, "") for name in ("loops", "tenants")}
    proven = [r for r in rows if r.gap is not None]
    for (key, scale, unit), group in _grouped(
        proven, lambda r: names.get(r.variant, ("gap", 1.0, ""))
    ):
        values = [scale * r.gap for r in group if r.gap is not None]
        out[key] = Figure(max(values), unit, len(values), float(np.ptp(values)))
    for (gpus,), group in _grouped([r for r in proven if r.variant == "gang"], lambda r: (r.gpus,)):
        values = [100 * r.gap for r in group if r.gap is not None]
        out[f"gang_gap_pct_{gpus}"] = Figure(max(values), "%", len(values), float(np.ptp(values)))
    return out


def _noise(rows: Sequence[Row]) -> dict[str, Figure]:
    """What wrong estimates of natural draw cost us, against the same sites known exactly."""
    exact = {
        (r.gpus, r.seed, r.curves, r.budget_ratio): r.utility
        for r in rows
        if r.variant == "plain" and r.policy == OURS
    }
    noisy = [r for r in rows if r.variant == "noisy" and r.policy == OURS]
    out = {}
    for (ratio, curves), group in _grouped(noisy, lambda r: (r.budget_ratio, r.curves)):
        lost = [
            100 * (1 - r.utility / exact[r.gpus, r.seed, r.curves, r.budget_ratio]) for r in group
        ]
        out[f"noisy_lost_pct_at_{round(100 * ratio)}_{curves}"] = _figure(lost, "%")
    return out


def _grouped(rows: Iterable[Row], key: Callable[[Row], K]) -> list[tuple[K, list[Row]]]:
    """Rows that agree in `key`, in the order in which they came."""
    out: dict[K, list[Row]] = {}
    for row in rows:
        out.setdefault(key(row), []).append(row)
    return list(out.items())


def _figure(values: Sequence[float], unit: str) -> Figure:
    """Median and spread."""
    return Figure(float(np.median(values)), unit, len(values), float(np.ptp(values)))


def _diagnosis_of_jobs(rows: Sequence[Row]) -> str:
    """How many sites with jobs are above the limit, and which is the worst."""
    ours = [r for r in rows if with_jobs(r)]
    if not ours:
        return "not run"
    gaps_pct = [100 * gap_of(r) for r in ours]
    over = sum(gap > GANG_GAP_LIMIT_PCT for gap in gaps_pct)
    worst = max(ours, key=gap_of)
    return (
        f"{over} of {len(ours)} sites are above, median {np.median(gaps_pct):.3f} %. The worst:"
        f" {worst.gpus:,} GPUs, seed {worst.seed}, {worst.curves} curves, budget"
        f" {worst.budget_ratio:g}. The rounds of its split end before it settles."
    )


def _most(
    found: Mapping[str, Figure],
    keys: Iterable[str],
    limit: float,
    unit: str,
    why_not: str | None = None,
) -> Promise:
    """The largest of these against its limit."""
    values = [found[key].value for key in keys if key in found]
    if not values:
        return Promise.unmeasured(limit, unit, "not run, or no solver to compare with")
    return Promise.at_most(max(values), limit, unit, why_not)
