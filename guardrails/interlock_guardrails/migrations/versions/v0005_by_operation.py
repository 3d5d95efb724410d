"""Changes are found by their operation: what holds a request looks for its own every few seconds.

A store from before versions were kept may have the index already.
"""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create what is missing."""
    op.create_index("changes_by_operation", "changes", ["operation", "state"], if_not_exists=True)
