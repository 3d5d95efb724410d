"""What a grid event came to: baseline, target and meter, interval by interval; a pure function.

A gap in the meter's data is shown as a gap and counted; nothing stands in for it.
"""

import csv
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from io import StringIO
from typing import Any, NamedTuple

from interlock_servers.flex.baseline import Baseline, Method, baseline
from interlock_servers.flex.in_force import held_at, turns_after
from interlock_servers.flex.meter import MeterData
from interlock_servers.flex.models import LoadTarget
from interlock_servers.flex.schedule import rank
from interlock_tools.errors import InvalidRequestError, NotFoundError

COLUMNS = ("start", "baseline_w", "target_w", "metered_w", "reduction_w", "within_target", "note")
GAP, DOUBTED = "gap", "doubted"


class Row(NamedTuple):
    """One interval of the event; what is not known is None.

    Attributes:
        start: when it begins.
        baseline_w: what the site would have drawn.
        target_w: the strictest limit that held at any moment of it.
        metered_w: what it drew.
        note: `gap` or `doubted` where the meter gave nothing that counts.
        event_ids: the events behind the target.
    """

    start: datetime
    baseline_w: float | None
    target_w: float | None
    metered_w: float | None
    note: str
    event_ids: tuple[str, ...]

    @property
    def reduction_w(self) -> float | None:
        """How much less it drew than it would have; negative where it drew more."""
        if self.baseline_w is None or self.metered_w is None:
            return None
        return self.baseline_w - self.metered_w

    @property
    def asked_w(self) -> float | None:
        """How much less it was asked to draw; nothing where the target is above the baseline."""
        if self.baseline_w is None or self.target_w is None:
            return None
        return max(0.0, self.baseline_w - self.target_w)

    @property
    def within_target(self) -> bool | None:
        """Whether it drew no more than it was allowed."""
        if self.target_w is None or self.metered_w is None:
            return None
        return self.metered_w <= self.target_w


class Settlement(NamedTuple):
    """The event as a whole, and how it was reckoned."""

    event_id: str
    method: str
    interval: timedelta
    rows: tuple[Row, ...]
    baseline: Baseline
    remarks: tuple[str, ...]

    @property
    def gaps(self) -> tuple[datetime, ...]:
        """The intervals of which the meter says nothing that counts."""
        return tuple(row.start for row in self.rows if row.metered_w is None)

    def _kwh(self, watts: Iterable[float]) -> float:
        return sum(watts) * (self.interval / timedelta(hours=1)) / 1e3

    def _settled(self) -> list[tuple[float, float]]:
        """Reduced and asked watts of each interval in which both are known."""
        pairs = ((row.reduction_w, row.asked_w) for row in self.rows)
        return [(done, asked) for done, asked in pairs if done is not None and asked is not None]

    def totals(self) -> dict[str, Any]:
        """What the whole comes to, over the intervals in which all is known; their number too."""
        settled = self._settled()
        reduced_kwh = self._kwh(done for done, _ in settled)
        asked_kwh = self._kwh(asked for _, asked in settled)
        judged = [row.within_target for row in self.rows if row.within_target is not None]
        return {
            "reduced_kwh": reduced_kwh if settled else None,
            "asked_kwh": asked_kwh if settled else None,
            "delivered_pct": 100 * reduced_kwh / asked_kwh if asked_kwh > 0 else None,
            "intervals": len(self.rows),
            "intervals_settled": len(settled),
            "intervals_within_target": sum(judged),
            "intervals_over_target": len(judged) - sum(judged),
            "gaps": len(self.gaps),
            "complete": len(settled) == len(self.rows),
        }

    def as_csv(self) -> str:
        """The rows with a header; what is not known is an empty cell."""
        out = StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in self.rows:
            watts = (row.baseline_w, row.target_w, row.metered_w, row.reduction_w)
            shown = ["" if value is None else f"{value:.1f}" for value in watts]
            kept = {None: "", True: "yes", False: "no"}[row.within_target]
            writer.writerow([row.start.isoformat(), *shown, kept, row.note])
        return out.getvalue()

    def as_json(self) -> dict[str, Any]:
        """The whole, for machines."""
        how = self.baseline
        return {
            "event_id": self.event_id,
            "method": self.method,
            "interval_s": self.interval.total_seconds(),
            "totals": self.totals(),
            "gaps": [start.isoformat() for start in self.gaps],
            "baseline_days": [day.isoformat() for day in how.days],
            "days_passed_over": {day.isoformat(): why for day, why in how.passed_over},
            "adjustment_w": how.adjustment_w,
            "adjustment_factor": how.factor,
            "remarks": list(self.remarks),
        }


def last_event(targets: Iterable[LoadTarget]) -> str:
    """The event whose target was received last, of those that limit something.

    Raises:
        NotFoundError: no target was recorded.
    """
    limiting = [target for target in targets if target.limit_w is not None]
    if not limiting:
        raise NotFoundError("no target was recorded, so there is no event to settle")
    last = max(limiting, key=lambda target: target.received_at)
    return last.correlation_id or last.event_id


def settle(
    event_id: str,
    targets: Iterable[LoadTarget],
    meter: MeterData,
    method: Method,
    *,
    feeds: Sequence[str],
    zone: tzinfo,
    holidays: Collection[date] = (),
    until: datetime | None = None,
) -> Settlement:
    """The settlement of one event.

    Args:
        event_id: the correlation id of the grid's request.
        targets: all that were recorded; days of other events are no baseline.
        meter: the meter's data, of the event and of the days before it.
        method: how the baseline is made.
        feeds: the feeds of the site, all of them.
        zone: the site's.
        holidays: they are as Sundays.
        until: where the event has no end, how far it is settled.

    Raises:
        NotFoundError: no target of this event was recorded.
        InvalidRequestError: the event has no end and `until` is not given; no interval of the
            meter lies in it.
    """
    known = sorted(targets, key=rank)
    own = [t for t in known if event_id in (t.correlation_id, t.event_id)]
    if not own:
        raise NotFoundError(f"no target of event {event_id!r} was recorded")
    start = min(target.start for target in own)
    ends = [target.end or until for target in own]
    if None in ends:
        raise InvalidRequestError("the event has no end; say until when it is to be settled")
    end = max(moment for moment in ends if moment is not None)
    starts = meter.over(start, end)
    if not starts:
        raise InvalidRequestError(
            f"the event is from {start.isoformat()} to {end.isoformat()}, and no whole interval "
            "of the meter lies in it"
        )
    others = [target for target in known if target not in own]
    made = baseline(
        meter,
        starts,
        method,
        zone=zone,
        holidays=holidays,
        event_days=_days_of(others, starts[0], zone),
    )
    rows = tuple(_row(at, meter, made, own, feeds) for at in starts)
    settlement = Settlement(event_id, method.name, meter.interval, rows, made, ())
    return settlement._replace(remarks=tuple(_remarks(settlement, start, end)))


def _row(
    start: datetime,
    meter: MeterData,
    made: Baseline,
    own: Sequence[LoadTarget],
    feeds: Sequence[str],
) -> Row:
    end = start + meter.interval
    held = [
        held_at(own, feeds, moment) for moment in (start, *turns_after(own, start)) if moment < end
    ]
    limits = [(one.limit_w, one.behind) for one in held if one.limit_w is not None]
    target_w, behind = min(limits, key=lambda limit: limit[0], default=(None, ()))
    metered_w = meter.at(start)
    doubted = start.astimezone(UTC) in meter.doubted
    return Row(
        start=start,
        baseline_w=made.mean_w.get(start.astimezone(UTC)),
        target_w=target_w,
        metered_w=metered_w,
        note="" if metered_w is not None else DOUBTED if doubted else GAP,
        event_ids=tuple(dict.fromkeys(target.event_id for target in behind)),
    )


def _days_of(targets: Iterable[LoadTarget], before: datetime, zone: tzinfo) -> set[date]:
    """The days on which any of these limited the site, up to a moment."""
    days: set[date] = set()
    for target in targets:
        if target.limit_w is None or target.start >= before:
            continue
        day = target.start.astimezone(zone).date()
        last = min(target.end or before, before).astimezone(zone).date()
        while day <= last:
            days.add(day)
            day += timedelta(days=1)
    return days


def _remarks(settlement: Settlement, start: datetime, end: datetime) -> Iterable[str]:
    rows, interval = settlement.rows, settlement.interval
    if settlement.baseline.why_not is not None:
        yield f"baseline: {settlement.baseline.why_not}"
    if settlement.gaps:
        first = settlement.gaps[0].isoformat()
        yield f"{len(settlement.gaps)} intervals are not metered, the first at {first}"
    if rows[0].start > start or rows[-1].start + interval < end:
        yield (
            f"only whole intervals of {interval} are settled: "
            f"{rows[0].start.isoformat()} to {(rows[-1].start + interval).isoformat()}"
        )
    if all(row.target_w is None for row in rows):
        yield "the event limits single feeds and not the site: the meter of the site says nothing"
