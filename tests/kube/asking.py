"""How the promises ask an API server: raw HTTP and raw JSON, no client library in between."""

import itertools
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2

from interlock_servers.transports.kube.embedded import EmbeddedKube

Json = dict[str, Any]
PATIENCE_S = 30.0
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_NUMBERS = itertools.count()
_BASES = {
    "deployments": "/apis/apps/v1",
    "jobs": "/apis/batch/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "roles": RBAC,
    "rolebindings": RBAC,
}


@dataclass(frozen=True)
class Server:
    """One of the two servers, and how it is made to forget the past."""

    name: str
    url: str
    tokens: Mapping[str, str]
    client: Callable[..., httpx2.AsyncClient]
    compact: Callable[[], Awaitable[None]]

    @classmethod
    def embedded(cls, kube: EmbeddedKube, compact: Callable[[], None]) -> "Server":
        """The embedded one, which listens in another thread."""

        def client(persona: str = "admin", timeout_s: float = 30.0) -> httpx2.AsyncClient:
            return httpx2.AsyncClient(
                base_url=kube.url,
                headers={"Authorization": f"Bearer {kube.tokens[persona]}"},
                timeout=timeout_s,
                trust_env=False,
            )

        async def forget() -> None:
            compact()

        return cls("embedded", kube.url, kube.tokens, client, forget)


class Kube:
    """A namespace of one server, and the administrator's hands in it."""

    def __init__(self, server: Server, http: httpx2.AsyncClient) -> None:
        self.server, self.http = server, http
        self.namespace = f"t{os.getpid()}-{next(_NUMBERS)}"

    async def begin(self) -> None:
        """Make the namespace."""
        made = await self.http.post(
            "/api/v1/namespaces", json={"metadata": {"name": self.namespace}}
        )
        assert made.status_code == 201, made.text

    async def end(self) -> None:
        """Begin to delete it; what is left in it goes with it."""
        await self.http.delete(f"/api/v1/namespaces/{self.namespace}")

    def at(self, plural: str, name: str = "", below: str = "") -> str:
        """The path of something in the namespace."""
        parts = [_BASES.get(plural, "/api/v1"), "namespaces", self.namespace, plural, name, below]
        return "/".join(part for part in parts if part)

    async def create(self, plural: str, value: Json, **options: str) -> Json:
        """Create an object; what the server made of it."""
        answer = await self.http.post(self.at(plural), json=value, params=options)
        assert answer.status_code == 201, answer.text
        return body(answer)

    async def get(self, path: str, **options: Any) -> Json:
        """What is there."""
        answer = await self.http.get(path, params=options)
        assert answer.status_code == 200, answer.text
        return body(answer)

    async def patch(
        self, path: str, patch: Any, media: str = MERGE, **options: str
    ) -> httpx2.Response:
        """The answer to a patch."""
        return await self.http.patch(
            path, content=json.dumps(patch), headers={"Content-Type": media}, params=options
        )

    async def apply(self, path: str, config: Json, by: str, **options: str) -> httpx2.Response:
        """The answer to an apply."""
        return await self.patch(path, config, APPLY, fieldManager=by, **options)

    async def config_map(self, name: str = "c", labels: Json | None = None, **data: str) -> Json:
        """A ConfigMap, the plainest of objects."""
        metadata = {"name": name, "labels": labels or {}}
        return await self.create("configmaps", {"metadata": metadata, "data": data})

    async def names(self, path: str, **options: str) -> list[str]:
        """The names of what a list holds."""
        listed = await self.get(path, **options)
        names = [item["metadata"]["name"] for item in listed["items"]]
        return [name for name in names if name != "kube-root-ca.crt"]  # the controllers' own

    async def release(self) -> tuple[int, int]:
        """Which Kubernetes it is like."""
        version = await self.get("/version")
        return int(version["major"]), int(version["minor"].rstrip("+"))

    @asynccontextmanager
    async def watch(self, path: str, **options: Any) -> AsyncIterator[AsyncIterator[Json]]:
        """The events of a watch, one by one; it ends with the context."""
        asked = {"watch": "1", "timeoutSeconds": "20", **options}
        with anyio.fail_after(PATIENCE_S):
            async with self.http.stream("GET", path, params=asked) as answer:
                assert answer.status_code == 200, await answer.aread()
                yield (json.loads(line) async for line in answer.aiter_lines())


def body(answer: httpx2.Response) -> Json:
    """The JSON of an answer."""
    read: Json = answer.json()
    return read


def refused(answer: httpx2.Response, code: int, reason: str) -> Json:
    """The Status of a refusal, which has the shape of every Status."""
    assert answer.status_code == code, answer.text
    assert answer.headers["content-type"] == "application/json"
    status = body(answer)
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert (status["code"], status["reason"]) == (code, reason), status
    return status


def causes(status: Json) -> set[tuple[str, str]]:
    """Reason and field of each cause; before 1.21 a field did not say which item it was."""
    return {
        (cause["reason"], _without_numbers(cause["field"])) for cause in status["details"]["causes"]
    }


def _without_numbers(field: str) -> str:
    return "".join(
        part.partition("]")[2] if number else part for number, part in enumerate(field.split("["))
    )


async def eventually(ask: Callable[[], Awaitable[object]]) -> None:
    """Return as soon as what is asked is true; what controllers do comes a moment later.

    Raises:
        TimeoutError: it was not in time.
    """
    with anyio.fail_after(PATIENCE_S):
        while not await ask():  # noqa: ASYNC110 (another process sets no event)
            await anyio.sleep(0.05)


def pod(name: str, labels: Json | None = None, **spec: Any) -> Json:
    """A Pod that nothing runs."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"containers": [{"name": "main", "image": "example/none:1"}], **spec},
    }


def node(name: str, **spec: Any) -> Json:
    """A Node that nobody keeps."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec}


def deployment(name: str, **spec: Any) -> Json:
    """A Deployment of one container."""
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "main", "image": "example/none:1"}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }
