"""How a component is offered to models: the one place where a function becomes an MCP tool.

Every tool gets the same treatment here: unknown arguments are refused, types are strict, the caller
is known and scoped at call time, a deadline holds, our errors become text for the model, reads are
recorded, and an operation is only ever proposed to the guard.
"""

import difflib
import functools
import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import Annotated, Any, get_origin

import anyio
from mcp.server import MCPServer
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field, StrictBool, ValidationError

from interlock_guardrails.guard import Guard
from interlock_guardrails.ledger.records import RecordKind, encode
from interlock_servers.change_resources import offer_changes
from interlock_servers.change_view import ChangeHandle, ChangeList, ChangeRow, ChangeView
from interlock_servers.identity import (
    SCOPE_PROPOSE,
    SCOPE_READ,
    TokenVerifier,
    WhoCalls,
    recorded,
)
from interlock_servers.page import Page
from interlock_servers.paging import Cursor, Fields, Place, only
from interlock_servers.plant_text import plant_text
from interlock_servers.policy_resources import offer_policy
from interlock_servers.schemas import input_schema, output_schema
from interlock_servers.surface.change_tasks import ChangeTasks
from interlock_servers.surface.offering import Surface
from interlock_servers.surface.spans import describe_caller
from interlock_servers.surface.tasks import Tasks
from interlock_servers.surface.together import Parts, alone
from interlock_tools.errors import FactoryError, InvalidRequestError
from interlock_tools.identity import Principal
from interlock_tools.operation import Effect, Operation

READ_DEADLINE_S = 10.0
PROPOSE_DEADLINE_S = 30.0
ERROR_MAX_CHARS = 1000
VERSION = "0.1.0"
FOLLOWING = frozenset({"get_change", "list_changes"})  # the same tools on every server

ReadTool = Callable[..., Awaitable[Page]]


class StrictArguments(FuncMetadata):
    """Arguments as they came: the SDK reads any text as JSON, and "null" would lift a filter."""

    def pre_parse_json(self, data: dict[str, Any]) -> dict[str, Any]:
        """Read JSON only where nothing but an object or a list fits: some clients send it as text.

        Any other text stays the text that it is.
        """
        fields = self.arg_model.model_fields
        structures = {
            name: value
            for name, value in data.items()
            if isinstance(value, str)
            and name in fields
            and get_origin(fields[name].annotation) in {dict, list}
        }
        return data | super().pre_parse_json(structures) if structures else data


class StrictTool(Tool):
    """A tool that refuses what its schema does not name, and says so in one line."""

    async def run(
        self, arguments: dict[str, Any], context: Any, convert_result: bool = False
    ) -> Any:
        """Validate strictly, then run as the SDK does.

        Raises:
            ToolError: names each argument that is wrong, unknown or missing.
        """
        try:
            encode(arguments)  # broken text and numbers past 2**53 could not be put on record
        except InvalidRequestError as error:
            raise ToolError(f"{self.name}: {error}") from None
        except RecursionError:
            raise ToolError(f"{self.name}: the arguments are nested too deeply") from None
        try:
            return await super().run(arguments, context, convert_result)
        except ToolError as error:
            invalid = error.__cause__
            if not isinstance(invalid, ValidationError):
                raise
            known = list(self.parameters.get("properties", {}))
            wrong = "; ".join(
                _wrong(item, known)
                for item in invalid.errors(include_url=False, include_input=False)[:8]
            )
            raise ToolError(
                f"{self.name}: {wrong}. Its arguments are: {', '.join(known) or 'none'}"
            ) from None


class Face:
    """The MCP face of one component while it is put together; `server()` closes it."""

    def __init__(
        self,
        component: str,
        *,
        guard: Guard,
        who: WhoCalls,
        instructions: str,
        keeps_names: bool = False,
    ) -> None:
        """Begin a face; `keeps_names`: its tools are called so on every server, without prefix."""
        self.component = component
        self._keeps_names = keeps_names
        self._guard = guard
        self._who = who
        self._instructions = instructions
        self._tools: list[Tool] = []
        self._follows_changes = False
        surface = Surface(guard, who)
        offer_changes(surface, guard)
        offer_policy(surface, guard)
        self._surface = surface
        self.resource, self.prompt = surface.resource, surface.prompt

    def read(self, function: ReadTool) -> ReadTool:
        """Offer a reading function under its own name; its docstring is what a model reads."""
        name = function.__name__
        tool = f"{self.component}.{name}"

        @functools.wraps(function)
        async def answer(**arguments: Any) -> CallToolResult:
            caller = self._require(SCOPE_READ)
            record = {"tool": tool, "arguments": arguments, **recorded(caller)}
            try:
                page = await self._within(READ_DEADLINE_S, name, function(**arguments))
            except ToolError as error:
                self._guard.ledger.append_read(RecordKind.READ, {**record, "failed": str(error)})
                raise
            self._guard.ledger.append_read(RecordKind.READ, record)
            return _result(page)

        signature = inspect.signature(function, eval_str=True)
        self._add(answer, signature, signature.return_annotation, Effect.READ)
        return function

    def propose(self, operation: Operation[Any]) -> None:
        """Offer an operation: the tool proposes it to the guard and answers with the change."""
        name = operation.name.partition(".")[2]

        async def propose(reason: str, dry_run: bool = False, **arguments: Any) -> CallToolResult:
            caller = self._require(SCOPE_PROPOSE)
            # Once asked, it is put on record to its end: a caller who goes away takes nothing back.
            with anyio.CancelScope(shield=True):
                change = await self._within(
                    PROPOSE_DEADLINE_S,
                    name,
                    self._guard.propose(
                        caller, operation.name, arguments, reason=reason, dry_run=dry_run
                    ),
                )
            return _result(ChangeHandle.of(change, self._guard.clock.now()))

        propose.__name__ = name
        propose.__doc__ = inspect.getdoc(type(operation))
        if not self._follows_changes:
            self._follows_changes = True
            self._offer_changes()
        self._add(propose, _signature_of(operation), ChangeHandle, operation.effect)

    def server(
        self, *, auth: AuthSettings | None = None, verifier: TokenVerifier | None = None
    ) -> MCPServer[Any]:
        """The finished server. With `auth` and `verifier` every request needs a verified token."""
        return alone(self.parts(), version=VERSION, auth=auth, verifier=verifier).server

    def parts(self) -> Parts:
        """What it offers, for a server of its own or one of the whole site."""

        def tasks(proposing: Collection[str]) -> Tasks:
            changes = ChangeTasks(
                self._guard,
                self._who,
                proposing=proposing,
                show=lambda change: _result(ChangeHandle.of(change, self._guard.clock.now())),
            )
            return Tasks(changes)

        return Parts(
            toolset=self.component,
            instructions=self._instructions,
            tools=tuple(self._tools),
            resources=tuple(self._surface.resources),
            templates=tuple(self._surface.templates),
            prompts=tuple(self._surface.prompts),
            completions=dict(self._surface.completions),
            watch=self._surface.watch(),
            shared=FOLLOWING | self._surface.shared | self._own_names(),
            tasks=tasks,
        )

    def _own_names(self) -> frozenset[str]:
        return frozenset(tool.name for tool in self._tools if self._keeps_names)

    def _offer_changes(self) -> None:
        guard = self._guard

        async def get_change(
            change_id: Annotated[str, Field(pattern=r"^chg-[0-9a-f]{12}$")],
        ) -> ChangeView:
            """One change in full: rules, reach, evidence. To follow what you proposed."""
            return ChangeView.of(await guard.get(change_id), guard.clock.now())

        async def list_changes(
            limit: Annotated[int, Field(ge=1, le=50)] = 10,
            cursor: Cursor = None,
            fields: Fields = None,
        ) -> ChangeList:
            """Changes of the whole site, newest first, short. To find an id or what is open."""
            now, place = guard.clock.now(), Place.of("list_changes")
            latest = await guard.latest(limit + 1, before=place.last(cursor))
            page = latest[:limit]
            return ChangeList(
                observed_at=now,
                origin="guard",
                changes=only(ChangeRow, map(ChangeRow.of, page), fields),
                next_cursor=place.cursor(page[-1].change_id) if len(latest) > limit else None,
            )

        self.read(get_change)
        self.read(list_changes)

    def _require(self, scope: str) -> Principal:
        try:
            caller = self._who()
        except InvalidRequestError as error:
            raise ToolError(str(error)) from None
        describe_caller(caller)
        if scope not in caller.scopes:
            raise ToolError(f"insufficient_scope: {caller.id} lacks {scope}; ask for it and retry")
        return caller

    async def _within(self, deadline_s: float, name: str, work: Awaitable[Any]) -> Any:
        try:
            with anyio.move_on_after(deadline_s):  # `fail_after` costs twice as much
                return await work
        except FactoryError as error:
            raise ToolError(plant_text(str(error), ERROR_MAX_CHARS)) from error
        except TimeoutError:
            pass  # a deadline of its own
        raise ToolError(
            f"{name} gave no answer in {deadline_s:g} s; a read may be tried again, "
            "of a change ask list_changes first"
        )

    def _add(
        self,
        function: Callable[..., Any],
        signature: inspect.Signature,
        page: Any,
        effect: Effect,
    ) -> None:
        returns = Annotated[CallToolResult, page]
        described = signature.replace(return_annotation=returns)
        function.__signature__ = described  # type: ignore[attr-defined]  # how functools does it
        function.__annotations__ = {
            **{name: p.annotation for name, p in described.parameters.items()},
            "return": returns,
        }
        tool = StrictTool.from_function(
            function,
            description=" ".join((inspect.getdoc(function) or "").split()),
            annotations=annotations_of(effect),
        )
        arguments = tool.fn_metadata.arg_model
        arguments.model_config["extra"] = "forbid"
        arguments.model_config["strict"] = True
        arguments.model_rebuild(force=True)
        tool.parameters = input_schema(arguments.model_json_schema(by_alias=True))
        tool.fn_metadata = StrictArguments(**dict(tool.fn_metadata))
        tool.fn_metadata.output_schema = output_schema(tool.fn_metadata.output_schema or {})
        tool.fn_metadata.output_model = None  # an answer is made from its page, which is valid
        self._tools.append(tool)


def annotations_of(effect: Effect) -> ToolAnnotations:
    """MCP hints for clients, derived from the effect; they authorise nothing."""
    return ToolAnnotations(
        read_only_hint=effect is Effect.READ,
        destructive_hint=effect in {Effect.DISRUPTIVE, Effect.IRREVERSIBLE},
        idempotent_hint=effect is not Effect.IRREVERSIBLE,
        open_world_hint=False,
    )


def _signature_of(operation: Operation[Any]) -> inspect.Signature:
    """The operation's arguments, then `reason` and `dry_run`."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    empty = inspect.Parameter.empty
    fields = operation.arguments.model_fields.items()
    parameters = [
        inspect.Parameter(
            name,
            keyword,
            default=empty if info.is_required() else info.get_default(call_default_factory=True),
            annotation=Annotated[info.annotation, info],
        )
        for name, info in fields
    ]
    why = Annotated[
        str,
        Field(min_length=1, max_length=500, description="why, for people who decide"),
    ]
    rehearse = Annotated[StrictBool, Field(description="decide and rehearse only; nothing is done")]
    return inspect.Signature(
        [
            *parameters,
            inspect.Parameter("reason", keyword, annotation=why),
            inspect.Parameter("dry_run", keyword, default=False, annotation=rehearse),
        ]
    )


def _wrong(error: Any, known: list[str]) -> str:
    """One validation error, and the argument that was probably meant."""
    where = ".".join(str(part) for part in error["loc"]) or "arguments"
    where = plant_text(where)
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg']}"
    near = difflib.get_close_matches(where, known, n=1)
    return f"{where}: no such argument" + (f", did you mean {near[0]}?" if near else "")


def _result(page: Page) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=page.text())],
        structured_content=page.model_dump(mode="json", exclude_none=True),
    )
