"""A change as a task: the row that the guard keeps is the task, so it outlives this process.

Whoever proposed it follows it under the change's own id. Nothing here decides on a change: a task
takes no answers, and to cancel is to withdraw.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from mcp.types import CallToolResult

from interlock_guardrails.guard import Guard
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.withdrawing import withdraw
from interlock_servers.identity import SCOPE_PROPOSE, SCOPE_READ, WhoCalls, recorded
from interlock_servers.plant_text import plant_words
from interlock_servers.surface.extension import HandlerResult, ToolCall
from interlock_servers.surface.tasks import Task, TaskRefusedError, TaskStatus, UnknownTaskError
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import ConflictError, InvalidRequestError, NotFoundError
from interlock_tools.identity import Principal

WHY = "cancelled by its requester over MCP"


class ChangeTasks:
    """The tasks of one server: the changes that its proposing tools have made."""

    def __init__(
        self,
        guard: Guard,
        who: WhoCalls,
        *,
        proposing: Collection[str],
        show: Callable[[Change], CallToolResult],
    ) -> None:
        self._guard = guard
        self._who = who
        self._proposing = frozenset(proposing)
        self._show = show

    @property
    def required(self) -> frozenset[str]:
        """None: who knows no tasks is answered with the change as it stands."""
        return frozenset()

    async def begin(self, call: ToolCall) -> Task | HandlerResult:
        """Propose; what came of it is a task, and a dry run or an error is just answered."""
        answer = await call.run()
        if call.name not in self._proposing or call.arguments.get("dry_run") is True:
            return answer
        if not isinstance(answer, CallToolResult) or answer.is_error:
            return answer
        change_id = (answer.structured_content or {}).get("change_id")
        if not isinstance(change_id, str):
            return answer
        return self._task(await self._guard.get(change_id))

    async def get(self, task_id: str) -> Task:
        """The change as it stands; that it was looked at is on the ledger."""
        caller = self._caller(SCOPE_READ)
        record = {"tool": "tasks/get", "arguments": {"task_id": task_id}, **recorded(caller)}
        try:
            change = await self._own(caller, task_id)
        except UnknownTaskError:
            body = {**record, "failed": "no such task of this caller"}
            self._guard.ledger.append_read(RecordKind.READ, body)
            raise
        self._guard.ledger.append_read(RecordKind.READ, record)
        return self._task(change)

    async def answer(self, task_id: str, answers: Mapping[str, Any]) -> None:
        """Let every answer fall: a change asks its requester nothing, and people vote elsewhere."""
        await self._own(self._caller(SCOPE_PROPOSE), task_id)

    async def cancel(self, task_id: str) -> None:
        """Withdraw the change while it has not begun."""
        caller = self._caller(SCOPE_PROPOSE)
        change = await self._own(caller, task_id)
        if change.ended:
            return
        guard = self._guard
        try:
            await withdraw(
                guard.store, guard.ledger, guard.clock, guard.vote_keys, caller, task_id, why=WHY
            )
        except ConflictError:
            change = await guard.get(task_id)
            if not change.ended:
                raise TaskRefusedError(
                    f"change {task_id} is {change.state}: it has begun, and is carried through to "
                    "its verified end; a person can stop what has not begun"
                ) from None
        except InvalidRequestError as error:
            raise TaskRefusedError(str(error)) from None

    def _caller(self, scope: str) -> Principal:
        try:
            caller = self._who()
        except InvalidRequestError as error:
            raise TaskRefusedError(str(error)) from None
        if scope not in caller.scopes:
            raise TaskRefusedError(f"insufficient_scope: {caller.id} lacks {scope}")
        return caller

    async def _own(self, caller: Principal, task_id: str) -> Change:
        """The caller's change of this id; another's is as unknown as one that never was."""
        try:
            change = await self._guard.get(task_id)
        except NotFoundError:
            raise UnknownTaskError from None
        if _identity(change.requester) != _identity(caller):
            raise UnknownTaskError
        return change

    def _task(self, change: Change) -> Task:
        status = status_of(change)
        result = None
        if status is TaskStatus.COMPLETED:
            shown = self._show(change)
            held = change.state is ChangeState.SUCCEEDED
            result = shown.model_copy(update={"is_error": not held})
        return Task(
            task_id=change.change_id,
            status=status,
            created_at=change.created_at,
            updated_at=change.history[-1].at if change.history else change.created_at,
            says=plant_words(change.sentence()),
            result=result,
        )


def status_of(change: Change) -> TaskStatus:
    """`working` while it lives, `cancelled` when it was withdrawn, `completed` however it ended."""
    if not change.ended:
        return TaskStatus.WORKING
    if change.state is ChangeState.REJECTED and all(vote.approve for vote in change.votes):
        return TaskStatus.CANCELLED  # nobody said no to it: it was taken back
    return TaskStatus.COMPLETED


def _identity(principal: Principal) -> tuple[str, str, str | None]:
    return principal.id, principal.kind.value, principal.on_behalf_of
