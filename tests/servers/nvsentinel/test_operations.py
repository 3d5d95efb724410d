"""What is asked of NVSentinel, to its verified end; the real modules are played by the test."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from interlock_servers.nvsentinel import names
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import InvalidRequestError
from tests.servers.nvsentinel.rig import Rig, rig_on
from tests.servers.nvsentinel.world import (
    CONFIG,
    DEPLOYMENTS,
    GPU_A,
    GPU_B,
    PATHS,
    World,
    condition,
    health_event,
    stamp,
)

MINUTE = timedelta(minutes=1)
PAST_ANY_DEADLINE = timedelta(hours=3)
PLANNED = health_event("PlannedMaintenance", recommendedAction="NONE", entitiesImpacted=[])


@pytest.fixture
async def rig(world: World, tmp_path: Path) -> AsyncIterator[Rig]:
    """A whole installation with one healthy node, and a site over it."""
    await world.installation()
    await world.node("n-1")
    async with rig_on(world, tmp_path) as opened:
        yield opened


def name_of(change: Change) -> str:
    """What this change calls its request."""
    return f"interlock-{change.change_id}"


async def drained(world: World, node: str = "n-1") -> None:
    """Quarantined by NVSentinel, and empty."""
    await world.status(node, faults={"SysLogsXIDError": f"XID 79 GPU_UUID:{GPU_A}"})
    await world.quarantine(node, health_event(), stage="drain-succeeded")


async def test_a_maintenance_is_asked_for_held_and_ended(rig: Rig) -> None:
    """The sanctioned way: cordoned for our event, and given back by deleting the request."""
    change = await rig.begun("request_maintenance", node_id="n-1")
    made = await rig.world.get(f"{PATHS['MaintenanceRequest']}/{name_of(change)}")
    assert made["spec"]["healthEvent"]["recommendedAction"] == "NONE"
    assert made["spec"]["healthEvent"]["nodeName"] == "n-1"
    emitted = [condition(names.EMITTED, "True", "Emitted")]
    await rig.world.says("MaintenanceRequest", name_of(change), {"conditions": emitted})
    await rig.world.quarantine("n-1", PLANNED)
    ended = await rig.ended(change)
    assert ended.state is ChangeState.SUCCEEDED, ended.sentence()

    end = await rig.begun("end_maintenance", node_id="n-1", request_name=name_of(change))
    gone = await rig.world.http.get(f"{PATHS['MaintenanceRequest']}/{name_of(change)}")
    assert gone.status_code == 404
    assert await rig.still_verifying(end)
    await rig.world.give_back("n-1")
    assert (await rig.ended(end)).state is ChangeState.SUCCEEDED


async def test_a_maintenance_that_does_not_take_hold_is_taken_back(rig: Rig) -> None:
    """A request that nobody takes up must not cordon the node some day."""
    change = await rig.begun("request_maintenance", node_id="n-1")
    rig.clock.ahead += PAST_ANY_DEADLINE
    ended = await rig.ended(change)
    assert ended.state is ChangeState.COMPENSATED, ended.sentence()
    gone = await rig.world.http.get(f"{PATHS['MaintenanceRequest']}/{name_of(change)}")
    assert gone.status_code == 404


@pytest.mark.trap("NS-07")
async def test_a_maintenance_whose_reboot_has_not_succeeded_is_not_just_ended(rig: Rig) -> None:
    """Deleting it gives the node back, broken as it was."""
    spec = {"healthEvent": {"nodeName": "n-1", "recommendedAction": "RESTART_VM", "version": 1}}
    mine = {"annotations": {names.CHANGE: "chg-000000000001"}}
    name = "interlock-chg-000000000001"
    await rig.world.request("MaintenanceRequest", name, spec, **mine)
    with pytest.raises(InvalidRequestError, match=r"RESTART_VM.*has not succeeded"):
        await rig.propose("end_maintenance", node_id="n-1", request_name=name)
    done = {"completionTime": stamp(), "conditions": [condition("NodeReady", "True", "Succeeded")]}
    await rig.world.request("RebootNode", "r-1", {"nodeName": "n-1", "force": False}, done)
    change = await rig.propose("end_maintenance", node_id="n-1", request_name=name)
    assert change.state is ChangeState.AWAITING_APPROVAL


async def test_somebody_elses_maintenance_is_not_ended(rig: Rig) -> None:
    """Whoever asked for it may be at work there; a name like ours is not enough."""
    spec = {"healthEvent": {"nodeName": "n-1", "recommendedAction": "NONE", "version": 1}}
    await rig.world.request("MaintenanceRequest", "interlock-chg-000000000002", spec)
    with pytest.raises(InvalidRequestError, match="somebody else's"):
        await rig.propose(
            "end_maintenance", node_id="n-1", request_name="interlock-chg-000000000002"
        )


@pytest.mark.trap("NS-11")
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("request_maintenance", {}),
        ("validate_node", {}),
        ("cancel_quarantine", {}),
        ("reset_gpus", {"gpu_ids": [GPU_A]}),
        ("reboot_node", {}),
        ("terminate_node", {}),
    ],
)
async def test_somebody_elses_cordon_is_left_alone(
    rig: Rig, tool: str, arguments: dict[str, Any]
) -> None:
    """Without NVSentinel's own annotation a cordon is not NVSentinel's, whatever else is there."""
    note = {"nvsentinel.nvidia.com/quarantine": "true"}  # of upstream's page, in no code
    await rig.world.merge("/api/v1/nodes/n-1", {"metadata": {"annotations": note}})
    await rig.world.cordon("n-1")
    with pytest.raises(InvalidRequestError, match="cordoned by somebody else"):
        await rig.propose(tool, node_id="n-1", **arguments)


@pytest.mark.trap("NS-14")
@pytest.mark.parametrize("tool", ["request_maintenance", "reboot_node", "opt_out"])
async def test_a_lease_without_a_holder_and_without_an_end_is_held(rig: Rig, tool: str) -> None:
    """The janitor writes an owner and nothing else: there is a lock as long as the lease exists."""
    await rig.world.lease("n-1", "RebootNode", "maintenance-n-1")
    more: dict[str, Any] = {"expires_in_s": 3600.0} if tool == "opt_out" else {}
    with pytest.raises(InvalidRequestError, match=r"RebootNode/maintenance-n-1 holds"):
        await rig.propose(tool, node_id="n-1", **more)


@pytest.mark.trap("NS-37")
async def test_a_quarantine_is_not_cancelled_while_a_reboot_is_open(rig: Rig) -> None:
    """Cancelled, it would come back into service and be rebooted under its new work."""
    await drained(rig.world)
    await rig.world.request("RebootNode", "r-1", {"nodeName": "n-1", "force": False})
    with pytest.raises(InvalidRequestError, match="RebootNode r-1 is open"):
        await rig.propose("cancel_quarantine", node_id="n-1", despite_faults=["SysLogsXIDError"])


@pytest.mark.trap("NS-13")
async def test_whoever_cancels_a_quarantine_names_every_fault_that_shows(rig: Rig) -> None:
    """One uncordon cancels all active events, those too that nobody thought of."""
    faults = {"SysLogsXIDError": "XID 79", "GpuMemWatch": "DBE"}
    await rig.world.status("n-1", faults=faults)
    await rig.world.quarantine("n-1", health_event(), health_event("GpuMemWatch", id="e-2"))
    with pytest.raises(InvalidRequestError, match="GpuMemWatch, SysLogsXIDError"):
        await rig.propose("cancel_quarantine", node_id="n-1", despite_faults=["SysLogsXIDError"])
    change = await rig.begun("cancel_quarantine", node_id="n-1", despite_faults=sorted(faults))
    node = await rig.world.get("/api/v1/nodes/n-1")
    assert not node["spec"].get("unschedulable")
    assert await rig.still_verifying(change)
    await rig.world.give_back("n-1")
    assert (await rig.ended(change)).state is ChangeState.SUCCEEDED


async def test_an_event_that_comes_after_the_vote_voids_it(rig: Rig) -> None:
    """People agreed to cancel one event, and would cancel two."""
    await rig.world.quarantine("n-1", health_event())
    change = await rig.propose("cancel_quarantine", node_id="n-1")
    await rig.world.quarantine("n-1", health_event(), health_event("GpuMemWatch", id="e-2"))
    await rig.approve(change)
    assert (await rig.ended(change)).state is ChangeState.SUPERSEDED
    assert (await rig.world.get("/api/v1/nodes/n-1"))["spec"]["unschedulable"] is True


async def test_a_controller_that_cordons_again_makes_it_failed(rig: Rig) -> None:
    """The patch was taken, and that proves nothing."""
    await rig.world.quarantine("n-1", health_event())
    change = await rig.begun("cancel_quarantine", node_id="n-1")
    await rig.world.quarantine("n-1", health_event())
    rig.clock.ahead += PAST_ANY_DEADLINE
    ended = await rig.ended(change)
    assert ended.state is ChangeState.FAILED, ended.sentence()


@pytest.mark.trap("NS-12")
async def test_a_cordon_from_before_nvsentinel_is_not_lifted(rig: Rig) -> None:
    """Neither by cancelling nor by a validation that passes."""
    await rig.world.cordon("n-1")
    await rig.world.quarantine("n-1", health_event(), pre_existing=True)
    with pytest.raises(InvalidRequestError, match="before_nvsentinel"):
        await rig.propose("cancel_quarantine", node_id="n-1")
    with pytest.raises(InvalidRequestError, match="before NVSentinel"):
        await rig.propose("validate_node", node_id="n-1")


@pytest.mark.trap("NS-23")
async def test_an_opt_out_ends_by_itself(rig: Rig) -> None:
    """A node without protection is nobody's to remember: its end is part of the change."""
    change = await rig.begun("opt_out", node_id="n-1", expires_in_s=3600.0)
    assert (await rig.ended(change)).state is ChangeState.SUCCEEDED
    labels = (await rig.world.get("/api/v1/nodes/n-1"))["metadata"]["labels"]
    assert labels[names.NOT_QUARANTINED] == "false"
    rig.clock.ahead += PAST_ANY_DEADLINE
    expiry = (await rig.site.guard.latest(1))[0]
    assert expiry.operation == "nvsentinel.opt_in"
    assert (await rig.ended(expiry)).state is ChangeState.SUCCEEDED
    about = (await rig.world.get("/api/v1/nodes/n-1"))["metadata"]
    assert names.NOT_QUARANTINED not in about["labels"]
    assert names.CHANGE not in about.get("annotations", {})


async def test_a_label_that_a_controller_takes_away_is_no_opt_out(rig: Rig) -> None:
    """It is looked at again after a while, not in the moment of the patch."""
    change = await rig.begun("opt_out", node_id="n-1", expires_in_s=3600.0)
    gone = {"metadata": {"labels": {names.NOT_QUARANTINED: None}}}
    await rig.world.merge("/api/v1/nodes/n-1", gone)
    rig.clock.ahead += PAST_ANY_DEADLINE
    assert (await rig.ended(change)).state is ChangeState.COMPENSATED


@pytest.mark.trap("NS-24")
async def test_a_label_that_others_set_is_not_taken_away(rig: Rig) -> None:
    """People set it, and the janitor does while a repair outside lasts."""
    for label in (names.NOT_QUARANTINED, names.NOT_MANAGED):
        await rig.world.merge("/api/v1/nodes/n-1", {"metadata": {"labels": {label: "false"}}})
        with pytest.raises(InvalidRequestError, match="was not set by Interlock"):
            await rig.propose("opt_in", node_id="n-1")
        await rig.world.merge("/api/v1/nodes/n-1", {"metadata": {"labels": {label: None}}})


@pytest.mark.trap("NS-05")
async def test_a_reset_always_names_gpus_that_exist_there(rig: Rig) -> None:
    """An empty selector would reset every GPU of the node; a wrong one somebody else's."""
    await drained(rig.world)
    with pytest.raises(InvalidRequestError, match="gpu_ids"):
        await rig.propose("reset_gpus", node_id="n-1", gpu_ids=[])
    with pytest.raises(InvalidRequestError, match="gpu_ids"):
        await rig.propose("reset_gpus", node_id="n-1", gpu_ids=[""])
    with pytest.raises(InvalidRequestError, match=f"knows no {GPU_B}"):
        await rig.propose("reset_gpus", node_id="n-1", gpu_ids=[GPU_B])
    change = await rig.begun("reset_gpus", node_id="n-1", gpu_ids=[GPU_A])
    made = await rig.world.get(f"{PATHS['GPUReset']}/{name_of(change)}")
    assert made["spec"] == {"nodeName": "n-1", "selector": {"uuids": [GPU_A]}}
    assert change.blast_radius is not None
    assert change.blast_radius.gpus == 1


async def test_a_reset_is_done_once_the_node_no_longer_names_the_gpu(rig: Rig) -> None:
    """The reset's own success is not enough: the fault must be gone."""
    await drained(rig.world)
    change = await rig.begun("reset_gpus", node_id="n-1", gpu_ids=[GPU_A])
    done = {
        "phase": "Succeeded",
        "completionTime": stamp(),
        "conditions": [condition("Complete", "True", "Succeeded")],
    }
    await rig.world.says("GPUReset", name_of(change), done)
    assert await rig.still_verifying(change)
    await rig.world.status("n-1")
    assert (await rig.ended(change)).state is ChangeState.SUCCEEDED


@pytest.mark.trap("NS-32")
async def test_a_reset_that_the_driver_refuses_is_failed_at_once(rig: Rig) -> None:
    """Persistence mode refuses it, and no time makes it better."""
    await drained(rig.world)
    change = await rig.begun("reset_gpus", node_id="n-1", gpu_ids=[GPU_A])
    refused = {
        "phase": "Failed",
        "completionTime": stamp(),
        "conditions": [condition("Complete", "False", "ResetJobFailed")],
    }
    await rig.world.says("GPUReset", name_of(change), refused)
    assert (await rig.ended(change)).state is ChangeState.FAILED


@pytest.mark.trap("NS-31")
async def test_a_gpu_that_may_be_in_use_is_not_reset(rig: Rig) -> None:
    """NVSentinel drains only the pods of the GPU; one that does not say which it has counts."""
    await drained(rig.world)
    await rig.world.pod("n-1", "beside", devices=(GPU_B,))
    change = await rig.propose("reset_gpus", node_id="n-1", gpu_ids=[GPU_A])
    assert change.state is ChangeState.AWAITING_APPROVAL
    await rig.world.pod("n-1", "silent")
    with pytest.raises(InvalidRequestError, match="in use by team-a/silent"):
        await rig.propose("reset_gpus", node_id="n-1", gpu_ids=[GPU_A])
    await rig.world.end_pod("silent")
    await rig.world.pod("n-1", "on-it", devices=(GPU_A,))
    with pytest.raises(InvalidRequestError, match="in use by team-a/on-it"):
        await rig.propose("reset_gpus", node_id="n-1", gpu_ids=[GPU_A])


async def test_work_that_comes_after_the_vote_stops_a_reset(rig: Rig) -> None:
    """The drain is proven in the moment of the act."""
    await drained(rig.world)
    change = await rig.propose("reset_gpus", node_id="n-1", gpu_ids=[GPU_A])
    await rig.world.pod("n-1", "late", devices=(GPU_A,))
    await rig.approve(change)
    assert (await rig.ended(change)).state in {ChangeState.REFUSED, ChangeState.SUPERSEDED}
    gone = await rig.world.http.get(f"{PATHS['GPUReset']}/{name_of(change)}")
    assert gone.status_code == 404


@pytest.mark.trap("NS-21")
async def test_a_reboot_goes_by_maintenance_and_is_done_when_the_kubelet_says_so(rig: Rig) -> None:
    """It may take an hour, so that nothing but the boot id, ready, and no fault is its end."""
    await rig.world.pod("n-1", "train-0")
    change = await rig.begun("reboot_node", node_id="n-1")
    made = await rig.world.get(f"{PATHS['MaintenanceRequest']}/{name_of(change)}")
    assert made["spec"]["healthEvent"]["recommendedAction"] == "RESTART_VM"
    assert change.blast_radius is not None
    assert change.blast_radius.jobs == {"team-a/Job/train"}
    assert change.blast_radius.tenants == {"team-a"}
    rig.clock.ahead += 45 * MINUTE
    await rig.world.status("n-1", boot_id="boot-1")  # ready, and never rebooted
    assert await rig.still_verifying(change)
    await rig.world.status("n-1", boot_id="boot-2")
    assert (await rig.ended(change)).state is ChangeState.SUCCEEDED


async def test_a_termination_needs_an_empty_node_and_two_leads(rig: Rig) -> None:
    """It is for ever."""
    await drained(rig.world)
    await rig.world.pod("n-1", "train-0")
    with pytest.raises(InvalidRequestError, match="1 pods of users: team-a/train-0"):
        await rig.propose("terminate_node", node_id="n-1")
    await rig.world.end_pod("train-0")
    await rig.world.pod("n-1", "exporter", owner=("DaemonSet", "dcgm"), gpus=0)
    await rig.world.pod("n-1", "driver", namespace="gpu-operator")
    change = await rig.propose("terminate_node", node_id="n-1")
    assert change.decision is not None
    assert change.decision.quorum is not None
    assert (change.decision.quorum.role, change.decision.quorum.people) == ("site_lead", 2)
    await rig.approve(change)
    await rig.until(change, lambda row: row.evidence)
    await rig.world.delete("/api/v1/nodes/n-1")
    assert (await rig.ended(change)).state is ChangeState.SUCCEEDED


@pytest.mark.trap("NS-26")
async def test_a_validation_takes_an_empty_node(rig: Rig) -> None:
    """It occupies the GPUs, and a pass lifts the cordon."""
    await rig.world.quarantine("n-1", health_event())
    await rig.world.pod("n-1", "train-0")
    with pytest.raises(InvalidRequestError, match="pods of users"):
        await rig.propose("validate_node", node_id="n-1")
    await rig.world.end_pod("train-0")
    change = await rig.begun("validate_node", node_id="n-1")
    await rig.world.says("ValidationRequest", name_of(change), {"phase": "Succeeded"})
    assert (await rig.ended(change)).state is ChangeState.SUCCEEDED


@pytest.mark.trap("NS-27")
async def test_a_node_that_a_validation_skipped_is_not_valid(rig: Rig) -> None:
    """Its phase is Succeeded all the same."""
    await rig.world.quarantine("n-1", health_event())
    change = await rig.begun("validate_node", node_id="n-1")
    skipped = {"phase": "Succeeded", "skipped": {"nodes": ["n-1"]}}
    await rig.world.says("ValidationRequest", name_of(change), skipped)
    assert (await rig.ended(change)).state is ChangeState.FAILED


@pytest.mark.trap("NS-25")
async def test_a_repair_outside_is_closed_only_once_the_node_was_released(rig: Rig) -> None:
    """Closing it early would take the node back before anybody had it."""
    spec = {"healthEvent": {"nodeName": "n-1", "version": 1}}
    waiting = {"conditions": [condition(names.RELEASED, "Unknown", "Initializing")]}
    await rig.world.request("ExternalRemediationRequest", "repair-1", spec, waiting)
    with pytest.raises(InvalidRequestError, match="has not released"):
        await rig.propose("close_external_repair", node_id="n-1", request_name="repair-1")
    released = [
        condition(names.RELEASED, "True", "Released"),
        condition(names.REPAIRED, "Unknown", "AwaitingExternalSystem"),
    ]
    await rig.world.says("ExternalRemediationRequest", "repair-1", {"conditions": released})
    taint = {"key": names.RELEASE_TAINT, "value": "repair-1", "effect": "NoSchedule"}
    marked = {
        "metadata": {"labels": {names.NOT_MANAGED: "false"}},
        "spec": {"taints": [taint]},
    }
    await rig.world.merge("/api/v1/nodes/n-1", marked)
    change = await rig.begun("close_external_repair", node_id="n-1", request_name="repair-1")
    said = (await rig.world.get(f"{PATHS['ExternalRemediationRequest']}/repair-1"))["status"]
    status = {one["type"]: one["status"] for one in said["conditions"]}
    assert status == {names.RELEASED: "True", names.REPAIRED: "True"}
    back = {"metadata": {"labels": {names.NOT_MANAGED: None}}, "spec": {"taints": None}}
    await rig.world.merge("/api/v1/nodes/n-1", back)
    assert (await rig.ended(change)).state is ChangeState.SUCCEEDED


async def trip(rig: Rig) -> None:
    """The breaker of this installation has tripped."""
    await rig.world.merge(f"{CONFIG}/{names.BREAKER}", {"data": {"status": "TRIPPED"}})


@pytest.mark.trap("NS-22")
async def test_the_breaker_is_reset_by_two_steps_and_done_when_the_second_is_rolled_out(
    rig: Rig,
) -> None:
    """fault-quarantine reads the ConfigMap only when it starts."""
    await rig.world.status("n-1", faults={"GpuMemWatch": "DBE"})
    await trip(rig)
    change = await rig.begun("reset_breaker", skip_backlog=False)
    assert change.blast_radius is not None
    assert change.blast_radius.hosts == {"n-1"}
    data = (await rig.world.get(f"{CONFIG}/{names.BREAKER}"))["data"]
    assert data == {"status": "CLOSED", "cursor": "RESUME"}
    assert await rig.still_verifying(change)
    await rig.world.roll_out(names.QUARANTINER)
    assert (await rig.ended(change)).state is ChangeState.SUCCEEDED


async def test_a_breaker_that_trips_again_is_not_reset(rig: Rig) -> None:
    """What tripped it goes on."""
    await trip(rig)
    change = await rig.begun("reset_breaker", skip_backlog=True)
    await trip(rig)
    await rig.world.roll_out(names.QUARANTINER)
    rig.clock.ahead += PAST_ANY_DEADLINE
    assert (await rig.ended(change)).state is ChangeState.FAILED


@pytest.mark.trap("NS-08")
async def test_a_tripped_that_is_of_an_earlier_time_is_not_reset(rig: Rig) -> None:
    """Where the breaker is switched off, the ConfigMap is only what it once said."""
    await trip(rig)
    await rig.world.delete(f"{DEPLOYMENTS}/{names.QUARANTINER}")
    await rig.world.module(names.QUARANTINER, "--circuit-breaker-enabled=false")
    with pytest.raises(InvalidRequestError, match="nothing to reset: it is switched off"):
        await rig.propose("reset_breaker", skip_backlog=False)


@pytest.mark.trap("NS-09")
async def test_while_the_breaker_is_tripped_nothing_is_taken_out_or_given_back(rig: Rig) -> None:
    """Healthy events are not read either: the request would hang."""
    await trip(rig)
    with pytest.raises(InvalidRequestError, match="breaker is tripped"):
        await rig.propose("request_maintenance", node_id="n-1")


@pytest.mark.trap("NS-10")
async def test_nothing_is_asked_of_an_installation_that_runs_dry(
    world: World, tmp_path: Path
) -> None:
    """It would write its annotations, and cordon nothing."""
    await world.installation(dry_run=True)
    await world.node("n-1")
    async with rig_on(world, tmp_path) as rig:
        with pytest.raises(InvalidRequestError, match="runs dry"):
            await rig.propose("request_maintenance", node_id="n-1")


@pytest.mark.trap("NS-01")
async def test_nothing_is_asked_of_an_installation_that_only_watches(
    world: World, tmp_path: Path
) -> None:
    """The kinds may be served, and nobody there who carries them out."""
    await world.module("labeler")
    await world.node("n-1")
    async with rig_on(world, tmp_path) as rig:
        with pytest.raises(InvalidRequestError, match="no lifecycle-manager that runs here"):
            await rig.propose("request_maintenance", node_id="n-1")
        status = await rig.call("nvsentinel", "sentinel_status")
        assert status["mode"] == "monitoring_only"
