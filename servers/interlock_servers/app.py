"""All servers of a site in one FastAPI process: `/{component}/mcp`, each with verified tokens."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from mcp.server import MCPServer
from mcp.server.auth.routes import create_protected_resource_routes
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl

from interlock_servers.identity import SCOPE_READ, TokenVerifier
from interlock_servers.offer import Face

LOOPBACK = TransportSecuritySettings(
    allowed_hosts=["127.0.0.1:*", "localhost:*"],
    allowed_origins=["http://127.0.0.1:*", "http://localhost:*"],
)


def build_app(
    faces: Mapping[str, Face],
    *,
    base_url: str,
    issuer_url: str,
    verifier: TokenVerifier,
    security: TransportSecuritySettings = LOOPBACK,
    health: Callable[[], dict[str, str]] = dict,
) -> FastAPI:
    """The web application that serves every face at `{base_url}/{component}/mcp`.

    A request without a verified token is answered 401 with the address of the protected-resource
    metadata; a wrong Host gets 421 and a wrong Origin 403.
    """
    servers = {
        name: _server(name, face, base_url, issuer_url, verifier) for name, face in faces.items()
    }
    mounted = {
        name: server.streamable_http_app(
            json_response=True, stateless_http=True, transport_security=security
        )
        for name, server in servers.items()
    }

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for server in servers.values():  # a mounted app's own lifespan never runs
                await stack.enter_async_context(server.session_manager.run())
            yield

    app = FastAPI(title="Interlock", lifespan=lifespan, openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process answers, and what each component says of itself."""
        return {"interlock": "answers", **health()}

    for server in servers.values():  # the metadata lives at the root of the host
        auth = server.settings.auth
        if auth is None or auth.resource_server_url is None:
            raise ValueError("every served face has its authorization settings")
        app.router.routes.extend(
            create_protected_resource_routes(
                resource_url=auth.resource_server_url,
                authorization_servers=[auth.issuer_url],
                scopes_supported=auth.required_scopes,
            )
        )
    for name, sub in mounted.items():
        app.mount(f"/{name}", sub)
    return app


def _server(
    name: str, face: Face, base_url: str, issuer_url: str, verifier: TokenVerifier
) -> MCPServer:
    auth = AuthSettings(
        issuer_url=AnyHttpUrl(issuer_url),
        resource_server_url=AnyHttpUrl(f"{base_url}/{name}/mcp"),
        required_scopes=[SCOPE_READ],
        validate_token_resource=False,  # our verifier checks the audience itself
    )
    return face.server(auth=auth, verifier=verifier)
