"""Running the demo from the command line.

A story is loaded where it is told: a server over stdio, which begins here too, must start at once.
"""

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from rich.console import Console
from rich.text import Text

from interlock_console.demo.account import Account, closing_table
from interlock_console.demo.view import LiveView, changes_table
from interlock_console.settings import local_person
from interlock_evals.personas import Persona, colleagues_approve
from interlock_servers.serving import Served
from interlock_servers.transports.broker import Kind
from interlock_tools.change import Change
from interlock_tools.errors import ConflictError, InvalidRequestError

GRID_CUT_RATE = 4.0  # simulated seconds a second
XID_STORM_RATE = 12.0
RATE_FOR_PEOPLE = 1.0  # when a person at the terminal decides
LOOK_EVERY_S = 0.5


class Story(StrEnum):
    """What happens in the demo."""

    GRID_CUT = "grid-cut"
    XID_STORM = "xid-storm"


async def run_demo(
    console: Console,
    story: Story,
    *,
    approve_myself: bool,
    trace: Path | None,
    report_file: Path | None,
    broker: Kind | None,
) -> int:
    """Run the story, print the accounts, write the report; 1 if a promise was broken.

    Raises:
        InvalidRequestError: a trace for a story that no requests drive.
        FactoryError: it could not be run at all.
    """
    if trace is not None and story is not Story.GRID_CUT:
        raise InvalidRequestError(f"no requests drive {story}; --trace is for {Story.GRID_CUT}")
    tell = _xid_storm if story is Story.XID_STORM else _grid_cut
    with tempfile.TemporaryDirectory(prefix="interlock-demo-") as folder:
        told = await tell(console, Path(folder), approve_myself, trace, broker)
    return _account(console, told, report_file)


async def _grid_cut(
    console: Console, folder: Path, approve_myself: bool, trace: Path | None, broker: Kind | None
) -> Account:
    from interlock_console.demo.grid_cut import GridCutView, account_of
    from interlock_evals.scenarios.grid_cut import TIMES, run_grid_cut

    view = GridCutView(console)
    with view:
        outcome = await run_grid_cut(
            folder,
            rate=RATE_FOR_PEOPLE if approve_myself else GRID_CUT_RATE,
            times=TIMES,
            watch=view.frame,
            tell=view.tell,
            persona=_person_at(console, view) if approve_myself else None,
            trace=trace,
            broker=broker,
        )
    return account_of(outcome)


async def _xid_storm(
    console: Console, folder: Path, approve_myself: bool, _: Path | None, broker: Kind | None
) -> Account:
    from interlock_console.demo.xid_storm import XidStormView, account_of
    from interlock_evals.scenarios.xid_storm import run_xid_storm

    view = XidStormView(console)
    with view:
        outcome = await run_xid_storm(
            folder,
            rate=RATE_FOR_PEOPLE if approve_myself else XID_STORM_RATE,
            watch=view.frame,
            tell=view.tell,
            persona=_person_at(console, view) if approve_myself else None,
            broker=broker,
        )
    return account_of(outcome)


def _account(console: Console, account: Account, report_file: Path | None) -> int:
    account.report.write()
    if report_file is not None:
        report_file.write_text(account.report.as_json(), encoding="utf-8")
    console.print(Text("\nWhat became of each change", style="bold"))
    console.print(changes_table(account.changes))
    console.print(closing_table(account))
    mark = "ledger verified" if account.proof.verified else "ledger NOT verified"
    console.print(f"{mark}: {account.proof.says.removeprefix('verified: ')}", soft_wrap=True)
    return 0 if all(promise.held for promise in account.report.promises.values()) else 1


def _person_at(console: Console, view: LiveView[Any]) -> Persona:
    async def ask(served: Served) -> None:
        await _ask_at_terminal(console, view, served)

    return ask


async def _ask_at_terminal(console: Console, view: LiveView[Any], served: Served) -> None:
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
                    await colleagues_approve(served.site.approvals, change)
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
