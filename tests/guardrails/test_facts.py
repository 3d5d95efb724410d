"""How facts are gathered: how old they are when they are used, and what is no answer."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from interlock_guardrails.facts import FactRegistry
from interlock_tools.clock import ManualClock
from interlock_tools.fact import Fact, FactNeed, Nature, Unknown
from interlock_tools.identity import Target
from tests.guardrails.conftest import START

RACK = Target(kind="rack", id="rack-1")
NEEDS = (
    FactNeed(kind="rack.power", subject=RACK, max_age_s=10),
    FactNeed(kind="rack.leak", subject=RACK, max_age_s=10),
)


def fact(need: FactNeed, clock: ManualClock, **other: Any) -> Fact:
    """The fact of this moment."""
    usual: dict[str, Any] = {
        "kind": need.kind,
        "subject": need.subject,
        "value": 1,
        "origin": "test",
        "version": "1",
        "observed_at": clock.now(),
        "nature": Nature.MEASUREMENT,
    }
    return Fact(**usual | other)


class Source:
    """A source that answers the leak as it is told to."""

    def __init__(self, clock: ManualClock, leak: Callable[[FactNeed], Fact | Unknown]) -> None:
        self._clock = clock
        self._leak = leak

    @property
    def kinds(self) -> frozenset[str]:
        """Both kinds."""
        return frozenset(need.kind for need in NEEDS)

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """Power at once, the leak as told."""
        return self._leak(need) if need.kind == "rack.leak" else fact(need, self._clock)


async def test_a_slow_source_makes_the_facts_of_the_others_old() -> None:
    """Age is that of the moment of use, not of the moment at which somebody began to ask."""
    clock = ManualClock(START)

    def slow(need: FactNeed) -> Fact:
        clock.advance(15)
        return fact(need, clock)

    gathered = await FactRegistry([Source(clock, slow)]).gather(NEEDS, clock)

    assert [item.kind for item in gathered.unknown] == ["rack.power"]
    assert "15.0 s old" in gathered.unknown[0].why
    assert [item.kind for item in gathered.facts] == ["rack.leak"]  # and that is not of the future


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "rack.power"},
        {"subject": Target(kind="rack", id="rack-2")},
        {"observed_at": START.replace(tzinfo=None)},
    ],
    ids=["another kind", "another rack", "a moment without a zone"],
)
async def test_an_answer_to_another_question_is_unknown(other: dict[str, Any]) -> None:
    """It is not taken for the one that was asked, and nothing else breaks on it."""
    clock = ManualClock(START)

    gathered = await FactRegistry([Source(clock, lambda need: fact(need, clock, **other))]).gather(
        NEEDS, clock
    )

    assert [item.kind for item in gathered.unknown] == ["rack.leak"]


async def test_a_fact_of_the_future_is_unknown() -> None:
    """A clock that is wrong dates readings that were never made."""
    clock = ManualClock(START)
    ahead = START + timedelta(seconds=6)

    gathered = await FactRegistry(
        [Source(clock, lambda need: fact(need, clock, observed_at=ahead))]
    ).gather(NEEDS, clock)

    assert "6.0 s in the future" in gathered.unknown[0].why
