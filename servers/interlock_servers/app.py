"""All servers of a site in one process: `/mcp` for all, `/{component}/mcp` for each."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from mcp.server import MCPServer
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Route, Router

from interlock_servers.identity import SCOPE_READ, SCOPES, TokenVerifier, whole_site
from interlock_servers.offer import VERSION, Face
from interlock_servers.surface.admission import Admission
from interlock_servers.surface.factory import Sessions, http_app
from interlock_servers.surface.limits import HttpLimits
from interlock_servers.surface.together import Composed, alone, together
from interlock_servers.surface.toolsets import EVERYTHING, Narrow

LOOPBACK = TransportSecuritySettings(
    allowed_hosts=["127.0.0.1:*", "localhost:*"],
    allowed_origins=["http://127.0.0.1:*", "http://localhost:*"],
)
WHOLE_SITE = ""  # the place of the server that has all tools
WITH_SESSIONS = ("POST", "GET", "DELETE")  # a stream is opened by GET, a session ended by DELETE


class _Mounted(NamedTuple):
    """One server, its authorization, and the application that serves it."""

    composed: Composed
    auth: AuthSettings
    app: Starlette


def build_app(
    faces: Mapping[str, Face],
    *,
    base_url: str,
    issuer_url: str,
    verifier: TokenVerifier,
    security: TransportSecuritySettings = LOOPBACK,
    health: Callable[[], dict[str, str]] = dict,
    narrow: Narrow = EVERYTHING,
    limits: HttpLimits | None = None,
) -> Router:
    """The web application that serves the faces at `{base_url}/mcp` and `{base_url}/{name}/mcp`.

    A request without a verified token is answered 401 with the address of the protected-resource
    metadata, one that needs another scope 403 with that scope; a wrong Host gets 421 and a wrong
    Origin 403. What `narrow` takes away is served nowhere.
    """
    bounds = limits or HttpLimits()

    def mounted(name: str) -> _Mounted:
        address = f"{base_url}/{name}/mcp" if name else whole_site(base_url)
        auth = AuthSettings.model_validate(
            {
                "issuer_url": issuer_url,
                "resource_server_url": address,
                "required_scopes": [SCOPE_READ],
                "validate_token_resource": False,  # our verifier checks the audience itself
            }
        )
        own = verifier.for_resource(address, whole_site(base_url))
        parts = [face.parts() for face in faces.values()]
        if name == WHOLE_SITE:
            composed = together(parts, version=VERSION, narrow=narrow, auth=auth, verifier=own)
        else:
            one = faces[name].parts()
            composed = alone(one, version=VERSION, narrow=narrow, auth=auth, verifier=own)
        app = admitted(
            composed.server, auth, security=security, limits=bounds, proposing=composed.proposing
        )
        return _Mounted(composed, auth, app)

    names = [name for name in faces if narrow.leaves([name])]
    servers = {name: mounted(name) for name in [*names, WHOLE_SITE]}

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for one in servers.values():  # a mounted app's own lifespan never runs
                await stack.enter_async_context(one.composed.server.session_manager.run())
            yield

    async def healthz(_: Request) -> JSONResponse:
        """Whether the process answers, and what each component says of itself."""
        return JSONResponse({"interlock": "answers", **health()})

    routes: list[BaseRoute] = [  # in the order in which they are looked through
        Mount(f"/{name}", one.app) if name else Route("/mcp", one.app)
        for name, one in servers.items()
    ]
    routes.append(Route("/healthz", healthz))
    for one in servers.values():  # the metadata lives at the root of the host
        if one.auth.resource_server_url is None:
            raise ValueError("every served face has its address")
        routes += create_protected_resource_routes(
            resource_url=one.auth.resource_server_url,
            authorization_servers=[one.auth.issuer_url],
            scopes_supported=list(SCOPES),
            resource_name="Interlock",
        )
    return Router(routes, lifespan=lifespan)  # each server's application answers its own errors


def admitted(
    server: MCPServer[Any],
    auth: AuthSettings,
    *,
    security: TransportSecuritySettings,
    limits: HttpLimits,
    proposing: Collection[str],
    sessions: Sessions | None = None,
) -> Starlette:
    """A server on HTTP, behind the token check and, after it, what a request must get past."""
    if auth.resource_server_url is None:
        raise ValueError("every served face has its address")
    app = http_app(server, security=security, sessions=sessions)
    app.user_middleware.append(  # innermost: it sees whose token it is
        Middleware(
            Admission,
            methods=WITH_SESSIONS if sessions else ("POST",),
            proposing=proposing,
            metadata_url=str(build_resource_metadata_url(auth.resource_server_url)),
            max_body_bytes=limits.body_bytes,
            body_within_s=limits.body_within_s,
        )
    )
    return app
