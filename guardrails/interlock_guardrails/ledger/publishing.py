"""Hands each checkpoint to the places outside the store, and keeps count of those that fail."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from interlock_guardrails.ledger.sinks import Sink

logger = logging.getLogger(__name__)


class Publisher:
    """One call at a time.

    Args:
        sinks: the places.
        record: writes into the log that a place began to fail, or works again.
    """

    def __init__(
        self, sinks: Sequence[Sink], record: Callable[[Mapping[str, Any]], object]
    ) -> None:
        self._sinks, self._record = tuple(sinks), record
        self._published: dict[str, str] = {}  # by sink, its newest checkpoint
        self._failing: set[str] = set()

    def publish(self, size: int, note: str) -> None:
        """Give the checkpoint to each place that lacks it; a failing one gets the next, too."""
        for sink in self._sinks:
            if self._published.get(sink.name) == note:
                continue
            body: dict[str, Any] = {"sink": sink.name, "size": size}
            try:
                sink.publish(note)
            except Exception as error:  # the other places must get theirs, whatever this one does
                logger.warning("a checkpoint was not published", exc_info=error, extra=body)
                if sink.name not in self._failing:
                    self._failing.add(sink.name)
                    self._record(body | {"published": False, "why": str(error)})
                continue
            self._published[sink.name] = note
            if sink.name in self._failing:
                self._failing.remove(sink.name)
                self._record(body | {"published": True})
