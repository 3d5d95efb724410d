"""A web server inside somebody else's event loop."""

import socket
from collections.abc import Generator
from contextlib import contextmanager

import anyio
import uvicorn


class EmbeddedServer(uvicorn.Server):
    """A web server inside our event loop: it says when it listens, and leaves signals to us."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = anyio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield
