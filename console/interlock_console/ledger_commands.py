"""What people do to the ledger at the command line: keys, proofs, exports, backups."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread
from rich.console import Console
from sqlalchemy import Engine

from interlock_console.settings import InterlockSettings, local_person, roles_of_user
from interlock_guardrails import backup
from interlock_guardrails.engine import STORE_FILE, create_store_engine, store_address
from interlock_guardrails.ledger.keys import keyring_of, rotate_key
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.proofs import prove_growth, prove_record
from interlock_guardrails.ledger.verify import BadNoteError, parse_key, read_notes
from interlock_guardrails.migrations import migrate
from interlock_servers.checkpoint_sink import (
    KEY_FILE,
    SinkSettings,
    checkpoint_sinks,
    open_ledger,
)
from interlock_tools.clock import SystemClock
from interlock_tools.errors import InvalidRequestError

NO_SINKS = SinkSettings()


class Opened(NamedTuple):
    """The store and the log in it."""

    engine: Engine
    ledger: Ledger


async def rotate(
    console: Console, settings: InterlockSettings, sinks: SinkSettings = NO_SINKS
) -> int:
    """Change the key of the ledger; running servers take it up by themselves."""
    async with _open(settings, sinks) as (_, ledger):
        new = await anyio.to_thread.run_sync(
            rotate_key, ledger, ledger.origin, settings.data_dir / KEY_FILE, _user(settings)
        )
        console.print(f"the ledger is signed by another key from now on: {new.vkey}", markup=False)
        console.print(f"give verifiers {keyring_of(settings.data_dir / KEY_FILE)}", markup=False)
    return 0


async def show_keys(console: Console, settings: InterlockSettings) -> int:
    """Print the public keys of the ledger, oldest first."""
    keyring = keyring_of(settings.data_dir / KEY_FILE)
    if not keyring.exists():
        raise InvalidRequestError(f"{keyring} is not there: this site has not begun a ledger")
    console.print(keyring.read_text("utf-8"), end="", markup=False, soft_wrap=True)
    return 0


async def prove(
    console: Console,
    settings: InterlockSettings,
    seq: int,
    proof_file: Path,
    sinks: SinkSettings = NO_SINKS,
) -> int:
    """Write a proof that one record is in the signed log.

    Raises:
        InvalidRequestError: there is no such record.
    """
    async with _open(settings, sinks) as (_, ledger):
        proof = await anyio.to_thread.run_sync(prove_record, ledger, seq)
        _write_json(proof_file, proof)
        keyring = keyring_of(settings.data_dir / KEY_FILE)
        console.print(
            f"record {seq} is in {proof_file}; verify with --proof {proof_file} --key {keyring}",
            markup=False,
        )
    return 0


async def prove_since(
    console: Console,
    settings: InterlockSettings,
    kept: Path,
    proof_file: Path,
    sinks: SinkSettings = NO_SINKS,
) -> int:
    """Write a proof that the log continues the newest checkpoint in a file that somebody kept.

    Raises:
        InvalidRequestError: the file holds no checkpoint of this log.
        ConflictError: the log is shorter than what was signed.
    """
    note = await anyio.to_thread.run_sync(_newest_note, kept)
    async with _open(settings, sinks) as (_, ledger):
        _write_json(proof_file, await anyio.to_thread.run_sync(prove_growth, ledger, note))
        console.print(f"the proof is in {proof_file}", markup=False)
    return 0


async def export_ocsf(
    console: Console, settings: InterlockSettings, file: Path, sinks: SinkSettings = NO_SINKS
) -> int:
    """Write every record as an OCSF event."""
    async with _open(settings, sinks) as (_, ledger):
        records = await anyio.to_thread.run_sync(ledger.export_ocsf, file)
        console.print(f"{records} events in {file}", markup=False)
    return 0


async def back_up(
    console: Console, settings: InterlockSettings, file: Path, sinks: SinkSettings = NO_SINKS
) -> int:
    """Back up the store while it runs, verify the copy and sign its manifest."""
    async with _open(settings, sinks) as (engine, ledger):
        act = partial(backup.back_up, engine, ledger, SystemClock(), file)
        manifest = await anyio.to_thread.run_sync(act)
        console.print(
            f"{manifest.size} records and everything else in {file}; its manifest is "
            f"{backup.manifest_of(file)}. Keep {KEY_FILE} elsewhere, it is not in there",
            markup=False,
        )
    return 0


async def restore(
    console: Console,
    settings: InterlockSettings,
    file: Path,
    *,
    accept_older: bool = False,
    sinks: SinkSettings = NO_SINKS,
) -> int:
    """Restore a backup where no store is any more; a person may accept an older one.

    Raises:
        ConflictError: a store is there, or the backup is not the newest state that was published,
            was altered or does not verify; nothing was restored.
    """
    data_dir, keyring = settings.data_dir, keyring_of(settings.data_dir / KEY_FILE)
    if not keyring.exists():
        raise InvalidRequestError(f"{keyring} is not there: put the public keys of the log there")
    keys = [parse_key(line) for line in keyring.read_text("utf-8").split()]
    places = checkpoint_sinks(
        sinks, site_id=settings.site.site_id, data_dir=data_dir, clock=SystemClock()
    )
    async with places as opened:
        act = partial(
            backup.restore,
            file,
            data_dir / STORE_FILE,
            keys,
            sinks=opened,
            accept_older=accept_older,
        )
        manifest = await anyio.to_thread.run_sync(act)
    if accept_older:  # on record at once, and published, so that the next start finds them agree
        async with _open(settings, sinks, overruled_by=_user(settings)):
            pass
    console.print(f"{manifest.size} records restored, as of {manifest.taken_at}", markup=False)
    return 0


async def overrule(
    console: Console, settings: InterlockSettings, sinks: SinkSettings = NO_SINKS
) -> int:
    """Say that this store is the right one, whatever was published; that goes on record.

    Also where the key of the log is lost: a new one takes its place.
    """
    async with _open(settings, sinks, overruled_by=_user(settings)) as (_, ledger):
        size, _root = ledger.size_and_root()
        console.print(f"the ledger goes on from {size} records; this is on record", markup=False)
    return 0


@asynccontextmanager
async def _open(
    settings: InterlockSettings, sinks: SinkSettings, *, overruled_by: str | None = None
) -> AsyncIterator[Opened]:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    engine = create_store_engine(
        store_address(settings.data_dir, settings.store_url, settings.store_url_env)
    )
    try:
        migrate(engine)
        opening = open_ledger(
            engine,
            sinks,
            site_id=settings.site.site_id,
            data_dir=settings.data_dir,
            clock=SystemClock(),
            overruled_by=overruled_by,
        )
        async with opening as ledger:
            yield Opened(engine, ledger)
    finally:
        engine.dispose()


def _user(settings: InterlockSettings) -> str:
    return local_person(roles_of_user(settings)).id


def _newest_note(kept: Path) -> str:
    try:
        notes = list(read_notes(kept.read_bytes()))
    except (OSError, BadNoteError) as error:
        raise InvalidRequestError(f"{kept}: holds no checkpoints: {error}") from error
    if not notes:
        raise InvalidRequestError(f"{kept}: is empty")
    return notes[-1]


def _write_json(path: Path, document: dict[str, object]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
