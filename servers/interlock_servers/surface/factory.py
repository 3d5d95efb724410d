"""The one place where an MCP server is built, for both eras of the protocol, and put on HTTP.

Components, tests and the conformance fixture all come through here, so what is proven of one server
holds for the others. It knows nothing of what a tool does.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp.server import CacheHint, MCPServer
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.caching import CacheableMethod
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.resources import Resource
from mcp.server.mcpserver.tools import Tool
from mcp.server.request_state import RequestStateSecurity
from mcp.server.streamable_http import EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, SubscriptionBus
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)
from starlette.applications import Starlette

from interlock_servers.surface.extension import Extension
from interlock_servers.surface.legacy import serve_sessions
from interlock_servers.surface.middleware import (
    Durations,
    KnownPrompts,
    Middleware,
    to_histogram,
)
from interlock_servers.surface.watching import Watch, Watching

LISTS_STAND_FOR = CacheHint(ttl_ms=60_000, scope="private")
CACHE_HINTS: Mapping[CacheableMethod, CacheHint] = {"tools/list": LISTS_STAND_FOR}

Complete = Callable[
    [PromptReference | ResourceTemplateReference, CompletionArgument, CompletionContext | None],
    Awaitable[Completion | None],
]


@dataclass(frozen=True, kw_only=True)
class Template:
    """A family of resources: a URI with variables, and the function that reads one of them."""

    uri: str
    read: Callable[..., Any]
    description: str
    mime_type: str = "application/json"


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """HTTP for clients of 2025-11-25 that want a session and take up a broken stream again.

    Sessions live in one process; replicas behind one address cannot share them.
    """

    event_store: EventStore | None = None
    retry_ms: int | None = None


def build_server(
    name: str,
    *,
    version: str,
    instructions: str,
    tools: Sequence[Tool] = (),
    resources: Sequence[Resource] = (),
    templates: Sequence[Template] = (),
    prompts: Sequence[Prompt] = (),
    complete: Complete | None = None,
    middleware: Sequence[Middleware] = (),
    extensions: Sequence[Extension] = (),
    auth: AuthSettings | None = None,
    verifier: TokenVerifier | None = None,
    cache_hints: Mapping[CacheableMethod, CacheHint] = CACHE_HINTS,
    request_state: RequestStateSecurity | None = None,
    bus: SubscriptionBus | None = None,
    watch: Watch | None = None,
    lasting: bool = False,
) -> MCPServer[Any]:
    """A server with exactly these parts.

    With `auth` and `verifier` every HTTP request needs a verified token. `request_state` None: what
    a server has its caller carry between rounds is sealed for this process only; replicas share
    keys. What `watch` names is looked after while somebody waits for it. `lasting` says that
    connections last, so that clients of 2025-11-25 can subscribe.

    Raises:
        ValueError: two parts have one name, or only one of `auth` and `verifier` is given.
    """
    _once("tool", (tool.name for tool in tools))
    _once("resource", (str(resource.uri) for resource in resources))
    _once("template", (template.uri for template in templates))
    _once("prompt", (prompt.name for prompt in prompts))
    if (auth is None) is not (verifier is None):
        raise ValueError("auth and verifier come together")
    bus = bus or InMemorySubscriptionBus()
    watching = None if watch is None else Watching(bus, watch)
    names = frozenset([tool.name for tool in tools] + [prompt.name for prompt in prompts])
    server: MCPServer[Any] = MCPServer(
        name,
        version=version,
        instructions=instructions,
        log_level="WARNING",
        tools=list(tools),
        resources=list(resources),
        extensions=extensions,
        auth=auth,
        token_verifier=verifier,
        request_state_security=request_state,
        cache_hints=cache_hints,
        subscriptions=bus,
        middleware=[
            Durations(names, to_histogram()),
            *middleware,
            KnownPrompts(frozenset(prompt.name for prompt in prompts)),
            *([] if watching is None else [watching]),
        ],
    )
    for template in templates:
        server.resource(
            template.uri, description=template.description, mime_type=template.mime_type
        )(template.read)
    for prompt in prompts:
        server.add_prompt(prompt)
    if complete is not None:
        server.completion()(complete)  # type: ignore[no-untyped-call]  # it has no annotations
    if lasting:
        serve_sessions(server, bus, watching)
    return server


def http_app(
    server: MCPServer[Any],
    *,
    security: TransportSecuritySettings,
    sessions: Sessions | None = None,
) -> Starlette:
    """The server at `/mcp` of an application of its own; whoever mounts it runs its lifespan.

    Without `sessions` every request stands alone, whichever era it is of, and is answered as JSON:
    any replica can answer, and nothing is held for a client that went away.
    """
    if sessions is None:
        return server.streamable_http_app(
            json_response=True, stateless_http=True, transport_security=security
        )
    return server.streamable_http_app(
        event_store=sessions.event_store,
        retry_interval=sessions.retry_ms,
        transport_security=security,
    )


def _once(what: str, names: Iterable[str]) -> None:
    """Two of one name would hide each other, and the SDK only warns."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"two parts of one server are the {what} {name!r}")
        seen.add(name)
