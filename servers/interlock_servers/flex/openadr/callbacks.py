"""The small endpoint that a VTN calls when something changed: a reason to ask, and nothing else.

Whoever calls must know the token that we made for this process, and what they say must look like a
notification; even then not a word of it is believed. It makes us ask the VTN sooner, so a forged or
repeated call costs one question, and no more than one in `LEAST_S`.
"""

import hmac
import secrets
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
import uvicorn
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from interlock_servers.flex.models import RejectedError
from interlock_servers.flex.strict_json import parse_object
from interlock_servers.transports.embedded import EmbeddedServer
from interlock_servers.transports.rest import encrypted_url
from interlock_tools.errors import InvalidRequestError

MAX_BYTES: Final = 65_536
LEAST_S: Final = 5.0  # between two questions that calls have made us ask
START_TIMEOUT_S: Final = 20.0
PATH: Final = "/openadr/callback"
_OBJECTS: Final = frozenset({"EVENT", "PROGRAM", "REPORT", "SUBSCRIPTION", "VEN", "RESOURCE"})
_CREATED: Final = frozenset({"CREATE", "POST"})  # 3.1 says CREATE where 3.0 says POST
_OPERATIONS: Final = _CREATED | {"READ", "UPDATE", "DELETE", "GET", "PUT"}


class CallbackSettings(BaseModel):
    """Where a VTN reaches us.

    Attributes:
        url: what it is told to call; TLS ends in front of us, so it is `https` unless it is here.
        host, port: where we listen for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    host: str = "127.0.0.1"
    port: int = Field(default=8475, ge=0, le=65535)

    @field_validator("url")
    @classmethod
    def _is_encrypted(cls, url: str) -> str:
        return encrypted_url(url)


class Callbacks:
    """Listens; `heard` is called for each notification of an event or a program that is sound."""

    def __init__(self, settings: CallbackSettings, heard: Callable[[], None]) -> None:
        self._settings = settings
        self._heard = heard
        self.token = secrets.token_urlsafe(32)  # of this process: it is in no file
        self.taken = 0
        self.refused: Counter[str] = Counter()
        self.port = settings.port

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen until the block ends.

        Raises:
            InvalidRequestError: the port is taken, or not ours to take.
        """
        where = (self._settings.host, self._settings.port)
        try:
            listener = socket.create_server(where)
        except OSError as error:
            raise InvalidRequestError(
                f"[flex.openadr.callback]: {where[0]}:{where[1]} cannot be listened on: {error}"
            ) from error
        app = Starlette(routes=[Route(PATH, self._take, methods=["POST"])])
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, timeout_graceful_shutdown=1
        )
        server = EmbeddedServer(config)
        with listener:
            self.port = listener.getsockname()[1]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, [listener])
                with anyio.fail_after(START_TIMEOUT_S):
                    await server.ready.wait()
                try:
                    yield
                finally:
                    server.should_exit = True

    async def _take(self, request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(token.encode(), self.token.encode())
        if scheme != "Bearer" or not known:
            return self._refuse("unknown_token", 401)
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                return self._refuse("too_large", 413)
        try:
            notification = parse_object(body, what="the notification")
        except RejectedError as error:
            return self._refuse(str(error.reason), 400)
        kind, operation = notification.get("objectType"), notification.get("operation")
        sound = isinstance(kind, str) and isinstance(operation, str)
        if not sound or kind not in _OBJECTS or operation not in _OPERATIONS:
            return self._refuse("no_notification", 400)
        if not isinstance(notification.get("object"), dict):
            return self._refuse("no_object", 400)
        self.taken += 1
        if kind in {"EVENT", "PROGRAM"}:
            self._heard()
        return Response(status_code=200)

    def _refuse(self, reason: str, status: int) -> Response:
        self.refused[reason] += 1
        return Response(status_code=status)
