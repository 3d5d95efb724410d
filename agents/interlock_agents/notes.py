"""What an agent tells people: each thing once, until something else is true of it."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from interlock_tools.clock import Clock

log = logging.getLogger(__name__)


class Note(NamedTuple):
    """One thing that the agent saw, planned or did, for people who follow it."""

    at: datetime
    kind: str
    text: str
    change_id: str | None = None


class Notebook:
    """Passes notes on; the same thing about the same subject is told once."""

    def __init__(self, clock: Clock, tell: Callable[[Note], None]) -> None:
        self._clock, self._tell = clock, tell
        self._last: dict[str, str] = {}

    def note(
        self, kind: str, text: str, change_id: str | None = None, *, about: str | None = None
    ) -> None:
        """Tell what is new of a subject: `about`, else the change, else everything together."""
        subject, said = about or change_id or "", f"{kind}: {text}"
        if self._last.get(subject) == said:
            return
        self._last[subject] = said
        log.info("an agent notes", extra={"kind": kind, "change_id": change_id})
        self._tell(Note(self._clock.now(), kind, text, change_id))
