"""The ledger's group commit against a bare one, the speed of verification, and flat memory."""

import hashlib
import json
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from interlock_evals.bench.measured import Measured, median, seconds
from interlock_evals.reports import Figure, Promise
from interlock_guardrails.engine import SQLITE_PRAGMAS, create_store_engine, create_tables
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind, draft
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.verify import parse_key, verify_lines
from interlock_tools.clock import SystemClock

WRITERS = 64
RECORDS_PER_WRITER = 50
ROUNDS = 9
VERIFIED_RECORDS = 1_000_000
VERIFY_TIMES = 3
SETTLED_RECORDS = 20_000  # from here on memory must not grow
STATUS = Path("/proc/self/status")
RATIO_LIMIT = 0.8
VERIFY_LIMIT_PER_S = 50_000.0
WHY_NOT = (
    "on a fast disk the canonical form, the masking and the tree, all under the interpreter's "
    "lock, weigh more than what holding a batch back for its callers saves"
)
ORIGIN = "bench.example/ledger"
BODY = {  # about half a kilobyte, as the record of a read is
    "principal": "agent/power",
    "tool": "maxlps.read_headroom",
    "arguments": {"domain": "power-domain-07", "window_s": 300},
    "facts": [{"kind": "headroom", "subject": f"rack/r{n:02}", "w": 41_200 + n} for n in range(4)],
    "digest": "5f" * 32,
}


def measure() -> Measured:
    """Records a second with 64 writers that each wait for the disk, in turns with a bare loop.

    Ours holds a batch back for up to 2 ms while callers of the last
    one return, the bare loop takes what is there: what that wins and what a record costs more than
    a line of JSON are both in the ratio.
    """
    ours_per_s: list[float] = []
    bare_per_s: list[float] = []
    raw_per_s: list[float] = []
    with tempfile.TemporaryDirectory(prefix="interlock-bench-", dir=Path.cwd()) as folder:
        for turn in range(ROUNDS):
            bare_per_s.append(_bare(Path(folder) / f"bare-{turn}.db", chained=True))
            ours_per_s.append(_ours(Path(folder) / f"ours-{turn}.db"))
            raw_per_s.append(_bare(Path(folder) / f"raw-{turn}.db", chained=False))
        verified = _verify(Path(folder))
    figures = {
        "ledger_group_commit_ratio": median(_ratios(ours_per_s, bare_per_s), ""),
        "ledger_group_commit_ratio_to_raw": median(_ratios(ours_per_s, raw_per_s), ""),
        "ledger_group_commit_per_s": median(ours_per_s, "records/s"),
        "bare_group_commit_per_s": median(bare_per_s, "records/s"),
        "raw_group_commit_per_s": median(raw_per_s, "records/s"),
        **verified,
    }
    ratio = figures["ledger_group_commit_ratio"].value
    speed_per_s = figures["ledger_verify_per_s"].value
    return Measured(
        figures,
        {
            "ledger_group_commit_ratio": Promise.at_least(ratio, RATIO_LIMIT, "", WHY_NOT),
            "ledger_verify_per_s": Promise.at_least(speed_per_s, VERIFY_LIMIT_PER_S, "records/s"),
        },
    )


def _ratios(ours: list[float], theirs: list[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def _with_writers(write_one: Callable[[], None]) -> float:
    """Records a second when every writer waits for each of its records."""
    start = threading.Barrier(WRITERS + 1)

    def write_all() -> None:
        start.wait()
        for _ in range(RECORDS_PER_WRITER):
            write_one()

    writers = [threading.Thread(target=write_all) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    start.wait()
    before = time.perf_counter()
    for writer in writers:
        writer.join()
    return WRITERS * RECORDS_PER_WRITER / (time.perf_counter() - before)


def _ours(path: Path) -> float:
    engine = create_store_engine(f"sqlite:///{path}")
    create_tables(engine)
    with Ledger(engine, Signer.generate(ORIGIN), origin=ORIGIN, clock=SystemClock()) as ledger:

        def write_one() -> None:
            ledger.append_read(RecordKind.READ, BODY)
            ledger.flush()

        per_s = _with_writers(write_one)
    engine.dispose()
    return per_s


def _bare(path: Path, *, chained: bool) -> float:
    """The least that group commit can be: a list, a lock, `executemany`.

    Chained: sorted JSON and a chain of SHA-256, the least that an audit log can be. Otherwise the
    same bytes again and again, without a hash: the disk, the lock and the threads alone.
    """
    lock = threading.Lock()
    work, done = threading.Condition(lock), threading.Condition(lock)
    waiting: list[bytes] = []
    accepted = settled = 0
    ended = False
    previous = bytes(32)
    now = SystemClock().now()
    ready = draft(RecordKind.READ, BODY, now).numbered(0)

    def serialise() -> bytes:
        if not chained:
            return ready
        record = {"v": 1, "at": now.isoformat(), "kind": "read", "body": BODY}
        return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()

    def linked(seq: int, record: bytes) -> tuple[int, bytes, bytes]:
        nonlocal previous
        if chained:
            previous = hashlib.sha256(previous + record).digest()
        return seq, record, previous

    def commit() -> None:
        nonlocal settled
        store = sqlite3.connect(path, isolation_level=None)
        for pragma in SQLITE_PRAGMAS:
            store.execute(f"PRAGMA {pragma}")
        store.execute("CREATE TABLE record (seq INTEGER PRIMARY KEY, record BLOB, hash BLOB)")
        while True:
            with lock:
                work.wait_for(lambda: waiting or ended)
                if not waiting:
                    break
                batch = waiting.copy()
                waiting.clear()
            store.execute("BEGIN IMMEDIATE")
            rows = [linked(seq, record) for seq, record in enumerate(batch, settled)]
            store.executemany("INSERT INTO record VALUES (?, ?, ?)", rows)
            store.execute("COMMIT")
            with lock:
                settled += len(batch)
                done.notify_all()
        store.close()

    def write_one() -> None:
        nonlocal accepted
        record = serialise()
        with lock:
            waiting.append(record)
            accepted += 1
            ticket = accepted
            work.notify()
            done.wait_for(lambda: settled >= ticket)

    thread = threading.Thread(target=commit)
    thread.start()
    per_s = _with_writers(write_one)
    with lock:
        ended = True
        work.notify()
    thread.join()
    return per_s


def _verify(folder: Path) -> dict[str, Figure]:
    """Fast and strict verification of an export, signatures included; memory while appending."""
    engine = create_store_engine(f"sqlite:///{folder / 'verify.db'}")
    create_tables(engine)
    signer, settled_mib = Signer.generate(ORIGIN), 0.0
    export = folder / "export.jsonl"
    with Ledger(engine, signer, origin=ORIGIN, clock=SystemClock()) as ledger:
        for number in range(VERIFIED_RECORDS):
            ledger.append_read(RecordKind.READ, BODY)
            if number % 5_000 == 0:
                ledger.flush()
            if number == SETTLED_RECORDS:
                settled_mib = _resident_mib()
        ledger.flush()
        grown_mib = _resident_mib() - settled_mib
        ledger.checkpoint()
        ledger.export(export)
    engine.dispose()

    def verify(*, strict: bool = False) -> None:
        with export.open("rb") as lines:
            result = verify_lines(lines, [parse_key(signer.vkey)], strict=strict)
        if not result.ok or result.covered != VERIFIED_RECORDS:
            raise RuntimeError(result.sentence)

    fast_s = seconds(verify, VERIFY_TIMES)
    strict_s = seconds(lambda: verify(strict=True), 1)
    return {
        "ledger_verify_per_s": median([VERIFIED_RECORDS / took for took in fast_s], "records/s"),
        "ledger_verify_strict_per_s": Figure(VERIFIED_RECORDS / strict_s[0], "records/s"),
        "ledger_memory_growth_20k_to_1m": Figure(grown_mib, "MiB"),
    }


def _resident_mib() -> float:
    """The memory of this process now; 0 where the system does not tell."""
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)
