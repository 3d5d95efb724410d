"""What the site would have drawn: the average of past days like it, moved to fit the day itself.

A program's own contract says which method counts, and its text does, not this. The two here follow
what is commonly said of two that many programs use. **Neither tariff's text was at hand, so none of
this was checked against it**; where we know of a difference it is named.

`high-4-of-5`: the economic customer baseline of PJM (Manual 11, Energy & Ancillary Services Market
Operations, and Attachment K of the Tariff). As said of it: the last 5 like weekdays within 45 days,
the 4 with most draw; Saturdays and Sundays apart, 2 of 3; a symmetric additive adjustment by the
three hours that begin four hours before the event. Different here: days of low usage (below a
quarter of the average) are not left out, and 4 of fewer than 5 days count without a longer search.

`10-of-10`: the ten-in-ten of CAISO for proxy demand resources (Fifth Replacement Tariff, section
4.13.4, and its Baseline Accuracy Work Group, 2017). As said of it: 10 weekdays, or 4 weekend days
and holidays, within 45 days, without event days; a same-day factor from 0.8 to 1.2 by the three
hours that begin four hours before the event. Different here: with fewer than 10 weekdays there is
no baseline, where the tariff is said to go on with at least 5.

Left out of both: weather, line losses, generation behind the meter.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from statistics import fmean
from typing import Final, NamedTuple

from interlock_servers.flex.meter import MeterData

LOOK_BACK_DAYS: Final = 45
WINDOW: Final = (timedelta(hours=4), timedelta(hours=1))  # before the event: from and to


class Adjustment(StrEnum):
    """How a baseline is moved to fit the hours before the event."""

    ADDITIVE = "additive"
    MULTIPLICATIVE = "multiplicative"


class Method(NamedTuple):
    """How a baseline is made.

    Attributes:
        name: what people call it.
        weekday: of how many of the last days like it how many count, those with the highest draw.
        weekend: the same of Saturdays, Sundays and holidays.
        alike: what kind of day a weekday number is, holidays being Sundays.
        adjustment: how it is moved.
        most: by what part it is moved at most; None is by any.
    """

    name: str
    weekday: tuple[int, int]
    weekend: tuple[int, int]
    alike: Callable[[int], str]
    adjustment: Adjustment
    most: float | None


def _pjm_day(weekday: int) -> str:
    return {5: "saturday", 6: "sunday"}.get(weekday, "weekday")


def _caiso_day(weekday: int) -> str:
    return "weekday" if weekday < 5 else "weekend"


HIGH_4_OF_5: Final = Method("high-4-of-5", (4, 5), (2, 3), _pjm_day, Adjustment.ADDITIVE, most=None)
TEN_OF_10: Final = Method(
    "10-of-10", (10, 10), (4, 4), _caiso_day, Adjustment.MULTIPLICATIVE, most=0.2
)
METHODS: Final = {method.name: method for method in (HIGH_4_OF_5, TEN_OF_10)}


class Baseline(NamedTuple):
    """A baseline and how it came about.

    Attributes:
        mean_w: by the start of an interval of the event, in UTC; empty where there is none.
        days: the days that it is the average of.
        passed_over: days like it that do not count, and why.
        adjustment_w: what was added to each interval, where that is how it is moved.
        factor: what each was multiplied with, where that is.
        why_not: why there is no baseline, or why it was not moved; None where all is well.
    """

    mean_w: dict[datetime, float]
    days: tuple[date, ...]
    passed_over: tuple[tuple[date, str], ...]
    adjustment_w: float | None
    factor: float | None
    why_not: str | None


def baseline(
    meter: MeterData,
    starts: Sequence[datetime],
    method: Method,
    *,
    zone: tzinfo,
    holidays: Collection[date] = (),
    event_days: Collection[date] = (),
) -> Baseline:
    """The baseline of the intervals of an event; a pure function.

    A day that lacks any interval it is needed for does not count; none is filled.

    Args:
        meter: the meter's data, also of the days before.
        starts: the starts of the event's intervals, in order; not empty.
        method: how it is made.
        zone: the site's: a day is like another at the same time by the clock on the wall.
        holidays: they are as Sundays.
        event_days: days of other events, which say nothing about an ordinary one.
    """
    first = starts[0].astimezone(zone).date()
    kind = _kind(first, method, holidays)
    high, of = method.weekday if kind == "weekday" else method.weekend
    window = meter.over(starts[0] - WINDOW[0], starts[0] - WINDOW[1])
    alike: dict[date, tuple[list[float], list[float] | None]] = {}
    passed_over: list[tuple[date, str]] = []
    for back in range(1, LOOK_BACK_DAYS + 1):
        day = first - timedelta(days=back)
        if len(alike) == of:
            break
        if _kind(day, method, holidays) != kind:
            continue
        if day in event_days:
            passed_over.append((day, "another event"))
            continue
        drawn = _on_day(meter, starts, first - day, zone)
        if drawn is None:
            passed_over.append((day, "a gap in the meter's data"))
            continue
        alike[day] = drawn, _on_day(meter, window, first - day, zone)
    if len(alike) < of:
        why = f"{len(alike)} of {of} days like it are known within {LOOK_BACK_DAYS} days"
        if len(alike) < high:
            return Baseline({}, tuple(alike), tuple(passed_over), None, None, why)
    days = sorted(sorted(alike, key=lambda day: fmean(alike[day][0]), reverse=True)[:high])
    plain = [fmean(column) for column in zip(*(alike[day][0] for day in days), strict=True)]
    short = why if len(alike) < of else None
    moved, adjustment_w, factor, unmoved = _moved(
        plain, method, _known(meter, window), [alike[day][1] for day in days]
    )
    return Baseline(
        {start.astimezone(UTC): watts for start, watts in zip(starts, moved, strict=True)},
        tuple(days),
        tuple(passed_over),
        adjustment_w,
        factor,
        "; ".join(part for part in (short, unmoved) if part) or None,
    )


def _kind(day: date, method: Method, holidays: Collection[date]) -> str:
    return method.alike(6 if day in holidays else day.weekday())


def _on_day(
    meter: MeterData, starts: Iterable[datetime], back: timedelta, zone: tzinfo
) -> list[float] | None:
    """The means at the same times by the clock so many days earlier; None where one is not known.

    On a day that the clock is set forward an hour is missing, and such a day does not count.
    """
    found: list[float] = []
    for start in starts:
        local = start.astimezone(zone)
        then = (local.replace(tzinfo=None) - back).replace(tzinfo=zone, fold=local.fold)
        watts = meter.at(then)
        exists = then.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == then.replace(
            tzinfo=None
        )
        if watts is None or not exists:
            return None
        found.append(watts)
    return found


def _known(meter: MeterData, starts: Iterable[datetime]) -> list[float] | None:
    drawn = [meter.at(start) for start in starts]
    known = [watts for watts in drawn if watts is not None]
    return known if known and len(known) == len(drawn) else None


def _moved(
    plain: list[float],
    method: Method,
    before: list[float] | None,
    days_before: Sequence[list[float] | None],
) -> tuple[list[float], float | None, float | None, str | None]:
    """The baseline moved by the hours before the event, by how much, or why it was not."""
    known = [drawn for drawn in days_before if drawn]
    if before is None or len(known) < len(days_before):
        where = "of the day itself" if before is None else "of a day that it is the average of"
        return plain, None, None, f"not adjusted: hours before the event {where} have a gap"
    usual_w, drawn_w = fmean(fmean(drawn) for drawn in known), fmean(before)
    if method.adjustment is Adjustment.ADDITIVE:
        difference_w = drawn_w - usual_w
        return [watts + difference_w for watts in plain], difference_w, None, None
    if usual_w <= 0:
        return plain, None, None, "not adjusted: the usual draw before the event is nothing"
    most = method.most or 0.0
    factor = min(max(drawn_w / usual_w, 1 - most), 1 + most)
    return [watts * factor for watts in plain], None, factor, None
