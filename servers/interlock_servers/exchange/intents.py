"""What we ask of the BMS at this moment, read out of the changes: there is no other memory of it.

The last change that has begun on a point decides. A request is asked for while it is verified and
once it has succeeded; one that failed, or of which nobody knows, is not. What takes a request back
is said for some minutes, and then nothing is. An expiry ends the request that it belongs to and no
later one.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection

from interlock_guardrails import changes
from interlock_guardrails.standing import is_expiry
from interlock_guardrails.store import Store
from interlock_servers.exchange.requests import CDU_SUPPLY, Asked
from interlock_tools.change import Change, ChangeState

WITHDRAWN_FOR = timedelta(seconds=330)  # three publications, and time for the BMS to show it
S = ChangeState
_HOLDS = frozenset({S.VERIFYING, S.SUCCEEDED})
_BACK = frozenset({S.COMPENSATING, S.COMPENSATED})
_OVER = frozenset({S.SUCCEEDED, S.FAILED, S.COMPENSATED, S.STUCK})
_NEVER_BEGAN = frozenset({"refused", "rejected", "expired", "superseded", "proposed"})


class Does(NamedTuple):
    """What a change of one operation does to a point: whose, and which value it asks for.

    The value stands in an argument; where none is named the operation takes a request back. Of our
    readiness the argument `point` says which of its two points is meant.
    """

    asked: Asked | None
    subject: str
    value: str | None = None
    fixed: float | None = None
    lasts: str | None = None

    @property
    def withdraws(self) -> bool:
        """Whether it takes back."""
        return self.value is None and self.fixed is None


class Intent(NamedTuple):
    """What is asked for on one point: by which change, since when, and until when at most.

    `value` None: the value that takes requests back. `before_c` is what a setpoint was when it was
    asked for, None where that is not known.
    """

    change_id: str
    asked: Asked
    whose: str
    value: float | str | None
    since: datetime
    ends_at: datetime | None
    before_c: float | None = None


Where = tuple[Asked, str]


class Intents:
    """Reads them out of the store, as often as is liked."""

    def __init__(self, store: Store, does: Mapping[str, Does]) -> None:
        self._store = store
        self._does = dict(does)
        self._ended: dict[str, Change] = {}

    async def standing(self, now: datetime) -> dict[Where, Intent]:
        """What is asked for now, by point.

        Raises:
            Exception: the store cannot be read; then nobody knows what we ask for.
        """
        return standing(await self._store.read(self._read), self._does, now)

    def _read(self, connection: Connection) -> list[Change]:
        known = changes.versions(connection, self._does)
        began = {one for one, (state, _) in known.items() if state not in _NEVER_BEGAN}
        found = changes.these(connection, began - self._ended.keys())
        # What has ended is never written again, but for what a person clears; that moves nothing.
        self._ended |= {c.change_id: c for c in found if c.state in _OVER}
        return [*self._ended.values(), *(c for c in found if c.state not in _OVER)]


def standing(
    found: Iterable[Change], does: Mapping[str, Does], now: datetime
) -> dict[Where, Intent]:
    """What these changes ask for now, by point."""
    begun = [(at, change) for change in found if (at := _began(change)) is not None]
    last: dict[Where, Change] = {}
    for _, change in sorted(begun, key=lambda one: (one[0], one[1].change_id)):
        what = does[change.operation]
        where = _where(what, change)
        before = last.get(where)
        if what.withdraws and is_expiry(change) and _is_of_another(change, before):
            continue
        last[where] = change
    intents = ((where, _intent(where, change, does, now)) for where, change in last.items())
    return {where: intent for where, intent in intents if intent is not None}


def _is_of_another(expiry: Change, before: Change | None) -> bool:
    return before is None or before.change_id != expiry.parent_id


def _intent(where: Where, change: Change, does: Mapping[str, Does], now: datetime) -> Intent | None:
    what, began = does[change.operation], _began(change)
    if began is None:
        return None
    if what.withdraws:
        stands = now - began <= WITHDRAWN_FOR
        return Intent(change.change_id, *where, None, began, None) if stands else None
    if change.state in _BACK:
        since = next((step.at for step in change.history if step.state is S.COMPENSATING), began)
        stands = now - since <= WITHDRAWN_FOR
        return Intent(change.change_id, *where, None, since, None) if stands else None
    if change.state not in _HOLDS:
        return None
    value = what.fixed if what.value is None else change.arguments[what.value]
    ends_at = None
    if what.lasts is not None and change.state is S.SUCCEEDED:
        ends_at = change.history[-1].at + timedelta(seconds=float(change.arguments[what.lasts]))
    seen = next((fact.value for fact in change.facts if fact.kind == CDU_SUPPLY), None)
    before_c = None if seen is None else seen["target_c"]
    return Intent(change.change_id, *where, value, began, ends_at, before_c)


def _began(change: Change) -> datetime | None:
    return next((step.at for step in change.history if step.state is S.EXECUTING), None)


def _where(what: Does, change: Change) -> Where:
    whose = str(change.arguments[what.subject])
    return (Asked(whose) if what.asked is None else what.asked, whose)
