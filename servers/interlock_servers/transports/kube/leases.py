"""Leases: who holds something now. They are read here, never taken.

Source: coordination.k8s.io/v1 Lease; a holder lets go by an empty `holderIdentity`, or by letting
`leaseDurationSeconds` pass since `renewTime`. Some write neither (NVSentinel locks a node by an
owner alone): there it is held while it exists, and that is its reader's to know.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from interlock_servers.transports.kube.connection import Json


class Held(NamedTuple):
    """One lease.

    Attributes:
        name: of the lease; what it stands for is its user's convention.
        holder: who has it; None where nobody does.
        until: when it ends if it is not renewed; None where it has no end.
        owner: the object that it goes with, as `RebootNode/maintenance-gpu-7`; empty where none.
    """

    name: str
    holder: str | None
    until: datetime | None
    owner: str

    def holds_at(self, now: datetime) -> bool:
        """Whether somebody has it at this moment; one without an end is held."""
        return self.holder is not None and (self.until is None or now < self.until)


def read_lease(raw: Json) -> Held:
    """A lease from its raw object.

    Raises:
        ValueError, KeyError, TypeError: it cannot be read.
    """
    spec = raw.get("spec") or {}
    holder = str(spec.get("holderIdentity") or "") or None
    renewed, lasts = (
        spec.get("renewTime") or spec.get("acquireTime"),
        spec.get("leaseDurationSeconds"),
    )
    until = None
    if renewed is not None and lasts is not None:
        until = datetime.fromisoformat(str(renewed)) + timedelta(seconds=float(lasts))
    owners = raw["metadata"].get("ownerReferences") or ()
    owner = f"{owners[0]['kind']}/{owners[0]['name']}" if owners else ""
    return Held(str(raw["metadata"]["name"]), holder, until, owner)
