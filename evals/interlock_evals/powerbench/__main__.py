"""Runs the benchmark, shows it in tables, writes `reports/powerbench.json`, rows and pictures.

`python -m interlock_evals.powerbench [--sizes N,N] [--seeds N] [--quick] [--out FOLDER]`. Exit
status 0: a promise that does not hold is a finding, not a failure.
"""

import argparse
import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table

from interlock_evals.powerbench import optimum, oracle, path, tables, verdict
from interlock_evals.powerbench.cases import BUDGETS, CURVES
from interlock_evals.powerbench.policies import BASELINES
from interlock_evals.powerbench.score import ALL_SIZES, SMALL, Row, Scope, run
from interlock_evals.reports import FOLDER, Figure, Report

PIPED_WIDTH = 150  # where there is no terminal to ask
VERSIONS_OF = ("interlock-dsx", "numpy", "highspy")
QUICK = Scope(sizes=(1_024,), seeds=2, quick=True)


def main(words: Sequence[str]) -> int:
    """Run what is asked for and show it."""
    scope, out = _asked(words)
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    with console.status("running every policy on every site"):
        rows = list(run(scope))
    with console.status("drawing the published tables again"):
        seeds = 1 if scope.quick else min(scope.seeds, 5)
        cells = list(tables.cells(seeds))
        figures = tables.figures(cells) | tables.slacks(seeds)
    figures |= _measured(scope, rows)
    report = build(rows, figures, "powerbench-quick" if scope.quick else "powerbench")
    show(report, cells, scope.sizes, console)
    console.print(f"Written to {report.write(out)} and {_write_rows(rows, out / report.name)}")
    if find_spec("matplotlib"):  # a development extra
        from interlock_evals.powerbench.pictures import draw_all

        for picture in draw_all(rows, out / report.name):
            console.print(f"Written to {picture}")
    return 0


def build(rows: Sequence[Row], measured: Mapping[str, Figure], name: str = "powerbench") -> Report:
    """The report of these rows and of what was measured beside them."""
    figures = verdict.figures(rows) | dict(measured)
    return Report.of(name, figures, verdict.promises(figures, rows), VERSIONS_OF)


def show(report: Report, cells: list[tables.Cell], sizes: Sequence[int], console: Console) -> None:
    """The promises, gains by budget, the optimum's, and the published tables beside ours."""
    console.print(_promises(report))
    for key, promise in report.promises.items():
        if not promise.held:
            console.print(f"{key} does not hold: {promise.why_not}", soft_wrap=True)
    for curves in CURVES:
        console.print(_gains(report.figures, curves))
    console.print(optimum.table(report.figures, sizes))
    for curves in CURVES:
        console.print(tables.as_table(cells, curves))
    console.print(tables.slack_table(report.figures))
    console.print(tables.floor_table(report.figures))


def _measured(scope: Scope, rows: Sequence[Row]) -> dict[str, Figure]:
    """Speeds, the independent solver, and how much the caps move along a path of budgets."""
    out = optimum.figures(rows)
    for gpus in scope.sizes:
        out |= oracle.speed(gpus) | oracle.gang_behind_highs(gpus, rows)
    small = [gpus for gpus in scope.sizes if gpus <= SMALL] or [min(scope.sizes)]
    return out | path.oscillation(max(small), scope.policies)


def _promises(report: Report) -> Table:
    """Each promise with its value and limit."""
    table = Table(title=f"{report.name}, commit {report.commit[:12]}", caption=report.machine)
    for heading in ("promise", "value", "limit", "unit", "held?"):
        table.add_column(heading, no_wrap=True)
    for key, promise in report.promises.items():
        value = promise.value if isinstance(promise.value, float) else float("nan")
        held = "[green]yes" if promise.held else "[red]no"
        table.add_row(key, f"{value:.3g}", f"{promise.limit:g}", promise.unit, held)
    return table


def _gains(figures: Mapping[str, Figure], curves: str) -> Table:
    """Our gain over each policy: the least over the sizes of the median over the seeds."""
    table = Table(title=f"Gain in %, {curves} curves, least over the sizes; nodes over budget")
    table.add_column("over", no_wrap=True)
    for ratio in BUDGETS:
        table.add_column(f"{ratio:.2f}", justify="right")
    table.add_column("nodes over budget, all runs", justify="right")
    for policy in BASELINES:
        found = [
            figures.get(f"{verdict.gain_key('plain', policy, ratio)}_{curves}") for ratio in BUDGETS
        ]
        broken = figures.get(f"violations_{policy}")
        told = [f"{figure.value:+.2f}" if figure else "" for figure in found]
        table.add_row(policy, *told, f"{broken.value:,.0f}" if broken else "")
    return table


def _write_rows(rows: Iterable[Row], place: Path) -> Path:
    """Every row, for whoever wants another cut through them."""
    place.mkdir(parents=True, exist_ok=True)
    target = place / "rows.csv"
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return target


def _asked(words: Sequence[str]) -> tuple[Scope, Path]:
    """What to run, and where to write."""
    parser = argparse.ArgumentParser(prog="powerbench", description=__doc__)
    parser.add_argument("--sizes", help=f"GPUs, with commas; by default {ALL_SIZES}")
    parser.add_argument("--seeds", type=int, help="most seeds for each size; by default 10")
    parser.add_argument("--quick", action="store_true", help="within a minute: 1,024 GPUs, 2 seeds")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    given = parser.parse_args(words)
    base = QUICK if given.quick else Scope()
    sizes = tuple(int(n) for n in given.sizes.split(",")) if given.sizes else base.sizes
    return Scope(sizes, given.seeds or base.seeds, given.quick), given.out


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
