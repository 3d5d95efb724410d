"""Reads are recorded by group commit: nobody waits, losses are counted."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.reads import GroupCommit
from interlock_guardrails.ledger.records import Draft, RecordKind
from interlock_tools.errors import InvalidRequestError, UnavailableError

OpenLedger = Callable[..., Ledger]


class Disk:
    """A disk that a test can hold up or break; it keeps each batch and the count of drops."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.dropped: list[int] = []
        self.error: Exception | None = None
        self.reached = threading.Event()
        self.free = threading.Event()
        self.free.set()

    def write(self, drafts: Sequence[Draft], dropped: int) -> None:
        """Wait until it is free, then keep the batch or fail."""
        self.reached.set()
        assert self.free.wait(timeout=30)
        if self.error is not None:
            raise self.error
        self.batches.append([draft.before for draft in drafts])
        self.dropped.append(dropped)


@contextmanager
def queue_on(
    disk: Disk, *, capacity: int = 100, batch: int = 10, gather_s: float = 0.0
) -> Iterator[GroupCommit]:
    """A queue that writes only when a batch is full or somebody asks."""
    queue = GroupCommit(
        disk.write,
        capacity=capacity,
        batch=batch,
        late_s=threading.TIMEOUT_MAX,
        gather_s=gather_s,
    )
    try:
        yield queue
    finally:
        disk.error = None
        disk.free.set()
        queue.close()


def record(number: int) -> Draft:
    """A record that can be told from others."""
    return Draft(b"%d" % number, b"")


def test_reads_are_committed_in_order_and_verify(ledger: Ledger) -> None:
    """They end up in the same log as everything else."""
    for number in range(1200):
        assert ledger.append_read(RecordKind.READ, {"n": number})
    ledger.flush()
    read = ledger.read(limit=2000)
    assert [entry["body"]["n"] for entry in read] == list(range(1200))
    ledger.checkpoint()
    assert ledger.verify_self().ok


def test_a_read_that_cannot_be_written_is_refused_to_its_caller(ledger: Ledger) -> None:
    """One bad body must not hold up the batch that it would be in."""
    with pytest.raises(InvalidRequestError):
        ledger.append_read(RecordKind.READ, {"n": float("nan")})
    ledger.append_read(RecordKind.READ, {"n": 1})
    ledger.flush()
    assert ledger.size_and_root()[0] == 1


def test_what_is_written_together_waits_for_one_commit() -> None:
    """While the disk is busy, the next batch gathers."""
    disk = Disk()
    with queue_on(disk, batch=3) as queue:
        disk.free.clear()
        for number in range(8):
            queue.offer(record(number))
        disk.free.set()
        queue.flush()
    assert disk.batches == [[b"0", b"1", b"2"], [b"3", b"4", b"5"], [b"6", b"7"]]


def test_a_full_queue_never_blocks_and_counts_what_it_drops() -> None:
    """A slow disk must not stop the answers; that they are not all on record must be."""
    disk = Disk()
    with queue_on(disk, capacity=4, batch=2) as queue:
        disk.free.clear()
        queue.offer(record(0))
        queue.offer(record(1))
        assert disk.reached.wait(timeout=30)  # the first two are being written and still counted
        assert [queue.offer(record(number)) for number in range(2, 7)] == [True] * 2 + [False] * 3
        disk.free.set()
        queue.flush()
    assert sum(disk.dropped) == 3
    assert [entry for batch in disk.batches for entry in batch] == [b"0", b"1", b"2", b"3"]


def test_callers_who_return_together_share_the_next_commit() -> None:
    """A batch is held back for those who waited for the last one, and for nobody else."""
    disk = Disk()
    with queue_on(disk, gather_s=threading.TIMEOUT_MAX) as queue, ThreadPoolExecutor(3) as pool:

        def write(number: int) -> None:
            queue.offer(record(number))
            queue.flush()

        disk.free.clear()
        calls = [pool.submit(write, 0)]
        assert disk.reached.wait(timeout=30)
        calls += [pool.submit(write, number) for number in (1, 2)]
        while queue.waiting < 2 and not any(call.done() for call in calls):
            threading.Event().wait(0.001)
        disk.free.set()
        for number in (3, 5, 7):
            for call in calls:
                call.result(timeout=30)
            calls = [pool.submit(write, number + n) for n in range(2)]
        for call in calls:
            call.result(timeout=30)
    batches = [sorted(batch) for batch in disk.batches]
    assert batches == [[b"0"], [b"1", b"2"], [b"3", b"4"], [b"5", b"6"], [b"7", b"8"]]


def test_the_number_of_dropped_reads_is_itself_recorded(
    open_ledger: OpenLedger,
) -> None:
    """A reader of the log sees that something is missing, and how much."""
    ledger = open_ledger(read_capacity=0)
    for _ in range(3):
        assert not ledger.append_read(RecordKind.READ, {})
    ledger.close()
    told = ledger.read()
    assert {entry["kind"] for entry in told} == {"reads_dropped"}
    assert sum(entry["body"]["dropped"] for entry in told) == 3


def test_a_batch_that_failed_is_kept_and_written_later() -> None:
    """The one who waits is told; nobody has to hand the records over again."""
    disk = Disk()
    with queue_on(disk) as queue:
        disk.error = OSError("no space left")
        queue.offer(record(0))
        with pytest.raises(UnavailableError, match="1 records"):
            queue.flush()
        disk.error = None
        queue.offer(record(1))
        queue.flush()
    assert disk.batches == [[b"0", b"1"]]


def test_closing_writes_what_waits() -> None:
    """An orderly end loses nothing."""
    disk = Disk()
    with queue_on(disk, batch=2) as queue:
        for number in range(5):
            queue.offer(record(number))
    assert sum(map(len, disk.batches)) == 5
    queue.close()


def test_closing_says_what_it_could_not_write() -> None:
    """And does not hang on a disk that is broken."""
    disk = Disk()
    disk.error = OSError("no space left")
    queue = GroupCommit(disk.write)
    queue.offer(record(0))
    with pytest.raises(UnavailableError, match="1 records were not written"):
        queue.close()
    with pytest.raises(UnavailableError):
        queue.flush()
    assert not queue.offer(record(1))
