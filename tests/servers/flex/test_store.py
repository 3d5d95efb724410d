"""Which target holds when: of two for one moment the later one, and the site is the sum."""

import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest

from interlock_servers.flex.models import (
    BreachStatus,
    FeedEvent,
    FeedState,
    FeedTarget,
    LoadTarget,
    PowerBreach,
    Reason,
    RejectedError,
    Severity,
)
from interlock_servers.flex.store import FlexStore
from tests.servers.flex.conftest import AGENT, FEEDS, ISV, OTHER_ISV, START

A, B = FEEDS


def at(minutes: float) -> datetime:
    """A moment, in minutes after noon."""
    return START + timedelta(minutes=minutes)


def target(limit_w: float | None, *feeds: str, **changes: Any) -> LoadTarget:
    """A target from now until replaced; for all feeds where none is named."""
    return LoadTarget.model_validate(
        {
            "limit_w": limit_w,
            "start": START,
            "end": None,
            "feed_tags": feeds,
            "all_feeds": not feeds,
            "best_effort": False,
            "correlation_id": str(uuid.uuid4()),
            "source": ISV,
            "event_id": str(uuid.uuid4()),
            "sent_at": START,
            "received_at": START,
        }
        | changes
    )


def state(feed: str, *targets: FeedTarget, snapshot_at: datetime = START) -> FeedState:
    """What the agent says of a feed."""
    return FeedState(
        feed_tag=feed,
        power_minimum_w=3_000.0,
        power_maximum_w=12_000.0,
        default_limit_w=12_000.0,
        targets=targets,
        calculated_load_w=8_000.0,
        in_flight=False,
        event=FeedEvent.PERIODIC,
        power_event_start=None,
        compliant=True,
        source=AGENT,
        snapshot_at=snapshot_at,
        received_at=snapshot_at,
    )


def store_of(*targets: LoadTarget) -> FlexStore:
    """A store that has heard these, in this order."""
    store = FlexStore(FEEDS)
    for each in targets:
        store.add_targets([each], each.received_at)
    return store


def test_a_site_without_targets_has_no_limit() -> None:
    """None, not zero."""
    limit = store_of().site_limit(START)
    assert limit.limit_w is None
    assert limit.upcoming is None
    assert limit.feed_limits_w == {A: None, B: None}


def test_the_site_is_limited_where_every_feed_is() -> None:
    """One free feed frees the sum; the limit of the other is still told."""
    store = store_of(target(5_000.0, A))
    assert store.site_limit(START).limit_w is None
    assert store.site_limit(START).feed_limits_w == {A: 5_000.0, B: None}
    store.add_targets([target(4_000.0, B)], START)
    assert store.site_limit(START).limit_w == 9_000.0


def test_a_target_for_all_feeds_is_one_limit_on_their_sum() -> None:
    """The stricter of two readings, as long as any feed is under it."""
    store = store_of(target(9_000.0))
    assert store.site_limit(START).limit_w == 9_000.0
    assert set(store.targets_in_force(START)) == {A, B}
    store.add_targets([target(7_000.0, A)], START)
    assert store.site_limit(START).limit_w == 9_000.0
    store.add_targets([target(7_000.0, B)], START)
    assert store.site_limit(START).limit_w == 14_000.0


def test_of_two_targets_for_one_moment_the_later_sent_wins() -> None:
    """Not the later received: the bus may deliver twice and in another order."""
    newer = target(4_000.0, A, sent_at=at(1))
    store = store_of(newer, target(9_000.0, A))
    assert store.targets_in_force(at(2)) == {A: newer}


@pytest.mark.trap("FX-E07")
def test_null_removes_a_limit_for_its_time() -> None:
    """What held before holds again after it; only an open null ends it for good."""
    removed = target(None, A, start=at(10), end=at(20), sent_at=at(1))
    store = store_of(target(5_000.0, A), removed)
    assert A in store.targets_in_force(at(9))
    assert store.targets_in_force(at(10)) == {}
    assert A in store.targets_in_force(at(20))
    store.add_targets([target(None, A, sent_at=at(2))], START)
    assert store.targets_in_force(at(30)) == {}


@pytest.mark.trap("FX-S04")
def test_one_isv_lifts_nothing_that_another_has_limited() -> None:
    """Neither by a later null nor by a later, higher limit; for its own it can."""
    store = store_of(
        target(5_000.0),
        target(None, source=OTHER_ISV, sent_at=at(1)),
        target(8_000.0, source=OTHER_ISV, sent_at=at(2), start=at(10)),
    )
    for moment in (at(3), at(11)):
        limit = store.site_limit(moment)
        assert (limit.limit_w, limit.source) == (5_000.0, ISV)
        assert store.targets_in_force(moment)[A].limit_w == 5_000.0
    store.add_targets([target(None, sent_at=at(12))], at(12))
    assert store.site_limit(at(13)).limit_w == 8_000.0
    store.add_targets([target(None, source=OTHER_ISV, sent_at=at(14))], at(14))
    assert store.site_limit(at(15)).limit_w is None


def test_the_end_of_an_interval_is_outside_it() -> None:
    """So that two intervals that meet do not overlap."""
    store = store_of(target(5_000.0, A, start=at(10), end=at(20)))
    held = [moment for moment in (9.9, 10, 19.9, 20) if store.targets_in_force(at(moment))]
    assert held == [10, 19.9]


def test_the_next_limit_is_announced_with_its_start() -> None:
    """Notice is what the site plans with."""
    store = store_of(target(9_000.0, end=at(30)), target(6_000.0, start=at(60), end=at(90)))
    now = store.site_limit(START)
    assert (now.limit_w, now.until) == (9_000.0, at(30))
    assert now.upcoming is not None
    assert (now.upcoming.limit_w, now.upcoming.start) == (6_000.0, at(60))
    between = store.site_limit(at(45))
    assert (between.limit_w, between.until, between.source) == (None, None, None)
    assert [each.limit_w for each in store.upcoming(START)] == [6_000.0]


def test_a_replaced_announcement_is_not_announced() -> None:
    """A later target that covers it whole has replaced it."""
    store = store_of(
        target(6_000.0, A, start=at(60), end=at(90)), target(5_000.0, A, start=at(50), end=at(90))
    )
    assert [each.limit_w for each in store.upcoming(START)] == [5_000.0]


def test_a_target_for_no_feed_of_ours_is_refused() -> None:
    """With the names, so that a misspelt feed is found."""
    with pytest.raises(RejectedError, match="elsewhere") as caught:
        store_of(target(5_000.0, "elsewhere"))
    assert caught.value.reason is Reason.UNKNOWN_FEED


def test_the_store_is_bounded_and_what_is_replaced_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new target is refused by name rather than an open one forgotten."""
    monkeypatch.setattr("interlock_servers.flex.store.MAX_TARGETS", 3)
    same_time = [target(1_000.0 + n, A, sent_at=at(n)) for n in range(10)]
    store = store_of(*same_time)
    assert store.targets_in_force(START)[A].limit_w == 1_009.0
    later = [
        target(2_000.0, A, start=at(10 * n), end=at(10 * n + 5), sent_at=at(11))
        for n in range(1, 5)
    ]
    with pytest.raises(RejectedError) as caught:
        store.add_targets(later, START)
    assert caught.value.reason is Reason.STORE_FULL
    assert store.targets_in_force(START)[A].limit_w == 1_009.0


def test_a_missed_target_is_learned_from_the_agents_state() -> None:
    """It was sent while we were away; under every feed it may have been one for all of them."""
    missed = FeedTarget(
        active=True,
        limit_w=9_000.0,
        start=START,
        end=None,
        best_effort=False,
        correlation_id=str(uuid.uuid4()),
    )
    store = store_of(target(12_000.0, A))
    assert not store.take_snapshot([state(A, missed, snapshot_at=at(1))], at(1))
    assert store.targets_in_force(at(1))[A].from_snapshot
    assert store.targets_in_force(at(1))[A].limit_w == 9_000.0

    store = store_of()
    assert store.take_snapshot([state(A, missed), state(B, missed)], START)
    assert store.site_limit(START).limit_w == 9_000.0

    heard = target(9_000.0, correlation_id=missed.correlation_id, sent_at=at(-1))
    store.add_targets([heard], START)
    assert store.targets_in_force(START) == {A: heard, B: heard}


def test_what_is_not_of_the_bus_takes_no_missed_targets_place() -> None:
    """The agent's state stands in for an ISV that we missed; another signal is no such ISV."""
    missed = FeedTarget(
        active=True,
        limit_w=5_000.0,
        start=START,
        end=None,
        best_effort=False,
        correlation_id=str(uuid.uuid4()),
    )
    utility = target(9_000.0, source="//openadr/vtn.example.com/program-1/event-1", sent_at=at(2))
    store = FlexStore(FEEDS, lambda moment: (utility,))
    store.take_snapshot([state(A, missed), state(B, missed)], START)
    assert store.site_limit(at(3)).limit_w == 5_000.0
    store.add_targets([target(None, sent_at=at(4))], at(4))
    assert store.site_limit(at(5)).limit_w == 9_000.0


def test_a_target_that_we_know_is_not_learned_again() -> None:
    """The agent may still list what a newer message has already replaced."""
    old = target(9_000.0, A)
    listed = FeedTarget(
        active=True,
        limit_w=9_000.0,
        start=START,
        end=None,
        best_effort=False,
        correlation_id=old.correlation_id or "",
    )
    newer = target(5_000.0, A, sent_at=at(1))
    store = store_of(old, newer)
    store.take_snapshot([state(A, listed, snapshot_at=at(2)), state(B)], at(2))
    assert store.targets_in_force(at(2)) == {A: newer}


def test_an_older_state_does_not_overwrite_a_newer_one() -> None:
    """The agent's own order counts."""
    store = store_of()
    store.take_snapshot([state(A, snapshot_at=at(2)), state(B, snapshot_at=at(2))], at(2))
    assert not store.take_snapshot([state(A, snapshot_at=at(1))], at(2))
    assert store.feed_states()[A].snapshot_at == at(2)


def test_the_last_word_on_a_breach_is_that_it_is_resolved() -> None:
    """A late copy of an alert does not open it again."""
    breach = PowerBreach(
        breach_id=str(uuid.uuid4()),
        feed_tag=A,
        status=BreachStatus.ACTIVE,
        severity=Severity.WARNING,
        detected_at=START,
        resolved_at=None,
        limit_w=5_000.0,
        measured_load_w=5_500.0,
        correlation_id=str(uuid.uuid4()),
        shed_hints=(),
        infrastructure_actions=(),
        source=AGENT,
        received_at=START,
    )
    store = store_of()
    store.add_breach(breach)
    store.add_breach(breach.model_copy(update={"status": BreachStatus.RESOLVED}))
    store.add_breach(breach)
    assert [each.status for each in store.breaches()] == [BreachStatus.RESOLVED]
    with pytest.raises(RejectedError) as caught:
        store.add_breach(breach.model_copy(update={"feed_tag": "elsewhere"}))
    assert caught.value.reason is Reason.UNKNOWN_FEED
