"""What points said before: readings in a memory of one fixed size, shared by all points.

A point's ring grows while there is room and goes round in what it has when there is none; nobody
loses readings to another point.
"""

import math
from array import array
from typing import NamedTuple

MAX_SAMPLES = 1_000_000  # of all points, 24 bytes each
SAMPLES_PER_POINT = 512
_WIDTH = 3


class Sample(NamedTuple):
    """One reading as it came; `value` is None where there was none."""

    timestamp_ms: int
    value: float | None
    quality: int

    @property
    def good(self) -> bool:
        """Whether it could be trusted when it came."""
        return self.quality == 1 and self.value is not None


class Budget:
    """How many samples may still be taken up, by all points together."""

    __slots__ = ("left",)

    def __init__(self, samples: int) -> None:
        self.left = samples


class Ring:
    """The last readings of one point, oldest first."""

    __slots__ = ("_at", "_numbers")

    def __init__(self) -> None:
        self._numbers = array("d")
        self._at = 0  # where the oldest is once the ring goes round

    def __len__(self) -> int:
        return len(self._numbers) // _WIDTH

    def add(self, timestamp_ms: int, value: float | None, quality: int, budget: Budget) -> None:
        """Take one reading up; it replaces the oldest where there is no room for one more."""
        sample = (timestamp_ms, math.nan if value is None else value, quality)
        if not -(2**31) < quality < 2**31:  # no float may round it to 1
            sample = (timestamp_ms, sample[1], -1)
        numbers, at = self._numbers, self._at
        if at == 0 and budget.left > 0 and len(numbers) < SAMPLES_PER_POINT * _WIDTH:
            budget.left -= 1
            numbers.extend(sample)
        elif numbers:
            numbers[at], numbers[at + 1], numbers[at + 2] = sample
            self._at = (at + _WIDTH) % len(numbers)

    def clear(self, budget: Budget) -> None:
        """Forget all of it and give the room back."""
        budget.left += len(self)
        self._numbers, self._at = array("d"), 0

    def samples(self) -> list[Sample]:
        """All of them in the order in which they came."""
        numbers = self._numbers[self._at :] + self._numbers[: self._at]
        return [
            Sample(
                int(numbers[at]),
                None if math.isnan(numbers[at + 1]) else numbers[at + 1],
                int(numbers[at + 2]),
            )
            for at in range(0, len(numbers), _WIDTH)
        ]
