"""A change as a task: whoever proposed it follows it under its own id, and nobody decides there."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.client.extension import advertise
from mcp.types import CallToolResult

from interlock_guardrails.engine import create_store_engine, create_tables
from interlock_servers.identity import SCOPE_READ
from interlock_servers.surface.tasks import TASKS
from interlock_tools.change import ChangeState
from tests.guardrails import conftest as guardrails
from tests.guardrails.conftest import AGENT, House, Keys, house_on, person
from tests.servers.surface.tasking import (
    Caller,
    cancel,
    followed,
    move,
    task_client,
    update,
    valve_server,
)

house = guardrails.house  # the guard over one valve
OPERATOR = person("person:operator-1", "operator")
ANOTHER = AGENT.model_copy(update={"id": "agent:another"})
FOR_SOMEBODY = AGENT.model_copy(update={"on_behalf_of": "person:ops"})
READER = AGENT.model_copy(update={"scopes": frozenset({SCOPE_READ})})
UNKNOWN, REFUSED, LACKS = -32602, -32600, -32021


@pytest.fixture
def caller() -> Caller:
    """The agent, unless a test says otherwise."""
    return Caller(AGENT)


@pytest.fixture
async def client(house: House, caller: Caller) -> AsyncIterator[Client]:
    """An agent's host that understands tasks."""
    async with task_client(valve_server(house, caller)) as connected:
        yield connected


async def approved(house: House, task_id: str) -> None:
    """An operator says yes, and it is carried out."""
    await house.approve(await house.guard.get(task_id), OPERATOR)
    async with house.working():
        await house.end_of(await house.guard.get(task_id))


async def test_a_proposed_change_is_a_task_under_its_own_id(house: House, client: Client) -> None:
    """It works until it is verified, and its result is the change as it ended."""
    created = await move(client)
    change = await house.guard.get(created.task_id)

    assert (created.status, change.state) == ("working", ChangeState.AWAITING_APPROVAL)
    assert created.created_at == "2026-11-01T12:00:00.000Z"
    assert (await followed(client.session, created.task_id)).status == "working"

    await approved(house, created.task_id)
    ended = await followed(client.session, created.task_id)

    assert ended.status == "completed"
    assert ended.result is not None
    assert ended.result.is_error is False
    assert (ended.result.structured_content or {})["state"] == "succeeded"
    assert house.valve.acts == [50]


async def test_a_client_waits_for_the_end_as_for_any_tool(house: House, caller: Caller) -> None:
    """To a host that follows tasks itself, the tool just takes longer."""

    async def wait(task_id: str) -> None:
        await approved(house, task_id)

    async with task_client(valve_server(house, caller), wait) as client:
        result = await client.call_tool("move_valve", {"position_pct": 50, "reason": "less"})

    assert (result.structured_content or {})["state"] == "succeeded"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_who_knows_no_tasks_is_answered_with_the_change(house: House, mode: str) -> None:
    """In both eras: the handle, at once, and `get_change` to follow it."""
    async with Client(valve_server(house, Caller(AGENT)), mode=mode) as client:
        result = await client.call_tool("move_valve", {"position_pct": 50, "reason": "less"})

    change = result.structured_content or {}
    assert (change["state"], result.is_error) == ("awaiting_approval", False)


async def test_a_client_of_2025_that_declares_tasks_is_given_none(house: House) -> None:
    """Its protocol has no result of that kind: a task would reach it as an answer of nothing."""
    declares = [advertise(TASKS)]
    server = valve_server(house, Caller(AGENT))
    async with Client(server, mode="legacy", extensions=declares) as client:
        result = await client.call_tool("move_valve", {"position_pct": 50, "reason": "less"})

    assert (result.structured_content or {})["state"] == "awaiting_approval"


async def test_a_change_that_is_refused_has_completed_with_an_error(client: Client) -> None:
    """A task that did not have its effect says so; `failed` is for the protocol's own errors."""
    created = await move(client, position_pct=5)
    ended = await followed(client.session, created.task_id)

    assert created.status == ended.status == "completed"
    assert ended.error is None
    assert ended.result is not None
    assert ended.result.is_error is True
    assert (ended.result.structured_content or {})["state"] == "refused"


async def test_a_rejected_change_has_completed_with_an_error(house: House, client: Client) -> None:
    """A person's no is an answer, not a cancellation."""
    created = await move(client)
    await house.approve(await house.guard.get(created.task_id), OPERATOR, approve=False)

    ended = await followed(client.session, created.task_id)

    assert (ended.status, ended.result and ended.result.is_error) == ("completed", True)


async def test_a_dry_run_and_a_mistake_are_answered_at_once(house: House, client: Client) -> None:
    """Neither leaves a change behind that a task could be."""
    asked = {"position_pct": 50, "reason": "what if"}
    for arguments in ({**asked, "dry_run": True}, {**asked, "dryrun": True}):
        answer = await client.session.call_tool("move_valve", arguments, allow_claimed=True)
        assert isinstance(answer, CallToolResult)
        assert answer.is_error is ("dryrun" in arguments)
    assert await house.guard.latest() == []


async def test_the_same_proposal_again_is_the_same_task(house: House, client: Client) -> None:
    """A host that lost the answer and asks again does not begin it twice."""
    first, again = await move(client), await move(client)

    assert first.task_id == again.task_id
    assert len(await house.guard.latest()) == 1


async def test_a_task_outlives_the_process(tmp_path: Path) -> None:
    """The change's row is the task: another process, on the same store, goes on with it."""
    engine = create_store_engine(f"sqlite:///{tmp_path / 'store.db'}")
    create_tables(engine)
    keys = Keys.generate()
    with house_on(engine, keys=keys) as first:
        async with task_client(valve_server(first, Caller(AGENT))) as client:
            created = await move(client)
        await first.approve(await first.guard.get(created.task_id), OPERATOR)
    with house_on(engine, keys=keys, valve=first.valve) as second:
        async with task_client(valve_server(second, Caller(AGENT))) as client:
            assert (await followed(client.session, created.task_id)).status == "working"
            async with second.working():
                await second.end_of(await second.guard.get(created.task_id))
            ended = await followed(client.session, created.task_id)
    engine.dispose()

    assert (ended.status, second.valve.acts) == ("completed", [50])


@pytest.mark.parametrize("other", [ANOTHER, OPERATOR, FOR_SOMEBODY], ids=lambda who: str(who.id))
async def test_another_caller_has_no_such_task(
    house: House, client: Client, caller: Caller, other: Any
) -> None:
    """To look, to answer and to cancel are for whoever proposed it; others learn nothing."""
    created = await move(client)
    scopes = AGENT.scopes
    caller.principal = other.model_copy(update={"scopes": scopes})

    for attempt in (followed, cancel, update):
        with pytest.raises(MCPError) as refused:
            await attempt(client.session, created.task_id)
        with pytest.raises(MCPError) as unknown:
            await attempt(client.session, "chg-000000000000")
        assert refused.value.error == unknown.value.error
        assert refused.value.error.code == UNKNOWN
    assert (await house.guard.get(created.task_id)).state is ChangeState.AWAITING_APPROVAL


async def test_a_look_at_a_task_is_on_the_ledger(house: House, client: Client) -> None:
    """It is a read like any other, also where there was nothing to see."""
    created = await move(client)
    await followed(client.session, created.task_id)
    with pytest.raises(MCPError):
        await followed(client.session, "chg-000000000000")

    house.ledger.flush()
    reads = [r["body"] for r in house.ledger.read(0, 1000) if r["kind"] == "read"]
    asked = {"tool": "tasks/get", "caller": "agent:power"}
    assert reads == [
        {**asked, "arguments": {"task_id": created.task_id}},
        {
            **asked,
            "arguments": {"task_id": "chg-000000000000"},
            "failed": "no such task of this caller",
        },
    ]


async def test_to_cancel_is_to_withdraw_what_has_not_begun(house: House, client: Client) -> None:
    """The change ends as rejected, by its requester, and never acts; again changes nothing."""
    created = await move(client)

    await cancel(client.session, created.task_id)
    await cancel(client.session, created.task_id)
    task = await followed(client.session, created.task_id)
    change = await house.guard.get(created.task_id)

    assert (task.status, task.result) == ("cancelled", None)
    assert "withdrawn by agent:power" in (task.status_message or "")
    assert change.state is ChangeState.REJECTED
    async with house.working():
        house.clock.advance(5.0)
    assert house.valve.acts == []


async def test_what_has_begun_is_not_cancelled(house: House, client: Client) -> None:
    """What was sent to the plant is carried to its verified end; the refusal says so."""
    created = await move(client)
    house.valve.mishap = "ignores"  # the flow does not follow: it stays in verification
    await house.approve(await house.guard.get(created.task_id), OPERATOR)
    async with house.working():

        async def verifying() -> bool:
            return (await house.guard.get(created.task_id)).state is ChangeState.VERIFYING

        await house.until(verifying)
        with pytest.raises(MCPError, match="it has begun") as refused:
            await cancel(client.session, created.task_id)
        assert refused.value.error.code == REFUSED
        assert (await followed(client.session, created.task_id)).status == "working"
        await house.end_of(await house.guard.get(created.task_id))
        await cancel(client.session, created.task_id)  # of what has ended: nothing, and no error

    ended = await followed(client.session, created.task_id)
    assert (ended.status, ended.result and ended.result.is_error) == ("completed", True)


async def test_who_may_only_read_cannot_cancel(
    house: House, client: Client, caller: Caller
) -> None:
    """Even their own: to take back is to act."""
    created = await move(client)
    caller.principal = READER

    assert (await followed(client.session, created.task_id)).status == "working"
    for attempt in (cancel, update):
        with pytest.raises(MCPError, match="insufficient_scope"):
            await attempt(client.session, created.task_id)
    assert (await house.guard.get(created.task_id)).state is ChangeState.AWAITING_APPROVAL


async def test_an_answer_to_a_task_approves_nothing(house: House, client: Client) -> None:
    """Whatever is sent, by whichever key: a change asks its requester nothing."""
    created = await move(client)
    change = await house.guard.get(created.task_id)
    yes = {"action": "accept", "content": {"approve": True, "ok": True}}

    for key in ("approve", "vote", "confirm", change.change_id, change.binding_digest or ""):
        await update(client.session, created.task_id, **{key: yes})

    async with house.working():
        house.clock.advance(5.0)
    assert await house.guard.get(created.task_id) == change
    assert house.valve.acts == []


async def test_a_client_that_declares_no_tasks_has_no_methods_for_them(house: House) -> None:
    """The newer era names what is missing; in the older one there are no such methods."""
    server = valve_server(house, Caller(AGENT))
    async with task_client(server) as able:
        created = await move(able)
    for mode, code in (("auto", LACKS), ("legacy", -32601)):
        async with Client(server, mode=mode) as client:
            for attempt in (followed, cancel, update):
                with pytest.raises(MCPError) as refused:
                    await attempt(client.session, created.task_id)
                assert refused.value.error.code == code
