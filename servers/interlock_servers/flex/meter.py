"""Interval data of a revenue meter: means of equal intervals, with gaps that stay gaps."""

import csv
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import pairwise
from typing import Final, NamedTuple

from interlock_tools.errors import InvalidRequestError

MAX_INTERVALS: Final = 200_000
# a column, and what makes watts of it; of energy it depends on the interval
POWER: Final = {"mean_w": 1.0, "mean_kw": 1e3}
ENERGY: Final = "energy_kwh"
GOOD: Final = frozenset({"", "1", "good", "ok", "valid", "actual"})


class MeterData(NamedTuple):
    """What a meter said.

    Attributes:
        interval: how long each mean is over.
        mean_w: by the start of its interval, in UTC; what is not here is not known.
        doubted: starts whose value was there, with a quality that is not good; they are not known.
    """

    interval: timedelta
    mean_w: Mapping[datetime, float]
    doubted: frozenset[datetime]

    def at(self, start: datetime) -> float | None:
        """The mean of the interval that starts then; None where it is not known."""
        return self.mean_w.get(start.astimezone(UTC))

    def over(self, start: datetime, end: datetime) -> list[datetime]:
        """The starts of all intervals that lie whole in this time, known or not."""
        if not self.mean_w:
            return []
        origin = next(iter(self.mean_w))
        steps = math.ceil((start - origin) / self.interval)
        found = []
        while (at := origin + steps * self.interval) + self.interval <= end:
            found.append(at)
            steps += 1
        return found


def meter_data(text: str, name: str) -> MeterData:
    """The interval data in a CSV with a header; `name` is what errors call it.

    It has `start` in ISO 8601 with a time zone, one of `mean_w`, `mean_kw` and `energy_kwh`, and
    may have `quality`. An empty value is a gap.

    Raises:
        InvalidRequestError: it is no such CSV; intervals overlap, differ in length or come twice.
    """
    rows = list(csv.DictReader(StringIO(text)))
    if not rows or len(rows) > MAX_INTERVALS:
        raise InvalidRequestError(f"{name} has {len(rows)} rows; 1 to {MAX_INTERVALS} can be read")
    columns = [column for column in (*POWER, ENERGY) if column in rows[0]]
    if "start" not in rows[0] or len(columns) != 1:
        raise InvalidRequestError(
            f"{name} must have the column start and one of {', '.join((*POWER, ENERGY))}"
        )
    starts = [_start(row.get("start"), number, name) for number, row in _numbered(rows)]
    interval = _interval(starts, name)
    hours = interval / timedelta(hours=1)
    factor = POWER.get(columns[0], 1e3 / hours)
    known: dict[datetime, float] = {}
    doubted: set[datetime] = set()
    for start, (number, row) in zip(starts, _numbered(rows), strict=True):
        value = _value(row.get(columns[0]), number, name)
        if value is None:
            continue
        if (row.get("quality") or "").strip().lower() in GOOD:
            known[start] = value * factor
        else:
            doubted.add(start)
    return MeterData(interval, dict(sorted(known.items())), frozenset(doubted))


def _numbered(rows: list[dict[str, str]]) -> Iterable[tuple[int, dict[str, str]]]:
    return enumerate(rows, start=2)  # the first line is the header


def _start(text: str | None, number: int, name: str) -> datetime:
    try:
        moment = datetime.fromisoformat((text or "").strip())
    except ValueError:
        raise InvalidRequestError(f"line {number} of {name}: {text!r:.40} is no moment") from None
    if moment.tzinfo is None:
        raise InvalidRequestError(f"line {number} of {name}: {text!r:.40} says no time zone")
    return moment.astimezone(UTC)


def _value(text: str | None, number: int, name: str) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidRequestError(f"line {number} of {name}: {text!r:.40} is no number")
    return value


def _interval(starts: list[datetime], name: str) -> timedelta:
    ordered = sorted(starts)
    gaps = [later - earlier for earlier, later in pairwise(ordered)]
    if not gaps or min(gaps) <= timedelta():
        raise InvalidRequestError(f"{name} must hold at least two intervals, each of them once")
    interval = min(gaps)
    if any(gap % interval for gap in gaps):
        raise InvalidRequestError(f"the intervals of {name} are not all {interval} long")
    return interval
