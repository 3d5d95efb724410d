"""One server of the parts of one component, or of all: names, toolsets, tasks and what is shared.

Alone a component's tools have their own names; together each name begins with its component. What
all have in common, such as following a change, is there once.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from mcp.server import MCPServer
from mcp.server.auth.provider import TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.resources import Resource
from mcp.server.mcpserver.tools import Tool

from interlock_servers.surface.completing import Argument, Values, completing
from interlock_servers.surface.extension import Extension
from interlock_servers.surface.factory import Template, build_server
from interlock_servers.surface.middleware import Middleware
from interlock_servers.surface.streams import Streams
from interlock_servers.surface.toolsets import (
    EVERYTHING,
    Narrow,
    Narrowing,
    Offer,
    without_output_schemas,
)
from interlock_servers.surface.watching import Watch, watch_of

# A gateway puts `<service>-<port>_` before a name, and clients take 64 characters at most.
NAME = re.compile(r"^[a-z][a-z0-9_]{1,40}$")
TOGETHER = """\
All components of one site. Each tool's name begins with its component; below and in descriptions
tools are named without it. Ask for less with the headers X-MCP-Toolsets and X-MCP-Readonly.
"""

SCHEMAS_OF_PARTS: Final = 7  # of more, answers' schemas alone would cost thousands of tokens

Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What one component puts on the surface; `shared` are names and URIs that others have too.

    `tasks` makes the extension by which what the named tools propose is followed. `middleware`
    makes what stands around every request, given its tools' full names with their own. What
    `watch` names can be waited for.
    """

    toolset: str
    instructions: str
    tools: Sequence[Tool] = ()
    resources: Sequence[Resource] = ()
    templates: Sequence[Template] = ()
    prompts: Sequence[Prompt] = ()
    shared: frozenset[str] = field(default_factory=frozenset)
    completions: Mapping[Argument, Values] = field(default_factory=dict)
    watch: Watch | None = None
    tasks: Callable[[Collection[str]], Extension] | None = None
    middleware: Callable[[Mapping[str, str]], Middleware] | None = None


@dataclass(frozen=True)
class Composed:
    """A server, the names of its tools, and which of them change something."""

    server: MCPServer[Any]
    tools: frozenset[str]
    proposing: frozenset[str]


def alone(
    parts: Parts,
    *,
    version: str,
    narrow: Narrow = EVERYTHING,
    auth: AuthSettings | None = None,
    verifier: TokenVerifier | None = None,
) -> Composed:
    """The server of one component, its tools under their own names."""
    name, text = f"interlock-{parts.toolset}", parts.instructions
    return _compose(name, text, [parts], False, version, narrow, auth, verifier)


def together(
    parts: Sequence[Parts],
    *,
    version: str,
    narrow: Narrow = EVERYTHING,
    auth: AuthSettings | None = None,
    verifier: TokenVerifier | None = None,
) -> Composed:
    """The server of a whole site, each name with its component before it.

    Raises:
        ValueError: two parts have one name, or a name is too long for a gateway to pass on.
    """
    left = [part for part in parts if narrow.leaves([part.toolset])]
    text = "\n".join([TOGETHER, *(f"{part.toolset}: {part.instructions}" for part in left)])
    return _compose("interlock", text, left, True, version, narrow, auth, verifier)


class _Gathered(Generic[Part]):
    """Parts by name, each with the toolsets that it belongs to."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self.toolsets: dict[str, frozenset[str]] = {}

    def add(self, name: str, part: Part, toolset: str, shared: bool) -> None:
        """Take it in; what is shared is taken once.

        Raises:
            ValueError: another part has this name.
        """
        if name in self.parts and not shared:
            raise ValueError(f"two parts of one server are named {name!r}")
        self.parts.setdefault(name, part)
        self.toolsets[name] = self.toolsets.get(name, frozenset()) | {toolset}


def _compose(
    name: str,
    instructions: str,
    every: Sequence[Parts],
    prefixed: bool,
    version: str,
    narrow: Narrow,
    auth: AuthSettings | None,
    verifier: TokenVerifier | None,
) -> Composed:
    tools, resources = _Gathered[Tool](), _Gathered[Resource]()
    templates, prompts = _Gathered[Template](), _Gathered[Prompt]()
    around: list[Middleware] = [Streams()]
    completions: dict[Argument, Values] = {}
    for parts in every:

        def named(own: str, parts: Parts = parts) -> str:
            return own if own in parts.shared or not prefixed else f"{parts.toolset}_{own}"

        for tool in parts.tools:
            full = named(tool.name)
            if not NAME.fullmatch(full):
                raise ValueError(f"{full!r} is no name that every client and gateway takes")
            renamed = tool if full == tool.name else tool.model_copy(update={"name": full})
            tools.add(full, renamed, parts.toolset, tool.name in parts.shared)
        for prompt in parts.prompts:
            full = named(prompt.name)
            if not NAME.fullmatch(full):
                raise ValueError(f"{full!r} is no name that every client and gateway takes")
            prompts.add(
                full,
                prompt.model_copy(update={"name": full}),
                parts.toolset,
                prompt.name in parts.shared,
            )
        for resource in parts.resources:
            uri = str(resource.uri)
            resources.add(uri, resource, parts.toolset, uri in parts.shared)
        for template in parts.templates:
            templates.add(template.uri, template, parts.toolset, template.uri in parts.shared)
        for argument, values in parts.completions.items():
            of = argument.of if "://" in argument.of else named(argument.of)
            completions.setdefault(argument._replace(of=of), values)
        if parts.middleware is not None:
            around.append(parts.middleware({named(tool.name): tool.name for tool in parts.tools}))
    kept = [
        tool
        for full, tool in tools.parts.items()
        if narrow.leaves_tool(tools.toolsets[full], tool.annotations)
    ]
    proposing = frozenset(tool.name for tool in kept if not only_reads(tool))
    if len(every) > SCHEMAS_OF_PARTS:
        around.append(without_output_schemas)
    offer = Offer(
        tools={tool.name: (tools.toolsets[tool.name], tool.annotations) for tool in kept},
        prompts=prompts.toolsets,
        resources=resources.toolsets,
        templates=templates.toolsets,
    )
    follows = next((parts.tasks for parts in every if parts.tasks is not None), None)
    server = build_server(
        name,
        version=version,
        instructions=instructions,
        tools=kept,
        resources=list(resources.parts.values()),
        templates=list(templates.parts.values()),
        prompts=list(prompts.parts.values()),
        complete=completing(completions) if completions else None,
        watch=watch_of(parts.watch for parts in every),
        middleware=[*around, Narrowing(offer)],
        extensions=[follows(proposing)] if proposing and follows is not None else [],
        auth=auth,
        verifier=verifier,
        lasting=auth is None,  # over HTTP every request stands alone; see `http_app`
    )
    return Composed(server, frozenset(offer.tools), proposing)


def only_reads(tool: Tool) -> bool:
    """Whether a tool says that it changes nothing; one that says nothing may."""
    return tool.annotations is not None and tool.annotations.read_only_hint is True
