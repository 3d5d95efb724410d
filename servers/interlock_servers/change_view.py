"""How a change is shown to a model: short, dated, and without the values of its facts."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from interlock_servers.page import Page
from interlock_tools.change import Change, ChangeState
from interlock_tools.decision import RuleHit


class Reach(BaseModel):
    """Whom the change reaches, in counts and names."""

    gpus: int
    hosts: int
    racks: list[str]
    power_domains: list[str]
    jobs: list[str]
    tenants: list[str]
    watts_moved: int
    power_rise_w: int
    slo_floors_broken: list[str]
    budgets_broken: list[str]


class ChangeView(Page):
    """One change: what it is, where it stands, who decides, what was seen."""

    change_id: str
    operation: str
    target: str
    state: ChangeState
    ended: bool
    why: str
    reason: str
    dry_run: bool
    rules: list[RuleHit]
    needs_people: int = Field(description="approving people still needed; no tool approves")
    of_role: str | None = None
    reach: Reach | None = None
    rehearsal: list[str]
    expires_at: datetime
    evidence: dict[str, Any]

    @classmethod
    def of(cls, change: Change, now: datetime) -> "ChangeView":
        """The view of a change as it stands at `now`."""
        decision = change.decision
        waiting = change.state is ChangeState.AWAITING_APPROVAL or change.dry_run
        quorum = None if decision is None or not waiting else decision.quorum
        given = sum(vote.approve for vote in change.votes)
        why = change.history[-1].why if change.history else ""
        if change.dry_run and decision is not None:
            why = f"dry run, nothing was done; {decision.sentence()}"
        return cls(
            observed_at=now,
            origin="guard",
            change_id=change.change_id,
            operation=change.operation,
            target=str(change.target),
            state=change.state,
            ended=change.ended,
            why=why,
            reason=change.reason,
            dry_run=change.dry_run,
            rules=[] if decision is None else list(decision.rules),
            needs_people=0 if quorum is None else max(0, quorum.people - given),
            of_role=None if quorum is None else quorum.role,
            reach=_reach(change),
            rehearsal=[] if change.rehearsal is None else list(change.rehearsal.notes),
            expires_at=change.expires_at,
            evidence=change.evidence,
        )


class ChangeList(Page):
    """The latest changes, newest first."""

    changes: list[ChangeView]


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
    )
