"""Load moves the way real work does, the same way for the same seed."""

import numpy as np
import pytest

from interlock_plant import (
    JobClass,
    RequestTrace,
    SteadyLoad,
    SyntheticLoad,
    TraceLoad,
    lab_jobs,
    lab_site,
    parse_trace,
)
from interlock_tools.errors import InvalidRequestError

JOBS = lab_jobs(lab_site())
LOAD = SyntheticLoad(JOBS, seed=3)
HOUR = np.array([LOAD.at(second) for second in range(3600)])


def column(kind: JobClass) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The hour of the first job of a class."""
    place = [job.job_class for job in JOBS].index(kind)
    return HOUR[:, place]


def test_every_load_stays_between_nothing_and_full() -> None:
    """`u` is a share of the greatest throughput; nothing else makes sense in the draw model."""
    assert HOUR.min() >= 0.0
    assert HOUR.max() <= 1.0


def test_the_same_seed_gives_the_same_load_and_another_seed_another() -> None:
    """A run that cannot be repeated cannot be argued about."""
    again = SyntheticLoad(JOBS, seed=3)
    other = SyntheticLoad(JOBS, seed=4)
    assert np.array_equal(again.at(1234), HOUR[1234])
    assert not np.array_equal(other.at(1234), HOUR[1234])


def test_training_swings_at_the_measured_period() -> None:
    """A 512-GPU run swings every 10.9 s; a controller that beats with it will oscillate."""
    u = column(JobClass.TRAIN)
    spectrum = np.abs(np.fft.rfft(u - u.mean()))
    assert 3600 / int(np.argmax(spectrum)) == pytest.approx(10.9, abs=0.1)
    assert u.max() - u.min() == pytest.approx(0.13, abs=0.01)


def test_serving_moves_and_batch_does_not_and_development_is_on_or_off() -> None:
    """Each class asks something else of whoever plans the power."""
    assert column(JobClass.SERVING).std() > 0.05
    assert set(column(JobClass.BATCH)) == {1.0}
    dev = column(JobClass.DEV)
    assert ((dev == 0.0) | (dev >= 0.8)).all()
    assert 0.3 < (dev > 0.0).mean() < 0.6


def test_serving_follows_a_trace_and_the_other_jobs_do_not() -> None:
    """Replaying real arrivals is how the plant's load is held against the world."""
    rng = np.random.default_rng(0)
    trace = RequestTrace(
        arrival_s=np.sort(rng.uniform(0.0, 600.0, 5000)),
        context_tokens=rng.integers(1, 2000, 5000).astype(np.float64),
        generated_tokens=rng.integers(1, 400, 5000).astype(np.float64),
    )
    load = TraceLoad(JOBS, trace, SteadyLoad(JOBS, 0.3))
    run = np.array([load.at(second) for second in range(600)])
    serving = np.array([job.job_class is JobClass.SERVING for job in JOBS])

    assert (run[:, ~serving] == 0.3).all()
    assert run[:, serving].max() == 1.0
    assert (run[:, serving] >= 1.0).mean() == pytest.approx(0.01, abs=0.004)  # p99 is full load
    assert np.array_equal(load.at(0), load.at(len(np.bincount(trace.arrival_s.astype(int)))))


def test_a_trace_without_tokens_cannot_be_scaled() -> None:
    """Dividing by its 99th percentile would give no number at all."""
    silent = parse_trace(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,0,0\n"
    )
    with pytest.raises(InvalidRequestError, match="too few tokens"):
        TraceLoad(JOBS, silent, SteadyLoad(JOBS))


def test_a_steady_load_outside_its_range_is_refused() -> None:
    """`u` above 1 would draw more than the hardware can."""
    with pytest.raises(InvalidRequestError, match="u must be in"):
        SteadyLoad(JOBS, 1.2)
