"""What a power sensor shows is not what was drawn; the difference has a known shape."""

from datetime import UTC, datetime

import numpy as np
import pytest

from interlock_plant import Job, JobClass, Plant, SquareLoad, SteadyLoad, hall_site
from interlock_plant.sensing import averaged_w, sampled_w, square_w
from interlock_tools.errors import InvalidRequestError

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
STEP_S = 0.005
LOW_W, HIGH_W = 100.0, 1000.0  # the published swing of 900 W


def wave(period_s: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Nine seconds of the published swing."""
    return square_w(LOW_W, HIGH_W, period_s, seconds=9.0, step_s=STEP_S)


@pytest.mark.parametrize(("period_s", "hidden_w"), [(4.0, 0.0), (2.0, 0.0), (1.6, 360.0)])
def test_the_averaged_counter_hides_swings_faster_than_two_seconds(
    period_s: float, hidden_w: float
) -> None:
    """Published: a 900 W swing is understated by up to 343 W below a period of 2 s."""
    shown_w = averaged_w(wave(period_s), STEP_S)
    assert 900.0 - np.ptp(shown_w) == pytest.approx(hidden_w, abs=15.0)
    assert shown_w.mean() == pytest.approx(550.0, rel=0.02)


def test_a_swing_of_one_second_is_invisible_to_the_counter() -> None:
    """The window is a whole period: a flat line, and a breaker that disagrees."""
    assert np.ptp(averaged_w(wave(1.0), STEP_S)) < 15.0


def test_a_sample_sees_a_quarter_of_the_time() -> None:
    """25 ms of each 100 ms: a 100 ms swing reads as steady, at one level or the other."""
    fast = wave(0.1)
    assert np.ptp(sampled_w(fast, STEP_S)) == 0.0
    assert sampled_w(fast, STEP_S)[0] == HIGH_W
    assert sampled_w(fast, STEP_S, phase_s=0.06)[0] == LOW_W
    slow = sampled_w(wave(4.0), STEP_S)
    assert np.ptp(slow) == pytest.approx(900.0)


def test_a_waveform_that_no_sensor_could_read_is_refused() -> None:
    """An empty reading would look like zero watts."""
    with pytest.raises(InvalidRequestError, match="step_s"):
        sampled_w(wave(1.0), 0.1)
    with pytest.raises(InvalidRequestError, match="shorter than one window"):
        sampled_w(wave(1.0)[:3], STEP_S)
    with pytest.raises(InvalidRequestError, match="shorter than the counter's"):
        averaged_w(wave(1.0)[:50], STEP_S)


def test_in_the_plant_the_sample_and_the_mean_differ_after_a_transient_only() -> None:
    """A cap that lands within the second: the counter shows the whole of it, the driver its end."""
    site = hall_site(8)
    jobs = (Job("all", "aurora", JobClass.BATCH, tuple(range(64))),)
    plant = Plant(site, jobs, seed=1, start=START, load=SteadyLoad(jobs))
    plant.step()
    assert plant.gpu_sampled_w == pytest.approx(plant.gpu_power_w, rel=1e-3)
    plant.command_caps(np.arange(64), 400.0)
    plant.step()
    assert (plant.gpu_power_w - plant.gpu_sampled_w).mean() > 20.0
    for _ in range(5):
        plant.step()
    assert plant.gpu_sampled_w == pytest.approx(plant.gpu_power_w, rel=1e-3)


@pytest.mark.parametrize("low_share", [0.75, 0.5, 0.2])
def test_a_square_wave_of_training_has_its_published_levels(low_share: float) -> None:
    """POLCA: period .3 to 5 s, low level 75, 50 or 20 % of the rating, in phase."""
    site = hall_site(1)
    jobs = (Job("all", "aurora", JobClass.TRAIN, tuple(range(8))),)
    load = SquareLoad(jobs, period_s=4.0, low_share=low_share)
    plant = Plant(site, jobs, seed=1, start=START, load=load)
    seen = []
    for _ in range(40):
        plant.step()
        seen.append(float(plant.gpu_power_w.mean()) / 700.0)
    # the loop has .3 s, so a level is reached to the last per cent in its second second
    assert min(seen) == pytest.approx(low_share, abs=0.03)
    assert max(seen) > 0.9


def test_the_mean_of_a_square_wave_does_not_depend_on_where_seconds_fall() -> None:
    """Half of every period is high, whatever the period."""
    jobs = (Job("all", "aurora", JobClass.TRAIN, (0,)),)
    for period_s in (0.3, 0.7, 1.3, 5.0):
        load = SquareLoad(jobs, period_s=period_s, low_share=0.2)
        mean = np.mean([load.at(second)[0] for second in range(3000)])
        low = load.at(0)[0] if period_s > 2 else None
        assert mean == pytest.approx((1.0 + 0.1167) / 2, abs=0.002), low
    with pytest.raises(InvalidRequestError, match="period_s"):
        SquareLoad(jobs, period_s=9.0, low_share=0.5)
    with pytest.raises(InvalidRequestError, match="low_share"):
        SquareLoad(jobs, period_s=1.0, low_share=0.9)
