"""`python -m interlock_evals.chaos.bus`: a million lies, and what a reader shows of them."""

import argparse
import logging
import tempfile
import time
from collections import Counter
from pathlib import Path

from interlock_evals.chaos.bus.found import Found
from interlock_evals.chaos.bus.grid import GridRun
from interlock_evals.chaos.bus.points import PointRun
from interlock_evals.reports import Figure, Promise, Report

MESSAGES = 1_000_000
GRID_SHARE = 0.03  # a signature takes as long as thirty readings
NONE_OF = ("crashes", "wrong", "misjudged", "unnamed")
VERSIONS_OF = ("interlock-dsx", "joserfc", "pydantic")


def main() -> int:
    """Run, report, print; 1 where a promise does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m interlock_evals.chaos.bus", description=__doc__
    )
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--name", default="chaos-bus", help="of the report")
    chosen = parser.parse_args()
    logging.disable()  # each of the lies would be a line
    begun_s = time.process_time()
    found = run(chosen.seed, chosen.messages)
    took_s = time.process_time() - begun_s
    report = report_of(found, chosen.messages, took_s, chosen.name)
    _print(found, took_s)
    print(f"written to {report.write()}")  # noqa: T201 - a command's answer
    return 0 if all(promise.held for promise in report.promises.values()) else 1


def run(seed: int, messages: int) -> dict[str, Found]:
    """So many messages, of points and of the grid."""
    of_grid = round(messages * GRID_SHARE)
    with tempfile.TemporaryDirectory(prefix="interlock-chaos-") as folder:
        grid = GridRun(seed, Path(folder)).run(of_grid)
    return {"points": PointRun(seed).run(messages - of_grid), "grid": grid}


def report_of(
    found: dict[str, Found], messages: int, took_s: float, name: str = "chaos-bus"
) -> Report:
    """The report: how many, of which kind, refused why, and none of what must not be."""
    every = list(found.values())
    total = sum(one.total for one in every)
    sentences = "; ".join(one for part in every for one in part.sentences[:3]) or None
    promises = {"messages": Promise.at_least(total, messages, "")}
    promises |= {
        key: Promise.at_most(sum(getattr(one, key) for one in every), 0, "", sentences)
        for key in NONE_OF
    }
    figures = {
        "messages_per_s": Figure(total / took_s, "messages/s of CPU"),
        "taken": Figure(sum(one.taken for one in every), ""),
        "rejected": Figure(sum(one.rejected.total() for one in every), ""),
        "shown_as_good": Figure(sum(one.shown for one in every), ""),
    }
    for of, one in found.items():
        figures |= {f"kind_{kind}": Figure(n, "") for kind, n in sorted(one.messages.items())}
        figures |= {
            f"{of}_rejected_{why}": Figure(n, "") for why, n in sorted(one.rejected.items())
        }
    return Report.of(name, figures, promises, VERSIONS_OF)


def _print(found: dict[str, Found], took_s: float) -> None:
    lines = []
    for of, one in found.items():
        lines.append(
            f"{of}: {one.total} messages, {one.taken} taken, {one.rejected.total()} refused"
        )
        lines += _table("  kind", one.messages)
        lines += _table("  refused", one.rejected)
        lines.append("  " + ", ".join(f"{key} {getattr(one, key)}" for key in NONE_OF))
        lines += [f"  {sentence}" for sentence in one.sentences[:20]]
    total = sum(one.total for one in found.values())
    lines.append(f"{total / took_s:,.0f} messages/s of CPU, the oracle's work with it")
    print("\n".join(lines))  # noqa: T201 - a command's answer


def _table(heading: str, counts: Counter[str]) -> list[str]:
    return [f"{heading} {name!s:32}{count:>9}" for name, count in counts.most_common()]


if __name__ == "__main__":
    raise SystemExit(main())
