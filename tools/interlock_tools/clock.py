"""The clock port: one injected clock serves plant, fact ages, expiry and change windows."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where time comes from. Moments are aware UTC; nothing else in the house reads the time."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock have passed (never negative)."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Sleep in real time."""
        await asyncio.sleep(max(0.0, seconds))


@dataclass(frozen=True)
class ScaledClock:
    """A clock that runs `rate` times as fast as the machine's, from `epoch` at `anchor_unix_s`.

    It is a pure function of the machine's clock, so several processes that are given the same
    three numbers share one simulated time.
    """

    epoch: datetime
    anchor_unix_s: float
    rate: float = 1.0

    @classmethod
    def starting_now(cls, epoch: datetime, rate: float) -> "ScaledClock":
        """A clock that shows `epoch` at this moment."""
        return cls(epoch=epoch, anchor_unix_s=time.time(), rate=rate)

    def now(self) -> datetime:
        """The present simulated moment, aware, in UTC."""
        return self.epoch + timedelta(seconds=(time.time() - self.anchor_unix_s) * self.rate)

    async def sleep(self, seconds: float) -> None:
        """Sleep `seconds` of simulated time."""
        await asyncio.sleep(max(0.0, seconds) / self.rate)


class ManualClock:
    """A clock that stands still until `advance` is called; for tests and stepped runs."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._sleepers: list[tuple[datetime, asyncio.Event]] = []

    def now(self) -> datetime:
        """The moment last set."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Return once `advance` has moved the clock `seconds` on; at once for zero or less."""
        if seconds <= 0:
            return
        due = asyncio.Event()
        self._sleepers.append((self._now + timedelta(seconds=seconds), due))
        await due.wait()

    @property
    def sleepers(self) -> int:
        """How many wait for it: whoever steps it can tell when everybody has come to rest."""
        return len(self._sleepers)

    def advance(self, seconds: float) -> None:
        """Move the clock on and wake whoever is due.

        A negative number sets it back, as a machine's clock is set back: who sleeps does not sleep
        longer for it.
        """
        self._now += timedelta(seconds=seconds)
        if seconds < 0:
            step = timedelta(seconds=seconds)
            self._sleepers = [(moment + step, due) for moment, due in self._sleepers]
        for moment, due in self._sleepers:
            if moment <= self._now:
                due.set()
        self._sleepers = [entry for entry in self._sleepers if not entry[1].is_set()]
