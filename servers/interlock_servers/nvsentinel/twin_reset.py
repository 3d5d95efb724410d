"""janitor's GPUReset: services are torn down, a Job resets, services are restored.

An empty selector is ALL GPUs of the node. Whatever uses one of them is killed.
"""

from datetime import datetime
from typing import Final

from interlock_servers.nvsentinel import twin_names as names
from interlock_servers.nvsentinel.twin_cluster import Cluster, Json, is_terminal
from interlock_servers.nvsentinel.twin_janitor import BY, NodeLock
from interlock_servers.nvsentinel.twin_objects import crashed, devices_of
from interlock_servers.nvsentinel.twin_provider import Provider
from interlock_servers.nvsentinel.twin_raw import condition, new_condition
from interlock_servers.nvsentinel.twin_timings import Timings
from interlock_servers.transports.kube.kinds import JOBS, PODS

STEPS: Final = (
    ("ServicesTornDown", "ServiceTeardownSucceeded"),
    ("ResetJobCreated", "ResetJobCreationSucceeded"),
    ("ResetJobCompleted", "ResetJobSucceeded"),
    ("ServicesRestored", "ServiceRestoreSucceeded"),
    ("Complete", "GPUResetSucceeded"),
)  # the reasons of success are inferred


class GpuResets:
    """Resets GPUs, in five steps."""

    def __init__(
        self, cluster: Cluster, lock: NodeLock, provider: Provider, timings: Timings
    ) -> None:
        self._cluster, self._lock, self._provider = cluster, lock, provider
        self._timings = timings

    async def reconcile(self) -> None:
        """Take every reset one step further."""
        await self._cluster.each(self._cluster.in_order(names.RESETS), self._step, by=BY)

    async def _step(self, raw: Json) -> None:
        node, status = raw["spec"]["nodeName"], raw.get("status") or {}
        if "completionTime" in status:
            await self._lock.release(node, raw["metadata"]["uid"])
            return
        now = self._cluster.stamp()
        if self._cluster.node(node) is None:
            values = {"phase": "Failed", "startTime": now, "completionTime": now}
            await self._report(raw, values, new_condition("Ready", False, "Failed", now))
            return
        if not await self._lock.take(node, names.RESETS, raw):
            if status.get("phase") != "Pending":
                why = new_condition("Ready", False, "ResourceContention", now)
                await self._report(raw, {"phase": "Pending"}, why)
            return
        if "startTime" not in status:
            values = {"phase": "InProgress", "startTime": now}
            await self._report(raw, values, new_condition("Ready", True, "ReadyForReset", now))
            return
        began = datetime.fromisoformat(status["startTime"])
        passed_s = (self._cluster.now - began).total_seconds()
        done = int(passed_s / (self._timings.reset_s / len(STEPS)))
        for name, reason in STEPS[:done]:
            if condition(status.get("conditions"), name) is None:
                await self._do(raw, name, reason)
                return

    async def _do(self, raw: Json, name: str, reason: str) -> None:
        node, now = raw["spec"]["nodeName"], self._cluster.stamp()
        gpus = self._provider.gpus(node, raw["spec"].get("selector") or {})
        values: Json = {}
        if name == "ServicesTornDown":
            await self._kill(node, gpus)
        elif name == "ResetJobCreated":
            values["jobRef"] = await self._job(raw, node)
        elif name == "ResetJobCompleted" and not (gpus and self._provider.reset(node, gpus)):
            values = {"phase": "Failed", "completionTime": now}
            new = [new_condition(each, False, "ResetJobFailed", now) for each in (name, "Complete")]
            await self._report(raw, values, *new)
            return
        elif name == "Complete":
            values = {"phase": "Succeeded", "completionTime": now}
        await self._report(raw, values, new_condition(name, True, reason, now))

    async def _kill(self, node: str, gpus: list[int]) -> None:
        """What uses these GPUs does not live through their reset."""
        ids = self._provider.uuids(gpus)
        for pod in self._cluster.pods_on(node):
            if not is_terminal(pod) and ids & devices_of(pod):
                status = crashed(pod["status"], self._cluster.stamp())
                await self._cluster.replace_status(PODS, pod, status, by="kubelet")

    async def _job(self, raw: Json, node: str) -> Json:
        name = f"{raw['metadata']['name']}-reset"[:63]
        template = {
            "spec": {
                "nodeName": node,
                "restartPolicy": "Never",
                "containers": [{"name": "reset", "image": "ghcr.io/nvidia/nvsentinel/gpu-reset"}],
            }
        }
        body = {"metadata": {"name": name}, "spec": {"template": template, "backoffLimit": 0}}
        await self._cluster.create(JOBS, body, namespace=names.SPACE, by=BY)
        return {"apiVersion": "batch/v1", "kind": "Job", "name": name, "namespace": names.SPACE}

    async def _report(self, raw: Json, values: Json, *new: Json) -> None:
        await self._cluster.report(names.RESETS, raw, values, *new, by=BY)
