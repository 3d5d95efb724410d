"""What people do at the command line: look at what waits, vote, stop, resume, export."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio.to_thread
from rich.console import Console

from interlock_console.settings import InterlockSettings, local_person, roles_of_user
from interlock_guardrails import changes
from interlock_guardrails.stop import record_stop
from interlock_servers.site import Authority, open_authority
from interlock_tools.canonical import canonical
from interlock_tools.change import Change
from interlock_tools.clock import SystemClock
from interlock_tools.errors import ConflictError

SHOWN_DIGITS = 12
LISTED_CHARS = 600  # of the arguments, in a list


async def show_waiting(console: Console, settings: InterlockSettings) -> int:
    """Print every change that waits, with what a voter must know."""

    async def show(authority: Authority) -> None:
        waiting = await authority.approvals.waiting()
        for change in waiting:
            for line in described(change, LISTED_CHARS):
                console.print(line, markup=False)
        if not waiting:
            console.print("nothing waits for people")

    return await _with_authority(settings, show)


async def show_change(console: Console, settings: InterlockSettings, change_id: str) -> int:
    """Print one change with all its arguments, whatever its state.

    Raises:
        FactoryError: there is no such change.
    """

    async def show(authority: Authority) -> None:
        change = await authority.store.read(lambda connection: changes.get(connection, change_id))
        for line in described(change):
            console.print(line, markup=False, soft_wrap=True)
        console.print(f"  {change.state}", markup=False)

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


def described(change: Change, arguments_chars: int | None = None) -> list[str]:
    """What a voter must know of a change, a line each; None shows its arguments whole.

    Whatever came from an agent or the plant stays on its line: it cannot write another.
    """
    decision, radius = change.decision, change.blast_radius
    arguments = canonical(change.arguments).decode()
    shown = arguments[:arguments_chars]
    if len(shown) < len(arguments):
        shown += f" … {len(arguments)} characters; `interlock approvals show {change.change_id}`"
    lines = [
        f"{change.change_id}  {change.operation} on {change.target}",
        f"  asked by {change.requester.id}: {change.reason}",
        f"  arguments {shown}",
    ]
    if decision is not None:
        lines.append(f"  {decision.sentence()}")
    if radius is not None:
        lines.append(
            f"  reaches {radius.gpus} GPUs, {len(radius.hosts)} hosts, jobs "
            f"{', '.join(sorted(radius.jobs)) or 'none known'}; moves {radius.watts_moved} W, "
            f"{radius.power_rise_w} W of it up"
        )
    bound = (change.binding_digest or "")[:SHOWN_DIGITS]
    lines.append(f"  digest {bound}  until {change.expires_at}")
    return ["".join(each if each.isprintable() else "\ufffd" for each in line) for line in lines]
