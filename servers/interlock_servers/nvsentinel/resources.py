"""The nodes that need a look as a resource that tells when one is new, changed or gone."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from interlock_servers.nvsentinel.client import NvsentinelClient
from interlock_servers.nvsentinel.models import Node
from interlock_servers.offer import Face
from interlock_servers.page import Page
from interlock_servers.paging import MAX_LIMIT
from interlock_servers.surface.watching import Variables
from interlock_servers.transports.kube.cache import Key

FAULTS: Final = "nvsentinel://faults"
LOOK_EVERY_S: Final = 0.1  # a second is all that may pass to a proposal; a look asks nobody


def offer_resources(
    face: Face, client: NvsentinelClient, *, nodes: Callable[..., Awaitable[Page]]
) -> None:
    """Offer it; `nodes` reads what list_node_health shows."""
    seen: dict[Key, object] = {}
    moves = 0

    def heard(key: Key, node: Node | None) -> None:
        """Count what matters: kubelets write to their nodes all day without any of that moving."""
        nonlocal moves
        told = None if node is None or node.calm else _told(node)
        if seen.get(key) == told:
            return
        moves += 1
        if told is None:
            del seen[key]
        else:
            seen[key] = told

    client.nodes.listen(heard)

    async def marks(wanted: Sequence[Variables]) -> Sequence[object]:
        return [(moves, client.nodes.snapshot().known)] * len(wanted)

    @face.resource(FAULTS, marks=marks, every_s=LOOK_EVERY_S)
    async def faults() -> Page:
        """Nodes that need a look, as list_node_health shows them; it tells when one moves."""
        return await nodes(limit=MAX_LIMIT)


def _told(node: Node) -> object:
    return (
        node.ready,
        tuple((one.type, one.message) for one in node.faults),
        node.unsure,
        node.cordoned_by,
        node.stage,
        node.opted_out,
        node.released,
    )
