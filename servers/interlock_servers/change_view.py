"""How a change is shown to a model: a handle when it is proposed, a row in a list, and in full.

Short, dated, and without the values of its facts.
"""

from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel, Field

from interlock_servers.page import Listing, Page, Row
from interlock_servers.plant_text import PlantJson, PlantName, PlantWords
from interlock_tools.change import Change, ChangeState
from interlock_tools.decision import Quorum, RuleHit

WHY_IN_LIST_CHARS = 160


class Reach(BaseModel):
    """Whom the change reaches, in counts and names."""

    gpus: int
    hosts: int
    racks: list[PlantName]
    power_domains: list[PlantName]
    jobs: list[PlantName]
    tenants: list[PlantName]
    watts_moved: int
    power_rise_w: int
    slo_floors_broken: list[PlantName]
    budgets_broken: list[PlantName]
    power_taken_from: list[PlantName]

    def sentence(self) -> str:
        """The counts, and the names that decide, in one line."""
        said = (
            f"{_counted(self.gpus, 'GPU')} on {_counted(self.hosts, 'host')}, "
            f"{self.watts_moved} W moved, {self.power_rise_w} W of it up"
        )
        named = {
            "jobs": self.jobs,
            "tenants": self.tenants,
            "power taken from": self.power_taken_from,
            "floors broken": self.slo_floors_broken,
            "budgets broken": self.budgets_broken,
        }
        for what, names in named.items():
            if names:
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                said += f"; {what}: {', '.join(names[:5])}{more}"
        return said


class ChangeHandle(Page):
    """What a proposal answers: where it stands, who decides, and what to do next."""

    change_id: str
    state: str
    why: PlantWords
    reach: PlantWords | None = None
    needs_people: int = Field(description="who must still say yes; no tool can")
    of_role: str | None = None
    uri: str | None = None
    next: str = Field(description="what to do now")

    @classmethod
    def of(cls, change: Change, now: datetime) -> "ChangeHandle":
        """The handle of a change as it stands at `now`."""
        people, role = _people(change)
        reach = _reach(change)
        return cls(
            observed_at=now,
            origin="guard",
            change_id=change.change_id,
            state=change.state,
            why=_why(change),
            reach=None if reach is None else reach.sentence(),
            needs_people=people,
            of_role=role,
            uri=None if change.dry_run else f"change://{change.change_id}",
            next=_next(change),
        )


class ChangeRow(Row):
    """One change in a list."""

    identity: ClassVar[tuple[str, ...]] = ("change_id", "state")

    change_id: str
    state: str
    operation: str | None = None
    moved_at: datetime | None = None
    reason: PlantWords | None = None
    why: PlantWords | None = None

    @classmethod
    def of(cls, change: Change) -> "ChangeRow":
        """The row of a change."""
        why = _why(change)
        return cls(
            change_id=change.change_id,
            state=change.state,
            operation=change.operation,
            moved_at=change.history[-1].at if change.history else change.created_at,
            reason=_cut(change.reason),
            why=_cut(why),
        )


class ChangeList(Listing):
    """The latest changes, newest first."""

    listed: ClassVar[str] = "changes"

    changes: list[ChangeRow]


class ChangeView(Page):
    """One change: what it is, where it stands, who decides, what was seen."""

    change_id: str
    operation: str
    target: PlantName
    state: str
    ended: bool
    why: PlantWords
    reason: str
    rules: list[RuleHit]
    needs_people: int
    of_role: str | None = None
    reach: Reach | None = None
    rehearsal: list[PlantWords]
    expires_at: datetime
    evidence: PlantJson
    next: str

    @classmethod
    def of(cls, change: Change, now: datetime) -> "ChangeView":
        """The view of a change as it stands at `now`."""
        people, role = _people(change)
        return cls(
            observed_at=now,
            origin="guard",
            change_id=change.change_id,
            operation=change.operation,
            target=str(change.target),
            state=change.state,
            ended=change.ended,
            why=_why(change),
            reason=change.reason,
            rules=[] if change.decision is None else list(change.decision.rules),
            needs_people=people,
            of_role=role,
            reach=_reach(change),
            rehearsal=[] if change.rehearsal is None else list(change.rehearsal.notes),
            expires_at=change.expires_at,
            evidence=change.evidence,
            next=_next(change),
        )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _why(change: Change) -> str:
    if change.dry_run and change.decision is not None:
        return f"dry run, nothing was done; {change.decision.sentence()}"
    return change.history[-1].why if change.history else ""


def _cut(text: str) -> str:
    return text if len(text) <= WHY_IN_LIST_CHARS else text[: WHY_IN_LIST_CHARS - 1] + "…"


def _people(change: Change) -> tuple[int, str | None]:
    """How many people must still say yes, and of which role."""
    waiting = change.state is ChangeState.AWAITING_APPROVAL or change.dry_run
    quorum: Quorum | None = None
    if waiting and change.decision is not None:
        quorum = change.decision.quorum
    if quorum is None:
        return 0, None
    given = sum(vote.approve for vote in change.votes)
    return max(0, quorum.people - given), quorum.role


def _next(change: Change) -> str:
    """What whoever asked does now."""
    if change.dry_run:
        return "nothing is kept of a dry run; to propose it, call again without dry_run"
    match change.state:
        case ChangeState.AWAITING_APPROVAL:
            return "people decide elsewhere; ask get_change later, do not propose it again"
        case ChangeState.SUCCEEDED:
            return "done and verified; nothing"
        case ChangeState.REFUSED:
            return "why names the rule; ask for less or wait until it no longer holds"
        case ChangeState.REJECTED:
            return "people said no; do not propose it again unless they ask"
        case ChangeState.EXPIRED | ChangeState.SUPERSEDED:
            return "nothing was done; look again and propose anew if it is still needed"
        case ChangeState.FAILED | ChangeState.COMPENSATED | ChangeState.STUCK:
            return "it did not hold; tell people, and look before you propose anything else"
        case _:
            return "it is under way; ask get_change until it has ended"


def _reach(change: Change) -> Reach | None:
    radius = change.blast_radius
    if radius is None:
        return None
    return Reach(
        gpus=radius.gpus,
        hosts=len(radius.hosts),
        racks=sorted(radius.racks),
        power_domains=sorted(radius.power_domains),
        jobs=sorted(radius.jobs),
        tenants=sorted(radius.tenants),
        watts_moved=radius.watts_moved,
        power_rise_w=radius.power_rise_w,
        slo_floors_broken=sorted(radius.slo_floors_broken),
        budgets_broken=sorted(radius.budgets_broken),
        power_taken_from=sorted(radius.power_taken_from),
    )
