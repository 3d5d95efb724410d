"""Runs the falsification list, shows it in one table, writes `reports/twin.json` and pictures.

`python -m interlock_evals.twin KEY ...` runs only those whose key begins so. Exit status 1 if a
test fails that should hold, or holds although its failure is on record; 0 otherwise.
"""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from interlock_evals.reports import FOLDER, Figure, Promise, Report
from interlock_evals.twin import CHECKS, Check, Data, Finding, data_from_environment
from interlock_evals.twin.check import VARIABLE
from interlock_tools.svg import as_svg

PIPED_WIDTH = 150  # where there is no terminal to ask


def main(begins: Sequence[str]) -> int:
    """Run these tests, or all; 2 for a key that is none."""
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    checks = [c for c in CHECKS if not begins or c.key.startswith(tuple(begins))]
    if not checks:
        console.print(f"No such test. There are: {', '.join(check.key for check in CHECKS)}.")
        return 2
    data = data_from_environment()
    table = Table(title="The plant against public numbers")
    for heading in ("test", "what", "expected", "got", "", "diagnosis"):
        table.add_column(heading)
    promises: dict[str, Promise] = {}
    figures: dict[str, Figure] = {}
    surprises: list[str] = []
    for check in checks:
        with console.status(check.key):
            finding = _run(check, data)
        why = "" if finding is None or finding.held else check.why_not or "not known yet"
        if finding is None:
            table.add_row(check.key, check.what, check.expected, "", "skipped", f"no {VARIABLE}")
            continue
        word = "[green]pass" if finding.held else "[red]fail"
        table.add_row(check.key, check.what, check.expected, finding.got, word, why)
        promises[check.key] = Promise(finding.got, check.expected, "", finding.held, why or None)
        figures |= {f"{check.key}.{k}": Figure(float(v), "") for k, v in finding.figures.items()}
        if finding.held == (check.why_not is not None):
            surprises.append(check.key)
        if finding.picture is not None:
            FOLDER.mkdir(parents=True, exist_ok=True)
            (FOLDER / f"twin-{check.key}.svg").write_text(as_svg(finding.picture), "utf-8")
    console.print(table)
    held = sum(promise.held for promise in promises.values())
    console.print(f"{held} of {len(promises)} hold; pictures in {FOLDER}/twin-*.svg")
    if not begins:
        console.print(f"Written to {Report.of('twin', figures, promises).write()}")
    for key in surprises:
        console.print(f"[red]{key}: not what is on record")
    return 1 if surprises else 0


def _run(check: Check, data: Data | None) -> Finding | None:
    """What came of it; None where the data are not there."""
    if data is None:
        if check.needs_data:
            return None
        return check.run(Data(FOLDER))  # it reads none
    return check.run(data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
