"""One small read, served twice: behind our face and guard, and on the bare SDK.

`python -m interlock_evals.bench.flow guarded|bare http|stdio` is a process of its own, so that what
a server costs can be told from what its client does. Over HTTP it prints its address and a token.
"""

import json
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
from mcp.server import CacheHint, MCPServer
from mcp.types import CallToolResult, TextContent
from pydantic import Field

from interlock_guardrails.engine import create_store_engine, create_tables
from interlock_guardrails.facts import FactRegistry
from interlock_guardrails.guard import Guard
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.rules import SiteRules
from interlock_guardrails.store import Store
from interlock_policies.bundles import load_bundle
from interlock_servers.app import LOOPBACK, build_app
from interlock_servers.identity import LocalIssuer, TokenVerifier, caller_by_token, local_caller
from interlock_servers.offer import Face
from interlock_servers.page import Page
from interlock_servers.serving import agent_principal
from interlock_servers.surface.limits import HttpLimits, web_server
from interlock_servers.transports.embedded import EmbeddedServer
from interlock_tools.clock import SystemClock

HOST = "127.0.0.1"
ORIGIN = "bench.example/ledger"
AGENT = agent_principal("bench", owner="person:owner")


class Flow(Page):
    """A small page, as most reads are."""

    flow_pct: int
    meters: list[float] = Field(default_factory=lambda: [n / 7 for n in range(20)])


async def read_flow(line: Annotated[int, Field(ge=1, le=9)] = 1) -> Flow:
    """What flows through the valve now, in percent."""
    return Flow(observed_at=SystemClock().now(), origin="meter", flow_pct=10 * line)


@asynccontextmanager
async def guarded(who: Any) -> AsyncIterator[Face]:
    """The read behind our face, with a ledger on this disk that records it."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="interlock-bench-", dir=Path.cwd())
        )
        engine = create_store_engine(f"sqlite:///{Path(folder) / 'store.db'}")
        stack.callback(engine.dispose)
        create_tables(engine)
        ledger = stack.enter_context(
            Ledger(engine, Signer.generate(ORIGIN), origin=ORIGIN, clock=clock)
        )
        guard = Guard(
            store=Store(engine),
            ledger=ledger,
            gate=load_bundle("supervised", {}),
            facts=FactRegistry(),
            clock=clock,
            rules=SiteRules(site_id="lab", gpus=512, hosts=64),
            operations=[],
        )
        face = Face("valve", guard=guard, who=who, instructions="A valve.")
        face.read(read_flow)
        yield face


def bare() -> MCPServer[Any]:
    """The same read on the SDK alone: no authorization, no record, lenient arguments."""
    server: MCPServer[Any] = MCPServer(
        "bare-valve",
        version="0.1.0",
        instructions="A valve.",
        log_level="WARNING",
        cache_hints={"tools/list": CacheHint(ttl_ms=60_000, scope="private")},
    )

    async def read(
        line: Annotated[int, Field(ge=1, le=9)] = 1,
    ) -> Annotated[CallToolResult, Flow]:
        page = await read_flow(line)
        return CallToolResult(
            content=[TextContent(type="text", text=page.text())],
            structured_content=page.model_dump(mode="json", exclude_none=True),
        )

    server.tool(name="read_flow", description=read_flow.__doc__)(read)
    return server


async def main(which: str, transport: str) -> None:
    """Serve until the other end goes away, or we are ended."""
    if transport == "stdio":
        if which == "bare":
            await bare().run_stdio_async()
            return
        async with guarded(local_caller(AGENT)) as face:
            await face.server().run_stdio_async()
        return
    listener = _listener()
    base_url = f"http://{HOST}:{listener.getsockname()[1]}"
    if which == "bare":
        app = bare().streamable_http_app(
            json_response=True, stateless_http=True, transport_security=LOOPBACK
        )
        await _serve(app, listener, f"{base_url}/mcp", None)
        return
    issuer = LocalIssuer(base_url, SystemClock())
    verifier = TokenVerifier(issuer.key_set(), base_url, SystemClock())
    async with guarded(caller_by_token) as face:
        whole = build_app(
            {"valve": face}, base_url=base_url, issuer_url=base_url, verifier=verifier
        )
        await _serve(whole, listener, f"{base_url}/valve/mcp", issuer.token(AGENT))


def _listener() -> socket.socket:
    """A free port, whose connections send at once.

    Without that, each answer waits tens of milliseconds for the kernel's delayed acknowledgement,
    on both sides alike, and the cost of the guard cannot be seen beside it.
    """
    listener = socket.create_server((HOST, 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def _serve(app: Any, listener: socket.socket, url: str, token: str | None) -> None:
    """Uvicorn as we serve with it, for both."""
    server = EmbeddedServer(web_server(app, HOST, HttpLimits()))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        await server.ready.wait()
        sys.stdout.write(json.dumps({"url": url, "token": token}) + "\n")
        sys.stdout.flush()
        await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)  # until it closes
        server.should_exit = True


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
