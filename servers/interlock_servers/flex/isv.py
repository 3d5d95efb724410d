"""The MCP face of Interlock as a grid ISV: load targets are proposed here, and seen on flex."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interlock_guardrails.facts import FactRegistry
from interlock_guardrails.guard import Guard
from interlock_guardrails.store import Store
from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.operations import flex_operations
from interlock_servers.flex.publishing import TargetPublisher
from interlock_servers.flex.sending import SendTarget, Wires
from interlock_servers.flex.sending_facts import SendingFacts
from interlock_servers.flex.sent import Sent
from interlock_servers.flex.settings import PublishSettings
from interlock_servers.identity import WhoCalls
from interlock_servers.offer import Face
from interlock_tools.clock import Clock

NAME = "grid_isv"
INSTRUCTIONS = """\
Interlock as a Grid Event Publisher: load targets for the feeds of this site, signed as an ISV.
What changes something proposes; people approve elsewhere. Look with the flex server first:
list_feeds for the range of each feed, list_load_targets for what holds and for correlation ids.
A target without feeds, or without an end, is a decision of its own and asks more people for each.
There is no answer on the bus: without the Flex Agent's echo a target was not accepted.
"""


@dataclass(frozen=True)
class Sending:
    """The writing half of the component."""

    publisher: TargetPublisher
    facts: SendingFacts
    operations: tuple[SendTarget[Any], ...]


def sending(
    client: FlexClient, settings: PublishSettings, store: Store, facts: FactRegistry, clock: Clock
) -> Sending:
    """Put it together; nothing connects before the publisher runs.

    Raises:
        InvalidRequestError: the signing key, or a secret of the connection, cannot be used.
    """
    publisher = TargetPublisher(settings, client, clock)
    sent = Sent(store, settings.source)
    wires = Wires(client, publisher, sent, facts, clock)
    return Sending(publisher, SendingFacts(client, publisher, sent, clock), flex_operations(wires))


def isv_face(operations: Sequence[SendTarget[Any]], *, guard: Guard, who: WhoCalls) -> Face:
    """The tools of an ISV."""
    face = Face(NAME, guard=guard, who=who, instructions=INSTRUCTIONS)
    for operation in operations:
        face.propose(operation)
    return face
