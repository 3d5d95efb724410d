"""What a grid event came to: by hand-reckoned days, and with gaps that nothing stands in for."""

import csv
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock_servers.flex.baseline import HIGH_4_OF_5, TEN_OF_10, Method, baseline
from interlock_servers.flex.meter import MeterData, meter_data
from interlock_servers.flex.models import LoadTarget
from interlock_servers.flex.recorded import TargetRecord, recorded_targets
from interlock_servers.flex.settlement import Settlement, settle
from interlock_tools.errors import InvalidRequestError, NotFoundError
from tests.servers.flex.conftest import FEEDS, OTHER_ISV
from tests.servers.flex.test_store import target

NEW_YORK = ZoneInfo("America/New_York")
HOUR = timedelta(hours=1)
DAY = date(2026, 11, 18)  # a Wednesday, no clock is set around it
EVENT = "5f1b7c1e-38a4-4f6e-9d8e-0c2f6d6a4b11"

Drawn = Callable[[date, int], float | None]


def local(day: date, hour: int) -> datetime:
    """A moment by the clock on the wall."""
    return datetime(day.year, day.month, day.day, tzinfo=NEW_YORK) + timedelta(hours=hour)


def meter(drawn: Drawn, *, days: int = 60, last: date = DAY) -> MeterData:
    """Hourly means of the days up to the event's; None leaves one out."""
    known: dict[datetime, float] = {}
    for back in range(days, -1, -1):
        day = last - timedelta(days=back)
        for hour in range(24):
            watts = drawn(day, hour)
            if watts is not None:
                known[local(day, hour).astimezone(UTC)] = watts
    return MeterData(HOUR, known, frozenset())


def event(limit_w: float | None = 6_000.0, first: int = 14, last: int = 18) -> LoadTarget:
    """A limit on the whole site on the day, from one hour to another."""
    return target(
        limit_w,
        start=local(DAY, first).astimezone(UTC),
        end=local(DAY, last).astimezone(UTC),
        correlation_id=EVENT,
    )


def settled(
    drawn: Drawn, *targets: LoadTarget, method: Method = HIGH_4_OF_5, **options: Any
) -> Settlement:
    """The settlement of the event by these means."""
    return settle(
        EVENT,
        targets or [event()],
        meter(drawn),
        method,
        feeds=FEEDS,
        zone=NEW_YORK,
        **options,
    )


def steady(day: date, hour: int) -> float:
    """10 kW always, but 6 kW in the four hours of the event."""
    return 6_000.0 if day == DAY and 14 <= hour < 18 else 10_000.0


def test_a_steady_site_is_settled_to_the_watt() -> None:
    """4 kW less for four hours is 16 kWh, which is all that was asked."""
    made = settled(steady)
    assert [row.start for row in made.rows] == [local(DAY, hour) for hour in range(14, 18)]
    assert {row.baseline_w for row in made.rows} == {10_000.0}
    assert {row.reduction_w for row in made.rows} == {4_000.0}
    assert made.totals() == {
        "reduced_kwh": pytest.approx(16.0),
        "asked_kwh": pytest.approx(16.0),
        "delivered_pct": pytest.approx(100.0),
        "intervals": 4,
        "intervals_settled": 4,
        "intervals_within_target": 4,
        "intervals_over_target": 0,
        "gaps": 0,
        "complete": True,
    }
    assert made.remarks == ()
    assert made.baseline.adjustment_w == 0.0


@pytest.mark.trap("FX-B01")
def test_the_four_highest_of_the_last_five_weekdays_count() -> None:
    """Wednesday's five are 11 to 17 November without the weekend; the lowest falls away."""
    by_day = {11: 8.0, 12: 9.0, 13: 10.0, 16: 11.0, 17: 12.0}

    def drawn(day: date, hour: int) -> float:
        inside = 14 <= hour < 18
        if day.month == 11 and day.day in by_day and inside:
            return by_day[day.day] * 1e3
        return 99_000.0 if inside and day.weekday() >= 5 else 10_000.0

    made = settled(drawn)
    assert made.baseline.days == tuple(date(2026, 11, day) for day in (12, 13, 16, 17))
    assert {row.baseline_w for row in made.rows} == {10_500.0}


@pytest.mark.trap("FX-B02")
def test_the_hours_before_the_event_move_the_baseline_and_the_last_hour_does_not() -> None:
    """From four hours to one hour before: who sees the event coming could raise the last hour."""

    def drawn(day: date, hour: int) -> float:
        if day == DAY and 10 <= hour < 13:
            return 12_000.0
        return 50_000.0 if day == DAY and hour == 13 else steady(day, hour)

    added = settled(drawn)
    assert added.baseline.adjustment_w == pytest.approx(2_000.0)
    assert {row.baseline_w for row in added.rows} == {12_000.0}
    bounded = settled(
        lambda d, h: 15_000.0 if d == DAY and h < 14 else steady(d, h), method=TEN_OF_10
    )
    assert bounded.baseline.factor == 1.2
    assert [row.baseline_w for row in bounded.rows] == [pytest.approx(12_000.0)] * 4
    assert len(bounded.baseline.days) == 10


@pytest.mark.trap("FX-B03")
def test_days_of_other_events_and_holidays_are_no_baseline() -> None:
    """A day that was curtailed says nothing of what the site would have drawn."""
    other = target(
        3_000.0,
        source=OTHER_ISV,
        start=local(date(2026, 11, 17), 9).astimezone(UTC),
        end=local(date(2026, 11, 17), 10).astimezone(UTC),
    )
    made = settled(steady, event(), other, holidays={date(2026, 11, 16)})
    assert made.baseline.days[-1] == date(2026, 11, 13)
    assert made.baseline.passed_over == ((date(2026, 11, 17), "another event"),)


@pytest.mark.trap("FX-B04")
def test_a_gap_is_a_gap_and_counts_for_nothing() -> None:
    """In the event it is not settled, on another day that day does not count; both are named."""

    def drawn(day: date, hour: int) -> float | None:
        if (day, hour) in {(DAY, 15), (date(2026, 11, 17), 16)}:
            return None
        return steady(day, hour)

    made = settled(drawn)
    assert made.gaps == (local(DAY, 15),)
    assert made.totals()["reduced_kwh"] == pytest.approx(12.0)
    assert made.totals()["complete"] is False
    assert "1 intervals are not metered" in made.remarks[0]
    assert made.baseline.passed_over == ((date(2026, 11, 17), "a gap in the meter's data"),)
    rows = list(csv.DictReader(StringIO(made.as_csv())))
    assert [row["note"] for row in rows] == ["", "gap", "", ""]
    assert [row["metered_w"] for row in rows] == ["6000.0", "", "6000.0", "6000.0"]
    assert [row["within_target"] for row in rows] == ["yes", "", "yes", "yes"]


def test_a_gap_before_the_event_leaves_the_baseline_unmoved_and_says_so() -> None:
    """A window with a hole in it is not the window."""
    made = settled(lambda d, h: None if (d, h) == (DAY, 11) else steady(d, h))
    assert made.baseline.adjustment_w is None
    assert "not adjusted" in made.remarks[0]


def test_without_enough_days_there_is_no_baseline() -> None:
    """And then nothing is settled, though the target can still be judged."""
    made = settled(lambda d, h: steady(d, h) if d >= DAY - timedelta(days=3) else None)
    assert made.totals()["reduced_kwh"] is None
    assert made.totals()["intervals_within_target"] == 4
    assert "2 of 5 days" in made.remarks[0]


@pytest.mark.trap("FX-B05")
def test_a_day_is_like_another_by_the_clock_on_the_wall() -> None:
    """Clocks went back on 1 November: in UTC the same hour of the day is another one."""
    day = date(2026, 11, 3)

    def drawn(when: date, hour: int) -> float:
        return 20_000.0 if hour == 14 else 10_000.0

    starts = [local(day, 14)]
    made = baseline(meter(drawn, last=day), starts, HIGH_4_OF_5, zone=NEW_YORK)
    assert list(made.mean_w.values()) == [20_000.0]
    assert date(2026, 10, 30) in made.days
    spring = date(2027, 3, 21)  # a Sunday; on the Sunday before, two o'clock did not exist
    made = baseline(meter(drawn, last=spring), [local(spring, 2)], HIGH_4_OF_5, zone=NEW_YORK)
    assert (date(2027, 3, 14), "a gap in the meter's data") in made.passed_over


def test_the_strictest_target_of_an_interval_counts_and_only_whole_intervals_do() -> None:
    """A limit that begins at half past is the limit of that hour."""
    first, second = event(8_000.0), event(5_000.0)
    second = second.model_copy(
        update={
            "start": local(DAY, 15).astimezone(UTC) + HOUR / 2,
            "end": local(DAY, 18).astimezone(UTC) + HOUR / 2,
            "event_id": "second",
            "sent_at": first.sent_at + HOUR,
        }
    )
    made = settled(steady, second, first)
    assert [row.target_w for row in made.rows] == [8_000.0, 5_000.0, 5_000.0, 5_000.0]
    assert [row.within_target for row in made.rows] == [True, False, False, False]
    assert any("only whole intervals" in remark for remark in made.remarks)


def test_what_cannot_be_settled_is_refused_by_name() -> None:
    """An event that nobody recorded, one without an end, one that the meter does not reach."""
    with pytest.raises(NotFoundError, match="never-heard"):
        settle("never-heard", [event()], meter(steady), HIGH_4_OF_5, feeds=FEEDS, zone=UTC)
    endless = event().model_copy(update={"end": None})
    with pytest.raises(InvalidRequestError, match="no end"):
        settled(steady, endless)
    assert len(settled(steady, endless, until=local(DAY, 16)).rows) == 2
    with pytest.raises(InvalidRequestError, match="no whole interval"):
        settled(steady, event().model_copy(update={"end": event().start + HOUR / 2}))
    (remark,) = settled(
        steady, event().model_copy(update={"all_feeds": False, "feed_tags": (FEEDS[0],)})
    ).remarks
    assert "single feeds" in remark


WATTS = st.floats(1.0, 1e8)


@given(st.lists(WATTS, min_size=24, max_size=24), st.floats(0.5, 2.0))
def test_a_site_that_draws_as_ever_has_reduced_nothing(day: list[float], scale: float) -> None:
    """Whatever its day looks like; twice the site has twice the baseline."""

    def drawn(_: date, hour: int) -> float:
        return day[hour]

    for method in (HIGH_4_OF_5, TEN_OF_10):
        made = settled(drawn, method=method)
        for row in made.rows:
            assert row.reduction_w == pytest.approx(0.0, abs=1e-6 * max(day))
        larger = settled(lambda d, h: scale * drawn(d, h), method=method)
        for row, other in zip(made.rows, larger.rows, strict=True):
            assert other.baseline_w == pytest.approx(scale * (row.baseline_w or 0.0), rel=1e-9)


# --- what is read ---


def table(rows: Iterable[str], column: str = "mean_kw", more: str = "") -> str:
    """A CSV of these rows."""
    return "\n".join([f"start,{column}{more}", *rows]) + "\n"


@pytest.mark.trap("FX-B06")
def test_a_meter_is_read_in_the_unit_that_its_column_says() -> None:
    """Energy of a quarter of an hour is four times as many watts."""
    rows = [
        "2026-11-18T14:00:00-05:00,2",
        "2026-11-18T14:15:00-05:00,",
        "2026-11-18T14:30:00-05:00,3",
    ]
    at_two = local(DAY, 14)
    for column, watts in (("mean_kw", 2_000.0), ("mean_w", 2.0), ("energy_kwh", 8_000.0)):
        read = meter_data(table(rows, column), "meter.csv")
        assert read.interval == HOUR / 4
        assert read.at(at_two) == watts
        assert read.at(at_two + HOUR / 4) is None
    doubted = meter_data(
        table(
            [f"{row},{q}" for row, q in zip(rows, ("good", "", "192"), strict=True)],
            more=",quality",
        ),
        "meter.csv",
    )
    assert doubted.at(at_two + HOUR / 2) is None
    assert doubted.doubted == {(at_two + HOUR / 2).astimezone(UTC)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "start,mean_kw\n",
        table(["2026-11-18T14:00:00Z,1"]),
        table(["2026-11-18T14:00:00,1", "2026-11-18T15:00:00,1"]),
        table(["noon,1", "2026-11-18T15:00:00Z,1"]),
        table(["2026-11-18T14:00:00Z,1", "2026-11-18T14:00:00Z,2"]),
        table(["2026-11-18T14:00:00Z,1", "2026-11-18T15:00:00Z,1", "2026-11-18T16:30:00Z,1"]),
        table(["2026-11-18T14:00:00Z,nan", "2026-11-18T15:00:00Z,1"]),
        table(["2026-11-18T14:00:00Z,one", "2026-11-18T15:00:00Z,1"]),
        table(["2026-11-18T14:00:00Z,1", "2026-11-18T15:00:00Z,1"], column="kw"),
        table(["2026-11-18T14:00:00Z,1,1", "2026-11-18T15:00:00Z,1,1"], "mean_kw,mean_w"),
    ],
)
def test_what_is_no_interval_data_is_refused(text: str) -> None:
    """One reading only: no time zone, two units or two lengths are none."""
    with pytest.raises(InvalidRequestError):
        meter_data(text, "meter.csv")


def test_the_record_of_targets_is_read_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what went aside when it was long; a line that was cut off is no target."""
    path = tmp_path / "targets.jsonl"
    record = TargetRecord(path)
    monkeypatch.setattr("interlock_servers.flex.recorded.MAX_BYTES", 1_000)
    written = [target(1_000.0 * n, FEEDS[0]) for n in range(1, 5)]
    for one in written:
        record.add([one])
    assert set(recorded_targets(path)) <= set(written)
    assert recorded_targets(path)[-1] == written[-1]
    path.write_text(path.read_text() + '{"limit_w": 3')
    assert recorded_targets(path)[-1] == written[-1]
    path.write_text("{}\n")
    with pytest.raises(InvalidRequestError, match="line 1"):
        recorded_targets(path)
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        recorded_targets(tmp_path / "absent.jsonl")
