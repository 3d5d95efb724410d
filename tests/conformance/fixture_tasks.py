"""The fixture's tasks: jobs in the background of one process, behind the product's extension."""

import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import anyio
from anyio.abc import TaskGroup
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, CallToolResult, ElicitRequest, ErrorData, InputRequiredResult

from interlock_servers.surface.extension import HandlerResult, ToolCall
from interlock_servers.surface.tasks import Task, TaskStatus, UnknownTaskError
from tests.conformance.fixture_rounds import elicit
from tests.conformance.fixture_rounds import field as field_of

KEPT_MS = 600_000


@dataclass
class Job:
    """One job: where it stands, what it asks, and how to end it."""

    task_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: TaskStatus = TaskStatus.WORKING
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    result: CallToolResult | None = None
    error: ErrorData | None = None
    asks: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    answered: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def becomes(self, status: TaskStatus) -> None:
        """Move on."""
        self.status, self.updated_at = status, datetime.now(UTC)

    async def ask(self, *questions: ElicitRequest) -> list[Any]:
        """Put questions and wait for all the answers, in order."""
        keys = [f"ask-{uuid.uuid4().hex[:8]}" for _ in questions]
        self.asks = {
            key: question.model_dump(mode="json", by_alias=True, exclude_none=True)
            for key, question in zip(keys, questions, strict=True)
        }
        self.answered = anyio.Event()
        self.becomes(TaskStatus.INPUT_REQUIRED)
        await self.answered.wait()
        self.becomes(TaskStatus.WORKING)
        return [self.answers[key] for key in keys]


CURRENT: ContextVar[Job | None] = ContextVar("current_job", default=None)


class Jobs:
    """A source of tasks that lives as long as its task group."""

    def __init__(self, background: TaskGroup, *, capable: frozenset[str], asks_first: str) -> None:
        self._background = background
        self._capable = capable
        self._asks_first = asks_first
        self._jobs: dict[str, Job] = {}

    @property
    def required(self) -> frozenset[str]:
        """Two tools are tasks or nothing."""
        return frozenset({"failing_job", self._asks_first})

    async def begin(self, call: ToolCall) -> Task | HandlerResult:
        """Run a capable tool in the background; the record stands before it begins."""
        if call.name not in self._capable:
            return await call.run()
        if call.name == self._asks_first and not call.answers_questions:
            return await call.run()
        job = Job()
        self._jobs[job.task_id] = job
        self._background.start_soon(self._carry_out, job, call)
        return self._task(job)

    async def get(self, task_id: str) -> Task:
        """The job as it stands."""
        return self._task(self._of(task_id))

    async def answer(self, task_id: str, answers: Mapping[str, Any]) -> None:
        """Take the answers that were asked for; with the last one the job goes on."""
        job = self._of(task_id)
        for key in job.asks.keys() & answers.keys():
            job.answers[key] = answers[key]
            del job.asks[key]
        if job.status is TaskStatus.INPUT_REQUIRED and not job.asks:
            job.answered.set()

    async def cancel(self, task_id: str) -> None:
        """End it where it is."""
        job = self._of(task_id)
        if job.status in {TaskStatus.WORKING, TaskStatus.INPUT_REQUIRED}:
            job.becomes(TaskStatus.CANCELLED)
            job.scope.cancel()

    async def _carry_out(self, job: Job, call: ToolCall) -> None:
        CURRENT.set(job)
        with job.scope:
            try:
                answer = await call.run()
            except MCPError as error:
                job.error = error.error
                job.becomes(TaskStatus.FAILED)
            else:
                if isinstance(answer, CallToolResult):
                    job.result = answer
                    job.becomes(TaskStatus.COMPLETED)
                else:
                    job.error = ErrorData(code=INTERNAL_ERROR, message="it asked once more")
                    job.becomes(TaskStatus.FAILED)

    def _of(self, task_id: str) -> Job:
        try:
            return self._jobs[task_id]
        except KeyError:
            raise UnknownTaskError from None

    def _task(self, job: Job) -> Task:
        return Task(
            task_id=job.task_id,
            status=job.status,
            created_at=job.created_at,
            updated_at=job.updated_at,
            ttl_ms=KEPT_MS,
            poll_every_ms=100,
            result=job.result,
            error=job.error,
            asks=dict(job.asks),
        )


async def greet(name: str) -> str:
    """Greet at once; never a task."""
    return f"Hello, {name}!"


async def slow_compute(seconds: float = 0.0, label: str = "") -> str:
    """Take this many seconds."""
    await anyio.sleep(seconds)  # the suite asks for a length of time
    return f"computed {label}"


async def failing_job() -> str:
    """Always fail, as a tool does."""
    raise ToolError("This job always fails")


async def protocol_error_job() -> str:
    """Always fail, as the protocol does."""
    raise MCPError(INTERNAL_ERROR, "This job always breaks")


async def confirm_delete(filename: str) -> str:
    """Ask before doing it."""
    [answer] = await _job().ask(elicit(f"Delete {filename}?", confirm="boolean"))
    return f"{filename}: {answer}"


async def multi_input() -> str:
    """Ask two things at once."""
    name = elicit("What is your name?", name="string")
    answers = await _job().ask(name, elicit("Really?", confirm="boolean"))
    return f"answers: {answers}"


async def test_tool_with_task(ctx: Context[Any]) -> str | InputRequiredResult:
    """Ask in a round first, then become a task."""
    name = field_of(ctx, "user_name", "name")
    if name is None:
        question = elicit("What is your name?", name="string")
        return InputRequiredResult(input_requests={"user_name": question})
    return f"Done for {name}."


def _job() -> Job:
    job = CURRENT.get()
    if job is None:
        raise ToolError("only as a task: it asks while it runs")
    return job


CAPABLE = (
    slow_compute,
    failing_job,
    protocol_error_job,
    confirm_delete,
    multi_input,
    test_tool_with_task,
)


def tools() -> list[Tool]:
    """One that is never a task, and those that may be."""
    return [Tool.from_function(function, structured_output=False) for function in (greet, *CAPABLE)]


def jobs(background: TaskGroup) -> Jobs:
    """The source behind those tools."""
    capable = frozenset(function.__name__ for function in CAPABLE)
    return Jobs(background, capable=capable, asks_first=test_tool_with_task.__name__)
