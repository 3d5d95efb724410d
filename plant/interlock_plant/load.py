"""How hard each job works, second by second: `u` in [0, 1].

A load is a pure function of the second, so that a plant can be replayed from any snapshot.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from interlock_plant.arrays import Floats
from interlock_plant.jobs import Job
from interlock_plant.parameters import (
    DEV_BURST_S,
    DEV_PAUSE_S,
    SERVING_FAST_SWING,
    SERVING_MEAN_LOAD,
    SERVING_NOISE,
    SERVING_SLOW_SWING,
    TRACE_SMOOTHING_S,
    TRAIN_DIP_DEPTH,
    TRAIN_DIP_S,
    TRAIN_PERIOD_S,
    JobClass,
)
from interlock_plant.trace import RequestTrace
from interlock_tools.errors import InvalidRequestError

TABLE_S: Final = 3600  # synthetic loads repeat after an hour, without a seam


class Load(Protocol):
    """The load of every job at every second."""

    def at(self, second: int) -> Floats:
        """`u` in [0, 1] of each job during the second that begins `second` after the start."""
        ...


class SteadyLoad:
    """Every job at the same `u`, for ever."""

    def __init__(self, jobs: Sequence[Job], u: float = 1.0) -> None:
        if not 0.0 <= u <= 1.0:
            raise InvalidRequestError(f"u must be in [0, 1], not {u}")
        self._u = np.full(len(jobs), u)

    def at(self, second: int) -> Floats:
        """The one `u`."""
        return self._u


class SyntheticLoad:
    """A seeded load of the right shape for each class of work.

    Training dips in phase across a job, at the period and depth of a measured 512-GPU run; batch
    and burn-in are steady; serving wanders; development comes in bursts.
    """

    def __init__(self, jobs: Sequence[Job], *, seed: int) -> None:
        rng = np.random.default_rng([seed, 2])
        shapes = {
            JobClass.TRAIN: _training,
            JobClass.BATCH: _steady,
            JobClass.SERVING: _serving,
            JobClass.DEV: _development,
            JobClass.BURN: _steady,
        }
        self._table = np.ones((TABLE_S, len(jobs)))
        for column, job in enumerate(jobs):
            self._table[:, column] = shapes[job.job_class](rng)

    def at(self, second: int) -> Floats:
        """`u` of each job; repeats every hour."""
        row: Floats = self._table[second % TABLE_S]
        return row


class TraceLoad:
    """Serving follows a request trace; every other job follows another load.

    The trace's rate of tokens (read and generated), smoothed over 10 s, is scaled so that its 99th
    percentile is `u` = 1. All serving jobs follow it in step, which is the hardest case; the trace
    starts again when it ends.
    """

    def __init__(self, jobs: Sequence[Job], trace: RequestTrace, elsewhere: Load) -> None:
        self._serving = np.array([job.job_class is JobClass.SERVING for job in jobs])
        self._elsewhere = elsewhere
        self._u = trace_load(trace)

    def at(self, second: int) -> Floats:
        """`u` of each job."""
        return np.where(self._serving, self._u[second % len(self._u)], self._elsewhere.at(second))


class PointsLoad:
    """Some jobs follow points of (second, `u`), straight between them; all others another load."""

    def __init__(
        self,
        jobs: Sequence[Job],
        points: Mapping[str, Sequence[tuple[int, float]]],
        elsewhere: Load,
    ) -> None:
        places = {job.job_id: place for place, job in enumerate(jobs)}
        for job_id in points:
            if job_id not in places:
                raise InvalidRequestError(f"there is no job {job_id!r} to load")
        self._elsewhere = elsewhere
        self._told = [
            (places[job_id], np.array([at for at, _ in told]), np.array([u for _, u in told]))
            for job_id, told in points.items()
        ]

    def at(self, second: int) -> Floats:
        """`u` of each job; before its first point a job stands at it, after its last at that."""
        u = self._elsewhere.at(second).copy()
        for place, seconds, told in self._told:
            u[place] = np.interp(second, seconds, told)
        return u


def trace_load(trace: RequestTrace) -> Floats:
    """`u` of each second of a trace, as `TraceLoad` replays it."""
    second = trace.arrival_s.astype(np.int64)
    tokens = trace.context_tokens + trace.generated_tokens
    rate = np.bincount(second, weights=tokens)
    total = np.concatenate([np.zeros(1), np.cumsum(rate)])
    end = np.arange(1, len(rate) + 1)
    begin = np.maximum(end - TRACE_SMOOTHING_S, 0)
    smooth = (total[end] - total[begin]) / (end - begin)
    full = float(np.percentile(smooth, 99))
    if full <= 0:
        raise InvalidRequestError("the trace holds too few tokens to scale by its 99th percentile")
    u: Floats = np.clip(smooth / full, 0.0, 1.0)
    return u


def _steady(rng: np.random.Generator) -> Floats:
    return np.ones(TABLE_S)


def _training(rng: np.random.Generator) -> Floats:
    period_s = TABLE_S / round(TABLE_S / TRAIN_PERIOD_S)  # a whole number of periods in the table
    phase_s = (np.arange(TABLE_S) + rng.uniform(0.0, period_s)) % period_s
    # The dip's share of each second, so that its mean does not depend on where seconds fall.
    dip = np.clip(np.minimum(phase_s + 1.0, TRAIN_DIP_S) - phase_s, 0.0, 1.0)
    dip += np.clip(phase_s + 1.0 - period_s, 0.0, 1.0)
    u: Floats = 1.0 - TRAIN_DIP_DEPTH * dip
    return u


def _serving(rng: np.random.Generator) -> Floats:
    turn = 2.0 * np.pi * np.arange(TABLE_S) / TABLE_S
    slow = np.sin(turn * rng.integers(2, 7) + rng.uniform(0.0, 2.0 * np.pi))
    fast = np.sin(turn * rng.integers(20, 41) + rng.uniform(0.0, 2.0 * np.pi))
    window = TRACE_SMOOTHING_S
    raw = rng.normal(0.0, SERVING_NOISE * np.sqrt(window), TABLE_S)
    noise = np.mean([np.roll(raw, shift) for shift in range(window)], axis=0)
    u = SERVING_MEAN_LOAD + SERVING_SLOW_SWING * slow + SERVING_FAST_SWING * fast + noise
    return np.asarray(np.clip(u, 0.0, 1.0), dtype=np.float64)


def _development(rng: np.random.Generator) -> Floats:
    u = np.zeros(TABLE_S)
    second = 0
    while second < TABLE_S:
        second += 1 + int(rng.exponential(DEV_PAUSE_S))
        length_s = 1 + int(rng.exponential(DEV_BURST_S))
        u[second : second + length_s] = rng.uniform(0.8, 1.0)
        second += length_s
    return u
