"""One worker for each store: two that carried out the same change would act twice.

The lock belongs to a process on SQLite (a lock of the system on a file beside the store) and to a
session on PostgreSQL (an advisory lock). Both fall when their holder dies, however it dies, so
whoever gets it knows that nobody is in the middle of an act any more.
"""

import fcntl
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from interlock_tools.clock import Clock
from interlock_tools.errors import InvalidRequestError

ASK_EVERY_S = 1.0
LOCK_NUMBER = 0x1A7E_410C  # one for all replicas of a store; any number that nobody else takes

log = logging.getLogger(__name__)


class LockLostError(Exception):
    """The database no longer knows us as the one that works: stop, and stand by again."""


@asynccontextmanager
async def sole_worker(engine: Engine, clock: Clock) -> AsyncIterator[None]:
    """Wait until nobody else works on this store, then be the one that does.

    Raises:
        InvalidRequestError: no lock is known for this kind of store.
        LockLostError: the lock was lost while the block ran; the block was cancelled.
    """
    if engine.dialect.name == "sqlite" and engine.url.database:
        async with _by_file(Path(f"{engine.url.database}.worker"), clock):
            yield
    elif engine.dialect.name == "postgresql":
        async with _by_session(engine, clock):
            yield
    else:
        raise InvalidRequestError(f"no lock is known for a store on {engine.dialect.name}")


@asynccontextmanager
async def _by_file(path: Path, clock: Clock) -> AsyncIterator[None]:
    while (lock := _try_file(path)) is None:
        await clock.sleep(ASK_EVERY_S)
    try:
        yield
    finally:
        lock.close()


def _try_file(path: Path) -> BinaryIO | None:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


@asynccontextmanager
async def _by_session(engine: Engine, clock: Clock) -> AsyncIterator[None]:
    while (session := await anyio.to_thread.run_sync(_try_session, engine)) is None:
        await clock.sleep(ASK_EVERY_S)
    lost = False
    try:
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                nonlocal lost
                while True:
                    if not await anyio.to_thread.run_sync(_still_held, session):
                        break
                    await anyio.sleep(ASK_EVERY_S)  # of the machine: a session dies in its time
                lost = True
                log.error("the lock of the worker was lost; another replica may have it")
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            yield
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True), suppress(SQLAlchemyError):
            await anyio.to_thread.run_sync(session.invalidate)  # closing the session frees the lock
            await anyio.to_thread.run_sync(session.close)
    if lost:
        raise LockLostError


def _try_session(engine: Engine) -> Connection | None:
    session: Connection | None = None
    try:
        session = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        query = text("SELECT pg_try_advisory_lock(:number)")
        if session.scalar(query, {"number": LOCK_NUMBER}):
            return session
    except SQLAlchemyError:
        log.exception("the lock of the worker could not be asked for")
    if session is not None:
        with suppress(SQLAlchemyError):
            session.close()
    return None


def _still_held(session: Connection) -> bool:
    try:
        session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return False
    return True
