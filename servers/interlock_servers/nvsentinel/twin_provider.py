"""janitor-provider: what a reboot, a termination or a reset does to the plant."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from interlock_plant.faults import GPU_KINDS, Fault, FaultKind
from interlock_plant.plant import Plant
from interlock_servers.nvsentinel.twin_faults import Faults, TwinFault
from interlock_servers.nvsentinel.twin_objects import gpu_uuid, pci_address
from interlock_servers.nvsentinel.twin_timings import Timings
from interlock_tools.clock import Clock

BUS_LOST = 79  # a GPU that is off the bus cannot be reset: its node has to start anew


@dataclass(frozen=True)
class Signal:
    """One call of the provider, as it was given."""

    kind: str
    node: str
    force: bool
    at: datetime


class Provider:
    """The machines' provider.

    Attributes:
        signals: every call, in order.
        came_back: nodes that came back from a reboot since somebody last emptied it.
    """

    def __init__(self, plant: Plant, clock: Clock, faults: Faults, timings: Timings) -> None:
        self._plant, self._clock, self._faults, self._timings = plant, clock, faults, timings
        self._until: dict[str, datetime] = {}
        self._returned: dict[str, datetime] = {}
        self.signals: list[Signal] = []
        self.came_back: list[str] = []

    def reboot(self, node: str, *, force: bool) -> bool:
        """`SendRebootSignal`; False where the node hangs and the signal is too gentle for it."""
        force = force and not self._faults.has(TwinFault.FORCE_IGNORED, node)
        self.signals.append(Signal("reboot", node, force, self._clock.now()))
        if self.is_silent(node):
            return True
        if node not in self._until:
            if self._down(node) and not force:
                return False
            self._plant.inject(Fault(FaultKind.NODE_DOWN, node))
        self._until[node] = self._clock.now() + timedelta(seconds=self._timings.reboot_s)
        return True

    def terminate(self, node: str, *, force: bool) -> bool:
        """`SendTerminateSignal`: it does not come back."""
        self.signals.append(Signal("terminate", node, force, self._clock.now()))
        if self.is_silent(node):
            return True
        self._plant.inject(Fault(FaultKind.NODE_DOWN, node))
        self._until[node] = self._clock.now() + timedelta(seconds=self._timings.terminate_s)
        return True

    def is_silent(self, node: str) -> bool:
        """Whether it does nothing for this node, and does not say so."""
        return self._faults.has(TwinFault.PROVIDER_SILENT, node)

    def returned_at(self, node: str) -> datetime:
        """When it last came back from a reboot; long ago where it never did."""
        return self._returned.get(node, datetime.min.replace(tzinfo=UTC))

    def is_ready(self, node: str) -> bool:
        """`IsNodeReady`: whether no reboot is under way and nothing else keeps it dark."""
        return node not in self._until and not self._down(node)

    def is_gone(self, node: str) -> bool:
        """Whether its termination is over."""
        return node in self._until and self._clock.now() >= self._until[node]

    def step(self, terminating: set[str]) -> None:
        """Bring back the nodes whose reboot is over."""
        due = [node for node, until in self._until.items() if self._clock.now() >= until]
        for node in due:
            if node in terminating:
                continue
            del self._until[node]
            self._plant.repair(FaultKind.NODE_DOWN, node)
            self._cure(node)
            self.came_back.append(node)
            self._returned[node] = self._clock.now()

    def reset(self, node: str, gpus: list[int]) -> bool:
        """Reset GPUs; False where one of them cannot be."""
        self.signals.append(Signal("reset", node, False, self._clock.now()))
        ids = {self._plant.site.gpu_id(gpu) for gpu in gpus}
        hit = [fault for fault in self._plant.faults if fault.target_id in ids]
        if self._faults.has(TwinFault.RESET_REFUSED, node):
            return False
        if any(fault.xid == BUS_LOST for fault in hit):
            return False
        for fault in hit:
            self._mend(fault, node)
        return True

    def gpus(self, node: str, selector: dict[str, list[str]]) -> list[int]:
        """The GPUs that a selector means: ALL of the node where it names none."""
        site = self._plant.site
        here = [int(gpu) for gpu in site.gpus_of_node(node)]
        uuids, addresses = selector.get("uuids") or [], selector.get("pciBusIDs") or []
        if not uuids and not addresses:
            return here
        return [
            gpu
            for gpu in here
            if gpu_uuid(site, gpu) in uuids or pci_address(site, gpu) in addresses
        ]

    def uuids(self, gpus: list[int]) -> set[str]:
        """What these GPUs are called in annotations."""
        return {gpu_uuid(self._plant.site, gpu) for gpu in gpus}

    def _down(self, node: str) -> list[Fault]:
        return [
            fault
            for fault in self._plant.faults
            if fault.kind is FaultKind.NODE_DOWN and fault.target_id == node
        ]

    def _cure(self, node: str) -> None:
        """What starting anew repairs of a node."""
        if self._faults.has(TwinFault.REMEDIATION_LOOPS, node):
            return
        for fault in self._plant.faults:
            of_gpu = fault.kind in GPU_KINDS and fault.target_id.startswith(f"{node}/")
            of_node = fault.target_id == node and (
                fault.kind is FaultKind.LINK_DOWN
                or (fault.kind is FaultKind.SOFTWARE and fault.xid is not None)
            )
            if of_gpu or of_node:
                self._mend(fault, node)

    def _mend(self, fault: Fault, node: str) -> None:
        self._plant.repair(fault.kind, fault.target_id)
        if self._faults.has(TwinFault.REPEAT_OFFENDER, node):
            again = self._plant.now + timedelta(seconds=self._timings.repeat_s)
            self._plant.inject(replace(fault, at=again, lasts_s=None))
