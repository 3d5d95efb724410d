"""What DSX Flex promises on the wire, read through a real broker from the twins."""

from datetime import timedelta

import pytest

from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.models import BreachStatus, Deviation, FeedEvent, Reason, Severity
from interlock_servers.flex.twin import AgentFault, IsvFault
from interlock_servers.transports.broker import local_broker
from interlock_tools.fact import Fact, FactNeed, Unknown
from interlock_tools.identity import Target
from tests.servers.flex.conftest import (
    FEEDS,
    ISV,
    OLD_AGENT,
    PATIENCE_S,
    SITE,
    START,
    OpenBench,
)

A, B = FEEDS
REFUSED = {
    IsvFault.WRONG_KEY: Reason.BAD_SIGNATURE,
    IsvFault.UNKNOWN_KID: Reason.UNKNOWN_KEY,
    IsvFault.NO_KID: Reason.NO_KID,
    IsvFault.ALG_NONE: Reason.ALGORITHM_REFUSED,
    IsvFault.HS256_WITH_PUBLIC_KEY: Reason.ALGORITHM_REFUSED,
    IsvFault.UNSIGNED: Reason.UNSIGNED,
    IsvFault.WRONG_SOURCE: Reason.SOURCE_MISMATCH,
    IsvFault.NOT_A_SOURCE: Reason.BAD_SOURCE,
    IsvFault.PAST_TIME: Reason.TOO_OLD,
    IsvFault.FUTURE_TIME: Reason.IN_THE_FUTURE,
    IsvFault.ZERO: Reason.POWER_NOT_POSITIVE,
    IsvFault.NEGATIVE: Reason.POWER_NEGATIVE,
    IsvFault.NOT_A_NUMBER: Reason.POWER_NOT_FINITE,
    IsvFault.BROKEN_JSON: Reason.NOT_JSON,
    IsvFault.MISSPELT_FEED_TAGS: Reason.BAD_FEED_TAGS,
    IsvFault.INTERVAL_PAST: Reason.INTERVAL_PAST,
}


def refusals(client: FlexClient) -> int:
    """How many messages were refused, for whatever reason."""
    return sum(rejected.count for rejected in client.rejected().values())


async def test_a_signed_target_is_in_force_for_the_feeds_that_it_names(bench: OpenBench) -> None:
    """In watts, whatever unit it was sent in, with the id of whoever sent it."""
    async with bench() as site:
        correlation_id = await site.isv.set_target(6_500.0, feed_tags=[A], unit="megawatt")
        await site.until(lambda: bool(site.client.targets_in_force(START)))
        (feed, target), *rest = site.client.targets_in_force(START).items()
        assert (feed, rest) == (A, [])
        assert target.limit_w == pytest.approx(6_500.0)
        assert (target.source, target.correlation_id) == (ISV, correlation_id)
        assert not site.client.rejected()


@pytest.mark.trap("FX-E02")
async def test_a_target_without_feed_tags_is_for_every_feed(bench: OpenBench) -> None:
    """And is kept as that, not as a list of the feeds of the day."""
    async with bench() as site:
        await site.isv.set_target(9_000.0, start=START + timedelta(minutes=30))
        await site.until(lambda: bool(site.client.upcoming(START)))
        (target,) = site.client.upcoming(START)
        assert (target.all_feeds, target.feed_tags) == (True, ())
        assert site.client.targets_in_force(START) == {}
        in_force = site.client.targets_in_force(START + timedelta(minutes=30))
        assert in_force == {A: target, B: target}


def test_every_fault_of_the_isv_has_its_reason() -> None:
    """So that the next test covers them all."""
    assert set(REFUSED) == set(IsvFault)


@pytest.mark.trap("FX-E01")
@pytest.mark.trap("FX-E03")
async def test_every_broken_target_is_refused_by_name_and_none_is_in_force(
    bench: OpenBench,
) -> None:
    """The twin's deliberate faults; each must be caught, and each for its own reason."""
    async with bench() as site:
        for count, (fault, reason) in enumerate(REFUSED.items()):
            before = site.client.rejected()
            await site.isv.set_target(1_000.0, feed_tags=[A], fault=fault)
            await site.until(lambda count=count: refusals(site.client) > count)  # type: ignore[misc]
            changed = {
                name: seen
                for name, seen in site.client.rejected().items()
                if name not in before or seen.count > before[name].count
            }
            assert set(changed) == {reason}, fault
            assert changed[reason].last_at == START
            assert changed[reason].last_why
        assert site.client.targets_in_force(START) == {}
        assert site.client.upcoming(START) == ()


@pytest.mark.trap("FX-E05")
async def test_a_replayed_target_is_refused_in_its_old_and_in_a_new_envelope(
    bench: OpenBench,
) -> None:
    """Only `data` is signed: whoever recorded it can write any envelope around it."""
    async with bench() as site:
        await site.isv.set_target(5_000.0, feed_tags=[A])
        await site.isv.replay()
        await site.isv.rewrap()
        await site.until(lambda: refusals(site.client) == 2)
        assert site.client.rejected()[Reason.REPLAYED].count == 2
        await site.isv.set_target(None, feed_tags=[A])
        await site.isv.rewrap()
        await site.until(lambda: refusals(site.client) == 3)
        assert site.client.targets_in_force(START) == {}


async def test_what_is_not_ours_is_refused_and_does_not_deafen_us(bench: OpenBench) -> None:
    """A stranger's feed, bytes that are no text, text that is no Unicode."""
    async with bench() as site:
        await site.isv.set_target(5_000.0, feed_tags=["elsewhere"])
        await site.isv.publish(b"\xff\x00\xfe")
        await site.isv.publish(b'{"id": "\\ud800", "source": "\\ud800"}')
        await site.isv.set_target(5_000.0, feed_tags=["\ud800"])
        await site.until(lambda: refusals(site.client) == 4)
        assert site.client.rejected()[Reason.UNKNOWN_FEED].count == 2
        await site.isv.set_target(5_000.0, feed_tags=[A])
        await site.until(lambda: A in site.client.targets_in_force(START))


async def test_the_agent_follows_a_target_through_its_life(bench: OpenBench) -> None:
    """Taken, ramp down, compliant, ramp up; each said with the id of the request."""
    async with bench() as site:
        seen: list[FeedEvent] = []

        def follow() -> bool:
            state = site.client.feed_states().get(A)
            if state and (not seen or seen[-1] is not state.event):
                seen.append(state.event)
            return bool(seen) and seen[-1] is wanted

        start, end = START + timedelta(seconds=3), START + timedelta(seconds=30)
        correlation_id = await site.tell_agent(
            site.isv.set_target(4_500.0, feed_tags=[A], start=start, end=end)
        )
        wanted = FeedEvent.TARGET_SET
        await site.seconds(1)
        await site.until(follow)
        (target,) = site.client.feed_states()[A].targets
        assert (target.correlation_id, target.active) == (correlation_id, False)

        wanted = FeedEvent.START_RAMP_DOWN
        await site.seconds(2)
        await site.until(follow)
        state = site.client.feed_states()[A]
        assert (state.in_flight, state.compliant) == (True, False)
        assert state.targets[0].active

        wanted = FeedEvent.END_RAMP_DOWN
        site.cap_all(200.0)
        await site.seconds(8)
        await site.until(follow)
        state = site.client.feed_states()[A]
        assert (state.in_flight, state.compliant) == (False, True)
        assert state.calculated_load_w <= 4_500.0

        wanted = FeedEvent.END_RAMP_UP
        await site.seconds(25)
        await site.until(follow)
        assert site.client.feed_states()[A].targets == ()


async def test_a_feed_above_its_target_is_a_breach_until_it_is_not(bench: OpenBench) -> None:
    """Measured, not calculated; one id from active over escalated to resolved."""
    async with bench() as site:

        def word() -> tuple[BreachStatus, Severity] | None:
            return next(((b.status, b.severity) for b in site.client.breaches()), None)

        site.cap_all(500.0)
        await site.seconds(8)
        await site.tell_agent(site.isv.set_target(6_200.0, feed_tags=[B]))
        await site.seconds(1)
        await site.until(lambda: word() == (BreachStatus.ACTIVE, Severity.WARNING))
        (active,) = site.client.breaches()
        assert (active.feed_tag, active.limit_w) == (B, 6_200.0)
        assert 6_200.0 < active.measured_load_w < 1.2 * 6_200.0

        site.cap_all(700.0)
        await site.seconds(8)
        await site.until(lambda: word() == (BreachStatus.ESCALATED, Severity.CRITICAL))
        assert site.client.breaches()[0].measured_load_w > 1.2 * 6_200.0

        site.cap_all(200.0)
        await site.seconds(8)
        await site.until(lambda: word() == (BreachStatus.RESOLVED, Severity.CRITICAL))
        (resolved,) = site.client.breaches()
        assert resolved.breach_id == active.breach_id
        assert resolved.resolved_at is not None


@pytest.mark.trap("FX-E09")
async def test_an_agent_that_claims_to_comply_is_contradicted_by_its_own_meter(
    bench: OpenBench,
) -> None:
    """`compliant` is calculated; what counts is measured."""
    async with bench() as site:
        site.agent.faults.add(AgentFault.CLAIMS_COMPLIANT)
        await site.tell_agent(site.isv.set_target(6_000.0, feed_tags=[A]))
        await site.seconds(1)
        await site.until(lambda: bool(site.client.breaches()))
        assert site.client.feed_states()[A].compliant
        assert site.client.breaches()[0].measured_load_w > 6_000.0


@pytest.mark.trap("FX-E08")
async def test_an_agent_that_rejects_a_target_stays_silent_about_it(bench: OpenBench) -> None:
    """There is no reply to a target; that its id never comes back is the only sign."""
    async with bench() as site:
        site.agent.faults.add(AgentFault.IGNORES_TARGETS)
        correlation_id = await site.tell_agent(site.isv.set_target(6_000.0, feed_tags=[A]))
        await site.seconds(11)
        at = START + timedelta(seconds=11)
        await site.until(lambda: A in site.client.feed_states())
        echoed = {
            target.correlation_id
            for state in site.client.feed_states().values()
            for target in state.targets
        }
        assert correlation_id not in echoed
        assert site.client.targets_in_force(at)[A].correlation_id == correlation_id


async def test_the_limit_of_the_site_is_a_fact_with_its_source(bench: OpenBench) -> None:
    """And with what comes next, so that the site can be down before the interval begins."""
    async with bench() as site:
        await site.seconds(1)
        now, later = site.clock.now(), site.clock.now() + timedelta(minutes=20)
        correlation_id = await site.isv.set_target(12_000.0)
        await site.isv.set_target(8_000.0, start=later)
        await site.until(
            lambda: bool(site.client.upcoming(now)) and bool(site.client.feed_states())
        )
        fact = await site.limit()
        assert isinstance(fact, Fact)
        assert fact.value == {
            "limit_w": 12_000.0,
            "until": later.isoformat(),
            "source": ISV,
            "correlation_id": correlation_id,
            "next": {"limit_w": 8_000.0, "start": later.isoformat()},
            "feed_limits_w": {A: None, B: None},
        }
        assert (fact.origin, fact.observed_at, fact.subject) == ("flex", now, SITE)
        site.clock.advance(20 * 60.0)
        again = await site.limit()
        assert isinstance(again, Fact)
        assert (again.value["limit_w"], again.value["next"]) == (8_000.0, None)
        assert again.version != fact.version
        other = FactNeed(kind="grid.limit", subject=Target(kind="site", id="x"), max_age_s=1.0)
        assert isinstance(await site.facts.fact(other), Unknown)


async def test_an_event_is_open_until_it_has_ended_or_another_replaced_it(
    bench: OpenBench,
) -> None:
    """Announced or in force, and known by its request; of what was never heard there is none."""
    async with bench() as site:
        await site.seconds(1)
        now = site.clock.now()
        ended_by_itself = await site.isv.set_target(
            9_000.0, start=now + timedelta(minutes=5), end=now + timedelta(minutes=10)
        )
        replaced = await site.isv.set_target(12_000.0, feed_tags=[A])
        await site.until(lambda: len(site.client.upcoming(now)) == 1)
        await site.until(lambda: A in site.client.targets_in_force(now))
        assert await site.event(ended_by_itself) == await site.event(replaced) == "open"
        assert await site.event("never-heard") == "not_open"

        replacing = await site.isv.set_target(8_000.0, feed_tags=[A, B])
        await site.until(lambda: B in site.client.targets_in_force(now))
        assert await site.event(replaced) == "not_open"
        assert await site.event(replacing) == "open"
        site.clock.advance(10 * 60.0)
        assert await site.event(ended_by_itself) == "not_open"


@pytest.mark.trap("FX-E06")
async def test_a_limit_that_was_sent_while_we_were_away_is_not_missed(bench: OpenBench) -> None:
    """Until the agent has said what is in force the limit is unknown, and never `no limit`."""
    async with bench(listening=False) as site:
        correlation_id = await site.tell_agent(site.isv.set_target(9_000.0))
        async with site.client as client:
            await client.wait_connected(PATIENCE_S)
            before = await site.limit()
            assert isinstance(before, Unknown)
            assert "has not said" in before.why
            assert await site.event(correlation_id) is None
            await site.seconds(1)
            await site.until(lambda: client.health().why_not is None)
            after = await site.limit()
            assert isinstance(after, Fact)
            assert after.value["limit_w"] == 9_000.0
            assert after.value["correlation_id"] == correlation_id
            assert await site.event(correlation_id) == "open"


async def test_a_limit_that_we_can_no_longer_hear_becomes_unknown(bench: OpenBench) -> None:
    """Old for 30 s, then unknown; the reads go on with what was heard."""
    async with bench() as site:
        client = site.client
        await site.tell_agent(site.isv.set_target(9_000.0))
        await site.seconds(1)
        await site.until(lambda: client.health().why_not is None)
        heard_at = site.clock.now()
        assert isinstance(await site.limit(), Fact)
        await site.end_broker()
        await site.until(lambda: not client.health().connected)
        site.clock.advance(29.0)
        old = await site.limit()
        assert isinstance(old, Fact)
        assert old.observed_at == heard_at
        site.clock.advance(2.0)
        unknown = await site.limit()
        assert isinstance(unknown, Unknown)
        assert "31 s" in unknown.why
        assert "disconnected" in unknown.why
        assert client.site_limit(site.clock.now()).limit_w == 9_000.0


async def test_after_a_gap_the_limit_is_known_again_once_the_agent_has_spoken(
    bench: OpenBench,
) -> None:
    """A session is clean: what was sent in the gap is lost, and only the agent can tell of it."""
    async with bench() as site:
        client = site.client
        await site.seconds(1)
        await site.until(lambda: client.health().why_not is None)
        port = int(site.broker.rpartition(":")[2])
        await site.end_broker()
        await site.until(lambda: not client.health().connected)
        async with local_broker(port=port):
            await site.until(lambda: client.health().connected)
            await site.agent.wait_connected(PATIENCE_S)
            site.clock.advance(31.0)
            gap = await site.limit()
            assert isinstance(gap, Unknown)
            assert "has not said" in gap.why
            await site.seconds(10)
            await site.until(lambda: client.health().why_not is None)
            assert isinstance(await site.limit(), Fact)


async def test_an_agent_under_its_older_role_is_read_and_said(
    bench: OpenBench,
) -> None:
    """It is another source, so the settings must trust it by that name."""
    async with bench(role="poweragent") as site:
        await site.seconds(1)
        await site.until(lambda: bool(site.client.feed_states()))
        assert site.client.feed_states()[A].source == OLD_AGENT
        assert site.client.deviations()[Deviation.OLD_ROLE_POWERAGENT] > 0


async def test_on_the_common_bus_only_our_cluster_counts(bench: OpenBench) -> None:
    """The same ISV may speak to every cluster of the owner."""
    async with bench(prefix="cpc/cpc-1/") as site:
        other = site.isv_of("cpc/cpc-2/")
        async with other:
            await other.set_target(1_000.0, feed_tags=[A])
        await site.tell_agent(site.isv.set_target(6_000.0, feed_tags=[A]))
        await site.seconds(1)
        now = site.clock.now()
        await site.until(
            lambda: bool(site.client.targets_in_force(now)) and bool(site.client.feed_states())
        )
        assert site.client.targets_in_force(now)[A].limit_w == 6_000.0
        assert not site.client.rejected()
