"""A day's load: serving replays a request trace under a daily wave, the rest is synthetic."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from interlock_plant.arrays import Floats
from interlock_plant.jobs import Job
from interlock_plant.load import Load, SyntheticLoad, TraceLoad
from interlock_plant.parameters import JobClass
from interlock_plant.trace import RequestTrace

DAY_S: Final = 86_400
NIGHT: Final = 0.55  # [A] serving load at midnight over that at noon, as in the row of `twin`


class DayLoad:
    """What the trace, or without one the synthetic load, says, less at night for serving."""

    def __init__(self, jobs: Sequence[Job], trace: RequestTrace | None, *, seed: int) -> None:
        synthetic = SyntheticLoad(jobs, seed=seed)
        self._by_day: Load = synthetic if trace is None else TraceLoad(jobs, trace, synthetic)
        self._serves = np.array([job.job_class is JobClass.SERVING for job in jobs])

    def at(self, second: int) -> Floats:
        """`u` of each job; second 0 is midnight."""
        u = self._by_day.at(second)
        return np.where(self._serves, wave(second) * u, u)


def wave(second: int) -> float:
    """Share of the noon's load: `NIGHT` at midnight, 1 at noon."""
    turn = 2.0 * np.pi * second / DAY_S
    return float(1.0 - (1.0 - NIGHT) * 0.5 * (1.0 + np.cos(turn)))
