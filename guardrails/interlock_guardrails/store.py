"""The store: one relational database, reached through short transactions off the event loop."""

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Engine

from interlock_guardrails import noting
from interlock_guardrails.engine import read_only
from interlock_guardrails.ledger.rows import LOCK_HEAD
from interlock_tools.change import Change

T = TypeVar("T")


class Store:
    """Runs functions in one transaction each; what one function writes stands or falls together."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._snapshots = read_only(engine)
        self.listeners: list[Callable[[Change], None]] = []
        self._shared = engine.dialect.name != "sqlite"
        self._writers = anyio.CapacityLimiter(1)
        self._readers = anyio.CapacityLimiter(4)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that is committed when it returns and undone if it raises.

        What it reads cannot be changed by another before it ends: SQLite takes the write lock as a
        transaction begins, and on PostgreSQL the head of the ledger is locked first, by whichever
        replica. So no two of them decide on the same rows, nor wait for each other in a circle.

        A caller that is cancelled meanwhile does not undo it: the thread runs to its end.
        """

        def transact() -> T:
            with self.engine.begin() as connection:
                if self._shared:
                    connection.execute(LOCK_HEAD)
                noted = noting.begin(connection)
                result = work(connection)
            noting.tell(noted)
            return result

        return await anyio.to_thread.run_sync(transact, limiter=self._writers)

    def announce(self, change: Change) -> None:
        """Say that a change has moved; other processes find it at their next look."""
        for listen in self.listeners:
            listen(change)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot of its own; nothing is written."""

        def look() -> T:
            with self._snapshots.connect() as connection:
                return work(connection)

        return await anyio.to_thread.run_sync(look, limiter=self._readers)
