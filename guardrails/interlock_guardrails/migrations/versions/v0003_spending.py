"""Changes say in columns what they move and reach, so that an agent's budget is a sum.

A store from before versions were kept may have the columns already. Older rows get theirs from the
document; one that cannot be read spends nothing, and cannot be carried out either.
"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

AT_ONCE = 1000
COLUMNS = ("watts_moved", "gpus")

changes = sa.table(
    "changes",
    sa.column("change_id", sa.String),
    sa.column("document", sa.Text),
    sa.column("watts_moved", sa.BigInteger),
    sa.column("gpus", sa.BigInteger),
)


def upgrade() -> None:
    """Add what is missing, and fill it."""
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("changes")}
    missing = [name for name in COLUMNS if name not in known]
    for name in missing:
        op.add_column("changes", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    if missing:
        _fill(op.get_bind())


def _fill(connection: sa.Connection) -> None:
    """Every row from its document, some at a time: a store can be larger than memory."""
    page = sa.select(changes.c.change_id, changes.c.document).order_by(changes.c.change_id)
    write = (
        changes.update()
        .where(changes.c.change_id == sa.bindparam("of_id"))
        .values(watts_moved=sa.bindparam("moved"), gpus=sa.bindparam("reached"))
    )
    after = ""
    while rows := connection.execute(page.where(changes.c.change_id > after).limit(AT_ONCE)).all():
        after = rows[-1].change_id
        spent = [{"of_id": row.change_id, **_spent(row.document)} for row in rows]
        connection.execute(write, spent)


def _spent(document: str) -> dict[str, Any]:
    """What this version calls the reach of a change; none where it has none."""
    try:
        reach = json.loads(document)["blast_radius"] or {}
        return {"moved": int(reach.get("watts_moved", 0)), "reached": int(reach.get("gpus", 0))}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {"moved": 0, "reached": 0}
