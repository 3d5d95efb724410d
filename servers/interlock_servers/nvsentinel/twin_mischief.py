"""What goes wrong beside the modules: a controller that reverts, a monitor that cries wolf."""

from collections.abc import Callable
from typing import Final

from interlock_servers.nvsentinel.twin_cluster import Cluster, Json
from interlock_servers.nvsentinel.twin_events import HealthEvent
from interlock_servers.nvsentinel.twin_faults import Faults, TwinFault
from interlock_servers.nvsentinel.twin_monitors import DCGM
from interlock_servers.nvsentinel.twin_timings import Timings
from interlock_servers.transports.kube.kinds import NODES

REVERTER: Final = "cluster-autoscaler"
CONNECTIVITY: Final = "GpuDcgmConnectivityFailure"


class Mischief:
    """Acts for whoever works against us."""

    def __init__(
        self,
        cluster: Cluster,
        faults: Faults,
        report: Callable[[HealthEvent], None],
        timings: Timings,
    ) -> None:
        self._cluster, self._faults, self._report = cluster, faults, report
        self._timings = timings
        self._wanted: dict[str, bool] = {}  # nodes that are put back, and as what
        self._crying: set[str] = set()

    def came_back(self, node: str) -> None:
        """A node has started anew: its DCGM may be called unreachable before it is up."""
        if self._faults.has(TwinFault.DCGM_AT_BOOTSTRAP, node):
            self._crying.add(node)
            self._report(self._connectivity(node, is_healthy=False))

    async def reconcile(self) -> None:
        """Take one step."""
        for node in sorted(self._crying):
            if self._cluster.passed(self._timings.bootstrap_s, "bootstrap", node):
                self._crying.discard(node)
                self._cluster.forget("bootstrap", node)
                self._report(self._connectivity(node, is_healthy=True))
        nodes = self._faults.nodes(TwinFault.REVERTS)
        self._wanted = {node: how for node, how in self._wanted.items() if node in nodes}
        await self._cluster.each(sorted(nodes), self._revert, by=REVERTER)

    async def _revert(self, name: str) -> None:
        node = self._cluster.node(name)
        if node is None:
            return
        is_cordoned = bool(node["spec"].get("unschedulable"))
        wanted = self._wanted.setdefault(name, is_cordoned)
        if is_cordoned == wanted:
            self._cluster.forget("revert", name)
        elif self._cluster.passed(self._timings.revert_s, "revert", name):

            def change(raw: Json) -> None:
                raw["spec"].pop("unschedulable", None)
                if wanted:
                    raw["spec"]["unschedulable"] = True

            await self._cluster.update(NODES, node, change, by=REVERTER)

    def _connectivity(self, node: str, *, is_healthy: bool) -> HealthEvent:
        return HealthEvent(
            agent=DCGM,
            component="GPU",
            check=CONNECTIVITY,
            node=node,
            is_fatal=not is_healthy,
            is_healthy=is_healthy,
            action="NONE" if is_healthy else "CONTACT_SUPPORT",
            message="No Health Failures" if is_healthy else "failed to connect to DCGM",
            codes=() if is_healthy else ("DCGM_CONNECTIVITY_ERROR",),
        )
