"""What must hold after every run, judged from the outside: the store, and the file of acts."""

import json
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import Connection, Engine, select

from interlock_evals.chaos.plant import Act, MoveValve
from interlock_evals.chaos.processes import ORIGIN, House
from interlock_guardrails import changes
from interlock_guardrails.engine import read_only
from interlock_guardrails.ledger import rows
from interlock_guardrails.ledger.tables import records
from interlock_guardrails.ledger.verify import parse_key, verify_lines
from interlock_guardrails.reservations import reservations
from interlock_tools.change import Change, ChangeState

S = ChangeState
ACTS_IN = {
    S.AWAITING_APPROVAL: (0,),
    S.AUTHORISED: (0,),
    S.REFUSED: (0,),
    S.SUCCEEDED: (1,),
    S.FAILED: (0,),  # a move that acted is brought back
    S.COMPENSATED: (0, 1),
    S.STUCK: (0, 1),
}


@dataclass
class Found:
    """What was found in one run, or in many: counts, and a sentence for each thing that is wrong.

    Attributes:
        double_executions: acts beyond the first for one change.
        acts_without_intent: acts for a change that has no intent on the ledger.
        approvals_reused: intents beyond the first under one vote, and votes that two changes share.
        acts_without_approval: acts that need a vote and have none, of their own or their plan's.
        unended: changes that neither ended nor wait for people or their time.
        contradictions: changes whose end is not what was done.
        held_for_nothing: reservations of changes that ended, stuck ones excepted.
        ledgers_broken: ledgers that do not verify.
    """

    kills: int = 0
    races: int = 0
    changes: int = 0
    acts: int = 0
    brought_back: int = 0
    double_executions: int = 0
    acts_without_intent: int = 0
    approvals_reused: int = 0
    acts_without_approval: int = 0
    unended: int = 0
    contradictions: int = 0
    held_for_nothing: int = 0
    ledgers_broken: int = 0
    states: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        """Count another run in."""
        for part in fields(self):
            mine = getattr(self, part.name)
            if isinstance(mine, Counter):
                mine.update(getattr(other, part.name))
            else:
                setattr(self, part.name, mine + getattr(other, part.name))

    def note(self, key: str, number: int, sentence: str) -> None:
        """Count what is wrong, and say it."""
        if number > 0:
            setattr(self, key, getattr(self, key) + number)
            self.wrong.append(f"{key}: {sentence}")


def look(house: House, engine: Engine) -> Found:
    """Everything that can be found out about a run that is over."""
    with read_only(engine).connect() as connection:
        return _look(house, connection)


def _look(house: House, connection: Connection) -> Found:
    every = [
        Change.model_validate_json(document)
        for document in connection.scalars(select(changes.changes.c.document))
    ]
    log = [json.loads(row) for row in connection.scalars(select(records.c.canonical))]
    intents = Counter(record["body"]["change_id"] for record in log if record["kind"] == "intent")
    acts = house.valves.acts()
    found = Found(
        changes=len(every),
        acts=sum(act.what == "act" for act in acts),
        brought_back=sum(act.what == "back" for act in acts),
        states=Counter(str(change.state) for change in every),
    )
    _judge_acts(found, acts, {change.change_id: change for change in every}, intents)
    _judge_votes(found, every, intents)
    now = house.clock.now()
    for change in every:
        waits = change.state is S.AWAITING_APPROVAL and change.open_at(now)
        waits |= change.state is S.AUTHORISED and change.not_before is not None
        found.note("unended", not change.ended and not waits, change.sentence())
    ended = {change.change_id for change in every if change.ended and change.state is not S.STUCK}
    held = set(connection.scalars(select(reservations.c.change_id)))
    found.note("held_for_nothing", len(held & ended), f"{held & ended} hold something")
    _judge_ledger(found, connection, house.ledger_key.vkey)
    return found


def _judge_acts(
    found: Found, acts: list[Act], every: dict[str, Change], intents: Counter[str]
) -> None:
    times = Counter(act.key for act in acts if act.what == "act")
    for key, count in times.items():
        found.note("double_executions", count - 1, f"{key} was done {count} times")
        found.note("acts_without_intent", not intents[str(key)], f"{key} has no intent")
        change = every.get(str(key))
        approved = change is not None and _is_approved(change, every)
        found.note("acts_without_approval", not approved, f"{key} was not approved")
    for change in every.values():
        if change.operation == MoveValve.name and change.state in ACTS_IN:
            count = times[change.change_id]
            wrong = count not in ACTS_IN[change.state]
            found.note("contradictions", wrong, f"{count} acts, and {change.sentence()}")


def _is_approved(change: Change, every: dict[str, Change]) -> bool:
    covers: Change | None = change
    while covers is not None and covers.parent_id is not None:
        covers = every.get(covers.parent_id)
    return covers is not None and any(vote.approve for vote in covers.votes)


def _judge_votes(found: Found, every: list[Change], intents: Counter[str]) -> None:
    votes = Counter(vote.signature for change in every for vote in change.votes)
    for change in every:
        if change.votes:
            number = intents[change.change_id]
            found.note("approvals_reused", number - 1, f"{change.change_id} began {number} times")
    shared = sum(count - 1 for count in votes.values())
    found.note("approvals_reused", shared, "two changes show one vote")


def _judge_ledger(found: Found, connection: Connection, vkey: str) -> None:
    result: Any = verify_lines(rows.export_lines(connection), [parse_key(vkey)], origin=ORIGIN)
    tree = rows.tree_of(connection)
    same = (tree.size, tree.root()) == (result.records, result.root)
    found.note("ledgers_broken", not (result.ok and same), result.sentence)
