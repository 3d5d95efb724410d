"""What is missing on the cluster, of kinds and of rights: asked of the API server itself."""

from typing import NamedTuple

from interlock_servers.nvsentinel import access, names
from interlock_servers.nvsentinel.client import NvsentinelClient
from interlock_servers.transports.kube.access import refused
from interlock_tools.errors import FactoryError


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


async def examine(client: NvsentinelClient) -> Examined:
    """Ask what is served and what we may; never raises, and changes nothing.

    A right on a kind that is not served is no loss, and is not told.
    """
    settings = client.settings
    try:
        version = await client.kube.discovery.version()
        missing = await client.kube.discovery.missing(names.REQUESTS)
        wanted = access.reads(settings.namespace, settings.events_namespace)
        if settings.operations:
            wanted += access.writes(settings.namespace)
        asked = [one for one in wanted if one.kind.name not in missing]
        no = await refused(client.kube, asked)
    except FactoryError as error:
        return Examined(str(error), "", (), ())
    except ExceptionGroup as group:
        first = group.exceptions[0]
        if not isinstance(first, FactoryError):
            raise
        return Examined(str(first), "", (), ())
    return Examined("", version, tuple(str(one) for one in asked if one in no), tuple(missing))
