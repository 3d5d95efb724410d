"""The store: one relational database, reached through short transactions off the event loop."""

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Engine

from interlock_guardrails.engine import read_only

T = TypeVar("T")


class Store:
    """Runs functions in one transaction each; what one function writes stands or falls together."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._snapshots = read_only(engine)
        self._writers = anyio.CapacityLimiter(1)
        self._readers = anyio.CapacityLimiter(4)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that is committed when it returns and undone if it raises.

        A caller that is cancelled meanwhile does not undo it: the thread runs to its end.
        """

        def transact() -> T:
            with self.engine.begin() as connection:
                return work(connection)

        return await anyio.to_thread.run_sync(transact, limiter=self._writers)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot of its own; nothing is written."""

        def look() -> T:
            with self._snapshots.connect() as connection:
                return work(connection)

        return await anyio.to_thread.run_sync(look, limiter=self._readers)
