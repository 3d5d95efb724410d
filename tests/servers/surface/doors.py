"""Two small components on a real loopback socket, as a site serves them, and ways to knock."""

import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from interlock_servers.app import build_app
from interlock_servers.identity import (
    SCOPE_READ,
    LocalIssuer,
    TokenVerifier,
    WhoCalls,
    caller_by_token,
)
from interlock_servers.offer import Face
from interlock_servers.page import Page
from interlock_servers.surface.limits import HttpLimits, web_server
from interlock_servers.surface.toolsets import EVERYTHING, Narrow
from interlock_servers.transports.embedded import EmbeddedServer
from interlock_tools.clock import SystemClock
from interlock_tools.identity import Principal
from interlock_tools.operation import Effect
from tests.guardrails.conftest import AGENT, House
from tests.guardrails.valve import MoveValve

PATIENCE_S = 20.0
CLOSED_WITHIN_S = 6.0  # where a test lets the server wait for a third of a second
READER = AGENT.model_copy(update={"id": "agent:reader", "scopes": frozenset({SCOPE_READ})})
NONE: Mapping[str, str] = {}
MODERN = "2026-07-28"
ACCEPT = "application/json, text/event-stream"


class Flow(Page):
    """What flows."""

    flow_pct: int


class BurstValve(MoveValve):
    """Open the valve with a bang."""

    name = "valve.burst_valve"
    effect = Effect.DISRUPTIVE


def faces(house: House, who: WhoCalls) -> dict[str, Face]:
    """A valve that is read and moved, and a meter that is only read."""
    valve = Face("valve", guard=house.guard, who=who, instructions="A valve.")
    meter = Face("meter", guard=house.guard, who=who, instructions="A meter.")

    async def read_flow() -> Flow:
        """What flows now, in percent."""
        now = house.clock.now()
        return Flow(observed_at=now, origin="meter", flow_pct=house.valve.flow_pct)

    valve.read(read_flow)
    valve.propose(MoveValve(house.valve))
    valve.propose(BurstValve(house.valve))
    meter.read(read_flow)
    return {"valve": valve, "meter": meter}


@dataclass
class Door:
    """The served components, and tokens for whoever is to come in."""

    base_url: str
    port: int
    issuer: LocalIssuer
    http: httpx2.AsyncClient

    def bearer(self, who: Principal = AGENT) -> dict[str, str]:
        """The header that lets this principal in."""
        return {"Authorization": f"Bearer {self.issuer.token(who)}"}

    @asynccontextmanager
    async def client(
        self,
        mode: Any,
        place: str = "",
        who: Principal = AGENT,
        headers: Mapping[str, str] = NONE,
    ) -> AsyncIterator[Client]:
        """An MCP client whose every request carries these headers."""
        sent = {**self.bearer(who), **headers}
        async with httpx2.AsyncClient(headers=sent, timeout=PATIENCE_S) as http:
            transport = streamable_http_client(f"{self.base_url}{place}/mcp", http_client=http)
            async with Client(transport, mode=mode) as client:
                yield client

    async def call(
        self,
        tool: str,
        arguments: dict[str, Any],
        who: Principal = AGENT,
        place: str = "",
        headers: Mapping[str, str] = NONE,
    ) -> httpx2.Response:
        """One call of the newest protocol; `headers` say more or other than the body."""
        said = {**self.bearer(who), **modern_headers("tools/call", tool), **headers}
        return await self.http.post(
            f"{self.base_url}{place}/mcp", content=modern_call(tool, arguments), headers=said
        )

    async def connect(self) -> anyio.abc.SocketStream:
        """A connection that has said nothing yet."""
        return await anyio.connect_tcp("127.0.0.1", self.port)


def modern_headers(method: str, name: str) -> dict[str, str]:
    """What a client of the newest protocol says beside the body."""
    return {
        "Accept": ACCEPT,
        "Content-Type": "application/json",
        "MCP-Protocol-Version": MODERN,
        "Mcp-Method": method,
        "Mcp-Name": name,
    }


def modern_call(tool: str, arguments: dict[str, Any]) -> bytes:
    """The body of one call."""
    envelope = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": tool, "arguments": arguments, "_meta": envelope}
    return json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    ).encode()


def raw_post(
    path: str, headers: Mapping[str, str], body: bytes, declared: int | None = None
) -> bytes:
    """A request as it goes over the wire; `declared` is the length that it claims."""
    length = len(body) if declared is None else declared
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1:80", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def heard(stream: anyio.abc.SocketStream) -> bytes:
    """Everything until the other side closes, bounded in real time."""
    said = bytearray()
    with anyio.fail_after(CLOSED_WITHIN_S):
        while True:
            try:
                said += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return bytes(said)


@asynccontextmanager
async def open_door(
    house: House, *, limits: HttpLimits | None = None, narrow: Narrow = EVERYTHING
) -> AsyncIterator[Door]:
    """Both components, served on a port that the system chooses."""
    bounds = limits or HttpLimits()
    listener = socket.create_server(("127.0.0.1", 0), backlog=bounds.backlog)
    port = int(listener.getsockname()[1])
    base_url = f"http://127.0.0.1:{port}"
    issuer = LocalIssuer(base_url, SystemClock())
    app = build_app(
        faces(house, caller_by_token),
        base_url=base_url,
        issuer_url=base_url,
        verifier=TokenVerifier(issuer.key_set(), base_url, SystemClock()),
        narrow=narrow,
        limits=bounds,
    )
    server = EmbeddedServer(web_server(app, "127.0.0.1", bounds))
    async with (
        anyio.create_task_group() as tasks,
        httpx2.AsyncClient(timeout=PATIENCE_S) as http,
    ):
        tasks.start_soon(server.serve, [listener])
        with anyio.fail_after(PATIENCE_S):
            await server.ready.wait()
        yield Door(base_url, port, issuer, http)
        server.should_exit = True
