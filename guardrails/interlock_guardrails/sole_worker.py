"""One worker for each store: two that carried out the same change would act twice.

The lock belongs to a process on SQLite (a lock of the system on a file beside the store) and to a
session on PostgreSQL (an advisory lock). Both fall when their holder dies, however it dies. A
session can also die while its process lives; so whoever begins an act asks in the transaction of
its intent whether the lock still stands, and a holder that gets no answer stops within seconds.
"""

import fcntl
import logging
from collections.abc import AsyncIterator, Callable
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
NO_ANSWER_AFTER_S = 3.0
# The server notices within seconds that a holder is gone whose machine went without a word.
KEEPALIVE = ("tcp_keepalives_idle = 3", "tcp_keepalives_interval = 2", "tcp_keepalives_count = 3")
LOCK_NUMBER = 0x1A7E_410C  # one for all replicas of a store; any number that nobody else takes
TAKE = text("SELECT pg_try_advisory_lock(:number) AS taken, pg_backend_pid() AS pid")
HELD_BY = text(
    "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = 0 AND objid = :number "
    "AND pid = :pid AND granted"
)

Holds = Callable[[Connection], bool]  # whether the lock stands, asked in a transaction
log = logging.getLogger(__name__)


def always(_: Connection) -> bool:
    """What holds whose lock ends with the process."""
    return True


def never(_: Connection) -> bool:
    """What holds who has no lock."""
    return False


class LockLostError(Exception):
    """The database no longer knows us as the one that works: stop, and stand by again."""


@asynccontextmanager
async def sole_worker(engine: Engine, clock: Clock) -> AsyncIterator[Holds]:
    """Wait until nobody else works on this store, then be the one that does.

    Gives what says, inside a transaction, whether this is still so.

    Raises:
        InvalidRequestError: no lock is known for this kind of store.
        LockLostError: the lock was lost while the block ran; the block was cancelled.
    """
    if engine.dialect.name == "sqlite" and engine.url.database:
        async with _by_file(Path(f"{engine.url.database}.worker"), clock):
            yield always  # the system frees it with the process and not before
    elif engine.dialect.name == "postgresql":
        async with _by_session(engine, clock) as holds:
            yield holds
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
async def _by_session(engine: Engine, clock: Clock) -> AsyncIterator[Holds]:
    while (found := await anyio.to_thread.run_sync(_try_session, engine)) is None:
        await clock.sleep(ASK_EVERY_S)
    session, pid = found
    lost = False

    def holds(connection: Connection) -> bool:
        return connection.execute(HELD_BY, {"number": LOCK_NUMBER, "pid": pid}).first() is not None

    try:
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                nonlocal lost
                held = True
                while held:
                    await anyio.sleep(ASK_EVERY_S)  # of the machine: a session dies in its time
                    held = False
                    with anyio.move_on_after(NO_ANSWER_AFTER_S):
                        held = await anyio.to_thread.run_sync(
                            _still_held, session, abandon_on_cancel=True
                        )
                lost = True
                log.error("the lock of the worker was lost; another replica may have it")
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            yield holds
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True), suppress(SQLAlchemyError):
            await anyio.to_thread.run_sync(session.invalidate)  # closing the session frees the lock
            await anyio.to_thread.run_sync(session.close)
    if lost:
        raise LockLostError


def _try_session(engine: Engine) -> tuple[Connection, int] | None:
    """The session that holds the lock, and the server's number for it."""
    session: Connection | None = None
    try:
        session = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        for setting in KEEPALIVE:
            session.execute(text(f"SET {setting}"))
        row = session.execute(TAKE, {"number": LOCK_NUMBER}).one()
        if row.taken:
            return session, int(row.pid)
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
