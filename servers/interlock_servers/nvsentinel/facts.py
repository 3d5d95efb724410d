"""What Kubernetes and NVSentinel can tell the guard about a node, a request, and the cluster.

Everything here is asked of the API server in that moment: a change never rests on a cache. A node's
id is the name of its Kubernetes node, and must be the same in every other component.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from interlock_servers.nvsentinel import COMPONENT, names
from interlock_servers.nvsentinel.client import Look, NvsentinelClient
from interlock_servers.nvsentinel.installed import breaker_of, named
from interlock_servers.nvsentinel.models import Module, Node, Outcome, Pod, Request
from interlock_servers.nvsentinel.reading import module, pci_ids
from interlock_servers.nvsentinel.story import known_gpus, lease_view
from interlock_servers.plant_text import plant_text
from interlock_servers.transports.kube.kinds import CONFIG_MAPS, DEPLOYMENTS, NAMESPACES
from interlock_tools.canonical import digest
from interlock_tools.errors import NotFoundError, UnavailableError
from interlock_tools.fact import Fact, FactNeed, Nature, Unknown

NODE_HEALTH: Final = "node.health"
NODE_QUARANTINE: Final = "node.quarantine"
NODE_OCCUPANCY: Final = "node.occupancy"
NODE_DRAIN: Final = "node.drain"
NODE_LEASE: Final = "node.lease"
NODE_REQUESTS: Final = "node.requests"
NODE_GPUS: Final = "node.gpus"
SENTINEL: Final = "sentinel.installation"
SENTINEL_REACH: Final = "sentinel.reach"
REQUEST: Final = "sentinel.request"
SHOWN: Final = 50  # names of pods in one fact
_OF_NODE: Final = frozenset(
    {
        NODE_HEALTH,
        NODE_QUARANTINE,
        NODE_OCCUPANCY,
        NODE_DRAIN,
        NODE_LEASE,
        NODE_REQUESTS,
        NODE_GPUS,
    }
)
_ACTS: Final = frozenset({names.REBOOTS.kind, names.TERMINATIONS.kind, names.RESETS.kind})
_SUBJECTS: Final = {
    "maintenance_request": names.MAINTENANCE,
    "repair_request": names.REPAIRS,
}


class NvsentinelFacts:
    """A source of facts; what may not be used is `Unknown` with the reason."""

    def __init__(self, client: NvsentinelClient) -> None:
        self._client = client

    @property
    def kinds(self) -> frozenset[str]:
        """`node.*` of nodes, `sentinel.*` of the cluster and of requests."""
        return _OF_NODE | {SENTINEL, SENTINEL_REACH, REQUEST}

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """The fact now."""
        try:
            if need.kind in _OF_NODE:
                if need.subject.kind != "node":
                    raise UnavailableError("this is known of nodes only")
                return await self._of_node(need)
            if need.kind == REQUEST:
                return await self._of_request(need)
            if need.kind not in self.kinds or need.subject != self.cluster(need):
                raise UnavailableError(f"nothing is known of {need.subject}")
            if need.kind == SENTINEL_REACH:
                return await self._reach(need)
            return await self._installation(need)
        except (NotFoundError, UnavailableError) as error:
            return Unknown(kind=need.kind, subject=need.subject, why=str(error))

    def cluster(self, need: FactNeed) -> Any:
        """The one cluster that is known."""
        return need.subject.model_copy(
            update={"kind": "cluster", "id": self._client.settings.cluster.name}
        )

    async def _of_node(self, need: FactNeed) -> Fact:
        client, name, at = self._client, need.subject.id, self._client.clock.now()
        if need.kind == NODE_LEASE:
            await client.node(name)
            held = await client.lease(name)
            return _fact(need, lease_value(lease_view(held)), at, Nature.MEASUREMENT)
        if need.kind == NODE_REQUESTS:
            await client.node(name)
            found = await client.every_request(name)
            return _fact(need, requests_value(found), at, Nature.MEASUREMENT)
        if need.kind in {NODE_HEALTH, NODE_QUARANTINE}:
            node, _ = await client.node(name)
            if need.kind == NODE_HEALTH:
                return _fact(need, health_value(node), at, Nature.MEASUREMENT)
            return _fact(need, quarantine_value(node), at, Nature.IDENTITY)
        look = await client.look(name)
        if need.kind == NODE_GPUS:
            return _fact(need, gpus_value(look), at, Nature.IDENTITY)
        work = [pod for pod in look.pods if client.is_work(pod)]
        if need.kind == NODE_DRAIN:
            return _fact(need, drain_value(look.node, work), at, Nature.MEASUREMENT)
        tenants = await self._tenants(work)
        value = occupancy_value([look.node], work, tenants)
        return _fact(need, value, at, Nature.IDENTITY)

    async def _tenants(self, work: Iterable[Pod]) -> dict[str, str]:
        """Whose each namespace is now."""
        label = self._client.settings.tenant_label
        found: dict[str, str] = {}
        for namespace in sorted({pod.namespace for pod in work}):
            found[namespace] = namespace
            if label is not None:
                raw = await self._client.kube.get(NAMESPACES, namespace)
                named = ((raw.get("metadata") or {}).get("labels") or {}).get(label)
                found[namespace] = named or namespace
        return found

    async def _of_request(self, need: FactNeed) -> Fact:
        kind = _SUBJECTS.get(need.subject.kind)
        if kind is None:
            raise UnavailableError(f"nothing is known of a {need.subject.kind}")
        at = self._client.clock.now()
        found, _ = await self._client.request(kind, need.subject.id)
        acted = await self._acted(found) if kind is names.MAINTENANCE else "not_asked"
        return _fact(need, {**request_value(found), "acted": acted}, at, Nature.IDENTITY)

    async def _acted(self, asked: Request) -> str:
        """Whether what a maintenance asked for beside the drain was done: `yes`, `no`, `not_asked`.

        By the end of a janitor's request that came after it; its own conditions never tell.
        """
        if asked.wants == "NONE":
            return "not_asked"
        done = [
            one
            for node in asked.nodes
            for one in await self._client.every_request(node)
            if one.kind in _ACTS and one.outcome is Outcome.SUCCEEDED and _is_later(one, asked)
        ]
        return "yes" if done else "no"

    async def _installation(self, need: FactNeed) -> Fact:
        client, at = self._client, self._client.clock.now()
        own = client.settings.namespace
        found = [module(raw) for raw in await client.kube.all(DEPLOYMENTS, namespace=own)]
        modules = {one.name: one for one in found}
        config: dict[str, str] | None = None
        try:
            raw = await client.kube.get(CONFIG_MAPS, names.BREAKER, own)
            config = {str(k): str(v) for k, v in (raw.get("data") or {}).items()}
        except NotFoundError:
            pass
        served = {kind.kind: await client.serves(kind) for kind in names.REQUESTS}
        breaker = breaker_of(named(modules, names.QUARANTINER), config)
        value = {
            "running": [
                n for n in names.ACTING if (m := named(modules, n)) and m.wanted and m.ready
            ],
            "dry_run": dry_run(modules),
            "breaker": breaker.state.value,
            "serves": sorted(name for name, is_served in served.items() if is_served),
        }
        return _fact(need, value, at, Nature.MEASUREMENT)

    async def _reach(self, need: FactNeed) -> Fact:
        """Every node that NVSentinel would look at once its breaker is closed again."""
        client = self._client
        at, stale_since = client.observed(client.nodes, client.pods)
        if stale_since is not None or client.unknown(client.nodes, client.pods):
            raise UnavailableError("nodes and pods are not known as they are now")
        nodes = [one for one in client.nodes.values() if one.faults or one.quarantine is not None]
        pods = [p for one in nodes for p in client.pods.by("node", one.name) if client.is_work(p)]
        tenants = {pod.namespace: client.tenant_of(pod.namespace) for pod in pods}
        return _fact(need, occupancy_value(nodes, pods, tenants), at, Nature.MEASUREMENT)


def health_value(node: Node) -> dict[str, Any]:
    """Whether its kubelet calls it ready, which boot it is, and what its monitors find."""
    return {
        "ready": "unknown" if node.ready is None else "yes" if node.ready else "no",
        "faults": sorted(one.type for one in node.faults),
        "unsure": sorted(node.unsure),
        "boot_id": plant_text(node.boot_id),
        "uid": node.uid,
    }


def quarantine_value(node: Node) -> dict[str, Any]:
    """Whose the cordon is, and every event that stands behind it."""
    quarantine = node.quarantine
    events = None if quarantine is None else quarantine.events
    return {
        "cordoned_by": node.cordoned_by.value,
        "quarantined": quarantine is not None,
        "readable": quarantine is None or events is not None,
        "events": [
            {
                "check": one.check,
                "action": one.action,
                "entities": [f"{kind} {value}" for kind, value in one.entities],
            }
            for one in events or ()
        ],
        "opted_out": list(node.opted_out),
        "opted_out_by": plant_text(node.opted_out_by or "nobody"),
        "released": node.released,
        "writers": "unknown"
        if node.cordon_writers is None
        else [plant_text(one) for one in node.cordon_writers],
    }


def occupancy_value(
    nodes: Iterable[Node], work: Iterable[Pod], tenants: dict[str, str]
) -> dict[str, Any]:
    """Who works there: jobs by `namespace/Kind/name`, or by their gang; tenants; GPUs; places."""
    nodes, work = list(nodes), list(work)
    return {
        "hosts": sorted(one.name for one in nodes),
        "gpus": sum(one.gpus for one in nodes),
        "gpus_asked": sum(pod.gpus for pod in work),
        "jobs": sorted({f"{pod.namespace}/{plant_text(pod.gang or pod.job)}" for pod in work}),
        "tenants": sorted({plant_text(tenants[pod.namespace]) for pod in work}),
        "racks": sorted({plant_text(one.rack) for one in nodes if one.rack}),
        "nvlink_domains": sorted(
            {plant_text(one.nvlink_domain) for one in nodes if one.nvlink_domain}
        ),
        "placed": all(one.rack for one in nodes),
    }


def drain_value(node: Node, work: list[Pod]) -> dict[str, Any]:
    """Whether it is empty and stays so: cordoned, and without anybody's pods."""
    return {
        "drained": node.cordoned and not work,
        "cordoned": node.cordoned,
        "stage": plant_text(node.stage or "none"),
        "pods": [
            {
                "pod": f"{pod.namespace}/{pod.name}",
                "devices": "unknown"
                if pod.gpus and pod.devices is None
                else [*(pod.devices or ())],
            }
            for pod in work[:SHOWN]
        ],
        "pod_count": len(work),
    }


def lease_value(holder: str | None) -> dict[str, Any]:
    """Who has the maintenance lock."""
    return {"held": holder is not None, "by": "nobody" if holder is None else plant_text(holder)}


def requests_value(found: Iterable[Request]) -> dict[str, Any]:
    """What is being asked for it and has not ended."""
    return {"open": [f"{one.kind} {one.name}" for one in found if one.outcome is Outcome.OPEN]}


def gpus_value(look: Look) -> dict[str, Any]:
    """Its GPUs as far as Kubernetes knows them by id; `count` is how many it has."""
    texts = [one.message for one in look.node.faults]
    quarantine = look.node.quarantine
    for event in (quarantine.events or ()) if quarantine else ():
        texts += [event.message, *(value for _, value in event.entities)]
    return {
        "count": look.node.gpus,
        "uuids": sorted(known_gpus(look)),
        "pci_ids": sorted({one for text in texts for one in pci_ids(text)}),
    }


def request_value(one: Request) -> dict[str, Any]:
    """A request as it stands; `ours` where one of our changes made it."""
    return {
        "node": one.nodes[0] if one.nodes else "",
        "wants": one.wants,
        "ours": one.change_id is not None and one.name == f"{names.OURS_BEGIN}{one.change_id}",
        "outcome": one.outcome.value,
        "leaving": one.leaving_since is not None,
        "emitted": one.says(names.EMITTED),
        "released": one.says(names.RELEASED),
        "repaired": one.says(names.REPAIRED),
        "uid": one.uid,
    }


def _is_later(one: Request, than: Request) -> bool:
    if one.created_at is None or than.created_at is None:
        return False
    return one.created_at >= than.created_at


def dry_run(modules: dict[str, Module]) -> str:
    """Whether NVSentinel only rehearses: `yes`, `no` or `unknown`."""
    said = [m.dry_run for name in names.ACTING[:3] if (m := named(modules, name))]
    return "yes" if True in said else "unknown" if not said or None in said else "no"


def _fact(need: FactNeed, value: Any, at: datetime, nature: Nature) -> Fact:
    return Fact(
        kind=need.kind,
        subject=need.subject,
        value=value,
        origin=COMPONENT,
        version=digest(value),
        observed_at=at,
        nature=nature,
    )
