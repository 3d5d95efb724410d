"""No method of the protocol moves a change on, in either era: approving is not a thing it has."""

from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.types import Request, RequestParams, Result
from pydantic import ConfigDict, ValidationError

from interlock_tools.change import ChangeState
from tests.guardrails import conftest as guardrails
from tests.guardrails.conftest import AGENT, House
from tests.servers.surface.tasking import Caller, FollowsTasks, move, never, valve_server

house = guardrails.house  # the guard over one valve
PATIENCE_S = 20.0
STREAM = "subscriptions/listen"  # has no answer while it lasts; its parameters are a filter
WITHDRAWS = "tasks/cancel"


class AnyParams(RequestParams):
    """Whatever a caller may think of."""

    model_config = ConfigDict(extra="allow")


class AnyResult(Result):
    """Whatever comes back."""

    model_config = ConfigDict(extra="allow")


def attempts(tool: str, change_id: str, digest: str) -> dict[str, Any]:
    """Parameters that name the change in every field that a method could read."""
    yes = {"action": "accept", "content": {"approve": True}}
    return {
        "taskId": change_id,
        "inputResponses": dict.fromkeys(("approve", "vote", change_id, digest), yes),
        "name": tool,
        "uri": f"change://{change_id}",
        "level": "debug",
        "ref": {"type": "ref/prompt", "name": "approve"},
        "argument": {"name": "change_id", "value": change_id},
        "arguments": {},
        "approve": True,
        "shown_digest": digest,
        "typed_target": "valve-1",
    }


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_no_mcp_method_approves(house: House, mode: Any) -> None:
    """Every method that the server has is called with the change's name; the change waits on."""
    server = valve_server(house, Caller(AGENT))
    methods = set(server._lowlevel_server._request_handlers) - {STREAM}
    async with Client(server, extensions=[FollowsTasks(never)]) as proposer:
        created = await move(proposer)
    change = await house.guard.get(created.task_id)
    digest = change.binding_digest or ""
    answered: set[str] = set()

    async def attempt(client: Client, method: str, tool: str) -> None:
        params = AnyParams.model_validate(attempts(tool, change.change_id, digest))
        try:
            with anyio.fail_after(PATIENCE_S):
                request = AnyRequest(method=method, params=params)
                await client.session.send_request(request, AnyResult)
        except (MCPError, ValidationError):
            return
        answered.add(method)

    async with (
        Client(server, mode=mode, extensions=[FollowsTasks(never)]) as client,
        house.working(),
    ):
        tools = [tool.name for tool in (await client.list_tools()).tools]
        for method in sorted(methods - {WITHDRAWS}):
            for tool in tools:
                await attempt(client, method, tool)
                house.clock.advance(1.0)
        assert await house.guard.get(change.change_id) == change
        await attempt(client, WITHDRAWS, tools[0])
        house.clock.advance(1.0)

    ended = await house.guard.get(change.change_id)
    assert {"tools/list", "tools/call"} <= answered
    assert ({"tasks/get", "tasks/update", WITHDRAWS} <= answered) is (mode == "auto")
    assert ended.state is (
        ChangeState.REJECTED if mode == "auto" else ChangeState.AWAITING_APPROVAL
    )
    assert (ended.votes, house.valve.acts) == ((), [])


class AnyRequest(Request[AnyParams, str]):
    """A request for any method; over HTTP it would be named by its task."""

    method: str
    params: AnyParams
