"""One cluster with NVSentinel on it: what is known by one watch of each kind, and fresh looks.

Reads for people come from the caches and say how old they are. What a change rests on is asked of
the API server in that moment (`look`).
"""

from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import anyio

from interlock_servers.nvsentinel import names
from interlock_servers.nvsentinel.models import Budget, Module, Node, Past, Pod, Request
from interlock_servers.nvsentinel.reading import Reading, budget, module, past, request_of
from interlock_servers.nvsentinel.settings import NvsentinelSettings
from interlock_servers.transports.kube.cache import KindCache, Known, Snapshot
from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.connection import Json
from interlock_servers.transports.kube.kinds import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    EVENTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    Kind,
)
from interlock_servers.transports.kube.leases import Held, read_lease
from interlock_tools.clock import Clock
from interlock_tools.errors import NotFoundError


@dataclass(frozen=True)
class Look:
    """One node as the API server shows it in one moment.

    Attributes:
        raw: the node's object, for a patch that is made for it.
        pods: on it, with their labels.
        lease: its maintenance lock, whoever has it; None where nobody does.
    """

    node: Node
    raw: Json
    pods: tuple[Pod, ...]
    lease: Held | None
    at: datetime


class NvsentinelClient:
    """Follows one cluster while it is entered."""

    def __init__(self, settings: NvsentinelSettings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.kube = KubeClient(
            settings.cluster, clock, field_manager=names.FIELD_MANAGER, component="nvsentinel"
        )
        self.reading = Reading(settings)
        own = settings.namespace
        self.nodes = KindCache[Node](self.kube, NODES, self.reading.node)
        self.pods = KindCache[Pod](
            self.kube,
            PODS,
            self.reading.pod,
            indexes={
                "node": lambda pod: [pod.node],
                "restarted": lambda pod: [pod.namespace] if pod.restarts else [],
            },
        )
        self.modules = KindCache[Module](self.kube, DEPLOYMENTS, module, namespace=own)
        # By name, each with a watch of its own: the others of the namespace are not ours to read.
        self.config = {
            name: KindCache[dict[str, str]](
                self.kube, CONFIG_MAPS, _data, namespace=own, fields=f"metadata.name={name}"
            )
            for name in (names.BREAKER, names.QUARANTINER)
        }
        self.leases = KindCache[Held](self.kube, LEASES, read_lease, namespace=own)
        self.tenants = KindCache[dict[str, str]](self.kube, NAMESPACES, _labels)
        self.budgets = KindCache[Budget](self.kube, DISRUPTION_BUDGETS, budget)
        self.past = KindCache[Past](
            self.kube,
            EVENTS,
            past,
            namespace=settings.events_namespace,
            fields="involvedObject.kind=Node",
            indexes={"node": lambda event: [event.node]},
        )
        self.requests = {
            kind.kind: KindCache[Request](
                self.kube, kind, request_of(kind.kind), indexes={"node": lambda one: one.nodes}
            )
            for kind in names.REQUESTS
        }
        self._stack = AsyncExitStack()

    @property
    def caches(self) -> dict[str, KindCache[Any]]:
        """Every cache, by the name of its kind."""
        own: tuple[KindCache[Any], ...] = (
            self.nodes,
            self.pods,
            self.modules,
            self.leases,
            self.tenants,
            self.budgets,
            self.past,
        )
        config = {f"configmaps {name}": cache for name, cache in self.config.items()}
        named = {cache.kind.name: cache for cache in (*own, *self.requests.values())}
        return {**named, **config}

    async def __aenter__(self) -> Self:
        """Begin to follow it; whether anybody is there shows in `snapshots`.

        Raises:
            InvalidRequestError: the credentials cannot be used.
        """
        await self._stack.enter_async_context(self.kube)
        tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(tasks.cancel_scope.cancel)
        for cache in self.caches.values():
            tasks.start_soon(cache.run)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def listed(self) -> None:
        """Wait until everything was listed once, or is known not to be served."""
        for cache in self.caches.values():
            await cache.listed.wait()

    # ── how it stands ─────────────────────────────────────────────────────────────────────────

    def snapshots(self) -> dict[str, Snapshot]:
        """How each cache stands, by the name of its kind."""
        return {name: cache.snapshot() for name, cache in self.caches.items()}

    def observed(self, *caches: KindCache[Any]) -> tuple[datetime, datetime | None]:
        """Up to when an answer from these is complete, and since when it is out of date, if it is.

        Kinds that are not served take nothing from it.
        """
        snapshots = [cache.snapshot() for cache in caches]
        now = self.clock.now()
        there = [one for one in snapshots if one.known is not Known.ABSENT]
        at = min((one.observed_at or _NEVER for one in there), default=now)
        stale = any(one.known is not Known.FRESH for one in there)
        return at, at if stale else None

    def unknown(self, *caches: KindCache[Any]) -> str | None:
        """What cannot be said, because these were never listed; None where all were."""
        silent = [
            f"{cache.kind.name} ({cache.snapshot().why})"
            for cache in caches
            if cache.snapshot().known is Known.NEVER
        ]
        return f"never listed: {'; '.join(silent)}" if silent else None

    def requests_of(self, node: str) -> list[Request]:
        """Every request about a node, newest first."""
        found = [one for cache in self.requests.values() for one in cache.by("node", node)]
        return newest_first(found)

    def all_requests(self) -> list[Request]:
        """Every request, newest first."""
        return newest_first(one for cache in self.requests.values() for one in cache.values())

    def is_work(self, pod: Pod) -> bool:
        """Whether somebody works there: no system pod, none of its node's own, none that ended."""
        return not (pod.bound or pod.ended or self.reading.is_system(pod.namespace))

    def tenant_of(self, namespace: str) -> str:
        """Whose a namespace is."""
        label = self.settings.tenant_label
        named = (self.tenants.find(namespace) or {}).get(label) if label else None
        return named or namespace

    # ── fresh looks ───────────────────────────────────────────────────────────────────────────

    async def node(self, name: str) -> tuple[Node, Json]:
        """A node now, and its object.

        Raises:
            NotFoundError: there is none.
            FactoryError: the API server did not answer, or the node cannot be read.
        """
        raw = await self.kube.get(NODES, name)
        try:
            return self.reading.node(raw), raw
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotFoundError(f"node {name!r} cannot be read: {error}") from error

    async def look(self, name: str) -> Look:
        """A node with its pods and its lease now.

        Raises:
            NotFoundError: there is none.
            FactoryError: the API server did not answer.
        """
        at = self.clock.now()
        node, raw = await self.node(name)
        pods = await self.kube.all(PODS, fields=f"spec.nodeName={name}")
        return Look(node, raw, tuple(map(self.reading.pod_whole, pods)), await self.lease(name), at)

    async def lease(self, node: str) -> Held | None:
        """The maintenance lock of a node.

        It has no holder and no end (NVSentinel writes neither): that it exists is that it is held,
        by the object that owns it.
        """
        try:
            return read_lease(await self.kube.get(LEASES, node, self.settings.namespace))
        except NotFoundError:
            return None

    async def request(self, kind: Kind, name: str) -> tuple[Request, Json]:
        """A request now, and its object.

        Raises:
            NotFoundError: there is none, or its kind is not served.
        """
        raw = await self.kube.get(kind, name)
        return request_of(kind.kind)(raw), raw

    async def serves(self, kind: Kind) -> bool:
        """Whether the API server serves a kind, in a version that we read."""
        return not await self.kube.discovery.missing((kind,))

    async def every_request(self, node: str) -> list[Request]:
        """What was asked for a node, as it stands now, of every kind that is served."""
        found: list[Request] = []
        for kind in names.REQUESTS:
            if await self.serves(kind):
                read = request_of(kind.kind)
                found += map(read, await self.kube.all(kind))
        return newest_first(one for one in found if node in one.nodes)


def newest_first(requests: Iterable[Request]) -> list[Request]:
    """In the order of their making; one without a moment comes last."""
    return sorted(requests, key=lambda one: (one.created_at or _NEVER, one.name), reverse=True)


def _data(raw: Json) -> dict[str, str]:
    return {str(key): str(value) for key, value in (raw.get("data") or {}).items()}


def _labels(raw: Json) -> dict[str, str]:
    return dict((raw.get("metadata") or {}).get("labels") or {})


_NEVER = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
