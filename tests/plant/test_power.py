"""GPUs draw what their work needs, follow their caps the way real ones do, and lose work for it."""

from datetime import UTC, datetime

import numpy as np
import pytest

from interlock_plant import (
    Job,
    JobClass,
    Plant,
    SteadyLoad,
    hall_site,
    lab_jobs,
    lab_site,
)
from interlock_tools.errors import InvalidRequestError
from interlock_tools.power_curve import DECODE, TRAINING, throughput

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
LAB = lab_site()
JOBS = lab_jobs(LAB)
EVERY_GPU = np.arange(512)


def lab(seconds: int = 0, u: float = 1.0) -> Plant:
    """The lab at a steady load, after some seconds."""
    plant = Plant(LAB, JOBS, seed=1, start=START, load=SteadyLoad(JOBS, u))
    for _ in range(seconds):
        plant.step()
    return plant


def gpus_of(kind: JobClass) -> list[int]:
    """The GPUs of every job of a class."""
    return [gpu for job in JOBS if job.job_class is kind for gpu in job.gpu_indices]


def test_a_new_plant_is_steady() -> None:
    """What happens in the first seconds of a run should be what somebody did, not a start-up."""
    plant = lab()
    before_w = plant.site_power_w
    for _ in range(60):
        plant.step()
    assert plant.site_power_w == pytest.approx(before_w, rel=1e-4)
    assert plant.now == datetime(2026, 1, 5, 8, 1, tzinfo=UTC)


def test_each_class_draws_its_share_of_the_rating() -> None:
    """These shares are what every plan is made of (training .93 in its busy phase, mean .90)."""
    share = {
        kind: lab().gpu_power_w[gpus_of(kind)].mean() / 700.0
        for kind in JobClass
        if kind is not JobClass.BURN
    }
    assert share[JobClass.TRAIN] == pytest.approx(0.93, abs=0.01)
    assert share[JobClass.BATCH] == pytest.approx(0.90, abs=0.01)
    assert share[JobClass.SERVING] == pytest.approx(0.874, abs=0.01)
    low = lab(u=0.5).gpu_power_w[gpus_of(JobClass.SERVING)].mean() / 700.0
    assert low == pytest.approx(0.732, abs=0.015)  # cooler, so it leaks less


def test_silicon_differs_from_gpu_to_gpu() -> None:
    """Equal caps on unequal parts are what makes a gang slow."""
    natural_w = lab().natural_w[gpus_of(JobClass.TRAIN)]
    assert natural_w.std() / natural_w.mean() == pytest.approx(0.03, abs=0.005)


@pytest.mark.parametrize("cap_w", [350.0, 450.0, 550.0])
def test_a_capped_gpu_settles_just_below_its_cap(cap_w: float) -> None:
    """Measured GPUs hold .985 to .996 of a cap that binds."""
    plant = lab()
    plant.command_caps(EVERY_GPU, cap_w)
    for _ in range(5):
        plant.step()
    ratio = plant.gpu_power_w / cap_w
    assert ratio.min() >= 0.985
    assert ratio.max() <= 0.996


def test_a_cap_takes_effect_within_the_second_command_delay() -> None:
    """The delay is .1 to 1 s: something has happened after one second, and all of it after two."""
    plant = lab()
    plant.command_caps(EVERY_GPU, 450.0)
    assert (plant.gpu_cap_set_w == 450.0).all()
    assert (plant.gpu_cap_effective_w == 700.0).all()
    plant.step()
    assert (plant.gpu_cap_effective_w == 450.0).all()
    delays_show = plant.gpu_power_w
    assert delays_show.std() > 20.0
    plant.step()
    plant.step()
    assert plant.gpu_power_w.max() <= 450.0


def test_a_cap_above_the_natural_draw_saves_nothing() -> None:
    """A plan that counts such a cap as a saving is wrong."""
    plant = lab(u=0.5)
    serving = gpus_of(JobClass.SERVING)
    before_w = plant.gpu_power_w[serving]
    plant.command_caps(serving, 650.0)
    for _ in range(5):
        plant.step()
    assert plant.gpu_power_w[serving] == pytest.approx(before_w, rel=1e-3)
    assert (plant.gpu_work[serving] == 1.0).all()


@pytest.mark.parametrize(
    ("kind", "curve"), [(JobClass.TRAIN, TRAINING), (JobClass.SERVING, DECODE)]
)
def test_work_under_a_cap_follows_the_audited_curve(
    kind: JobClass, curve: tuple[float, float]
) -> None:
    """Plant and allocator must speak of the same curve, or the plan is made for another plant."""
    plant = lab()
    gpus = gpus_of(kind)
    for cap_w in (600.0, 500.0, 400.0):
        plant.command_caps(gpus, cap_w)
        plant.step()
        plant.step()
        expected = throughput(cap_w, plant.natural_w[gpus], *curve)
        assert plant.gpu_work[gpus] == pytest.approx(expected, abs=1e-12)


def test_below_half_of_the_natural_draw_work_falls_straight_to_nothing() -> None:
    """The curve is not measured there; the plant must not reward whoever goes there."""
    plant = lab()
    gpus = gpus_of(JobClass.BATCH)
    plant.command_caps(gpus, 200.0)
    plant.step()
    plant.step()
    natural_w = plant.natural_w[gpus]
    curve = throughput(200.0, natural_w, *TRAINING)
    assert (plant.gpu_work[gpus] < curve).all()
    assert plant.gpu_work[gpus] == pytest.approx(0.5**0.61 * 200.0 / (0.5 * natural_w))


def test_clearing_a_cap_brings_the_work_back() -> None:
    """A curtailment ends; what it took must come back."""
    plant = lab()
    before_w = plant.site_power_w
    plant.command_caps(EVERY_GPU, 400.0)
    for _ in range(10):
        plant.step()
    plant.clear_caps(EVERY_GPU)
    for _ in range(120):
        plant.step()
    assert (plant.gpu_cap_effective_w == 700.0).all()
    assert plant.site_power_w == pytest.approx(before_w, rel=1e-3)


def test_a_burst_from_idle_overshoots_its_cap_for_half_a_second() -> None:
    """Measured up to 1.43 of a cap; whoever resumes work under a tight limit meets it.

    It goes .386 of the way from the cap to what the work would draw.
    """
    plant = lab()
    job = next(job for job in JOBS if job.job_class is JobClass.BATCH)
    gpus = list(job.gpu_indices)
    plant.command_caps(gpus, 350.0)
    plant.pause(job.job_id)
    for _ in range(5):
        plant.step()
    plant.resume(job.job_id)
    plant.step()
    reach_w = plant.natural_w[gpus]
    assert plant.gpu_peak_w[gpus] == pytest.approx(350.0 + 0.386 * (reach_w - 350.0))
    plant.step()  # the loop catches it, with a time constant of .3 s
    plant.step()
    assert plant.gpu_peak_w[gpus].max() <= 350.0


def test_a_paused_job_idles_and_does_nothing() -> None:
    """Below half of the natural draw a job is paused, not starved; that is what pausing saves."""
    plant = lab()
    job = JOBS[0]
    plant.pause(job.job_id)
    plant.pause(job.job_id)
    for _ in range(5):
        plant.step()
    assert plant.gpu_power_w[list(job.gpu_indices)].mean() == pytest.approx(72.5, rel=0.08)
    assert plant.job_work[0] == 0.0
    plant.resume(job.job_id)
    plant.step()
    assert plant.job_work[0] == 1.0


@pytest.mark.parametrize(
    ("gpu_index", "cap_w", "message"),
    [
        (0, 199.0, "200..700 W"),
        (0, 701.0, "200..700 W"),
        ([0, 1], [400.0, float("nan")], "for GPU 1"),
        ([0, 1], [400.0, 400.0, 400.0], "3 values for 2 GPUs"),
        (512, 400.0, "0..511"),
        (-1, 400.0, "0..511"),
        ([3, 3], 400.0, "names a GPU twice"),
        (0.5, 400.0, "whole number"),
    ],
)
def test_a_command_that_cannot_be_is_refused_and_nothing_is_done(
    gpu_index: int | list[int], cap_w: float | list[float], message: str
) -> None:
    """Half a command on 512 GPUs is worse than none."""
    plant = lab()
    with pytest.raises(InvalidRequestError, match=message):
        plant.command_caps(gpu_index, cap_w)
    assert (plant.gpu_cap_set_w == 700.0).all()


def test_an_empty_list_of_gpus_means_none_of_them() -> None:
    """An empty selector that means everything is how whole sites go down."""
    plant = lab()
    plant.command_caps([], 300.0)
    plant.clear_caps([])
    assert (plant.gpu_cap_set_w == 700.0).all()


def test_an_unknown_job_cannot_be_paused() -> None:
    """A name that nobody has is a mistake, not an empty success."""
    with pytest.raises(InvalidRequestError, match="no job 'nobody'"):
        lab().pause("nobody")


def test_what_is_read_cannot_be_written() -> None:
    """Readings are of one moment: nobody can change the plant through them, nor it them."""
    plant = lab()
    power_w = plant.gpu_power_w
    kept = power_w.copy()
    with pytest.raises(ValueError, match="read-only"):
        power_w[0] = 0.0
    plant.command_caps(EVERY_GPU, 400.0)
    plant.step()
    assert np.array_equal(power_w, kept)


def test_gpus_without_a_job_idle() -> None:
    """A free GPU still draws, and has no work to lose."""
    site = hall_site(1)
    job = Job("one", "aurora", JobClass.TRAIN, (0,))
    plant = Plant(site, (job,), seed=1, start=START, load=SteadyLoad((job,)))
    plant.step()
    assert plant.gpu_power_w[1:].mean() == pytest.approx(72.5, rel=0.08)
    assert (plant.gpu_work == 1.0).all()
    empty = Plant(site, (), seed=1, start=START, load=SteadyLoad(()))
    empty.step()
    assert empty.score.work_kept == 1.0
