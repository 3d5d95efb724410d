"""Four pictures of one run: work by budget, broken floors, caps of one site, time by size.

Drawn where matplotlib is installed (a development extra).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from interlock_evals.instances import CLASSES
from interlock_evals.powerbench.cases import CURVES, draw
from interlock_evals.powerbench.policies import BASELINES, BOUND, OURS, planned_w
from interlock_evals.powerbench.score import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POLICIES: Final = (OURS, *BASELINES)
SHOWN_GPUS: Final = 1_024  # of the site whose caps are drawn


def draw_all(rows: Sequence[Row], place: Path) -> list[Path]:
    """Write the pictures and return their paths."""
    place.mkdir(parents=True, exist_ok=True)
    return [
        _save(_utility(rows), place / "utility.png"),
        _save(_floors(rows), place / "floors.png"),
        _save(_caps(), place / "caps.png"),
        _save(_time(rows), place / "time.png"),
    ]


def _utility(rows: Sequence[Row]) -> "Figure":
    """Work against budget, each policy, at the largest size up to 10,240 that was run."""
    plain = [r for r in rows if r.variant == "plain"]
    gpus = max((r.gpus for r in plain if r.gpus <= 10_240), default=min(r.gpus for r in plain))
    figure, axes = _panels(len(CURVES))
    for ax, curves in zip(axes, CURVES, strict=True):
        here = [r for r in plain if r.gpus == gpus and r.curves == curves]
        ratios = sorted({r.budget_ratio for r in here})
        for policy in POLICIES:
            by_ratio = [
                [r.utility for r in here if r.policy == policy and r.budget_ratio == ratio]
                for ratio in ratios
            ]
            if not all(by_ratio):
                continue
            style = "--" if policy == BOUND else "-"
            medians = [float(np.median(values)) for values in by_ratio]
            over = any(r.over_nodes for r in here if r.policy == policy)
            told = f"{policy} (breaks budgets)" if over else policy
            ax.plot(ratios, medians, style, label=told, lw=2.5 if policy == OURS else 1.2)
        ax.set_title(f"{curves} curves, {gpus:,} GPUs")
        ax.set_xlabel("site budget / natural draw")
        ax.set_ylabel("weighted useful work, 1 without caps")
        ax.set_ylim(bottom=0.6)
    axes[0].legend(fontsize="small")
    return figure


def _floors(rows: Sequence[Row]) -> "Figure":
    """Share of promised GPUs below their floor; starred where ours declared them unfit."""
    promised = [r for r in rows if r.variant == "floors"]
    figure, axes = _panels(len(CURVES))
    for ax, curves in zip(axes, CURVES, strict=True):
        here = [r for r in promised if r.curves == curves]
        ratios = sorted({r.budget_ratio for r in here}, reverse=True)
        width = 0.8 / len(POLICIES)
        for place, policy in enumerate(POLICIES):
            for position, ratio in enumerate(ratios):
                found = [r for r in here if r.policy == policy and r.budget_ratio == ratio]
                if not found:
                    continue
                share = float(np.mean([100 * r.missed / r.promises for r in found]))
                at = position + place * width
                name = policy if position == 0 else None
                ax.bar(at, share, width, label=name, color=f"C{place}")
                declared = sum(r.is_declared for r in found)
                if declared:
                    ax.annotate(f"*{declared}/{len(found)}", (at, share), fontsize="x-small")
        ax.set_xticks([p + 0.4 for p in range(len(ratios))], [f"{ratio:.2f}" for ratio in ratios])
        ax.set_title(f"{curves} curves")
        ax.set_xlabel("site budget / natural draw (*: sites that ours declared unfit)")
        ax.set_ylabel("% of promised GPUs below their floor")
    axes[0].legend(fontsize="small")
    return figure


def _caps() -> "Figure":
    """Natural draw and our caps of one site, GPUs sorted by class and draw."""
    figure, axes = _panels(len(CURVES))
    for ax, curves in zip(axes, CURVES, strict=True):
        case = draw("plain", SHOWN_GPUS, 0, curves, 0.80)
        natural_w, kind = case.seen.leaves.natural_w, case.seen.work_class
        order = np.lexsort((natural_w, kind))
        ax.plot(natural_w[order], color="0.6", lw=1, label="natural draw")
        ax.plot(planned_w(case)[order], ".", ms=2, color="C0", label="cap, ours")
        ax.plot(BASELINES["max_min"](case)[order], lw=0.8, color="C2", label="cap, max_min")
        for number, work in enumerate(CLASSES):
            found = np.flatnonzero(kind[order] == number)
            if len(found):
                ax.annotate(work.name, (float(found.mean()), 205), ha="center", fontsize="small")
                ax.axvline(float(found[-1]) + 0.5, color="0.85", lw=0.8)
        ax.set_ylim(190, 710)
        ax.set_title(f"{case.seen.name}")
        ax.set_xlabel("GPU, by class and natural draw")
        ax.set_ylabel("W")
    axes[0].legend(fontsize="small", loc="upper right")
    return figure


def _time(rows: Sequence[Row]) -> "Figure":
    """Seconds of one plan against the number of GPUs, with its checks and its bound."""
    figure, axes = _panels(1)
    ax = axes[0]
    for variant, policy in (("plain", OURS), ("gang", OURS), ("plain", "max_min")):
        found = [r for r in rows if r.variant == variant and r.policy == policy]
        sizes = sorted({r.gpus for r in found})
        medians = [float(np.median([r.solve_s for r in found if r.gpus == n])) for n in sizes]
        ax.plot(sizes, medians, "o-", label=f"{policy}, {variant}")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("GPUs")
    ax.set_ylabel("s, median")
    ax.legend()
    return figure


def _panels(count: int) -> tuple["Figure", list["Axes"]]:
    """A figure with panels side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * count, 4.8), layout="constrained")
    return figure, [figure.add_subplot(1, count, place + 1) for place in range(count)]


def _save(figure: "Figure", path: Path) -> Path:
    """Write it as PNG."""
    figure.savefig(path, dpi=120)
    return path
