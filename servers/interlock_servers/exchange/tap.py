"""Listening in on what comes off the bus, for a bounded while: nothing is subscribed anew."""

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import anyio

from interlock_servers.exchange.topics import matches
from interlock_servers.transports.mqtt import Message
from interlock_tools.errors import UnavailableError

MAX_TAPS = 100
MAX_BYTES = 1_048_576
_LOOK_EVERY_S = 0.05

Stopped = Literal["max_messages", "max_duration", "result_too_large"]


@dataclass
class Collected:
    """The messages that came, and why no more were taken."""

    messages: list[Message] = field(default_factory=list)
    stopped: Stopped = "max_duration"


class _Tap:
    def __init__(self, topic_filter: str, max_messages: int) -> None:
        self.topic_filter = topic_filter
        self.messages: deque[Message] = deque()
        self.room = max_messages
        self.room_bytes = MAX_BYTES
        self.full: Stopped | None = None

    def take(self, message: Message) -> None:
        size_bytes = len(message.topic) + len(message.payload)
        if self.full is not None:
            return
        if size_bytes > self.room_bytes:
            self.full = "result_too_large"
            return
        self.messages.append(message)
        self.room -= 1
        self.room_bytes -= size_bytes
        if not self.room:
            self.full = "max_messages"


class Taps:
    """All who listen in at the moment; `pass_on` is called in the network's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taps: tuple[_Tap, ...] = ()

    def pass_on(self, message: Message) -> None:
        """Give a message to everyone who waits for it."""
        for tap in self._taps:
            if matches(tap.topic_filter, message.topic):
                tap.take(message)

    async def collect(
        self, topic_filter: str, max_messages: int, max_duration_s: float
    ) -> Collected:
        """What comes until there is enough of it or the time is over.

        Raises:
            UnavailableError: too many listen in at once.
        """
        tap = _Tap(topic_filter, max_messages)
        with self._lock:
            if len(self._taps) >= MAX_TAPS:
                raise UnavailableError(f"{MAX_TAPS} listen in already; try again later")
            self._taps = (*self._taps, tap)
        try:
            with anyio.move_on_after(max_duration_s):
                while tap.full is None:  # noqa: ASYNC110 (the network's thread sets no event)
                    await anyio.sleep(_LOOK_EVERY_S)
        finally:
            with self._lock:
                self._taps = tuple(one for one in self._taps if one is not tap)
        return Collected(list(tap.messages), tap.full or "max_duration")
