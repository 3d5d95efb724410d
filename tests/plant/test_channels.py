"""A command takes as long as the way that it goes, and the brake is the last of them."""

from datetime import UTC, datetime

import numpy as np
import pytest

from interlock_plant import Channel, Job, JobClass, Plant, SteadyLoad, hall_site
from interlock_plant.power import burst_peak_w
from interlock_tools.errors import InvalidRequestError

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
SITE = hall_site(8)
JOBS = (Job("all", "aurora", JobClass.BATCH, tuple(range(64))),)
EVERY_GPU = np.arange(64)


def hall() -> Plant:
    """Eight nodes at full batch load."""
    return Plant(SITE, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))


@pytest.mark.parametrize(
    ("channel", "none_before_s", "all_after_s"),
    [(Channel.IN_BAND, 0, 1), (Channel.REDFISH, 1, 5), (Channel.SMBPBI, 39, 40)],
)
def test_each_channel_has_its_published_delay(
    channel: Channel, none_before_s: int, all_after_s: int
) -> None:
    """In-band .1 to 1 s, through the BMC 1 to 5 s, out of band 40 s: three kinds of plan."""
    plant = hall()
    plant.command_caps_by(channel, EVERY_GPU, 400.0)
    assert (plant.gpu_cap_set_w == 400.0).all()
    for _ in range(none_before_s):
        plant.step()
        assert (plant.gpu_cap_effective_w == 700.0).all()
    for _ in range(all_after_s - none_before_s):
        plant.step()
    assert (plant.gpu_cap_effective_w == 400.0).all()


def test_redfish_delays_differ_from_gpu_to_gpu() -> None:
    """A budget that is counted as if all caps land together is broken in between."""
    plant = hall()
    plant.command_caps_by(Channel.REDFISH, EVERY_GPU, 400.0)
    landed = []
    for _ in range(5):
        plant.step()
        landed.append(int((plant.gpu_cap_effective_w == 400.0).sum()))
    assert landed[0] == 0
    assert landed[-1] == 64
    assert len(set(landed)) >= 4


def test_a_later_command_replaces_one_under_way() -> None:
    """The slow one must not come back and undo the fast one."""
    plant = hall()
    plant.command_caps_by(Channel.SMBPBI, EVERY_GPU, 300.0)
    plant.command_caps(EVERY_GPU, 500.0)
    for _ in range(60):
        plant.step()
    assert (plant.gpu_cap_effective_w == 500.0).all()


def test_a_clock_lock_saves_where_no_cap_would_bind() -> None:
    """Decode at low load draws far below its limit: a cap of 600 W does nothing, a lock does."""
    jobs = (Job("chat", "borealis", JobClass.SERVING, tuple(range(64))),)
    plant = Plant(SITE, jobs, seed=1, start=START, load=SteadyLoad(jobs, 0.2))
    plant.step()
    free_w = float(plant.gpu_power_w.mean())
    plant.command_caps(EVERY_GPU, 600.0)
    for _ in range(3):
        plant.step()
    assert plant.gpu_power_w.mean() == pytest.approx(free_w, rel=1e-3)
    plant.lock_clocks(EVERY_GPU, 0.9)
    for _ in range(60):
        plant.step()
    assert plant.gpu_power_w.mean() == pytest.approx(0.9 ** (1 / 0.70) * free_w, rel=0.02)
    assert plant.job_work[0] == pytest.approx(0.9)
    plant.lock_clocks(EVERY_GPU, 1.0)
    for _ in range(60):
        plant.step()
    assert plant.gpu_power_w.mean() == pytest.approx(free_w, rel=1e-3)
    assert plant.job_work[0] == 1.0
    with pytest.raises(InvalidRequestError, match="share must be in"):
        plant.lock_clocks(EVERY_GPU, 0.0)


def test_the_brake_holds_after_five_seconds_and_nearly_halts_the_work() -> None:
    """The last resort of a row over its budget: everything it carries stops."""
    plant = hall()
    full_w = plant.site_power_w
    plant.brake(EVERY_GPU)
    for _ in range(5):
        plant.step()
    assert plant.site_power_w == pytest.approx(full_w, rel=0.01)
    for _ in range(3):
        plant.step()
    assert plant.gpu_is_braked.all()
    assert plant.gpu_power_w.max() < 110.0
    assert plant.job_work[0] == pytest.approx(0.02)
    plant.brake(EVERY_GPU, on=False)
    for _ in range(3):
        plant.step()
    assert plant.job_work[0] == 1.0
    assert not plant.gpu_is_braked.any()
    with pytest.raises(InvalidRequestError, match=r"0\.\.63"):
        plant.brake(64)


def test_pulling_the_brake_again_does_not_begin_its_delay_anew() -> None:
    """A nervous hand that pulls every second would never brake."""
    plant = hall()
    for _ in range(7):
        plant.brake(EVERY_GPU)
        plant.step()
    assert plant.gpu_is_braked.all()


def test_a_longer_burst_goes_higher_and_none_goes_past_what_the_work_draws() -> None:
    """The form of the overshoot: towards the natural draw, never beyond it, never below idle."""
    cap_w, natural_w, idle_w = (np.full(1, watts) for watts in (400.0, 650.0, 75.0))
    peaks = [float(burst_peak_w(cap_w, natural_w, idle_w, s)[0]) for s in (0.001, 0.01, 0.1, 2.0)]
    assert peaks == sorted(peaks)
    assert peaks[-1] == pytest.approx(400.0 + 0.386 * 250.0)
    assert burst_peak_w(np.full(1, 700.0), natural_w, idle_w, 2.0)[0] <= 650.0


def test_only_gpus_in_a_transient_take_sub_steps() -> None:
    """That is what makes a hall fast: quiet GPUs are one closed step."""
    plant = hall()
    plant.command_caps(EVERY_GPU[:5], 400.0)
    plant.step()
    moving = plant.snapshot().state.power
    assert moving.moving.tolist() == [0, 1, 2, 3, 4]
    assert moving.moving_w.shape == (10, 5)
    plant.step()
    assert plant.snapshot().state.power.moving.size == 0
