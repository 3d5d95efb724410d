"""A caller that goes away in the middle takes nothing back: the change goes on, on record."""

from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from mcp import Client

from interlock_servers.identity import local_caller
from interlock_tools.change import Change, ChangeState
from interlock_tools.fact import Fact, FactNeed, Unknown
from tests.guardrails import conftest as guardrails
from tests.guardrails.conftest import AGENT, House, person
from tests.servers.surface.doors import (
    PATIENCE_S,
    faces,
    modern_call,
    modern_headers,
    open_door,
    raw_post,
)

house = guardrails.house  # the guard over one valve
OPERATOR = person("person:operator-1", "operator")
MOVE = {"position_pct": 50, "reason": "less is enough"}
TO_THE_END = ["requested", "decided", "vote", "intent", "outcome", "verified"]


@dataclass
class Held:
    """The valve's sensor: once asked, it answers when it is let."""

    asked: anyio.Event
    go_on: anyio.Event


@pytest.fixture
def held(house: House, monkeypatch: pytest.MonkeyPatch) -> Held:
    """A proposal that stands in the middle until it is let go on."""
    moment = Held(anyio.Event(), anyio.Event())
    answer = house.valve.fact

    async def slowly(need: FactNeed) -> Fact | Unknown:
        moment.asked.set()
        await moment.go_on.wait()
        return await answer(need)

    monkeypatch.setattr(house.valve, "fact", slowly)
    return moment


async def goes_on(house: House) -> Change:
    """The one change, carried to its end by people and worker."""

    async def is_there() -> bool:
        return bool(await house.guard.latest())

    await house.until(is_there)
    (change,) = await house.guard.latest()
    assert change.state is ChangeState.AWAITING_APPROVAL
    await house.approve(change, OPERATOR)
    async with house.working():
        return await house.end_of(change)


@pytest.mark.parametrize("era", ["2026-07-28", "2025-11-25"])
async def test_a_connection_that_breaks_in_mid_request(house: House, held: Held, era: str) -> None:
    """What was asked for is decided, waits for people, and is done when they say yes."""
    async with open_door(house) as door:
        said = {**door.bearer(), **modern_headers("tools/call", "valve_move_valve")}
        said |= {"MCP-Protocol-Version": era}
        async with await door.connect() as stream:
            await stream.send(raw_post("/mcp", said, modern_call("valve_move_valve", MOVE)))
            with anyio.fail_after(PATIENCE_S):
                await held.asked.wait()
        held.go_on.set()
        change = await goes_on(house)

    assert (change.state, house.valve.acts) == (ChangeState.SUCCEEDED, [50])
    assert house.records(change) == TO_THE_END
    assert change.requester.id == AGENT.id


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_call_that_is_cancelled_in_the_middle(house: House, held: Held, mode: Any) -> None:
    """To take a change back is `tasks/cancel`; to stop listening for the answer is not."""
    server = faces(house, local_caller(AGENT))["valve"].server()
    async with Client(server, mode=mode) as client:
        async with anyio.create_task_group() as calling:
            calling.start_soon(client.call_tool, "move_valve", MOVE)
            with anyio.fail_after(PATIENCE_S):
                await held.asked.wait()
            calling.cancel_scope.cancel()
            held.go_on.set()
        change = await goes_on(house)

    assert (change.state, house.valve.acts) == (ChangeState.SUCCEEDED, [50])
    assert house.records(change) == TO_THE_END
