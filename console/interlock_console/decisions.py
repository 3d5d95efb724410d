"""What people do at the command line: look at what waits, vote, stop, resume, export."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio.to_thread
from rich.console import Console

from interlock_console.settings import InterlockSettings, local_person, roles_of_user
from interlock_guardrails.stop import record_stop
from interlock_servers.site import Authority, open_authority
from interlock_tools.change import Change
from interlock_tools.clock import SystemClock
from interlock_tools.errors import ConflictError

SHOWN_DIGITS = 12


async def show_waiting(console: Console, settings: InterlockSettings) -> int:
    """Print every change that waits, with what a voter must know."""

    async def show(authority: Authority) -> None:
        waiting = await authority.approvals.waiting()
        for change in waiting:
            _print(console, change)
        if not waiting:
            console.print("nothing waits for people")

    return await _with_authority(settings, show)


async def vote(
    console: Console,
    settings: InterlockSettings,
    change_id: str,
    approve: bool,
    digest: str,
    target: str | None,
) -> int:
    """Vote as the user of this machine, with the roles that the settings give.

    Raises:
        FactoryError: the vote does not count; says why.
    """

    async def cast(authority: Authority) -> None:
        waiting = {change.change_id: change for change in await authority.approvals.waiting()}
        change = waiting.get(change_id)
        if change is None:
            raise ConflictError(f"{change_id} does not wait for people")
        bound = change.binding_digest or ""
        if len(digest) < SHOWN_DIGITS or not bound.startswith(digest):
            raise ConflictError(
                f"{digest!r} is not what would be done; `interlock approvals list` shows it"
            )
        voted = await authority.approvals.vote(
            local_person(roles_of_user(settings)),
            change_id,
            approve=approve,
            shown_digest=bound,
            typed_target=target,
        )
        console.print(voted.sentence(), markup=False)

    return await _with_authority(settings, cast)


async def set_stop(
    console: Console, settings: InterlockSettings, *, stopped: bool, why: str
) -> int:
    """Stop or resume, on every process that shares the store."""

    async def write(authority: Authority) -> None:
        person = local_person(roles_of_user(settings))
        await record_stop(
            authority.store, authority.ledger, SystemClock(), person, stopped=stopped, why=why
        )
        console.print("stopped: nothing new begins" if stopped else "resumed")

    return await _with_authority(settings, write)


async def export(console: Console, settings: InterlockSettings, file: Path) -> int:
    """Write the ledger for an outsider and print the key that verifies it."""

    async def write(authority: Authority) -> None:
        def settle() -> int:
            authority.ledger.flush()
            authority.ledger.checkpoint()
            return authority.ledger.export(file)

        records = await anyio.to_thread.run_sync(settle)
        console.print(f"{records} records in {file}; verify with --key {authority.ledger_key}")

    return await _with_authority(settings, write)


async def _with_authority(
    settings: InterlockSettings, work: Callable[[Authority], Awaitable[None]]
) -> int:
    async with open_authority(settings.for_site(), SystemClock()) as authority:
        await work(authority)
    return 0


def _print(console: Console, change: Change) -> None:
    decision, radius = change.decision, change.blast_radius
    console.print(f"{change.change_id}  {change.operation} on {change.target}", markup=False)
    console.print(f"  asked by {change.requester.id}: {change.reason}", markup=False)
    if decision is not None:
        console.print(f"  {decision.sentence()}", markup=False)
    if radius is not None:
        console.print(
            f"  reaches {radius.gpus} GPUs, {len(radius.hosts)} hosts, jobs "
            f"{', '.join(sorted(radius.jobs)) or 'none known'}; moves {radius.watts_moved} W, "
            f"{radius.power_rise_w} W of it up",
            markup=False,
        )
    console.print(
        f"  digest {(change.binding_digest or '')[:SHOWN_DIGITS]}  until {change.expires_at}"
    )
