"""Serving a site: over streamable HTTP in one process, or over stdio."""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from interlock_servers.app import build_app
from interlock_servers.entrance import EntranceSettings
from interlock_servers.identity import (
    SCOPE_PROPOSE,
    SCOPE_READ,
    LocalIssuer,
    TokenVerifier,
    caller_by_token,
    local_caller,
    whole_site,
)
from interlock_servers.offer import VERSION
from interlock_servers.site import Site, SiteSettings, open_site
from interlock_servers.surface.limits import web_server
from interlock_servers.surface.together import alone, together
from interlock_servers.surface.toolsets import EVERYTHING, Narrow
from interlock_servers.transports.embedded import EmbeddedServer
from interlock_tools.clock import Clock, SystemClock
from interlock_tools.errors import InvalidRequestError, UnavailableError
from interlock_tools.identity import Principal, PrincipalKind

START_TIMEOUT_S = 20.0
NOBODY_ANSWERS: Mapping[str, str] = {}


@dataclass
class Served:
    """A site that is served over HTTP: its addresses and who may be given a token."""

    site: Site
    base_url: str
    local_issuer: LocalIssuer | None
    narrow: Narrow = EVERYTHING

    @property
    def url(self) -> str:
        """The MCP endpoint that has the tools of all components."""
        return whole_site(self.base_url)

    def urls(self) -> dict[str, str]:
        """The MCP endpoint of each component."""
        return {
            name: f"{self.base_url}/{name}/mcp"
            for name in self.site.faces
            if self.narrow.leaves([name])
        }

    @property
    def issuer(self) -> LocalIssuer:
        """The issuer of this process.

        Raises:
            InvalidRequestError: tokens come from somewhere else.
        """
        if self.local_issuer is None:
            raise InvalidRequestError("tokens are given by the issuer that the settings name")
        return self.local_issuer

    def token(self, principal: Principal) -> str:
        """A bearer token for this principal, signed by the local issuer."""
        return self.issuer.token(principal)


@asynccontextmanager
async def serve_http(
    settings: SiteSettings,
    clock: Clock,
    *,
    host: str,
    port: int,
    entrance: EntranceSettings | None = None,
    narrow: Narrow = EVERYTHING,
    owners: Mapping[str, str] = NOBODY_ANSWERS,
) -> AsyncIterator[Served]:
    """Serve a site at `http://{host}:{port}/mcp`, each component at `/{component}/mcp`.

    Port 0 is any. `narrow` takes away from what `entrance` leaves; `owners` says who answers for
    an agent that another issuer lets in. Tokens are timed by the machine's clock, whatever clock
    the site runs on.

    Raises:
        UnavailableError: the port is taken.
        InvalidRequestError: a toolset is named that is not there.
    """
    way_in = entrance or EntranceSettings()
    left = way_in.narrow.and_also(narrow)
    try:
        listener = socket.create_server((host, port), backlog=way_in.limits.backlog)
        # Accepted sockets inherit it; without it small answers wait for a delayed ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise UnavailableError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    base_url = way_in.public_url or f"http://{host}:{listener.getsockname()[1]}"
    issuer, issuer_url, verifier = _authority(way_in, base_url, owners)
    with listener:
        async with open_site(settings, clock, caller_by_token) as site:
            check_toolsets(left, site)
            app = build_app(
                site.faces,
                base_url=base_url,
                issuer_url=issuer_url,
                verifier=verifier,
                security=way_in.security,
                narrow=left,
                limits=way_in.limits,
            )
            server = EmbeddedServer(web_server(app, host, way_in.limits))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.serve, [listener])
                with anyio.fail_after(START_TIMEOUT_S):
                    await server.ready.wait()
                try:
                    yield Served(site, base_url, issuer, left)
                finally:
                    server.should_exit = True


def _authority(
    way_in: EntranceSettings, base_url: str, owners: Mapping[str, str]
) -> tuple[LocalIssuer | None, str, TokenVerifier]:
    """Whose tokens are believed: those of the settings, or else our own."""
    if way_in.authorization is not None:
        verifier = TokenVerifier.of(way_in.authorization, owners, SystemClock())
        return None, way_in.authorization.issuer, verifier
    issuer = LocalIssuer(base_url, SystemClock())
    return issuer, base_url, TokenVerifier(issuer.key_set(), base_url, SystemClock())


async def serve_stdio(
    settings: SiteSettings,
    clock: Clock,
    component: str | None,
    user: Principal,
    narrow: Narrow = EVERYTHING,
) -> None:
    """Serve one component, or with None all, to the process at the other end of stdin and stdout.

    Raises:
        UnavailableError: this site does not serve the component.
        InvalidRequestError: a toolset is named that is not there.
    """
    async with open_site(settings, clock, local_caller(user), only=component) as site:
        check_toolsets(narrow, site)
        if component is None:
            parts = [face.parts() for face in site.faces.values()]
            composed = together(parts, version=VERSION, narrow=narrow)
        else:
            face = site.faces.get(component)
            if face is None:
                known = ", ".join(site.components) or "none"
                raise UnavailableError(f"{component} is not configured here; there is: {known}")
            composed = alone(face.parts(), version=VERSION, narrow=narrow)
        await composed.server.run_stdio_async()


def check_toolsets(narrow: Narrow, site: Site) -> None:
    """A misspelt toolset would leave nothing, and nobody would know.

    Raises:
        InvalidRequestError: names those that there are not.
    """
    unknown = sorted((narrow.toolsets or frozenset()) - set(site.components))
    if unknown:
        known = ", ".join(site.components) or "none"
        raise InvalidRequestError(f"no toolset {', '.join(unknown)}; there is: {known}")


def agent_principal(name: str, owner: str) -> Principal:
    """An agent of ours: it may read and propose; its owner cannot approve what it asks for."""
    return Principal(
        id=f"agent:{name}",
        kind=PrincipalKind.AGENT,
        authenticated_by="local",
        scopes=frozenset({SCOPE_READ, SCOPE_PROPOSE}),
        owner=owner,
    )
