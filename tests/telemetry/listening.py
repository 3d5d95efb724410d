"""A web application on a port, for as long as a test needs it."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import uvicorn
from starlette.types import ASGIApp

from interlock_servers.transports.embedded import EmbeddedServer

PATIENCE_S = 20.0


@asynccontextmanager
async def listening(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    """Serve it on this socket."""
    server = EmbeddedServer(uvicorn.Config(app, log_level="warning", access_log=False))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        with anyio.fail_after(PATIENCE_S):
            await server.ready.wait()
        try:
            yield
        finally:
            server.should_exit = True
