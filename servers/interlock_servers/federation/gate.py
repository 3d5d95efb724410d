"""The gate: whether the list that a server has now is the one that a person approved.

Everything that reaches another server passes it, a read too: a changed description is an attack on
whoever reads it.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.types import CallToolResult

from interlock_guardrails.federation import ListApproval, approved, listed_in
from interlock_guardrails.ledger.verify import parse_key
from interlock_guardrails.store import Store
from interlock_servers.federation import schemas
from interlock_servers.federation.client import Line, Upstream
from interlock_servers.federation.models import ToolList, differences, local_name
from interlock_servers.federation.settings import FederatedSettings
from interlock_tools.errors import ConflictError, FactoryError, InvalidRequestError
from interlock_tools.operation import Effect

CHANGES_SHOWN = 5


class State(StrEnum):
    """What may be done with a server."""

    APPROVED = "approved"
    UNAPPROVED = "unapproved"
    CHANGED = "changed"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Standing:
    """How a server stands: its state in words, and the tools that are offered of it.

    `offered` and `withheld` are by the server's own name; `withheld` says why.
    """

    state: State
    why: str
    approval: ListApproval | None = None
    changes: tuple[str, ...] = ()
    offered: dict[str, dict[str, Any]] = field(default_factory=dict)
    withheld: dict[str, str] = field(default_factory=dict)


class Gate:
    """One server, with what people approved of it."""

    def __init__(
        self, upstream: Upstream, *, store: Store, site_id: str, vote_keys: Sequence[str]
    ) -> None:
        self.upstream = upstream
        self.settings = upstream.settings
        self._store = store
        self._site_id = site_id
        self._keys = tuple(parse_key(key) for key in vote_keys)

    @property
    def name(self) -> str:
        """The component that the server is here."""
        return self.settings.name

    def local(self, tool: str) -> str:
        """What a tool of the server is called here."""
        return local_name(tool, self.name)

    async def standing(self) -> Standing:
        """How the server stands now; what is offered while it is out of reach was approved."""
        try:
            async with self._line() as line:
                return await self._compare(line)
        except FactoryError as error:
            approval, listed = await self._approved()
            if approval is None or listed is None:
                return Standing(State.UNREACHABLE, str(error))
            return Standing(
                State.UNREACHABLE,
                str(error),
                approval,
                (),
                *offered(self.settings, ToolList.from_document(listed)),
            )

    async def pinned(self, tool: str) -> tuple[ListApproval, dict[str, Any]]:
        """The approval under which this tool may be called now, and the tool as it was approved.

        Raises:
            UnavailableError, ComponentError: the server does not say what it has.
            ConflictError: what it has is not what was approved; says what to do.
            InvalidRequestError: this tool of it is not offered.
        """
        async with self._line() as line:
            return self._allowed(await self._compare(line), tool)

    async def read(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        """Call a tool that reads, if the list is the approved one before and after it.

        Raises:
            FactoryError: as `pinned`; or the call itself failed.
        """
        async with self._line() as line:
            _, pinned = self._allowed(await self._compare(line), tool)
            schemas.check(self.local(tool), pinned["inputSchema"], arguments)
            answer = await line.call(tool, arguments)
            self._allowed(await self._compare(line), tool)
            return answer

    async def act(
        self, tool: str, arguments: dict[str, Any], meta: dict[str, Any]
    ) -> CallToolResult:
        """Call a tool that changes something, once.

        Raises:
            FactoryError: as `pinned`; or the call itself failed.
        """
        async with self._line() as line:
            _, pinned = self._allowed(await self._compare(line), tool)
            schemas.check(self.local(tool), pinned["inputSchema"], arguments)
            return await line.call(tool, arguments, meta=meta)

    @asynccontextmanager
    async def _line(self) -> AsyncIterator[Line]:
        """The line that is kept, or one that is the caller's own."""
        if not self.settings.forward_caller_token:
            yield await self.upstream.line()
            return
        token = get_access_token()
        if token is None:
            raise InvalidRequestError(f"{self.name} is asked with the caller's own token; send one")
        async with self.upstream.opened(token.token) as line:
            yield line

    async def _compare(self, line: Line) -> Standing:
        present = await line.listed()
        approval, listed = await self._approved()
        show = f"a site lead reads it with `interlock federation show {self.name}`"
        if approval is None:
            why = f"nobody has approved the tool list of {self.name}; {show} and may approve it"
            return Standing(State.UNAPPROVED, why)
        if present.digest() == approval.digest:
            why = f"{approval.approved_by} approved this list at {approval.approved_at:%F %T}Z"
            return Standing(State.APPROVED, why, approval, (), *offered(self.settings, present))
        found = [] if listed is None else differences(ToolList.from_document(listed), present)
        changes = tuple(difference.sentence for difference in found)
        said = "; ".join(changes[:CHANGES_SHOWN]) or "what was approved cannot be read any more"
        more = f" and {len(changes) - CHANGES_SHOWN} more" if len(changes) > CHANGES_SHOWN else ""
        why = (
            f"the tool list of {self.name} is not the one that was approved, so none of its tools "
            f"is called: {said}{more}. {show} and approves it, or has it put back"
        )
        return Standing(State.CHANGED, why, approval, changes)

    def _allowed(self, standing: Standing, tool: str) -> tuple[ListApproval, dict[str, Any]]:
        if standing.state is not State.APPROVED or standing.approval is None:
            raise ConflictError(standing.why)
        if tool not in standing.offered:
            why = standing.withheld.get(tool, "the settings do not name it")
            raise InvalidRequestError(f"{self.local(tool)} is not offered: {why}")
        return standing.approval, standing.offered[tool]

    async def _approved(self) -> tuple[ListApproval | None, dict[str, Any] | None]:
        def look(connection: Any) -> tuple[ListApproval | None, dict[str, Any] | None]:
            approval = approved(connection, self.name, site=self._site_id, keys=self._keys)
            return approval, None if approval is None else listed_in(connection, approval)

        return await self._store.read(look)


def offered(
    settings: FederatedSettings, present: ToolList
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The tools of a list that may be offered, and why each other one is not."""
    out: dict[str, dict[str, Any]] = {}
    withheld = dict.fromkeys(settings.tools, "the server has no such tool")
    for name, tool in present.tools.items():
        why = _why_not(settings, name, tool)
        withheld.pop(name, None)
        if why is None:
            out[name] = tool
        else:
            withheld[name] = why
    return out, withheld


def _why_not(settings: FederatedSettings, name: str, tool: dict[str, Any]) -> str | None:
    said = settings.tools.get(name)
    if said is None:
        return "the settings do not name it"
    hints = tool.get("annotations", {})
    if said.effect is Effect.READ and hints.get("readOnlyHint") is not True:
        return "the settings call it a read, and the server does not (readOnlyHint)"
    harmless = hints.get("readOnlyHint") is True or hints.get("destructiveHint") is False
    if said.effect is Effect.REVERSIBLE and not harmless:
        return "the settings call it reversible, and the server does not (destructiveHint)"
    unusable = schemas.why_unusable(tool.get("inputSchema", {}))
    if unusable is not None:
        return f"nothing can be checked against its schema: {unusable}"
    missing = said.target is not None and said.target not in tool["inputSchema"].get(
        "properties", {}
    )
    return f"it has no argument {said.target!r}, the target in the settings" if missing else None
