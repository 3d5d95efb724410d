"""A planning step of a minute gives the energy and the temperatures of sixty seconds."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from interlock_plant import Fault, FaultKind, Plant, SyntheticLoad, lab_jobs, lab_site

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
LAB = lab_site()
JOBS = lab_jobs(LAB)


def lab() -> Plant:
    """The lab at a moving load, with caps on half of it."""
    plant = Plant(LAB, JOBS, seed=1, start=START, load=SyntheticLoad(JOBS, seed=1))
    plant.command_caps(np.arange(256), 500.0)
    return plant


def both(minutes: int, fault: Fault | None = None) -> tuple[Plant, Plant]:
    """The same span in seconds and in minutes."""
    fine, coarse = lab(), lab()
    for plant in (fine, coarse):
        if fault is not None:
            plant.inject(fault)
    for _ in range(minutes):
        for _ in range(60):
            fine.step()
        coarse.step_minute()
    return fine, coarse


def test_an_hour_in_minutes_is_an_hour_in_seconds() -> None:
    """Energy within .5 %, work within .5 points, temperatures within a kelvin."""
    fine, coarse = both(60)
    assert coarse.now == fine.now == START + timedelta(hours=1)
    assert coarse.score.energy_j == pytest.approx(fine.score.energy_j, rel=0.005)
    assert coarse.score.work_kept == pytest.approx(fine.score.work_kept, abs=0.005)
    assert coarse.score.seconds == fine.score.seconds == 3600
    assert coarse.cdu_supply_c == pytest.approx(fine.cdu_supply_c, abs=1.0)


def test_lost_cooling_ends_the_same_way() -> None:
    """Throttled and shut off: the slow part of a fault needs no seconds."""
    fine, coarse = both(20, Fault(FaultKind.LEAK, "rack-05"))
    rack = LAB.rack_of_gpu == 4
    assert not fine.gpu_is_lit[rack].any()
    assert not coarse.gpu_is_lit[rack].any()
    assert coarse.gpu_is_lit[~rack].all()
    assert coarse.cdu_supply_c == pytest.approx(fine.cdu_supply_c, abs=1.0)


def test_seconds_and_minutes_can_be_mixed() -> None:
    """An event in seconds, the calm after it in minutes."""
    plant = lab()
    for _ in range(5):
        plant.step()
    plant.step_minute()
    plant.step()
    assert plant.now == START + timedelta(seconds=66)
    assert plant.gpu_power_w[:256].max() <= 500.0


def test_the_brake_and_slow_commands_land_within_their_minute() -> None:
    """Nothing that was asked for is lost between two steps."""
    plant = lab()
    plant.brake(np.arange(8))
    plant.step_minute()
    plant.step_minute()
    assert plant.gpu_power_w[:8].max() < 110.0
