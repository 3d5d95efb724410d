"""The schedule is nowhere above a target, whatever came in which order, and says what is odd."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock_servers.flex.in_force import supersedes
from interlock_servers.flex.models import LoadTarget
from interlock_servers.flex.schedule import (
    Ramp,
    RemarkKind,
    Schedule,
    StepKind,
    grid_schedule,
    rank,
)
from tests.servers.flex.conftest import FEEDS, ISV, OTHER_ISV, START
from tests.servers.flex.test_store import at, target

A, B = FEEDS
RAMP = Ramp(down_w_per_s=10.0, up_w_per_s=20.0, free_w=20_000.0)


def minutes(most: int = 120) -> st.SearchStrategy[datetime]:
    """A moment of the two hours around the start."""
    return st.integers(-most, most).map(at)


@st.composite
def targets(draw: st.DrawFn) -> LoadTarget:
    """Any target of two ISVs, for one feed, both, all, or one that is not ours."""
    start = draw(minutes())
    lasts = draw(st.none() | st.integers(1, 90))
    return target(
        draw(st.none() | st.integers(1, 18).map(lambda kw: kw * 1_000.0)),
        *draw(st.sampled_from([(), (A,), (B,), (A, B), ("elsewhere",), (A, "elsewhere")])),
        start=start,
        end=None if lasts is None else start + timedelta(minutes=lasts),
        source=draw(st.sampled_from([ISV, OTHER_ISV])),
        sent_at=at(-draw(st.integers(0, 60))),
    )


MANY = st.lists(targets(), max_size=8)
RAMPS = st.none() | st.builds(
    Ramp,
    down_w_per_s=st.floats(0.1, 5_000.0),
    up_w_per_s=st.floats(0.1, 5_000.0),
    free_w=st.floats(1_000.0, 30_000.0),
)


def of(given_: Sequence[LoadTarget], ramp: Ramp | None = None) -> Schedule:
    """The schedule of these at noon."""
    return grid_schedule(given_, feeds=FEEDS, now=START, ramp=ramp)


def governing(given_: Sequence[LoadTarget], feed: str, moment: datetime) -> list[LoadTarget]:
    """The targets of a feed at a moment that no later one of the same source has replaced."""
    held = [t for t in given_ if t.covers(feed) and t.holds_at(moment)]
    return [
        t for t in held if not any(rank(other) > rank(t) and supersedes(other, t) for other in held)
    ]


def moments(given_: Sequence[LoadTarget], schedule: Schedule) -> list[datetime]:
    """Where something could go wrong: at every turn, just before it, and between."""
    turns = {t.start for t in given_} | {t.end for t in given_ if t.end is not None}
    turns |= {step.start for step in schedule.steps}
    just = timedelta(microseconds=1)
    near = {turn + shift for turn in turns for shift in (-just, timedelta(), just)}
    return sorted(m for m in near | {at(n) for n in range(0, 200, 7)} if m >= START)


@pytest.mark.trap("FX-S01")
@given(MANY, RAMPS)
def test_it_is_never_above_a_target(given_: list[LoadTarget], ramp: Ramp | None) -> None:
    """For all feeds the site's limit is not, for a feed its own limit is not; ramps included."""
    schedule = of(given_, ramp)
    for moment in moments(given_, schedule):
        limit_w = schedule.limit_w(moment)
        (step,) = [
            s for s in schedule.steps if s.start <= moment and (s.end is None or moment < s.end)
        ]
        for feed in FEEDS:
            for one in governing(given_, feed, moment):
                if one.limit_w is None:
                    continue
                if one.all_feeds:
                    assert limit_w is not None
                    assert limit_w <= one.limit_w + 1e-6
                else:
                    assert step.feed_limits_w[feed] <= one.limit_w


@given(MANY, RAMPS, st.randoms(use_true_random=False))
def test_neither_order_nor_equal_ones_change_it(
    given_: list[LoadTarget], ramp: Ramp | None, chance: Random
) -> None:
    """The bus may deliver twice and in any order."""
    again = [*given_, *given_[:3]]
    chance.shuffle(again)
    assert of(again, ramp) == of(given_, ramp)


@given(MANY, RAMPS)
def test_the_steps_follow_each_other_without_a_gap_to_the_end(
    given_: list[LoadTarget], ramp: Ramp | None
) -> None:
    """And where both have a limit, a ramp ends where the next step begins."""
    steps = of(given_, ramp).steps
    assert steps[0].start == START
    assert steps[-1].end is None
    for step, following in pairwise(steps):
        assert step.end == following.start
        assert step.start < following.start


@given(MANY, RAMPS.filter(lambda ramp: ramp is not None))
def test_it_moves_no_faster_than_the_ramp(given_: list[LoadTarget], ramp: Ramp) -> None:
    """Once the start is behind us, which no ramp can reach back beyond."""
    schedule = of(given_, ramp)
    for step, following in pairwise(schedule.steps):
        before_w = ramp.free_w if step.end_limit_w is None else step.end_limit_w
        after_w = ramp.free_w if following.limit_w is None else following.limit_w
        if max(before_w, after_w) <= ramp.free_w:  # a limit above what it draws moves nothing
            slope_w = max(ramp.down_w_per_s, ramp.up_w_per_s)
            assert after_w == pytest.approx(before_w, abs=slope_w * 1e-5 + 1e-3)


def test_a_ramp_is_laid_before_the_limit_and_after_its_end() -> None:
    """20 kW to 8 kW at 10 W/s takes 20 minutes, back at 20 W/s takes 10."""
    schedule = of([target(8_000.0, start=at(60), end=at(90))], RAMP)
    assert [(s.kind, s.start, s.limit_w, s.end_limit_w) for s in schedule.steps] == [
        (StepKind.HOLD, START, None, None),
        (StepKind.RAMP_DOWN, at(40), 20_000.0, 8_000.0),
        (StepKind.HOLD, at(60), 8_000.0, 8_000.0),
        (StepKind.RAMP_UP, at(90), 8_000.0, 20_000.0),
        (StepKind.HOLD, at(100), None, None),
    ]
    assert schedule.remarks == ()
    assert schedule.limit_w(at(50)) == pytest.approx(14_000.0)


@pytest.mark.trap("FX-S02")
def test_a_ramp_that_had_to_begin_before_now_is_remarked_upon() -> None:
    """The limit is at its place all the same; how late the site is, is said."""
    announced = target(8_000.0, start=at(10), end=at(90))
    schedule = grid_schedule([announced], feeds=FEEDS, now=START, ramp=RAMP, draw_w=20_000.0)
    (remark,) = schedule.remarks
    assert remark.kind is RemarkKind.RAMP_TOO_LATE
    assert "600 s ago" in remark.why
    assert schedule.limit_w(START) == pytest.approx(14_000.0)
    assert schedule.limit_w(at(10)) == 8_000.0
    in_time = grid_schedule([announced], feeds=FEEDS, now=START, ramp=RAMP, draw_w=14_000.0)
    assert in_time.remarks == ()


@pytest.mark.trap("FX-S03")
def test_of_two_isvs_that_contradict_the_stricter_counts_and_both_are_named() -> None:
    """Per feed; neither lifts what the other has set, and the later word of one is its own."""
    first = target(7_000.0, A)
    other = target(5_000.0, A, source=OTHER_ISV, sent_at=at(-10))
    lifted = target(None, A, source=OTHER_ISV, sent_at=at(1), received_at=at(1), start=at(30))
    schedule = of([first, other, lifted])
    assert [step.feed_limits_w for step in schedule.steps] == [{A: 5_000.0}, {A: 7_000.0}]
    assert {remark.kind for remark in schedule.remarks} == {RemarkKind.CONTRADICTION}
    for remark in schedule.remarks:
        assert set(remark.sources) == {ISV, OTHER_ISV}
        assert ISV in remark.why
        assert OTHER_ISV in remark.why


def test_what_is_odd_has_a_name() -> None:
    """No targets, those that are over, feeds that are not ours, and less notice than promised."""
    assert [remark.kind for remark in of([]).remarks] == [RemarkKind.NO_TARGETS]
    over = target(5_000.0, start=at(-60), end=at(-30))
    strange = target(5_000.0, A, "elsewhere", start=at(10))
    schedule = grid_schedule([over, strange], feeds=FEEDS, now=START, notice_s=900.0)
    assert {remark.kind for remark in schedule.remarks} == {
        RemarkKind.PAST,
        RemarkKind.UNKNOWN_FEED,
        RemarkKind.SHORT_NOTICE,
    }
    assert schedule.steps[-1].feed_limits_w == {A: 5_000.0}
    enough = grid_schedule([strange], feeds=FEEDS, now=START, notice_s=600.0)
    assert [remark.kind for remark in enough.remarks] == [RemarkKind.UNKNOWN_FEED]
