"""What users report of NVSentinel, shown by its twin on request; each without the fault, too."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from interlock_plant import Fault, FaultKind, JobClass, hall_jobs, hall_site, xid_storm
from interlock_servers.nvsentinel import twin_names as names
from interlock_servers.nvsentinel.twin import TwinFault
from interlock_servers.transports.kube.kinds import CONFIG_MAPS, NODES
from tests.servers.nvsentinel.twin_world import QUICK, START, World, fatal, healthy, world

XID_79 = Fault(FaultKind.GPU_LOST, "node-006/gpu-0", xid=79)


def _reboot(name: str, *, force: bool = False) -> dict[str, object]:
    return {"metadata": {"name": name}, "spec": {"nodeName": "node-006", "force": force}}


async def _has_come_back(there: World, node: str = "node-006") -> None:
    await there.until(lambda: there.twin.reboots_of(node))
    await there.until(lambda: there.plant.node_is_lit[there.plant.site.node_places[node]])
    await there.let(10)


@pytest.mark.parametrize("is_on", [False, True])
async def test_a_node_is_never_uncordoned_after_it_recovers(tmp_path: Path, is_on: bool) -> None:
    """Nothing is wrong any more, and it stays out with the annotation of its fault."""
    async with world(tmp_path) as there:
        if is_on:
            there.twin.inject(TwinFault.NEVER_UNCORDONED, "node-006")
        there.plant.inject(XID_79)
        await there.until(lambda: there.is_cordoned("node-006"))
        await _has_come_back(there)
        await there.let(60)
        assert not there.plant.xids
        assert there.is_cordoned("node-006") is is_on
        assert (names.EVENTS in there.notes("node-006")) is is_on


@pytest.mark.parametrize("is_on", [False, True])
async def test_a_fatal_check_without_an_action_is_cordoned_for_ever(
    tmp_path: Path, is_on: bool
) -> None:
    """No CR is made, and the state is a failure."""
    async with world(tmp_path) as there:
        if is_on:
            there.twin.inject(TwinFault.NO_ACTION, "node-006")
        there.plant.inject(XID_79)
        await there.until(lambda: there.is_cordoned("node-006"))
        await there.let(200)
        assert there.is_cordoned("node-006") is is_on
        assert there.twin.remediation.unsupported == int(is_on)
        state = there.labels("node-006").get(names.STATE)
        assert state == (names.REMEDIATION_FAILED if is_on else None)


@pytest.mark.parametrize("is_on", [False, True])
async def test_a_cancelled_drain_still_leads_to_a_reboot(tmp_path: Path, is_on: bool) -> None:
    """An uncordon by hand while pods are waited for."""
    async with world(tmp_path) as there:
        if is_on:
            there.twin.inject(TwinFault.CANCELLED_DRAIN_REBOOTS, "node-001")
        there.twin.report(fatal("node-001"))
        await there.until(lambda: there.labels("node-001").get(names.STATE) == names.DRAINING)
        await there.merge(NODES, "node-001", {"spec": {"unschedulable": None}})
        await there.let(5)
        there.plant.inject(Fault(FaultKind.HBM_ERROR, "node-001/gpu-1"))  # its pod ends
        await there.let(40)
        assert bool(there.twin.reboots_of("node-001")) is is_on


async def test_a_silent_provider_looks_in_progress_for_ever(tmp_path: Path) -> None:
    """The signal is sent, the node was never away, and no timeout comes."""
    async with world(tmp_path) as there:
        there.twin.inject(TwinFault.PROVIDER_SILENT, "node-006")
        await there.make(names.REBOOTS, _reboot("silent"))
        await there.let(3 * round(QUICK.give_up_s))
        cr = there.only(names.REBOOTS)
        assert there.told(cr) == {
            "SignalSent": ("True", "Succeeded"),
            "NodeReady": ("Unknown", "Initializing"),
        }
        assert "completionTime" not in cr["status"]
        assert there.plant.node_is_lit[5]


@pytest.mark.parametrize("is_on", [False, True])
async def test_force_does_not_reach_the_provider(tmp_path: Path, is_on: bool) -> None:
    """A node that hangs needs it."""
    async with world(tmp_path) as there:
        if is_on:
            there.twin.inject(TwinFault.FORCE_IGNORED)
        there.plant.inject(Fault(FaultKind.NODE_DOWN, "node-006"))
        await there.let(2)
        await there.make(names.REBOOTS, _reboot("forced", force=True))
        await there.until(lambda: "completionTime" in there.only(names.REBOOTS).get("status", {}))
        told = there.told(there.only(names.REBOOTS))["NodeReady"]
        assert told == (("False", "Failed") if is_on else ("True", "Succeeded"))
        assert there.plant.node_is_lit[5] != is_on


async def test_a_reboot_that_cures_nothing_is_followed_by_the_next(tmp_path: Path) -> None:
    """Without a cap, for as long as the fault lasts."""
    async with world(tmp_path) as there:
        there.twin.inject(TwinFault.REMEDIATION_LOOPS, "node-006")
        there.plant.inject(XID_79)
        await there.until(lambda: len(there.twin.reboots_of("node-006")) >= 4, within_s=600)
        assert len(there.twin.cluster.all(names.REBOOTS)) >= 4
        assert there.is_cordoned("node-006")


async def test_a_repeat_offender_comes_back_each_time_and_is_named(tmp_path: Path) -> None:
    """After three repairs in a day the analyzer says so; no rule acts on that."""
    async with world(tmp_path, timings=replace(QUICK, repeat_s=60.0)) as there:
        there.twin.inject(TwinFault.REPEAT_OFFENDER, "node-006")
        there.plant.inject(XID_79)
        await there.until(lambda: there.condition("node-006", "MultipleRemediations"), within_s=900)
        states = there.states["node-006"]
        assert states.count(names.REMEDIATED) == 3
        assert states.count(None) == 3  # at the start, and after two repairs


@pytest.mark.parametrize("is_on", [False, True])
async def test_a_node_that_comes_back_is_called_sick_while_dcgm_starts(
    tmp_path: Path, is_on: bool
) -> None:
    """A false positive: it passes by itself."""
    async with world(tmp_path) as there:
        if is_on:
            there.twin.inject(TwinFault.DCGM_AT_BOOTSTRAP, "node-006")
        await there.make(names.REBOOTS, _reboot("any"))
        await _has_come_back(there)
        assert there.is_cordoned("node-006") is is_on
        told = there.condition("node-006", "GpuDcgmConnectivityFailure")
        assert (told is not None and told["status"] == "True") is is_on
        await there.let(round(QUICK.bootstrap_s) + 10)
        assert not there.is_cordoned("node-006")


@pytest.mark.parametrize("is_on", [False, True])
async def test_a_reset_is_refused_in_persistence_mode(tmp_path: Path, is_on: bool) -> None:
    """The CR fails, and the node stays out."""
    async with world(tmp_path) as there:
        if is_on:
            there.twin.inject(TwinFault.RESET_REFUSED, "node-006")
        there.plant.inject(Fault(FaultKind.HBM_ERROR, "node-006/gpu-2", xid=48))
        await there.until(
            lambda: any("completionTime" in cr.get("status", {}) for cr in _resets(there))
        )
        (cr,) = _resets(there)
        assert cr["status"]["phase"] == ("Failed" if is_on else "Succeeded")
        if is_on:
            assert there.told(cr)["ResetJobCompleted"] == ("False", "ResetJobFailed")
        await there.let(20)
        assert there.is_cordoned("node-006") is is_on


async def test_a_gpu_off_the_bus_cannot_be_reset(tmp_path: Path) -> None:
    """Only a reboot brings it back, whatever somebody asks for."""
    async with world(tmp_path) as there:
        there.plant.inject(replace(XID_79, xid=79))
        body = {"metadata": {"name": "vain"}, "spec": {"nodeName": "node-006"}}
        await there.make(names.RESETS, body)
        await there.until(
            lambda: any("completionTime" in cr.get("status", {}) for cr in _resets(there))
        )
        assert _resets(there)[0]["status"]["phase"] == "Failed"


async def test_another_controller_puts_our_patch_back(tmp_path: Path) -> None:
    """Whoever uncordons by hand finds it undone some seconds later, by somebody with a name."""
    async with world(tmp_path) as there:
        await there.merge(NODES, "node-006", {"spec": {"unschedulable": True}})
        there.twin.inject(TwinFault.REVERTS, "node-006")
        await there.let(2)
        await there.merge(NODES, "node-006", {"spec": {"unschedulable": None}})
        await there.let(3)
        assert not there.is_cordoned("node-006")
        await there.let(10)
        assert there.is_cordoned("node-006")
        raw = await there.client.get(NODES, "node-006")
        (owner,) = (
            each["manager"]
            for each in raw["metadata"]["managedFields"]
            if "f:unschedulable" in each["fieldsV1"].get("f:spec", {})
        )
        assert owner == "cluster-autoscaler"
        there.twin.repair(TwinFault.REVERTS)
        await there.merge(NODES, "node-006", {"spec": {"unschedulable": None}})
        await there.let(20)
        assert not there.is_cordoned("node-006")


async def test_one_cause_heats_forty_nodes_and_the_breaker_stops_the_cordons(
    tmp_path: Path,
) -> None:
    """A lost CDU: every node it cools has the same condition; no reboot would help any."""
    site = hall_site(72)
    jobs = tuple(replace(job, job_class=JobClass.TRAIN, floor_work=None) for job in hall_jobs(site))
    storm = xid_storm(site, seed=1, start=START, nodes=0, cdu_id="cdu-1")
    async with world(tmp_path, nodes=72, jobs=jobs) as there:
        for fault in storm:
            there.plant.inject(replace(fault, at=None))
        await there.until(lambda: len(_hot(there)) >= 40, within_s=900)
        racks = {there.labels(node)["topology.kubernetes.io/rack"] for node in _hot(there)}
        cooled = {rack.rack_id for rack in site.racks if rack.cdu_id == "cdu-1"}
        assert racks <= cooled
        assert len(racks) >= 5
        await there.let(30)
        breaker = there.twin.cluster.mirrors[CONFIG_MAPS].get(names.BREAKER_MAP, names.SPACE)
        assert breaker is not None
        assert breaker["data"]["status"] == "TRIPPED"
        cordoned = [n for n in there.twin.cluster.all(NODES) if n["spec"].get("unschedulable")]
        assert len(cordoned) == 36  # half of the GPU nodes


async def test_a_storm_of_xids_is_many_faults_with_their_own_repairs(tmp_path: Path) -> None:
    """On a breaker that is not reached: reboots and resets by XID, and every node comes back."""
    site = hall_site(48)
    storm = xid_storm(site, seed=5, start=START, nodes=12, within_s=120, xids=(79, 48, 74, 95))
    async with world(tmp_path, nodes=48, jobs=()) as there:
        for fault in storm:
            there.plant.inject(replace(fault, at=None))
        struck = {fault.target_id.partition("/")[0] for fault in storm}
        await there.until(
            lambda: all(there.states.get(node, [None])[-1] is not None for node in struck)
        )
        kinds = [
            json.loads(there.notes(node)[names.EVENTS])[0]["errorCode"][0]
            for node in sorted(struck)
        ]
        assert sorted(kinds) == sorted(str(fault.xid) for fault in storm)
        await there.until(lambda: not any(there.is_cordoned(node) for node in struck), within_s=400)
        assert len(there.twin.cluster.all(names.REBOOTS)) == 3
        assert len(there.twin.cluster.all(names.RESETS)) == 9
        assert not there.plant.faults


async def test_healthy_events_of_one_gpu_leave_the_others_sick(tmp_path: Path) -> None:
    """Two GPUs of one node under one check: the condition and the annotation keep what is left."""
    async with world(tmp_path) as there:
        two = {n: (("GPU", str(n)), ("GPU_UUID", f"GPU-{n}")) for n in (1, 2)}
        for entities in two.values():
            there.twin.report(fatal("node-006", action="CONTACT_SUPPORT", entities=entities))
        await there.until(lambda: there.notes("node-006").get(names.EVENTS, "").count('"id"') == 2)
        there.twin.report(healthy("node-006", entities=two[1]))
        await there.until(lambda: there.notes("node-006").get(names.EVENTS, "").count('"id"') == 1)
        told = there.condition("node-006", "GpuMemWatch")
        assert told is not None
        assert told["status"] == "True"
        assert "GPU:1 " not in told["message"]
        assert there.is_cordoned("node-006")


def _resets(there: World) -> list[dict[str, dict[str, object]]]:
    return there.twin.cluster.all(names.RESETS)


def _hot(there: World) -> set[str]:
    return {
        node["metadata"]["name"]
        for node in there.twin.cluster.all(NODES)
        if any(
            (each["type"], each["status"]) == ("GpuThermalWatch", "True")
            for each in node["status"]["conditions"]
        )
    }
