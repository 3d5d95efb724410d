"""What the guard must know before a federated tool is called: that people approved exactly it."""

from collections.abc import Iterable

from interlock_servers.federation.gate import Gate
from interlock_tools.clock import Clock
from interlock_tools.errors import FactoryError
from interlock_tools.fact import Fact, FactNeed, Nature, Unknown
from interlock_tools.identity import Target

APPROVED_TOOL = "federation.approved_tool"
TOOL_KIND = "mcp_tool"


def tool_target(component: str, tool: str) -> Target:
    """The tool of a server, as the subject of a fact."""
    return Target(kind=TOOL_KIND, id=f"{component}/{tool}")


class FederationFacts:
    """Answers for every federated server; the list is read for each answer, or was just now.

    The fact is an identity: a vote that was given under one list is none under another.
    """

    def __init__(self, gates: Iterable[Gate], clock: Clock) -> None:
        self._tools = {
            tool_target(gate.name, tool): (gate, tool)
            for gate in gates
            for tool in gate.settings.tools
        }
        self._clock = clock

    @property
    def kinds(self) -> frozenset[str]:
        """The one kind."""
        return frozenset({APPROVED_TOOL})

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """The tool as it was approved, while its server still lists exactly that."""
        if need.subject not in self._tools:
            why = "the settings name no such tool"
            return Unknown(kind=need.kind, subject=need.subject, why=why)
        gate, tool = self._tools[need.subject]
        try:
            approval, pinned = await gate.pinned(tool)
        except FactoryError as error:
            return Unknown(kind=need.kind, subject=need.subject, why=str(error))
        return Fact(
            kind=need.kind,
            subject=need.subject,
            value={"list": approval.digest, "input_schema": pinned["inputSchema"]},
            origin=f"{gate.name}, approved by {approval.approved_by}",
            version=approval.digest,
            observed_at=self._clock.now(),
            nature=Nature.IDENTITY,
        )
