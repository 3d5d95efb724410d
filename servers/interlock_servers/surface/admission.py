"""What a request over HTTP must get past before a server sees it: method, place, scope, body.

Each is a plain ASGI layer behind the token check, so that a caller without a token is told where
to get one, and nothing of a body is read for it.
"""

import json
from collections.abc import Collection, Mapping
from urllib.parse import parse_qs

import anyio
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.shared.inbound import decode_header_value
from mcp.types import INVALID_REQUEST
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interlock_servers.identity import SCOPE_PROPOSE, SCOPE_READ

PATH = "/mcp"
METHODS_THAT_CHANGE = frozenset({"tasks/update", "tasks/cancel"})
CLOSE = {"Connection": "close"}
_IN_A_QUERY = frozenset({"access_token", "token", "id_token"})


class Admission:
    """Lets a request through to a server, or answers it with the status that says why not."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        methods: Collection[str] = ("POST",),
        proposing: Collection[str],
        metadata_url: str,
        max_body_bytes: int,
        body_within_s: float,
    ) -> None:
        self._app = app
        self._methods = tuple(methods)
        self._proposing = frozenset(proposing)
        self._metadata_url = metadata_url
        self._max_body_bytes = max_body_bytes
        self._body_within_s = body_within_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or not scope["path"].endswith(PATH):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._refused(scope, headers)
        if refused is not None:
            await refused(scope, receive, send)
            return
        if not isinstance(scope.get("user"), AuthenticatedUser):
            await self._app(scope, receive, send)  # what is next answers 401
            return
        body = await self._body(headers, receive)
        if isinstance(body, Response):
            await body(scope, receive, send)
        elif body is not None:
            await self._app(scope, _replayed(body, receive), send)

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        query = scope["query_string"].decode("latin-1")
        if query and not _IN_A_QUERY.isdisjoint(parse_qs(query, True)):
            says = "a token goes into the Authorization header, never into the address"
            return _answer(400, says, self._challenge("invalid_request"))
        user = scope.get("user")
        if not isinstance(user, AuthenticatedUser):
            return None
        needed = self.needed(headers)
        missing = needed - set(user.scopes)
        if missing:
            lacks = " ".join(sorted(missing))
            says = f"insufficient_scope: {user.display_name} lacks {lacks}; ask for it and retry"
            return _answer(403, says, self._challenge("insufficient_scope", needed))
        if scope["method"] not in self._methods:
            return Response(status_code=405, headers={"Allow": ", ".join(self._methods)})
        return None

    def needed(self, headers: Mapping[str, str]) -> frozenset[str]:
        """The scopes that a request needs, by the headers that say what is in its body.

        Where headers and body differ, the SDK refuses the request; a client that sends no such
        headers is refused by the tool itself.
        """
        method = headers.get("mcp-method", "").strip()
        name = decode_header_value(headers.get("mcp-name", "").strip())
        changes = method in METHODS_THAT_CHANGE
        if changes or (method == "tools/call" and name in self._proposing):
            return frozenset({SCOPE_READ, SCOPE_PROPOSE})
        return frozenset({SCOPE_READ})

    def _challenge(self, error: str, scopes: Collection[str] = ()) -> dict[str, str]:
        parts = [f'error="{error}"']
        if scopes:
            parts.append(f'scope="{" ".join(sorted(scopes))}"')
        parts.append(f'resource_metadata="{self._metadata_url}"')
        return {"WWW-Authenticate": "Bearer " + ", ".join(parts)}

    async def _body(self, headers: Headers, receive: Receive) -> bytes | Response | None:
        """The whole body, or the answer to one that is not to be; None: the client went away."""
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._max_body_bytes:
            return self._too_large()
        body = bytearray()
        with anyio.move_on_after(self._body_within_s):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                body += message.get("body", b"")
                if len(body) > self._max_body_bytes:
                    return self._too_large()
                if not message.get("more_body", False):
                    return bytes(body)
        return _answer(408, "the body took too long", CLOSE)

    def _too_large(self) -> Response:
        return _answer(413, f"more than {self._max_body_bytes} bytes", CLOSE)


def _answer(status: int, says: str, headers: Mapping[str, str]) -> Response:
    """A refusal that MCP clients can show: the status for HTTP, the words as JSON-RPC has them."""
    error = {"code": INVALID_REQUEST, "message": says}
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error})
    return Response(body, status, headers, "application/json")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What the server hears: the body at once, then whatever comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def hear() -> Message:
        return waiting.pop() if waiting else await receive()

    return hear
