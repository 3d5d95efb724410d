"""Tasks over real HTTP: with tokens, the header that routes, and the principal of each request."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from interlock_servers.app import build_app
from interlock_servers.identity import LocalIssuer, TokenVerifier, caller_by_token
from interlock_servers.offer import Face
from interlock_servers.surface.tasks import TASKS
from interlock_servers.transports.embedded import EmbeddedServer
from interlock_tools.change import ChangeState
from interlock_tools.clock import SystemClock
from interlock_tools.identity import Principal
from tests.guardrails import conftest as guardrails
from tests.guardrails.conftest import AGENT, House, person
from tests.guardrails.valve import MoveValve
from tests.servers.surface.tasking import FollowsTasks, Wait, cancel, followed, move, never

house = guardrails.house  # the guard over one valve
OPERATOR = person("person:operator-1", "operator")
ANOTHER = AGENT.model_copy(update={"id": "agent:another"})
PATIENCE_S = 20.0
HEADER_MISMATCH = -32020


@dataclass
class Door:
    """The valve over HTTP, and tokens for whoever is to come in."""

    url: str
    issuer: LocalIssuer

    @asynccontextmanager
    async def http(self, principal: Principal) -> AsyncIterator[httpx2.AsyncClient]:
        """A client whose requests come from this principal."""
        headers = {"Authorization": f"Bearer {self.issuer.token(principal)}"}
        async with httpx2.AsyncClient(headers=headers, timeout=PATIENCE_S) as http:
            yield http

    @asynccontextmanager
    async def client(
        self, principal: Principal, *, mode: Any = "auto", wait: Wait = never
    ) -> AsyncIterator[Client]:
        """An agent's host that understands tasks."""
        async with self.http(principal) as http:
            transport = streamable_http_client(self.url, http_client=http)
            follows = [FollowsTasks(wait)]
            async with Client(transport, mode=mode, extensions=follows) as client:
                yield client


@pytest.fixture
async def door(house: House) -> AsyncIterator[Door]:
    """The valve, served on a port that the system chooses."""
    listener = socket.create_server(("127.0.0.1", 0))
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    issuer = LocalIssuer(base_url, SystemClock())
    face = Face("valve", guard=house.guard, who=caller_by_token, instructions="A valve.")
    face.propose(MoveValve(house.valve))
    app = build_app(
        {"valve": face},
        base_url=base_url,
        issuer_url=base_url,
        verifier=TokenVerifier(issuer.key_set(), base_url, SystemClock()),
    )
    server = EmbeddedServer(uvicorn.Config(app, log_level="warning", access_log=False))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        with anyio.fail_after(PATIENCE_S):
            await server.ready.wait()
        yield Door(f"{base_url}/valve/mcp", issuer)
        server.should_exit = True


async def test_a_host_follows_a_change_to_its_end(house: House, door: Door) -> None:
    """Proposed, approved by a person elsewhere, carried out, and only then answered."""

    async def wait(task_id: str) -> None:
        await house.approve(await house.guard.get(task_id), OPERATOR)
        async with house.working():
            await house.end_of(await house.guard.get(task_id))

    async with door.client(AGENT, wait=wait) as client:
        result = await client.call_tool("move_valve", {"position_pct": 50, "reason": "less"})

    change = result.structured_content or {}
    assert (result.is_error, change["state"]) == (False, "succeeded")
    assert house.valve.acts == [50]


async def test_a_task_belongs_to_the_token_that_proposed_it(house: House, door: Door) -> None:
    """Two callers of one process are not mixed up, and the second learns nothing of the first."""
    async with door.client(AGENT) as first, door.client(ANOTHER) as second:
        mine = await move(first)
        for attempt in (followed, cancel):
            with pytest.raises(MCPError, match="no such task of yours"):
                await attempt(second.session, mine.task_id)
        assert (await followed(first.session, mine.task_id)).status == "working"
        await cancel(first.session, mine.task_id)
        assert (await followed(first.session, mine.task_id)).status == "cancelled"

    assert (await house.guard.get(mine.task_id)).state is ChangeState.REJECTED


async def test_a_task_that_another_process_made_is_found(house: House, door: Door) -> None:
    """Every request stands alone: a new connection, or another replica, answers as well."""
    async with door.client(AGENT) as before:
        created = await move(before)
    async with door.client(AGENT) as after:
        assert (await followed(after.session, created.task_id)).status == "working"


@pytest.mark.parametrize("named", [None, "chg-000000000000"], ids=["missing", "another"])
async def test_the_header_that_routes_must_name_the_task(door: Door, named: str | None) -> None:
    """What sits in front decides by headers: they may not say something else than the body."""
    async with door.client(AGENT) as client:
        created = await move(client)
    envelope = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {TASKS: {}}},
    }
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tasks/cancel",
        "params": {"taskId": created.task_id, "_meta": envelope},
    }
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tasks/cancel",
        **({} if named is None else {"Mcp-Name": named}),
    }
    async with door.http(AGENT) as http:
        answer = await http.post(door.url, json=body, headers=headers)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == HEADER_MISMATCH


async def test_a_client_of_2025_is_answered_with_the_change(door: Door) -> None:
    """It is given a handle, whatever it declares: tasks cannot be delivered to it."""
    async with door.client(AGENT, mode="legacy") as client:
        result = await client.call_tool("move_valve", {"position_pct": 50, "reason": "less"})

    assert (result.structured_content or {})["state"] == "awaiting_approval"
