"""For each operation a cluster on which it would go its way, and what the real modules then do."""

from collections.abc import Awaitable, Callable
from typing import Any

from interlock_servers.nvsentinel import names
from tests.servers.nvsentinel.world import CONFIG, GPU_A, World, condition, health_event, stamp

PLANNED = health_event("PlannedMaintenance", recommendedAction="NONE", entitiesImpacted=[])
OURS = "interlock-chg-000000000001"
NOTE = {names.CHANGE: "chg-000000000001"}
NODE = {"node_id": "n-1"}
XID = "SysLogsXIDError"
EXAMPLES: dict[str, dict[str, Any]] = {
    "request_maintenance": NODE,
    "end_maintenance": {**NODE, "request_name": OURS},
    "validate_node": NODE,
    "cancel_quarantine": {**NODE, "despite_faults": [XID]},
    "opt_out": {**NODE, "expires_in_s": 86_400.0},
    "opt_in": NODE,
    "close_external_repair": {**NODE, "request_name": "repair-1"},
    "reset_gpus": {**NODE, "gpu_ids": [GPU_A]},
    "reboot_node": NODE,
    "terminate_node": NODE,
    "reset_breaker": {"skip_backlog": False},
}


async def drained(world: World) -> None:
    """Quarantined by NVSentinel, and empty."""
    await world.status("n-1", faults={XID: f"XID 79 GPU_UUID:{GPU_A}"})
    await world.quarantine("n-1", health_event(), stage="drain-succeeded")


async def in_maintenance(world: World) -> None:
    """Taken out by a request of ours."""
    spec = {"healthEvent": {"nodeName": "n-1", "recommendedAction": "NONE", "version": 1}}
    said = {"conditions": [condition(names.EMITTED, "True", "Emitted")]}
    await world.request("MaintenanceRequest", OURS, spec, said, annotations=NOTE)
    await world.quarantine("n-1", PLANNED)


async def opted_out(world: World) -> None:
    """By a change of ours."""
    about = {"labels": {names.NOT_QUARANTINED: "false"}, "annotations": NOTE}
    await world.merge("/api/v1/nodes/n-1", {"metadata": about})


async def released(world: World) -> None:
    """Handed over to a repair outside."""
    said = [
        condition(names.RELEASED, "True", "Released"),
        condition(names.REPAIRED, "Unknown", "AwaitingExternalSystem"),
    ]
    spec = {"healthEvent": {"nodeName": "n-1", "version": 1}}
    kind = "ExternalRemediationRequest"
    await world.request(kind, "repair-1", spec, {"conditions": said})
    taint = {"key": names.RELEASE_TAINT, "value": "repair-1", "effect": "NoSchedule"}
    about = {"labels": {names.NOT_MANAGED: "false"}}
    await world.merge("/api/v1/nodes/n-1", {"metadata": about, "spec": {"taints": [taint]}})


async def tripped(world: World) -> None:
    """The breaker has tripped, with a fault behind it."""
    await world.status("n-1", faults={"GpuMemWatch": "DBE"})
    await world.merge(f"{CONFIG}/{names.BREAKER}", {"data": {"status": "TRIPPED"}})


async def nothing(world: World) -> None:
    """A healthy node, and no more."""
    del world


SCENES: dict[str, Callable[[World], Awaitable[None]]] = {
    "request_maintenance": nothing,
    "end_maintenance": in_maintenance,
    "validate_node": drained,
    "cancel_quarantine": drained,
    "opt_out": nothing,
    "opt_in": opted_out,
    "close_external_repair": released,
    "reset_gpus": drained,
    "reboot_node": nothing,
    "terminate_node": drained,
    "reset_breaker": tripped,
}


async def set_up(world: World, tool: str) -> None:
    """The whole installation, one node, and the scene of this operation."""
    await world.installation()
    await world.node("n-1")
    await SCENES[tool](world)


async def play(world: World, tool: str, request: str) -> None:
    """What the real modules do once it was asked for; `request` is the name of what we made."""
    match tool:
        case "request_maintenance":
            said = {"conditions": [condition(names.EMITTED, "True", "Emitted")]}
            await world.says("MaintenanceRequest", request, said)
            await world.quarantine("n-1", PLANNED)
        case "end_maintenance" | "cancel_quarantine":
            await world.give_back("n-1")
        case "validate_node":
            await world.says("ValidationRequest", request, {"phase": "Succeeded"})
            await world.status("n-1")
        case "close_external_repair":
            about = {"labels": {names.NOT_MANAGED: None}}
            await world.merge("/api/v1/nodes/n-1", {"metadata": about, "spec": {"taints": None}})
        case "reset_gpus":
            await world.says("GPUReset", request, ended("Complete", phase="Succeeded"))
            await world.status("n-1")
        case "reboot_node":
            await world.status("n-1", boot_id="boot-2")
        case "terminate_node":
            await world.says("TerminateNode", request, ended("NodeTerminated"))
            await world.delete("/api/v1/nodes/n-1")
        case "reset_breaker":
            await world.roll_out(names.QUARANTINER)


def ended(
    kind: str, status: str = "True", reason: str = "Succeeded", **more: str
) -> dict[str, Any]:
    """The status of a janitor's request that has come to its end."""
    return {"completionTime": stamp(), "conditions": [condition(kind, status, reason)], **more}
