"""What a read goes through that is no tool: scope, deadline, record, and errors in MCP's words.

Resources, prompts and completions are reads like any other: whoever may not read gets none, and
each is on the ledger with who asked.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import anyio
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST
from pydantic import ValidationError

from interlock_guardrails.guard import Guard
from interlock_guardrails.ledger.records import RecordKind
from interlock_servers.identity import SCOPE_READ, WhoCalls, recorded
from interlock_servers.plant_text import plant_json, plant_text
from interlock_tools.errors import FactoryError, InvalidRequestError, NotFoundError
from interlock_tools.identity import Principal

DEADLINE_S = 10.0
ERROR_MAX_CHARS = 1000

T = TypeVar("T")


class Reader:
    """Reads for the caller of the present request, and puts on record that they asked."""

    def __init__(self, guard: Guard, who: WhoCalls) -> None:
        self.guard = guard
        self._who = who

    def caller(self) -> Principal:
        """Who asks.

        Raises:
            MCPError: nobody that is known, or one who may not read.
        """
        try:
            caller = self._who()
        except InvalidRequestError as error:
            raise MCPError(INVALID_REQUEST, str(error)) from None
        if SCOPE_READ not in caller.scopes:
            raise MCPError(
                INVALID_REQUEST,
                f"insufficient_scope: {caller.id} lacks {SCOPE_READ}; ask for it and retry",
            )
        return caller

    async def read(
        self, method: str, asked: Mapping[str, Any], work: Callable[[], Awaitable[T]]
    ) -> T:
        """What `work` gives, within the deadline; `method` and what was `asked` are recorded.

        Raises:
            MCPError: -32602 where there is no such thing or it is asked for wrongly.
        """
        record = {"tool": method, "arguments": plant_json(dict(asked)), **recorded(self.caller())}
        try:
            given = await self._given(method, asked, work)
        except MCPError as error:
            failed = {**record, "failed": error.error.message}
            self.guard.ledger.append_read(RecordKind.READ, failed)
            raise
        self.guard.ledger.append_read(RecordKind.READ, record)
        return given

    async def _given(
        self, method: str, asked: Mapping[str, Any], work: Callable[[], Awaitable[T]]
    ) -> T:
        data = {"uri": asked["uri"]} if "uri" in asked else None
        try:
            with anyio.fail_after(DEADLINE_S):
                return await work()
        except ValidationError as invalid:
            raise MCPError(INVALID_PARAMS, _wrong(invalid), data) from None
        except (NotFoundError, InvalidRequestError) as error:
            says = plant_text(str(error), ERROR_MAX_CHARS)
            raise MCPError(INVALID_PARAMS, says, data) from error
        except FactoryError as error:
            says = plant_text(str(error), ERROR_MAX_CHARS)
            raise MCPError(INTERNAL_ERROR, says, data) from error
        except TimeoutError:
            says = f"{method} gave no answer in {DEADLINE_S:g} s; it may be tried again"
            raise MCPError(INTERNAL_ERROR, says, data) from None


def _wrong(invalid: ValidationError) -> str:
    """What is wrong with the arguments, by name, without repeating what they were."""
    errors = invalid.errors(include_url=False, include_input=False)[:8]
    said = "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'arguments'}: {item['msg']}"
        for item in errors
    )
    return plant_text(f"there is no such thing: {said}", ERROR_MAX_CHARS)
