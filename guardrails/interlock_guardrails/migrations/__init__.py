"""The versions of the store, and how an older one becomes the present one with its rows kept.

Every revision stands in `versions/`, written by hand and never changed once it was released. There
is no way back: whoever wants an older version restores a backup.
"""

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from interlock_guardrails import changes as _changes  # noqa: F401  (adds to metadata)
from interlock_guardrails import engine as _engine  # noqa: F401  (adds to metadata)
from interlock_guardrails import reservations as _reservations  # noqa: F401  (adds to metadata)
from interlock_guardrails import stop as _stop  # noqa: F401  (adds to metadata)
from interlock_guardrails.metadata import metadata
from interlock_tools.errors import ConflictError

FOLDER = Path(__file__).parent
LOCK_NUMBER = 0x1A7E_410D  # one replica migrates at a time; sole_worker.py has the other number
VERSION_TABLE = "alembic_version"


def known() -> list[str]:
    """The versions that this code can bring along, oldest first."""
    return sorted(path.name[1:5] for path in (FOLDER / "versions").glob("v[0-9]*.py"))


def newest() -> str:
    """The version that this code works with."""
    return known()[-1]


def version_of(connection: Connection) -> str | None:
    """The version of a store; None where it is empty, or from before versions were kept."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608
    return version


def migrate(engine: Engine, to: str | None = None) -> None:
    """Bring the store to a version, by default the newest: all of it in one transaction, or none.

    An empty store is made as the code works with it; a test holds that to be what the revisions
    lead to. A store from before versions were kept is one of the first of them.

    Raises:
        ConflictError: the store is of a version that this code does not know; nothing was done.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(
                text("SELECT pg_advisory_xact_lock(:number)"), {"number": LOCK_NUMBER}
            )
        now = version_of(connection)
        if now is not None and now not in known():
            raise ConflictError(
                f"the store is of version {now}, and this Interlock knows it up to {newest()}: a "
                "newer one has opened it. Run that one, or restore a backup from before"
            )
        if now is None and to is None and not inspect(connection).get_table_names():
            _make(connection)
        elif now is None or now != (to or newest()):
            _revise(connection, to or "head")


def _make(connection: Connection) -> None:
    metadata.create_all(connection)
    connection.execute(
        text(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    )
    connection.execute(
        text(f"INSERT INTO {VERSION_TABLE} VALUES (:version)"),  # noqa: S608
        {"version": newest()},
    )


def _revise(connection: Connection, to: str) -> None:
    from alembic import command  # a tenth of a second that no other start has to wait for
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, to)
