"""Faults come at their published rate and mix, by name at their moment, and take others along."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from interlock_plant import (
    Fault,
    FaultKind,
    Plant,
    SteadyLoad,
    hall_site,
    lab_jobs,
    lab_site,
    parse_scenario,
    random_faults,
)
from interlock_plant.parameters import A100_SXM
from interlock_plant.random_faults import CLASSES
from interlock_tools.errors import InvalidRequestError

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
LAB = lab_site()
JOBS = lab_jobs(LAB)
META = hall_site(2048)  # 16,384 GPUs


def lab() -> Plant:
    """The lab at full load."""
    return Plant(LAB, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))


def test_54_days_on_16384_gpus_bring_about_419_interruptions() -> None:
    """The published count; a Poisson count of 419 has a standard deviation of 20."""
    counts = [
        len(random_faults(META, seed=seed, start=START, hours=54 * 24.0)) for seed in range(8)
    ]
    assert sum(counts) / len(counts) == pytest.approx(419, abs=3 * 20.5 / 8**0.5)


def test_classes_are_mixed_as_published_and_carry_their_xids() -> None:
    """148 GPU, 72 HBM, 54 software, 35 network, 32 host maintenance, 78 other."""
    faults = random_faults(META, seed=1, start=START, hours=20_000.0)
    by_kind = Counter(fault.kind for fault in faults)
    assert by_kind[FaultKind.GPU_LOST] / len(faults) == pytest.approx(148 / 419, abs=0.02)
    assert by_kind[FaultKind.HBM_ERROR] / len(faults) == pytest.approx(72 / 419, abs=0.02)
    assert by_kind[FaultKind.NODE_DOWN] / len(faults) == pytest.approx(110 / 419, abs=0.02)
    assert sum(entry.times for entry in CLASSES) == 419
    for fault in faults:
        allowed = {xid for entry in CLASSES if entry.kind is fault.kind for xid in entry.xids}
        assert (fault.xid in allowed) if allowed else fault.xid is None


def test_memory_of_an_a100_fails_less() -> None:
    """3.2 times less per GPU."""
    faults = random_faults(replace(META, gpu=A100_SXM), seed=1, start=START, hours=20_000.0)
    share = sum(fault.kind is FaultKind.HBM_ERROR for fault in faults) / len(faults)
    assert share == pytest.approx(72 / 3.2 / (347 + 72 / 3.2), abs=0.015)


def test_the_same_seed_brings_the_same_faults_and_the_plant_takes_them() -> None:
    """A bad night can be had again."""
    nights = [
        random_faults(LAB, seed=3, start=START, hours=1.0, rate_per_gpu_h=0.05) for _ in range(2)
    ]
    assert nights[0] == nights[1]
    assert len(nights[0]) > 10
    plant = lab()
    for fault in nights[0]:
        plant.inject(fault)
    for _ in range(1800):
        plant.step()
    assert plant.faults
    assert dict(plant.xids).keys() <= {fault.target_id for fault in nights[0]}
    assert plant.score.work_kept < 1.0


@pytest.mark.parametrize("wrong", [{"hours": -1.0}, {"hours": 1.0, "rate_per_gpu_h": float("nan")}])
def test_a_span_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    """Not a number of hours is not zero hours."""
    with pytest.raises(InvalidRequestError, match="must be 0 or more"):
        random_faults(LAB, seed=1, start=START, **wrong)


def test_a_lost_gpu_is_dark_and_a_sick_one_idles() -> None:
    """Two ways to be useless, which telemetry tells apart."""
    plant = lab()
    plant.inject(Fault(FaultKind.GPU_LOST, "node-001/gpu-0", xid=79))
    plant.inject(Fault(FaultKind.HBM_ERROR, "node-001/gpu-1", xid=95))
    for _ in range(5):
        plant.step()
    assert plant.gpu_power_w[0] == 0.0
    assert 60.0 < plant.gpu_power_w[1] < 90.0
    assert plant.gpu_power_w[2] > 600.0
    assert plant.gpu_work[:3].tolist() == [0.0, 0.0, 1.0]
    assert plant.job_work[0] == 0.0  # a gang
    assert plant.xids == (("node-001/gpu-0", 79), ("node-001/gpu-1", 95))
    plant.repair(FaultKind.GPU_LOST, "node-001/gpu-0")
    plant.repair(FaultKind.HBM_ERROR, "node-001/gpu-1")
    for _ in range(3):
        plant.step()
    assert plant.job_work[0] == 1.0


def test_two_faults_with_one_effect_do_not_mend_each_other() -> None:
    """Repairing the network must not heal a memory error beside it."""
    plant = lab()
    plant.inject(Fault(FaultKind.HBM_ERROR, "node-001/gpu-1"))
    plant.inject(Fault(FaultKind.LINK_DOWN, "node-001"))
    plant.step()
    assert plant.gpu_work[:8].max() == 0.0
    plant.repair(FaultKind.LINK_DOWN, "node-001")
    plant.step()
    assert plant.gpu_work[:3].tolist() == [1.0, 0.0, 1.0]


def test_a_fault_with_a_length_ends_by_itself() -> None:
    """Maintenance has an end."""
    plant = lab()
    plant.inject(
        Fault(FaultKind.NODE_DOWN, "node-009", at=START + timedelta(seconds=5), lasts_s=10)
    )
    dark = []
    for _ in range(20):
        plant.step()
        dark.append(not plant.node_is_lit[8])
    assert dark == [5 <= second < 15 for second in range(20)]
    with pytest.raises(InvalidRequestError, match="lasts_s"):
        Fault(FaultKind.NODE_DOWN, "node-009", lasts_s=0)


SCENARIO = """
[[faults]]
kind = "pump_loss"
target = "cdu-1"
at_s = 5
lasts_s = 60

[[faults]]
kind = "gpu_lost"
target = "node-001/gpu-0"
at_s = 8
xid = 79

[[grid]]
begins_s = 20
ends_s = 60
target_w = 380_000
ramp_w_per_s = 10_000
announced_s = 10
"""


def test_a_scenario_is_written_down_and_happens_as_written() -> None:
    """Names, seconds and the grid's wish in one file; the plant only lets it happen."""
    plant, scenario = lab(), parse_scenario(SCENARIO)
    scenario.prepare(plant)
    seen = []
    for second in range(80):
        scenario.announce_due(plant, second)
        plant.step()
        seen.append((len(plant.faults), plant.site_limit_w))
    assert [count for count, _ in seen[4:10]] == [0, 1, 1, 1, 2, 2]
    assert seen[70][0] == 1
    assert seen[19][1] is None
    assert seen[40][1] == 380_000.0
    assert seen[79][1] is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pump_loss", "pump_lost", "fault 1: there is no kind 'pump_lost'"),
        ('target = "cdu-1"', "target = 1", "fault 1: target must be"),
        ("at_s = 8", "at_s = -8", "fault 2: at_s must be a whole number"),
        ("xid = 79", "xid = 7.9", "fault 2: xid must be"),
        ("xid = 79", "colour = 1", "fault 2: there is no key 'colour'"),
        ("target_w = 380_000", 'target_w = "low"', "grid event 1: target_w must be a number"),
        ("announced_s = 10", "announced_s = 30", "grid event 1: it is announced after"),
        ("ends_s = 60", "ends_s = 10", "must end after it begins"),
        ("[[grid]]", "[[net]]", "there is no key 'net'"),
        ("[[grid]]", "[grid]", "must be tables"),
        ("[[grid]]", "[[grid", "not TOML"),
    ],
)
def test_a_scenario_that_is_wrong_is_refused_where_it_is_wrong(
    old: str, new: str, message: str
) -> None:
    """A scenario that does nothing looks like a site that needs nothing."""
    with pytest.raises(InvalidRequestError, match=message):
        parse_scenario(SCENARIO.replace(old, new))


LOADS = """
[[load]]
job = "label-images"
points = [[10, 0.2], [20, 1.0]]
"""


def test_a_scenario_can_tell_how_hard_a_job_works() -> None:
    """A breaker is driven to its limit by work that grows, not by a fault."""
    scenario, still = parse_scenario(LOADS), SteadyLoad(JOBS, 0.5)
    load = scenario.driving(JOBS, still)
    place = [job.job_id for job in JOBS].index("label-images")
    told = [float(load.at(second)[place]) for second in (0, 10, 15, 20, 99)]
    assert told == pytest.approx([0.2, 0.2, 0.6, 1.0, 1.0])
    assert np.delete(load.at(15), place) == pytest.approx(0.5)
    assert parse_scenario("").driving(JOBS, still) is still


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("label-images", "nobody", "no job 'nobody'"),
        ('job = "label-images"', "", "job must be"),
        ("[[10, 0.2], [20, 1.0]]", "[]", "points must be"),
        ("[20, 1.0]", "[20]", r"a point is \[second, u\]"),
        ("[20, 1.0]", "[20, 1.5]", r"u must be in \[0, 1\]"),
        ("[20, 1.0]", "[10, 1.0]", "must rise"),
        ("points", "dots", "no key 'dots'"),
    ],
)
def test_a_load_that_cannot_be_is_refused(old: str, new: str, message: str) -> None:
    """A load that is not followed looks like a job that is always as it was."""
    with pytest.raises(InvalidRequestError, match=message):
        parse_scenario(LOADS.replace(old, new)).driving(JOBS, SteadyLoad(JOBS))


def test_grid_events_that_overlap_are_found_before_anything_runs() -> None:
    """In the middle of a run it would stop the factory."""
    event = SCENARIO[SCENARIO.index("[[grid]]") :]
    with pytest.raises(InvalidRequestError, match="overlap"):
        parse_scenario(event + event)


def test_a_scenario_for_another_site_is_refused_by_name() -> None:
    """The target does not exist here."""
    scenario = parse_scenario(SCENARIO.replace("cdu-1", "cdu-77"))
    with pytest.raises(InvalidRequestError, match="cdu-77"):
        scenario.prepare(lab())
