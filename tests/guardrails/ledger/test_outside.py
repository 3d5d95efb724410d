"""A store goes on only if it continues what was published of it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from interlock_guardrails.engine import create_store_engine
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.sinks import FileSink
from interlock_tools.clock import ManualClock
from interlock_tools.errors import ConflictError

Reopen = Callable[..., Ledger]


@pytest.fixture
def sink(tmp_path: Path) -> FileSink:
    """A file that is kept elsewhere."""
    return FileSink(tmp_path / "kept.jsonl")


@pytest.fixture
def reopen(store: Engine, signer: Signer, clock: ManualClock, sink: FileSink) -> Iterator[Reopen]:
    """Closes the ledger that is open and opens the store, or a copy of it, again."""
    opened: list[Ledger] = []

    def open_again(engine: Engine = store, **more: object) -> Ledger:
        while opened:
            opened.pop().close()
        settings = {"sinks": [sink], "checkpoint_after_s": float("inf")} | more
        ledger = Ledger(engine, signer, origin="example.com/ledger", clock=clock, **settings)  # type: ignore[arg-type]
        opened.append(ledger)
        return ledger

    yield open_again
    while opened:
        opened.pop().close()


def write(ledger: Ledger, count: int, word: str = "n") -> None:
    """So many records, under a checkpoint that is published."""
    for number in range(count):
        ledger.append_read(RecordKind.READ, {word: number})
    ledger.flush()
    ledger.checkpoint()


def copy_of(store: Engine, path: Path) -> Engine:
    """A store as it is now, kept for later."""
    with store.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.exec_driver_sql("BEGIN")
    shutil.copy(str(store.url.database), path)
    return create_store_engine(f"sqlite:///{path}")


def test_a_store_that_grew_goes_on(reopen: Reopen) -> None:
    """Whether it has more records than were published, or as many."""
    write(reopen(), 5)
    ledger = reopen()
    assert ledger.size_and_root()[0] == 5
    ledger.append_read(RecordKind.READ, {})
    ledger.flush()
    assert reopen().size_and_root()[0] == 6


def test_a_store_that_was_rolled_back_does_not_go_on(
    store: Engine, reopen: Reopen, tmp_path: Path
) -> None:
    """A backup put in its place would act on what was taken back since."""
    write(reopen(), 3)
    old = copy_of(store, tmp_path / "old.db")
    write(reopen(), 4)
    with pytest.raises(ConflictError, match=r"kept\.jsonl: the store is older: it has 3 records, "):
        reopen(old)
    with old.connect() as connection:
        assert connection.scalar(text("SELECT size FROM ledger_head")) == 3  # nothing was written
    old.dispose()


def test_a_store_that_went_another_way_does_not_go_on(
    store: Engine, reopen: Reopen, tmp_path: Path
) -> None:
    """Longer than what was published and still not its continuation."""
    write(reopen(), 3)
    old = copy_of(store, tmp_path / "old.db")
    write(reopen(), 2)
    write(reopen(old, sinks=[]), 4, word="other")
    with pytest.raises(ConflictError, match=r"first 5 records .* not those that were signed"):
        reopen(old)
    old.dispose()


def test_a_person_may_say_that_the_store_is_right_and_that_is_on_record(
    store: Engine, reopen: Reopen, sink: FileSink, tmp_path: Path
) -> None:
    """Once: from then on the outside place holds what the store says."""
    write(reopen(), 3)
    old = copy_of(store, tmp_path / "old.db")
    write(reopen(), 4)
    ledger = reopen(old, overruled_by="person:operator")
    (record,) = ledger.read(first=3)
    assert record["kind"] == "config_changed"
    assert record["body"]["by"] == "person:operator"
    assert "the store is older" in record["body"]["why"]
    assert reopen(old).verify_self().ok
    assert len(sink.kept()) == 1
    old.dispose()


@pytest.mark.parametrize("kept", ["garbage", "a\n1\nAAAA\n\n\u2014 a AAAAAAAA\n", "{}"])
def test_what_is_no_checkpoint_of_ours_stops_the_start(
    reopen: Reopen, tmp_path: Path, kept: str
) -> None:
    """Somebody wrote there who should not; a person has to look."""
    write(reopen(), 1)
    (tmp_path / "kept.jsonl").write_text(kept + "\n", "utf-8")
    with pytest.raises(ConflictError, match="no checkpoint of ours"):
        reopen()


def test_a_checkpoint_of_another_log_stops_the_start(
    reopen: Reopen, sink: FileSink, signer: Signer
) -> None:
    """Two sites that share a place by mistake must notice."""
    sink.publish(signer.sign_checkpoint("example.com/other", 1, bytes(32)))
    with pytest.raises(ConflictError, match=r"example\.com/other"):
        reopen()


def test_a_place_that_cannot_be_read_is_on_record_and_stops_nothing(
    reopen: Reopen, tmp_path: Path
) -> None:
    """A broker that is down must not keep a site from its work."""
    (tmp_path / "folder").mkdir()
    ledger = reopen(sinks=[FileSink(tmp_path / "folder")])
    (record,) = ledger.read()
    assert (record["kind"], record["body"]["read"]) == ("checkpoint", False)
    assert record["body"]["sink"] == "file folder"
