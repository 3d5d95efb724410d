"""Transitions noted while a transaction runs, and told to telemetry once it is committed."""

from sqlalchemy import Connection

from interlock_tools import measures
from interlock_tools.change import Change, ChangeState
from interlock_tools.telemetry import Attributes

NOTED = "interlock.noted"  # in the connection's own notes
S = ChangeState


def begin(connection: Connection) -> list[Change]:
    """A fresh list for this transaction; what another left that was undone is forgotten."""
    noted: list[Change] = []
    connection.info[NOTED] = noted
    return noted


def note(connection: Connection, change: Change) -> None:
    """This change has come into its state, if the transaction is committed."""
    noted: list[Change] | None = connection.info.get(NOTED)
    if noted is not None:
        noted.append(change)


def tell(noted: list[Change]) -> None:
    """They are committed: count them, and how long each has taken by the site's clock."""
    for change in noted:
        of: Attributes = {measures.OPERATION: change.operation}
        measures.TRANSITIONS.add(1, {**of, measures.STATE: change.state.value})
        if len(change.history) < 2:
            continue
        took_s = (change.history[-1].at - change.created_at).total_seconds()
        if change.state is S.SUCCEEDED:
            measures.TO_VERIFIED.record(took_s, of)
        elif change.state is S.AUTHORISED and change.history[-2].state is S.AWAITING_APPROVAL:
            measures.TO_APPROVAL.record(took_s, of)
