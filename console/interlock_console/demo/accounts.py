"""What the demo promised and what came of it: the closing table, the report, the exit status."""

from rich.table import Table

from interlock_evals.reports import Figure, Promise, Report
from interlock_evals.scenarios.grid_cut import Outcome

REACH_WITHIN_S = 60.0
VERSIONS_OF = ("interlock-dsx", "mcp", "paho-mqtt", "grpcio", "cedarpy", "sqlalchemy", "numpy")


def report_of(outcome: Outcome) -> Report:
    """The run as a report: figures, and promises held or not."""
    states = outcome.by_state
    figures = {
        "target_w": Figure(outcome.target_w, "W"),
        "before_w": Figure(round(outcome.before_w), "W"),
        "work_kept_pct": Figure(round(100 * outcome.work_kept, 1), "%"),
        "ledger_records": Figure(outcome.ledger_size, ""),
    }
    reached = (
        Promise.unmeasured(REACH_WITHIN_S, "s", "the meter never went to the target and stayed")
        if outcome.reached_s is None
        else Promise.at_most(round(outcome.reached_s, 1), REACH_WITHIN_S, "s")
    )
    promises = {
        "target_reached_s": reached,
        "slo_floor_breaks": Promise.at_most(len(outcome.floor_breaks), 0, "jobs"),
        "budget_violations": Promise.at_most(sum(outcome.over_budget_s.values()), 0, "s"),
        "ledger_verified": Promise.at_least(
            int(outcome.ledger_verified), 1, "", outcome.ledger_says
        ),
        "changes_succeeded": Promise.at_least(states["succeeded"], 2, "changes"),
        "changes_refused": Promise.at_least(states["refused"], 1, "changes"),
        "changes_expired": Promise.at_least(states["expired"], 1, "changes"),
    }
    return Report.of("demo", figures, promises, VERSIONS_OF)


def closing_table(outcome: Outcome, report: Report) -> Table:
    """The promises, one a row, and what else a reader would ask."""
    table = Table(title="What was promised, and what came of it", show_lines=False)
    for name in ("promise", "came to", "limit", ""):
        table.add_column(name)
    words = {
        "target_reached_s": ("time to the target", "at most"),
        "slo_floor_breaks": ("serving floors broken", "at most"),
        "budget_violations": ("seconds above a budget", "at most"),
        "ledger_verified": ("ledger verified from outside", "at least"),
        "changes_succeeded": ("changes that succeeded", "at least"),
        "changes_refused": ("changes refused by policy", "at least"),
        "changes_expired": ("changes nobody approved", "at least"),
    }
    for key, promise in report.promises.items():
        text, bound = words[key]
        value = "not reached" if promise.value is None else f"{promise.value:g} {promise.unit}"
        if key == "ledger_verified":
            value = "yes" if promise.held else "no"
        mark = "[green]held[/]" if promise.held else f"[red]broken[/]: {promise.why_not}"
        table.add_row(text, value, f"{bound} {promise.limit:g} {promise.unit}", mark)
    table.add_section()
    table.add_row("site power", f"{outcome.before_w / 1e3:.1f} kW", "", "before the cut")
    table.add_row("target", f"{outcome.target_w / 1e3:.1f} kW", "", "at the site's meter")
    table.add_row("work kept", f"{100 * outcome.work_kept:.1f} %", "", "from notice to end")
    table.add_row("broker", outcome.broker, "", "MQTT 3.1.1, real")
    table.add_row("ledger", f"{outcome.ledger_size} records", "", f"root {outcome.ledger_root}")
    return table
