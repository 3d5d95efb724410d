"""A publisher of keys on a loopback socket: what it answers, how slowly, and how often asked."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from interlock_servers.flex.twin import TwinKey, jwks
from interlock_servers.transports.embedded import EmbeddedServer


@dataclass
class KeyPublisher:
    """What it answers at the moment; `hangs` never answers, `where` is its address."""

    keys: list[TwinKey] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    hangs: bool = False
    asked: int = 0
    where: str = ""

    async def answer(self, _: Request) -> Response:
        """The keys, or whatever it was told to say."""
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        body = json.dumps(jwks(self.keys)).encode() if self.body is None else self.body
        return Response(body, self.status, self.headers)


@asynccontextmanager
async def listening(app: Any, **settings: Any) -> AsyncIterator[str]:
    """Serve an application on a free port of this machine and give its address."""
    server = EmbeddedServer(
        uvicorn.Config(
            app, log_level="critical", access_log=False, timeout_graceful_shutdown=1, **settings
        )
    )
    scheme = "https" if settings else "http"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            with anyio.fail_after(20.0):
                await server.ready.wait()
            try:
                yield f"{scheme}://localhost:{listener.getsockname()[1]}"
            finally:
                server.should_exit = server.force_exit = True


@asynccontextmanager
async def publishing(keys: Iterable[TwinKey]) -> AsyncIterator[KeyPublisher]:
    """A publisher of these keys."""
    publisher = KeyPublisher(list(keys))
    async with listening(Starlette(routes=[Route("/jwks", publisher.answer)])) as base:
        publisher.where = f"{base}/jwks"
        yield publisher
