"""On the server of a whole site, and on each of its servers, nothing approves, votes or resumes."""

import re
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.server import MCPServer
from pydantic import ValidationError

from interlock_servers.identity import local_caller
from interlock_servers.offer import VERSION
from interlock_servers.surface.together import together
from interlock_tools.change import ChangeState
from tests.guardrails import conftest as guardrails
from tests.guardrails.conftest import AGENT, House, person
from tests.servers.surface.doors import PATIENCE_S, faces
from tests.servers.surface.tasking import FollowsTasks, never
from tests.servers.surface.test_nothing_approves import (
    STREAM,
    WITHDRAWS,
    AnyParams,
    AnyRequest,
    AnyResult,
    attempts,
)

house = guardrails.house  # the guard over one valve
VOTING = re.compile(r"approve|vote|authori[sz]e|resume|unstop|break.?glass", re.IGNORECASE)
# Every method there is. One more has to be looked at by a person before it is served.
METHODS = frozenset(
    {
        "completion/complete",
        "initialize",
        "logging/setLevel",
        "ping",
        "prompts/get",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/subscribe",
        "resources/templates/list",
        "resources/unsubscribe",
        "server/discover",
        "subscriptions/listen",
        "tasks/cancel",
        "tasks/get",
        "tasks/update",
        "tools/call",
        "tools/list",
    }
)
INVENTED = (
    "approvals/vote",
    "changes/approve",
    "interlock/resume",
    "interlock/stop",
    "tasks/approve",
    "tasks/result",
    "tools/approve",
    "vote",
)


def servers(house: House, who: Any = AGENT) -> dict[str, MCPServer[Any]]:
    """Each component's server, and the one of all."""
    every = faces(house, local_caller(who))
    alone = {name: face.server() for name, face in every.items()}
    whole = together([face.parts() for face in every.values()], version=VERSION).server
    return {**alone, "all": whole}


def methods(server: MCPServer[Any]) -> set[str]:
    """What the server answers to at all."""
    return set(server._lowlevel_server._request_handlers)


@pytest.mark.parametrize("name", ["valve", "meter", "all"])
async def test_every_method_is_one_that_was_looked_at(house: House, name: str) -> None:
    """And none of them is called as if it decided."""
    known = methods(servers(house)[name])

    assert known <= METHODS
    assert not any(VOTING.search(method) for method in known)
    assert not known & set(INVENTED)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("name", ["valve", "meter", "all"])
@pytest.mark.parametrize(
    "caller",
    [AGENT, person("person:operator-1", "operator", channel="token:local")],
    ids=["agent", "person by token"],
)
async def test_no_call_moves_a_change_that_waits(
    house: House, mode: Any, name: str, caller: Any
) -> None:
    """Each method, served or invented, with each tool's name and the change in every field."""
    change = await house.propose(50)
    scoped = caller.model_copy(update={"scopes": AGENT.scopes})
    server = servers(house, scoped)[name]
    params = attempts("", change.change_id, change.binding_digest or "")
    tried = 0
    async with (
        Client(server, mode=mode, extensions=[FollowsTasks(never)]) as client,
        house.working(),
    ):
        tools = [tool.name for tool in (await client.list_tools()).tools]
        for method in sorted((methods(server) | set(INVENTED)) - {STREAM, WITHDRAWS}):
            for tool in tools:
                request = AnyRequest(
                    method=method, params=AnyParams.model_validate({**params, "name": tool})
                )
                try:
                    with anyio.fail_after(PATIENCE_S):
                        await client.session.send_request(request, AnyResult)
                except (MCPError, ValidationError):
                    pass
                tried += 1
                house.clock.advance(1.0)

    now = await house.guard.get(change.change_id)
    assert tried >= len(INVENTED)
    assert (now.state, now.votes) == (ChangeState.AWAITING_APPROVAL, ())
    assert house.valve.acts == []


@pytest.mark.parametrize("name", ["valve", "meter", "all"])
async def test_no_tool_is_called_as_if_it_decided(house: House, name: str) -> None:
    """Neither its name nor an argument of it; that people decide elsewhere may be said."""
    async with Client(servers(house)[name]) as client:
        for tool in (await client.list_tools()).tools:
            assert not VOTING.search(tool.name)
            assert not VOTING.search(" ".join(tool.input_schema["properties"]))
