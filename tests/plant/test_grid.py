"""A grid event moves the site's limit with notice and ramps; obeying it is somebody else's work."""

from dataclasses import replace
from datetime import UTC, datetime
from math import inf, nan

import pytest

from interlock_plant import GridEvent, Plant, SteadyLoad, Storage, lab_jobs, lab_site
from interlock_tools.errors import InvalidRequestError

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
LAB = lab_site()
JOBS = lab_jobs(LAB)


def lab() -> Plant:
    """The lab at full load, about 480 kW."""
    return Plant(LAB, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))


def limits(plant: Plant, seconds: int) -> list[float | None]:
    """The limit in each second."""
    out = []
    for _ in range(seconds):
        plant.step()
        out.append(plant.site_limit_w)
    return out


def test_the_limit_ramps_down_holds_and_ramps_back() -> None:
    """From what the site draws, to the target, and back to where it began; then it is gone."""
    plant = lab()
    before_w = plant.site_power_w
    target_w = before_w - 100_000.0
    plant.announce(GridEvent(10, 40, target_w, ramp_w_per_s=10_000.0))
    seen = limits(plant, 60)
    assert seen[:10] == [None] * 10
    assert seen[10] == pytest.approx(before_w - 10_000.0, rel=1e-3)
    assert seen[14] == pytest.approx(before_w - 50_000.0, rel=1e-3)
    assert seen[25:40] == [target_w] * 15
    assert seen[43] == pytest.approx(target_w + 40_000.0)
    assert seen[55:] == [None] * 5
    assert plant.score.over_budget_s["site"] > 30  # nobody did anything about it


def test_a_step_is_a_ramp_without_end() -> None:
    """London: 30 % in 30 s is announced as a step, and counted from the first second."""
    plant = lab()
    plant.announce(GridEvent(2, 5, 300_000.0))
    assert limits(plant, 7) == [None, None, 300_000.0, 300_000.0, 300_000.0, None, None]
    assert plant.score.over_budget_s == {"site": 3}


def test_events_follow_each_other_and_do_not_overlap() -> None:
    """Two targets at once would have to be merged by somebody; the plant is not the one."""
    plant = lab()
    plant.announce(GridEvent(20, 30, 300_000.0))
    plant.announce(GridEvent(5, 10, 400_000.0, ramp_w_per_s=1.0))  # its ramp is cut by the next
    seen = limits(plant, 35)
    assert seen[25] == 300_000.0
    assert seen[34] is None
    late = lab()
    late.announce(GridEvent(20, 30, 300_000.0))
    for wrong in (GridEvent(25, 40, 1.0), GridEvent(10, 21, 1.0)):
        with pytest.raises(InvalidRequestError, match="overlap"):
            late.announce(wrong)
    limits(late, 3)
    with pytest.raises(InvalidRequestError, match="it is 3 s"):
        late.announce(GridEvent(1, 5, 1.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 10, 1.0, inf), "must end after"),
        ((-1, 10, 1.0, inf), "must end after"),
        ((0, 10, 0.0, inf), "target_w"),
        ((0, 10, nan, inf), "target_w"),
        ((0, 10, 1.0, 0.0), "ramp_w_per_s"),
        ((0, 10, 1.0, nan), "ramp_w_per_s"),
    ],
)
def test_an_event_that_cannot_be_is_refused(
    arguments: tuple[int, int, float, float], message: str
) -> None:
    """A target of nothing is a mistake of units, not a wish."""
    with pytest.raises(InvalidRequestError, match=message):
        GridEvent(*arguments)


STORED = replace(LAB, storage=Storage("battery", 6_000_000.0, 100_000.0))


def test_storage_takes_the_fence_meter_down_until_it_is_empty() -> None:
    """The feeds and everything below draw as before; only the grid sees less."""
    plant = Plant(STORED, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))
    plant.step()
    full_w = plant.site_power_w
    plant.set_storage_w(100_000.0)
    plant.step()
    assert plant.site_power_w == pytest.approx(full_w - 100_000.0, rel=1e-4)
    assert plant.feed_power_w.sum() == pytest.approx(full_w, rel=1e-4)
    for _ in range(59):
        plant.step()
    assert plant.storage_j == pytest.approx(0.0)
    plant.step()
    assert plant.site_power_w == pytest.approx(full_w, rel=1e-3)
    plant.set_storage_w(-50_000.0)
    plant.step_minute()
    assert plant.storage_j == pytest.approx(3_000_000.0)
    assert plant.storage_w == -50_000.0


def test_storage_that_is_not_there_or_too_weak_is_refused() -> None:
    """A plan that counts on it must fail where it is made."""
    with pytest.raises(InvalidRequestError, match="lab has no storage"):
        lab().set_storage_w(1.0)
    plant = Plant(STORED, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))
    for wrong_w in (100_001.0, -100_001.0, nan):
        with pytest.raises(InvalidRequestError, match="within 100000 W"):
            plant.set_storage_w(wrong_w)
    with pytest.raises(InvalidRequestError, match="battery: energy_j"):
        replace(LAB, storage=Storage("battery", 0.0, 1.0))
