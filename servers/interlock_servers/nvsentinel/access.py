"""What the NVSentinel server may do on a cluster, right by right; nothing else is asked for.

The roles in `packaging/kubernetes` grant exactly this, and `doctor` can ask a server which of it
is refused. The rights follow from what NVSentinel 1.19 to 1.28 keeps where (its CRDs, its
ConfigMaps, and the Events of its drainer in `default`).
"""

from typing import Final

from interlock_servers.transports.kube.access import Access
from interlock_servers.transports.kube.kinds import (
    CONFIG_MAPS,
    CUSTOM_RESOURCES,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    EVENTS,
    JOBS,
    LEASES,
    NODES,
    PODS,
    Kind,
)

NAMESPACE: Final = "nvsentinel"
EVENTS_NAMESPACE: Final = "default"  # where events about nodes are kept
BREAKER: Final = "circuit-breaker"
QUARANTINE: Final = "fault-quarantine"  # both its ConfigMap and its Deployment
RESUME: Final = "resume-control"

JANITOR: Final = "janitor.dgxc.nvidia.com"
LIFECYCLE: Final = "nvsentinel.dgxc.nvidia.com"
REBOOTS: Final = Kind(JANITOR, ("v1alpha1",), "rebootnodes", "RebootNode")
TERMINATIONS: Final = Kind(JANITOR, ("v1alpha1",), "terminatenodes", "TerminateNode")
GPU_RESETS: Final = Kind(JANITOR, ("v1alpha1",), "gpuresets", "GPUReset")
EXTERNAL_REPAIRS: Final = Kind(
    LIFECYCLE, ("v1",), "externalremediationrequests", "ExternalRemediationRequest"
)
MAINTENANCE: Final = Kind(LIFECYCLE, ("v1",), "maintenancerequests", "MaintenanceRequest")
VALIDATIONS: Final = Kind(
    "nvsentinel.nvidia.com", ("v1alpha1",), "validationrequests", "ValidationRequest"
)
REQUESTS: Final = (
    REBOOTS,
    TERMINATIONS,
    GPU_RESETS,
    EXTERNAL_REPAIRS,
    MAINTENANCE,
    VALIDATIONS,
)

READS: Final = (
    # faults, quarantine, and who holds a node
    *(Access(verb, NODES) for verb in ("get", "list", "watch")),
    *(Access(verb, EVENTS, EVENTS_NAMESPACE) for verb in ("get", "list")),
    *(Access(verb, LEASES, NAMESPACE) for verb in ("get", "list")),
    # how far a repair is
    *(Access(verb, kind) for kind in REQUESTS for verb in ("get", "list", "watch")),
    *(Access(verb, JOBS, NAMESPACE) for verb in ("get", "list")),
    # breaker, rules, and which modules there are
    *(Access("get", CONFIG_MAPS, NAMESPACE, name=name) for name in (BREAKER, RESUME, QUARANTINE)),
    *(Access(verb, DEPLOYMENTS, NAMESPACE) for verb in ("get", "list")),
    *(Access(verb, CUSTOM_RESOURCES) for verb in ("get", "list")),
    # whom a drain would reach
    Access("list", PODS),
    Access("list", DISRUPTION_BUDGETS),
)

WRITES: Final = (
    Access("create", MAINTENANCE),
    Access("delete", MAINTENANCE),
    Access("create", VALIDATIONS),
    Access("patch", EXTERNAL_REPAIRS, subresource="status"),
    Access("patch", NODES),
    Access("create", GPU_RESETS),
    Access("create", REBOOTS),
    Access("create", TERMINATIONS),
    Access("patch", CONFIG_MAPS, NAMESPACE, name=BREAKER),
    Access("patch", DEPLOYMENTS, NAMESPACE, name=QUARANTINE),
)
