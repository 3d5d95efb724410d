"""When to try again, and with what: what was refused is not asked again as it was."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

BACK_OFF_S: Final = 20.0  # after a first no; twice as long after each further one
MOST_S: Final = 640.0


class Patience:
    """Back-off by purpose, and the proposals that did not come through."""

    def __init__(self) -> None:
        self._wait_until: dict[str, datetime] = {}
        self._tries: dict[str, int] = {}
        self._refused: dict[str, str] = {}
        self._rejected: dict[str, str] = {}

    def ready(self, purpose: str, now: datetime) -> bool:
        """Whether it is time to look at this purpose again."""
        return purpose not in self._wait_until or now >= self._wait_until[purpose]

    def wait(self, purpose: str, now: datetime) -> float:
        """Leave it for a while, longer each time; how long, in seconds."""
        tries = self._tries.get(purpose, 0)
        seconds = min(BACK_OFF_S * 2.0**tries, MOST_S)
        self._tries[purpose] = tries + 1
        self._wait_until[purpose] = now + timedelta(seconds=seconds)
        return seconds

    def ended_badly(self, purpose: str, state: str, asked: Mapping[str, Any]) -> None:
        """Remember what policy or people said no to."""
        if state == "refused":
            self._refused[purpose] = _key(asked)
        if state == "rejected":
            self._rejected[purpose] = _key(asked)

    def was_rejected(self, purpose: str, asked: Mapping[str, Any]) -> bool:
        """Whether people said no to this very thing: it is not asked again."""
        return self._rejected.get(purpose) == _key(asked)

    def was_refused(self, purpose: str, asked: Mapping[str, Any]) -> bool:
        """Whether policy said no to this very thing: rehearse it before it is asked again."""
        return self._refused.get(purpose) == _key(asked)

    def forget(self, purpose: str) -> None:
        """It came through, or is not wanted any more."""
        for known in (self._wait_until, self._tries, self._refused, self._rejected):
            known.pop(purpose, None)


def _key(asked: Mapping[str, Any]) -> str:
    return json.dumps(asked, sort_keys=True)
