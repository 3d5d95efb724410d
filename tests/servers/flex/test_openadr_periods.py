"""When an event's intervals hold: what is inherited, what follows, what never ends, what moves."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock_servers.flex.models import Reason, RejectedError
from interlock_servers.flex.openadr.periods import Span, after, parse_duration, spans_of
from tests.servers.flex.conftest import START
from tests.servers.flex.test_store import at

NOON = "2026-11-01T12:00:00Z"
ONE = "2026-11-01T13:00:00Z"


def interval(number: int = 0, **period: str) -> dict[str, Any]:
    """An interval, with a period of its own where one is given."""
    made: dict[str, Any] = {"id": number, "payloads": []}
    return made | ({"intervalPeriod": period} if period else {})


def spans(*intervals: dict[str, Any], **period: str) -> list[Span]:
    """The spans of an event with this period of its own."""
    event: dict[str, Any] = {"id": "event-1", "intervals": list(intervals)}
    if period:
        event["intervalPeriod"] = period
    return spans_of(event, seen_at=at(5), now=START, who="ven-1")


def times(found: list[Span]) -> list[tuple[datetime, datetime | None]]:
    """When they hold."""
    return [(span.start, span.end) for span in found]


@pytest.mark.parametrize(
    ("text", "months", "rest"),
    [
        ("PT1H", 0, timedelta(hours=1)),
        ("P1DT2H3M4.5S", 0, timedelta(days=1, hours=2, minutes=3, seconds=4.5)),
        ("P2W", 0, timedelta(weeks=2)),
        ("P1M", 1, timedelta()),
        ("P1Y6M", 18, timedelta()),
        ("PT1M", 0, timedelta(minutes=1)),
    ],
)
def test_a_duration_is_read_as_iso_8601_says(text: str, months: int, rest: timedelta) -> None:
    """M before T is months, after it minutes."""
    assert parse_duration(text) == (months, rest)


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "1H", "PT1H30", "-PT1H", "P1.5D", "PT-1H", "P1S", "pt1h", "PT1H\n"]
)
def test_what_is_no_duration_is_refused_by_name(text: str) -> None:
    """Negative ones too: a limit does not end before it begins."""
    with pytest.raises(RejectedError) as caught:
        parse_duration(text)
    assert caught.value.reason is Reason.BAD_INTERVAL


@pytest.mark.trap("FX-O01")
@pytest.mark.parametrize("text", ["P9999Y", "PT0S", "P0D", "P9998Y12M", "P99999999999D"])
def test_p9999y_and_nothing_at_all_have_no_end(text: str) -> None:
    """Ten thousand years do not fit into a calendar, and a limit of no length is none."""
    assert after(START, parse_duration(text)) is None
    assert times(spans(interval(), start=NOON, duration=text)) == [(START, None)]


def test_a_month_is_as_long_as_the_month_is() -> None:
    """The last of January and a month is the last of February."""
    january = datetime(2027, 1, 31, tzinfo=UTC)
    assert after(january, parse_duration("P1M")) == datetime(2027, 2, 28, tzinfo=UTC)
    assert after(january, parse_duration("P1Y1M")) == datetime(2028, 2, 29, tzinfo=UTC)


@pytest.mark.trap("FX-O02")
def test_intervals_without_a_start_follow_each_other() -> None:
    """The event's start is the first one's only: read as everybody's, all would hold at once."""
    found = spans(
        interval(0), interval(1, duration="PT2H"), interval(2), start=NOON, duration="PT1H"
    )
    assert times(found) == [(at(0), at(60)), (at(60), at(180)), (at(180), at(240))]


def test_an_interval_of_its_own_time_overrides_the_event() -> None:
    """Gaps and overlaps are as they are stated; what follows one follows its end."""
    found = spans(
        interval(7, start=ONE, duration="PT30M"),
        interval(3, start="0001-01-01", duration="PT15M"),
        interval(5, start=NOON, duration="PT10M"),
        start="2026-11-01T09:00:00Z",
        duration="PT8H",
    )
    assert times(found) == [(at(60), at(90)), (at(90), at(105)), (at(0), at(10))]


@pytest.mark.trap("FX-O03")
@pytest.mark.parametrize(
    "start", ["0001-01-01", "0001-01-01T00:00:00", "0001-01-01T00:00:00Z", "0000-01-01"]
)
def test_the_beginning_of_time_is_now(start: str) -> None:
    """Of an event, when it was made; of its first interval, what the event says, or else now."""
    assert times(spans(interval(), start=start, duration="PT1H")) == [(at(5), at(65))]
    assert times(spans(interval(start=start, duration="PT1H"))) == [(at(5), at(65))]
    own = spans(interval(start=start, duration="PT1H"), start=NOON)
    assert times(own) == [(at(0), at(60))]
    assert times(spans(interval(), start=start, duration="P9999Y")) == [(at(5), None)]


def test_an_open_limit_ends_where_the_next_begins() -> None:
    """And nothing can follow what has no end."""
    found = spans(interval(0, start=NOON), interval(1, start=ONE))
    assert times(found) == [(at(0), at(60)), (at(60), None)]
    with pytest.raises(RejectedError, match="has no end"):
        spans(interval(0), interval(1), start=NOON, duration="P9999Y")


@pytest.mark.parametrize(
    "event",
    [
        {"intervals": [interval()]},
        {"intervals": [interval(duration="PT1H")]},
        {"intervals": [interval()], "intervalPeriod": "PT1H"},
        {"intervals": ["now"]},
        {"intervals": None},
        {"intervals": [interval()], "intervalPeriod": {"start": "2026-11-01T12:00:00"}},
        {"intervals": [interval()], "intervalPeriod": {"start": "noon"}},
        {"intervals": [interval()], "intervalPeriod": {"start": 0}},
        {"intervals": [interval()], "intervalPeriod": {"start": NOON, "randomizeStart": "P1M"}},
    ],
)
def test_an_event_that_does_not_say_when_is_refused(event: dict[str, Any]) -> None:
    """A moment without a time zone is no moment."""
    with pytest.raises(RejectedError):
        spans_of({"id": "event-1"} | event, seen_at=START, now=START, who="ven-1")


@pytest.mark.trap("FX-O04")
@given(st.integers(0, 3600), st.text(min_size=1, max_size=8))
def test_a_random_start_is_drawn_once_and_moves_all_that_follows(most_s: int, who: str) -> None:
    """The same after a restart, within its bounds, and no interval longer or shorter for it."""
    event = {
        "id": "event-1",
        "intervalPeriod": {"start": NOON, "duration": "PT1H", "randomizeStart": f"PT{most_s}S"},
        "intervals": [interval(0), interval(1), interval(2, start="2026-11-01T18:00:00Z")],
    }
    found = spans_of(event, seen_at=START, now=START, who=who)
    assert found == spans_of(event, seen_at=at(9), now=at(9), who=who)
    shift = found[0].start - START
    assert abs(shift) <= timedelta(seconds=most_s)
    assert times(found) == [
        (at(0) + shift, at(60) + shift),
        (at(60) + shift, at(120) + shift),
        (at(360) + shift, at(420) + shift),
    ]


def test_random_starts_differ_between_vens() -> None:
    """That is what they are for: a fleet does not move in one instant."""
    event = {
        "id": "event-1",
        "intervalPeriod": {"start": NOON, "duration": "PT1H", "randomizeStart": "PT10M"},
        "intervals": [interval()],
    }
    starts = {
        spans_of(event, seen_at=START, now=START, who=f"ven-{n}")[0].start for n in range(100)
    }
    assert len(starts) == 100
    assert min(starts) < at(-8)
    assert max(starts) > at(8)


@pytest.mark.trap("FX-O05")
def test_the_duration_of_an_event_cuts_its_intervals_off_or_repeats_them() -> None:
    """A tariff of a day that repeats for ever is spread out as far as we look, from now on."""
    two = (interval(0), interval(1))

    def event(lasts: str, now: datetime = START) -> list[Span]:
        period = {"start": NOON, "duration": "PT1H"}
        made = {"id": "e", "intervalPeriod": period, "intervals": list(two), "duration": lasts}
        return spans_of(made, seen_at=START, now=now, who="ven-1")

    assert times(event("PT90M")) == [(at(0), at(60)), (at(60), at(90))]
    assert times(event("PT3H")) == [(at(0), at(60)), (at(60), at(120)), (at(120), at(180))]
    later = START + timedelta(days=400, minutes=30)
    found = event("P9999Y", later)
    assert found[0].start <= later < (found[0].end or later)
    assert found[-1].end == later + timedelta(days=14)
    assert all(one.end == other.start for one, other in pairwise(found))
