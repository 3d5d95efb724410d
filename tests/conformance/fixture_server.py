"""A server with the names that the conformance suite calls, built and guarded as ours are.

It comes from the product's factory, with the product's middleware, extension, token verifier and
transport security, behind the product's door. The suite can send no token, so what a gateway does
is done here: a token is added to each request on its way in, and verified as any other.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from mcp.server import CacheHint
from mcp.server.auth.settings import AuthSettings
from mcp.server.caching import CacheableMethod
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.types import JSONRPCMessage
from pydantic import AnyHttpUrl
from starlette.types import ASGIApp, Receive, Scope, Send

from interlock_servers.app import LOOPBACK, admitted
from interlock_servers.identity import SCOPE_READ, LocalIssuer, TokenVerifier
from interlock_servers.serving import agent_principal
from interlock_servers.surface.factory import Sessions, build_server
from interlock_servers.surface.limits import HttpLimits
from interlock_servers.surface.streams import Streams
from interlock_servers.surface.tasks import Tasks
from interlock_servers.surface.together import only_reads
from interlock_servers.surface.toolsets import Narrowing, Offer
from interlock_tools.clock import SystemClock
from tests.conformance import fixture_content, fixture_legacy, fixture_rounds, fixture_tasks

RETRY_MS = 100
TOOLSET = frozenset({"fixture"})
CACHED: tuple[CacheableMethod, ...] = (
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
)


class Events(EventStore):
    """What was sent on each stream, so that a client that lost one can take it up again."""

    def __init__(self) -> None:
        self._events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        """Keep it; its id is its place."""
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(
        self, last_event_id: str, send_callback: EventCallback
    ) -> str | None:
        """Send what came after it on the same stream; None where there is no such event."""
        if not last_event_id.isdigit() or not 0 < int(last_event_id) <= len(self._events):
            return None
        stream_id = self._events[int(last_event_id) - 1][0]
        for place in range(int(last_event_id), len(self._events)):
            stream, message = self._events[place]
            if stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(place + 1)))
        return stream_id


def bearing(app: ASGIApp, token: str) -> ASGIApp:
    """The same application, to which every request comes with this token."""

    async def with_token(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            header = (b"authorization", f"Bearer {token}".encode())
            scope = {**scope, "headers": [*scope["headers"], header]}
        await app(scope, receive, send)

    return with_token


@asynccontextmanager
async def fixture_app(base_url: str, *, sessions: bool) -> AsyncIterator[ASGIApp]:
    """The fixture at `{base_url}/mcp`; without `sessions`, over HTTP as the product serves it."""
    clock = SystemClock()
    issuer = LocalIssuer(base_url, clock)
    async with anyio.create_task_group() as background:
        tools = [
            *fixture_content.tools(),
            *fixture_legacy.tools(),
            *fixture_rounds.tools(),
            *fixture_tasks.tools(),
        ]
        auth = AuthSettings(
            issuer_url=AnyHttpUrl(base_url),
            resource_server_url=AnyHttpUrl(f"{base_url}/mcp"),
            required_scopes=[SCOPE_READ],
            validate_token_resource=False,
        )
        offer = Offer(tools={tool.name: (TOOLSET, tool.annotations) for tool in tools})
        server = build_server(
            "interlock-conformance",
            version="0",
            instructions="Made to be tested.",
            tools=tools,
            resources=fixture_content.resources(),
            templates=fixture_content.templates(),
            prompts=[*fixture_content.prompts(), *fixture_rounds.prompts()],
            complete=fixture_content.complete,
            extensions=[Tasks(fixture_tasks.jobs(background))],
            middleware=[Streams(), Narrowing(offer)],
            auth=auth,
            verifier=TokenVerifier(issuer.key_set(), base_url, clock),
            cache_hints={method: CacheHint(ttl_ms=60_000, scope="private") for method in CACHED},
            lasting=sessions,
        )
        shape = Sessions(event_store=Events(), retry_ms=RETRY_MS) if sessions else None
        app = admitted(
            server,
            auth,
            security=LOOPBACK,
            limits=HttpLimits(),
            proposing=[tool.name for tool in tools if not only_reads(tool)],
            sessions=shape,
        )
        token = issuer.token(agent_principal("conformance", owner="person:tester"))
        async with server.session_manager.run():
            yield bearing(app, token)
        background.cancel_scope.cancel()
