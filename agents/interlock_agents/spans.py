"""An agent's spans and durations: its rounds, its use of tools, and its requests as a client.

Named by the conventions for GenAI and MCP. The context of a request goes with it to the server.
Arguments and results are left to the server's spans, which know what to mask.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import urlsplit

from mcp import Client, MCPError
from mcp.types import CallToolResult
from opentelemetry.trace import Span, SpanKind

from interlock_tools.measures import CLIENT_CALL, CLIENT_SESSION
from interlock_tools.telemetry import Attribute, failed, span, type_of

METHOD = "tools/call"
TOOL_ERROR = "tool_error"
LAST_WITH_SESSIONS = "2025-11-25"
PORTS = {"http": 80, "https": 443}


def invoking_agent(name: str) -> AbstractContextManager[Span]:
    """One round of an agent."""
    attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name}
    return span(f"invoke_agent {name}", attributes=attributes)


class Call:
    """A call of a tool that is on its way."""

    def __init__(self, spans: tuple[Span, Span]) -> None:
        self._spans = spans
        self.error: str | None = None

    def answered(self, result: CallToolResult) -> None:
        """An error of a tool is an answer all the same."""
        if result.is_error:
            self.error = TOOL_ERROR
            for one in self._spans:
                failed(one, TOOL_ERROR)


@contextmanager
def calling_tool(tool: str, client: Client, url: str | None) -> Iterator[Call]:
    """The use of a tool, and in it the request; `url` is None where both ends share a process."""
    use: dict[str, Attribute] = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": tool,
    }
    whole = {**use, "gen_ai.tool.type": "extension"}
    request = {**use, "mcp.method.name": METHOD, **_connection(client, url)}
    began_s = time.perf_counter()
    with (
        span(f"execute_tool {tool}", attributes=whole, error_type=_error_type) as outer,
        span(
            f"{METHOD} {tool}", kind=SpanKind.CLIENT, attributes=request, error_type=_error_type
        ) as inner,
    ):
        call = Call((outer, inner))
        try:
            yield call
        except BaseException as error:
            call.error = _error_type(error)
            if isinstance(error, MCPError):
                inner.set_attribute("rpc.response.status_code", call.error)
                request["rpc.response.status_code"] = call.error
            raise
        finally:
            if call.error is not None:
                request["error.type"] = call.error
            CLIENT_CALL.record(time.perf_counter() - began_s, request)


@contextmanager
def in_session(client: Client, url: str | None) -> Iterator[None]:
    """Times the session with a server of 2025-11-25; the newer protocol has none."""
    told = _connection(client, url)
    began_s = time.perf_counter()
    try:
        yield
    finally:
        if client.protocol_version <= LAST_WITH_SESSIONS:
            told.pop("network.protocol.name", None)
            CLIENT_SESSION.record(time.perf_counter() - began_s, told)


def _error_type(error: BaseException) -> str:
    return str(error.code) if isinstance(error, MCPError) else type_of(error)


def _connection(client: Client, url: str | None) -> dict[str, Attribute]:
    told: dict[str, Attribute] = {"mcp.protocol.version": client.protocol_version}
    if url is None:
        return {**told, "network.transport": "pipe"}
    parts = urlsplit(url)
    told |= {"network.transport": "tcp", "network.protocol.name": "http"}
    told["server.address"] = parts.hostname or ""
    told["server.port"] = parts.port or PORTS.get(parts.scheme, 443)
    return told
