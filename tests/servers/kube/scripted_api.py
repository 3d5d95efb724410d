"""An API server that says what it is told to: for what no honest one ever does.

It serves discovery and one collection of nodes, and can hang, break, lie and be slow.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from interlock_servers.transports.embedded import EmbeddedServer

Json = dict[str, Any]
VERBS = ["create", "delete", "get", "list", "patch", "watch"]


def node(name: str, version: int, **spec: Any) -> Json:
    """A node as an API server shows it."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)},
        "spec": spec,
    }


class ScriptedApi:
    """What it shall say, and what it was asked.

    Attributes:
        nodes: what a listing shows.
        version: the resource version of a listing.
        watches: for each watch in turn, the lines that it says; then it stays silent. Once they
            are used up, a watch says nothing.
        answer: what it says instead to a request; None lets the usual answer through.
    """

    def __init__(self) -> None:
        self.nodes: list[Json] = []
        self.version = 1
        self.watches: list[list[Json | bytes]] = []
        self.answer: Callable[[Request], Response | None] = lambda request: None
        self.hangs = anyio.Event()
        self.hanging = False
        self.asked: list[str] = []
        self.lists = 0
        self.url = ""

    async def respond(self, request: Request) -> Response:
        """One answer."""
        self.asked.append(f"{request.method} {request.url.path}")
        if self.hanging:
            await self.hangs.wait()
        scripted = self.answer(request)
        if scripted is not None:
            return scripted
        match request.url.path:
            case "/api":
                return JSONResponse({"kind": "APIVersions", "versions": ["v1"]})
            case "/apis":
                return JSONResponse({"kind": "APIGroupList", "groups": []})
            case "/api/v1":
                nodes = {"name": "nodes", "kind": "Node", "namespaced": False, "verbs": VERBS}
                return JSONResponse({"kind": "APIResourceList", "resources": [nodes]})
            case "/api/v1/nodes" if request.query_params.get("watch"):
                lines = self.watches.pop(0) if self.watches else []
                return StreamingResponse(self._say(lines), media_type="application/json")
            case "/api/v1/nodes":
                self.lists += 1
                about = {"resourceVersion": str(self.version)}
                return JSONResponse({"kind": "NodeList", "metadata": about, "items": self.nodes})
        return JSONResponse(status(404, "NotFound", "no such thing"), status_code=404)

    async def _say(self, lines: list[Json | bytes]) -> AsyncIterator[bytes]:
        for line in lines:
            yield line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
        await self.hangs.wait()


def status(code: int, reason: str, message: str, **details: Any) -> Json:
    """A `Status` object as a server sends it."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
        "details": details,
    }


@asynccontextmanager
async def scripted_api() -> AsyncIterator[ScriptedApi]:
    """Run one on loopback."""
    api = ScriptedApi()
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", api.respond, methods=methods)])
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=1
    )
    server = EmbeddedServer(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        await server.ready.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
        api.url = f"http://127.0.0.1:{port}"
        try:
            yield api
        finally:
            api.hangs.set()
            server.should_exit = True


def kubeconfig(folder: Path, url: str) -> Path:
    """A kubeconfig for it."""
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "scripted",
                "clusters": [{"name": "scripted", "cluster": {"server": url}}],
                "users": [{"name": "tester", "user": {"token": "t0k3n"}}],
                "contexts": [
                    {"name": "scripted", "context": {"cluster": "scripted", "user": "tester"}}
                ],
            }
        )
    )
    return path
