"""Which load targets are ours, read out of the changes: there is no other memory of it.

An operation holds no state of a change, and another process may finish what this one began; so the
correlation id of a target is made from the id of its change, and the change is found in the store.
"""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection

from interlock_guardrails import changes
from interlock_guardrails.action import parse
from interlock_guardrails.store import Store
from interlock_servers.flex.publishing import correlation_of
from interlock_tools.change import Change, ChangeState
from interlock_tools.operation import Arguments, Operation

SETS = "flex.set_load_target"
S = ChangeState
_UNDER_WAY = frozenset({S.EXECUTING, S.UNKNOWN, S.VERIFYING})
_NEVER_BEGAN = frozenset({S.REFUSED, S.REJECTED, S.EXPIRED, S.SUPERSEDED, S.PROPOSED})


class Mine(NamedTuple):
    """A change of ours that is under way, and when it began to act."""

    change_id: str
    correlation_id: str
    began_at: datetime


class Sent:
    """What we have sent as one ISV."""

    def __init__(self, store: Store, source: str) -> None:
        self._store = store
        self._source = source

    async def under_way(self, operation: Operation[Any], arguments: Arguments) -> Mine | None:
        """The change that is carrying this out; the lock on its target lets there be only one."""
        found = await self._store.read(changes.unfinished)
        for change in found:
            began = _began(change)
            if (
                change.operation == operation.name
                and change.state in _UNDER_WAY
                and began is not None
                and parse(operation, change.arguments) == arguments
            ):
                name = correlation_of(self._source, change.change_id)
                return Mine(change.change_id, name, began)
        return None

    async def correlation_ids(self) -> frozenset[str]:
        """Of every target that was sent, or may have been."""

        def read(connection: Connection) -> frozenset[str]:
            known = changes.versions(connection, [SETS])
            return frozenset(
                correlation_of(self._source, change_id)
                for change_id, (state, _) in known.items()
                if state not in _NEVER_BEGAN
            )

        return await self._store.read(read)


def _began(change: Change) -> datetime | None:
    return next((step.at for step in change.history if step.state is S.EXECUTING), None)
