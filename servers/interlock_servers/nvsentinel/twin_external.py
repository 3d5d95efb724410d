"""ExternalRemediationRequest: a node is handed to somebody outside, and taken back.

The taint keeps work off the node while it is away; only the outside says that it is repaired.
"""

from dataclasses import replace
from typing import Final

from interlock_servers.nvsentinel import twin_names as names
from interlock_servers.nvsentinel.twin_cluster import Cluster, Json
from interlock_servers.nvsentinel.twin_connector import PlatformConnector
from interlock_servers.nvsentinel.twin_events import EventStore
from interlock_servers.nvsentinel.twin_raw import condition, new_condition
from interlock_servers.transports.kube.kinds import NODES

BY: Final = "janitor"
RELEASED: Final = "NVSentinelOwnershipReleased"
COMPLETE: Final = "ExternalRemediationComplete"


class ExternalRemediations:
    """Hands nodes over."""

    def __init__(self, cluster: Cluster, store: EventStore, connector: PlatformConnector) -> None:
        self._cluster, self._store, self._connector = cluster, store, connector

    async def reconcile(self) -> None:
        """Take every request one step further."""
        await self._cluster.each(self._cluster.all(names.EXTERNALS), self._step, by=BY)

    async def _step(self, raw: Json) -> None:
        about, status = raw["metadata"], raw.get("status") or {}
        finalizers = about.get("finalizers") or []
        node = self._cluster.node(raw["spec"]["healthEvent"].get("nodeName", ""))
        if "deletionTimestamp" in about:
            await self._untaint(node, about["name"])
            left = [each for each in finalizers if each != names.EXTERNAL_FINALIZER]
            await self._finalizers(raw, left)
            return
        if names.EXTERNAL_FINALIZER not in finalizers:
            await self._finalizers(raw, [*finalizers, names.EXTERNAL_FINALIZER])
            return
        conditions = status.get("conditions") or []
        if condition(conditions, RELEASED) is None:
            await self._taint(node, about["name"])
            why, now = "the node is the outside's to repair", self._cluster.stamp()
            new = new_condition(RELEASED, True, "Released", now, why)
            await self._cluster.report(names.EXTERNALS, raw, {}, new, by=BY)
            return
        told = condition(conditions, COMPLETE)
        if told is None or told["status"] != "True" or "completionTime" in status:
            return
        await self._untaint(node, about["name"])
        self._clear(raw["spec"]["healthEvent"])
        over = {"completionTime": self._cluster.stamp()}
        await self._cluster.report(names.EXTERNALS, raw, over, by=BY)

    def _clear(self, told: Json) -> None:
        """Tell that what was wrong is well."""
        for record in self._store.active(told.get("nodeName")):
            if record.event_id == told.get("id"):
                well = replace(
                    record.event, is_fatal=False, is_healthy=True, action="NONE", codes=()
                )
                self._connector.take(well)

    async def _taint(self, node: Json | None, name: str) -> None:
        if node is None:
            return
        taint = {"key": names.RELEASE_TAINT, "value": name, "effect": "NoSchedule"}

        def change(raw: Json) -> None:
            others = [t for t in raw["spec"].get("taints", []) if t["key"] != names.RELEASE_TAINT]
            raw["spec"]["taints"] = [*others, taint]

        await self._cluster.update(NODES, node, change, by=BY)

    async def _untaint(self, node: Json | None, name: str) -> None:
        if node is None:
            return

        def change(raw: Json) -> None:
            taints = [
                taint
                for taint in raw["spec"].get("taints", [])
                if (taint["key"], taint.get("value")) != (names.RELEASE_TAINT, name)
            ]
            raw["spec"].pop("taints", None)
            if taints:
                raw["spec"]["taints"] = taints

        await self._cluster.update(NODES, node, change, by=BY)

    async def _finalizers(self, raw: Json, wanted: list[str]) -> None:
        await self._cluster.set_finalizers(names.EXTERNALS, raw, wanted, by=BY)
