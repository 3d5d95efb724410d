"""Type, standing and time of every point side by side, to look through all of them at once.

A look at each point by itself would take a second where there are two hundred thousand.
"""

import math
from array import array
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import NamedTuple

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

    def takes(self, point: Point) -> bool:
        """Whether it is one of them."""
        return self.is_of_type(point.topic.object_type, point.topic.point_type) and self.state in {
            None,
            point.state(self.now, self.fresh_s),
        }

    def is_of_type(self, object_type: str, point_type: str) -> bool:
        """Whether a point of these types may be one of them."""
        return self.object_type in {None, object_type} and self.point_type in {None, point_type}


class Columns:
    """What can be asked of all points at once, by the number that each has. Not thread-safe."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], int] = {}
        self._kind = array("I")
        self._standing = array("b")
        self._at_ms = array("q")

    def add(self, topic: Topic) -> int:
        """The number of a new point."""
        self._kind.append(self._kind_of(topic))
        self._standing.append(_STANDINGS[PointState.NEVER_SEEN])
        self._at_ms.append(0)
        return len(self._kind) - 1

    def set_kind(self, number: int, topic: Topic) -> None:
        """Say anew what a point is."""
        self._kind[number] = self._kind_of(topic)

    def judge(self, number: int, standing: PointState | None, at_ms: int) -> None:
        """Say how a point stands whatever its age, and of when its reading is."""
        self._standing[number] = _STANDINGS[standing]
        self._at_ms[number] = at_ms

    def first(self, numbers: Iterable[int], wanted: Wanted, count: int) -> list[int]:
        """The first of these numbers whose points are wanted, at most so many."""
        if wanted.object_type is not None or wanted.point_type is not None:
            numbers = self._of_type(numbers, wanted)
        if wanted.state is not None:
            numbers = self._in_state(numbers, wanted.state, wanted.now.timestamp(), wanted.fresh_s)
        return list(islice(numbers, count))

    def _of_type(self, numbers: Iterable[int], wanted: Wanted) -> Iterator[int]:
        kinds = {n for kind, n in self._kinds.items() if wanted.is_of_type(*kind)}
        kind = self._kind
        return (number for number in numbers if kind[number] in kinds)

    def _in_state(
        self, numbers: Iterable[int], state: PointState, now_s: float, fresh_s: float
    ) -> Iterator[int]:
        ages = ages_s(state, fresh_s)
        least_s, most_s = ages or (-math.inf, math.inf)
        lasting = _STANDINGS[state if ages is None else None]
        standing, at_ms = self._standing, self._at_ms
        return (
            number
            for number in numbers
            if standing[number] == lasting and least_s <= now_s - at_ms[number] / 1000 <= most_s
        )

    def _kind_of(self, topic: Topic) -> int:
        return self._kinds.setdefault((topic.object_type, topic.point_type), len(self._kinds))
