"""What stands on the span of a request besides what the SDK puts there.

No arguments and no results, unless the settings ask for them; then without what looks like a
secret, and cut.
"""

from collections.abc import Mapping
from typing import Any

from mcp.server.context import HandlerResult, ServerRequestContext
from mcp.types import CallToolResult
from opentelemetry import trace
from opentelemetry.trace import Span
from starlette.requests import Request

from interlock_guardrails.ledger.records import encode
from interlock_tools.errors import InvalidRequestError
from interlock_tools.identity import Principal
from interlock_tools.measures import PRINCIPAL_ID, PRINCIPAL_KIND, PRINCIPAL_OWNER
from interlock_tools.telemetry import Contents

SESSION_HEADER = "mcp-session-id"
CONTENT_MAX_CHARS = 8_000
Context = ServerRequestContext[Any, Any]


def connection_of(ctx: Context) -> dict[str, str]:
    """How the request came, as metrics and spans both say it."""
    if not isinstance(ctx.request, Request):
        return {"network.transport": "pipe" if ctx.request is None else "tcp"}
    return {
        "network.transport": "tcp",
        "network.protocol.name": "http",
        "network.protocol.version": str(ctx.request.scope.get("http_version", "1.1")),
    }


def describe(span: Span, ctx: Context) -> None:
    """Say where the request came from and which resource it names."""
    if not span.is_recording():
        return
    for key, value in connection_of(ctx).items():
        span.set_attribute(key, value)
    params = ctx.params or {}
    if isinstance(uri := params.get("uri"), str):
        span.set_attribute("mcp.resource.uri", uri)
    if isinstance(ctx.request, Request):
        if (client := ctx.request.client) is not None:
            span.set_attribute("client.address", client.host)
            span.set_attribute("client.port", client.port)
        if session_id := ctx.request.headers.get(SESSION_HEADER):
            span.set_attribute("mcp.session.id", session_id)
    if Contents.recorded and ctx.method == "tools/call":
        span.set_attribute("gen_ai.tool.call.arguments", _content(params.get("arguments") or {}))


def describe_result(span: Span, ctx: Context, result: HandlerResult) -> None:
    """Put the result of a tool there, where the settings ask for it."""
    if not (Contents.recorded and ctx.method == "tools/call" and span.is_recording()):
        return
    if isinstance(result, CallToolResult):
        result = result.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(result, dict):
        span.set_attribute("gen_ai.tool.call.result", _content(result))


def describe_caller(caller: Principal) -> None:
    """Say on the current span who calls, and who answers for an agent."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    span.set_attribute(PRINCIPAL_ID, caller.id)
    span.set_attribute(PRINCIPAL_KIND, caller.kind.value)
    if caller.owner is not None:
        span.set_attribute(PRINCIPAL_OWNER, caller.owner)


def _content(document: Mapping[str, Any]) -> str:
    try:
        return encode(document).decode()[:CONTENT_MAX_CHARS]
    except InvalidRequestError as error:
        return f"not JSON: {error}"
