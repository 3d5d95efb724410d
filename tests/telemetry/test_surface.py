"""Requests to our servers and from our agents, by the conventions for MCP."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from mcp import Client, MCPError

from interlock_agents.connection import Servers, connect
from interlock_servers.app import build_app
from interlock_servers.identity import LocalIssuer, TokenVerifier, caller_by_token
from interlock_tools.clock import SystemClock
from interlock_tools.errors import ComponentError
from interlock_tools.measures import MCP_S
from tests.guardrails.conftest import AGENT, House
from tests.telemetry.conftest import Told
from tests.telemetry.listening import listening
from tests.telemetry.one_change import valve_face

SERVER, CLIENT = "mcp.server.operation.duration", "mcp.client.operation.duration"


async def test_an_error_of_a_tool_is_an_error_on_both_sides(house: House, told: Told) -> None:
    """It comes back as an answer, and would count as a success anywhere else."""
    async with Client(valve_face(house).server()) as client:
        with pytest.raises(ComponentError, match="no line 2"):
            await Servers({"valve": client}).call("valve", "read_flow", line=2)

    for kind in ("CLIENT", "SERVER"):
        span = told.span("tools/call read_flow", kind)
        assert (span.attributes or {})["error.type"] == "tool_error"
        assert span.status.is_ok is False
        assert not span.events
    assert (told.span("execute_tool read_flow").attributes or {})["error.type"] == "tool_error"
    for name in (SERVER, CLIENT):
        assert told.count(name, error__type="tool_error", gen_ai__tool__name="read_flow") > 0


async def test_a_refused_request_has_its_code(house: House, told: Told) -> None:
    """The JSON-RPC code is the error's type and the response's status."""
    async with Client(valve_face(house).server(), mode="legacy") as client:
        with pytest.raises(MCPError):
            await client.get_prompt("nothing")

    for kind in ("CLIENT", "SERVER"):
        assert told.span("prompts/get nothing", kind).status.is_ok is False
    served = told.span("prompts/get nothing", "SERVER").attributes or {}
    assert served["error.type"] == served["rpc.response.status_code"]
    assert told.count(SERVER, mcp__method__name="prompts/get", error__type=served["error.type"]) > 0


async def test_a_resource_is_an_attribute_and_no_part_of_a_name(house: House, told: Told) -> None:
    """A name for each resource would open a series for each."""
    async with Client(valve_face(house).server(), mode="legacy") as client:
        with pytest.raises(MCPError):
            await client.read_resource("valve://nowhere")

    served = told.span("resources/read", "SERVER").attributes or {}
    assert served["mcp.resource.uri"] == "valve://nowhere"
    assert told.span("resources/read", "CLIENT")


@pytest.mark.parametrize(("mode", "sessions"), [("legacy", 1), ("2026-07-28", 0)])
async def test_a_session_is_timed_where_there_is_one(
    house: House, told: Told, mode: str, sessions: int
) -> None:
    """Clients of 2025-11-25 have sessions; the newer protocol has none."""
    was = told.count("mcp.server.session.duration")
    async with Client(valve_face(house).server(), mode=mode) as client:
        await client.list_tools()

    assert told.count("mcp.server.session.duration") == was + sessions


async def test_durations_have_the_buckets_of_the_conventions(house: House, told: Told) -> None:
    """Or no dashboard of another could be laid over ours."""
    async with Client(valve_face(house).server()) as client:
        await Servers({"valve": client}).call("valve", "read_flow")

    for name in (SERVER, CLIENT):
        assert {point.explicit_bounds for point in told.points()[name]} == {MCP_S}


async def test_over_http_both_sides_know_the_way(house: House, told: Told) -> None:
    """Who called from where, and which server was called; the trace crosses the wire."""
    async with served(house) as (url, token), connect({"valve": url}, token) as servers:
        await servers.call("valve", "read_flow")

    port = int(url.split(":")[2].split("/")[0])
    sent = told.span("tools/call read_flow", "CLIENT")
    got = told.span("tools/call read_flow", "SERVER")
    assert sent.context is not None
    assert got.context is not None
    assert got.parent is not None
    assert got.context.trace_id == sent.context.trace_id
    assert got.parent.span_id == sent.context.span_id
    for span in (sent, got):
        assert (span.attributes or {})["network.transport"] == "tcp"
        assert (span.attributes or {})["network.protocol.name"] == "http"
    assert (sent.attributes or {})["server.address"] == "127.0.0.1"
    assert (sent.attributes or {})["server.port"] == port
    assert (got.attributes or {})["client.address"] == "127.0.0.1"
    assert (got.attributes or {})["network.protocol.version"] == "1.1"
    assert told.count(CLIENT, server__port=port, gen_ai__tool__name="read_flow") == 1


@asynccontextmanager
async def served(house: House) -> AsyncIterator[tuple[str, str]]:
    """The valve on HTTP: its address and the agent's token."""
    listener = socket.create_server(("127.0.0.1", 0))
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    issuer = LocalIssuer(base_url, SystemClock())
    app = build_app(
        {"valve": valve_face(house, caller_by_token)},
        base_url=base_url,
        issuer_url=base_url,
        verifier=TokenVerifier(issuer.key_set(), base_url, SystemClock()),
    )
    async with listening(app, listener):
        yield f"{base_url}/valve/mcp", issuer.token(AGENT)
