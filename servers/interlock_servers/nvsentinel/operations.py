"""What may be asked of NVSentinel here, as the settings let it be offered."""

from typing import Any

from interlock_servers.nvsentinel.breaker import ResetBreaker
from interlock_servers.nvsentinel.client import NvsentinelClient
from interlock_servers.nvsentinel.janitor import (
    RebootNode,
    ResetGpus,
    TerminateNode,
    ValidateNode,
)
from interlock_servers.nvsentinel.maintenance import EndMaintenance, RequestMaintenance
from interlock_servers.nvsentinel.overrides import (
    CancelQuarantine,
    CloseExternalRepair,
    OptIn,
    OptOut,
)
from interlock_tools.operation import Operation

REMEDIATION: tuple[type[Any], ...] = (
    RequestMaintenance,
    EndMaintenance,
    ValidateNode,
    CancelQuarantine,
    OptOut,
    OptIn,
)
JANITOR: tuple[type[Any], ...] = (
    ResetGpus,
    RebootNode,
    TerminateNode,
    CloseExternalRepair,
    ResetBreaker,
)


def nvsentinel_operations(client: NvsentinelClient) -> tuple[Operation[Any], ...]:
    """Everything; nothing where the settings do not let anything be asked."""
    if not client.settings.operations:
        return ()
    return tuple(kind(client) for kind in (*REMEDIATION, *JANITOR))
