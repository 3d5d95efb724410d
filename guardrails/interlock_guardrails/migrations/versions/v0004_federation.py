"""Approved tool lists of other MCP servers.

A store from before versions were kept may have the table already.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create what is missing."""
    op.create_table(
        "federation_approvals",
        sa.Column("approval_id", sa.String(40), primary_key=True),
        sa.Column("server", sa.String(40), nullable=False),
        sa.Column("site", sa.String(200), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("listed", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_index(
        "federation_approvals_by_server",
        "federation_approvals",
        ["server", "site"],
        if_not_exists=True,
    )
