"""Long work as tasks (`io.modelcontextprotocol/tasks`): what goes over the wire.

What does the work, and who may see it, is the source's to say; nothing is kept here.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from mcp.shared.exceptions import MCPError
from mcp.types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    CallToolRequestParams,
    CallToolResult,
    ErrorData,
)
from pydantic import Field

from interlock_servers.surface.extension import (
    Extension,
    HandlerResult,
    MethodBinding,
    RequestContext,
    RequestParams,
    ToolCall,
    check_name_header,
    declares,
    modern_method,
    require_client_extension,
)

TASKS = "io.modelcontextprotocol/tasks"
POLL_EVERY_MS = 1000


class TaskStatus(StrEnum):
    """Where a task stands. A tool that answers with an error has `completed` its task."""

    WORKING = "working"
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task as it stands; `result` only when completed, `error` only when failed.

    `asks` are the questions that are open, by keys that are never used twice. `ttl_ms` None: it is
    kept for as long as its source keeps what it is about.
    """

    task_id: str
    status: TaskStatus
    created_at: datetime
    updated_at: datetime
    says: str | None = None
    ttl_ms: int | None = None
    poll_every_ms: int = POLL_EVERY_MS
    result: CallToolResult | None = None
    error: ErrorData | None = None
    asks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class UnknownTaskError(Exception):
    """There is no such task, or it is somebody else's: the caller learns no difference."""


class TaskRefusedError(Exception):
    """The task is there and this cannot be done to it; the text is for the caller."""


class TaskSource(Protocol):
    """What stands behind tasks. Every method acts for the caller of the present request."""

    @property
    def required(self) -> frozenset[str]:
        """The tools that answer with a task or not at all."""
        ...

    async def begin(self, call: ToolCall) -> Task | HandlerResult:
        """The task of this call, which `get` finds from now on, or the tool's plain answer."""
        ...

    async def get(self, task_id: str) -> Task:
        """The task as it stands.

        Raises:
            UnknownTaskError: the caller has no such task.
            TaskRefusedError: the caller may not look.
        """
        ...

    async def answer(self, task_id: str, answers: Mapping[str, Any]) -> None:
        """Take answers to open questions; an answer that nobody asked for is let fall.

        Raises:
            UnknownTaskError: the caller has no such task.
            TaskRefusedError: the caller may not answer.
        """
        ...

    async def cancel(self, task_id: str) -> None:
        """End a task where it still can be; one that has ended stays as it is.

        Raises:
            UnknownTaskError: the caller has no such task.
            TaskRefusedError: it cannot be ended any more, or not by this caller.
        """
        ...


class TaskParams(RequestParams):
    """Which task."""

    task_id: str


class UpdateParams(TaskParams):
    """Answers to a task's questions, by the keys of the questions."""

    input_responses: dict[str, Any] = Field(default_factory=dict)


class Tasks(Extension):
    """The extension as a server carries it. The server decides what becomes a task."""

    identifier = TASKS

    def __init__(self, source: TaskSource) -> None:
        self._source = source

    def methods(self) -> Sequence[MethodBinding]:
        """`tasks/get`, `tasks/update` and `tasks/cancel`."""
        return (
            modern_method("tasks/get", TaskParams, self._get),
            modern_method("tasks/update", UpdateParams, self._update),
            modern_method("tasks/cancel", TaskParams, self._cancel),
        )

    async def intercept_tool_call(
        self,
        params: CallToolRequestParams,
        ctx: RequestContext,
        call_next: Callable[[RequestContext], Awaitable[HandlerResult]],
    ) -> HandlerResult:
        """Answer with a task where the client understands one and the source makes one."""
        if not declares(ctx, TASKS):
            if params.name in self._source.required:
                require_client_extension(ctx, TASKS)
            return await call_next(ctx)
        call = ToolCall(
            params.name,
            params.arguments or {},
            params.input_responses is not None,
            lambda: call_next(ctx),
        )
        begun = await self._source.begin(call)
        return {"resultType": "task", **_head(begun)} if isinstance(begun, Task) else begun

    async def _get(self, ctx: RequestContext, params: TaskParams) -> HandlerResult:
        with _asked(ctx, params):
            return _whole(await self._source.get(params.task_id))

    async def _update(self, ctx: RequestContext, params: UpdateParams) -> HandlerResult:
        with _asked(ctx, params):
            await self._source.answer(params.task_id, params.input_responses)
        return {}

    async def _cancel(self, ctx: RequestContext, params: TaskParams) -> HandlerResult:
        with _asked(ctx, params):
            await self._source.cancel(params.task_id)
        return {}


@contextmanager
def _asked(ctx: RequestContext, params: TaskParams) -> Iterator[None]:
    """Check that the client may ask at all, and say what went wrong in the protocol's words."""
    require_client_extension(ctx, TASKS)
    check_name_header(ctx, params.task_id)
    try:
        yield
    except UnknownTaskError:
        raise MCPError(INVALID_PARAMS, "there is no such task of yours") from None
    except TaskRefusedError as refused:
        raise MCPError(INVALID_REQUEST, str(refused)) from None


def _head(task: Task) -> dict[str, Any]:
    head = {
        "taskId": task.task_id,
        "status": task.status.value,
        "createdAt": _moment(task.created_at),
        "lastUpdatedAt": _moment(task.updated_at),
        "ttlMs": task.ttl_ms,
        "pollIntervalMs": task.poll_every_ms,
    }
    return head if task.says is None else {**head, "statusMessage": task.says}


def _whole(task: Task) -> dict[str, Any]:
    whole = _head(task)
    if task.status is TaskStatus.COMPLETED and task.result is not None:
        whole["result"] = task.result.model_dump(mode="json", by_alias=True, exclude_none=True)
    if task.status is TaskStatus.FAILED and task.error is not None:
        whole["error"] = task.error.model_dump(mode="json", by_alias=True, exclude_none=True)
    if task.status is TaskStatus.INPUT_REQUIRED:
        whole["inputRequests"] = {key: dict(question) for key, question in task.asks.items()}
    return whole


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
