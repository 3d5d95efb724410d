"""A store on disk, a key and a ledger over it, with a clock that stands still."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from interlock_guardrails.engine import create_store_engine, create_tables
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.signing import Signer
from interlock_tools.clock import ManualClock

ORIGIN = "example.com/ledger"

OpenLedger = Callable[..., Ledger]


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
    """A new key by the name of the log."""
    return Signer.generate(ORIGIN)


@pytest.fixture
def open_ledger(store: Engine, signer: Signer, clock: ManualClock) -> Iterator[OpenLedger]:
    """Opens ledgers over the store; what a test leaves open is closed after it."""
    opened: list[Ledger] = []

    def open_one(**settings: Any) -> Ledger:
        ledger = Ledger(store, signer, origin=ORIGIN, clock=clock, **settings)
        opened.append(ledger)
        return ledger

    yield open_one
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(open_ledger: OpenLedger) -> Ledger:
    """A ledger that signs only when it is asked."""
    return open_ledger(checkpoint_every=10**9, checkpoint_after_s=float("inf"))


@pytest.fixture
def write(store: Engine, ledger: Ledger) -> Callable[[int], None]:
    """Appends that many records, a transaction each."""

    def write_some(count: int) -> None:
        for number in range(count):
            with store.begin() as connection:
                ledger.append(connection, RecordKind.INTENT, {"n": number})

    return write_some
