"""What a building management system does to a hall: a CDU's target, a rack's valves and switch."""

from datetime import UTC, datetime

import numpy as np
import pytest

from interlock_plant import Job, JobClass, Plant, SteadyLoad, hall_site
from interlock_plant.parameters import FACILITY_SUPPLY_C
from interlock_tools.errors import InvalidRequestError

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
SITE = hall_site(16)
RACKS = SITE.rack_ids
JOBS = (Job("all", "aurora", JobClass.BATCH, tuple(range(128))),)


def hall() -> Plant:
    """Sixteen nodes in two racks on one CDU."""
    return Plant(SITE, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))


def run(plant: Plant, seconds: int) -> None:
    """Advance."""
    for _ in range(seconds):
        plant.step()


def test_the_supply_follows_its_target_within_minutes_and_not_at_once() -> None:
    """A large body of water: a tenth of the way after seconds, there after five minutes."""
    plant = hall()
    run(plant, 60)
    before_c = float(plant.cdu_supply_c[0])
    target_c = before_c + 4.0
    plant.set_cdu_target_c("cdu-1", target_c)
    run(plant, 5)
    assert before_c < plant.cdu_supply_c[0] < before_c + 1.0
    run(plant, 295)
    assert plant.cdu_supply_c[0] == pytest.approx(target_c, abs=0.1)
    assert plant.gpu_core_c.mean() > before_c


def test_no_target_makes_it_colder_than_the_facility_allows() -> None:
    """The valve is fully open already: as cold as the heat lets it be."""
    plant, same = hall(), hall()
    plant.set_cdu_target_c("cdu-1", FACILITY_SUPPLY_C - 10.0)
    run(plant, 120)
    run(same, 120)
    assert plant.cdu_supply_c[0] == same.cdu_supply_c[0] > FACILITY_SUPPLY_C
    assert plant.cdu_target_c[0] == FACILITY_SUPPLY_C - 10.0


def test_a_rack_without_coolant_heats_up_and_comes_back_cold() -> None:
    """The danger of the isolation, seen on the cores; the other rack keeps its flow."""
    plant = hall()
    run(plant, 1)
    flow_lpm = plant.rack_liquid_flow_lpm.copy()
    plant.isolate_liquid(RACKS[0])
    run(plant, 120)
    assert plant.rack_liquid_flow_lpm[0] == 0.0
    assert plant.rack_liquid_flow_lpm[1] == pytest.approx(flow_lpm[1])
    there = SITE.rack_of_gpu == 0
    assert plant.gpu_core_c[there].min() > plant.gpu_core_c[~there].max()
    run(plant, 600)
    assert not plant.gpu_is_lit[there].any()
    plant.isolate_liquid(RACKS[0], shut=False)
    run(plant, 600)
    assert plant.rack_liquid_flow_lpm == pytest.approx(flow_lpm)
    assert not plant.gpu_is_lit[there].any()  # what heat shut off stays off until it restarts
    plant.isolate_power(RACKS[0])
    plant.isolate_power(RACKS[0], opened=False)
    run(plant, 10)
    assert plant.gpu_is_lit.all()


def test_a_rack_whose_switch_is_open_is_dark_and_forgets_its_caps() -> None:
    """At once; closed again its nodes are back without what they were told."""
    plant = hall()
    plant.command_caps(np.arange(128), 400.0)
    run(plant, 3)
    plant.isolate_power(RACKS[1])
    run(plant, 1)
    assert plant.rack_is_open.tolist() == [False, True]
    assert plant.rack_power_w[1] == 0.0 < plant.rack_power_w[0]
    plant.isolate_power(RACKS[1], opened=False)
    run(plant, 1)
    assert plant.node_is_lit.all()
    assert plant.gpu_cap_set_w[SITE.rack_of_gpu == 1].min() > 400.0


def test_what_is_not_there_cannot_be_set() -> None:
    """Nor can water boil."""
    plant = hall()
    with pytest.raises(InvalidRequestError, match="CDU"):
        plant.set_cdu_target_c("cdu-9", 30.0)
    with pytest.raises(InvalidRequestError, match="target_c"):
        plant.set_cdu_target_c("cdu-1", float("nan"))
    with pytest.raises(InvalidRequestError, match="rack"):
        plant.isolate_liquid("rack-9")
    with pytest.raises(InvalidRequestError, match="rack"):
        plant.isolate_power("rack-9")
