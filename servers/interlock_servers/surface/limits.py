"""How much at once, how long and how large over HTTP: the one place where the web server is set up.

What uvicorn has no limit for is added here: a connection must have said what it wants in time.
"""

import asyncio
from typing import Any

import uvicorn
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

MIB = 1024 * 1024


class HttpLimits(BaseModel):
    """Bounds for everybody together, and for one request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connections: int = Field(default=4096, ge=16, description="more are answered 503")
    idle_s: float = Field(default=15.0, gt=0, description="between two requests")
    head_within_s: float = Field(default=10.0, gt=0)
    head_bytes: int = Field(default=32 * 1024, ge=4096)
    body_within_s: float = Field(default=20.0, gt=0)
    body_bytes: int = Field(default=MIB, ge=1024)
    backlog: int = Field(default=1024, ge=1)
    end_within_s: int = Field(default=5, ge=0, description="for what is open when we stop")


def web_server(app: ASGIApp, host: str, limits: HttpLimits) -> uvicorn.Config:
    """The web server for this application."""
    return uvicorn.Config(
        app,
        host=host,
        http=_protocol(limits.head_within_s),
        ws="none",
        log_level="warning",
        access_log=False,  # it would hold what is in a query
        server_header=False,
        proxy_headers=False,  # nobody says for somebody else where a request came from
        limit_concurrency=limits.connections,
        timeout_keep_alive=limits.idle_s,  # type: ignore[arg-type]  # it waits so many seconds
        timeout_graceful_shutdown=limits.end_within_s,
        h11_max_incomplete_event_size=limits.head_bytes,
        backlog=limits.backlog,
    )


def _protocol(within_s: float) -> type[asyncio.Protocol]:
    class Hurried(HurriedProtocol):
        head_within_s = within_s

    return Hurried


class HurriedProtocol(H11Protocol):
    """Closes a connection on which no request is being served and none arrives whole in time."""

    head_within_s: float

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._hurry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection begins, and its time too."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes came; that some did is not enough."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """A request was answered; what is left of its body has to come in time as well."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._calm()
        super().connection_lost(exc)

    def _watch(self) -> None:
        serving = self.cycle is not None and not self.cycle.response_complete
        if serving or self.transport.is_closing():
            self._calm()
        elif self._hurry is None and self.timeout_keep_alive_task is None:
            self._hurry = self.loop.call_later(self.head_within_s, self._give_up)

    def _calm(self) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None

    def _give_up(self) -> None:
        self._hurry = None
        if not self.transport.is_closing():
            self.transport.close()
