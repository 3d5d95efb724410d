"""What the NVSentinel server may do on a cluster, right by right; nothing else is asked for.

The roles in `packaging/kubernetes` grant exactly this, and `interlock doctor` says which of it a
server refuses. The rights follow from what NVSentinel keeps where: its CRDs, its ConfigMaps, and
the Events of its drainer in `default`.
"""

from typing import Final

from interlock_servers.nvsentinel import names
from interlock_servers.nvsentinel.names import REBOOTS, TERMINATIONS
from interlock_servers.nvsentinel.names import REPAIRS as EXTERNAL_REPAIRS
from interlock_servers.nvsentinel.names import RESETS as GPU_RESETS
from interlock_servers.transports.kube.access import Access
from interlock_servers.transports.kube.kinds import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
)

NAMESPACE: Final = "nvsentinel"
EVENTS_NAMESPACE: Final = "default"  # where events about nodes are kept
BREAKER: Final = names.BREAKER
QUARANTINE: Final = names.QUARANTINER  # both its ConfigMap and its Deployment
RESUME: Final = names.RESUME
_FOLLOW: Final = ("list", "watch")
_ASK: Final = ("get", *_FOLLOW)


def reads(namespace: str, events_namespace: str) -> tuple[Access, ...]:
    """What looking needs."""
    return (
        # faults, quarantine, and who holds a node
        *(Access(verb, NODES) for verb in _ASK),
        *(Access(verb, EVENTS, events_namespace) for verb in _FOLLOW),
        *(Access(verb, LEASES, namespace) for verb in _ASK),
        # how far a repair is
        *(Access(verb, kind) for kind in names.REQUESTS for verb in _ASK),
        # breaker, rules, and which modules there are
        *(
            Access(verb, CONFIG_MAPS, namespace, name=name)
            for name in (BREAKER, QUARANTINE)
            for verb in _ASK
        ),
        *(Access(verb, DEPLOYMENTS, namespace) for verb in _ASK),
        # whom a drain would reach
        *(Access(verb, PODS) for verb in _FOLLOW),
        *(Access(verb, DISRUPTION_BUDGETS) for verb in _FOLLOW),
        *(Access(verb, NAMESPACES) for verb in _ASK),
    )


def writes(namespace: str) -> tuple[Access, ...]:
    """What an approved change needs beside that."""
    return (
        Access("create", names.MAINTENANCE),
        Access("delete", names.MAINTENANCE),
        Access("create", names.VALIDATIONS),
        Access("patch", EXTERNAL_REPAIRS, subresource="status"),
        Access("patch", NODES),
        Access("create", GPU_RESETS),
        Access("create", REBOOTS),
        Access("create", TERMINATIONS),
        Access("patch", CONFIG_MAPS, namespace, name=BREAKER),
        Access("patch", DEPLOYMENTS, namespace, name=QUARANTINE),
    )


READS: Final = reads(NAMESPACE, EVENTS_NAMESPACE)
WRITES: Final = writes(NAMESPACE)

__all__ = [
    "BREAKER",
    "EVENTS_NAMESPACE",
    "EXTERNAL_REPAIRS",
    "GPU_RESETS",
    "NAMESPACE",
    "QUARANTINE",
    "READS",
    "REBOOTS",
    "RESUME",
    "TERMINATIONS",
    "WRITES",
    "reads",
    "writes",
]
