"""The score says what was done, what was broken, and by whom."""

from datetime import UTC, datetime

import numpy as np
import pytest

from interlock_plant import (
    Job,
    JobClass,
    Plant,
    SteadyLoad,
    SyntheticLoad,
    hall_site,
    lab_jobs,
    lab_site,
)
from interlock_tools.errors import InvalidRequestError
from interlock_tools.power_curve import DECODE, TRAINING, cap_for, throughput

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
LAB = lab_site()
JOBS = lab_jobs(LAB)


def lab(u: float = 1.0) -> Plant:
    """The lab at a steady load."""
    return Plant(LAB, JOBS, seed=1, start=START, load=SteadyLoad(JOBS, u))


def run(plant: Plant, seconds: int) -> None:
    """Advance."""
    for _ in range(seconds):
        plant.step()


def test_an_uncapped_plant_keeps_all_of_its_work() -> None:
    """The ratio is against this plant, so that hard load is nobody's fault."""
    plant = Plant(LAB, JOBS, seed=1, start=START, load=SyntheticLoad(JOBS, seed=1))
    run(plant, 60)
    assert plant.score.work_kept == 1.0
    assert plant.score.below_floor_s == {}
    assert plant.score.seconds == 60


def test_caps_below_its_floor_break_a_serving_job_and_the_score_names_it() -> None:
    """An average over the site would hide the one tenant whose users wait."""
    plant = lab()
    job = next(job for job in JOBS if job.job_id == "code-assist")
    gpus = list(job.gpu_indices)
    enough_w = cap_for(0.955, plant.natural_full_w[gpus], *DECODE)
    plant.command_caps(gpus, enough_w)
    run(plant, 10)
    assert plant.score.below_floor_s == {}
    plant.command_caps(gpus, 0.9 * enough_w)
    run(plant, 10)
    assert set(plant.score.below_floor_s) == {"code-assist"}
    assert 9 <= plant.score.below_floor_s["code-assist"] <= 10
    assert plant.score.below_floor_job_s == plant.score.below_floor_s["code-assist"]
    kept = plant.score.work_kept_by_job
    assert kept["code-assist"] < 1.0
    assert kept["chat-large"] == 1.0


def test_a_gang_runs_at_its_slowest_gpu_and_a_batch_job_does_not() -> None:
    """One capped GPU of 128 costs a gang what capping all of them would."""
    plant = lab()
    gang = next(place for place, job in enumerate(JOBS) if job.job_class is JobClass.TRAIN)
    batch = next(place for place, job in enumerate(JOBS) if job.job_class is JobClass.BATCH)
    victims = [JOBS[gang].gpu_indices[0], JOBS[batch].gpu_indices[0]]
    plant.command_caps(victims, 400.0)
    run(plant, 3)
    alone = throughput(400.0, plant.natural_w[victims], *TRAINING)
    count = len(JOBS[batch].gpu_indices)
    assert plant.job_work[gang] == pytest.approx(alone[0])
    assert plant.job_work[batch] == pytest.approx(1.0 - (1.0 - alone[1]) / count)


def test_work_is_weighted_and_adds_up_over_jobs() -> None:
    """The ratio for the site must follow from the ratios of its jobs."""
    plant = Plant(LAB, JOBS, seed=1, start=START, load=SyntheticLoad(JOBS, seed=1))
    plant.command_caps(np.arange(512), 500.0)
    done = offered = 0.0
    for _ in range(20):
        plant.step()
        value = np.array([job.weight * len(job.gpu_indices) for job in JOBS]) * plant.job_load
        done += float((value * plant.job_work).sum())
        offered += float(value.sum())
    assert plant.score.work_done == pytest.approx(done)
    assert plant.score.work_uncapped == pytest.approx(offered)
    assert plant.score.work_kept == pytest.approx(done / offered)
    assert 0.8 < plant.score.work_kept < 0.95


def test_a_mark_starts_the_count_afresh() -> None:
    """A scenario is judged from its own beginning."""
    plant = lab()
    plant.set_site_limit_w(100_000.0)
    plant.command_caps(np.arange(512), 300.0)
    run(plant, 20)
    assert plant.score.work_kept < 0.8
    plant.clear_caps(np.arange(512))
    run(plant, 5)
    score = plant.score
    score.mark()
    plant.set_site_limit_w(None)
    run(plant, 20)
    assert score.seconds == 20
    assert score.work_kept == 1.0
    assert score.below_floor_s == {}
    assert score.over_budget_s == {}


def test_seconds_and_joules_over_the_site_limit_are_counted() -> None:
    """A grid operator bills both: how long, and by how much."""
    plant = lab()
    limit_w = plant.site_power_w - 10_000.0
    plant.set_site_limit_w(limit_w)
    run(plant, 7)
    assert plant.score.over_budget_s == {"site": 7}
    assert plant.score.over_site_limit_j == pytest.approx(70_000.0, rel=0.01)
    assert plant.site_limit_w == limit_w
    with pytest.raises(InvalidRequestError, match="limit_w"):
        plant.set_site_limit_w(-1.0)


def test_jobs_with_scattered_gpus_are_scored_by_their_own() -> None:
    """Nothing says that a job's GPUs stand side by side."""
    jobs = (
        Job("odd", "aurora", JobClass.TRAIN, (7, 1, 3, 5)),
        Job("even", "borealis", JobClass.TRAIN, (0, 6, 2)),
    )
    plant = Plant(hall_site(1), jobs, seed=1, start=START, load=SteadyLoad(jobs))
    plant.command_caps(6, 400.0)
    run(plant, 3)
    assert plant.job_work[0] == 1.0
    assert plant.job_work[1] < 0.8
