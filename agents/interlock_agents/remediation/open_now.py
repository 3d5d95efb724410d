"""Changes of the agent's that have not ended, one a node; found again after a restart."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from interlock_agents.connection import Servers
from interlock_agents.own_changes import open_changes, tag_of
from interlock_agents.remediation.deciding import Step
from interlock_agents.remediation.words import node_of

TOOLS: Final[dict[Step, tuple[str, str]]] = {
    Step.DRAIN: ("remediation", "request_maintenance"),
    Step.RETURN: ("remediation", "end_maintenance"),
    Step.RESET: ("janitor", "reset_gpus"),
    Step.REBOOT: ("janitor", "reboot_node"),
}
_STEPS: Final = {f"nvsentinel.{tool}": step for step, (_, tool) in TOOLS.items()}


@dataclass
class Open:
    """A change that was proposed and has not ended."""

    change_id: str
    node_id: str
    step: Step
    asked: dict[str, Any] = field(default_factory=dict)

    @property
    def component(self) -> str:
        """Whose it is."""
        return TOOLS[self.step][0]


async def own_open(servers: Servers) -> AsyncIterator[Open]:
    """What was proposed before a restart and has not ended.

    Raises:
        ComponentError: the list is not to be had.
    """
    async with aclosing(open_changes(servers, "remediation", _STEPS)) as found:
        async for seen in found:
            node_id = node_of(tag_of(seen["reason"]))
            if node_id is not None:
                yield Open(seen["change_id"], node_id, _STEPS[seen["operation"]])
