"""janitor: RebootNode and TerminateNode, one at a time for a node, which a Lease locks.

The Lease has the node's name and an owner, the CR; it has no holder and no end.
"""

from datetime import datetime, timedelta
from typing import Final

from interlock_servers.nvsentinel import twin_names as names
from interlock_servers.nvsentinel.twin_cluster import Cluster, Json
from interlock_servers.nvsentinel.twin_provider import Provider
from interlock_servers.nvsentinel.twin_raw import condition, new_condition, note
from interlock_servers.nvsentinel.twin_timings import Timings
from interlock_servers.transports.kube.kinds import LEASES, NODES, PODS, Kind

BY: Final = "janitor"
KINDS: Final = (names.REBOOTS, names.TERMINATIONS, names.RESETS)


class NodeLock:
    """The lock of a node."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def owner(self, node: str) -> str | None:
        """The uid of the CR that has it; None where it is free."""
        lease = self._cluster.mirrors[LEASES].get(node, names.SPACE)
        return lease["metadata"]["ownerReferences"][0]["uid"] if lease is not None else None

    async def take(self, node: str, kind: Kind, raw: Json) -> bool:
        """Whether the CR has the lock now."""
        owner = self.owner(node)
        if owner is not None:
            return bool(owner == raw["metadata"]["uid"])
        lease: Json = {
            "metadata": {
                "name": node,
                "ownerReferences": [
                    {
                        "apiVersion": f"{kind.group}/{kind.versions[0]}",
                        "kind": kind.kind,
                        "name": raw["metadata"]["name"],
                        "uid": raw["metadata"]["uid"],
                        "blockOwnerDeletion": True,
                    }
                ],
            },
            "spec": {},
        }
        made = await self._cluster.create(LEASES, lease, namespace=names.SPACE, by=BY)
        return made is not None

    async def release(self, node: str, uid: str) -> None:
        """Let it go, where the CR has it."""
        lease = self._cluster.mirrors[LEASES].get(node, names.SPACE)
        if lease is not None and lease["metadata"]["ownerReferences"][0]["uid"] == uid:
            await self._cluster.remove(LEASES, lease, by=BY)

    async def collect(self, alive: set[str]) -> None:
        """Drop the locks whose CR is gone, as the garbage collector does."""
        for lease in self._cluster.all(LEASES):
            owners = lease["metadata"].get("ownerReferences") or ()
            kinds = {kind.kind for kind in KINDS}
            if owners and owners[0]["kind"] in kinds and owners[0]["uid"] not in alive:
                await self._cluster.remove(LEASES, lease, by=BY)


class Janitor:
    """Reboots and terminates.

    Attributes:
        manual: it calls nobody, and says that somebody else must act.
    """

    def __init__(
        self, cluster: Cluster, lock: NodeLock, provider: Provider, timings: Timings
    ) -> None:
        self._cluster, self._lock, self._provider = cluster, lock, provider
        self._timings = timings
        self.manual = False

    async def reconcile(self) -> None:
        """Take every CR one step further, then drop locks and CRs that are over."""
        terminating = {
            raw["spec"]["nodeName"]
            for raw in self._cluster.all(names.TERMINATIONS)
            if not _is_over(raw)
        }
        self._provider.step(terminating)
        await self._cluster.each(self._cluster.in_order(names.REBOOTS), self._reboot, by=BY)
        await self._cluster.each(self._cluster.in_order(names.TERMINATIONS), self._end, by=BY)
        alive = {raw["metadata"]["uid"] for kind in KINDS for raw in self._cluster.all(kind)}
        await self._lock.collect(alive)
        for kind in KINDS:
            over = [(kind, raw) for raw in self._cluster.all(kind) if _is_over(raw)]
            await self._cluster.each(over, self._expire, by=BY)

    async def _reboot(self, raw: Json) -> None:
        node, uid = raw["spec"]["nodeName"], raw["metadata"]["uid"]
        if _is_over(raw):
            await self._lock.release(node, uid)
            return
        raw = await self._start(names.REBOOTS, raw, "NodeReady")
        status = raw.get("status") or {}
        if not _is_signalled(status):
            if self.manual or not _is_mine(status) or not await self._may(names.REBOOTS, raw):
                return
            sent = self._provider.reboot(node, force=bool(raw["spec"].get("force")))
            await self._signalled(names.REBOOTS, raw, sent, "NodeReady")
        elif self._provider.is_ready(node) and self._has_come_back(node, status):
            await self._finish(names.REBOOTS, raw, "NodeReady", True, "Succeeded", "node is ready")
        elif self._is_late(node, status):
            await self._finish(
                names.REBOOTS, raw, "NodeReady", False, "Timeout", "not ready in time"
            )

    async def _end(self, raw: Json) -> None:
        node, uid = raw["spec"]["nodeName"], raw["metadata"]["uid"]
        if _is_over(raw):
            await self._lock.release(node, uid)
            return
        raw = await self._start(names.TERMINATIONS, raw, "NodeTerminated")
        status = raw.get("status") or {}
        if not _is_signalled(status):
            if self.manual or not _is_mine(status) or not await self._may(names.TERMINATIONS, raw):
                return
            sent = self._provider.terminate(node, force=bool(raw["spec"].get("force")))
            await self._signalled(names.TERMINATIONS, raw, sent, "NodeTerminated")
        elif self._provider.is_gone(node):
            for pod in self._cluster.pods_on(node):
                await self._cluster.remove(PODS, pod, by=BY, at_once=True)
            there = self._cluster.node(node)
            if there is not None:
                await self._cluster.remove(NODES, there, by=BY)
            await self._finish(
                names.TERMINATIONS, raw, "NodeTerminated", True, "Succeeded", "node is gone"
            )
        elif self._is_late(node, status):
            await self._finish(
                names.TERMINATIONS, raw, "NodeTerminated", False, "Timeout", "not gone in time"
            )

    # ── steps that both have ──────────────────────────────────────────────────────────────────

    async def _start(self, kind: Kind, raw: Json, complete: str) -> Json:
        """Acknowledge a CR that is new."""
        if (raw.get("status") or {}).get("startTime"):
            return raw
        now = self._cluster.stamp()
        new = [
            new_condition(each, "Unknown", "Initializing", now) for each in ("SignalSent", complete)
        ]
        if self.manual:
            new.append(new_condition("ManualMode", True, "OutsideActorRequired", now))
        return await self._cluster.report(kind, raw, {"startTime": now}, *new, by=BY)

    async def _may(self, kind: Kind, raw: Json) -> bool:
        node = raw["spec"]["nodeName"]
        if self._cluster.node(node) is None:
            complete = "NodeReady" if kind is names.REBOOTS else "NodeTerminated"
            await self._finish(kind, raw, complete, False, "Failed", "there is no such node")
            return False
        return await self._lock.take(node, kind, raw)

    async def _signalled(self, kind: Kind, raw: Json, sent: bool, complete: str) -> None:
        now = self._cluster.stamp()
        if sent:
            new = new_condition("SignalSent", True, "Succeeded", now)
            await self._cluster.report(kind, raw, {}, new, by=BY)
            return
        new = new_condition("SignalSent", False, "Failed", now, "the provider refused the signal")
        raw = await self._cluster.report(kind, raw, {}, new, by=BY)
        await self._finish(kind, raw, complete, False, "Failed", "the signal was not sent")

    async def _finish(
        self, kind: Kind, raw: Json, complete: str, done: bool, reason: str, message: str
    ) -> None:
        now = self._cluster.stamp()
        new = new_condition(complete, done, reason, now, message)
        await self._cluster.report(kind, raw, {"completionTime": now}, new, by=BY)

    async def _expire(self, over: tuple[Kind, Json]) -> None:
        """Note when a CR that is over may go, and let it go then."""
        kind, raw = over
        notes = raw["metadata"].get("annotations") or {}
        if names.PRESERVE in notes:
            return
        ended = datetime.fromisoformat(raw["status"]["completionTime"])
        expiry = ended + timedelta(seconds=self._timings.ttl_s)
        if names.EXPIRY not in notes:
            told = {names.EXPIRY: expiry.strftime("%Y-%m-%dT%H:%M:%SZ")}
            await self._cluster.update(kind, raw, lambda whole: note(whole, told), by=BY)
        elif self._cluster.now >= expiry:
            await self._cluster.remove(kind, raw, by=BY)

    def _has_come_back(self, node: str, status: Json) -> bool:
        """Whether somebody rebooted it since: a silent provider's node was never away."""
        sent = condition(status.get("conditions"), "SignalSent")
        since = datetime.fromisoformat(sent["lastTransitionTime"]) if sent else self._cluster.now
        return self._provider.returned_at(node) >= since

    def _is_late(self, node: str, status: Json) -> bool:
        if self._provider.is_silent(node):
            return False  # an error of the provider is tried again, and hides the timeout
        began = datetime.fromisoformat(status["startTime"])
        return self._cluster.now >= began + timedelta(seconds=self._timings.give_up_s)


def _is_over(raw: Json) -> bool:
    return "completionTime" in (raw.get("status") or {})


def _is_signalled(status: Json) -> bool:
    sent = condition(status.get("conditions"), "SignalSent")
    return sent is not None and sent["status"] == "True"


def _is_mine(status: Json) -> bool:
    """Whether nobody else was asked to act."""
    return condition(status.get("conditions"), "ManualMode") is None
