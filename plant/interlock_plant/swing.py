"""Training load as it was measured: 512 H100 in step, second by second, and a square wave.

A load is a pure function of the second. Nodes of one job fall together; what each adds of its own
is small, which is why a job gives no diversity.
"""

from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

import numpy as np

from interlock_plant.arrays import Floats
from interlock_plant.jobs import Job
from interlock_plant.load import Load, SyntheticLoad
from interlock_plant.parameters import (
    H100_IMMERSION_HOST,
    H100_SXM,
    SQUARE_SWING_LOW,
    SQUARE_SWING_PERIOD_S,
    SWING_BUSY_W,
    SWING_CYCLES,
    SWING_DIP,
    SWING_FALL,
    SWING_FALL_EVERY,
    SWING_LONG_DIP,
    SWING_NODE_W,
    SWING_PERIOD_S,
    WORK,
    JobClass,
)
from interlock_plant.site import SiteSpec
from interlock_tools.errors import InvalidRequestError

GPUS: Final = 8  # of the nodes that were measured
NOISE_S: Final = 4096


@runtime_checkable
class NodeLoad(Protocol):
    """A load that also differs from node to node."""

    def nodes_at(self, second: int) -> Floats:
        """What each node adds to the `u` of its jobs during that second."""
        ...


def _u_per_w() -> float:
    """Change of `u` for one watt at a measured (immersed) node."""
    slope = WORK[JobClass.TRAIN].draw_slope
    return 1.0 / (H100_IMMERSION_HOST.slope * GPUS * H100_SXM.tdp_w * slope)


def _wave() -> Floats:
    """`u` over the whole pattern, at 1 s: regular dips, long ones, and one fall."""
    seconds = round(SWING_FALL_EVERY * SWING_CYCLES * SWING_PERIOD_S)
    share = np.ones(seconds)
    for cycle in range(SWING_FALL_EVERY * SWING_CYCLES):
        part = cycle % SWING_CYCLES
        if part == 1:
            continue  # the long dip before it is not over
        shape: Sequence[float] = SWING_LONG_DIP if part == 0 else SWING_DIP
        if cycle == SWING_CYCLES * (SWING_FALL_EVERY // 2):
            shape = SWING_FALL
        first = round(cycle * SWING_PERIOD_S)
        end = min(first + len(shape), seconds)
        share[first:end] = np.minimum(share[first:end], shape[: end - first])
    return np.maximum(1.0 - (1.0 - share) * SWING_BUSY_W * _u_per_w(), 0.0)


class MeasuredLoad:
    """Training falls as measured, each job in step and at its own moment; the rest is synthetic."""

    def __init__(self, site: SiteSpec, jobs: Sequence[Job], *, seed: int) -> None:
        rng = np.random.default_rng([seed, 8])
        self._elsewhere: Load = SyntheticLoad(jobs, seed=seed)
        self._wave = _wave()
        self._trains = np.array([job.job_class is JobClass.TRAIN for job in jobs], dtype=np.bool_)
        self._shift = rng.integers(0, len(self._wave), len(jobs))
        self._noise = rng.standard_normal(NOISE_S) * SWING_NODE_W * _u_per_w()
        self._node_shift = rng.integers(0, NOISE_S, len(site.nodes))
        self._node_trains = np.zeros(len(site.nodes), dtype=np.bool_)
        for job in jobs:
            if job.job_class is JobClass.TRAIN:
                self._node_trains[site.node_of_gpu[list(job.gpu_indices)]] = True

    def at(self, second: int) -> Floats:
        """`u` of each job."""
        swing = self._wave[(second + self._shift) % len(self._wave)]
        return np.where(self._trains, swing, self._elsewhere.at(second))

    def nodes_at(self, second: int) -> Floats:
        """What each node adds."""
        noise = self._noise[(self._node_shift + second) % NOISE_S]
        return np.where(self._node_trains, noise, 0.0)


class SquareLoad:
    """Training as a square wave between full and `low_share` of the rating, in phase ([P]).

    The mean of each second is exact; what happens within it is for `sensing.square_w`.

    Raises:
        InvalidRequestError: the period or the low level is outside what was published.
    """

    def __init__(self, jobs: Sequence[Job], *, period_s: float, low_share: float) -> None:
        if not SQUARE_SWING_PERIOD_S[0] <= period_s <= SQUARE_SWING_PERIOD_S[1]:
            raise InvalidRequestError(f"period_s must be in .3 to 5 s, not {period_s}")
        if not min(SQUARE_SWING_LOW) <= low_share <= max(SQUARE_SWING_LOW):
            raise InvalidRequestError(f"low_share must be in .2 to .75, not {low_share}")
        work = WORK[JobClass.TRAIN]
        self._low_u = float(np.clip((low_share - work.draw_base) / work.draw_slope, 0.0, 1.0))
        self._period_s = period_s
        self._trains = np.array([job.job_class is JobClass.TRAIN for job in jobs], dtype=np.bool_)

    def at(self, second: int) -> Floats:
        """`u` of each job; full for what does not train."""
        high = self._high_until(second + 1.0) - self._high_until(float(second))
        u = self._low_u + (1.0 - self._low_u) * high
        return np.where(self._trains, u, 1.0)

    def _high_until(self, time_s: float) -> float:
        """Seconds at the high level so far."""
        whole, part = divmod(time_s / self._period_s, 1.0)
        return self._period_s * (0.5 * whole + min(part, 0.5))
