"""The site's own meter over equal intervals, kept for the settlement of an event: a CSV line each.

It is what the facility's bus said, not the meter that the utility settles by; the two are told
apart in the report. An interval that was not heard nearly whole is a gap.
"""

import csv
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from interlock_guardrails.facts import FactRegistry
from interlock_servers.flex.meter import MAX_INTERVALS
from interlock_tools.clock import Clock
from interlock_tools.errors import InvalidRequestError
from interlock_tools.fact import Fact, FactNeed
from interlock_tools.identity import Target

FILE_NAME: Final = "site-meter.csv"
HEADER: Final = "start,mean_w,quality\n"
METER_POWER: Final = "meter.power"
METER_AGE_S: Final = 120.0  # a BMS repeats an unchanged value every 100 s
LOOK_EVERY_S: Final = 5.0
WHOLE: Final = 0.95  # of an interval: less is a gap

log = logging.getLogger(__name__)


class MeterRecord:
    """A file that grows by one line for each interval that was heard. It is no evidence.

    A disk that is full costs the record and nothing else.
    """

    def __init__(
        self, facts: FactRegistry, site_id: str, clock: Clock, path: Path, interval_s: float
    ) -> None:
        """Describe it; `facts` is asked for the metered power of the site."""
        self._facts = facts
        subject = Target(kind="site", id=site_id)
        self._need = FactNeed(kind=METER_POWER, subject=subject, max_age_s=METER_AGE_S)
        self._clock = clock
        self._path = path
        self._interval_s = interval_s
        self._last: datetime | None = None
        self._watts: float | None = None
        self._start: datetime | None = None
        self._heard_s = 0.0
        self._energy_ws = 0.0

    async def run(self) -> None:
        """Look until cancelled; it runs where changes are carried out, so that one process writes.

        What a look meets is logged, and costs the time until the next.
        """
        while True:
            try:
                await self.look()
            except Exception:  # whatever a source says, we look again
                log.exception("the site's meter could not be recorded")
            await self._clock.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Count the time since the last look at what was metered then, and look again."""
        now = self._clock.now()
        if self._last is not None and self._watts is not None and now > self._last:
            for start, seconds in self._parts(self._last, now):
                self._turn_to(start)
                self._heard_s += seconds
                self._energy_ws += seconds * self._watts
        self._turn_to(self._begin_of(now))
        answer = await self._facts.fact(self._need)
        self._watts = float(answer.value["power_w"]) if isinstance(answer, Fact) else None
        self._last = now

    def _begin_of(self, moment: datetime) -> datetime:
        at_s = moment.timestamp() // self._interval_s * self._interval_s
        return datetime.fromtimestamp(at_s, UTC)

    def _parts(self, since: datetime, until: datetime) -> Iterator[tuple[datetime, float]]:
        at = since
        while at < until:
            start = self._begin_of(at)
            end = min(until, start + timedelta(seconds=self._interval_s))
            yield start, (end - at).total_seconds()
            at = end

    def _turn_to(self, start: datetime) -> None:
        """End the interval before `start`, where one was begun."""
        if self._start is not None and start <= self._start:
            return
        if self._start is not None and self._heard_s >= WHOLE * self._interval_s:
            self._write(self._start, self._energy_ws / self._heard_s)
        self._start, self._heard_s, self._energy_ws = start, 0.0, 0.0

    def _write(self, start: datetime, mean_w: float) -> None:
        try:
            new = not self._path.exists()
            with self._path.open("a", encoding="utf-8") as out:
                out.write(f"{HEADER if new else ''}{start.isoformat()},{mean_w:.1f},good\n")
        except OSError as error:
            log.error("the site's meter cannot be recorded", extra={"why": str(error)})


def recorded_meter(path: Path) -> str:
    """What was recorded, as `meter_data` reads it; the last intervals where there are very many.

    Of an interval that stands there twice, as after a clock that went back, the last line counts; a
    last line that was cut off is left out.

    Raises:
        InvalidRequestError: there is no such file: name a CSV of the meter instead.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            f"this site has recorded no meter ({error}); set [flex.settlement], or give --meter"
        ) from error
    whole = text[: text.rfind("\n") + 1].splitlines()[1:]
    lines = {row[0]: ",".join(row) for row in csv.reader(whole) if len(row) == 3}
    return HEADER + "\n".join(sorted(lines.values())[-MAX_INTERVALS:])
