"""The ledger's group commit against a bare one on the same disk, and the speed of verification."""

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
VERIFIED_RECORDS = 100_000
VERIFY_TIMES = 3
RATIO_LIMIT = 0.8
VERIFY_LIMIT_PER_S = 50_000.0
ORIGIN = "bench.example/ledger"
BODY = {  # about half a kilobyte, as the record of a read is
    "principal": "agent/power",
    "tool": "maxlps.read_headroom",
    "arguments": {"domain": "power-domain-07", "window_s": 300},
    "facts": [{"kind": "headroom", "subject": f"rack/r{n:02}", "w": 41_200 + n} for n in range(4)],
    "digest": "5f" * 32,
}


def measure() -> Measured:
    """Records a second with 64 writers that each wait for the disk, in turns with a bare loop."""
    ours_per_s: list[float] = []
    bare_per_s: list[float] = []
    with tempfile.TemporaryDirectory(prefix="interlock-bench-", dir=Path.cwd()) as folder:
        for turn in range(ROUNDS):
            bare_per_s.append(_bare(Path(folder) / f"bare-{turn}.db"))
            ours_per_s.append(_ours(Path(folder) / f"ours-{turn}.db"))
        verified = _verify(Path(folder))
    ratios = [ours / bare for ours, bare in zip(ours_per_s, bare_per_s, strict=True)]
    figures = {
        "ledger_group_commit_ratio": median(ratios, ""),
        "ledger_group_commit_per_s": median(ours_per_s, "records/s"),
        "bare_group_commit_per_s": median(bare_per_s, "records/s"),
        **verified,
    }
    ratio = figures["ledger_group_commit_ratio"].value
    speed_per_s = figures["ledger_verify_per_s"].value
    return Measured(
        figures,
        {
            "ledger_group_commit_ratio": Promise.at_least(ratio, RATIO_LIMIT, ""),
            "ledger_verify_per_s": Promise.at_least(speed_per_s, VERIFY_LIMIT_PER_S, "records/s"),
        },
    )


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


def _bare(path: Path) -> float:
    """The least that group commit can be: a list, a lock, `executemany`, and no hash anywhere."""
    changed = threading.Condition()
    waiting: list[bytes] = []
    accepted = settled = 0
    ended = False
    record = draft(RecordKind.READ, BODY, SystemClock().now()).numbered(0)

    def commit() -> None:
        nonlocal settled
        store = sqlite3.connect(path, isolation_level=None)
        for pragma in SQLITE_PRAGMAS:
            store.execute(f"PRAGMA {pragma}")
        store.execute("CREATE TABLE record (seq INTEGER PRIMARY KEY, record BLOB)")
        while True:
            with changed:
                changed.wait_for(lambda: waiting or ended)
                if not waiting:
                    break
                batch = waiting.copy()
                waiting.clear()
            store.execute("BEGIN IMMEDIATE")
            rows = enumerate(batch, settled)
            store.executemany("INSERT INTO record VALUES (?, ?)", rows)
            store.execute("COMMIT")
            with changed:
                settled += len(batch)
                changed.notify_all()
        store.close()

    def write_one() -> None:
        nonlocal accepted
        with changed:
            waiting.append(record)
            accepted += 1
            ticket = accepted
            changed.notify_all()
            changed.wait_for(lambda: settled >= ticket)

    thread = threading.Thread(target=commit)
    thread.start()
    per_s = _with_writers(write_one)
    with changed:
        ended = True
        changed.notify_all()
    thread.join()
    return per_s


def _verify(folder: Path) -> dict[str, Figure]:
    """Fast and strict verification of an export, signatures included."""
    engine = create_store_engine(f"sqlite:///{folder / 'verify.db'}")
    create_tables(engine)
    signer = Signer.generate(ORIGIN)
    export = folder / "export.jsonl"
    with Ledger(engine, signer, origin=ORIGIN, clock=SystemClock()) as ledger:
        for number in range(VERIFIED_RECORDS):
            ledger.append_read(RecordKind.READ, BODY)
            if number % 5_000 == 0:
                ledger.flush()
        ledger.flush()
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
    }
