"""The HTTP side: what a request asks for goes to the part that knows, and comes back as JSON."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from interlock_servers.transports.kube.embedded import eviction, reads, requests, scale
from interlock_servers.transports.kube.embedded.access import Access, Attributes, User
from interlock_servers.transports.kube.embedded.registry import CRDS, Registry, has_expressions
from interlock_servers.transports.kube.embedded.requests import Asked
from interlock_servers.transports.kube.embedded.resources import Resource
from interlock_servers.transports.kube.embedded.statuses import (
    ApiError,
    Cause,
    bad_request,
    invalid,
    method_not_allowed,
    no_such_path,
)
from interlock_servers.transports.kube.embedded.store import Key, Store
from interlock_servers.transports.kube.embedded.writes import Writer

Json = dict[str, Any]
VERSION: Final = {  # what it is like; `gitVersion` says that it is none of the released ones
    "major": "1",
    "minor": "34",
    "gitVersion": "v1.34.0+interlock-embedded",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "",
}
_HEALTH: Final = ("/healthz", "/livez", "/readyz")
_METHODS: Final = ("GET", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Parts:
    """The parts of one server; `watches` counts those that are open, by what they watch."""

    store: Store
    registry: Registry
    writer: Writer
    access: Access
    closing: anyio.Event
    watches: Counter[str]


class Answers:
    """Answers every request of one server."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store, self._registry, self._writer = parts.store, parts.registry, parts.writer

    async def answer(self, request: Request) -> Response:
        """The answer; a refusal is a Status."""
        try:
            user = self._parts.access.user(request.headers.get("authorization", ""))
            return await self._answer(request, user)
        except ApiError as error:
            after = (error.status.get("details") or {}).get("retryAfterSeconds")
            headers = {} if after is None else {"Retry-After": str(after)}
            return _json(error.status, error.code, headers)

    async def _answer(self, request: Request, user: User) -> Response:
        path, query = request.url.path, request.query_params
        asked = requests.parse_path(path)
        if asked is None or not asked.plural:
            self._parts.access.check(user, Attributes(request.method.lower(), path=path))
            return self._about(path.rstrip("/"))
        verb = requests.verb_of(request.method, asked, query)
        what = f"{asked.plural}/{asked.subresource}".rstrip("/")
        name = requests.name_of(asked, query)
        self._parts.access.check(user, Attributes(verb, asked.group, what, asked.namespace, name))
        resource = self._registry.find(asked.group, asked.version, asked.plural)
        if resource is None:
            if self._registry.resources(asked.group, asked.version) is None:
                return Response("404 page not found\n", 404, media_type="text/plain")
            raise no_such_path()
        if resource.review:
            return await self._review(request, resource, user)
        namespace = asked.namespace if resource.namespaced else ""
        if resource.namespaced and not namespace and asked.name:
            raise no_such_path()
        if asked.subresource:
            return await self._below(request, resource, asked, (namespace, asked.name))
        if asked.name:
            return await self._one(request, resource, (namespace, asked.name))
        return await self._all(request, resource, asked, namespace)

    def _about(self, path: str) -> Response:
        if path in _HEALTH:
            return Response("ok", media_type="text/plain")
        if path == "/version":
            return _json(VERSION)
        if path == "/api":
            return _json(
                {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
            )
        if path == "/apis":
            groups = self._registry.groups()
            return _json({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        parts = path.strip("/").split("/")
        found = None
        if parts[0] == "apis" and len(parts) == 2:
            found = self._registry.group(parts[1])
        elif parts[0] == "apis" and len(parts) == 3:
            found = self._registry.resources(parts[1], parts[2])
        elif parts[0] == "api" and len(parts) == 2:
            found = self._registry.resources("", parts[1])
        if found is None:
            raise no_such_path()
        return _json(found)

    # --- a collection ---

    async def _all(
        self, request: Request, resource: Resource, asked: Asked, namespace: str
    ) -> Response:
        query = request.query_params
        within = namespace if resource.namespaced and asked.namespace else None
        if request.method == "GET":
            wanted = reads.wanted(resource, query)
            if query.get("watch") in ("1", "true"):
                return self._watch(request, resource, within, wanted)
            return _raw(reads.listed(self._store, resource, within, wanted))
        if request.method == "POST" and (within is not None or not resource.namespaced):
            options = requests.write_options(request, "CreateOptions")
            body = await requests.read_body(request)
            made = self._writer.create(resource, namespace, body, options)
            return _json(made, 201, _warnings(resource, made))
        if request.method == "DELETE" and "deletecollection" in resource.verbs:
            return await self._delete_all(request, resource, within)
        raise method_not_allowed()

    def _watch(
        self, request: Request, resource: Resource, within: str | None, wanted: reads.Wanted
    ) -> Response:
        query = request.query_params
        lasts = query.get("timeoutSeconds", "")
        if lasts and not lasts.isdigit():
            raise bad_request(f'strconv.ParseInt: parsing "{lasts}": invalid syntax')
        watch = reads.Watch(
            self._store,
            resource,
            within,
            wanted,
            bookmarks=query.get("allowWatchBookmarks") in ("1", "true"),
            lasts_s=float(lasts) if lasts and lasts != "0" else reads.WATCH_LASTS_S,
            closing=self._parts.closing,
        )
        what = f"{resource.plural} {query.get('fieldSelector', '')}".rstrip()
        lines = self._counted(what, watch.stream())
        return StreamingResponse(lines, media_type="application/json")

    async def _counted(self, what: str, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._parts.watches[what] += 1
        try:
            async for line in lines:
                yield line
        finally:
            self._parts.watches[what] -= 1

    async def _delete_all(
        self, request: Request, resource: Resource, within: str | None
    ) -> Response:
        options, dry_run = await _delete_options(request)
        wanted = reads.wanted(resource, request.query_params)
        listed = reads.listed(self._store, resource, within, wanted)
        for entry in self._store.table(resource.key).within(within):
            if wanted.test is None or wanted.test(entry):
                self._writer.delete(resource, entry.key, options, dry_run=dry_run)
        return _raw(listed)

    # --- one object ---

    async def _one(self, request: Request, resource: Resource, key: Key) -> Response:
        if request.method not in _METHODS:
            raise method_not_allowed()
        if request.method == "GET":
            version = request.query_params.get("resourceVersion", "")
            if version.isdigit():
                reads.check_not_ahead(self._store, int(version))
            entry = self._writer.entry(resource, key)
            return _raw(resource.prefix + entry.body)
        if request.method == "DELETE":
            options, dry_run = await _delete_options(request)
            return _json(self._writer.delete(resource, key, options, dry_run=dry_run))
        return await self._write(request, resource, key, "")

    async def _write(
        self, request: Request, resource: Resource, key: Key, subresource: str
    ) -> Response:
        if request.method == "PUT":
            options = requests.write_options(request, "UpdateOptions")
            body = await requests.read_body(request)
            return _json(self._writer.replace(resource, key, subresource, body, options))
        media = requests.media_type(request)
        options = requests.write_options(request, "PatchOptions")
        raw = await request.body()
        value, made = self._writer.patch(resource, key, subresource, media, raw, options)
        return _json(value, 201 if made else 200, _warnings(resource, value))

    async def _below(
        self, request: Request, resource: Resource, asked: Asked, key: Key
    ) -> Response:
        method, subresource = request.method, asked.subresource
        if subresource == "eviction" and resource.key == "/pods":
            if method != "POST":
                raise method_not_allowed()
            return await self._evict(request, resource, key)
        known = (subresource == "status" and resource.status) or (
            subresource == "scale" and resource.scale is not None
        )
        if not known:
            raise no_such_path()
        if method not in ("GET", "PUT", "PATCH"):
            raise method_not_allowed()
        if subresource == "scale" and resource.scale is not None:
            if method == "GET":
                return _json(scale.scale_of(self._writer.read(resource, key), resource.scale))
            kind = "UpdateOptions" if method == "PUT" else "PatchOptions"
            options = requests.write_options(request, kind)
            media = None if method == "PUT" else requests.media_type(request)
            raw = await request.body()
            return _json(scale.rescale(self._writer, resource, key, media, raw, options))
        if method == "GET":
            return _raw(resource.prefix + self._writer.entry(resource, key).body)
        return await self._write(request, resource, key, "status")

    async def _evict(self, request: Request, pods: Resource, key: Key) -> Response:
        options = requests.write_options(request, "CreateOptions")
        body = await requests.read_body(request)
        budgets = self._registry.stored().get(eviction.BUDGETS)
        done = eviction.evict(self._writer, self._store, (pods, budgets), key, body, options)
        return _json(done, 201)

    # --- reviews ---

    async def _review(self, request: Request, resource: Resource, user: User) -> Response:
        if request.method != "POST":
            raise method_not_allowed()
        body = await requests.read_body(request)
        spec = body.get("spec") or {}
        asks, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        about = user
        if resource.kind == "SubjectAccessReview":
            if not spec.get("user") and not spec.get("groups"):
                says = "at least one of user or group must be specified"
                raise invalid(
                    resource.group, resource.kind, "", [Cause.required("spec.user", says)]
                )
            about = User(spec.get("user", ""), tuple(spec.get("groups") or ()))
        if (asks is None) == (path is None):
            says = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            cause = Cause.invalid("spec.resourceAttributes", "", says)
            raise invalid(resource.group, resource.kind, "", [cause])
        why = self._parts.access.why(about, _attributes(asks, path))
        status: Json = {"allowed": why is not None}
        if why:
            status["reason"] = why
        answer = {
            "kind": resource.kind,
            "apiVersion": resource.api_version,
            "metadata": {"creationTimestamp": None},
            "spec": spec,
            "status": status,
        }
        return _json(answer, 201)


def _attributes(asks: Mapping[str, str] | None, path: Mapping[str, str] | None) -> Attributes:
    if asks is None:
        path = path or {}
        return Attributes(path.get("verb", ""), path=path.get("path", ""))
    what = "/".join(filter(None, (asks.get("resource", ""), asks.get("subresource", ""))))
    return Attributes(
        asks.get("verb", ""),
        asks.get("group", ""),
        what,
        asks.get("namespace", ""),
        asks.get("name", ""),
    )


async def _delete_options(request: Request) -> tuple[Json, bool]:
    """How to delete: what the body says, or else the query."""
    body = await requests.read_body(request, empty=True)
    options = dict(body) if isinstance(body, dict) else {}
    query = request.query_params
    grace = query.get("gracePeriodSeconds", "")
    if grace:
        if not grace.isdigit():
            raise bad_request(f'strconv.ParseInt: parsing "{grace}": invalid syntax')
        options.setdefault("gracePeriodSeconds", int(grace))
    if query.get("propagationPolicy"):
        options.setdefault("propagationPolicy", query["propagationPolicy"])
    given = [*(options.get("dryRun") or ()), *query.getlist("dryRun")]
    return options, requests.dry_run(given, "DeleteOptions")


def _warnings(resource: Resource, value: Json) -> dict[str, str]:
    """What a caller is told besides the answer."""
    if resource.key == CRDS and has_expressions(value["spec"]):
        return {"Warning": '299 - "x-kubernetes-validations are kept and not evaluated here"'}
    return {}


def _json(value: Json, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    return _raw(body, code, headers)


def _raw(body: bytes, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    head = {"Cache-Control": "no-cache, private", **(headers or {})}
    return Response(body, code, head, media_type="application/json")
