"""NVSentinel's twin, on our API server and on a real one: a fault, seen from every side."""

import json
from dataclasses import replace
from pathlib import Path

from interlock_plant import Fault, FaultKind
from interlock_servers.nvsentinel import twin_names as names
from interlock_servers.nvsentinel.twin_drainer import Mode
from interlock_servers.nvsentinel.twin_objects import JOB, gpu_uuid
from interlock_servers.transports.kube.kinds import DEPLOYMENTS, EVENTS, LEASES, NODES, PODS
from tests.servers.nvsentinel.twin_world import QUICK, World, both, embedded, fatal, healthy, world

SESSION = [
    None,
    names.QUARANTINED,
    names.DRAINING,
    names.DRAINED,
    names.REMEDIATING,
    names.REMEDIATED,
]


@embedded
async def test_the_plant_is_there_as_nodes_pods_and_budgets(tmp_path: Path, which: str) -> None:
    """Jobs are pods of their tenant, on the nodes whose GPUs they hold."""
    async with world(tmp_path, which) as there:
        node = there.node("node-001")
        assert node["metadata"]["labels"]["nvidia.com/gpu.count"] == "8"
        assert node["metadata"]["labels"]["topology.kubernetes.io/rack"] == "rack-01"
        assert node["status"]["capacity"]["nvidia.com/gpu"] == "8"
        assert there.condition("node-001", "Ready")["status"] == "True"  # type: ignore[index]
        pods = await there.client.all(PODS)
        assert sorted(pod["metadata"]["name"] for pod in pods) == [
            "chat-0",
            "chat-1",
            "pretrain-0",
            "pretrain-1",
            "rank-0",
        ]
        (pod,) = there.twin.cluster.pods_on("node-001")
        assert pod["metadata"]["namespace"] == "aurora"
        assert pod["metadata"]["ownerReferences"][0]["kind"] == "Job"
        assert (
            len(json.loads(pod["metadata"]["annotations"][names.DEVICES])["devices"][names.GPU])
            == 8
        )


@both
async def test_one_xid_is_seen_from_every_side_and_its_node_comes_back(
    tmp_path: Path, which: str
) -> None:
    """Driver, condition, label, pods, CR, lease and job are one fault."""
    async with world(tmp_path, which) as there:
        plant, twin = there.plant, there.twin
        assert plant.job_work[0] > 0.9
        plant.inject(Fault(FaultKind.GPU_LOST, "node-001/gpu-3", xid=79))
        await there.until(lambda: there.is_cordoned("node-001"))
        uuid = gpu_uuid(plant.site, 3)
        shown = there.condition("node-001", "SysLogsXIDError")
        assert shown is not None
        assert (shown["status"], shown["reason"]) == ("True", "SysLogsXIDErrorIsNotHealthy")
        assert shown["message"].startswith(f"ErrorCode:79 GPU:3 PCI:0000:30:00.0 GPU_UUID:{uuid} ")
        assert shown["message"].endswith("Recommended Action=RESTART_BM;")
        (event,) = json.loads(there.notes("node-001")[names.EVENTS])
        assert event["recommendedAction"] == 24
        assert "isHealthy" not in event
        assert there.notes("node-001")[names.IS_CORDONED] == "True"
        assert there.labels("node-001")[f"{names.PREFIX}cordon-by"] == "NVSentinel"
        assert there.labels("node-001")[f"{names.PREFIX}cordon-timestamp"] == "2026-11-25T00-00-05Z"
        assert plant.job_work[0] == 0.0  # the gang stands

        await there.until(lambda: twin.cluster.all(names.REBOOTS))
        cr = there.only(names.REBOOTS)
        assert cr["metadata"]["name"] == f"maintenance-node-001-{event['id']}"
        assert cr["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "nvsentinel"
        assert cr["spec"] == {"nodeName": "node-001", "force": False}
        await there.until(lambda: twin.cluster.all(LEASES))
        lease = there.only(LEASES)
        assert lease["metadata"]["name"] == "node-001"
        assert lease["metadata"]["ownerReferences"][0]["name"] == cr["metadata"]["name"]
        assert not lease["spec"].get("holderIdentity")
        group = json.loads(there.notes("node-001")[names.REMEDIATION_STATE])["equivalenceGroups"]
        assert group["restart"]["maintenanceCR"] == cr["metadata"]["name"]

        await there.until(lambda: not plant.node_is_lit[0])
        await there.step()
        assert there.condition("node-001", "Ready")["status"] == "Unknown"  # type: ignore[index]
        assert there.labels("node-001")[names.STATE] == names.REMEDIATED  # though it is dark
        took_s = await there.until(
            lambda: there.told(there.only(names.REBOOTS))["NodeReady"][0] == "True"
        )
        assert 50 <= took_s <= 65
        assert there.told(there.only(names.REBOOTS)) == {
            "SignalSent": ("True", "Succeeded"),
            "NodeReady": ("True", "Succeeded"),
        }
        await there.until(lambda: not there.is_cordoned("node-001"))
        assert there.states["node-001"] == [*SESSION, None]
        shown = there.condition("node-001", "SysLogsXIDError")
        assert shown is not None
        assert (shown["status"], shown["message"]) == ("False", "No Health Failures")
        assert shown["reason"] == "SysLogsXIDErrorIsHealthy"
        assert not set(there.notes("node-001")) & set(names.QUARANTINE)
        assert there.labels("node-001")[f"{names.PREFIX}uncordon-by"] == "NVSentinel"
        await there.until(lambda: not twin.cluster.all(LEASES))
        await there.until(lambda: plant.job_work[0] > 0.9)


@both
async def test_work_moves_to_a_free_node_while_its_own_is_away(tmp_path: Path, which: str) -> None:
    """The plant's job goes where the scheduler puts its pod."""
    async with world(tmp_path, which, timings=replace(QUICK, reboot_s=300.0)) as there:
        there.plant.inject(Fault(FaultKind.GPU_LOST, "node-001/gpu-0", xid=79))
        await there.until(lambda: there.twin.cluster.pods_on("node-006"))
        (pod,) = there.twin.cluster.pods_on("node-006")
        assert pod["metadata"]["labels"][JOB] == "pretrain"
        held = {there.plant.site.node_of_gpu[gpu] for gpu in there.plant.jobs[0].gpu_indices}
        assert held == {1, 5}
        await there.until(lambda: there.plant.job_work[0] > 0.9)
        assert there.is_cordoned("node-001")


@both
async def test_a_memory_error_resets_one_gpu_and_drains_no_other(
    tmp_path: Path, which: str
) -> None:
    """With a pod a GPU, only the pod on the sick one goes; the CR names its UUID."""
    async with world(tmp_path, which, gpus_per_pod=1) as there:
        assert len(there.twin.cluster.pods_on("node-003")) == 8
        there.plant.inject(Fault(FaultKind.HBM_ERROR, "node-003/gpu-5", xid=48))
        await there.until(lambda: there.twin.cluster.all(names.RESETS))
        cr = there.only(names.RESETS)
        assert cr["spec"]["selector"] == {"uuids": [gpu_uuid(there.plant.site, 21)]}
        await there.until(lambda: "completionTime" in there.only(names.RESETS).get("status", {}))
        done = there.only(names.RESETS)
        assert done["status"]["phase"] == "Succeeded"
        assert [kind for kind, (status, _) in there.told(done).items() if status == "True"] == [
            "Ready",
            "ServicesTornDown",
            "ResetJobCreated",
            "ResetJobCompleted",
            "ServicesRestored",
            "Complete",
        ]
        assert done["status"]["jobRef"]["kind"] == "Job"
        await there.until(lambda: not there.is_cordoned("node-003"))
        await there.until(lambda: len(_running(there, "node-003")) == 8)
        names_there = {pod["metadata"]["name"] for pod in _running(there, "node-003")}
        assert len(names_there & {f"chat-{n}" for n in range(8)}) == 7  # they never went


@embedded
async def test_an_empty_selector_resets_every_gpu_and_kills_all_on_the_node(
    tmp_path: Path, which: str
) -> None:
    """The trap of the empty selector is real here."""
    async with world(tmp_path, which, gpus_per_pod=1) as there:
        body = {"metadata": {"name": "all"}, "spec": {"nodeName": "node-003", "selector": {}}}
        await there.make(names.RESETS, body)
        await there.until(lambda: not _running(there, "node-003"))
        await there.until(lambda: there.only(names.RESETS)["status"]["phase"] == "Succeeded")


@embedded
async def test_what_is_not_fatal_is_an_event_and_no_more(tmp_path: Path, which: str) -> None:
    """A contained memory error leaves no condition and no cordon."""
    async with world(tmp_path, which) as there:
        there.plant.inject(Fault(FaultKind.HBM_ERROR, "node-003/gpu-5", xid=94))
        await there.let(6)
        (event,) = await there.client.all(EVENTS, namespace="default")
        assert event["type"] == "SysLogsXIDError"
        assert event["source"]["component"] == "syslog-health-monitor"
        assert event["involvedObject"]["name"] == "node-003"
        assert there.condition("node-003", "SysLogsXIDError") is None
        assert not there.is_cordoned("node-003")


@both
async def test_a_budget_holds_a_drain_as_long_as_it_likes(tmp_path: Path, which: str) -> None:
    """A serving job of one pod cannot be evicted: the drain neither ends nor fails."""
    async with world(tmp_path, which, modes=(("*", Mode.IMMEDIATE),)) as there:
        there.twin.report(fatal("node-005"))
        await there.let(100)
        assert there.labels("node-005")[names.STATE] == names.DRAINING
        assert there.twin.drainer.refused > 5
        assert len(_running(there, "node-005")) == 1
        assert not there.twin.cluster.all(names.REBOOTS)


@embedded
async def test_evictions_take_the_time_that_pods_have_to_end(tmp_path: Path, which: str) -> None:
    """Thirty seconds of grace, then the node is drained and the pod is elsewhere."""
    async with world(tmp_path, which, modes=(("*", Mode.IMMEDIATE),)) as there:
        there.twin.report(fatal("node-003"))
        await there.until(lambda: names.DRAINING in there.states["node-003"])
        took_s = await there.until(lambda: names.DRAINED in there.states["node-003"])
        assert 30 <= took_s <= 40
        await there.until(lambda: len(_running(there, "node-006")) == 1)


@embedded
async def test_a_drain_that_allows_completion_waits_without_end(tmp_path: Path, which: str) -> None:
    """And says so, once, in an event of its own type."""
    async with world(tmp_path, which) as there:
        there.twin.report(fatal("node-001"))
        await there.let(400)
        assert there.labels("node-001")[names.STATE] == names.DRAINING
        said = [
            event
            for event in await there.client.all(EVENTS, namespace="default")
            if event["type"] == "NodeDraining"
        ]
        assert [event["reason"] for event in said] == ["AwaitingPodCompletion"]
        assert "aurora/pretrain-0" in said[0]["message"]


@both
async def test_a_drain_with_a_timeout_deletes_in_the_end(tmp_path: Path, which: str) -> None:
    """`DeleteAfterTimeout` asks no budget."""
    modes = (("cirrus", Mode.DELETE_AFTER_TIMEOUT),)
    async with world(tmp_path, which, modes=modes) as there:
        there.twin.report(fatal("node-005"))
        took_s = await there.until(lambda: names.DRAINED in there.states["node-005"], within_s=3700)
        assert 3600 <= took_s <= 3620


@embedded
async def test_a_node_that_was_cordoned_before_stays_so(tmp_path: Path, which: str) -> None:
    """What somebody else cordoned is not given back by NVSentinel."""
    async with world(tmp_path, which) as there:
        await there.merge(NODES, "node-006", {"spec": {"unschedulable": True}})
        there.twin.report(fatal("node-006"))
        await there.until(lambda: names.EVENTS in there.notes("node-006"))
        assert there.notes("node-006")[names.PRE_EXISTING] == "True"
        there.twin.report(healthy("node-006"))
        await there.until(lambda: names.EVENTS not in there.notes("node-006"))
        assert there.is_cordoned("node-006")


@embedded
async def test_a_second_fault_keeps_the_node_until_both_are_well(
    tmp_path: Path, which: str
) -> None:
    """The annotation holds every event that keeps it."""
    async with world(tmp_path, which) as there:
        there.twin.report(fatal("node-006", action="CONTACT_SUPPORT"))
        there.twin.report(fatal("node-006", "GpuNvlinkWatch", action="CONTACT_SUPPORT"))
        await there.until(lambda: there.notes("node-006").get(names.EVENTS, "").count('"id"') == 2)
        there.twin.report(healthy("node-006"))
        await there.until(lambda: there.notes("node-006").get(names.EVENTS, "").count('"id"') == 1)
        assert there.is_cordoned("node-006")
        assert there.labels("node-006")[names.STATE] == names.REMEDIATION_FAILED
        there.twin.report(healthy("node-006", "GpuNvlinkWatch"))
        await there.until(lambda: not there.is_cordoned("node-006"))


@embedded
async def test_a_node_that_opted_out_is_left_alone(tmp_path: Path, which: str) -> None:
    """The label of people is heeded by the rules."""
    async with world(tmp_path, which) as there:
        await there.merge(NODES, "node-006", {"metadata": {"labels": {names.MANAGED: "false"}}})
        there.twin.report(fatal("node-006"))
        await there.let(10)
        assert there.condition("node-006", "GpuMemWatch")["status"] == "True"  # type: ignore[index]
        assert not there.is_cordoned("node-006")


@embedded
async def test_monitoring_only_writes_conditions_and_has_no_modules(
    tmp_path: Path, which: str
) -> None:
    """The default install cordons nothing."""
    async with world(tmp_path, which, remediation=False) as there:
        there.twin.report(fatal("node-006"))
        await there.let(10)
        assert there.condition("node-006", "GpuMemWatch")["status"] == "True"  # type: ignore[index]
        assert not there.is_cordoned("node-006")
        assert "fault-quarantine" not in {
            each["metadata"]["name"] for each in there.twin.cluster.all(DEPLOYMENTS)
        }


def _running(there: World, node: str) -> list[dict[str, dict[str, str]]]:
    return [
        pod
        for pod in there.twin.cluster.pods_on(node)
        if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]
