"""Whoever can write the store: rows changed, copied and invented without a key of ours."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Table

from interlock_guardrails import changes
from interlock_guardrails.approvals import binding_digest
from interlock_tools.change import Change, Vote
from tests.guardrails.conftest import House


async def rewrite(house: House, change: Change, **updates: Any) -> Change:
    """Write other things into the row of a change, its state too, past every check."""
    row = (await house.guard.get(change.change_id)).model_copy(update=updates)

    def write(connection: Connection) -> None:
        connection.execute(
            changes.changes.update()
            .where(changes.changes.c.change_id == change.change_id)
            .values(
                version=changes.changes.c.version + 1,
                state=row.state.value,
                document=row.model_dump_json(),
            )
        )

    await house.guard.store.write(write)
    return row


async def rewrite_document(house: House, table: Table, old: str, new: str) -> None:
    """Replace words in every document of a table."""

    def write(connection: Connection) -> None:
        for row in connection.execute(table.select()).all():
            connection.execute(
                table.update()
                .where(table.primary_key.columns[0] == row[0])
                .values(document=row.document.replace(old, new))
            )

    await house.guard.store.write(write)


def invented(change: Change, voter: str, signature: str = "") -> Vote:
    """A vote that nobody cast."""
    return Vote(
        voter=voter,
        role="operator",
        approve=True,
        binding_digest=change.binding_digest or "",
        at=change.created_at,
        channel="console:local",
        signature=signature,
    )


def rebound(change: Change, **updates: Any) -> Change:
    """The change with other contents, and with a binding digest that fits them."""
    other = change.model_copy(update=updates)
    if other.decision is None:
        raise ValueError("nothing to bind")
    bound = binding_digest(other.action_digest, other.decision, other.facts)
    return other.model_copy(update={"binding_digest": bound})


Forge = Callable[[Change], dict[str, Any]]
