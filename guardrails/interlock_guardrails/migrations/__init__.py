"""The versions of the store, and how an older one becomes the present one with its rows kept.

Every revision stands in `versions/`, written by hand and never changed once it was released. There
is no way back: whoever wants an older version restores a backup.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from interlock_tools.errors import ConflictError

FOLDER = Path(__file__).parent
LOCK_NUMBER = 0x1A7E_410D  # one replica migrates at a time; sole_worker.py has the other number


def newest() -> str:
    """The version that this code works with."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError("there are no migrations")
    return head


def version_of(connection: Connection) -> str | None:
    """The version of a store; None where it is empty, or from before versions were kept."""
    return MigrationContext.configure(connection).get_current_revision()


def migrate(engine: Engine, to: str | None = None) -> None:
    """Bring the store to a version, by default the newest: all of it in one transaction, or none.

    A store from before versions were kept is one of the first of them.

    Raises:
        ConflictError: the store is of a version that this code does not know; nothing was done.
    """
    config = _config()
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(
                text("SELECT pg_advisory_xact_lock(:number)"), {"number": LOCK_NUMBER}
            )
        now = version_of(connection)
        if now is not None and now not in known:
            raise ConflictError(
                f"the store is of version {now}, and this Interlock knows it up to {newest()}: a "
                "newer one has opened it. Run that one, or restore a backup from before"
            )
        if now is None or now != (to or newest()):
            config.attributes["connection"] = connection
            command.upgrade(config, to or "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
