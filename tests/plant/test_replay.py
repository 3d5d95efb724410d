"""The same seed and the same commands give the same factory, to the last bit."""

from datetime import UTC, datetime

import numpy as np
import pytest

from interlock_plant import Fault, FaultKind, Plant, SyntheticLoad, hall_jobs, lab_jobs, lab_site
from interlock_tools.errors import InvalidRequestError

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
LAB = lab_site()
JOBS = lab_jobs(LAB)


def lab(seed: int = 1) -> Plant:
    """The lab at a moving load."""
    return Plant(LAB, JOBS, seed=seed, start=START, load=SyntheticLoad(JOBS, seed=seed))


def eventful_minute(plant: Plant) -> list[bytes]:
    """Commands, a pause and faults over 60 s; every second's readings, bit by bit."""
    rng = np.random.default_rng(9)
    seen = []
    for second in range(60):
        if second % 7 == 0:
            plant.command_caps(rng.permutation(512)[:100], rng.uniform(200.0, 700.0, 100))
        if second == 20:
            plant.inject(Fault(FaultKind.LEAK, "rack-03"))
            plant.inject(Fault(FaultKind.NODE_DOWN, "node-009"))
        if second == 30:
            plant.pause("embed-corpus")
        plant.step()
        readings = (plant.gpu_power_w, plant.gpu_core_c, plant.job_work, plant.rack_liquid_return_c)
        seen.append(b"".join(part.tobytes() for part in readings))
    return seen


def test_the_same_seed_and_commands_are_bit_identical() -> None:
    """Two people who argue about a run must be arguing about the same run."""
    assert eventful_minute(lab()) == eventful_minute(lab())


def test_another_seed_is_another_factory() -> None:
    """Otherwise many seeds would be one sample."""
    assert eventful_minute(lab(1))[0] != eventful_minute(lab(2))[0]


def test_a_snapshot_replays_exactly_any_number_of_times() -> None:
    """Trying three plans from one moment is how they are compared."""
    plant = lab()
    plant.command_caps(np.arange(512), 450.0)  # a command is under way: it is part of the state
    snapshot = plant.snapshot()
    first = eventful_minute(plant)
    energy_j = plant.score.energy_j
    for _ in range(2):
        plant.restore(snapshot)
        assert plant.now == START
        assert eventful_minute(plant) == first
        assert plant.score.energy_j == energy_j


def test_a_snapshot_opens_in_a_second_plant_of_the_same_make() -> None:
    """A what-if must not disturb the plant that it asks about."""
    plant, copy = lab(), lab()
    for _ in range(10):
        plant.step()
    copy.restore(plant.snapshot())
    assert eventful_minute(copy) == eventful_minute(plant)


def test_a_snapshot_of_another_plant_is_refused() -> None:
    """Its arrays might even fit; its silicon would not."""
    with pytest.raises(InvalidRequestError, match="another plant"):
        lab(1).restore(lab(2).snapshot())
    fewer = JOBS[:-1]
    other = Plant(LAB, fewer, seed=1, start=START, load=SyntheticLoad(fewer, seed=1))
    with pytest.raises(InvalidRequestError, match="another plant"):
        lab(1).restore(other.snapshot())
    assert hall_jobs(LAB) != JOBS
