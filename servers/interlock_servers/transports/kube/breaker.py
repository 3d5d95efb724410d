"""A circuit breaker: a server that does not answer is left alone for a while."""

import random
from datetime import datetime, timedelta
from typing import Final

from interlock_tools.clock import Clock
from interlock_tools.errors import UnavailableError

OPENS_AFTER: Final = 3  # calls in a row without an answer
FIRST_PAUSE_S: Final = 1.0
LAST_PAUSE_S: Final = 30.0


class CircuitBreaker:
    """Counts calls without an answer; after some in a row the next ones fail without being sent.

    Once the pause is over one call is let through; what becomes of it decides for the rest.
    """

    def __init__(self, clock: Clock, what: str) -> None:
        self._clock = clock
        self._what = what
        self._failures = 0
        self._since: datetime | None = None
        self._until: datetime | None = None
        self._trying = False

    @property
    def silent_since(self) -> datetime | None:
        """Since when nothing answered; None where the last call was answered."""
        return self._since

    @property
    def is_open(self) -> bool:
        """Whether calls are held back now."""
        return self._until is not None

    def enter(self) -> None:
        """Ask to make a call.

        Raises:
            UnavailableError: it is not worth trying yet; nothing was sent.
        """
        if self._until is None:
            return
        left_s = (self._until - self._clock.now()).total_seconds()
        if left_s > 0 or self._trying:
            since = "a while" if self._since is None else f"{self._since:%H:%M:%S}"
            again = "one call is trying it now" if left_s <= 0 else f"next try in {left_s:.0f} s"
            raise UnavailableError(
                f"{self._what} has not answered since {since}; nothing was sent, {again}"
            )
        self._trying = True

    def answered(self) -> None:
        """A call was answered, whatever it said."""
        self._failures, self._since, self._until, self._trying = 0, None, None, False

    def silent(self) -> None:
        """A call was not answered."""
        self._failures += 1
        self._trying = False
        now = self._clock.now()
        self._since = self._since or now
        if self._failures >= OPENS_AFTER:
            pause_s = pause(self._failures - OPENS_AFTER)
            self._until = now + timedelta(seconds=pause_s)

    def left(self) -> None:
        """A call was given up by its caller: that says nothing about the server."""
        self._trying = False


def pause(times: int) -> float:
    """Seconds to wait after so many failures: doubling, bounded, and never in step with others."""
    whole_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(times, 10))
    return whole_s * random.uniform(0.75, 1.0)  # noqa: S311 (spreads load, guards nothing)
