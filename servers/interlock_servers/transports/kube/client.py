"""The API of one cluster: reads by kind, and writes that lock, can be rehearsed, and go once.

Every patch of an object carries the resource version that its writer saw, or a `test` of what it
saw: what somebody else changed meanwhile is a conflict, not overwritten.
"""

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from interlock_servers.transports.kube.connection import PATCH_TYPES, Connection, Json
from interlock_servers.transports.kube.discovery import Discovery
from interlock_servers.transports.kube.kinds import PODS, Kind, ServedKind
from interlock_servers.transports.kube.settings import ClusterSettings
from interlock_tools.clock import Clock
from interlock_tools.errors import InvalidRequestError, NotFoundError

COMPONENT = "kubernetes"


class Page(NamedTuple):
    """Some objects of a listing; `resource_version` is of the whole of it."""

    items: list[Json]
    resource_version: str


class KubeClient:
    """One cluster, as one writer.

    Attributes:
        field_manager: who we are in `managedFields`.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        clock: Clock,
        *,
        field_manager: str,
        component: str = COMPONENT,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.field_manager = field_manager
        self.connection = Connection(settings, clock, component=component)
        self.discovery = Discovery(self.connection)

    async def __aenter__(self) -> Self:
        """Read the credentials; who is there shows with the first call.

        Raises:
            InvalidRequestError: the credentials cannot be used.
        """
        await self.connection.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.connection.__aexit__(kind, error, trace)

    # ── reads ─────────────────────────────────────────────────────────────────────────────────

    async def served(self, kind: Kind) -> ServedKind:
        """How this server serves the kind.

        Raises:
            NotFoundError: it does not, or in versions that nobody here reads.
        """
        return await self.discovery.find(kind)

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Json:
        """One object as the server has it now.

        Raises:
            NotFoundError: there is none, or the kind is not served.
            UnavailableError: no answer.
        """
        served = await self.served(kind)
        return await self.connection.read(served.path(_space(kind, namespace), name))

    async def pages(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
    ) -> AsyncIterator[Page]:
        """A listing, page by page; its objects are of one moment.

        Raises:
            ExpiredError: the listing took longer than the server remembers: begin again.
            NotFoundError: the kind is not served.
            UnavailableError: no answer.
        """
        served = await self.served(kind)
        path = served.path(namespace)
        query: dict[str, Any] = {
            "limit": self.settings.page,
            "labelSelector": labels,
            "fieldSelector": fields,
        }
        while True:
            found = await self.connection.read(path, query)
            about = found.get("metadata") or {}
            yield Page(list(found.get("items") or ()), str(about.get("resourceVersion", "")))
            more = about.get("continue")
            if not more:
                return
            query["continue"] = more

    async def all(
        self, kind: Kind, *, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> list[Json]:
        """Every object of a listing; see `pages`."""
        found: list[Json] = []
        async for page in self.pages(kind, namespace=namespace, labels=labels, fields=fields):
            found += page.items
        return found

    # ── writes ────────────────────────────────────────────────────────────────────────────────

    async def create(
        self, kind: Kind, body: Json, *, namespace: str | None = None, dry_run: bool = False
    ) -> Json:
        """Make one object.

        Raises:
            ConflictError: one of that name exists; nothing was done.
            InvalidRequestError: the server finds it invalid; nothing was done.
            FactoryError: see `Connection.write`.
        """
        served = await self.served(kind)
        whole = {"apiVersion": served.api_version, "kind": kind.kind, **body}
        path = served.path(_space(kind, namespace))
        return await self.connection.write("POST", path, self._query(dry_run), whole)

    async def patch(
        self,
        kind: Kind,
        name: str,
        changes: Sequence[Json],
        *,
        seen: Json,
        namespace: str | None = None,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Json:
        """Change parts of an object, if it still is what was seen.

        `changes` are operations of JSON Patch (RFC 6902), made for the object `seen`, whose
        resource version goes along: one that changed or was made anew since is left alone.

        Raises:
            ConflictError: it changed since; nothing was done.
            InvalidRequestError: nothing to change, or the server finds it invalid.
            FactoryError: see `Connection.write`.
        """
        version = (seen.get("metadata") or {}).get("resourceVersion")
        if not changes or not version:
            raise InvalidRequestError(
                f"{kind.name} {name}: a patch needs changes, and the object that it was made for"
            )
        served = await self.served(kind)
        path = served.path(_space(kind, namespace), name, subresource)
        # The server compares it with its own, and answers 409 where that has moved on.
        lock = {"op": "replace", "path": "/metadata/resourceVersion", "value": version}
        return await self.connection.write(
            "PATCH",
            path,
            self._query(dry_run),
            [lock, *changes],
            content=PATCH_TYPES["json"],
        )

    async def apply(
        self,
        kind: Kind,
        body: Json,
        *,
        namespace: str | None = None,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Json:
        """Server-side apply: the fields of `body` are ours from now on.

        It is never forced: a field that another manager holds is a conflict that names it.

        Raises:
            ConflictError: another manager holds a field; nothing was done.
            FactoryError: see `Connection.write`.
        """
        served = await self.served(kind)
        name = str((body.get("metadata") or {}).get("name") or "")
        if not name:
            raise InvalidRequestError(f"{kind.name}: what is applied needs a name")
        whole = {"apiVersion": served.api_version, "kind": kind.kind, **body}
        path = served.path(_space(kind, namespace), name, subresource)
        query = {**self._query(dry_run), "force": "false"}
        return await self.connection.write(
            "PATCH", path, query, whole, content=PATCH_TYPES["apply"]
        )

    async def delete(
        self,
        kind: Kind,
        name: str,
        *,
        seen: Json,
        namespace: str | None = None,
        dry_run: bool = False,
    ) -> Json:
        """Delete the object that was seen, and no later one of its name.

        Raises:
            ConflictError: it is another one, or changed since; nothing was done.
            NotFoundError: it is gone already.
            FactoryError: see `Connection.write`.
        """
        about = seen.get("metadata") or {}
        if not about.get("uid") or not about.get("resourceVersion"):
            raise InvalidRequestError(
                f"{kind.name} {name}: a delete needs the object that was seen"
            )
        served = await self.served(kind)
        options: Json = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": about["uid"], "resourceVersion": about["resourceVersion"]},
        }
        if dry_run:
            options["dryRun"] = ["All"]  # beside a body the query's dryRun is not looked at
        path = served.path(_space(kind, namespace), name)
        return await self.connection.write("DELETE", path, body=options)

    async def evict(self, pod: str, namespace: str, *, dry_run: bool = False) -> Json:
        """Ask for the eviction of a pod, which its disruption budgets may refuse.

        Raises:
            ComponentError: `NOT_NOW`: a budget forbids it now; nothing was done.
            NotFoundError: no such pod, or the server has no evictions.
            FactoryError: see `Connection.write`.
        """
        served = await self.served(PODS)
        if "eviction" not in served.subresources:
            raise NotFoundError(f"{self.settings.name} offers no evictions")
        body: Json = {
            "apiVersion": served.subresources["eviction"],  # v1beta1 before Kubernetes 1.22
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
        }
        if dry_run:
            body["deleteOptions"] = {"dryRun": ["All"]}
        path = served.path(namespace, pod, "eviction")
        return await self.connection.write("POST", path, self._query(dry_run), body)

    async def scale(
        self,
        kind: Kind,
        name: str,
        replicas: int,
        *,
        seen: Json,
        namespace: str | None = None,
        dry_run: bool = False,
    ) -> Json:
        """Set the replicas of what has a scale; `seen` is that scale as it was read.

        Raises:
            ConflictError: it changed since; nothing was done.
            FactoryError: see `Connection.write`.
        """
        served = await self.served(kind)
        path = served.path(_space(kind, namespace), name, "scale")
        body = {**seen, "spec": {**(seen.get("spec") or {}), "replicas": replicas}}
        return await self.connection.write("PUT", path, self._query(dry_run), body)

    async def get_scale(self, kind: Kind, name: str, namespace: str | None = None) -> Json:
        """The scale of an object: wanted and present replicas."""
        served = await self.served(kind)
        return await self.connection.read(served.path(_space(kind, namespace), name, "scale"))

    def _query(self, dry_run: bool) -> dict[str, Any]:
        return {"fieldManager": self.field_manager, **_dry(dry_run)}


def _dry(dry_run: bool) -> dict[str, Any]:
    return {"dryRun": "All"} if dry_run else {}


def _space(kind: Kind, namespace: str | None) -> str | None:
    """The namespace of one object.

    Raises:
        InvalidRequestError: it is missing, or the kind has none.
    """
    if kind.namespaced == (namespace is None):
        has = "lives in a namespace: name it" if kind.namespaced else "has no namespace"
        raise InvalidRequestError(f"{kind.name} {has}")
    return namespace
