"""NVSentinel's own objects on a cluster: its modules as workloads, and its ConfigMaps.

A module that is switched off has no workload; a client can tell by that, and by the kinds that
are installed.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from interlock_servers.nvsentinel.twin_cluster import DAEMON_SETS, Cluster, Json
from interlock_servers.nvsentinel.twin_names import BREAKER_MAP, RESUME_MAP, RULES_MAP, SPACE
from interlock_servers.nvsentinel.twin_rules import default_rules
from interlock_servers.transports.kube.kinds import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    Kind,
)

VERSION: Final = "v1.25.0"
MONITORING: Final = (
    "platform-connector",
    "gpu-health-monitor",
    "syslog-health-monitor",
    "nic-health-monitor",
)
REMEDIATION: Final = (
    "fault-quarantine",
    "node-drainer",
    "fault-remediation",
    "janitor",
    "janitor-provider",
    "lifecycle-manager",
)
_ARGUMENTS: Final = {"fault-quarantine": ["--circuit-breaker-enabled=true", "--dry-run=false"]}


async def install(cluster: Cluster, *, remediation: bool, maintenance: bool) -> None:
    """Make the namespace, the modules and their ConfigMaps, as Helm would.

    Args:
        cluster: where.
        remediation: with quarantine, drain and repair; else monitoring only, which is the default.
        maintenance: with the controller of MaintenanceRequest and its rule set.
    """
    await cluster.create(NAMESPACES, {"metadata": {"name": SPACE}}, by="helm")
    nodes = len(cluster.plant.site.nodes)
    wanted: list[tuple[Kind, str]] = [(DAEMON_SETS, name) for name in MONITORING]
    wanted += [(DEPLOYMENTS, name) for name in ("labeler", *(REMEDIATION if remediation else ()))]
    for kind, name in wanted:
        made = await cluster.create(
            kind, _workload(kind, name, maintenance), namespace=SPACE, by="helm"
        )
        if made is not None:
            status = _status(kind, nodes, made["metadata"].get("generation", 1))
            await cluster.replace_status(kind, made, status, by="kube-controller-manager")
    maps: dict[str, Mapping[str, str]] = {
        RESUME_MAP: dict.fromkeys(_resumable(remediation), "RESUME")
    }
    if remediation:
        maps[RULES_MAP] = {"config.toml": default_rules(maintenance=maintenance)}
        maps[BREAKER_MAP] = {"status": "CLOSED", "cursor": "RESUME"}
    for name, data in maps.items():
        body = {"metadata": {"name": name}, "data": dict(data)}
        await cluster.create(CONFIG_MAPS, body, namespace=SPACE, by="helm")


def _resumable(remediation: bool) -> Iterable[str]:
    return ("fault-quarantine", "node-drainer", "fault-remediation") if remediation else ()


def _workload(kind: Kind, name: str, maintenance: bool) -> Json:
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/instance": "nvsentinel"}
    arguments = list(_ARGUMENTS.get(name, ()))
    if name == "lifecycle-manager":
        arguments.append(f"--enable-maintenance-request={str(maintenance).lower()}")
    container = {
        "name": name,
        "image": f"ghcr.io/nvidia/nvsentinel/{name}:{VERSION}",
        "args": arguments,
        "ports": [{"name": "metrics", "containerPort": 2112}],
    }
    spec: Json = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
    }
    if kind is DEPLOYMENTS:
        spec["replicas"] = 1
    version = {"app.kubernetes.io/version": VERSION}
    return {"metadata": {"name": name, "labels": {**labels, **version}}, "spec": spec}


def _status(kind: Kind, nodes: int, generation: int) -> Json:
    if kind is DEPLOYMENTS:
        keys = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        return {"observedGeneration": generation, **dict.fromkeys(keys, 1)}
    counts = (
        "currentNumberScheduled",
        "desiredNumberScheduled",
        "numberReady",
        "numberAvailable",
        "updatedNumberScheduled",
    )
    return {
        "observedGeneration": generation,
        "numberMisscheduled": 0,
        **dict.fromkeys(counts, nodes),
    }
