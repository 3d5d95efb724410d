"""Reservations and locks: what running changes hold, so that two safe ones are not unsafe together.

A reservation is taken before the act, in the transaction that writes the intent, and given back
when the change has ended; one that is stuck keeps it until a person clears it. Counting what is
"currently" touched would race; a reservation does not.
"""

from sqlalchemy import Column, Connection, String, Table, Text, bindparam, select

from interlock_guardrails.metadata import metadata
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.identity import Target

reservations = Table(
    "reservations",
    metadata,
    Column("change_id", String(40), primary_key=True),
    Column("target", String(250), nullable=False, unique=True),
    Column("reach", Text, nullable=False),
)

_ALL = select(reservations.c.change_id, reservations.c.reach)
_HOLDER = select(reservations.c.change_id).where(reservations.c.target == bindparam("wanted"))
_HOLDS = select(reservations.c.change_id).where(reservations.c.change_id == bindparam("holder"))
_TAKE = reservations.insert()
_GIVE_BACK = reservations.delete().where(reservations.c.change_id == bindparam("holder"))


def take(connection: Connection, change_id: str, target: Target, reach: BlastRadius) -> bool:
    """Lock the target and reserve the reach; False when another change holds the target."""
    holder = connection.execute(_HOLDER, {"wanted": str(target)}).scalar_one_or_none()
    if holder is not None:
        return bool(holder == change_id)
    row = {"change_id": change_id, "target": str(target), "reach": reach.model_dump_json()}
    connection.execute(_TAKE, row)
    return True


def give_back(connection: Connection, change_id: str) -> None:
    """Release what a change holds; nothing happens when it holds nothing."""
    connection.execute(_GIVE_BACK, {"holder": change_id})


def holds(connection: Connection, change_id: str) -> bool:
    """Whether a change holds anything."""
    return connection.execute(_HOLDS, {"holder": change_id}).first() is not None


def held_by_others(connection: Connection, *besides: str | None) -> list[BlastRadius]:
    """The reach of every change that runs now, except these: itself, and its plan."""
    return [
        BlastRadius.model_validate_json(row.reach)
        for row in connection.execute(_ALL)
        if row.change_id not in besides
    ]
