"""fault-remediation: makes a maintenance CR for a drained node, by a map of actions.

`remediation-succeeded` says that the CR was made, and nothing of what became of it.
"""

import json
from typing import Final, NamedTuple

from interlock_servers.nvsentinel import twin_names as names
from interlock_servers.nvsentinel.twin_cluster import Cluster, Json
from interlock_servers.nvsentinel.twin_events import EventStore, Record
from interlock_servers.nvsentinel.twin_raw import condition, label, note
from interlock_servers.transports.kube.kinds import NODES, Kind

BY: Final = "fault-remediation"
EXTERNAL_ACTION: Final = "external-remediation"


class Action(NamedTuple):
    """What an action becomes.

    Attributes:
        complete: the condition that says that it is over.
        group: CRs of one group do the same for a node.
        superseded_by: groups whose CR does for this one too.
    """

    kind: Kind
    complete: str
    group: str
    of_gpu: bool = False
    superseded_by: tuple[str, ...] = ()


RESTART: Final = Action(names.REBOOTS, "NodeReady", "restart")
DEFAULT_ACTIONS: Final = {
    "COMPONENT_RESET": Action(names.RESETS, "Complete", "reset", True, ("restart",)),
    "RESTART_VM": RESTART,
    "RESTART_BM": RESTART,
    "REPLACE_VM": Action(names.TERMINATIONS, "NodeTerminated", "terminate"),
    EXTERNAL_ACTION: Action(names.EXTERNALS, "ExternalRemediationComplete", "external"),
}


class FaultRemediation:
    """Makes CRs.

    Attributes:
        actions: what each recommended action becomes.
        unsupported: how often there was nothing to make.
    """

    def __init__(self, cluster: Cluster, store: EventStore) -> None:
        self._cluster, self._store = cluster, store
        self.actions = dict(DEFAULT_ACTIONS)
        self.unsupported = 0

    async def reconcile(self) -> None:
        """Make what is due."""
        due = [
            record
            for record in self._store.opened()
            if record.eviction in ("Succeeded", "AlreadyDrained") and record.remediated is None
        ]
        await self._cluster.each(due, self._remediate, by=BY)

    async def _remediate(self, record: Record) -> None:
        event = record.event
        node = self._cluster.node(event.node)
        if node is None:
            self._store.close(record)
            return
        wanted = event.custom_action if event.action == "CUSTOM" else event.action
        action = self.actions.get(wanted)
        if event.agent == "lifecycle-manager" and wanted == "NONE":
            record.remediated = False  # planned: cordoned and drained is all that was asked
            return
        if action is None or (action.of_gpu and not event.uuids):
            self.unsupported += 1
            await self._set(node, names.REMEDIATION_FAILED)
            record.remediated = False
            return
        notes = node["metadata"].get("annotations") or {}
        groups = json.loads(notes.get(names.REMEDIATION_STATE, "{}")).get("equivalenceGroups", {})
        group = f"{action.group}-{event.uuids[0]}" if action.of_gpu else action.group
        for same in (group, *action.superseded_by):
            if same in groups and self._is_under_way(groups[same]["maintenanceCR"]):
                record.remediated = True
                return
        state = (node["metadata"].get("labels") or {}).get(names.STATE)
        if state != names.REMEDIATING:
            await self._set(node, names.REMEDIATING)
            return
        name = f"maintenance-{event.node}-{record.event_id}"
        await self._cluster.create(action.kind, self._body(action, name, record, node), by=BY)
        groups[group] = {
            "maintenanceCR": name,
            "createdAt": self._cluster.stamp(),
            "actionName": wanted,
        }
        value = json.dumps({"equivalenceGroups": groups})

        def change(raw: Json) -> None:
            note(raw, {names.REMEDIATION_STATE: value})
            label(raw, {names.STATE: names.REMEDIATED})

        await self._cluster.update(NODES, node, change, by=BY)
        record.remediated = True

    def _body(self, action: Action, name: str, record: Record, node: Json) -> Json:
        event = record.event
        about: Json = {
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": "nvsentinel"},
            "annotations": {names.TTL: "336h"},
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "name": event.node,
                    "uid": node["metadata"]["uid"],
                }
            ],
        }
        if action.kind is names.EXTERNALS:
            told = event.as_json(record.at, record.event_id)
            told["generatedTimestamp"] = record.at.strftime("%Y-%m-%dT%H:%M:%SZ")
            return {"metadata": about, "spec": {"healthEvent": told}}
        spec: Json = {"nodeName": event.node}
        if action.of_gpu:
            spec["selector"] = {"uuids": list(event.uuids)}
        else:
            spec["force"] = False
        return {"metadata": about, "spec": spec}

    def _is_under_way(self, name: str) -> bool:
        for action in self.actions.values():
            found = self._cluster.mirrors[action.kind].get(name)
            if found is not None:
                status = found.get("status") or {}
                over = condition(status.get("conditions"), action.complete)
                is_over = over is not None and over["status"] in ("True", "False")
                return "completionTime" not in status and not is_over
        return False

    async def _set(self, node: Json, state: str) -> None:
        await self._cluster.update(NODES, node, lambda raw: label(raw, {names.STATE: state}), by=BY)
