"""Middleware around every request; the one module that knows the SDK's provisional interface to it.

What is here sees the request before its parameters are validated, and never changes it.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types import METHOD_NOT_FOUND
from opentelemetry import metrics

Middleware = ServerMiddleware[Any]
Attributes = Mapping[str, str]
Record = Callable[[float, Attributes], None]

DURATION = "mcp.server.operation.duration"
BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
NO_SUCH_METHOD = str(METHOD_NOT_FOUND)
NAMED = {"tools/call": "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}


def to_histogram() -> Record:
    """Into the process's OpenTelemetry histogram; nowhere while no exporter is set up."""
    histogram = metrics.get_meter("interlock").create_histogram(
        DURATION, unit="s", explicit_bucket_boundaries_advisory=BUCKETS_S
    )

    def record(seconds: float, attributes: Attributes) -> None:
        histogram.record(seconds, dict(attributes))

    return record


class Durations:
    """Says of every request how long it took, under the names of the semantic conventions.

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
        error = None
        began_s = self._now_s()
        try:
            result = await call_next(ctx)
            error = "tool_error" if _is_tool_error(result) else None
        except MCPError as refused:
            error = str(refused.code)
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
            "network.transport": "pipe" if ctx.request is None else "tcp",
        }
        name = (ctx.params or {}).get("name")
        if ctx.method in NAMED and name in self._names:
            attributes[NAMED[ctx.method]] = str(name)
        if error is not None:
            attributes["error.type"] = error
        return attributes


def _is_tool_error(result: HandlerResult) -> bool:
    return isinstance(result, dict) and result.get("isError") is True
