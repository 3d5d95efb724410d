"""Changes as rows: the only place that moves a change from one state to the next."""

import logging
import uuid
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    Row,
    String,
    Table,
    Text,
    bindparam,
    func,
    select,
    tuple_,
)

from interlock_guardrails.metadata import metadata
from interlock_guardrails.noting import note
from interlock_tools.change import ENDED, TRANSITIONS, Change, ChangeState, Step
from interlock_tools.errors import ConflictError, NotFoundError
from interlock_tools.identity import Principal

log = logging.getLogger(__name__)

changes = Table(
    "changes",
    metadata,
    Column("change_id", String(40), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("state", String(20), nullable=False),
    Column("operation", String(80), nullable=False),
    Column("action_digest", String(64), nullable=False),
    Column("requester_id", String(200), nullable=False),
    Column("parent_id", String(40), index=True),
    Column("created_unix_s", Float, nullable=False),
    Column("watts_moved", BigInteger, nullable=False, server_default="0"),
    Column("gpus", BigInteger, nullable=False, server_default="0"),
    Column("document", Text, nullable=False),
    Index("changes_by_state", "state"),
    Index("changes_by_requester", "requester_id", "created_unix_s"),
    Index("changes_by_operation", "operation", "state"),
)


# Made once: what a statement costs is mostly its making.
_OPEN = [state.value for state in ChangeState if state not in ENDED]  # few rows, by an index
_INSERT = changes.insert()
_GET = select(changes.c.document, changes.c.version).where(
    changes.c.change_id == bindparam("wanted_id")
)
_MOVE = changes.update().where(
    changes.c.change_id == bindparam("wanted_id"), changes.c.version == bindparam("read_version")
)
_UNFINISHED = (
    select(changes.c.change_id, changes.c.document)
    .where(changes.c.state.in_(_OPEN))
    .order_by(changes.c.created_unix_s)
)
_STATES = select(changes.c.change_id, changes.c.state, changes.c.version).where(
    changes.c.operation.in_(bindparam("names", expanding=True))
)
_DOCUMENTS = select(changes.c.change_id, changes.c.document).where(
    changes.c.change_id.in_(bindparam("ids", expanding=True))
)
_OPEN_WITH_DIGEST = select(changes.c.document).where(
    changes.c.action_digest == bindparam("wanted_digest"), changes.c.state.in_(_OPEN)
)
_COUNT_SINCE = (
    select(func.count())
    .select_from(changes)
    .where(
        changes.c.requester_id == bindparam("requester"),
        changes.c.created_unix_s > bindparam("since_unix_s"),
        changes.c.change_id.not_in(bindparam("besides", expanding=True)),
    )
)


def new_change_id() -> str:
    """A fresh identifier, `chg-` and 12 hex digits."""
    return f"chg-{uuid.uuid4().hex[:12]}"


def _columns(change: Change) -> dict[str, Any]:
    reach = change.blast_radius
    return {
        "state": change.state.value,
        "operation": change.operation,
        "action_digest": change.action_digest,
        "requester_id": change.requester.id,
        "parent_id": change.parent_id,
        "created_unix_s": change.created_at.timestamp(),
        "watts_moved": 0 if reach is None else reach.watts_moved,
        "gpus": 0 if reach is None else reach.gpus,
        "document": change.model_dump_json(),
    }


def insert(connection: Connection, change: Change) -> None:
    """Write a new change."""
    connection.execute(_INSERT, {"change_id": change.change_id, "version": 1, **_columns(change)})
    note(connection, change)


def insert_once(connection: Connection, change: Change) -> None:
    """Write a change whose id says what it is; nothing happens where it stands already."""
    if connection.execute(_GET, {"wanted_id": change.change_id}).first() is None:
        insert(connection, change)


def children(connection: Connection, parent_id: str) -> list[Change]:
    """The changes that this one's approval covers, oldest first."""
    query = (
        select(changes.c.document)
        .where(changes.c.parent_id == parent_id)
        .order_by(changes.c.created_unix_s)
    )
    return [Change.model_validate_json(row.document) for row in connection.execute(query)]


def get(connection: Connection, change_id: str) -> Change:
    """One change as it stands.

    Raises:
        NotFoundError: there is none with this id.
    """
    return _read(connection, change_id)[0]


def latest(
    connection: Connection,
    *,
    limit: int,
    states: Sequence[ChangeState] = (),
    before: str | None = None,
) -> list[Change]:
    """The newest changes first, at most `limit`, optionally only those in `states`.

    `before` names a change: only what comes behind it in this order is given.

    Raises:
        NotFoundError: there is no change `before`.
    """
    query = (
        select(changes.c.change_id, changes.c.document)
        .order_by(changes.c.created_unix_s.desc(), changes.c.change_id.desc())
        .limit(limit)
    )
    if before is not None:
        at = get(connection, before).created_at.timestamp()
        query = query.where(
            tuple_(changes.c.created_unix_s, changes.c.change_id) < tuple_(at, before)
        )
    if states:
        query = query.where(changes.c.state.in_([state.value for state in states]))
    return _readable(connection.execute(query))


def unfinished(connection: Connection) -> list[Change]:
    """Every change that is not at its end, oldest first."""
    return _readable(connection.execute(_UNFINISHED))


def versions(connection: Connection, operations: Collection[str]) -> dict[str, tuple[str, int]]:
    """State and version of every change of these operations, by its id; cheap, for who looks often.

    A version grows with each write of its row.
    """
    rows = connection.execute(_STATES, {"names": list(operations)})
    return {row.change_id: (row.state, row.version) for row in rows}


def these(connection: Connection, change_ids: Collection[str]) -> list[Change]:
    """The changes of these ids that there are, in no order."""
    return _readable(connection.execute(_DOCUMENTS, {"ids": list(change_ids)}))


def _readable(rows: Iterable[Row[tuple[str, str]]]) -> list[Change]:
    """The changes in these rows; one that cannot be read, of a newer version, hides no other."""
    found: list[Change] = []
    for row in rows:
        try:
            found.append(Change.model_validate_json(row.document))
        except ValidationError:
            log.error("a change cannot be read", extra={"change_id": row.change_id})
    return found


def open_with_digest(connection: Connection, action_digest: str) -> Change | None:
    """The unfinished change that asks for exactly this action, if there is one."""
    row = connection.execute(_OPEN_WITH_DIGEST, {"wanted_digest": action_digest}).first()
    return None if row is None else Change.model_validate_json(row.document)


def count_last_hour(
    connection: Connection, requester: Principal, now: datetime, besides: Collection[str]
) -> int:
    """How many changes this principal proposed in the hour before `now`, refused ones too.

    `besides` are changes that do not count: the one that is being decided, and its parent.
    """
    since = (now - timedelta(hours=1)).timestamp()
    asked = {"requester": requester.id, "since_unix_s": since, "besides": list(besides)}
    return int(connection.execute(_COUNT_SINCE, asked).scalar_one())


def move(
    connection: Connection,
    change_id: str,
    to: ChangeState,
    *,
    at: datetime,
    why: str,
    came_from: ChangeState,
    **updates: Any,
) -> Change:
    """Move a change one step on, in the caller's transaction.

    Raises:
        ConflictError: it is no longer in `came_from`; somebody else moved it; nothing was written.
        ValueError: there is no such transition (a mistake of ours).
    """
    if to not in TRANSITIONS[came_from]:
        raise ValueError(f"a change does not go from {came_from} to {to}")
    change, version = _read(connection, change_id)
    if change.state is not came_from:
        raise ConflictError(f"change {change_id} is {change.state}, not {came_from}; look again")
    history = (*change.history, Step(to, at, why))
    moved = change.model_copy(update={"state": to, "history": history, **updates})
    _write(connection, moved, version)
    note(connection, moved)
    return moved


def amend(connection: Connection, change: Change, **updates: Any) -> Change:
    """Write what was learnt about a change that stays in its state (a vote, evidence).

    Raises:
        ConflictError: it moved since; nothing was written.
    """
    known, version = _read(connection, change.change_id)
    if known != change:
        raise ConflictError(f"change {change.change_id} moved on; look again")
    amended = change.model_copy(update=updates)
    _write(connection, amended, version)
    return amended


def _read(connection: Connection, change_id: str) -> tuple[Change, int]:
    row = connection.execute(_GET, {"wanted_id": change_id}).one_or_none()
    if row is None:
        raise NotFoundError(f"no change {change_id!r}; list_changes shows the latest")
    return Change.model_validate_json(row.document), row.version


def _write(connection: Connection, change: Change, read_version: int) -> None:
    """Replace the row that was read in this transaction; the version says that it still is."""
    written = {"version": read_version + 1, **_columns(change)}
    row = {"wanted_id": change.change_id, "read_version": read_version}
    if connection.execute(_MOVE, row | written).rowcount != 1:
        raise ConflictError(f"change {change.change_id} moved on; look again")
