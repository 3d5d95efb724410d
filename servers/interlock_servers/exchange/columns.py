"""Type, standing and time of every point side by side, to look through all of them at once.

A look at each point by itself would take a second where there are two hundred thousand.
"""

from array import array
from datetime import datetime
from typing import NamedTuple

import numpy as np

from interlock_servers.exchange.models import Topic
from interlock_servers.exchange.points import Point, PointState, ages_s

_STANDINGS: dict[PointState | None, int] = {
    None: 0,
    **{state: number for number, state in enumerate(PointState, 1)},
}


class Wanted(NamedTuple):
    """Which points somebody looks for at a moment; None takes any."""

    object_type: str | None
    point_type: str | None
    state: PointState | None
    now: datetime
    fresh_s: float

    @property
    def all(self) -> bool:
        """Whether every point is one of them."""
        return self.object_type is None and self.point_type is None and self.state is None

    def takes(self, point: Point) -> bool:
        """Whether it is one of them."""
        return (
            self.object_type in {None, point.topic.object_type}
            and self.point_type in {None, point.topic.point_type}
            and self.state in {None, point.state(self.now, self.fresh_s)}
        )


class Columns:
    """What can be asked of all points at once, by the number that each has. Not thread-safe."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._kinds: dict[tuple[str, str], int] = {}
        self._kind = array("I")
        self._standing = array("b")
        self._at_ms = array("q")

    def add(self, topic: Topic) -> int:
        """The number of a new point."""
        self._keys.append(topic.key)
        self._kind.append(self._kind_of(topic))
        self._standing.append(_STANDINGS[PointState.NEVER_SEEN])
        self._at_ms.append(0)
        return len(self._keys) - 1

    def set_kind(self, number: int, topic: Topic) -> None:
        """Say anew what a point is."""
        self._kind[number] = self._kind_of(topic)

    def judge(self, number: int, standing: PointState | None, at_ms: int) -> None:
        """Say how a point stands, and of when its reading is."""
        self._standing[number] = _STANDINGS[standing]
        self._at_ms[number] = at_ms

    def sieve(self, wanted: Wanted) -> list[str]:
        """The keys of the points that are wanted as they stand now, in no order."""
        takes = np.ones(len(self._keys), dtype=bool)
        if wanted.object_type is not None or wanted.point_type is not None:
            kinds = [
                number
                for (object_type, point_type), number in self._kinds.items()
                if wanted.object_type in {None, object_type}
                and wanted.point_type in {None, point_type}
            ]
            takes &= np.isin(np.frombuffer(self._kind, np.uintc), kinds)
        if wanted.state is not None:
            ages = ages_s(wanted.state, wanted.fresh_s)
            standing = _STANDINGS[wanted.state if ages is None else None]
            takes &= np.frombuffer(self._standing, np.int8) == standing
            if ages is not None:
                at_s = np.frombuffer(self._at_ms, np.int64) / 1000
                age_s = wanted.now.timestamp() - at_s
                takes &= (ages[0] <= age_s) & (age_s <= ages[1])
        return [self._keys[number] for number in np.flatnonzero(takes).tolist()]

    def _kind_of(self, topic: Topic) -> int:
        return self._kinds.setdefault((topic.object_type, topic.point_type), len(self._kinds))
