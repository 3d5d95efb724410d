"""A client that understands tasks, as an agent's host would be one, over the valve's server."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from mcp import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.client.session import ClientSession
from mcp.server import MCPServer
from mcp.types import CallToolResult, EmptyResult, Request, RequestParams, Result

from interlock_servers.offer import Face
from interlock_servers.surface.tasks import TASKS
from interlock_tools.identity import Principal
from tests.guardrails.conftest import House
from tests.guardrails.valve import MoveValve

Wait = Callable[[str], Awaitable[object]]


class Created(Result):
    """What a tool call is answered with instead of its result."""

    result_type: Literal["task"]
    task_id: str
    status: str
    created_at: str
    last_updated_at: str
    ttl_ms: int | None
    poll_interval_ms: int
    status_message: str | None = None


class Followed(Result):
    """A task as `tasks/get` shows it."""

    task_id: str
    status: str
    status_message: str | None = None
    result: CallToolResult | None = None
    error: dict[str, Any] | None = None


class Which(RequestParams):
    """Which task, and what it is told."""

    task_id: str
    input_responses: dict[str, Any] | None = None


class AboutTask(Request[Which, str]):
    """One of the three methods; over HTTP the task is named in a header too."""

    name_param = "taskId"
    method: str
    params: Which


def about(method: str, task_id: str, answers: dict[str, Any] | None = None) -> AboutTask:
    """The request for this task."""
    return AboutTask(method=method, params=Which(task_id=task_id, input_responses=answers))


async def followed(session: ClientSession, task_id: str) -> Followed:
    """The task as it stands."""
    return await session.send_request(about("tasks/get", task_id), Followed)


async def cancel(session: ClientSession, task_id: str) -> EmptyResult:
    """Ask that it be ended."""
    return await session.send_request(about("tasks/cancel", task_id), EmptyResult)


async def update(session: ClientSession, task_id: str, **answers: Any) -> EmptyResult:
    """Answer what it did not ask."""
    return await session.send_request(about("tasks/update", task_id, answers), EmptyResult)


class FollowsTasks(ClientExtension):
    """Turns a task into the tool's result: waits until it has ended, then fetches it."""

    identifier = TASKS

    def __init__(self, wait: Wait) -> None:
        self._wait = wait

    def claims(self) -> Sequence[ResultClaim[Any]]:
        """Results of type `task`."""
        return [ResultClaim(result_type="task", model=Created, resolve=self._resolve)]

    async def _resolve(self, created: Created, context: ClaimContext) -> CallToolResult:
        await self._wait(created.task_id)
        ended = await followed(context.session, created.task_id)
        assert ended.result is not None, ended
        return ended.result


@dataclass
class Caller:
    """Who the requests come from at the moment."""

    principal: Principal

    def __call__(self) -> Principal:
        """The principal of the present request."""
        return self.principal


def valve_server(house: House, caller: Caller) -> MCPServer[Any]:
    """The server of the one valve."""
    face = Face("valve", guard=house.guard, who=caller, instructions="A valve.")
    face.propose(MoveValve(house.valve))
    return face.server()


async def never(task_id: str) -> None:
    """For a client that follows its tasks by hand."""
    raise AssertionError(f"{task_id} was followed")


@asynccontextmanager
async def task_client(server: MCPServer[Any], wait: Wait = never) -> AsyncIterator[Client]:
    """A client in memory that declares tasks."""
    async with Client(server, extensions=[FollowsTasks(wait)]) as client:
        yield client


async def move(client: Client, position_pct: int = 50, **more: Any) -> Created:
    """Propose a move as a task, and do not wait for it."""
    arguments = {"position_pct": position_pct, "reason": "less flow is enough", **more}
    created = await client.session.call_tool("move_valve", arguments, allow_claimed=True)
    assert isinstance(created, Created), created
    return created
