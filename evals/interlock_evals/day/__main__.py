"""Runs the day unattended, prints it, and writes `reports/day.json` and pictures.

The serving load is the Azure conversation trace in `INTERLOCK_DATA`; without it the day is
synthetic and says so. What the site went through is a finding; exit status 1 is for ourselves: the
ledger does not verify, a change has no end, or the agent goes to and fro.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
from rich.console import Console

from interlock_evals.day import show
from interlock_evals.day.report import clock, report_of
from interlock_evals.day.run import Day, run_day
from interlock_evals.day.story import STORIES, story_of
from interlock_evals.reports import FOLDER
from interlock_evals.twin import Data, data_from_environment
from interlock_plant.trace import RequestTrace, parse_trace
from interlock_tools.errors import FactoryError

TRACE = "azure_llm_2023_conv.csv"
OURS = (
    "ledger_verified",
    "changes_not_ended",
    "cap_moves_of_one_gpu",
    "cap_reversals_in_an_hour",
)
PIPED_WIDTH = 150  # where there is no terminal to ask


def main(words: Sequence[str]) -> int:
    """Run it; 2 where it could not be run."""
    parser = argparse.ArgumentParser(prog="day", description=__doc__)
    parser.add_argument("--site", default="lab", choices=list(STORIES))
    parser.add_argument("--cut", type=float, help="share of power that the grid takes; else .25")
    parser.add_argument("--nobody-pauses", action="store_true", help="what the agent names for it")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    given = parser.parse_args(words)
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        story = story_of(given.site, given.cut)
        trace = _trace(data_from_environment())
        with console.status("midnight") as status, tempfile.TemporaryDirectory() as folder:

            async def day_of() -> Day:
                watch = _clock_hand(status.update)
                return await run_day(
                    story,
                    Path(folder),
                    trace=trace,
                    watch=watch,
                    people_pause=not given.nobody_pauses,
                )

            day = anyio.run(day_of)
    except FactoryError as error:
        console.print(f"[red]{error}")
        return 2
    report = report_of(day)
    show.write_pictures(day, given.out)
    console.print(show.hours_table(day))
    console.print(show.figures_table(report))
    console.print(show.promises_table(report))
    for line in show.told(day):
        console.print(f"- {line}", markup=False)
    console.print(f"Written to {report.write(given.out)}; pictures beside it")
    return int(not all(report.promises[key].held for key in OURS))


def _clock_hand(tell: Callable[[str], None]) -> Callable[[int], None]:
    def watch(second: int) -> None:
        if second % 600 == 0:
            tell(clock(second))

    return watch


def _trace(data: Data | None) -> RequestTrace | None:
    return None if data is None else parse_trace(data.text(TRACE))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
