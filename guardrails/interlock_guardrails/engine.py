"""The store: one relational database, SQLite by default, PostgreSQL where replicas share it.

In SQLite every transaction begins by taking the write lock, so that what it read cannot be changed
by another before it writes; transactions that only read go through `read_only`.
"""

import os
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from interlock_guardrails import authority_tables as _authority  # noqa: F401  (adds to metadata)
from interlock_guardrails.ledger import tables as _ledger_tables  # noqa: F401  (adds to metadata)
from interlock_guardrails.metadata import metadata
from interlock_tools.errors import InvalidRequestError

STORE_FILE = "interlock.db"
POSTGRESQL_DRIVER = "postgresql+psycopg"
BUSY_TIMEOUT_MS = 15_000
SQLITE_PRAGMAS = (
    f"busy_timeout = {BUSY_TIMEOUT_MS}",  # first: the next one may have to wait
    "journal_mode = WAL",
    "synchronous = FULL",  # a commit survives a power cut
    "foreign_keys = ON",
)


def create_store_engine(url: str | URL) -> Engine:
    """The engine of the store at `url`: `sqlite:///<file>` or `postgresql+<driver>://...`.

    Raises:
        InvalidRequestError: another database, or SQLite in memory (a store must outlive us).
    """
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return create_engine(parsed, pool_pre_ping=True)
    if backend != "sqlite":
        raise InvalidRequestError(f"the store runs on SQLite and PostgreSQL, not on {backend}")
    if not parsed.database or ":memory:" in parsed.database or "mode=memory" in str(parsed):
        raise InvalidRequestError("the store must be a file: SQLite in memory is lost with us")
    engine = create_engine(parsed)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def store_address(data_dir: Path, url: str | None = None, url_env: str | None = None) -> URL:
    """Where the store of a site is: at `url`, at what `url_env` names, or a file in `data_dir`.

    A password belongs into the environment, not into a settings file.

    Raises:
        InvalidRequestError: both are named, the variable is not set, it is no URL, or `url` holds a
            password; what is wrong with it is said without repeating it.
    """
    if url and url_env:
        raise InvalidRequestError("name store_url or store_url_env, not both")
    if url_env:
        url, named = os.environ.get(url_env, "").strip(), f"the environment variable {url_env}"
        if not url:
            raise InvalidRequestError(f"{named} is not set, and store_url_env names it")
    else:
        named = "store_url"
    if not url:
        return URL.create("sqlite", database=str(data_dir / STORE_FILE))
    try:
        address = make_url(url)
    except ArgumentError:
        raise InvalidRequestError(f"{named} is no address such as postgresql://host/name") from None
    if not url_env and (address.password or "password" in address.query):
        raise InvalidRequestError("store_url must hold no password; name store_url_env instead")
    if address.drivername == "postgresql":
        return address.set(drivername=POSTGRESQL_DRIVER)
    return address


def read_only(engine: Engine) -> Engine:
    """The same store for transactions that only read, each from one snapshot."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(store_read_only=True)
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def create_tables(engine: Engine) -> None:
    """Create the tables that are missing; existing ones stay as they are."""
    metadata.create_all(engine)


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # we begin transactions ourselves, the driver would not
    cursor = connection.cursor()
    for pragma in SQLITE_PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("store_read_only", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
