"""Whoever can write the store: rows changed, copied and invented without a key of ours."""

from typing import Any

from sqlalchemy import Connection, Table

from interlock_guardrails import changes, statements
from interlock_guardrails.approvals import STATEMENT, what_a_vote_says
from interlock_guardrails.ledger.signing import Signer
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


def signed(signer: Signer, change: Change, vote: Vote) -> Vote:
    """The vote with a genuine note by this key."""
    note = statements.sign(signer, STATEMENT, what_a_vote_says(change, vote))
    return vote.model_copy(update={"signature": note})
