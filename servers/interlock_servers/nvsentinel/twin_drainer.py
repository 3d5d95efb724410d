"""node-drainer: takes the pods off quarantined nodes, by the mode of their namespace.

Evictions go through the API, where disruption budgets may refuse them for as long as they like;
pods that are left to complete are waited for without end.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from interlock_servers.nvsentinel import twin_names as names
from interlock_servers.nvsentinel.twin_cluster import Cluster, Json, is_terminal
from interlock_servers.nvsentinel.twin_events import ALREADY, CANCELLED, EventStore, Record
from interlock_servers.nvsentinel.twin_faults import Faults, TwinFault
from interlock_servers.nvsentinel.twin_objects import devices_of
from interlock_servers.nvsentinel.twin_raw import label
from interlock_servers.nvsentinel.twin_timings import Timings
from interlock_servers.transports.kube.kinds import NODES, PODS
from interlock_tools.errors import ComponentError

BY: Final = "node-drainer"
SYSTEM: Final = r"^(nvsentinel|kube-system|gpu-operator|network-operator|cert-manager)$"
_DONE: Final = frozenset(
    {names.DRAINED, names.REMEDIATING, names.REMEDIATED, names.REMEDIATION_FAILED}
)


class Mode(StrEnum):
    """How a namespace's pods are taken off."""

    IMMEDIATE = "Immediate"
    ALLOW_COMPLETION = "AllowCompletion"
    DELETE_AFTER_TIMEOUT = "DeleteAfterTimeout"


Modes = Sequence[tuple[str, Mode]]  # namespace pattern and mode, the first that fits
DEFAULT_MODES: Final[Modes] = (("*", Mode.ALLOW_COMPLETION),)


class NodeDrainer:
    """Drains.

    Attributes:
        modes: of the namespaces.
        refused: how often a budget refused an eviction.
    """

    def __init__(
        self,
        cluster: Cluster,
        store: EventStore,
        faults: Faults,
        timings: Timings,
        modes: Modes = DEFAULT_MODES,
    ) -> None:
        self._cluster, self._store, self._faults = cluster, store, faults
        self._timings = timings
        self.modes = modes
        self.refused = 0
        self._tried: set[str] = set()
        self._said: set[tuple[str, str]] = set()

    async def reconcile(self) -> None:
        """Take every drain one step further."""
        open_ = [
            record
            for record in self._store.opened()
            if record.eviction in ("NotStarted", "InProgress")
            and (record.is_active or record.quarantined == CANCELLED)
        ]
        await self._cluster.each(open_, self._drain, by=BY)

    async def _drain(self, record: Record) -> None:
        node = self._cluster.node(record.event.node)
        if node is None:
            record.eviction = "Failed"
            self._store.close(record)
            return
        if record.quarantined == CANCELLED and not self._faults.has(
            TwinFault.CANCELLED_DRAIN_REBOOTS, record.event.node
        ):
            self._end(record, "Failed")
            self._store.close(record)
            return
        state = (node["metadata"].get("labels") or {}).get(names.STATE)
        if record.event.skip_drain or (record.quarantined == ALREADY and state in _DONE):
            self._end(record, "AlreadyDrained")
            return
        pods = self._pods(record)
        if record.eviction == "NotStarted":
            if state in (None, names.QUARANTINED):
                await self._set_state(node, names.DRAINING)
            record.eviction = "InProgress"
            return
        if not pods:
            await self._set_state(node, names.DRAINED)
            self._end(record, "Succeeded")
            return
        for mode in Mode:
            mine = [pod for pod in pods if self._mode(pod) is mode]
            if mine:
                await self._take_off(record, node, mode, mine)

    async def _take_off(self, record: Record, node: Json, mode: Mode, pods: list[Json]) -> None:
        told = ", ".join(
            f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in pods
        )
        is_dark = self._is_dark(node)
        if mode is Mode.IMMEDIATE:
            await self._evict(record, pods)
        elif is_dark and self._cluster.passed(self._timings.not_ready_s, "dark", record.event_id):
            await self._delete(pods)
        elif mode is Mode.ALLOW_COMPLETION:
            await self._say(record, node, "AwaitingPodCompletion", f"waiting for {told}")
        elif self._cluster.passed(self._timings.delete_after_s, "delete", record.event_id):
            await self._delete(pods)
        else:
            await self._say(record, node, "WaitingBeforeForceDelete", f"waiting for {told}")

    async def _evict(self, record: Record, pods: list[Json]) -> None:
        for pod in pods:
            about = pod["metadata"]
            if "deletionTimestamp" in about:
                continue
            key = ("evict", record.event_id, about["uid"])
            is_first = about["uid"] not in self._tried
            if not is_first and not self._cluster.passed(self._timings.evict_again_s, *key):
                continue
            self._tried.add(about["uid"])
            self._cluster.forget(*key)
            self._cluster.passed(0, *key)  # from now on it counts until the next try
            try:
                await self._cluster.evict(pod)
            except ComponentError as error:
                if error.code != "NOT_NOW":
                    raise
                self.refused += 1

    async def _delete(self, pods: list[Json]) -> None:
        for pod in pods:
            await self._cluster.remove(PODS, pod, by=BY, at_once=True)

    async def _say(self, record: Record, node: Json, reason: str, message: str) -> None:
        if (record.event_id, reason) not in self._said:
            self._said.add((record.event_id, reason))
            await self._cluster.say(node, "NodeDraining", reason, message, by=BY)

    def _pods(self, record: Record) -> list[Json]:
        """The pods that must go: of people, still at work, and, of one GPU, only those on it."""
        hit = set(record.event.uuids) if record.event.action == "COMPONENT_RESET" else set()
        found = []
        for pod in self._cluster.pods_on(record.event.node):
            about = pod["metadata"]
            owners = about.get("ownerReferences") or ()
            if is_terminal(pod) or re.match(SYSTEM, about["namespace"]):
                continue
            if any(owner["kind"] == "DaemonSet" for owner in owners):
                continue
            if hit and not hit & devices_of(pod):
                continue
            found.append(pod)
        return found

    def _mode(self, pod: Json) -> Mode:
        namespace = pod["metadata"]["namespace"]
        fits = (mode for pattern, mode in self.modes if fnmatchcase(namespace, pattern))
        return next(fits, Mode.ALLOW_COMPLETION)

    def _is_dark(self, node: Json) -> bool:
        return any(
            each["type"] == "Ready" and each["status"] != "True"
            for each in node["status"].get("conditions", ())
        )

    async def _set_state(self, node: Json, state: str) -> None:
        await self._cluster.update(NODES, node, lambda raw: label(raw, {names.STATE: state}), by=BY)

    def _end(self, record: Record, how: str) -> None:
        record.eviction = how
        for word in ("evict", "dark", "delete"):
            self._cluster.forget(word, record.event_id)
