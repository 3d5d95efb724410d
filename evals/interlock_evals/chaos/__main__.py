"""`python -m interlock_evals.chaos`: kill it a thousand times, and count what must not happen."""

import argparse
import logging
import signal
import sys
from collections.abc import Mapping
from dataclasses import fields

from interlock_evals.chaos.checks import Found
from interlock_evals.chaos.postgres import why_not
from interlock_evals.chaos.runs import run_many
from interlock_evals.reports import Figure, Promise, Report

STORES = ("sqlite", "postgresql")
NONE_OF = (
    "double_executions",
    "acts_without_intent",
    "approvals_reused",
    "acts_without_approval",
    "unended",
    "contradictions",
    "held_for_nothing",
    "ledgers_broken",
)
VERSIONS_OF = ("interlock-dsx", "sqlalchemy", "psycopg")


def main() -> int:
    """Run, report, print; 1 where a promise does not hold."""
    parser = argparse.ArgumentParser(prog="python -m interlock_evals.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="per store")
    parser.add_argument("--races", type=int, default=20, help="of 64 executors, per store")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--store", choices=STORES, action="append", help="both by default")
    parser.add_argument("--name", default="chaos", help="of the report")
    parser.add_argument("--verbose", action="store_true", help="what the killed ones logged, too")
    chosen = parser.parse_args()
    if not chosen.verbose:
        logging.disable()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave no server behind
    found: dict[str, Found] = {}
    reasons: dict[str, str] = {}
    for store in chosen.store or STORES:
        reason = why_not() if store == "postgresql" else None
        if reason is not None:
            reasons[store] = reason
            continue
        found[store] = run_many(
            store, seed=chosen.seed, kills=chosen.kills, races=chosen.races, progress=_show
        )
    report = report_of(found, reasons, chosen.kills, chosen.name)
    path = report.write()
    _print(found, reasons)
    print(f"written to {path}")  # noqa: T201 - a command's answer
    return 0 if all(promise.held for promise in report.promises.values()) else 1


def report_of(
    found: Mapping[str, Found], reasons: Mapping[str, str], kills: int, name: str = "chaos"
) -> Report:
    """The report; a store that could not be tried promises nothing, and says why."""
    promises: dict[str, Promise] = {}
    figures: dict[str, Figure] = {}
    for store, why in reasons.items():
        promises[f"kills_{store}"] = Promise.unmeasured(kills, "", why)
        promises |= {f"{key}_{store}": Promise.unmeasured(0, "", why) for key in NONE_OF}
    for store, one in found.items():
        broken = "; ".join(one.wrong[:5]) or None
        promises[f"kills_{store}"] = Promise.at_least(one.kills, kills, "")
        promises |= {
            f"{key}_{store}": Promise.at_most(getattr(one, key), 0, "", broken) for key in NONE_OF
        }
        counts = {
            "races": one.races,
            "changes": one.changes,
            "acts": one.acts,
            "brought_back": one.brought_back,
        }
        counts |= {f"ended_{state}": count for state, count in sorted(one.states.items())}
        counts |= {f"killed_{point}": count for point, count in sorted(one.points.items())}
        figures |= {f"{store}_{key}": Figure(count, "") for key, count in counts.items()}
    return Report.of(name, figures, promises, VERSIONS_OF)


def _show(found: Found) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{found.kills} kills, {len(found.wrong)} wrong ")


def _print(found: Mapping[str, Found], reasons: Mapping[str, str]) -> None:
    lines = [f"{'':24}" + "".join(f"{store:>14}" for store in found)]
    for part in fields(Found):
        values = [getattr(one, part.name) for one in found.values()]
        if all(isinstance(value, int) for value in values):
            lines.append(f"{part.name:24}" + "".join(f"{value:>14}" for value in values))
    lines += [f"{store}: not tried: {why}" for store, why in reasons.items()]
    lines += [f"{store}: {wrong}" for store, one in found.items() for wrong in one.wrong[:20]]
    print("\n".join(lines))  # noqa: T201 - a command's answer


if __name__ == "__main__":
    raise SystemExit(main())
