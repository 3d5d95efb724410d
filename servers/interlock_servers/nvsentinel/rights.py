"""What we must be allowed on the cluster, and what is missing: asked of the API server itself."""

from typing import Final, NamedTuple

from interlock_servers.nvsentinel import names
from interlock_servers.nvsentinel.client import NvsentinelClient
from interlock_servers.transports.kube.access import Access, refused
from interlock_servers.transports.kube.kinds import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    Kind,
)
from interlock_tools.errors import FactoryError

_READS: Final = ("get", "list", "watch")


class Examined(NamedTuple):
    """What a look at the cluster found.

    Attributes:
        error: why it could not be asked; empty where it was.
        may_not: what is needed and refused, in words.
        missing: kinds that are not served.
    """

    error: str
    version: str
    may_not: tuple[str, ...]
    missing: tuple[str, ...]


def wanted(client: NvsentinelClient, served: tuple[Kind, ...]) -> list[Access]:
    """Everything that the settings make us do here."""
    settings = client.settings
    own = settings.namespace
    reads = [
        (NODES, ""),
        (PODS, ""),
        (NAMESPACES, ""),
        (DISRUPTION_BUDGETS, ""),
        (EVENTS, settings.events_namespace),
        (LEASES, own),
        (DEPLOYMENTS, own),
        (CONFIG_MAPS, own),
        *((kind, "") for kind in served),
    ]
    found = [Access(verb, kind, namespace) for kind, namespace in reads for verb in _READS]
    if not settings.operations:
        return found
    found.append(Access("patch", NODES))
    found.append(Access("patch", CONFIG_MAPS, own, name=names.BREAKER))
    found.append(Access("patch", DEPLOYMENTS, own, name=names.QUARANTINER))
    for kind in served:
        if kind is names.REPAIRS:
            found.append(Access("patch", kind, subresource="status"))
            continue
        found.append(Access("create", kind))
        if kind is names.MAINTENANCE:
            found.append(Access("delete", kind))
    return found


async def examine(client: NvsentinelClient) -> Examined:
    """Ask what is served and what we may; never raises, and changes nothing."""
    try:
        version = await client.kube.discovery.version()
        missing = await client.kube.discovery.missing(names.REQUESTS)
        served = tuple(kind for kind in names.REQUESTS if kind.name not in missing)
        may_not = await refused(client.kube, wanted(client, served))
    except FactoryError as error:
        return Examined(str(error), "", (), ())
    except ExceptionGroup as group:
        first = group.exceptions[0]
        if not isinstance(first, FactoryError):
            raise
        return Examined(str(first), "", (), ())
    return Examined("", version, tuple(map(str, may_not)), tuple(missing))
