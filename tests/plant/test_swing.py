"""Training falls as it was measured, in step within a job, and gives no diversity there."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from interlock_plant import (
    Job,
    JobClass,
    MeasuredLoad,
    Plant,
    SyntheticLoad,
    hall_site,
    lab_jobs,
    lab_site,
)
from interlock_plant.parameters import H100_IMMERSION_HOST

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
LAB = lab_site()
JOBS = lab_jobs(LAB)
LOAD = MeasuredLoad(LAB, JOBS, seed=3)
HOUR = np.array([LOAD.at(second) for second in range(3600)])
TRAINS = np.array([job.job_class is JobClass.TRAIN for job in JOBS])


def test_training_dips_every_11_seconds_and_falls_by_a_third_once_an_hour() -> None:
    """Regular dips, a long one every 142 s, and one fall: whoever controls meets all three."""
    u = HOUR[:, TRAINS][:, 0]
    spectrum = np.abs(np.fft.rfft(u - u.mean()))
    assert 3600 / int(np.argmax(spectrum)) == pytest.approx(10.92, abs=0.1)
    assert 0.5 < u.min() < 0.6
    falls = int(((u < 0.65) & (np.roll(u, 1) >= 0.65)).sum())
    assert falls in (1, 2)
    assert 0.10 < (u < 0.89).mean() < 0.25


def test_other_work_is_as_in_the_synthetic_load() -> None:
    """Only training was measured this way."""
    other = SyntheticLoad(JOBS, seed=3)
    assert np.array_equal(HOUR[77][~TRAINS], other.at(77)[~TRAINS])
    assert (HOUR >= 0.0).all()
    assert (HOUR <= 1.0).all()


def test_only_training_nodes_wander_and_the_same_way_each_time() -> None:
    """A pure function of the second: a snapshot needs nothing of it."""
    trains = np.zeros(64, dtype=bool)
    for job in JOBS:
        if job.job_class is JobClass.TRAIN:
            trains[LAB.node_of_gpu[list(job.gpu_indices)]] = True
    wander = np.array([LOAD.nodes_at(second) for second in range(200)])
    assert (wander[:, ~trains] == 0.0).all()
    assert wander[:, trains].std() == pytest.approx(0.030, abs=0.003)
    again = MeasuredLoad(LAB, JOBS, seed=3)
    assert np.array_equal(again.nodes_at(150), wander[150])


def test_two_jobs_are_at_moments_of_their_own_and_nodes_of_one_are_not() -> None:
    """Diversity is between jobs: a budget for one job must be that of its peak."""
    site = replace(hall_site(32), host=H100_IMMERSION_HOST)
    jobs = tuple(
        Job(f"j{n}", "a", JobClass.TRAIN, tuple(range(128 * n, 128 * n + 128))) for n in range(2)
    )
    plant = Plant(site, jobs, seed=1, start=START, load=MeasuredLoad(site, jobs, seed=5))
    seen = []
    for _ in range(400):
        plant.step()
        seen.append(plant.node_power_w)
    pairs = np.atleast_2d(np.corrcoef(np.array(seen).T))
    inside = pairs[:16, :16][np.triu_indices(16, 1)].mean()
    across = pairs[:16, 16:].mean()
    assert inside > 0.7
    assert across < 0.4
