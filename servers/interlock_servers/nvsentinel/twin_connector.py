"""platform-connector: health events in, node conditions and v1 Events out, all of them stored.

A condition's status `True` is a FAULT. Events that are neither fatal nor healthy touch none.
"""

from collections import defaultdict

from interlock_servers.nvsentinel.twin_cluster import Cluster, Json
from interlock_servers.nvsentinel.twin_events import Entity, EventStore, HealthEvent
from interlock_servers.nvsentinel.twin_names import LIMIT_OF_CONDITION
from interlock_servers.nvsentinel.twin_raw import condition, set_condition
from interlock_servers.transports.kube.kinds import NODES

BY = "platform-connector"
CLEAR = "No Health Failures"


class PlatformConnector:
    """One for every node; here, one for all."""

    def __init__(self, cluster: Cluster, store: EventStore) -> None:
        self._cluster = cluster
        self._store = store
        self._waiting: list[HealthEvent] = []
        # per node and check, what each entity's fault says: a condition tells all of them
        self._faults: dict[tuple[str, str], dict[Entity, str]] = defaultdict(dict)

    def take(self, event: HealthEvent) -> None:
        """A monitor's call of `HealthEventOccurredV1`: it is stored, and shown at the next step."""
        self._store.add(event, self._cluster.now)
        self._waiting.append(event)

    async def reconcile(self) -> None:
        """Show on the nodes what was heard since."""
        waiting, self._waiting = self._waiting, []
        left = list(waiting)

        async def show(event: HealthEvent) -> None:
            await self._show(event)
            left.remove(event)

        await self._cluster.each(waiting, show, by=BY)
        self._waiting = left + self._waiting

    async def _show(self, event: HealthEvent) -> None:
        node = self._cluster.node(event.node)
        if node is None:
            return
        if not event.is_fatal and not event.is_healthy:
            reason = f"{event.check}IsNotHealthy"
            await self._cluster.say(node, event.check, reason, event.told(), by=event.agent)
            return
        known = self._faults[event.node, event.check]
        whole: Entity = ("", "")
        names = [each for each in event.entities if each[0] != "PCI"] or [whole]
        if event.is_healthy:
            if names == [whole]:
                known.clear()
            for name in names:
                known.pop(name, None)
        else:
            known.update(dict.fromkeys(names, event.told()))
        message = "".join(dict.fromkeys(known.values()))[:LIMIT_OF_CONDITION]
        is_wrong = bool(known)
        if not is_wrong and condition(node["status"].get("conditions"), event.check) is None:
            return
        now = self._cluster.stamp()
        new = {
            "type": event.check,
            "status": "True" if is_wrong else "False",
            "reason": f"{event.check}Is{'Not' if is_wrong else ''}Healthy",
            "message": message if is_wrong else CLEAR,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }

        def change(raw: Json) -> None:
            set_condition(raw["status"].setdefault("conditions", []), new)

        await self._cluster.update(NODES, node, change, by=BY, subresource="status")
