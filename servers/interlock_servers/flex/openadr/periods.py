"""When the intervals of an event begin and end, as OpenADR 3 inherits, follows and shifts them.

From section 7.3 of the user guide of 3.1: an interval without a start of its own follows the one
before it; `0001-01-01` is now at the top and `follow` below; `P9999Y` has no end; one random shift
moves all that does not state another.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from interlock_servers.flex.models import Reason, RejectedError
from interlock_servers.flex.strict_json import JsonObject, list_member, optional_text

FOREVER_YEARS: Final = 9999
MAX_INTERVALS: Final = 600
LOOP_AHEAD: Final = timedelta(days=14)  # an event that repeats for ever is known so far ahead

_BAD: Final = Reason.BAD_INTERVAL
_DURATION = re.compile(
    r"P(?=\d|T\d)(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?"
    r"(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?"
)
_BEGINNING_OF_TIME = re.compile(r"000[01]-0[01]-0[01](?:T00:00(?::00(?:\.0+)?)?(?:Z|\+00:00)?)?")


class Duration(NamedTuple):
    """An ISO 8601 duration: months are no fixed number of seconds."""

    months: int
    rest: timedelta

    @property
    def open(self) -> bool:
        """Whether it has no end: `P9999Y`, or nothing at all, which for a limit is the same."""
        return self.months >= FOREVER_YEARS * 12 or (not self.months and not self.rest)


class Span(NamedTuple):
    """An interval and when it holds; `end` None for ever."""

    start: datetime
    end: datetime | None
    interval: JsonObject


class _Period(NamedTuple):
    """What an `intervalPeriod` says; a part that it leaves out is None."""

    start: datetime | None
    starts_now: bool
    duration: Duration | None
    randomize: Duration | None


_NOTHING: Final = _Period(None, starts_now=False, duration=None, randomize=None)


def parse_duration(text: str) -> Duration:
    """The duration in `text`.

    Raises:
        RejectedError: `BAD_INTERVAL`, it is none, or a negative one.
    """
    match = _DURATION.fullmatch(text)
    if match is None or len(text) > 64:
        raise RejectedError(_BAD, f"{text[:60]!r} is not an ISO 8601 duration that we can follow")
    years, months, weeks, days, hours, minutes = (int(part or 0) for part in match.groups()[:6])
    try:
        rest = timedelta(
            weeks=weeks,
            days=days,
            hours=hours,
            minutes=minutes,
            seconds=float(match.groups()[6] or 0),
        )
    except OverflowError:
        return Duration(FOREVER_YEARS * 12, timedelta())
    return Duration(years * 12 + months, rest)


def after(moment: datetime, duration: Duration) -> datetime | None:
    """`moment` and the duration later; None where that is never."""
    if duration.open:
        return None
    years, month = divmod(moment.month - 1 + duration.months, 12)
    try:
        return _on_day(moment, moment.year + years, month + 1) + duration.rest
    except (OverflowError, ValueError):
        return None


def _on_day(moment: datetime, year: int, month: int) -> datetime:
    """The same day of another month, or its last where that has fewer days."""
    for day in range(moment.day, moment.day - 4, -1):
        try:
            return moment.replace(year=year, month=month, day=day)
        except ValueError:
            if year > 9999:
                raise
    raise ValueError("no such month")


def spans_of(event: JsonObject, *, seen_at: datetime, now: datetime, who: str) -> list[Span]:
    """The intervals of an event in their order, with the moments at which they hold.

    Args:
        event: as the VTN gave it.
        seen_at: what `now` means in it: when it was made, or else when we first saw it.
        now: the present, from which on an event that repeats is spread out.
        who: whose random shift it is; the same for the same event, also after a restart.

    Raises:
        RejectedError: `BAD_INTERVAL`, it does not say when.
    """
    intervals = list_member(event, "intervals", _BAD, most=MAX_INTERVALS)
    default = _period(event)
    spans: list[Span] = []
    shift = timedelta()
    for place, interval in enumerate(intervals):
        if not isinstance(interval, dict):
            raise RejectedError(_BAD, "an interval is not an object")
        own = _period(interval)
        stated = own.randomize or (default.randomize if place == 0 else None)
        if stated is not None:
            shift = _shift(stated, f"{who}|{event.get('id')}|{place}")
        start = own.start
        if place == 0:
            start = start or default.start
            if start is None and not (own.starts_now or default.starts_now):
                raise RejectedError(_BAD, "neither the event nor its first interval says when")
            start = (start or seen_at) + shift
        elif start is not None:
            start += shift
            spans[-1] = _until(spans[-1], start)
        else:
            if spans[-1].end is None:
                raise RejectedError(_BAD, f"interval {place} follows one that has no end")
            start = spans[-1].end
        duration = own.duration or default.duration or Duration(0, timedelta())
        spans.append(Span(start, after(start, duration), interval))
    return _as_long_as(event, spans, now)


def _until(span: Span, start: datetime) -> Span:
    """What has no end of its own ends where the next begins."""
    return span._replace(end=start) if span.end is None and span.start < start else span


def _as_long_as(event: JsonObject, spans: list[Span], now: datetime) -> list[Span]:
    """The intervals cut off, or repeated, by the duration of the event, which 3.1 has."""
    stated = optional_text(event, "duration", _BAD)
    if stated is None or not spans:
        return spans
    duration = parse_duration(stated)
    first = spans[0].start
    ends = [span.end for span in spans]
    last = max((end for end in ends if end is not None), default=first)
    limit = after(first, duration)
    if None in ends or last <= first:
        return [_cut(span, limit) for span in spans if limit is None or span.start < limit]
    horizon = max(now, first) + LOOP_AHEAD
    until = horizon if limit is None else min(limit, horizon)
    return list(_repeated(spans, first, last - first, until, now))


def _repeated(
    spans: Sequence[Span], first: datetime, length: timedelta, until: datetime, now: datetime
) -> Iterator[Span]:
    round_ = max(0, (now - first) // length)
    given = 0
    while (shift := round_ * length) + first < until and given < MAX_INTERVALS:
        for span in spans:
            moved = _cut(span._replace(start=span.start + shift, end=_plus(span.end, shift)), until)
            if moved.start < until:
                given += 1
                yield moved
        round_ += 1


def _plus(moment: datetime | None, shift: timedelta) -> datetime | None:
    return None if moment is None else moment + shift


def _cut(span: Span, limit: datetime | None) -> Span:
    if limit is None or (span.end is not None and span.end <= limit):
        return span
    return span._replace(end=limit)


def _period(members: JsonObject) -> _Period:
    period = members.get("intervalPeriod")
    if period is None:
        return _NOTHING
    if not isinstance(period, dict):
        raise RejectedError(_BAD, "intervalPeriod is not an object")
    start, starts_now = _start(period)
    return _Period(start, starts_now, _part(period, "duration"), _part(period, "randomizeStart"))


def _part(period: JsonObject, name: str) -> Duration | None:
    text = optional_text(period, name, _BAD)
    if text is None:
        return None
    # how far a start may move is a bound, whichever way its sign says
    return parse_duration(text.removeprefix("-") if name == "randomizeStart" else text)


def _start(period: JsonObject) -> tuple[datetime | None, bool]:
    text = optional_text(period, "start", _BAD)
    if text is None:
        return None, False
    if _BEGINNING_OF_TIME.fullmatch(text):
        return None, True
    return parse_moment(text, "start"), False


def parse_moment(text: str, name: str) -> datetime:
    """The moment in `text`, in UTC.

    Raises:
        RejectedError: `BAD_TIME`, it is none, or says no time zone.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise RejectedError(Reason.BAD_TIME, f"{name} {text[:60]!r} is no moment") from error
    if moment.tzinfo is None:
        raise RejectedError(Reason.BAD_TIME, f"{name} {text[:60]!r} says no time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise RejectedError(Reason.BAD_TIME, f"{name} {text[:60]!r} is out of reach") from error


def _shift(most: Duration, seed: str) -> timedelta:
    """Anywhere within `most` before or after, drawn once for all time."""
    if most.months:
        raise RejectedError(_BAD, "randomizeStart of months or more cannot be meant")
    drawn = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8]) / (2**64 - 1)
    return timedelta(seconds=round(most.rest.total_seconds() * (2 * drawn - 1), 3))
