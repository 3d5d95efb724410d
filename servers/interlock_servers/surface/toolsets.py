"""Toolsets: how much of a server one caller is offered, and that what is not offered is not served.

Each narrowing only takes away. A server is built with what its settings leave; over HTTP a request
may ask for still less, by the headers that GitHub's MCP server made known:

- `X-MCP-Toolsets`: component names with commas between; absent, empty or with `all` in it: no less.
  A name that there is not is passed over; white space too.
- `X-MCP-Readonly`: empty, `false`, `f`, `no`, `n`, `0` and `off` say nothing, all else is yes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.uri_template import UriTemplate
from mcp.types import INVALID_PARAMS, METHOD_NOT_FOUND, ToolAnnotations

from interlock_servers.surface.streams import LISTEN

TOOLSETS_HEADER = "x-mcp-toolsets"
READ_ONLY_HEADER = "x-mcp-readonly"
ALL = "all"
_NO = frozenset({"", "false", "f", "no", "n", "0", "off"})
_LISTS = {  # by method: the member that lists, and what an item is known by
    "tools/list": ("tools", "name"),
    "prompts/list": ("prompts", "name"),
    "resources/list": ("resources", "uri"),
    "resources/templates/list": ("resourceTemplates", "uriTemplate"),
}
_CHANGING = frozenset({"tasks/update", "tasks/cancel"})  # no tools, and no reads either


class Headers(Protocol):
    """The headers of a request; one may come more than once."""

    def getlist(self, key: str) -> list[str]:
        """Every value of this header."""
        ...


@dataclass(frozen=True, kw_only=True)
class Narrow:
    """What is left of an offer. `toolsets` None: those of every component."""

    toolsets: frozenset[str] | None = None
    read_only: bool = False
    no_destructive: bool = False

    def and_also(self, other: "Narrow") -> "Narrow":
        """What is left when both take away."""
        both = self.toolsets if other.toolsets is None else other.toolsets
        if self.toolsets is not None and other.toolsets is not None:
            both = self.toolsets & other.toolsets
        return Narrow(
            toolsets=both,
            read_only=self.read_only or other.read_only,
            no_destructive=self.no_destructive or other.no_destructive,
        )

    def leaves(self, toolsets: Iterable[str]) -> bool:
        """Whether what belongs to any of these is left."""
        return self.toolsets is None or not self.toolsets.isdisjoint(toolsets)

    def leaves_tool(self, toolsets: Iterable[str], hints: ToolAnnotations | None) -> bool:
        """Whether a tool is left; one that says nothing of itself changes and destroys."""
        reads = hints is not None and hints.read_only_hint is True
        harmless = reads or (hints is not None and hints.destructive_hint is False)
        return (
            self.leaves(toolsets)
            and (reads or not self.read_only)
            and (harmless or not self.no_destructive)
        )


EVERYTHING = Narrow()


def asked_by(headers: Headers) -> Narrow:
    """What the headers of a request leave; of a header that comes twice each value takes away."""
    left = Narrow(
        read_only=any(
            value.strip().lower() not in _NO for value in headers.getlist(READ_ONLY_HEADER)
        )
    )
    for value in headers.getlist(TOOLSETS_HEADER):
        left = left.and_also(Narrow(toolsets=named_in(value)))
    return left


def uris_in(params: Mapping[str, Any]) -> list[str]:
    """The resources that a request to listen names, before the SDK has looked at it."""
    notifications = params.get("notifications")
    uris = notifications.get("resourceSubscriptions") if isinstance(notifications, Mapping) else ()
    return [str(uri) for uri in uris] if isinstance(uris, list) else []


def named_in(text: str) -> frozenset[str] | None:
    """The toolsets in a list with commas; None where it names none, or all."""
    names = frozenset(name.strip().lower() for name in text.split(",")) - {""}
    return None if not names or ALL in names else names


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a server was built with: each part's toolsets, by the name that it is asked for."""

    tools: Mapping[str, tuple[frozenset[str], ToolAnnotations | None]]
    prompts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    resources: Mapping[str, frozenset[str]] = field(default_factory=dict)
    templates: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def of_resource(self, uri: str) -> frozenset[str]:
        """The toolsets that a resource belongs to; of none that we do not know."""
        if uri in self.resources:
            return self.resources[uri]
        for template, toolsets in self.templates.items():
            if UriTemplate.parse(template).match(uri) is not None:
                return toolsets
        return frozenset()


async def without_output_schemas(
    ctx: ServerRequestContext[Any, Any], call_next: CallNext
) -> HandlerResult:
    """List tools without the schemas of their answers, which a large site's list has no room for.

    The answers are as structured as before; the server of one component lists their schemas.
    """
    result = await call_next(ctx)
    if ctx.method != "tools/list" or not isinstance(result, dict):
        return result
    lean = [{k: v for k, v in tool.items() if k != "outputSchema"} for tool in result["tools"]]
    return {**result, "tools": lean}


class Narrowing:
    """Keeps each request to what it asked for, in its lists and when something is called."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Pass the request on, unless it asks for what it said it does not want."""
        headers = None if ctx.request is None else ctx.request.headers
        if headers is None or not (READ_ONLY_HEADER in headers or TOOLSETS_HEADER in headers):
            return await call_next(ctx)
        left = asked_by(headers)
        if left == EVERYTHING:
            return await call_next(ctx)
        self._check(left, ctx.method, ctx.params or {})
        return self._shortened(left, ctx.method, await call_next(ctx))

    def _check(self, left: Narrow, method: str, params: Mapping[str, Any]) -> None:
        if method in _CHANGING and left.read_only:
            raise MCPError(METHOD_NOT_FOUND, "Method not found")
        if method == "tools/call" and not self._leaves_tool(left, params.get("name")):
            raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.get('name')}")
        if method == "prompts/get":
            name = params.get("name")
            if not left.leaves(self._offer.prompts.get(str(name), ())):
                raise MCPError(INVALID_PARAMS, f"Unknown prompt: {name}")
        if method in {"resources/read", "resources/subscribe"}:
            uri = str(params.get("uri"))
            if not self._leaves_uri(left, uri):
                raise MCPError(INVALID_PARAMS, f"Unknown resource: {uri}", {"uri": uri})
        if method == LISTEN and not all(self._leaves_uri(left, uri) for uri in uris_in(params)):
            raise MCPError(INVALID_PARAMS, "a resource is listened to that is not offered")
        if method == "completion/complete" and not self._leaves_reference(left, params.get("ref")):
            raise MCPError(INVALID_PARAMS, "there is no such prompt or template")

    def _leaves_uri(self, left: Narrow, uri: str) -> bool:
        return left.leaves(self._offer.of_resource(uri))

    def _leaves_reference(self, left: Narrow, ref: Any) -> bool:
        if not isinstance(ref, Mapping):
            return True  # the SDK says what is wrong with it
        of = {**self._offer.prompts, **self._offer.templates}
        return left.leaves(of.get(str(ref.get("name", ref.get("uri"))), ()))

    def _leaves_tool(self, left: Narrow, name: Any) -> bool:
        toolsets, hints = self._offer.tools.get(str(name), (frozenset(), None))
        return left.leaves_tool(toolsets, hints)

    def _shortened(self, left: Narrow, method: str, result: HandlerResult) -> HandlerResult:
        if not isinstance(result, dict) or method not in _LISTS:
            return result
        member, named_by = _LISTS[method]
        stays = [
            item
            for item in result.get(member, [])
            if self._leaves_item(left, member, str(item.get(named_by)))
        ]
        return {**result, member: stays}

    def _leaves_item(self, left: Narrow, member: str, name: str) -> bool:
        if member == "tools":
            return self._leaves_tool(left, name)
        of = {
            "prompts": self._offer.prompts,
            "resources": self._offer.resources,
            "resourceTemplates": self._offer.templates,
        }
        return left.leaves(of[member].get(name, ()))
