"""What happened on the bus lately: changes of states, meanings, machines and of the bus itself.

It is a ring: the oldest fall out. A point that flutters takes a few places and then only counts, so
it cannot push out what else has happened.
"""

import threading
from collections import Counter, deque
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

MAX_EVENTS = 1000
MAX_OF_ONE = 20


class EventKind(StrEnum):
    """What sort of thing has happened."""

    LEAK = "leak"
    ISOLATION = "isolation"
    REQUEST = "request"
    STATE = "state"
    MEANING = "meaning"
    MACHINE = "machine"
    GRID = "grid"
    BUS = "bus"


EVENT_OF = {
    "RackLeakDetect": EventKind.LEAK,
    "RackLeakDetectTray": EventKind.LEAK,
    "RackLeakSensorFault": EventKind.LEAK,
    "LeakDetect": EventKind.LEAK,
    "RackLiquidIsolationStatus": EventKind.ISOLATION,
    "RackElectricalIsolationStatus": EventKind.ISOLATION,
    "RackLiquidIsolationRequest": EventKind.REQUEST,
    "RackElectricalIsolationRequest": EventKind.REQUEST,
}


@dataclass(frozen=True)
class Event:
    """One change: `subject` is a point's key, a machine, a source or a broker.

    `times` is above 1 where several changes of the same subject share a place; then it tells of
    the last of them.
    """

    number: int
    kind: EventKind
    subject: str
    before: str | None
    after: str
    at: datetime
    times: int = 1


class EventRing:
    """The last events, safe between threads; `dropped` is how many fell out."""

    def __init__(self, max_events: int = MAX_EVENTS) -> None:
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._max_events = max_events
        self._of: Counter[str] = Counter()
        self._number = 0
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many were pushed out by newer ones."""
        return self._dropped

    def __len__(self) -> int:
        return len(self._events)

    def add(
        self, kind: EventKind, subject: str, before: str | None, after: str, at: datetime
    ) -> None:
        """Remember one; where its subject has its share of places it goes into the last of them."""
        with self._lock:
            self._number += 1
            event = Event(self._number, kind, subject, before, after, at)
            if self._of[subject] >= MAX_OF_ONE:
                last = self._last_of(subject)
                event = replace(event, times=last.times + 1)
                self._events.remove(last)
                self._of[subject] -= 1
            elif len(self._events) >= self._max_events:
                gone = self._events.popleft()
                self._dropped += 1
                self._of[gone.subject] -= 1
                if not self._of[gone.subject]:
                    del self._of[gone.subject]
            self._events.append(event)
            self._of[subject] += 1

    def newest_first(self) -> list[Event]:
        """All that are remembered."""
        with self._lock:
            return list(reversed(self._events))

    def _last_of(self, subject: str) -> Event:
        return next(event for event in reversed(self._events) if event.subject == subject)
