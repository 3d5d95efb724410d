"""Serving a site: over streamable HTTP in one process, or one component over stdio."""

import socket
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import anyio
import uvicorn

from interlock_servers.app import build_app
from interlock_servers.identity import (
    SCOPE_PROPOSE,
    SCOPE_READ,
    LocalIssuer,
    TokenVerifier,
    caller_by_token,
    local_caller,
)
from interlock_servers.site import Site, SiteSettings, open_site
from interlock_tools.clock import Clock, SystemClock
from interlock_tools.errors import UnavailableError
from interlock_tools.identity import Principal, PrincipalKind

START_TIMEOUT_S = 20.0


@dataclass
class Served:
    """A site that is served over HTTP: its addresses and who may be given a token."""

    site: Site
    base_url: str
    issuer: LocalIssuer

    def urls(self) -> dict[str, str]:
        """The MCP endpoint of each component."""
        return {name: f"{self.base_url}/{name}/mcp" for name in self.site.faces}

    def token(self, principal: Principal) -> str:
        """A bearer token for this principal, signed by the local issuer."""
        return self.issuer.token(principal)


@asynccontextmanager
async def serve_http(
    settings: SiteSettings, clock: Clock, *, host: str, port: int
) -> AsyncIterator[Served]:
    """Serve every component of a site at `http://{host}:{port}/{component}/mcp`; port 0 is any.

    Tokens are timed by the machine's clock, whatever clock the site runs on.

    Raises:
        UnavailableError: the port is taken.
    """
    try:
        listener = socket.create_server((host, port))
        # Accepted sockets inherit it; without it small answers wait for a delayed ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise UnavailableError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    base_url = f"http://{host}:{listener.getsockname()[1]}"
    issuer = LocalIssuer(base_url, SystemClock())
    verifier = TokenVerifier(issuer.key_set(), base_url, SystemClock())
    async with open_site(settings, clock, caller_by_token) as site:
        app = build_app(site.faces, base_url=base_url, issuer_url=base_url, verifier=verifier)
        server = EmbeddedServer(
            uvicorn.Config(app, host=host, log_level="warning", access_log=False)
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            with anyio.fail_after(START_TIMEOUT_S):
                await server.ready.wait()
            try:
                yield Served(site, base_url, issuer)
            finally:
                server.should_exit = True


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


async def serve_stdio(
    settings: SiteSettings, clock: Clock, component: str, user: Principal
) -> None:
    """Serve one component to the process at the other end of stdin and stdout.

    Raises:
        UnavailableError: this site does not serve the component.
    """
    async with open_site(settings, clock, local_caller(user)) as site:
        face = site.faces.get(component)
        if face is None:
            known = ", ".join(site.faces) or "none"
            raise UnavailableError(f"{component} is not configured here; there is: {known}")
        await face.server().run_stdio_async()


def agent_principal(name: str, owner: str) -> Principal:
    """An agent of ours: it may read and propose; its owner cannot approve what it asks for."""
    return Principal(
        id=f"agent:{name}",
        kind=PrincipalKind.AGENT,
        authenticated_by="local",
        scopes=frozenset({SCOPE_READ, SCOPE_PROPOSE}),
        owner=owner,
    )
