"""Plans and expiries have a parent; delegations, reviews of broken glass, grants of autonomy.

A store from before versions were kept may have some of these already.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create what is missing."""
    columns = sa.inspect(op.get_bind()).get_columns("changes")
    if "parent_id" not in {column["name"] for column in columns}:
        op.add_column("changes", sa.Column("parent_id", sa.String(40)))
    op.create_index("ix_changes_parent_id", "changes", ["parent_id"], if_not_exists=True)
    op.create_table(
        "delegations",
        sa.Column("delegation_id", sa.String(40), primary_key=True),
        sa.Column("delegate", sa.String(200), nullable=False),
        sa.Column("role", sa.String(80), nullable=False),
        sa.Column("expires_unix_s", sa.Float, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_index(
        "delegations_by_delegate", "delegations", ["delegate", "role"], if_not_exists=True
    )
    op.create_table(
        "break_glass_reviews",
        sa.Column("change_id", sa.String(40), primary_key=True),
        sa.Column("due_unix_s", sa.Float, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "autonomy_grants",
        sa.Column("grant_id", sa.String(40), primary_key=True),
        sa.Column("scope", sa.String(80), nullable=False),
        sa.Column("site", sa.String(200), nullable=False),
        sa.Column("expires_unix_s", sa.Float, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_index(
        "autonomy_grants_by_scope", "autonomy_grants", ["scope", "site"], if_not_exists=True
    )
