"""What a policy can ask people about, apart from the watts of a request."""

from datetime import timedelta
from typing import Any

import pytest

from interlock_servers.flex.facts import GRID_EVENT_KIND, GRID_SCHEDULE, GRID_TERMS
from interlock_tools.fact import Fact, FactNeed, Unknown
from interlock_tools.identity import Target
from tests.servers.flex.conftest import FEEDS, SITE, Bench, OpenBench


async def terms(site: Bench, correlation_id: str) -> Any:
    """The fact `grid.terms` of a request; None where it is unknown."""
    event = Target(kind=GRID_EVENT_KIND, id=correlation_id)
    fact = await site.facts.fact(FactNeed(kind=GRID_TERMS, subject=event, max_age_s=60.0))
    return fact.value if isinstance(fact, Fact) else None


@pytest.mark.trap("FX-T01")
@pytest.mark.trap("FX-T02")
async def test_no_feeds_and_no_end_are_told_apart_from_each_other(bench: OpenBench) -> None:
    """A left-out name is every feed, a left-out end is for ever: each is its own approval."""
    async with bench() as site:
        await site.seconds(1)
        now = site.clock.now()
        asked = {
            (all_feeds, open_ended): await site.isv.set_target(
                5_000.0,
                feed_tags=None if all_feeds else FEEDS,
                start=now + timedelta(minutes=10 * number),
                end=None if open_ended else now + timedelta(minutes=10 * number + 5),
            )
            for number, (all_feeds, open_ended) in enumerate(
                [(False, False), (True, False), (False, True), (True, True)], start=1
            )
        }
        await site.until(lambda: len(site.client.targets(now)) == len(asked))
        for (all_feeds, open_ended), correlation_id in asked.items():
            assert await terms(site, correlation_id) == {
                "all_feeds": all_feeds,
                "open_ended": open_ended,
            }
        assert await terms(site, "never-heard") is None


async def test_the_schedule_is_a_fact_of_the_site(bench: OpenBench) -> None:
    """And, as the limit, unknown while we may have missed something."""
    need = FactNeed(kind=GRID_SCHEDULE, subject=SITE, max_age_s=60.0)
    async with bench() as site:
        assert isinstance(await site.facts.fact(need), Unknown)
        await site.seconds(1)
        await site.isv.set_target(5_000.0)
        await site.until(lambda: bool(site.client.targets(site.clock.now())))
        fact = await site.facts.fact(need)
        assert isinstance(fact, Fact)
        assert [step["limit_w"] for step in fact.value["steps"]] == [5_000.0]
