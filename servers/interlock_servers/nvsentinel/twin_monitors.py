"""The health monitors of every node: what the plant shows a driver becomes health events.

Nothing but the plant is looked at: an XID, a hot or vanished GPU, a dead link. A dark node is
silent, as its monitors are; what is well again there is told once it is lit.
Sources: the XID catalogue (action buckets); which checks are fatal is NVSentinel's. [inferred]
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

from interlock_plant.faults import GPU_KINDS, FaultKind
from interlock_plant.plant import Plant
from interlock_servers.nvsentinel.twin_events import Entity, HealthEvent
from interlock_servers.nvsentinel.twin_objects import gpu_uuid, pci_address


class Check(NamedTuple):
    """A check of a monitor and what it says of it."""

    agent: str
    component: str
    name: str
    is_fatal: bool
    action: str
    message: str
    code: str = ""


SYSLOG, DCGM, NIC = "syslog-health-monitor", "gpu-health-monitor", "nic-health-monitor"
_XIDS: Final = {
    48: (True, "COMPONENT_RESET", "Double Bit ECC Error"),
    62: (True, "COMPONENT_RESET", "Internal micro-controller halt"),
    64: (True, "COMPONENT_RESET", "GPU memory remapping failure"),
    74: (True, "COMPONENT_RESET", "NVLINK Error"),
    79: (True, "RESTART_BM", "GPU has fallen off the bus"),
    94: (False, "NONE", "Contained memory error"),
    95: (True, "COMPONENT_RESET", "Uncontained memory error"),
    119: (True, "COMPONENT_RESET", "GSP RPC Timeout"),
    120: (True, "COMPONENT_RESET", "GSP Error"),
}
_HOT: Final = Check(
    DCGM,
    "GPU",
    "GpuThermalWatch",
    True,
    "NONE",
    "thermal slowdown",
    "DCGM_FR_CLOCK_THROTTLE_THERMAL",
)
_GONE: Final = Check(
    SYSLOG, "GPU", "SysLogsGPUFallenOff", True, "RESTART_BM", "GPU has fallen off the bus"
)
_LINK: Final = Check(
    NIC, "NIC", "InfiniBandStateCheck", True, "CONTACT_SUPPORT", "port mlx5_0 is DOWN"
)


def xid_check(xid: int) -> Check:
    """What the syslog monitor says of an XID; one that a restart of the job cures is not fatal."""
    is_fatal, action, said = _XIDS.get(xid, (False, "NONE", "application or informational error"))
    message = f"NVRM: Xid {xid}, {said}"
    return Check(SYSLOG, "GPU", "SysLogsXIDError", is_fatal, action, message, str(xid))


class Monitors:
    """Everybody's monitors: they tell what is new since they last looked."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._known: dict[tuple[str, Check], frozenset[int]] = {}

    def look(self) -> list[HealthEvent]:
        """What broke since the last look, then what is well again."""
        plant = self._plant
        lit = dict(zip(plant.site.node_ids, plant.node_is_lit.tolist(), strict=True))
        now: dict[tuple[str, Check], set[int]] = defaultdict(set)
        for node, check, gpu in self._seen(lit):
            now[node, check].add(gpu)
        broke, well = [], []
        for key in self._known.keys() | now.keys():
            if not lit[key[0]]:
                continue
            before, after = self._known.get(key, frozenset()), frozenset(now.get(key, ()))
            if after - before:
                broke.append(self._event(*key, after - before, is_healthy=False))
            if before - after:
                well.append(self._event(*key, before - after, is_healthy=True))
            if after:
                self._known[key] = after
            else:
                self._known.pop(key, None)
        return [*sorted(broke, key=_order), *sorted(well, key=_order)]

    def forget(self, node: str) -> None:
        """Let the monitors of a node start anew: what is still broken is told again."""
        for key in [key for key in self._known if key[0] == node]:
            del self._known[key]

    def _seen(self, lit: dict[str, bool]) -> Iterator[tuple[str, Check, int]]:
        """Node, check and GPU (-1: none) of everything that is wrong now."""
        plant, site = self._plant, self._plant.site
        gone = set()
        for fault in plant.faults:
            if fault.kind in GPU_KINDS:
                gpu = site.gpu_place(fault.target_id)
                if gpu is None:
                    continue
                if fault.kind is FaultKind.GPU_LOST:
                    gone.add(gpu)
                if fault.xid is not None:
                    yield site.node_ids[site.node_of_gpu[gpu]], xid_check(fault.xid), gpu
            elif fault.xid is not None and fault.target_id in site.node_places:
                first = int(site.first_gpu[site.node_places[fault.target_id]])
                yield fault.target_id, xid_check(fault.xid), first
            elif fault.kind is FaultKind.LINK_DOWN:
                yield fault.target_id, _LINK, -1
        hot = plant.gpu_is_throttled.nonzero()[0].tolist()
        dark = (~plant.gpu_is_lit).nonzero()[0].tolist()
        for gpu in hot:
            yield site.node_ids[site.node_of_gpu[gpu]], _HOT, gpu
        for gpu in dark:
            node = site.node_ids[site.node_of_gpu[gpu]]
            if lit[node] and gpu not in gone:
                yield node, _GONE, gpu

    def _event(
        self, node: str, check: Check, gpus: frozenset[int], *, is_healthy: bool
    ) -> HealthEvent:
        entities: list[Entity] = []
        for gpu in sorted(gpus):
            entities += self._names(gpu)
        return HealthEvent(
            agent=check.agent,
            component=check.component,
            check=check.name,
            node=node,
            is_fatal=check.is_fatal and not is_healthy,
            is_healthy=is_healthy,
            action="NONE" if is_healthy else check.action,
            message="No Health Failures" if is_healthy else check.message,
            codes=(check.code,) if check.code and not is_healthy else (),
            entities=tuple(entities),
        )

    def _names(self, gpu: int) -> list[Entity]:
        if gpu < 0:
            return [("NIC", "mlx5_0")]
        site = self._plant.site
        number = gpu - int(site.first_gpu[site.node_of_gpu[gpu]])
        return [
            ("GPU", str(number)),
            ("PCI", pci_address(site, gpu)),
            ("GPU_UUID", gpu_uuid(site, gpu)),
        ]


def _order(event: HealthEvent) -> tuple[str, str]:
    return event.node, event.check
