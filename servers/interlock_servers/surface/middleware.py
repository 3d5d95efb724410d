"""Middleware around every request; the one module that knows the SDK's provisional interface to it.

What is here sees the request before its parameters are validated, and never changes it.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types import INVALID_PARAMS, METHOD_NOT_FOUND, CallToolResult
from opentelemetry import trace
from pydantic import ValidationError

from interlock_servers.surface.legacy import when_session_ends
from interlock_servers.surface.spans import connection_of, describe, describe_result
from interlock_tools.measures import SERVER_CALL, SERVER_SESSION

Middleware = ServerMiddleware[Any]
Attributes = Mapping[str, str]
Record = Callable[[float, Attributes], None]

NO_SUCH_METHOD = str(METHOD_NOT_FOUND)
NAMED = {"tools/call": "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}


def to_histogram() -> Record:
    """Into the process's OpenTelemetry histogram; nowhere while no exporter is set up."""
    return SERVER_CALL.record


class Durations:
    """Says of every request how long it took, and describes its span, by the semantic conventions.

    The span itself is the SDK's, and its name; a session's duration is recorded where there is one.
    `names` are the tools and prompts there are: any other name, as of a method that does not exist,
    is a caller's and is not recorded, for each would open a time series.
    """

    def __init__(
        self,
        names: frozenset[str],
        record: Record,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._names = names
        self._record = record
        self._now_s = now_s

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Pass the request on, and record it when it has ended, well or not."""
        if ctx.request_id is None:  # a notification
            return await call_next(ctx)
        span = trace.get_current_span()
        describe(span, ctx)
        error = None
        began_s = self._now_s()
        if ctx.method == "initialize":
            self._time_session(ctx, began_s)
        try:
            result = await call_next(ctx)
            error = "tool_error" if _is_tool_error(result) else None
            describe_result(span, ctx, result)
        except MCPError as refused:
            error = str(refused.code)
            raise
        except ValidationError:
            error = str(INVALID_PARAMS)  # what the client is told
            raise
        except Exception as crash:
            error = type(crash).__qualname__
            raise
        else:
            return result
        finally:
            self._record(self._now_s() - began_s, self._attributes(ctx, error))

    def _attributes(self, ctx: ServerRequestContext[Any, Any], error: str | None) -> dict[str, str]:
        attributes = {
            "mcp.method.name": "other" if error == NO_SUCH_METHOD else ctx.method,
            "mcp.protocol.version": ctx.protocol_version,
            **connection_of(ctx),
        }
        if ctx.method == "tools/call":
            attributes["gen_ai.operation.name"] = "execute_tool"
        name = (ctx.params or {}).get("name")
        if ctx.method in NAMED and name in self._names:
            attributes[NAMED[ctx.method]] = str(name)
        if error is not None:
            attributes["error.type"] = error
            if error.lstrip("-").isdecimal():
                attributes["rpc.response.status_code"] = error
        return attributes

    def _time_session(self, ctx: ServerRequestContext[Any, Any], began_s: float) -> None:
        """Record the session that a client of 2025-11-25 opens, when it has ended."""
        of = {"network.transport": connection_of(ctx)["network.transport"]}

        def record(protocol_version: str) -> None:
            attributes = {**of, "mcp.protocol.version": protocol_version}
            SERVER_SESSION.record(self._now_s() - began_s, attributes)

        when_session_ends(ctx, record)


class KnownPrompts:
    """Says of a prompt that there is not that there is none: the SDK would call it our failure."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Pass the request on, unless it asks for no prompt of ours."""
        if ctx.method == "prompts/get":
            name = (ctx.params or {}).get("name")
            if isinstance(name, str) and name not in self._names:
                raise MCPError(INVALID_PARAMS, "there is no such prompt; prompts/list has them")
        return await call_next(ctx)


def _is_tool_error(result: HandlerResult) -> bool:
    if isinstance(result, CallToolResult):
        return result.is_error is True
    return isinstance(result, dict) and result.get("isError") is True
