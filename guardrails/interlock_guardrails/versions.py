"""How far changes have moved, without reading them: their versions, by whichever process."""

from collections.abc import Collection

from sqlalchemy import Connection, bindparam, select

from interlock_guardrails.changes import changes
from interlock_tools.change import ENDED, ChangeState

OPEN = tuple(state for state in ChangeState if state not in ENDED)
_VERSIONS = select(changes.c.change_id, changes.c.version).where(
    changes.c.change_id.in_(bindparam("wanted", expanding=True))
)
_NEWEST_OPEN = (
    select(changes.c.change_id, changes.c.version)
    .where(changes.c.state.in_([state.value for state in OPEN]))
    .order_by(changes.c.created_unix_s.desc(), changes.c.change_id.desc())
    .limit(bindparam("most"))
)


def versions_of(connection: Connection, change_ids: Collection[str]) -> dict[str, int]:
    """The version of each of these that there is; it grows with every move, vote and evidence."""
    rows = connection.execute(_VERSIONS, {"wanted": list(change_ids)})
    return {row.change_id: row.version for row in rows}


def open_versions(connection: Connection, limit: int) -> tuple[tuple[str, int], ...]:
    """The newest changes that have not ended, at most `limit`, each with its version."""
    rows = connection.execute(_NEWEST_OPEN, {"most": limit})
    return tuple((row.change_id, row.version) for row in rows)


def ids_beginning(connection: Connection, prefix: str, limit: int) -> list[str]:
    """The newest changes whose id begins so, at most `limit`."""
    query = (
        select(changes.c.change_id)
        .where(changes.c.change_id.startswith(prefix, autoescape=True))
        .order_by(changes.c.created_unix_s.desc(), changes.c.change_id.desc())
        .limit(limit)
    )
    return [str(row.change_id) for row in connection.execute(query)]
