"""Freezes and windows as a site writes them down: one that cannot hold is not accepted."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from interlock_guardrails.rules import SiteRules

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
