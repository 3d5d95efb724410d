"""The plant as Kubernetes objects: its nodes, its jobs, their pods and budgets, as raw JSON.

A GPU has one name in all of them: a UUID and a PCI address that follow from the site's names.
"""

import json
import math
import uuid
from typing import Any, Final

from interlock_plant.jobs import Job
from interlock_plant.parameters import JobClass
from interlock_plant.plant import Plant
from interlock_plant.site import SiteSpec
from interlock_servers.nvsentinel.twin_names import DEVICES, GPU, GPU_PRESENT

Json = dict[str, Any]
RACK: Final = "topology.kubernetes.io/rack"
ZONE: Final = "topology.kubernetes.io/zone"
JOB: Final = "interlock.dev/job"
TENANT: Final = "interlock.dev/tenant"
PART: Final = "interlock.dev/part"  # which of a job's pods this is
GRACE_S: Final = 30
IMAGE: Final = "registry.example/workload:1"
SERVES: Final = frozenset({JobClass.SERVING, JobClass.DEV})  # the rest runs to an end


def gpu_uuid(site: SiteSpec, gpu_index: int) -> str:
    """The UUID of a GPU, the same at every start."""
    return f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{site.name}/{site.gpu_id(gpu_index)}')}"


def pci_address(site: SiteSpec, gpu_index: int) -> str:
    """Where a GPU sits in its node: `0000:18:00.0` and on."""
    first = int(site.first_gpu[site.node_of_gpu[gpu_index]])
    return f"0000:{0x18 + 8 * (gpu_index - first):02x}:00.0"


def node_object(site: SiteSpec, place: int, now: str) -> Json:
    """One node, ready, with the labels of GPU feature discovery and its rack."""
    node = site.nodes[place]
    sizes = {
        "cpu": "192",
        "memory": "2048Gi",
        "pods": "110",
        GPU: str(node.gpu_count),
    }
    labels = {
        "kubernetes.io/hostname": node.node_id,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        RACK: node.rack_id,
        ZONE: site.name,
        "nvidia.com/gpu.product": f"NVIDIA-{site.gpu.model}",
        "nvidia.com/gpu.count": str(node.gpu_count),
        GPU_PRESENT: "true",
        "nvsentinel.dgxc.nvidia.com/driver.installed": "true",
        "nvsentinel.dgxc.nvidia.com/dcgm.version": "4.x",
        "nvsentinel.dgxc.nvidia.com/gpu.count.current": str(node.gpu_count),
        "nvsentinel.dgxc.nvidia.com/gpu.count.expected": str(node.gpu_count),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.node_id, "labels": labels},
        "spec": {"providerID": f"plant://{site.name}/{node.node_id}"},
        "status": {
            "capacity": sizes,
            "allocatable": sizes,
            "conditions": [ready(True, now)],
            "addresses": [{"type": "Hostname", "address": node.node_id}],
            "nodeInfo": booted(node.node_id, now),
        },
    }


def booted(node: str, at: str) -> Json:
    """What a kubelet tells of its machine; the boot id is another one after each boot."""
    return {"bootID": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{node}/{at}"))}


def ready(is_ready: bool, now: str) -> Json:
    """The condition that a kubelet keeps, or the node controller once it is silent."""
    return {
        "type": "Ready",
        "status": "True" if is_ready else "Unknown",
        "reason": "KubeletReady" if is_ready else "NodeStatusUnknown",
        "message": "kubelet is posting ready status"
        if is_ready
        else "Kubelet stopped posting node status.",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }


def namespaces(plant: Plant) -> list[Json]:
    """One namespace a tenant."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": tenant_id, "labels": {TENANT: tenant_id}},
        }
        for tenant_id in sorted({job.tenant_id for job in plant.jobs})
    ]


def workload(job: Job, pods: int) -> Json:
    """What owns the pods of a job: a ReplicaSet where it serves, a Job where it ends."""
    labels = {JOB: job.job_id, TENANT: job.tenant_id}
    template = {"metadata": {"labels": labels}, "spec": _pod_spec(0)}
    about = {"name": job.job_id, "namespace": job.tenant_id, "labels": labels}
    selector = {"matchLabels": labels}
    if job.job_class in SERVES:
        spec: Json = {"replicas": pods, "selector": selector, "template": template}
        return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": about, "spec": spec}
    template["spec"]["restartPolicy"] = "Never"
    spec = {
        "parallelism": pods,
        "completions": pods,
        "manualSelector": True,
        "selector": selector,
        "template": template,
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": spec}


def parts(plant: Plant, job: Job, gpus_per_pod: int | None) -> list[tuple[str, list[int]]]:
    """The pods of a job: the node of each and its GPUs; one a node where no size is given."""
    site, found = plant.site, []
    by_node: dict[int, list[int]] = {}
    for gpu in job.gpu_indices:
        by_node.setdefault(int(site.node_of_gpu[gpu]), []).append(gpu)
    for place, gpus in by_node.items():
        size = gpus_per_pod or len(gpus)
        found += [
            (site.node_ids[place], gpus[start : start + size])
            for start in range(0, len(gpus), size)
        ]
    return found


def pod_object(
    site: SiteSpec,
    job: Job,
    part: int,
    name: str,
    owner: Json,
    placed: tuple[str, list[int]] | None,
) -> Json:
    """One pod of a job, bound to a node with its GPUs, or waiting for one."""
    about = owner["metadata"]
    gpus = len(placed[1]) if placed is not None else 0
    pod: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": job.tenant_id,
            "labels": {JOB: job.job_id, TENANT: job.tenant_id, PART: str(part)},
            "ownerReferences": [
                {
                    "apiVersion": owner["apiVersion"],
                    "kind": owner["kind"],
                    "name": about["name"],
                    "uid": about["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": _pod_spec(gpus),
    }
    if placed is not None:
        pod["spec"]["nodeName"] = placed[0]
        pod["metadata"]["annotations"] = {DEVICES: devices(site, placed[1])}
    return pod


def devices(site: SiteSpec, gpus: list[int]) -> str:
    """The annotation by which a drain can tell whose GPU is hit."""
    return json.dumps({"devices": {GPU: [gpu_uuid(site, gpu) for gpu in gpus]}})


def devices_of(pod: Json) -> set[str]:
    """The UUIDs of the GPUs that a pod was given."""
    notes = pod["metadata"].get("annotations") or {}
    told = json.loads(notes.get(DEVICES, "{}")).get("devices", {})
    return {uuid for uuids in told.values() for uuid in uuids}


def budgets(plant: Plant, gpus_per_pod: int | None) -> list[Json]:
    """A disruption budget for every serving job that has a floor."""
    found = []
    for job in plant.jobs:
        if job.job_class is not JobClass.SERVING or job.floor_work is None:
            continue
        pods = len(parts(plant, job, gpus_per_pod))
        least = max(1, math.floor(pods * job.floor_work))  # a job of one pod can never be evicted
        found.append(
            {
                "kind": "PodDisruptionBudget",
                "metadata": {"name": job.job_id, "namespace": job.tenant_id},
                "spec": {
                    "minAvailable": least,
                    "selector": {"matchLabels": {JOB: job.job_id}},
                },
            }
        )
    return found


def running(now: str) -> Json:
    """The status of a pod that runs."""
    return {
        "phase": "Running",
        "startTime": now,
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
    }


def crashed(status: Json, now: str) -> Json:
    """The status of a pod whose process has ended by an error, made from what it was."""
    conditions = [
        {**each, "status": "False", "lastTransitionTime": now}
        if each["type"] in ("ContainersReady", "Ready")
        else each
        for each in status.get("conditions", ())
    ]
    return {**status, "phase": "Failed", "reason": "Error", "conditions": conditions}


def _pod_spec(gpus: int) -> Json:
    sizes = {"cpu": "4", "memory": "16Gi", **({GPU: str(gpus)} if gpus else {})}
    return {
        "terminationGracePeriodSeconds": GRACE_S,
        "containers": [
            {
                "name": "main",
                "image": IMAGE,
                "resources": {"requests": sizes, "limits": sizes},
            }
        ],
    }
