"""A backup is of one moment, verifies before it is trusted, and never passes for a newer one."""

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from interlock_guardrails.backup import (
    back_up,
    check_restored,
    describe,
    manifest_of,
    read_manifest,
    restore,
)
from interlock_guardrails.engine import create_store_engine, create_tables
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.sinks import FileSink
from interlock_guardrails.ledger.verify import VerifyKey, parse_key
from interlock_tools.clock import ManualClock
from interlock_tools.errors import ConflictError, InvalidRequestError

ORIGIN = "example.com/ledger"


@pytest.fixture
def clock() -> ManualClock:
    """A clock that only a test moves."""
    return ManualClock(datetime(2026, 3, 1, 12, tzinfo=UTC))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Engine]:
    """An empty store with its tables."""
    engine = create_store_engine(f"sqlite:///{tmp_path / 'store.db'}")
    create_tables(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def signer() -> Signer:
    """The key of the log."""
    return Signer.generate(ORIGIN)


@pytest.fixture
def keys(signer: Signer) -> list[VerifyKey]:
    """What whoever restores knows of the log."""
    return [parse_key(signer.vkey)]


@pytest.fixture
def sink(tmp_path: Path) -> FileSink:
    """A file that is kept elsewhere."""
    return FileSink(tmp_path / "kept.jsonl")


@pytest.fixture
def ledger(store: Engine, signer: Signer, clock: ManualClock, sink: FileSink) -> Iterator[Ledger]:
    """A ledger with ten records that signs only when it is asked."""
    settings = {"sinks": [sink], "checkpoint_every": 10**9, "checkpoint_after_s": float("inf")}
    with Ledger(store, signer, origin=ORIGIN, clock=clock, **settings) as opened:  # type: ignore[arg-type]
        write(opened, 10)
        yield opened


@pytest.fixture
def backup(store: Engine, ledger: Ledger, clock: ManualClock, tmp_path: Path) -> Path:
    """A backup of those ten records."""
    path = tmp_path / "backup.db"
    back_up(store, ledger, clock, path)
    return path


def write(ledger: Ledger, count: int) -> None:
    """So many records, on the disk."""
    for number in range(count):
        ledger.append_read(RecordKind.READ, {"n": number})
    ledger.flush()


def lost(engine: Engine) -> Path:
    """The path of a store after its disk was lost."""
    path = Path(str(engine.url.database))
    engine.dispose()
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    return path


def resigned(path: Path, ledger: Ledger) -> None:
    """Sign a manifest for a file anew, as whoever has the key could."""
    manifest_of(path).unlink()
    clock = ManualClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    describe(ledger, clock, path, ledger.newest_checkpoint() or "")


def test_a_backup_taken_while_others_write_is_of_one_moment(
    store: Engine, ledger: Ledger, clock: ManualClock, keys: list[VerifyKey], tmp_path: Path
) -> None:
    """Whatever that moment is: rows, tree and manifest agree, and nobody had to wait."""
    enough, done = threading.Event(), threading.Event()

    def write_on() -> None:
        for number in range(5_000):
            with store.begin() as connection:
                ledger.append(connection, RecordKind.INTENT, {"n": number})
            if number == 20:
                enough.set()
            if done.is_set() and number > 100:
                break

    writers = [threading.Thread(target=write_on) for _ in range(3)]
    for writer in writers:
        writer.start()
    assert enough.wait(timeout=60)
    manifests = [back_up(store, ledger, clock, tmp_path / f"{n}.db") for n in range(3)]
    done.set()
    for writer in writers:
        writer.join(timeout=60)
    assert ledger.size_and_root()[0] > manifests[-1].size > 10
    for number, manifest in enumerate(manifests):
        where = tmp_path / f"restored-{number}.db"
        assert restore(tmp_path / f"{number}.db", where, keys) == manifest
        engine = create_store_engine(f"sqlite:///{where}")
        assert check_restored(engine, manifest, keys).records == manifest.size
        engine.dispose()


def test_a_backup_is_one_private_file_and_a_manifest(backup: Path, signer: Signer) -> None:
    """It holds votes and names: only its owner may read it."""
    assert backup.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in backup.parent.glob("backup*")} == {
        "backup.db",
        "backup.db.manifest",
    }
    manifest = read_manifest(backup, [parse_key(signer.vkey)])
    assert (manifest.origin, manifest.size) == (ORIGIN, 10)
    assert manifest.vkeys == (signer.vkey,)
    assert manifest.taken_at == "2026-03-01T12:00:00.000+00:00"


def test_what_is_restored_goes_on(
    store: Engine,
    ledger: Ledger,
    backup: Path,
    keys: list[VerifyKey],
    sink: FileSink,
    signer: Signer,
    clock: ManualClock,
) -> None:
    """The newest state that was published came back: nobody has to be asked."""
    path = lost(store)
    restore(backup, path, keys, sinks=[sink])
    engine = create_store_engine(f"sqlite:///{path}")
    create_tables(engine)
    with Ledger(engine, signer, origin=ORIGIN, clock=clock, sinks=[sink]) as again:
        assert [record["body"]["n"] for record in again.read()] == list(range(10))
        write(again, 1)
        again.checkpoint()
        assert again.verify_self().ok
    engine.dispose()


def test_an_old_backup_is_named_and_needs_a_person(
    store: Engine, ledger: Ledger, backup: Path, keys: list[VerifyKey], sink: FileSink
) -> None:
    """What happened since would be forgotten, and could be done a second time."""
    write(ledger, 5)
    ledger.checkpoint()
    path = lost(store)
    with pytest.raises(ConflictError, match="it has 10 records, and 15 were signed"):
        restore(backup, path, keys, sinks=[sink])
    assert not path.exists()
    assert restore(backup, path, keys, sinks=[sink], accept_older=True).size == 10


@pytest.mark.parametrize("place", [100, 5_000, -1])
def test_an_altered_backup_is_refused(
    store: Engine, backup: Path, keys: list[VerifyKey], place: int
) -> None:
    """A single byte, anywhere: also where no record is, as in votes and locks."""
    content = bytearray(backup.read_bytes())
    content[place] ^= 1
    backup.write_bytes(content)
    path = lost(store)
    with pytest.raises(ConflictError, match="it was altered"):
        restore(backup, path, keys)
    assert not path.exists()


def test_a_record_altered_by_whoever_can_sign_manifests_is_refused(
    store: Engine, ledger: Ledger, backup: Path, keys: list[VerifyKey]
) -> None:
    """The manifest fits the file, and the log in it still does not verify."""
    with sqlite3.connect(backup) as connection:
        connection.execute(
            "UPDATE ledger_record SET canonical = replace(canonical, '\"n\":4', '\"n\":5')"
        )
    connection.close()
    resigned(backup, ledger)
    with pytest.raises(ConflictError, match="does not verify: record 4 is corrupted"):
        restore(backup, lost(store), keys)


def test_a_file_that_is_no_database_is_refused(
    store: Engine, ledger: Ledger, backup: Path, keys: list[VerifyKey]
) -> None:
    """In one sentence, as everything that is not what it should be."""
    backup.write_bytes(b"nothing of the kind" * 1000)
    resigned(backup, ledger)
    with pytest.raises(ConflictError, match="cannot be read: file is not a database"):
        restore(backup, lost(store), keys)


def test_a_log_cut_short_by_whoever_can_sign_manifests_is_refused(
    store: Engine, ledger: Ledger, backup: Path, keys: list[VerifyKey]
) -> None:
    """The tail is gone together with the checkpoint, and the head was not changed."""
    with sqlite3.connect(backup) as connection:
        connection.execute("DELETE FROM ledger_record WHERE seq >= 5")
    connection.close()
    resigned(backup, ledger)
    with pytest.raises(ConflictError, match="truncated"):
        restore(backup, lost(store), keys)


def test_a_manifest_of_another_key_or_of_another_file_is_refused(
    store: Engine, backup: Path, ledger: Ledger, keys: list[VerifyKey], tmp_path: Path
) -> None:
    """Nothing of a backup is believed without the key of the log."""
    path = lost(store)
    with pytest.raises(ConflictError, match="no key that we were given"):
        restore(backup, path, [parse_key(Signer.generate(ORIGIN).vkey)])
    other = tmp_path / "other.db"
    shutil.copy(backup, other)
    with pytest.raises(ConflictError, match="has no manifest"):
        restore(other, path, keys)
    manifest_of(other).write_text("nonsense")
    with pytest.raises(ConflictError, match=r"manifest of other\.db is bad"):
        restore(other, path, keys)
    manifest_of(other).write_text(ledger.sign("[]\n"))
    with pytest.raises(ConflictError, match=r"manifest of other\.db is bad"):
        restore(other, path, keys)


@pytest.mark.parametrize("end", ["", "-wal", "-journal"])
def test_nothing_is_restored_over_what_is_there(
    backup: Path, keys: list[VerifyKey], tmp_path: Path, end: str
) -> None:
    """It may be evidence; and what SQLite left beside a store would be replayed into the next."""
    there = tmp_path / f"new.db{end}"
    there.write_bytes(b"evidence")
    with pytest.raises(ConflictError, match="move it away"):
        restore(backup, tmp_path / "new.db", keys)
    assert there.read_bytes() == b"evidence"


def test_a_backup_overwrites_none(
    store: Engine, ledger: Ledger, clock: ManualClock, backup: Path
) -> None:
    """The last good one must outlive a bad store."""
    before = backup.read_bytes()
    with pytest.raises(InvalidRequestError, match="never overwritten"):
        back_up(store, ledger, clock, backup)
    assert backup.read_bytes() == before


def test_a_store_that_does_not_verify_is_not_backed_up(
    store: Engine, ledger: Ledger, clock: ManualClock, tmp_path: Path
) -> None:
    """That it was copied without complaint must not make it good."""
    with store.begin() as connection:
        connection.execute(text("UPDATE ledger_record SET leaf_hash = canonical WHERE seq = 3"))
    with pytest.raises(ConflictError, match="does not verify"):
        back_up(store, ledger, clock, tmp_path / "bad.db")
    assert not list(tmp_path.glob("bad*"))


def test_a_dump_by_other_tools_is_checked_against_its_manifest(
    store: Engine, ledger: Ledger, clock: ManualClock, keys: list[VerifyKey], tmp_path: Path
) -> None:
    """As for PostgreSQL: a checkpoint, the dump, its manifest; then what came back."""
    before = ledger.checkpoint()
    write(ledger, 2)  # while the dump runs
    ledger.checkpoint()
    dump = tmp_path / "dump"
    dump.write_bytes(b"whatever the tool wrote")
    manifest = describe(ledger, clock, dump, before)
    assert read_manifest(dump, keys) == manifest
    assert check_restored(store, manifest, keys).records == 12
    empty = create_store_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    create_tables(empty)
    with Ledger(empty, ledger_key := Signer.generate(ORIGIN), origin=ORIGIN, clock=clock) as other:
        other.checkpoint()
    both = [*keys, parse_key(ledger_key.vkey)]
    with pytest.raises(ConflictError, match="not what was backed up: the store is older"):
        check_restored(empty, manifest, both)
    empty.dispose()
    with pytest.raises(InvalidRequestError, match="no checkpoint of the log"):
        describe(ledger, clock, dump, "nonsense")
