"""What the best possible caps gain: a promise that even they miss at a size is bounded by the site.

From both sides: HiGHS, which shares no code with us, gives caps that exist; our dual bound gives
what no caps within the budgets exceed. It holds at any size, HiGHS solves the smaller ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec

import numpy as np
from rich.table import Table

from interlock_evals.powerbench.cases import CURVES, draw
from interlock_evals.powerbench.policies import OURS
from interlock_evals.powerbench.score import SMALL, Row, by_site, gap_of
from interlock_evals.powerbench.verdict import CLAIMS, gain_key
from interlock_evals.reports import Figure

RATIO = 0.80
CHORDS = {1_024: 32, 10_240: 16}  # a GPU; seconds on the larger one, and 6e-5 behind at most
OVER = tuple(claim.policy for claim in CLAIMS if claim.variant == "plain")


def figures(rows: Iterable[Row]) -> dict[str, Figure]:
    """Median gains over the same seeds as ours, and the most by which HiGHS is ahead, by size.

    `exact_gain_...`: of HiGHS, which sees chords and is judged on the true curves; `most_gain_...`:
    of the dual bound; `behind_highs_...`: relative, below 0 where HiGHS never is ahead.
    """
    gains: dict[str, list[float]] = {}
    behind: dict[str, list[float]] = {}
    for site in by_site(r for r in rows if r.variant == "plain" and r.budget_ratio == RATIO):
        ours = site[OURS]
        best = {"most": ours.utility / (1 - gap_of(ours))}
        if ours.gpus <= SMALL and find_spec("highspy"):  # a development extra
            best["exact"] = _by_highs(ours)
            ahead = best["exact"] / ours.utility - 1
            behind.setdefault(f"behind_highs_{ours.gpus}", []).append(ahead)
        for kind, utility in best.items():
            for policy in OVER:
                key = f"{kind}_{gain_key('plain', policy, RATIO)}_{ours.curves}_{ours.gpus}"
                gains.setdefault(key, []).append(100 * (utility / site[policy].utility - 1))
    out = {
        key: Figure(float(np.median(values)), "%", len(values), float(np.ptp(values)))
        for key, values in gains.items()
    }
    return out | {
        key: Figure(max(values), "", len(values), float(np.ptp(values)))
        for key, values in behind.items()
    }


def table(found: Mapping[str, Figure], sizes: Sequence[int]) -> Table:
    """Our gain at .80, that of HiGHS, and the most that any caps can gain, by size."""
    shown = Table(title="Gain at .80 in %: ours | HiGHS | most that any caps can gain")
    shown.add_column("curves, over", no_wrap=True)
    for gpus in sizes:
        shown.add_column(f"{gpus:,} GPUs", justify="right", no_wrap=True)
    for curves in CURVES:
        for policy in OVER:
            ends = [f"{gain_key('plain', policy, RATIO)}_{curves}_{gpus}" for gpus in sizes]
            told = [[found.get(before + end) for before in ("", "exact_", "most_")] for end in ends]
            cells = (" ".join(f"{f.value:+.2f}" if f else "-" for f in cell) for cell in told)
            shown.add_row(f"{curves}, {policy}", *cells)
    return shown


def _by_highs(row: Row) -> float:
    """What the caps of HiGHS do on this row's site."""
    from interlock_evals import highs

    curves = next(known for known in CURVES if known == row.curves)
    case = draw("plain", row.gpus, row.seed, curves, row.budget_ratio)
    site, chords = case.seen, CHORDS.get(row.gpus, 16)
    return case.utility(highs.solve(site.tree, site.budget_w, site.problem, chords))
