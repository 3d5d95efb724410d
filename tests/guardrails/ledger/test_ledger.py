"""The log in the store has no gap, shares the fate of its transaction, and proves what it says."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, select, text, update

from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.tables import head, records
from interlock_guardrails.ledger.verify import (
    Checkpoint,
    consistency_holds,
    inclusion_holds,
    leaf_hash,
    open_note,
    parse_checkpoint,
    parse_key,
)
from interlock_tools.clock import ManualClock
from interlock_tools.errors import ConflictError, InvalidRequestError

Write = Callable[[int], None]
OpenLedger = Callable[..., Ledger]

CRASH = """
import os, sys
from pathlib import Path
from interlock_guardrails.engine import create_store_engine
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.signing import Signer
from interlock_tools.clock import SystemClock

engine = create_store_engine(sys.argv[1])
origin = "example.com/ledger"
signer = Signer.load(origin, Path(sys.argv[2]))
ledger = Ledger(engine, signer, origin=origin, clock=SystemClock())
connection = engine.connect()
connection.begin()
ledger.append(connection, RecordKind.INTENT, {"n": "never committed"})
os._exit(9)
"""


class BrokenSink:
    """A place for checkpoints that fails while `broken`, and tells when it got one."""

    name = "broken"

    def __init__(self, *, broken: bool) -> None:
        self.broken = broken
        self.notes: list[str] = []
        self.got_one = threading.Event()

    def publish(self, note: str) -> None:
        """Keep it, or fail."""
        if self.broken:
            raise OSError("no space left")
        self.notes.append(note)
        self.got_one.set()


def read_note(note: str, signer: Signer) -> Checkpoint:
    """What a signed checkpoint says."""
    return parse_checkpoint(open_note(note, [parse_key(signer.vkey)]))


def test_records_are_numbered_from_zero_and_read_back(ledger: Ledger, write: Write) -> None:
    """The number is the place in the tree."""
    write(3)
    read = ledger.read(first=1, limit=5)
    assert [(record["seq"], record["body"]["n"]) for record in read] == [(1, 1), (2, 2)]
    assert len(ledger.read(limit=2)) == 2


def test_a_rollback_leaves_no_gap(store: Engine, ledger: Ledger, write: Write) -> None:
    """An intent whose transaction failed was never there."""
    write(1)
    before = ledger.size_and_root()
    with store.connect() as connection:
        connection.begin()
        assert ledger.append(connection, RecordKind.INTENT, {}) == 1
        assert ledger.append(connection, RecordKind.STOP, {}) == 2
        connection.rollback()
    assert ledger.size_and_root() == before
    with store.begin() as connection:
        assert ledger.append(connection, RecordKind.INTENT, {}) == 1
    ledger.checkpoint()
    assert ledger.verify_self().ok


def test_a_record_commits_together_with_the_state_it_speaks_of(
    store: Engine, ledger: Ledger
) -> None:
    """No act without its intent, and no intent without its act."""
    with store.begin() as connection:
        connection.execute(text("CREATE TABLE caps (watts INTEGER)"))
    with store.connect() as connection:
        connection.begin()
        connection.execute(text("INSERT INTO caps VALUES (400)"))
        ledger.append(connection, RecordKind.INTENT, {"cap_w": 400})
        connection.rollback()
    with store.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM caps")) == 0
    assert ledger.size_and_root()[0] == 0


def test_a_crash_between_append_and_commit_leaves_the_tree_equal_to_the_rows(
    store: Engine, open_ledger: OpenLedger, write: Write, signer: Signer, tmp_path: Path
) -> None:
    """The process dies with the transaction open; the next one goes on as if it had never been."""
    write(5)
    key = tmp_path / "key.pem"
    signer.save(key)
    crashed = subprocess.run(  # noqa: S603  (our own interpreter, our own text)
        [sys.executable, "-c", CRASH, store.url.render_as_string(), str(key)],
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    assert crashed.returncode == 9
    reopened = open_ledger()
    assert reopened.size_and_root()[0] == 5
    reopened.checkpoint()
    assert reopened.verify_self().ok


def test_eight_threads_give_one_gapless_sequence(store: Engine, ledger: Ledger) -> None:
    """One sequencer, however many append."""

    def append_some(worker: int) -> list[int]:
        numbers = []
        for step in range(15):
            with store.begin() as connection:
                body = {"worker": worker, "step": step}
                numbers.append(ledger.append(connection, RecordKind.OUTCOME, body))
        return numbers

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(append_some, range(8)))
    assert sorted(number for some in numbers for number in some) == list(range(120))
    assert all(some == sorted(some) for some in numbers)
    ledger.checkpoint()
    assert ledger.verify_self().covered == 120


def test_every_record_and_every_growth_can_be_proven(
    store: Engine, ledger: Ledger, write: Write
) -> None:
    """To somebody who holds a checkpoint and nothing else of ours."""
    write(11)
    old_size, old_root = ledger.size_and_root()
    write(10)
    size, root = ledger.size_and_root()
    with store.connect() as connection:
        rows = connection.execute(records.select().order_by(records.c.seq)).all()
    for row in rows:
        proof = ledger.inclusion_proof(row.seq)
        leaf = leaf_hash(row.canonical)
        assert inclusion_holds(leaf, row.seq, proof.size, proof.hashes, root)
    grown = ledger.consistency_proof(old_size)
    assert consistency_holds(old_size, old_root, size, root, grown.hashes)
    then = ledger.inclusion_proof(3, size=old_size)
    assert inclusion_holds(leaf_hash(rows[3].canonical), 3, 11, then.hashes, old_root)


@pytest.mark.parametrize("ask", [(2, None), (-1, None), (0, 3)])
def test_there_is_no_proof_of_what_is_not_there(
    ledger: Ledger, write: Write, ask: tuple[int, int | None]
) -> None:
    """The caller is told, in our own words."""
    write(2)
    with pytest.raises(InvalidRequestError):
        ledger.inclusion_proof(*ask)
    with pytest.raises(InvalidRequestError):
        ledger.consistency_proof(3)


def test_a_checkpoint_signs_what_is_committed(ledger: Ledger, write: Write, signer: Signer) -> None:
    """Origin, size, root; and asking again signs nothing new."""
    write(4)
    note = ledger.checkpoint()
    assert read_note(note, signer) == ("example.com/ledger", *ledger.size_and_root())
    assert ledger.checkpoint() == note


def test_a_checkpoint_is_due_after_so_many_records(open_ledger: OpenLedger, signer: Signer) -> None:
    """Nobody has to remember it; the ledger's own thread sees to it."""
    sink = BrokenSink(broken=False)
    ledger = open_ledger(checkpoint_every=4, checkpoint_after_s=float("inf"), sinks=[sink])
    for _ in range(3):
        ledger.append_read(RecordKind.READ, {})
    ledger.flush()
    ledger.checkpoint_if_due()
    assert not sink.notes
    ledger.append_read(RecordKind.READ, {})
    assert sink.got_one.wait(timeout=30)
    assert [read_note(note, signer).size for note in sink.notes] == [4]


def test_a_checkpoint_is_due_when_a_record_waited_long_enough(
    open_ledger: OpenLedger, clock: ManualClock, signer: Signer
) -> None:
    """On a quiet site the last record must not stay uncovered for days."""
    sink = BrokenSink(broken=False)
    ledger = open_ledger(checkpoint_after_s=60, sinks=[sink])
    ledger.append_read(RecordKind.READ, {})
    ledger.flush()
    clock.advance(59)
    ledger.checkpoint_if_due()
    assert not sink.notes
    clock.advance(1)
    ledger.checkpoint_if_due()
    assert [read_note(note, signer).size for note in sink.notes] == [1]


def test_a_failing_sink_loses_no_checkpoint_and_is_on_record(
    open_ledger: OpenLedger, signer: Signer
) -> None:
    """The others get theirs; what one did not get, its next one covers."""
    broken, working = BrokenSink(broken=True), BrokenSink(broken=False)
    working.name = "working"
    ledger = open_ledger(checkpoint_after_s=float("inf"), sinks=[broken, working])
    first = ledger.checkpoint()
    assert working.notes == [first]
    ledger.checkpoint()  # still failing: said once
    broken.broken = False
    ledger.checkpoint()
    told: list[dict[str, Any]] = [record["body"] for record in ledger.read()]
    assert [(body["sink"], body["published"]) for body in told] == [
        ("broken", False),
        ("broken", True),
    ]
    assert told[0]["why"] == "no space left"
    assert [read_note(note, signer).size for note in broken.notes] == [1]
    assert ledger.verify_self().ok


def test_a_log_of_another_origin_is_not_continued(
    store: Engine, ledger: Ledger, signer: Signer, clock: ManualClock
) -> None:
    """Two sites that share a store by mistake must notice."""
    with pytest.raises(ConflictError, match=r"example\.com/ledger"):
        Ledger(store, signer, origin="example.com/other", clock=clock)
    assert ledger.size_and_root()[0] == 0


def test_a_log_whose_rows_and_tree_differ_is_not_continued(
    store: Engine, open_ledger: OpenLedger, write: Write
) -> None:
    """To append to it would bury what happened."""
    write(3)
    with store.begin() as connection:
        connection.execute(delete(records).where(records.c.seq == 2))
    with pytest.raises(ConflictError, match="the tree counts 3 records, the last row is 1"):
        open_ledger()


def test_an_altered_row_is_found_in_place(store: Engine, ledger: Ledger, write: Write) -> None:
    """The store verifies itself as an outsider would."""
    write(6)
    ledger.checkpoint()
    with store.begin() as connection:
        fourth = records.c.seq == 4
        canonical = connection.execute(select(records.c.canonical).where(fourth)).scalar_one()
        altered = canonical.replace(b'"n":4', b'"n":5')
        connection.execute(update(records).where(fourth).values(canonical=altered))
    result = ledger.verify_self()
    assert (result.ok, result.first_bad) == (False, 4)


def test_an_altered_head_is_found(store: Engine, ledger: Ledger, write: Write) -> None:
    """Rows and signatures may be right and what the next record is put upon wrong."""
    write(2)
    ledger.checkpoint()
    with store.begin() as connection:
        connection.execute(update(head).values(frontier=bytes(32)))
    result = ledger.verify_self()
    assert (result.ok, result.first_bad) == (False, 2)
    assert "head of the tree" in result.sentence


def test_an_export_is_the_whole_log(ledger: Ledger, write: Write, tmp_path: Path) -> None:
    """Records and the checkpoints right after what they cover."""
    ledger.checkpoint()
    write(2)
    ledger.checkpoint()
    write(1)
    assert ledger.export(tmp_path / "log.jsonl") == 3
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert ["leaf" in line for line in lines] == [False, True, True, False, True]
