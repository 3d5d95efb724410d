"""NVSentinel over the plant: its modules as controllers that write through a Kubernetes API.

It shares nothing with the code that reads NVSentinel's objects, and goes wrong on request.
"""

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from interlock_plant.plant import Plant
from interlock_servers.nvsentinel import twin_modules
from interlock_servers.nvsentinel import twin_names as names
from interlock_servers.nvsentinel.twin_analyzer import Analyzer
from interlock_servers.nvsentinel.twin_cluster import Cluster, Json, Load, definitions_in
from interlock_servers.nvsentinel.twin_connector import PlatformConnector
from interlock_servers.nvsentinel.twin_drainer import DEFAULT_MODES, Modes, NodeDrainer
from interlock_servers.nvsentinel.twin_events import EventStore, HealthEvent
from interlock_servers.nvsentinel.twin_external import ExternalRemediations
from interlock_servers.nvsentinel.twin_faults import Faults, TwinFault
from interlock_servers.nvsentinel.twin_janitor import Janitor, NodeLock
from interlock_servers.nvsentinel.twin_lifecycle import Maintenances, Validations
from interlock_servers.nvsentinel.twin_mischief import Mischief
from interlock_servers.nvsentinel.twin_monitors import Monitors
from interlock_servers.nvsentinel.twin_provider import Provider
from interlock_servers.nvsentinel.twin_quarantine import Breaker, FaultQuarantine
from interlock_servers.nvsentinel.twin_remediation import FaultRemediation
from interlock_servers.nvsentinel.twin_reset import GpuResets
from interlock_servers.nvsentinel.twin_stand_ins import StandIns
from interlock_servers.nvsentinel.twin_timings import Timings
from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.kinds import CONFIG_MAPS, DEPLOYMENTS, LEASES, Kind
from interlock_tools.errors import FactoryError

__all__ = ["Modes", "NvsentinelTwin", "Timings", "TwinFault", "nvsentinel_on"]

log = logging.getLogger(__name__)

DEFINITIONS: Final = Path(__file__).parent / "twin_crds"
LOOK_EVERY_S: Final = 1.0
WATCHED: Final[tuple[tuple[Kind, str | None], ...]] = (
    (CONFIG_MAPS, names.SPACE),
    (DEPLOYMENTS, names.SPACE),
    (LEASES, names.SPACE),
    (names.REBOOTS, None),
    (names.TERMINATIONS, None),
    (names.RESETS, None),
    (names.EXTERNALS, None),
    (names.MAINTENANCES, None),
    (names.VALIDATIONS, None),
)


class Module(Protocol):
    """A controller: it looks at everything, and takes one step."""

    async def reconcile(self) -> None:
        """Take one step; what fails is tried again at the next."""
        ...


class NvsentinelTwin:
    """Every module of NVSentinel. It never steps the plant; call `step`, or `run` it on its clock.

    Attributes:
        store: every health event, with what the modules made of it.
        quarantine, drainer, remediation, janitor, provider: the modules, for tests to look into.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        timings: Timings | None = None,
        modes: Modes = DEFAULT_MODES,
        remediation: bool = True,
        maintenance: bool = False,
        alone: bool = True,
    ) -> None:
        """Describe it.

        Args:
            cluster: with the plant and NVSentinel's objects on it.
            timings: how long everything takes; by default as measured.
            modes: how each namespace is drained.
            remediation: with quarantine and all that follows; else only conditions are written.
            maintenance: with the controller of MaintenanceRequest.
            alone: nobody else acts for kubelets, scheduler and core controllers.
        """
        self.cluster = cluster
        timings = timings or Timings()
        self._faults = Faults()
        self.store = EventStore()
        self.connector = PlatformConnector(cluster, self.store)
        self.provider = Provider(cluster.plant, cluster.clock, self._faults, timings)
        self.quarantine = FaultQuarantine(
            cluster, self.store, Breaker(cluster), delay_s=timings.quarantine_s
        )
        self.drainer = NodeDrainer(cluster, self.store, self._faults, timings, modes)
        self.remediation = FaultRemediation(cluster, self.store)
        lock = NodeLock(cluster)
        self.janitor = Janitor(cluster, lock, self.provider, timings)
        self._monitors = Monitors(cluster.plant)
        self._stand_ins = StandIns(cluster) if alone else None
        self._analyzer = Analyzer(self.store, self.connector, cluster.clock)
        self._mischief = Mischief(cluster, self._faults, self.report, timings)
        self._modules: tuple[Module, ...] = (
            self.quarantine,
            self.drainer,
            self.remediation,
            self.janitor,
            GpuResets(cluster, lock, self.provider, timings),
            ExternalRemediations(cluster, self.store, self.connector),
            *([Maintenances(cluster, self.connector, lock, timings)] if maintenance else []),
            Validations(cluster, timings),
        )
        self._remediates = remediation

    async def step(self) -> None:
        """Let everybody look once and take one step."""
        if self._stand_ins is not None:
            await self._stand_ins.reconcile()
        came_back, self.provider.came_back = self.provider.came_back, []
        for node in came_back:
            if self._faults.has(TwinFault.REMEDIATION_LOOPS, node):
                self._monitors.forget(node)
            self._mischief.came_back(node)
        for event in self._monitors.look():
            self.report(event)
        self._analyzer.reconcile()
        await self.connector.reconcile()
        if self._remediates:
            for module in self._modules:
                await module.reconcile()
        await self._mischief.reconcile()

    async def run(self) -> None:
        """Step on the plant's clock, without end; what fails is tried again at the next step."""
        while True:
            try:
                await self.step()
            except FactoryError as error:
                log.warning("NVSentinel's twin could not take a step", extra={"error": str(error)})
            await self.cluster.clock.sleep(LOOK_EVERY_S)

    def report(self, event: HealthEvent) -> None:
        """Tell it what a health monitor saw."""
        if event.is_healthy and self._faults.has(TwinFault.NEVER_UNCORDONED, event.node):
            return
        if not event.is_healthy and self._faults.has(TwinFault.NO_ACTION, event.node):
            event = replace(event, action="NONE")
        self.connector.take(event)

    def inject(self, fault: TwinFault, *nodes: str) -> None:
        """Go wrong in a named way until `repair`, on some nodes or, where none is named, on all."""
        self._faults.inject(fault, nodes)

    def repair(self, fault: TwinFault) -> None:
        """Stop going wrong in this way; what it has left undone stays so."""
        self._faults.repair(fault)

    def reboots_of(self, node: str) -> list[datetime]:
        """When the provider was asked to reboot a node."""
        return [s.at for s in self.provider.signals if (s.kind, s.node) == ("reboot", node)]


@asynccontextmanager
async def nvsentinel_on(
    client: KubeClient,
    plant: Plant,
    *,
    definitions: Iterable[Json] | None = None,
    timings: Timings | None = None,
    modes: Modes = DEFAULT_MODES,
    remediation: bool = True,
    maintenance: bool = False,
    alone: bool = True,
    gpus_per_pod: int | None = None,
    load: Load | None = None,
) -> AsyncIterator[NvsentinelTwin]:
    """The plant and NVSentinel on an empty cluster, until the block ends.

    Args:
        client: of the cluster, as somebody who may do everything.
        plant: what it sees, and what reboots and resets act on.
        definitions: the CustomResourceDefinitions to install; by default the shipped ones.
        timings: how long everything takes.
        modes: how each namespace is drained.
        remediation: with quarantine and all that follows.
        maintenance: with the controller of MaintenanceRequest.
        alone: nobody else acts for kubelets, scheduler and core controllers.
        gpus_per_pod: how the pods of jobs are cut; by default one a node.
        load: how an embedded server takes objects as they are; by default they are posted.

    Raises:
        FactoryError: the cluster refuses, or does not answer.
        TimeoutError: it is too slow.
    """
    cluster = Cluster(client, plant, WATCHED)
    await cluster.install_kinds(definitions_in(DEFINITIONS) if definitions is None else definitions)
    await cluster.install_plant(gpus_per_pod, load)
    await twin_modules.install(cluster, remediation=remediation, maintenance=maintenance)
    async with cluster:
        yield NvsentinelTwin(
            cluster,
            timings=timings,
            modes=modes,
            remediation=remediation,
            maintenance=maintenance,
            alone=alone,
        )
