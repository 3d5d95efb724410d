"""Things go wrong on request, and each is seen from every side that would see it."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from interlock_plant import Fault, FaultKind, Plant, SteadyLoad, SyntheticLoad, lab_jobs, lab_site
from interlock_tools.errors import InvalidRequestError

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
LAB = lab_site()
JOBS = lab_jobs(LAB)


def lab(seconds: int = 0) -> Plant:
    """The lab at full load, after some seconds."""
    plant = Plant(LAB, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))
    run(plant, seconds)
    return plant


def run(plant: Plant, seconds: int) -> None:
    """Advance."""
    for _ in range(seconds):
        plant.step()


def test_ignored_caps_are_reported_as_set_and_seen_only_at_the_meter() -> None:
    """Reading back the cap that was just written proves nothing; the meter does."""
    plant = lab()
    plant.inject(Fault(FaultKind.CAP_IGNORED, "node-003"))
    before_w = plant.node_power_w.copy()
    plant.command_caps(np.arange(512), 400.0)
    run(plant, 10)
    deaf = LAB.gpus_of_node("node-003")
    assert (plant.gpu_cap_set_w[deaf] == 400.0).all()
    assert (plant.gpu_cap_effective_w[deaf] == 700.0).all()
    fallen = plant.node_power_w / before_w
    assert fallen[2] == pytest.approx(1.0, abs=0.02)
    assert np.delete(fallen, 2).max() < 0.8
    plant.repair(FaultKind.CAP_IGNORED, "node-003")
    run(plant, 3)
    assert plant.gpu_power_w[deaf].max() <= 400.0


@pytest.mark.parametrize("meter_id", ["site", "feed-a", "pdu-1", "rack-01", "node-001"])
def test_a_frozen_meter_repeats_itself_while_the_plant_moves_on(meter_id: str) -> None:
    """A value that does not move is unknown, not steady; somebody has to notice."""
    plant = Plant(LAB, JOBS, seed=1, start=START, load=SyntheticLoad(JOBS, seed=1))
    run(plant, 3)
    plant.inject(Fault(FaultKind.METER_FROZEN, meter_id))
    shown_w = plant.meter_w(meter_id)
    plant.command_caps(np.arange(512), 400.0)
    run(plant, 10)
    assert plant.meter_w(meter_id) == shown_w
    assert plant.site_power_w < 400_000.0
    assert plant.meter_w("rack-08") == plant.rack_power_w[7]  # every other meter still measures
    plant.repair(FaultKind.METER_FROZEN, meter_id)
    assert plant.meter_w(meter_id) < 0.85 * shown_w


def test_a_node_that_goes_down_stops_its_gang_and_nothing_else() -> None:
    """One node of sixteen stops all sixteen: that is what a gang is."""
    plant = lab()
    plant.inject(Fault(FaultKind.NODE_DOWN, "node-001"))
    run(plant, 2)
    assert plant.node_power_w[0] == 0.0
    assert plant.job_work[0] == 0.0
    assert (plant.job_work[1:] == 1.0).all()
    plant.repair(FaultKind.NODE_DOWN, "node-001")
    run(plant, 2)
    assert plant.job_work[0] == 1.0


def test_a_leak_is_one_event_seen_from_every_side() -> None:
    """Sensor, flow, coolant, core, clocks, work, and in the end darkness: in that order."""
    plant = lab()
    rack = LAB.rack_of_gpu == 4
    plant.inject(Fault(FaultKind.LEAK, "rack-05"))
    assert plant.rack_leaks.tolist() == [False] * 4 + [True] + [False] * 3
    run(plant, 4)
    assert plant.rack_liquid_flow_lpm[4] == 0.0
    assert (np.delete(plant.rack_liquid_flow_lpm, 4) > 0.0).all()
    run(plant, 60)
    assert plant.rack_liquid_return_c[4] > plant.rack_liquid_return_c[5] + 8.0
    assert not plant.gpu_is_throttled.any()
    run(plant, 180)
    assert plant.gpu_is_throttled[rack].any()
    assert not plant.gpu_is_throttled[~rack].any()
    assert plant.gpu_work[rack].min() == 0.5
    run(plant, 900)
    assert not plant.gpu_is_lit[rack].any()
    assert plant.gpu_is_lit[~rack].all()
    assert plant.gpu_power_w[rack].sum() == 0.0


def test_a_mended_leak_cools_down_and_works_again() -> None:
    """A rack that comes back hot must not throttle for ever."""
    plant = lab()
    plant.inject(Fault(FaultKind.LEAK, "rack-05"))
    run(plant, 240)
    plant.repair(FaultKind.LEAK, "rack-05")
    run(plant, 600)
    assert not plant.rack_leaks.any()
    assert plant.gpu_is_lit.all()
    assert not plant.gpu_is_throttled.any()
    assert (plant.job_work == 1.0).all()


def test_a_lost_pump_warms_every_rack_of_its_cdu_by_some_kelvin() -> None:
    """Three quarters of the flow: correlated by CDU, and not enough to throttle."""
    plant = lab(60)
    before_c = plant.gpu_core_c.copy()
    plant.inject(Fault(FaultKind.PUMP_LOSS, "cdu-1"))
    run(plant, 600)
    rise_k = plant.gpu_core_c - before_c
    assert plant.cdu_flow_lpm[0] == pytest.approx(0.75 * plant.cdu_flow_lpm[1])
    assert 2.0 < rise_k[:256].mean() < 8.0
    assert np.abs(rise_k[256:]).max() < 0.5
    assert not plant.gpu_is_throttled.any()


def test_a_fault_waits_for_its_moment() -> None:
    """A scenario is written before it is run."""
    plant = lab()
    plant.inject(Fault(FaultKind.LEAK, "rack-02", at=START + timedelta(seconds=5)))
    run(plant, 5)
    assert not plant.rack_leaks.any()
    run(plant, 1)
    assert plant.rack_leaks[1]
    assert [fault.target_id for fault in plant.faults] == ["rack-02"]


def test_a_fault_that_cannot_be_is_refused() -> None:
    """A scenario with a wrong name must fail where it is written, not do nothing."""
    plant = lab(10)
    for kind, target_id in (
        (FaultKind.LEAK, "cdu-1"),
        (FaultKind.PUMP_LOSS, "rack-01"),
        (FaultKind.CAP_IGNORED, "site"),
        (FaultKind.METER_FROZEN, "cdu-1"),
    ):
        with pytest.raises(InvalidRequestError, match=target_id):
            plant.inject(Fault(kind, target_id))
    with pytest.raises(InvalidRequestError, match="is before"):
        plant.inject(Fault(FaultKind.LEAK, "rack-01", at=START))
    with pytest.raises(InvalidRequestError, match="aware"):
        Fault(FaultKind.LEAK, "rack-01", at=datetime(2026, 1, 5))  # noqa: DTZ001 - the point
    with pytest.raises(InvalidRequestError, match="has no fault leak"):
        plant.repair(FaultKind.LEAK, "rack-01")
    with pytest.raises(InvalidRequestError, match="no meter"):
        plant.meter_w("cdu-1")
    assert plant.faults == ()
