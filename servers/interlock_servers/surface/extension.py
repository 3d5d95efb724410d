"""Extensions of the protocol; the one module that knows the SDK's interface to them."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from mcp.server.context import HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver.server import require_client_extension
from mcp.shared.exceptions import MCPError
from mcp.types import HEADER_MISMATCH, RequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

__all__ = [
    "Extension",
    "HandlerResult",
    "MethodBinding",
    "RequestContext",
    "RequestParams",
    "ToolCall",
    "check_name_header",
    "declares",
    "modern_method",
    "require_client_extension",
]

RequestContext = ServerRequestContext[Any, Any]
MODERN = frozenset(MODERN_PROTOCOL_VERSIONS)


class ToolCall(NamedTuple):
    """One call of a tool that an extension may answer in its own way.

    `run` has the tool answer as it does without the extension; `answers_questions` says that the
    caller was asked something before and sends the call again with what it was asked for.
    """

    name: str
    arguments: dict[str, Any]
    answers_questions: bool
    run: Callable[[], Awaitable[HandlerResult]]


def declares(ctx: RequestContext, identifier: str) -> bool:
    """Whether the client of this request understands the extension.

    A client of an earlier protocol never does: results that only an extension knows cannot be
    delivered to it.
    """
    capabilities = ctx.session.client_capabilities
    declared = None if capabilities is None else capabilities.extensions
    return ctx.protocol_version in MODERN and identifier in (declared or {})


def check_name_header(ctx: RequestContext, name: str) -> None:
    """Over HTTP, what routes a request must name what its body names.

    Raises:
        MCPError: the header is missing or names something else.
    """
    if ctx.request is None:
        return
    if ctx.request.headers.get("mcp-name", "").strip() != name:
        raise MCPError(HEADER_MISMATCH, "the Mcp-Name header is not what the body names")


def modern_method(
    method: str,
    params: type[RequestParams],
    handler: Callable[[RequestContext, Any], Awaitable[HandlerResult]],
) -> MethodBinding:
    """A method of the newest protocol only; in an earlier one it does not exist."""
    return MethodBinding(method, params, handler, MODERN)
