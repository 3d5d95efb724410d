"""What agents have spent of their budgets: the watts that they moved, the GPUs that they reached.

The columns of the changes are summed; no document is read. What a change covers by its own approval
(the steps of a plan, and its expiry) was spent with it and is not counted a second time.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select, union_all

from interlock_guardrails.changes import changes
from interlock_guardrails.rules import SiteRules
from interlock_policies.situation import share_permille
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.change import ENDED, ChangeState
from interlock_tools.identity import Principal

HOUR = timedelta(hours=1)
NOT_SPENT = (
    ChangeState.REFUSED,
    ChangeState.REJECTED,
    ChangeState.EXPIRED,
    ChangeState.SUPERSEDED,
)


def _asked_for(*conditions: ColumnElement[bool]) -> Select[Any]:
    return select(changes.c.watts_moved, changes.c.gpus).where(
        changes.c.requester_id == bindparam("requester"),
        changes.c.parent_id.is_(None),
        changes.c.change_id.not_in(bindparam("besides", expanding=True)),
        *conditions,
    )


# Made once, in two halves so that each finds its rows by an index: those of the hour, and older
# ones that are still open and may therefore still act.
_COUNTED = union_all(
    _asked_for(
        changes.c.created_unix_s > bindparam("since_unix_s"),
        changes.c.state.not_in([state.value for state in NOT_SPENT]),
    ),
    _asked_for(
        changes.c.created_unix_s <= bindparam("since_unix_s"),
        changes.c.state.in_([state.value for state in ChangeState if state not in ENDED]),
    ),
).subquery()
_SPENT = select(
    func.coalesce(func.sum(_COUNTED.c.watts_moved), 0).label("watts_moved"),
    func.coalesce(func.sum(_COUNTED.c.gpus), 0).label("gpus"),
)


def spent_with_permille(
    connection: Connection,
    rules: SiteRules,
    requester: Principal,
    reach: BlastRadius,
    now: datetime,
    besides: Collection[str],
) -> int:
    """The largest share of a budget that this principal would have spent with this change as well.

    In thousandths, rounded up; 0 where it has no budget. `besides` are changes that do not count:
    the one that is being decided, and its parent.
    """
    budget = rules.budget_of(requester)
    if budget is None:
        return 0
    asked = {
        "requester": requester.id,
        "since_unix_s": (now - HOUR).timestamp(),
        "besides": list(besides),
    }
    row = connection.execute(_SPENT, asked).one()
    of_each = (
        (int(row.watts_moved) + reach.watts_moved, budget.watts_moved_per_hour),
        (int(row.gpus) + reach.gpus, budget.gpus_reached_per_hour),
    )
    return max(share_permille(spent, most) for spent, most in of_each if most is not None)
