"""Running the demo from the command line."""

import tempfile
from pathlib import Path

import anyio
import anyio.to_thread
from rich.console import Console
from rich.text import Text

from interlock_console.demo.accounts import closing_table, report_of
from interlock_console.demo.view import LiveView, changes_table
from interlock_console.settings import local_person
from interlock_evals.personas import colleague_approves
from interlock_evals.scenarios.grid_cut import TIMES, Outcome, run_grid_cut
from interlock_servers.serving import Served
from interlock_servers.transports.broker import Kind
from interlock_tools.change import Change
from interlock_tools.errors import ConflictError

RATE = 4.0  # simulated seconds a second
RATE_FOR_PEOPLE = 1.0  # when a person at the terminal decides
LOOK_EVERY_S = 0.5


async def run_demo(
    console: Console,
    *,
    approve_myself: bool,
    trace: Path | None,
    report_file: Path | None,
    broker: Kind | None,
) -> int:
    """Run the story, print the accounts, write the report; 1 if a promise was broken.

    Raises:
        FactoryError: it could not be run at all.
    """
    view = LiveView(console)

    async def ask(served: Served) -> None:
        await _ask_at_terminal(console, view, served)

    with tempfile.TemporaryDirectory(prefix="interlock-demo-") as folder:
        with view:
            outcome = await run_grid_cut(
                Path(folder),
                rate=RATE_FOR_PEOPLE if approve_myself else RATE,
                times=TIMES,
                watch=view.frame,
                tell=view.tell,
                persona=ask if approve_myself else None,
                trace=trace,
                broker=broker,
            )
        return _account(console, outcome, report_file)


def _account(console: Console, outcome: Outcome, report_file: Path | None) -> int:
    report = report_of(outcome)
    report.write()
    if report_file is not None:
        report_file.write_text(report.as_json(), encoding="utf-8")
    console.print(Text("\nWhat became of each change", style="bold"))
    console.print(changes_table(outcome.changes))
    console.print(closing_table(outcome, report))
    mark = "ledger verified" if outcome.ledger_verified else "ledger NOT verified"
    console.print(f"{mark}: {outcome.ledger_says.removeprefix('verified: ')}", soft_wrap=True)
    return 0 if all(promise.held for promise in report.promises.values()) else 1


async def _ask_at_terminal(console: Console, view: LiveView, served: Served) -> None:
    """Ask the person at the terminal about every change that waits, once each."""
    person = local_person(frozenset({"operator"}))
    asked: set[str] = set()
    while True:
        for change in await served.site.approvals.waiting():
            if change.change_id in asked:
                continue
            asked.add(change.change_id)
            view.pause()
            try:
                approve = await _ask(console, change)
                await served.site.approvals.vote(
                    person,
                    change.change_id,
                    approve=approve,
                    shown_digest=change.binding_digest or "",
                )
                if approve:
                    await colleague_approves(served.site.approvals, change)
            except ConflictError as error:
                console.print(f"[yellow]not counted:[/] {error}")
            finally:
                view.paused = False
        await anyio.sleep(LOOK_EVERY_S)


async def _ask(console: Console, change: Change) -> bool:
    radius = change.blast_radius
    console.rule(f"{change.change_id} waits for you")
    console.print(f"{change.requester.id} asks for {change.operation} on {change.target}")
    console.print(f"because: {change.reason}", markup=False)
    if change.decision is not None:
        console.print(change.decision.sentence(), markup=False)
    if radius is not None:
        console.print(
            f"reaches {radius.gpus} GPUs on {len(radius.hosts)} hosts, {len(radius.jobs)} jobs, "
            f"{len(radius.tenants)} tenants; limits move by {radius.watts_moved / 1e3:.1f} kW, "
            f"{radius.power_rise_w / 1e3:.1f} kW of it up"
        )
    console.print(
        f"bound to {(change.binding_digest or '')[:16]}, until {change.expires_at:%H:%M:%S}"
    )
    answer = await anyio.to_thread.run_sync(
        lambda: console.input("approve? y or N: "), abandon_on_cancel=True
    )
    return answer.strip().lower() in {"y", "yes"}
