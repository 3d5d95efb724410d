"""One worker for each store: two processes that carried out the same change would act twice."""

import fcntl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Engine

from interlock_tools.clock import Clock
from interlock_tools.errors import InvalidRequestError

ASK_EVERY_S = 1.0


@asynccontextmanager
async def sole_worker(engine: Engine, clock: Clock) -> AsyncIterator[None]:
    """Wait until no other process works on this store, then be the one that does.

    The lock is the system's, on a file beside the store: it falls when its process ends, however
    that ends, so whoever gets it knows that nobody is in the middle of an act any more.

    Raises:
        InvalidRequestError: the store is no SQLite file, and no such lock is known for it.
    """
    if engine.dialect.name != "sqlite" or not engine.url.database:
        raise InvalidRequestError("changes are carried out from a SQLite store only")
    path = Path(f"{engine.url.database}.worker")
    while (lock := _try_lock(path)) is None:
        await clock.sleep(ASK_EVERY_S)
    try:
        yield
    finally:
        lock.close()


def _try_lock(path: Path) -> BinaryIO | None:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
