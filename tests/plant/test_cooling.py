"""Coolant that does not flow is seen by every tray that it cools, in core, memory and clocks."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from interlock_plant import Fault, FaultKind, Job, JobClass, Plant, SteadyLoad, hall_site
from interlock_plant.parameters import B300

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
SITE = hall_site(16)
JOBS = (Job("all", "aurora", JobClass.BATCH, tuple(range(128))),)


def hall() -> Plant:
    """Sixteen nodes in two racks on one CDU."""
    return Plant(SITE, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))


def run(plant: Plant, seconds: int) -> None:
    """Advance."""
    for _ in range(seconds):
        plant.step()


def test_a_leak_at_a_tray_closes_that_tray_within_two_seconds_and_no_other() -> None:
    """Isolation is per tray where the leak is known that well; the rack's sensor is wet too."""
    plant = hall()
    plant.inject(Fault(FaultKind.LEAK, "node-003"))
    run(plant, 1)
    full_lpm = plant.rack_liquid_flow_lpm[1]
    assert plant.rack_liquid_flow_lpm[0] == pytest.approx(full_lpm)
    run(plant, 2)
    assert plant.rack_liquid_flow_lpm[0] == pytest.approx(full_lpm * 7 / 8)
    assert plant.rack_leaks.tolist() == [True, False]
    run(plant, 60)
    there = SITE.gpus_of_node("node-003")
    others = np.setdiff1d(np.arange(128), there)
    assert plant.gpu_core_c[there].min() > plant.gpu_core_c[others].max() + 3.0
    plant.repair(FaultKind.LEAK, "node-003")
    run(plant, 300)
    assert not plant.rack_leaks.any()
    assert plant.gpu_core_c[there].mean() == pytest.approx(plant.gpu_core_c[others].mean(), abs=1)


def test_one_pump_of_two_moves_three_quarters_for_less_than_half_the_power() -> None:
    """Flow times .75, power by the cube; the second pump's loss stops everything."""
    plant = hall()
    run(plant, 1)
    flow_lpm, pump_w = float(plant.cdu_flow_lpm[0]), float(plant.cdu_pump_w[0])
    plant.inject(Fault(FaultKind.PUMP_LOSS, "cdu-1"))
    run(plant, 1)
    assert plant.cdu_flow_lpm[0] == pytest.approx(0.75 * flow_lpm)
    assert plant.cdu_pump_w[0] == pytest.approx(0.75**3 * pump_w)
    plant.inject(Fault(FaultKind.CDU_LOSS, "cdu-1"))
    run(plant, 1)
    assert plant.cdu_flow_lpm[0] == 0.0
    plant.repair(FaultKind.CDU_LOSS, "cdu-1")
    run(plant, 1)
    assert plant.cdu_flow_lpm[0] == pytest.approx(0.75 * flow_lpm)  # the first is still lost


def test_a_cdu_with_one_pump_has_none_to_lose() -> None:
    """The factor of .75 is that of a pair."""
    site = replace(SITE, cdus=(replace(SITE.cdus[0], pumps=1),))
    plant = Plant(site, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))
    plant.inject(Fault(FaultKind.PUMP_LOSS, "cdu-1"))
    run(plant, 1)
    assert plant.cdu_flow_lpm[0] == 0.0


def test_no_rejection_warms_the_loop_a_quarter_of_a_kelvin_a_second() -> None:
    """The published figure for a loop that lost its cooling, at design load."""
    plant = hall()
    run(plant, 10)
    before_c = float(plant.rack_liquid_return_c[0])
    plant.inject(Fault(FaultKind.CDU_LOSS, "cdu-1"))
    run(plant, 20)
    rise_k = (float(plant.rack_liquid_return_c[0]) - before_c) / 20
    share = float(plant.rack_power_w[0]) / SITE.racks[0].rating_w
    assert rise_k / share == pytest.approx(0.25, abs=0.03)


def test_memory_is_hotter_than_the_core_and_throttles_at_its_own_limit() -> None:
    """Whoever watches the core alone is surprised: the limit of memory is 95 C."""
    gpu = replace(SITE.gpu, hbm_over_core_k_per_w=0.03)
    plant = Plant(replace(SITE, gpu=gpu), JOBS, seed=1, start=START, load=SteadyLoad(JOBS))
    run(plant, 60)
    gap_k = plant.gpu_hbm_c - plant.gpu_core_c
    assert gap_k == pytest.approx(0.03 * plant.gpu_power_w, abs=0.1)
    plant.inject(Fault(FaultKind.CDU_LOSS, "cdu-1"))
    while not plant.gpu_is_throttled.any():
        plant.step()
    first = plant.gpu_is_throttled
    assert plant.gpu_hbm_c[first].min() > 95.0
    assert plant.gpu_core_c.max() < 85.0
    run(plant, 10)
    assert plant.gpu_work[first].max() == 0.5


def test_a_fouled_cold_plate_warms_its_tray_by_five_to_eight_kelvin() -> None:
    """Correlated by tray: eight GPUs together, and none beside them."""
    plant = hall()
    run(plant, 5)
    before_c = plant.gpu_core_c.copy()
    plant.inject(Fault(FaultKind.COLD_PLATE, "node-002"))
    run(plant, 120)
    rise_k = plant.gpu_core_c - before_c
    there = SITE.gpus_of_node("node-002")
    assert 4.9 < rise_k[there].min() <= rise_k[there].max() < 8.6
    assert np.abs(np.delete(rise_k, there)).max() < 0.5
    plant.repair(FaultKind.COLD_PLATE, "node-002")
    run(plant, 120)
    assert np.abs(plant.gpu_core_c - before_c).max() < 0.5


def test_memory_bound_work_warms_the_core_about_half_as_much() -> None:
    """.0139 K/W against .0270 on a B300: the published ratio, through the plant."""
    site = replace(hall_site(1), gpu=B300)
    rise_k = []
    for is_bound in (False, True):
        jobs = (Job("all", "a", JobClass.BATCH, tuple(range(8)), is_memory_bound=is_bound),)
        plant = Plant(site, jobs, seed=1, start=START, load=SteadyLoad(jobs))
        run(plant, 120)
        supply_c = float(plant.rack_liquid_supply_c[0])
        rise_k.append(((plant.gpu_core_c - supply_c) / plant.gpu_power_w).mean())
    assert rise_k == pytest.approx([0.0270, 0.0139], rel=0.01)
