"""Storms of faults: many nodes for reasons of their own, or one cause for many."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from interlock_plant import FaultKind, Plant, SteadyLoad, hall_jobs, hall_site, xid_storm
from interlock_tools.errors import InvalidRequestError

START = datetime(2026, 11, 25, tzinfo=UTC)


def test_every_node_of_a_storm_is_struck_once_within_its_time() -> None:
    """Each by another GPU, with the XIDs in turn, and alike for the same seed."""
    site = hall_site(64)
    storm = xid_storm(site, seed=3, start=START, nodes=40, within_s=300)
    assert len({fault.target_id.partition("/")[0] for fault in storm}) == 40
    moments = [fault.at for fault in storm if fault.at is not None]
    assert moments == sorted(moments)
    assert all(START <= at < START + timedelta(seconds=300) for at in moments)
    assert {fault.xid for fault in storm} == {79, 48, 94, 74, 95, 119}
    assert storm == xid_storm(site, seed=3, start=START, nodes=40, within_s=300)
    assert storm != xid_storm(site, seed=4, start=START, nodes=40, within_s=300)


def test_a_lost_cdu_is_one_fault_that_slows_all_it_cools() -> None:
    """Forty nodes grow hot of one cause; those on the other CDU do not."""
    site = hall_site(104)  # thirteen racks: eight on the first CDU, five on the second
    jobs = hall_jobs(site)[:12]
    storm = xid_storm(site, seed=3, start=START, nodes=0, cdu_id="cdu-1")
    plant = Plant(site, jobs, seed=1, start=START, load=SteadyLoad(jobs))
    for fault in storm:
        plant.inject(replace(fault, at=None))
    for _ in range(900):
        plant.step()
    slowed = plant.gpu_is_throttled | ~plant.gpu_is_lit
    hot = set(site.node_of_gpu[slowed].tolist())
    assert len(hot) >= 40
    assert {site.racks[site.rack_of_node[node]].cdu_id for node in hot} == {"cdu-1"}
    assert [fault.kind for fault in plant.faults] == [FaultKind.CDU_LOSS]


@pytest.mark.parametrize(
    "wrong", [{"nodes": 65}, {"nodes": 1, "cdu_id": "cdu-9"}, {"nodes": 1, "xids": (13,)}]
)
def test_a_storm_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    """Too many nodes, no such CDU, an XID of software."""
    with pytest.raises(InvalidRequestError):
        xid_storm(hall_site(64), seed=1, start=START, **wrong)  # type: ignore[arg-type]


def test_a_job_that_was_moved_goes_on_though_nobody_looks_after_lost_nodes() -> None:
    """Its restore takes its time, and then it runs; it does not wait for a queue or spares."""
    site = hall_site(65)
    jobs = hall_jobs(site)
    plant = Plant(site, jobs, seed=1, start=START, load=SteadyLoad(jobs))
    plant.move("pretrain-atlas-01", "node-001", "node-065")
    plant.step()
    assert plant.job_work[0] == 0.0
    for _ in range(150):
        plant.step()
    assert plant.job_work[0] > 0.9
