"""The Kubernetes API as a transport: reads kept by list and watch, writes that lock and rehearse.

It knows no component: which kinds there are and what of them matters is a component's to say.
"""

from interlock_servers.transports.kube.cache import KindCache, Snapshot
from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.failures import ExpiredError
from interlock_servers.transports.kube.kinds import Kind, ServedKind
from interlock_servers.transports.kube.settings import ClusterSettings

__all__ = [
    "ClusterSettings",
    "ExpiredError",
    "Kind",
    "KindCache",
    "KubeClient",
    "ServedKind",
    "Snapshot",
]
