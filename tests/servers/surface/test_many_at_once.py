"""Whoever stays connected for nothing keeps nobody else from being answered."""

import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import anyio
import pytest
from mcp import Client, MCPError

from interlock_servers.identity import local_caller
from interlock_servers.surface.limits import HttpLimits
from interlock_servers.surface.streams import MAX_STREAMS_OF_ONE
from tests.guardrails import conftest as guardrails
from tests.guardrails.conftest import AGENT, House
from tests.servers.surface.doors import PATIENCE_S, READER, Door, faces, open_door

house = guardrails.house  # the guard over one valve
IDLE = 1000
ANSWERED_WITHIN_S = 5.0


@pytest.fixture
async def door(house: House) -> AsyncIterator[Door]:
    """Both components, under the limits that are served by default."""
    async with open_door(house) as opened:
        yield opened


async def test_a_thousand_idle_streams_keep_nobody_waiting(door: Door) -> None:
    """Half of them ask for a stream that we do not give, and half say nothing at all."""
    head = "\r\n".join(
        [
            "GET /mcp HTTP/1.1",
            "Host: 127.0.0.1:80",
            "Accept: text/event-stream",
            f"Authorization: {door.bearer(READER)['Authorization']}",
            "",
            "",
        ]
    ).encode()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * IDLE)), hard))
    async with AsyncExitStack() as open_ones:
        for number in range(IDLE):
            stream = await open_ones.enter_async_context(await door.connect())
            if number % 2:
                await stream.send(head)
                with anyio.fail_after(PATIENCE_S):
                    assert (await stream.receive()).startswith(b"HTTP/1.1 405")
        with anyio.fail_after(ANSWERED_WITHIN_S):
            answer = await door.call("valve_read_flow", {})

    assert answer.json()["result"]["structuredContent"]["flow_pct"] == 100


async def test_more_connections_than_fit_are_told_to_come_again(house: House) -> None:
    """A bound for everybody together: what is beyond it costs an answer and no more."""
    async with (
        open_door(house, limits=HttpLimits(connections=16)) as door,
        AsyncExitStack() as held,
    ):
        for _ in range(16):
            await held.enter_async_context(await door.connect())
        answer = await door.http.get(f"{door.base_url}/healthz")

    assert answer.status_code == 503


async def test_one_caller_cannot_listen_with_all_the_streams(door: Door) -> None:
    """The next one is refused, others still may, and room comes back when one ends."""
    async with AsyncExitStack() as stack:
        mine = await stack.enter_async_context(door.client("auto"))
        other = await stack.enter_async_context(door.client("auto", who=READER))
        listening = AsyncExitStack()
        for _ in range(MAX_STREAMS_OF_ONE):
            await listening.enter_async_context(listen(mine))
        with pytest.raises(MCPError, match="too many streams"):
            async with listen(mine):
                pass
        async with listen(other):
            assert not (await mine.call_tool("valve_read_flow", {})).is_error
        await listening.aclose()
        with anyio.fail_after(PATIENCE_S):
            while True:  # the server hears of it when the connection has closed
                try:
                    async with listen(mine):
                        break
                except MCPError:
                    await anyio.lowlevel.checkpoint()


def listen(client: Client):  # type: ignore[no-untyped-def]  # the SDK's own context manager
    """A stream that stays open for news of one change."""
    return client.listen(resource_subscriptions=["change://chg-000000000000"])


async def test_over_stdio_streams_are_bounded_too(house: House) -> None:
    """One connection, and still not without end."""
    server = faces(house, local_caller(AGENT))["valve"].server()
    async with Client(server) as client, AsyncExitStack() as listening:
        for _ in range(MAX_STREAMS_OF_ONE):
            await listening.enter_async_context(listen(client))
        with pytest.raises(MCPError, match="too many streams"):
            async with listen(client):
                pass
