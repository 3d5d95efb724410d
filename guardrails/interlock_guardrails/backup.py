"""Backups of the store and the ledger in it, each with a signed manifest; and restoring one.

SQLite is copied by its online backup, of one moment, while others write. PostgreSQL has its own
tools: take a checkpoint, run `pg_dump --format=custom --file=FILE`, then `describe` the file with
that checkpoint; after `pg_restore` into an empty database, `check_restored` says whether what came
back is what was signed. A backup holds no private key: keep those elsewhere.
"""

import base64
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError

from interlock_guardrails.engine import read_only
from interlock_guardrails.ledger import rows
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.outside import compare, contradiction
from interlock_guardrails.ledger.sinks import Sink
from interlock_guardrails.ledger.verify import (
    BadNoteError,
    Verification,
    VerifyKey,
    open_note,
    parse_checkpoint,
    parse_key,
    verify_lines,
)
from interlock_tools.canonical import canonical
from interlock_tools.clock import Clock
from interlock_tools.errors import ConflictError, InvalidRequestError

SIDE_FILES = ("-wal", "-shm", "-journal")  # of a SQLite database; SQLite would replay them


class Manifest(NamedTuple):
    """What a backup holds, signed by the key of the log.

    `size` and `root` are those of the log in the backup; of a PostgreSQL dump, those of the
    checkpoint taken before it, which the log in the dump continues.
    """

    origin: str
    size: int
    root: bytes
    checkpoint: str
    vkeys: tuple[str, ...]
    sha256: str
    size_bytes: int
    taken_at: str


def manifest_of(backup: Path) -> Path:
    """Where the manifest of a backup is: beside it."""
    return backup.with_name(f"{backup.name}.manifest")


def back_up(engine: Engine, ledger: Ledger, clock: Clock, backup: Path) -> Manifest:
    """Copy a SQLite store as it is at one moment, verify the copy, and describe it.

    Raises:
        InvalidRequestError: the store is no SQLite file, or there is such a file already.
        ConflictError: the log in the store does not verify; nothing is left behind.
    """
    if engine.dialect.name != "sqlite":
        raise InvalidRequestError("PostgreSQL is backed up with pg_dump; then describe the file")
    if backup.exists() or manifest_of(backup).exists():
        raise InvalidRequestError(f"{backup.name} is there already; a backup is never overwritten")
    note = ledger.checkpoint()
    draft = backup.with_name(f"{backup.name}.draft")
    try:
        _copy_online(engine, draft)
        keys = [parse_key(vkey) for vkey in ledger.vkeys]
        with _opened(draft) as connection:
            _verified(connection, keys, ledger.origin)
            tree = rows.tree_of(connection)
        draft.rename(backup)
    finally:
        draft.unlink(missing_ok=True)
    return _sign(ledger, clock, backup, note, tree.size, tree.root())


def describe(ledger: Ledger, clock: Clock, dump: Path, checkpoint: str) -> Manifest:
    """Sign the manifest of a dump that was begun after this checkpoint of the ledger.

    Raises:
        InvalidRequestError: it is no checkpoint of this log.
    """
    try:
        keys = [parse_key(vkey) for vkey in ledger.vkeys]
        covered = parse_checkpoint(open_note(checkpoint, keys))
    except BadNoteError as error:
        raise InvalidRequestError(f"this is no checkpoint of the log: {error}") from error
    return _sign(ledger, clock, dump, checkpoint, covered.size, covered.root)


def read_manifest(backup: Path, keys: Sequence[VerifyKey]) -> Manifest:
    """The manifest of a backup, once it is known to be signed and to belong to this file.

    Raises:
        ConflictError: it is not there, not signed by one of the keys, or of another file.
    """
    try:
        document = json.loads(open_note(manifest_of(backup).read_text("utf-8"), keys))
        manifest = Manifest(
            **document
            | {"root": base64.b64decode(document["root"]), "vkeys": tuple(document["vkeys"])}
        )
    except FileNotFoundError:
        raise ConflictError(f"{backup.name} has no manifest: nothing says what it is") from None
    except (BadNoteError, ValueError, KeyError, TypeError) as error:
        raise ConflictError(f"the manifest of {backup.name} is bad: {error}") from None
    if (backup.stat().st_size, _sha256(backup)) != (manifest.size_bytes, manifest.sha256):
        raise ConflictError(f"{backup.name} is not the file that was signed: it was altered")
    return manifest


def restore(
    backup: Path,
    store: Path,
    keys: Sequence[VerifyKey],
    *,
    sinks: Iterable[Sink] = (),
    accept_older: bool = False,
) -> Manifest:
    """Put a backup of SQLite in the place of a store that is not there any more.

    Args:
        backup: what `back_up` wrote, its manifest beside it.
        store: where the store is to be; nothing may be there.
        keys: the public keys of the log.
        sinks: the outside places; their newest checkpoints must not be newer than the backup.
        accept_older: a person accepts that what came after the backup is lost.

    Raises:
        ConflictError: something is there; or the backup was altered, does not verify, or is older
            than what was published. Nothing was restored.
    """
    for path in (store, *(store.with_name(store.name + end) for end in SIDE_FILES)):
        if path.exists():
            raise ConflictError(f"{path.name} is there: move it away, it may be evidence")
    manifest = read_manifest(backup, keys)
    draft = store.with_name(f"{store.name}.draft")
    try:
        with backup.open("rb") as source, _private_file(draft) as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        if _sha256(draft) != manifest.sha256:
            raise ConflictError(f"{backup.name} changed while it was read")
        with _opened(draft) as connection:
            _verified(connection, keys, manifest.origin)
            tree = rows.tree_of(connection)
            if (tree.size, tree.root()) != (manifest.size, manifest.root):
                raise ConflictError(f"{backup.name} does not hold the log that its manifest names")
            found = compare(connection, sinks, keys, manifest.origin).contradictions
        if found and not accept_older:
            raise ConflictError(f"{backup.name} is not the newest: {'; '.join(found)}")
        os.link(draft, store)  # fails where something came to be meanwhile
    except FileExistsError:
        raise ConflictError(f"{store.name} is there: move it away, it may be evidence") from None
    finally:
        draft.unlink(missing_ok=True)
    return manifest


def check_restored(engine: Engine, manifest: Manifest, keys: Sequence[VerifyKey]) -> Verification:
    """Verify a store that other tools restored, and that it continues what its manifest names.

    Raises:
        ConflictError: it does not.
    """
    with read_only(engine).connect() as connection:
        result = _verified(connection, keys, manifest.origin)
        wrong = contradiction(connection, manifest.checkpoint, keys, manifest.origin)
    if wrong is not None:
        raise ConflictError(f"what was restored is not what was backed up: {wrong}")
    return result


def _copy_online(engine: Engine, copy: Path) -> None:
    """One step: in WAL mode it holds up no writer, and no writer makes it begin again."""
    with _private_file(copy):
        pass
    pooled = engine.raw_connection()
    try:
        source = pooled.driver_connection
        if not isinstance(source, sqlite3.Connection):
            raise InvalidRequestError("the driver of this store has no online backup")
        with closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
    finally:
        pooled.close()
    descriptor = os.open(copy, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[Connection]:
    """A SQLite file that nobody else has, to read and to leave exactly as it is."""
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(address, uri=True))
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _verified(connection: Connection, keys: Sequence[VerifyKey], origin: str) -> Verification:
    try:
        result = verify_lines(rows.export_lines(connection), keys, origin=origin)
    except DBAPIError as error:
        raise ConflictError(f"the log cannot be read: {error.orig}") from error
    if not result.ok:
        raise ConflictError(f"the log does not verify: {result.sentence}")
    tree = rows.tree_of(connection)
    if (tree.size, tree.root()) != (result.records, result.root):
        raise ConflictError("the log does not verify: the head of the tree is not that of its rows")
    return result


def _sign(
    ledger: Ledger, clock: Clock, backup: Path, checkpoint: str, size: int, root: bytes
) -> Manifest:
    manifest = Manifest(
        ledger.origin,
        size,
        root,
        checkpoint,
        ledger.vkeys,
        _sha256(backup),
        backup.stat().st_size,
        clock.now().isoformat(timespec="milliseconds"),
    )
    document = manifest._asdict() | {
        "root": base64.b64encode(root).decode(),
        "vkeys": list(manifest.vkeys),
    }
    with manifest_of(backup).open("x", encoding="utf-8") as file:
        file.write(ledger.sign(canonical(document).decode() + "\n"))
        file.flush()
        os.fsync(file.fileno())
    return manifest


def _private_file(path: Path) -> BinaryIO:
    """A new file that only its owner may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
