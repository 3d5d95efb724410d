"""lifecycle-manager: ValidationRequest, and MaintenanceRequest where it is switched on.

A maintenance is an event like any other: made, it cordons and drains; deleted, it is over, and the
node is uncordoned even if nothing was finished.
Source: the official tutorial of v1.25 to v1.28 for MaintenanceRequest.
"""

from datetime import datetime
from typing import Final

from interlock_plant.faults import GPU_KINDS
from interlock_servers.nvsentinel import twin_names as names
from interlock_servers.nvsentinel.twin_cluster import Cluster, Json
from interlock_servers.nvsentinel.twin_connector import PlatformConnector
from interlock_servers.nvsentinel.twin_events import HealthEvent
from interlock_servers.nvsentinel.twin_janitor import NodeLock
from interlock_servers.nvsentinel.twin_raw import condition, new_condition, note, unnote
from interlock_servers.nvsentinel.twin_timings import Timings
from interlock_servers.transports.kube.kinds import JOBS, NODES

BY: Final = "lifecycle-manager"
TEST: Final = "dcgm-diag-test"
EMITTED: Final = "HealthEventEmitted"
_ACTIONS: Final = {number: name for name, number in names.ACTIONS.items()}


class Maintenances:
    """Turns MaintenanceRequests into health events."""

    def __init__(
        self, cluster: Cluster, connector: PlatformConnector, lock: NodeLock, timings: Timings
    ) -> None:
        self._cluster, self._connector, self._lock = cluster, connector, lock
        self._timings = timings

    async def reconcile(self) -> None:
        """Take every request one step further."""
        await self._cluster.each(self._cluster.all(names.MAINTENANCES), self._step, by=BY)

    async def _step(self, raw: Json) -> None:
        about, uid = raw["metadata"], raw["metadata"]["uid"]
        finalizers = about.get("finalizers") or []
        emitted = condition((raw.get("status") or {}).get("conditions"), EMITTED)
        is_emitted = emitted is not None and emitted["status"] == "True"
        if "deletionTimestamp" in about:
            await self._finalizers(raw, [f for f in finalizers if f != names.MAINTENANCE_FINALIZER])
            if is_emitted and names.MAINTENANCE_FINALIZER in finalizers:
                self._connector.take(self._event(raw, is_healthy=True))
            return
        if names.MAINTENANCE_FINALIZER not in finalizers:
            await self._finalizers(raw, [*finalizers, names.MAINTENANCE_FINALIZER])
            return
        if is_emitted:
            return
        node = raw["spec"]["healthEvent"]["nodeName"]
        if self._lock.owner(node) is not None:
            if emitted is None or self._cluster.passed(self._timings.emit_again_s, "emit", uid):
                self._cluster.forget("emit", uid)
                await self._say(raw, False, "Blocked", f"the lease of {node} is held")
            return
        if emitted is not None and not self._cluster.passed(
            self._timings.emit_again_s, "emit", uid
        ):
            return
        if self._cluster.node(node) is None:
            await self._say(raw, False, "EmitFailed", f"there is no node {node}")
            return
        await self._say(raw, True, "Emitted", "the health event was accepted")
        self._connector.take(self._event(raw, is_healthy=False))

    def _event(self, raw: Json, *, is_healthy: bool) -> HealthEvent:
        told = raw["spec"]["healthEvent"]
        action = told.get("recommendedAction", "NONE")
        return HealthEvent(
            agent=BY,
            component=str(told.get("componentClass", "Node")),
            check=str(told["checkName"]),
            node=str(told["nodeName"]),
            is_fatal=bool(told.get("isFatal")) and not is_healthy,
            is_healthy=is_healthy,
            action="NONE" if is_healthy else str(_ACTIONS.get(action, action)),
            message=str(told.get("message", "")),
            metadata={**told.get("metadata", {}), names.REQUESTER: str(told.get("agent", ""))},
            custom_action=str(told.get("customRecommendedAction", "")),
        )

    async def _finalizers(self, raw: Json, wanted: list[str]) -> None:
        await self._cluster.set_finalizers(names.MAINTENANCES, raw, wanted, by=BY)

    async def _say(self, raw: Json, done: bool, reason: str, message: str) -> None:
        new = new_condition(EMITTED, done, reason, self._cluster.stamp(), message)
        await self._cluster.report(names.MAINTENANCES, raw, {}, new, by=BY)


class Validations:
    """Runs tests on nodes; one that passes is uncordoned."""

    def __init__(self, cluster: Cluster, timings: Timings) -> None:
        self._cluster, self._timings = cluster, timings

    async def reconcile(self) -> None:
        """Take every request one step further."""
        await self._cluster.each(self._cluster.all(names.VALIDATIONS), self._step, by=BY)

    async def _step(self, raw: Json) -> None:
        status, now = raw.get("status") or {}, self._cluster.stamp()
        if status.get("phase") in ("Succeeded", "Failed"):
            return
        wanted = [each["name"] for each in raw["spec"]["nodes"]]
        nodes = [name for name in wanted if self._cluster.node(name) is not None]
        if not nodes:
            skipped = {"skipped": {"nodes": wanted}, "completionTime": now}
            await self._status(raw, {"phase": "Failed", **skipped})
            return
        tests = raw["spec"].get("tests") or [TEST]
        if status.get("phase") != "Running":
            await self._mark(nodes, raw["metadata"]["name"])
            made = [await self._job(raw, test, nodes) for test in tests]
            groups = [
                _group(test, "Running", {"phase": "Running", "startTime": now, "objectName": job})
                for test, job in zip(tests, made, strict=True)
            ]
            begun = {"phase": "Running", "startTime": now, "testGroups": groups}
            missing = [name for name in wanted if name not in nodes]
            await self._status(
                raw, {**begun, **({"skipped": {"nodes": missing}} if missing else {})}
            )
            return
        began = datetime.fromisoformat(status["startTime"])
        if (self._cluster.now - began).total_seconds() < self._timings.validate_s:
            return
        failed = [name for name in nodes if self._is_sick(name)]
        phase = "Failed" if failed else "Succeeded"
        end: Json = {"phase": phase, "endTime": now}
        if failed:
            end |= {"failureReason": "TestFailed", "failedNodes": failed}
        groups = [
            _group(group["name"], phase, {**group["attempts"][0], **end})
            for group in status["testGroups"]
        ]
        await self._unmark(nodes, lift=not failed)
        await self._status(raw, {"phase": phase, "completionTime": now, "testGroups": groups})

    def _is_sick(self, name: str) -> bool:
        """What a diagnosis finds: the node is dark, or one of its GPUs has a fault."""
        plant = self._cluster.plant
        place = plant.site.node_places.get(name)
        if place is None or not plant.node_is_lit[place]:
            return True
        hit = (f.target_id for f in plant.faults if f.kind in GPU_KINDS)
        return any(gpu_id.startswith(f"{name}/") for gpu_id in hit)

    async def _mark(self, nodes: list[str], request: str) -> None:
        def mark(raw: Json) -> None:
            note(raw, {names.ACTIVE_VALIDATION: request})

        for name in nodes:
            node = self._cluster.node(name)
            if node is not None:
                await self._cluster.update(NODES, node, mark, by=BY)

    async def _unmark(self, nodes: list[str], *, lift: bool) -> None:
        """Take the mark off; where everything passed, the cordon too, which is inferred."""

        def change(raw: Json) -> None:
            unnote(raw, (names.ACTIVE_VALIDATION,))
            if lift:
                raw["spec"].pop("unschedulable", None)

        for name in nodes:
            node = self._cluster.node(name)
            if node is not None:
                await self._cluster.update(NODES, node, change, by=BY)

    async def _job(self, raw: Json, test: str, nodes: list[str]) -> str:
        name = f"{raw['metadata']['name']}-{test}"[:63]
        command = ["dcgmi", "diag", "--run", "2"]
        container = {
            "name": "test",
            "image": "nvcr.io/nvidia/cloud-native/dcgm",
            "command": command,
        }
        template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
        body = {
            "metadata": {"name": name},
            "spec": {"template": template, "parallelism": len(nodes), "completions": len(nodes)},
        }
        await self._cluster.create(JOBS, body, namespace=names.SPACE, by=BY)
        return name

    async def _status(self, raw: Json, values: Json) -> None:
        await self._cluster.report(names.VALIDATIONS, raw, values, by=BY)


def _group(test: str, phase: str, attempt: Json) -> Json:
    return {"name": test, "provider": "job", "phase": phase, "attempts": [attempt]}
