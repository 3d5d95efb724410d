"""What a measure hands back, and how to time something."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from interlock_evals.reports import Figure, Promise


@dataclass(frozen=True)
class Measured:
    """Figures and promises by key; keys are unique over all measures."""

    figures: Mapping[str, Figure] = field(default_factory=dict)
    promises: Mapping[str, Promise] = field(default_factory=dict)


def seconds(act: Callable[[], object], times: int) -> list[float]:
    """How long each of `times` calls took."""
    out = []
    for _ in range(times):
        before = time.perf_counter()
        act()
        out.append(time.perf_counter() - before)
    return out


def median(values: list[float], unit: str, scale: float = 1.0) -> Figure:
    """The median of these values times `scale`, with its spread."""
    scaled = [value * scale for value in values]
    spread = max(scaled) - min(scaled) if len(scaled) > 1 else None
    return Figure(statistics.median(scaled), unit, len(scaled), spread)
