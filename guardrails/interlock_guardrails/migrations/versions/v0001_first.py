"""The first version: changes, reservations, the stop and the ledger.

A store from before versions were kept has these tables, or some of them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create what is missing."""
    op.create_table(
        "changes",
        sa.Column("change_id", sa.String(40), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("operation", sa.String(80), nullable=False),
        sa.Column("action_digest", sa.String(64), nullable=False),
        sa.Column("requester_id", sa.String(200), nullable=False),
        sa.Column("created_unix_s", sa.Float, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_index("changes_by_state", "changes", ["state"], if_not_exists=True)
    op.create_index(
        "changes_by_requester", "changes", ["requester_id", "created_unix_s"], if_not_exists=True
    )
    op.create_table(
        "reservations",
        sa.Column("change_id", sa.String(40), primary_key=True),
        sa.Column("target", sa.String(250), nullable=False, unique=True),
        sa.Column("reach", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "stop_state",
        sa.Column("row", sa.Integer, primary_key=True),
        sa.Column("stopped", sa.Boolean, nullable=False),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("why", sa.String(500), nullable=False),
        sa.Column("at_unix_s", sa.Float, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "ledger_record",
        sa.Column("seq", number, primary_key=True, autoincrement=False),
        sa.Column("canonical", sa.LargeBinary, nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "ledger_head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("size", number, nullable=False),
        sa.Column("frontier", sa.LargeBinary, nullable=False),
        sa.CheckConstraint("id = 1", name="ledger_head_is_one_row"),
        if_not_exists=True,
    )
    op.create_table(
        "ledger_checkpoint",
        sa.Column("size", number, primary_key=True, autoincrement=False),
        sa.Column("note", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "ledger_key",
        sa.Column("size", number, primary_key=True, autoincrement=False),
        sa.Column("vkey", sa.Text, nullable=False),
        if_not_exists=True,
    )
