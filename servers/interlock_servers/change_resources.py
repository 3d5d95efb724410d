"""Changes as resources: one, those that are open, and what is laid out for whoever has to judge.

They tell when a change moves, whoever moved it: a person at a console, a worker, another replica.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from interlock_guardrails import changes
from interlock_guardrails.guard import Guard
from interlock_guardrails.versions import OPEN, ids_beginning, open_versions, versions_of
from interlock_servers import runbooks
from interlock_servers.change_view import ChangeRow, ChangeView
from interlock_servers.page import Listing, Page
from interlock_servers.plant_text import PlantJson, PlantName, PlantWords
from interlock_servers.surface.completing import MAX_VALUES
from interlock_servers.surface.offering import Attached, Surface
from interlock_servers.surface.watching import Variables
from interlock_tools.change import Change

ONE = "change://{change_id}"
ALL_OPEN = "changes://open"
MOST_OPEN = 200

ChangeId = Annotated[
    str, Field(pattern=r"^chg-[0-9a-f]{12}$", description="such as chg-0123456789ab")
]


class OpenChanges(Listing):
    """Changes that have not ended, newest first."""

    listed: ClassVar[str] = "changes"

    changes: list[ChangeRow]
    more: bool = Field(description="there are older ones, which list_changes shows")


class FactSeen(BaseModel):
    """A fact that the decision rests on: where it came from and when the plant was so."""

    kind: str
    subject: PlantName
    origin: PlantName
    observed_at: datetime


class VoteCast(BaseModel):
    """What one person said."""

    who: PlantName
    role: PlantName
    approve: bool
    at: datetime


class Brief(Page):
    """What stands behind a change, for somebody who has to judge it."""

    change_id: str
    requester: PlantName
    on_behalf_of: PlantName | None = None
    answered_for_by: PlantName | None = None
    arguments: PlantJson
    facts: list[FactSeen]
    votes: list[VoteCast]
    history: list[PlantWords]
    runbooks: dict[str, str] = Field(description="what people wrote for each rule that decided")

    @classmethod
    def of(cls, change: Change, now: datetime) -> "Brief":
        """The brief of a change as it stands at `now`."""
        rules = () if change.decision is None else change.decision.rules
        sections = {rule.rule_id: runbooks.section(rule.rule_id) for rule in rules}
        return cls(
            observed_at=now,
            origin="guard",
            change_id=change.change_id,
            requester=change.requester.id,
            on_behalf_of=change.requester.on_behalf_of,
            answered_for_by=change.requester.owner,
            arguments=change.arguments,
            facts=[
                FactSeen(
                    kind=fact.kind,
                    subject=str(fact.subject),
                    origin=fact.origin,
                    observed_at=fact.observed_at,
                )
                for fact in change.facts
            ],
            votes=[
                VoteCast(who=vote.who(), role=vote.role, approve=vote.approve, at=vote.at)
                for vote in change.votes
            ],
            history=[
                f"{step.at.isoformat(timespec='seconds')} {step.state}: {step.why}"
                for step in change.history
            ],
            runbooks={rule: text for rule, text in sections.items() if text is not None},
        )


def offer_changes(surface: Surface, guard: Guard) -> None:
    """One change, the open ones, and two prompts about a change."""

    async def marks(wanted: Sequence[Variables]) -> Sequence[object]:
        ids = [one["change_id"] for one in wanted]
        known = await guard.store.read(lambda connection: versions_of(connection, ids))
        return [known.get(change_id) for change_id in ids]

    async def open_marks(wanted: Sequence[Variables]) -> Sequence[object]:
        mark = await guard.store.read(lambda connection: open_versions(connection, MOST_OPEN + 1))
        return [mark] * len(wanted)

    async def ids(prefix: str) -> Sequence[str]:
        most = MAX_VALUES + 1  # one more tells that there is more
        return await guard.store.read(lambda connection: ids_beginning(connection, prefix, most))

    complete = {"change_id": ids}

    @surface.resource(ONE, complete=complete, marks=marks, shared=True)
    async def change(change_id: ChangeId) -> ChangeView:
        """One change in full, as get_change shows it; it tells when it moves."""
        return ChangeView.of(await guard.get(change_id), guard.clock.now())

    @surface.resource(ALL_OPEN, marks=open_marks, shared=True)
    async def open_changes() -> OpenChanges:
        """Changes of the whole site that have not ended, newest first; it tells when one moves."""
        found = await guard.store.read(
            lambda connection: changes.latest(connection, limit=MOST_OPEN + 1, states=OPEN)
        )
        return OpenChanges(
            observed_at=guard.clock.now(),
            origin="guard",
            changes=[ChangeRow.of(one) for one in found[:MOST_OPEN]],
            more=len(found) > MOST_OPEN,
        )

    async def facts_of(change_id: str) -> list[Attached]:
        found, now = await guard.get(change_id), guard.clock.now()
        at = f"change://{change_id}"
        return [Attached(at, ChangeView.of(found, now)), Attached(at, Brief.of(found, now))]

    @surface.prompt(runbooks.text("review_change"), complete=complete, shared=True)
    async def review_change(change_id: ChangeId) -> Sequence[Attached]:
        """Lay a change out for the person who decides on it, with what it rests on."""
        return await facts_of(change_id)

    @surface.prompt(runbooks.text("runbook_stuck_change"), complete=complete, shared=True)
    async def runbook_stuck_change(change_id: ChangeId) -> Sequence[Attached]:
        """What to do when a change does not go on, or ended stuck."""
        return await facts_of(change_id)
