"""The lab's work is fixed, mixed, and leaves room for the cut that the demo asks for."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from interlock_plant import (
    Job,
    JobClass,
    Plant,
    SteadyLoad,
    SyntheticLoad,
    hall_jobs,
    hall_site,
    lab_jobs,
    lab_site,
)
from interlock_tools.errors import InvalidRequestError
from interlock_tools.power_curve import DECODE, cap_for

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
LAB = lab_site()
JOBS = lab_jobs(LAB)


def test_the_lab_runs_all_classes_for_four_tenants_on_every_gpu() -> None:
    """A cut must have something to choose between: classes, tenants, sizes."""
    gpus = dict.fromkeys(JobClass, 0)
    for job in JOBS:
        gpus[job.job_class] += len(job.gpu_indices)
    assert gpus == {
        JobClass.TRAIN: 232,
        JobClass.BATCH: 128,
        JobClass.SERVING: 128,
        JobClass.DEV: 24,
        JobClass.BURN: 0,
    }
    assert len({job.tenant_id for job in JOBS}) == 4
    assert len({len(job.gpu_indices) for job in JOBS}) >= 5
    assert lab_jobs(LAB) == JOBS


def test_only_serving_has_a_floor_and_only_training_is_a_gang() -> None:
    """The service level of serving is what a cut may never break."""
    for job in JOBS:
        assert job.floor_work == (0.95 if job.job_class is JobClass.SERVING else None)
        assert job.is_gang == (job.job_class is JobClass.TRAIN)


@pytest.mark.parametrize("seed", range(5))
def test_a_cut_of_20_percent_fits_with_caps_alone_and_every_floor_held(seed: int) -> None:
    """Hard mode: caps at full load must fit, whatever the load is when the cut comes.

    The cut is of the draw just before it, at the moving load, which is the harder reading; the
    margin that is left must be at least 5 % of that draw.
    """
    plant = Plant(LAB, JOBS, seed=seed, start=START, load=SyntheticLoad(JOBS, seed=seed))
    for _ in range(300):
        plant.step()
    target_w = 0.8 * plant.site_power_w

    least_w = 0.5 * plant.natural_full_w
    for job in JOBS:
        if job.floor_work is not None:
            gpus = list(job.gpu_indices)
            least_w[gpus] = cap_for(
                job.floor_work, plant.natural_full_w[gpus], DECODE.p0, DECODE.gamma
            )
    least_w = np.maximum(least_w, LAB.gpu.cap_min_w)
    host = LAB.host
    least_site_w = len(LAB.nodes) * host.base_w + host.slope * float(least_w.sum())

    assert least_site_w <= target_w - 0.05 * plant.site_power_w
    assert (least_w <= LAB.gpu.cap_max_w).all()


def test_the_lab_at_full_load_stays_within_every_rating() -> None:
    """A site that is over its ratings before anything happens would hide what happens."""
    plant = Plant(LAB, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))
    for _ in range(120):
        plant.step()
    assert plant.score.over_budget_s == {}


def test_a_hall_repeats_the_mix_of_the_lab() -> None:
    """Benches at 10,240 GPUs must speak of the same work as the demo at 512."""
    site = hall_site(130)
    jobs = hall_jobs(site)
    assert len(jobs) == 2 * len(JOBS)
    assert jobs[len(JOBS)].gpu_indices[0] == 512


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (Job("twin", "aurora", JobClass.DEV, (0,)), "GPU 0 is held by pretrain-atlas and twin"),
        (Job("far", "aurora", JobClass.DEV, (512,)), "no GPU 512"),
        (Job("none", "aurora", JobClass.DEV, ()), "none has no GPU"),
        (replace(JOBS[0], gpu_indices=(1,)), "'pretrain-atlas' is used 2 times"),
        (Job("free", "aurora", JobClass.DEV, (0,), weight=0.0), "free: weight"),
        (Job("high", "aurora", JobClass.DEV, (0,), floor_work=1.5), "high: floor_work"),
    ],
)
def test_jobs_that_cannot_run_together_are_refused(job: Job, message: str) -> None:
    """A GPU held twice would do two jobs' work and make every score a lie."""
    with pytest.raises(InvalidRequestError, match=message):
        Plant(LAB, (*JOBS, job), seed=1, start=START, load=SteadyLoad((*JOBS, job)))


def test_a_load_of_other_jobs_is_refused() -> None:
    """It would be broadcast over the wrong jobs, or fail in the middle of a run."""
    with pytest.raises(InvalidRequestError, match="one u for each of 14 jobs"):
        Plant(LAB, JOBS, seed=1, start=START, load=SteadyLoad(JOBS[:-1]))


def test_the_start_of_a_plant_must_be_aware() -> None:
    """A naive moment means another moment on another machine."""
    with pytest.raises(InvalidRequestError, match="aware"):
        Plant(LAB, JOBS, seed=1, start=datetime(2026, 1, 5), load=SteadyLoad(JOBS))  # noqa: DTZ001 - the point of the test
