"""Freezes, windows and budgets as a site writes them: one that cannot hold is not accepted."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from interlock_guardrails.rules import SiteRules
from interlock_tools.identity import Principal, PrincipalKind

START = datetime(2026, 12, 24, tzinfo=UTC)
END = START + timedelta(days=3)


@pytest.mark.parametrize("name", ["freezes", "windows"])
@pytest.mark.parametrize(
    "span",
    [(END, START), (START, START), (START.replace(tzinfo=None), END.replace(tzinfo=None))],
    ids=["backwards", "empty", "without a zone"],
)
def test_a_span_that_can_never_hold_is_an_error_at_the_start(name: str, span: Any) -> None:
    """A freeze that froze nothing would be found out too late."""
    with pytest.raises(ValidationError, match=name if span[0].tzinfo is None else "ends at"):
        SiteRules.model_validate({"site_id": "lab", "gpus": 8, "hosts": 1, name: [span]})


def test_a_freeze_holds_from_its_start_and_not_at_its_end() -> None:
    """The one moment belongs to it and the other does not."""
    rules = SiteRules(site_id="lab", gpus=8, hosts=1, freezes=((START, END),))

    assert rules.frozen_at(START)
    assert not rules.frozen_at(END)
    assert rules.in_window(END)


def test_without_a_single_window_no_moment_is_inside_one() -> None:
    """An empty list is a list: nothing is inside it."""
    assert not SiteRules(site_id="lab", gpus=8, hosts=1, windows=()).in_window(START)


@pytest.mark.parametrize(
    ("budgets", "says"),
    [
        ([{"agent_id": "*"}], "neither watts nor GPUs"),
        ([{"agent_id": "*", "watts_moved_per_hour": 0}], "greater than 0"),
        ([{"agent_id": "*", "gpus_reached_per_hour": -8}], "greater than 0"),
        ([{"agent_id": "*", "watts_per_hour": 8}], "watts_per_hour"),
        ([{"agent_id": "*", "gpus_reached_per_hour": n} for n in (8, 16)], "has 2 budgets"),
    ],
    ids=["of nothing", "zero", "negative", "a typo", "twice"],
)
def test_a_budget_that_could_not_hold_is_an_error_at_the_start(budgets: Any, says: str) -> None:
    """A limit that limits nothing would be found out too late."""
    written = {"site_id": "lab", "gpus": 8, "hosts": 1, "agent_budgets": budgets}
    with pytest.raises(ValidationError, match=says):
        SiteRules.model_validate(written)


@pytest.mark.parametrize(
    ("kind", "name", "watts"),
    [
        (PrincipalKind.AGENT, "agent:power", 200),
        (PrincipalKind.AGENT, "agent:other", 100),
        (PrincipalKind.PERSON, "agent:power", None),
        (PrincipalKind.SERVICE, "service:scheduler", None),
    ],
)
def test_an_agent_has_its_own_budget_or_that_of_every_agent(
    kind: PrincipalKind, name: str, watts: int | None
) -> None:
    """And nobody else has one."""
    budgets = [
        {"agent_id": "*", "watts_moved_per_hour": 100},
        {"agent_id": "agent:power", "watts_moved_per_hour": 200},
    ]
    rules = SiteRules.model_validate(
        {"site_id": "lab", "gpus": 8, "hosts": 1, "agent_budgets": budgets}
    )
    found = rules.budget_of(Principal(id=name, kind=kind, authenticated_by="test"))

    assert (None if found is None else found.watts_moved_per_hour) == watts
