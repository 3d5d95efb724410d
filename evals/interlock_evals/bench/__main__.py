"""Runs the measures, shows them in one table and writes `reports/bench.json`.

`python -m interlock_evals.bench NAME ...` runs only those and writes `reports/bench-NAME....json`.
"""

import importlib
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from interlock_evals.bench import MEASURES
from interlock_evals.bench.measured import Measured
from interlock_evals.reports import Figure, Promise, Report

PIPED_WIDTH = 110  # where there is no terminal to ask
VERSIONS_OF = ("interlock-dsx", "numpy", "highspy", "mcp", "cedarpy", "paho-mqtt")


def main(names: Sequence[str]) -> int:
    """Run these measures, or all; 2 for a name that is none, else 0: a miss is not a failure."""
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    unknown = sorted(set(names) - set(MEASURES))
    if unknown:
        console.print(f"No such measure: {', '.join(unknown)}. There are: {', '.join(MEASURES)}.")
        return 2
    figures: dict[str, Figure] = {}
    promises: dict[str, Promise] = {}
    for name in names or MEASURES:
        with console.status(f"measuring {name}"):
            measured = measure(name)
        figures |= measured.figures
        promises |= measured.promises
    report_name = "-".join(["bench", *names])
    report = Report.of(report_name, figures, promises, VERSIONS_OF)
    show(report, console)
    console.print(f"Written to {report.write()}")
    return 0


def measure(name: str) -> Measured:
    """What the measure of this name hands back."""
    measured = importlib.import_module(f"interlock_evals.bench.{name}").measure()
    if not isinstance(measured, Measured):
        raise TypeError(f"{name}.measure() must return Measured")
    return measured


def show(report: Report, console: Console) -> None:
    """The report as one table: first what was promised, then what was only measured."""
    on = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    table = Table(
        title=f"{report.name}, commit {report.commit[:12]}", caption=f"{report.machine}\n{on}"
    )
    table.add_column("measure", no_wrap=True)
    for heading in ("median", "spread", "n", "limit"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    table.add_column("held?")
    for key, promise in report.promises.items():
        figure = report.figures.get(key)
        table.add_row(
            key,
            _number(promise.value),
            _number(figure.spread if figure else None),
            str(figure.n) if figure else "",
            _number(promise.limit),
            promise.unit,
            "[green]yes" if promise.held else "[red]no",
        )
    table.add_section()
    for key, figure in report.figures.items():
        if key not in report.promises:
            told = (_number(figure.value), _number(figure.spread), str(figure.n), "", figure.unit)
            table.add_row(key, *told, "")
    console.print(table)
    for key, promise in report.promises.items():
        if not promise.held:
            console.print(f"{key} does not hold: {promise.why_not}", soft_wrap=True)


def _number(value: float | str | None) -> str:
    """A number that people can read; nothing for nothing."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
