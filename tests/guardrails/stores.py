"""Both kinds of store, for the promises that hold on either; a server where one can be started."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, text

from interlock_evals.chaos.postgres import Postgres, why_not
from interlock_guardrails.engine import create_store_engine

REQUIRED = "INTERLOCK_REQUIRE_POSTGRES"
WITHIN_S = 20.0
NAMES = ("sqlite", "postgresql")


def require_postgres() -> None:
    """Skip the test, with the reason, where no server can be started; where it must, fail."""
    reason = why_not()
    if reason is not None:
        if os.environ.get("CI") == "true" and os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{REQUIRED}=1, and {reason}")
        pytest.skip(reason)


def start_postgres() -> Postgres:
    """A server to enter, where one can be started."""
    require_postgres()
    return Postgres()


def new_url(name: str, folder: Path, request: pytest.FixtureRequest) -> URL | str:
    """The address of an empty store of this kind."""
    if name == "sqlite":
        return f"sqlite:///{folder / 'store.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.url(server.create())


@contextmanager
def opened(url: URL | str) -> Iterator[Engine]:
    """An engine on this store, for as long as the block runs."""
    engine = create_store_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def end_lock_sessions(engine: Engine) -> int:
    """Let the server end every session that holds an advisory lock here; how many it were."""
    query = text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_locks "
        "WHERE locktype = 'advisory' AND granted AND database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with engine.connect() as connection:
        return int(connection.execute(query).scalar_one())


def until_one_waits(engine: Engine) -> None:
    """Return once a session of this database waits for another one."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    end_s = time.monotonic() + WITHIN_S
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(query).scalar_one():
            assert time.monotonic() < end_s, "nobody waits"
            time.sleep(0.01)
