"""What a demo promised and what came of it, as a person reads it."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rich.table import Table

from interlock_evals.reports import Report
from interlock_evals.scenarios.proving import Proof
from interlock_tools.change import Change

VERSIONS_OF = ("interlock-dsx", "mcp", "paho-mqtt", "grpcio", "cedarpy", "sqlalchemy", "numpy")


class Account(NamedTuple):
    """A story that was told.

    Attributes:
        report: its figures and promises.
        words: what to call each promise, and whether its limit is the most or the least.
        more: further rows: what, how much, and a remark.
    """

    changes: tuple[Change, ...]
    report: Report
    words: Mapping[str, tuple[str, str]]
    more: Iterable[tuple[str, str, str]]
    proof: Proof


def closing_table(account: Account) -> Table:
    """The promises, one a row, and what else a reader would ask."""
    table = Table(title="What was promised, and what came of it", show_lines=False)
    for name in ("promise", "came to", "limit", ""):
        table.add_column(name)
    for key, promise in account.report.promises.items():
        text, bound = account.words[key]
        value = "not reached" if promise.value is None else f"{promise.value:g} {promise.unit}"
        if promise.unit == "":
            value = "yes" if promise.held else "no"
        mark = "[green]held[/]" if promise.held else f"[red]broken[/]: {promise.why_not}"
        table.add_row(text, value, f"{bound} {promise.limit:g} {promise.unit}", mark)
    table.add_section()
    for what, how_much, remark in account.more:
        table.add_row(what, how_much, "", remark)
    proof = account.proof
    table.add_row("ledger", f"{proof.size} records", "", f"root {proof.root}")
    return table
