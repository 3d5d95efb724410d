"""A guarded read against an unguarded one, both over streamable HTTP, in pairs, one by one.

Guarded: a verified token, the scope, strict arguments, the deadline and the record of the read.
Unguarded: the bare SDK with the same page and no authorization. One client asks both in turns.
"""

import json
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
import httpx2
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import CacheHint, MCPServer
from mcp.types import CallToolResult, TextContent
from pydantic import Field

from interlock_evals.bench.measured import Measured, median
from interlock_evals.reports import Figure, Promise
from interlock_guardrails.engine import create_store_engine, create_tables
from interlock_guardrails.facts import FactRegistry
from interlock_guardrails.guard import Guard
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.rules import SiteRules
from interlock_guardrails.store import Store
from interlock_policies.bundles import load_bundle
from interlock_servers.app import LOOPBACK, build_app
from interlock_servers.identity import LocalIssuer, TokenVerifier, caller_by_token
from interlock_servers.offer import Face
from interlock_servers.page import Page
from interlock_servers.serving import EmbeddedServer, agent_principal
from interlock_tools.clock import SystemClock

ROUNDS, PAIRS, WARM_UP = 11, 60, 30
RATIO_LIMIT = 1.15
ORIGIN = "bench.example/ledger"
HOST = "127.0.0.1"
READY_WITHIN_S = 20.0
WHY_NOT = (
    "the signature of the token is verified at every call, about 0.1 ms; the web framework around "
    "it and the tool's own steps cost about as much each"
)
Ask = Callable[[], Awaitable[object]]


class Flow(Page):
    """A small page, as most reads are."""

    flow_pct: int
    meters: list[float] = Field(default_factory=lambda: [n / 7 for n in range(20)])


async def read_flow(line: Annotated[int, Field(ge=1, le=9)] = 1) -> Flow:
    """What flows through the valve now, in percent."""
    return Flow(observed_at=SystemClock().now(), origin="meter", flow_pct=10 * line)


def measure() -> Measured:
    """Medians of both, and of the ratios of the rounds; by the SDK's client and by bare HTTP."""
    figures = anyio.run(_measure)
    ratio = figures["guarded_read_ratio_p50"].value
    return Measured(
        figures,
        {"guarded_read_ratio_p50": Promise.at_most(ratio, RATIO_LIMIT, "", WHY_NOT)},
    )


async def _measure() -> dict[str, Figure]:
    async with AsyncExitStack() as stack:
        guarded_url, token = await stack.enter_async_context(_guarded())
        bare_url = await stack.enter_async_context(_bare())
        guarded = await stack.enter_async_context(_client(guarded_url, token))
        bare = await stack.enter_async_context(_client(bare_url, None))
        whole = await _in_turns(_by_client(guarded), _by_client(bare))
        http = await stack.enter_async_context(httpx2.AsyncClient())
        wire = await _in_turns(_by_http(http, guarded_url, token), _by_http(http, bare_url, None))
    return {**_figures("", *whole), **_figures("_on_the_wire", *wire)}


def _figures(suffix: str, guarded: list[list[float]], bare: list[list[float]]) -> dict[str, Figure]:
    """Medians over everything, and the ratio of medians of each round."""
    ratios = [
        statistics.median(ours) / statistics.median(theirs)
        for ours, theirs in zip(guarded, bare, strict=True)
    ]
    return {
        f"guarded_read_ratio_p50{suffix}": median(ratios, ""),
        f"guarded_read_p50_ms{suffix}": median([s for turn in guarded for s in turn], "ms", 1e3),
        f"bare_read_p50_ms{suffix}": median([s for turn in bare for s in turn], "ms", 1e3),
    }


async def _in_turns(guarded: Ask, bare: Ask) -> tuple[list[list[float]], list[list[float]]]:
    """Seconds of each call by round; within a pair, who is first changes from pair to pair."""
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    for _ in range(WARM_UP):
        await guarded()
        await bare()
    for _ in range(ROUNDS):
        ours.append([])
        theirs.append([])
        for pair in range(PAIRS):
            order = [(guarded, ours[-1]), (bare, theirs[-1])]
            for ask, took in order if pair % 2 else reversed(order):
                before = time.perf_counter()
                await ask()
                took.append(time.perf_counter() - before)
    return ours, theirs


def _by_client(client: Client) -> Ask:
    async def ask() -> None:
        result = await client.call_tool("read_flow", {"line": 3})
        if result.is_error:
            raise RuntimeError(str(result.content))

    return ask


def _by_http(http: httpx2.AsyncClient, url: str, token: str | None) -> Ask:
    """The same request as bytes: next to nothing of the client's work is in it."""
    version = "2026-07-28"
    body = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {
                "name": "read_flow",
                "arguments": {"line": 3},
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": version,
                    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
            },
        }
    )
    headers = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": version,
        "Mcp-Method": "tools/call",
        "Mcp-Name": "read_flow",
    }
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"

    async def ask() -> None:
        response = await http.post(url, content=body, headers=headers)
        if response.status_code != 200 or b'"flow_pct":30' not in response.content:
            raise RuntimeError(response.text)

    return ask


# ── the two servers ───────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def _guarded() -> AsyncIterator[tuple[str, str]]:
    """The page behind our face and app; its address, and a token that opens it."""
    clock = SystemClock()
    listener = _listener()
    base_url = f"http://{HOST}:{listener.getsockname()[1]}"
    issuer = LocalIssuer(base_url, clock)
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
        face = Face("valve", guard=guard, who=caller_by_token, instructions="A valve.")
        face.read(read_flow)
        verifier = TokenVerifier(issuer.key_set(), base_url, clock)
        app = build_app({"valve": face}, base_url=base_url, issuer_url=base_url, verifier=verifier)
        await stack.enter_async_context(_serving(app, listener))
        token = issuer.token(agent_principal("bench", owner="person:owner"))
        yield f"{base_url}/valve/mcp", token


@asynccontextmanager
async def _bare() -> AsyncIterator[str]:
    """The same page on the SDK alone: no authorization, no record, lenient arguments."""
    server = MCPServer(
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
    app = server.streamable_http_app(
        json_response=True, stateless_http=True, transport_security=LOOPBACK
    )
    listener = _listener()
    async with _serving(app, listener):
        yield f"http://{HOST}:{listener.getsockname()[1]}/mcp"


def _listener() -> socket.socket:
    """A free port, whose connections send at once.

    Without that, each answer waits tens of milliseconds for the kernel's delayed acknowledgement,
    on both sides alike, and the cost of the guard cannot be seen beside it.
    """
    listener = socket.create_server((HOST, 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@asynccontextmanager
async def _serving(app: Any, listener: socket.socket) -> AsyncIterator[None]:
    """Uvicorn as we serve with it."""
    server = EmbeddedServer(uvicorn.Config(app, host=HOST, log_level="warning", access_log=False))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        with anyio.fail_after(READY_WITHIN_S):
            await server.ready.wait()
        try:
            yield
        finally:
            server.should_exit = True


@asynccontextmanager
async def _client(url: str, token: str | None) -> AsyncIterator[Client]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        await client.list_tools()
        yield client
