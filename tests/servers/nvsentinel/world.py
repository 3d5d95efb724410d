"""A cluster with the objects that NVSentinel's modules would have written, on an API server."""

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx2
import yaml

from interlock_servers.nvsentinel import names
from interlock_servers.nvsentinel.settings import NvsentinelSettings
from interlock_servers.transports.kube.settings import ClusterSettings
from interlock_tools.clock import SystemClock
from tests.servers.waiting import PATIENCE_S

Json = dict[str, Any]
CONTRACTS = os.environ.get("INTERLOCK_CONTRACTS", "")
OWN_CRD = Path(__file__).parent / "crd_maintenancerequests.json"
NAMESPACE = "nvsentinel"
GPU_A = "GPU-455d8f70-2051-db6c-0430-ffc457bff834"
GPU_B = "GPU-aaaaaaaa-2051-db6c-0430-ffc457bff834"
JANITOR = "/apis/janitor.dgxc.nvidia.com/v1alpha1"
DGXC = "/apis/nvsentinel.dgxc.nvidia.com/v1"
PATHS = {
    "RebootNode": f"{JANITOR}/rebootnodes",
    "TerminateNode": f"{JANITOR}/terminatenodes",
    "GPUReset": f"{JANITOR}/gpuresets",
    "ExternalRemediationRequest": f"{DGXC}/externalremediationrequests",
    "MaintenanceRequest": f"{DGXC}/maintenancerequests",
    "ValidationRequest": "/apis/nvsentinel.nvidia.com/v1alpha1/validationrequests",
}
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
CONFIG = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
MERGE = {"Content-Type": "application/merge-patch+json"}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class AheadClock(SystemClock):
    """The time of day, and a while later where a test says so."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        """What it is now, and then some."""
        return super().now() + self.ahead


def upstream_crds() -> list[Json]:
    """Upstream's own definitions, as the contracts keep them."""
    found = []
    for path in sorted(Path(CONTRACTS, "crds", "nvsentinel").glob("*.yaml")):
        found += [one for one in yaml.safe_load_all(path.read_text("utf-8")) if one]
    return found


@dataclass
class World:
    """One API server, and what a test puts on it.

    Attributes:
        kubeconfigs: by persona.
        http: the administrator, raw: what the real modules would do.
    """

    kubeconfigs: Mapping[str, Path]
    http: httpx2.AsyncClient

    def settings(self, persona: str = "admin", **more: Any) -> NvsentinelSettings:
        """How our server attaches to it."""
        cluster = ClusterSettings(name="test", kubeconfig=self.kubeconfigs[persona])
        return NvsentinelSettings(cluster=cluster, **more)

    async def post(self, path: str, body: Json) -> Json:
        """Make an object."""
        return self._of(await self.http.post(path, json=body))

    async def get(self, path: str) -> Json:
        """Read one."""
        return self._of(await self.http.get(path))

    async def merge(self, path: str, body: Json) -> Json:
        """Change one, as a module would."""
        return self._of(await self.http.patch(path, json=body, headers=MERGE))

    async def delete(self, path: str) -> None:
        """Delete one, whether it is there or not."""
        await self.http.request("DELETE", path, params={"gracePeriodSeconds": "0"})

    def _of(self, answer: httpx2.Response) -> Json:
        if answer.status_code >= 400:
            raise AssertionError(answer.text)
        found: Json = answer.json()
        return found

    # ── nodes ─────────────────────────────────────────────────────────────────────────────────

    async def node(
        self,
        name: str,
        *,
        faults: dict[str, str] | None = None,
        healthy: tuple[str, ...] = ("GpuThermalWatch",),
        boot_id: str = "boot-1",
        ready: str = "True",
        gpus: int = 8,
        **labels: str,
    ) -> Json:
        """A node as its kubelet and the platform connector leave it; `faults` maps to messages."""
        about = {"name": name, "labels": {"nvidia.com/gpu.present": "true", **labels}}
        await self.post("/api/v1/nodes", {"kind": "Node", "metadata": about})
        return await self.status(
            name, faults=faults, healthy=healthy, boot_id=boot_id, ready=ready, gpus=gpus
        )

    async def status(
        self,
        name: str,
        *,
        faults: dict[str, str] | None = None,
        healthy: tuple[str, ...] = ("GpuThermalWatch",),
        boot_id: str = "boot-1",
        ready: str = "True",
        gpus: int = 8,
        other: tuple[Json, ...] = (),
    ) -> Json:
        """What its kubelet and the platform connector say of it from now on."""
        conditions = [condition("Ready", ready, "KubeletReady")]
        conditions += [
            condition(kind, "True", f"{kind}IsNotHealthy", text)
            for kind, text in (faults or {}).items()
        ]
        conditions += [
            condition(kind, "False", f"{kind}IsHealthy", "No Health Failures") for kind in healthy
        ]
        found = await self.get(f"/api/v1/nodes/{name}")
        body = {
            **found,
            "status": {
                "capacity": {"nvidia.com/gpu": str(gpus), "pods": "100"},
                "conditions": [*conditions, *other],
                "nodeInfo": {**(found["status"].get("nodeInfo") or {}), "bootID": boot_id},
            },
        }
        return self._of(await self.http.put(f"/api/v1/nodes/{name}/status", json=body))

    async def quarantine(
        self,
        name: str,
        *events: Json,
        stage: str | None = "quarantined",
        cordoned: bool = True,
        pre_existing: bool = False,
        text: str | None = None,
    ) -> Json:
        """What fault-quarantine writes when it takes a node out."""
        notes = {names.EVENTS: json.dumps(list(events)) if text is None else text}
        if not pre_existing:
            notes[names.IS_CORDONED] = "True"
        else:
            notes[names.PRE_EXISTING] = "True"
        labels = {} if stage is None else {names.STATE: stage}
        body = {
            "metadata": {"annotations": notes, "labels": labels},
            "spec": {"unschedulable": cordoned or None},
        }
        return self._of(
            await self.http.patch(
                f"/api/v1/nodes/{name}",
                json=body,
                headers=MERGE,
                params={"fieldManager": "fault-quarantine"},
            )
        )

    async def give_back(self, name: str) -> Json:
        """What fault-quarantine does when a node has recovered, or was uncordoned by hand."""
        gone = dict.fromkeys((names.EVENTS, names.IS_CORDONED, names.PRE_EXISTING))
        body = {
            "metadata": {"annotations": gone, "labels": {names.STATE: None}},
            "spec": {"unschedulable": None},
        }
        return await self.merge(f"/api/v1/nodes/{name}", body)

    async def cordon(self, name: str, by: str = "kubectl-cordon") -> Json:
        """Somebody cordons it."""
        return self._of(
            await self.http.patch(
                f"/api/v1/nodes/{name}",
                json={"spec": {"unschedulable": True}},
                headers=MERGE,
                params={"fieldManager": by},
            )
        )

    async def lease(self, node: str, kind: str, name: str, uid: str) -> Json:
        """The maintenance lock as upstream writes it: an owner, and nothing else."""
        owner = {"apiVersion": "janitor.dgxc.nvidia.com/v1alpha1", "kind": kind, "name": name}
        about = {"name": node, "ownerReferences": [{**owner, "uid": uid}]}
        return await self.post(LEASES, {"kind": "Lease", "metadata": about, "spec": {}})

    # ── work ──────────────────────────────────────────────────────────────────────────────────

    async def namespace(self, name: str, **labels: str) -> None:
        """A namespace, if it is not there."""
        body = {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        await self.http.post("/api/v1/namespaces", json=body)

    async def pod(
        self,
        node: str,
        name: str,
        *,
        namespace: str = "team-a",
        owner: tuple[str, str] | None = ("Job", "train"),
        gpus: int = 1,
        devices: tuple[str, ...] | None = None,
        labels: dict[str, str] | None = None,
    ) -> Json:
        """A pod at work on a node."""
        await self.namespace(namespace)
        about: Json = {"name": name, "labels": labels or {"app": "train"}}
        if owner is not None:
            reference = {"apiVersion": "batch/v1", "kind": owner[0], "name": owner[1]}
            about["ownerReferences"] = [{**reference, "uid": "o-1", "controller": True}]
        if devices is not None:
            told = {"devices": {"nvidia.com/gpu": list(devices)}}
            about["annotations"] = {names.DEVICES: json.dumps(told)}
        amount = {"limits": {"nvidia.com/gpu": str(gpus)}} if gpus else {}
        container = {"name": "main", "image": "train:1", "resources": amount}
        spec = {"nodeName": node, "containers": [container], "automountServiceAccountToken": False}
        return await self.post(
            f"/api/v1/namespaces/{namespace}/pods",
            {"kind": "Pod", "metadata": about, "spec": spec},
        )

    async def end_pod(self, name: str, namespace: str = "team-a") -> None:
        """It is gone."""
        await self.delete(f"/api/v1/namespaces/{namespace}/pods/{name}")

    # ── NVSentinel ────────────────────────────────────────────────────────────────────────────

    async def module(
        self, name: str, *arguments: str, ready: int = 1, version: str = "v1.19.0"
    ) -> Json:
        """One of its Deployments, rolled out."""
        image = f"ghcr.io/nvidia/nvsentinel/{name}:{version}"
        labels = {"app.kubernetes.io/name": name}
        spec = {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": name, "image": image, "args": list(arguments)}]},
            },
        }
        about = {"name": name, "namespace": NAMESPACE}
        await self.post(DEPLOYMENTS, {"kind": "Deployment", "metadata": about, "spec": spec})
        return await self.roll_out(name, ready)

    async def roll_out(self, name: str, ready: int = 1) -> Json:
        """What the Deployment controller says once its pods run."""
        path = f"{DEPLOYMENTS}/{name}"
        generation = (await self.get(path))["metadata"]["generation"]
        counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), 1)
        status = {**counts, "readyReplicas": ready, "observedGeneration": generation}
        return await self.merge(f"{path}/status", {"status": status})

    async def installation(
        self, *, dry_run: bool = False, breaker: str = "CLOSED", enabled: bool = True
    ) -> None:
        """Every module that acts, and the breaker."""
        said = f"--dry-run={str(dry_run).lower()}"
        on = f"--circuit-breaker-enabled={str(enabled).lower()}"
        await self.module(names.QUARANTINER, said, on)
        for name in (names.DRAINER, names.REMEDIATOR):
            await self.module(name, said)
        for name in (names.JANITOR, "janitor-provider", names.LIFECYCLE):
            await self.module(name)
        await self.config(names.BREAKER, status=breaker, cursor="RESUME")

    async def config(self, name: str, **data: str) -> Json:
        """A ConfigMap in its namespace."""
        body = {"kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        return await self.post(CONFIG, body)

    async def request(
        self, kind: str, name: str, spec: Json, status: Json | None = None, **about: Any
    ) -> Json:
        """A request as a module, or a person, makes it; then what its controller says of it."""
        path = PATHS[kind]
        api = path.removeprefix("/apis/").rpartition("/")[0]
        made = await self.post(
            path,
            {"apiVersion": api, "kind": kind, "metadata": {"name": name, **about}, "spec": spec},
        )
        return made if status is None else await self.says(kind, name, status)

    async def says(self, kind: str, name: str, status: Json) -> Json:
        """What the controller says of a request from now on."""
        return await self.merge(f"{PATHS[kind]}/{name}/status", {"status": status})

    async def event(self, node: str, kind: str, reason: str, message: str) -> Json:
        """A v1 event about a node, as the platform connector writes it."""
        at = stamp()
        body = {
            "kind": "Event",
            "metadata": {"generateName": f"{node}-", "namespace": "default"},
            "involvedObject": {"kind": "Node", "name": node},
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": "gpu-health-monitor"},
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
        return await self.post("/api/v1/namespaces/default/events", body)

    async def until_served(self, kind: str, *, served: bool = True) -> None:
        """Wait until the API server serves a kind, or does not any more."""
        with anyio.fail_after(PATIENCE_S):
            while (  # noqa: ASYNC110 (the API server tells nobody)
                (await self.http.get(PATHS[kind])).status_code == 200
            ) is not served:
                await anyio.sleep(0.05)

    async def clear(self) -> None:
        """Take everything away that a test may have put here."""
        for kind, path in PATHS.items():
            answer = await self.http.get(path)
            for one in answer.json().get("items", ()) if answer.status_code == 200 else ():
                name = one["metadata"]["name"]
                if one["metadata"].get("finalizers"):
                    await self.merge(f"{path}/{name}", {"metadata": {"finalizers": None}})
                await self.delete(f"{path}/{name}")
            del kind
        for path in (DEPLOYMENTS, CONFIG, LEASES, "/api/v1/namespaces/default/events"):
            await self.http.request("DELETE", path)
        budgets = (await self.get("/apis/policy/v1beta1/poddisruptionbudgets"))["items"]
        pods = (await self.get("/api/v1/pods"))["items"]
        for base, found in (("/apis/policy/v1beta1", budgets), ("/api/v1", pods)):
            plural = "pods" if base == "/api/v1" else "poddisruptionbudgets"
            for one in found:
                about = one["metadata"]
                await self.delete(
                    f"{base}/namespaces/{about['namespace']}/{plural}/{about['name']}"
                )
        await self.http.request("DELETE", "/api/v1/nodes")


def condition(kind: str, status: str, reason: str, message: str = "as it is") -> Json:
    """One condition as controllers write it."""
    at = stamp()
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": at,
    }


def health_event(check: str = "SysLogsXIDError", **more: Any) -> Json:
    """One health event in the form of the annotation."""
    return {
        "version": 1,
        "agent": "syslog-health-monitor",
        "componentClass": "GPU",
        "checkName": check,
        "isFatal": True,
        "isHealthy": False,
        "message": "ROBUST_CHANNEL_CTXSW_TIMEOUT_ERROR",
        "recommendedAction": 2,
        "errorCode": ["79"],
        "entitiesImpacted": [{"entityType": "GPU_UUID", "entityValue": GPU_A}],
        "id": "e-1",
        **more,
    }


def stamp() -> str:
    """Now, as the API server writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@asynccontextmanager
async def world_on(
    kubeconfigs: Mapping[str, Path], http: httpx2.AsyncClient
) -> AsyncIterator[World]:
    """The cluster with every definition installed, and NVSentinel's namespace."""
    async with http:
        world = World(kubeconfigs, http)
        for definition in [*upstream_crds(), json.loads(OWN_CRD.read_text("utf-8"))]:
            await world.post(CRDS, definition)
        await world.namespace(NAMESPACE)
        for kind in PATHS:
            await world.until_served(kind)
        yield world
