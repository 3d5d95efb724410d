"""The MCP faces of what is asked of NVSentinel: the mild half, and the janitor's."""

from collections.abc import Sequence
from typing import Any

from interlock_guardrails.guard import Guard
from interlock_servers.identity import WhoCalls
from interlock_servers.nvsentinel.operations import JANITOR, REMEDIATION
from interlock_servers.offer import Face
from interlock_tools.operation import Operation

REMEDIATION_INSTRUCTIONS = """\
What is asked of NVSentinel for a node: maintenance (the way to take a node out and back),
validation, cancelling a quarantine, opting out. What changes something proposes; people approve
elsewhere. Look with explain_node of the nvsentinel server first.
Nodes that somebody else cordoned, or whose maintenance lock is held, are refused. Work takes tens
of minutes: ask get_change, do not propose it again.
"""
JANITOR_INSTRUCTIONS = """\
What is hardest on a cluster with NVSentinel: GPU resets, reboots, terminations, the end of a repair
outside, and its circuit breaker. People approve elsewhere. Prefer request_maintenance of the
remediation server, and drain first: a node where somebody works is refused. A reboot may take an
hour: ask get_change.
"""


def remediation_face(operations: Sequence[Operation[Any]], *, guard: Guard, who: WhoCalls) -> Face:
    """The tools that take a node out and back."""
    return _face("remediation", REMEDIATION_INSTRUCTIONS, REMEDIATION, operations, guard, who)


def janitor_face(operations: Sequence[Operation[Any]], *, guard: Guard, who: WhoCalls) -> Face:
    """The tools that reset, reboot and terminate."""
    return _face("janitor", JANITOR_INSTRUCTIONS, JANITOR, operations, guard, who)


def _face(
    name: str,
    instructions: str,
    kinds: tuple[type[Any], ...],
    operations: Sequence[Operation[Any]],
    guard: Guard,
    who: WhoCalls,
) -> Face:
    face = Face(name, guard=guard, who=who, instructions=instructions)
    for operation in operations:
        if isinstance(operation, kinds):
            face.propose(operation)
    return face
