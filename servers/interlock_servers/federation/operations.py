"""What may change at another server: each of its tools that has an effect, called once.

What the server does with a call is not seen here. So whom it reaches is what the settings say, or
the whole site; and whether it took effect is what a read shows that the settings name, or unknown.
"""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from interlock_guardrails.rules import SiteRules
from interlock_servers.federation import schemas
from interlock_servers.federation.answers import at_path, evidence_of, said_wrong, structure_of
from interlock_servers.federation.facts import APPROVED_TOOL, tool_target
from interlock_servers.federation.gate import Gate
from interlock_servers.federation.settings import ToolSettings, VerifyWith
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.errors import ComponentError, InvalidRequestError, UnavailableError
from interlock_tools.fact import FactNeed, FactSet
from interlock_tools.identity import Target
from interlock_tools.operation import (
    Arguments,
    Effect,
    Happened,
    Held,
    Operation,
    ReadBack,
    Verdict,
)

CHANGE_KEY = "io.github.interlock-dsx/change"  # in `_meta` of the call
LIST_AGE_S = 30.0
UPSTREAM = "mcp_server"
ID_CHARS = 200


class CallArguments(Arguments):
    """What the tool of the other server is called with; its approved schema says what that is."""

    arguments: Annotated[dict[str, Any], Field(description="as the tool's own schema says")]


class CallTool(Operation[CallArguments]):
    """Call one tool of another server.

    Without a reach in the settings it counts as interrupting, on every GPU and on everything that
    is protected: what can be taken back, but reaches nobody knows whom, asks for two people too.
    """

    arguments = CallArguments

    def __init__(self, gate: Gate, tool: str, rules: SiteRules) -> None:
        self._gate = gate
        self._tool = tool
        self._rules = rules
        self._said: ToolSettings = gate.settings.tools[tool]
        self._subject = tool_target(gate.name, tool)

    @property
    def tool(self) -> str:
        """The name that the server gives it."""
        return self._tool

    def target(self, arguments: CallArguments) -> Target:
        """What the named argument names; without one the whole server."""
        if self._said.target is None:
            return Target(kind=UPSTREAM, id=self._gate.name)
        named = arguments.arguments.get(self._said.target)
        text = str(named) if isinstance(named, str | int) and not isinstance(named, bool) else ""
        if self._said.target_kind is None:
            text = text and f"{self._gate.name}/{text}"
        if not text or not text.isprintable() or len(text) > ID_CHARS:
            raise InvalidRequestError(
                f"{self.name}: {self._said.target} must name what it is done to, in plain text of "
                f"at most {ID_CHARS} characters"
            )
        return Target(kind=self._said.target_kind or UPSTREAM, id=text)

    def facts(self, arguments: CallArguments) -> tuple[FactNeed, ...]:
        """That people approved exactly this tool in exactly this list."""
        return (FactNeed(kind=APPROVED_TOOL, subject=self._subject, max_age_s=LIST_AGE_S),)

    def blast_radius(self, arguments: CallArguments, facts: FactSet) -> BlastRadius:
        """What the settings say; unknown counts as every GPU and all that is protected."""
        pinned = facts.value(APPROVED_TOOL, self._subject)
        schemas.check(self.name, pinned["input_schema"], arguments.arguments)
        if self._said.reach is not None:
            return self._said.reach
        return BlastRadius(gpus=self._rules.gpus, hosts=self._rules.protected)

    async def execute(self, arguments: CallArguments, key: str) -> dict[str, Any]:
        """Call it once, with the change's id in `_meta`.

        Raises:
            ConflictError: the list is not the approved one any more; nothing was sent.
            ComponentError: the server says that it failed.
            UnavailableError: no answer; what happened is unknown.
        """
        answer = await self._gate.act(self._tool, arguments.arguments, {CHANGE_KEY: key})
        if answer.is_error:
            raise ComponentError(self._gate.name, "TOOL_ERROR", said_wrong(answer))
        return evidence_of(answer)

    async def read_back(self, arguments: CallArguments) -> ReadBack:
        """Yes where the named read shows it; never no, for a call may still be on its way."""
        look = self._said.verify_with
        if look is None:
            why = "the settings name no read that shows it (verify_with)"
            return ReadBack(happened=Happened.UNKNOWN, evidence={"why": why})
        shows, evidence = await self._look(look, arguments)
        happened = Happened.YES if shows else Happened.UNKNOWN
        return ReadBack(happened=happened, evidence=evidence)

    async def verify(self, arguments: CallArguments, before: FactSet, since: datetime) -> Verdict:
        """What the named read shows; without one it is not verified."""
        name, look = self._gate.name, self._said.verify_with
        if look is None:
            source = f"{name}, for which the settings name no verify_with,"
            return Verdict(held=Held.NO, source=source, evidence={"verified": False})
        shows, evidence = await self._look(look, arguments)
        held = Held.YES if shows else Held.NOT_YET
        source = f"{name} itself, by {self._gate.local(look.tool)}"
        return Verdict(held=held, source=source, evidence=evidence)

    async def _look(
        self, look: VerifyWith, arguments: CallArguments
    ) -> tuple[bool, dict[str, Any]]:
        asked = {
            name: _filled(value, arguments.arguments) for name, value in look.arguments.items()
        }
        answer = await self._gate.read(look.tool, asked)
        if answer.is_error:
            raise UnavailableError(f"{look.tool} failed: {said_wrong(answer)}")
        found = at_path(structure_of(answer), look.path)
        wanted = _filled(look.equals, arguments.arguments)
        same = type(found) is type(wanted) and found == wanted
        if isinstance(found, int | float) and isinstance(wanted, int | float):
            same = isinstance(found, bool) is isinstance(wanted, bool) and found == wanted
        return same, evidence_of(answer) | {"path": look.path, "wanted": wanted}


def operations_of(gate: Gate, rules: SiteRules) -> tuple[CallTool, ...]:
    """An operation for each tool that changes something, whether it is offered now or not."""
    return tuple(
        _operation(gate, name, said, rules)
        for name, said in gate.settings.tools.items()
        if said.effect is not Effect.READ
    )


def _operation(gate: Gate, name: str, said: ToolSettings, rules: SiteRules) -> CallTool:
    effect = said.effect
    if said.reach is None and effect is Effect.REVERSIBLE:
        effect = Effect.DISRUPTIVE
    kind = type(
        "CallTool",
        (CallTool,),
        {
            "name": f"{gate.name}.{gate.local(name)}",
            "effect": effect,
            "deadline_s": gate.settings.verify_within_s,
            "act_timeout_s": gate.settings.act_timeout_s,
            "__doc__": CallTool.__doc__,
        },
    )
    made: CallTool = kind(gate, name, rules)
    return made


def _filled(value: Any, arguments: dict[str, Any]) -> Any:
    """The value, or the argument for which it stands: `{name}` and nothing beside it."""
    if isinstance(value, str) and value.startswith("{") and value.endswith("}"):
        if value[1:-1] not in arguments:
            raise InvalidRequestError(f"verify_with refers to {value}, which was not given")
        return arguments[value[1:-1]]
    return value
