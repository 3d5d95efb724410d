"""The stop: one row that says whether anything new may be executed. Unreadable means stopped."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Boolean, Column, Connection, Float, Integer, String, Table, select

from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.metadata import metadata
from interlock_guardrails.store import Store
from interlock_tools.clock import Clock
from interlock_tools.errors import InvalidRequestError
from interlock_tools.identity import Principal, PrincipalKind

BY_MAX_CHARS = 200
WHY_MAX_CHARS = 500

stop_state = Table(
    "stop_state",
    metadata,
    Column("row", Integer, primary_key=True),
    Column("stopped", Boolean, nullable=False),
    Column("by", String(BY_MAX_CHARS), nullable=False),
    Column("why", String(WHY_MAX_CHARS), nullable=False),
    Column("at_unix_s", Float, nullable=False),
)

_READ = select(stop_state)


class StopState(NamedTuple):
    """Whether we are stopped, by whom and why."""

    stopped: bool
    by: str
    why: str


async def record_stop(
    store: Store, ledger: Ledger, clock: Clock, by: Principal, *, stopped: bool, why: str
) -> StopState:
    """Stop or resume, in one transaction with its ledger record.

    Raises:
        InvalidRequestError: anyone may stop, but only a person may resume.
    """
    now = clock.now()
    why = _storable(why)

    def transact(connection: Connection) -> StopState:
        state = write_stop(connection, stopped=stopped, by=by, why=why, now=now)
        body = {"stopped": stopped, "by": _storable(by.id), "why": why}
        ledger.append(connection, RecordKind.STOP, body)
        return state

    return await store.write(transact)


def read_stop(connection: Connection) -> StopState:
    """The present state; a store without the row has never been stopped."""
    row = connection.execute(_READ).one_or_none()
    if row is None:
        return StopState(stopped=False, by="", why="")
    return StopState(stopped=row.stopped, by=row.by, why=row.why)


def write_stop(
    connection: Connection, *, stopped: bool, by: Principal, why: str, now: datetime
) -> StopState:
    """Stop or resume.

    Raises:
        InvalidRequestError: anyone may stop, but only a person may resume.
    """
    if not stopped and by.kind is not PrincipalKind.PERSON:
        raise InvalidRequestError("only a person can resume; ask one at the console")
    connection.execute(stop_state.delete())
    connection.execute(
        stop_state.insert().values(
            row=1,
            stopped=stopped,
            by=_storable(by.id)[:BY_MAX_CHARS],
            why=_storable(why)[:WHY_MAX_CHARS],
            at_unix_s=now.timestamp(),
        )
    )
    return StopState(stopped=stopped, by=by.id, why=why)


def _storable(text: str) -> str:
    """The text as every store and the ledger take it: no word keeps the stop from being on."""
    return text.encode(errors="replace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")
