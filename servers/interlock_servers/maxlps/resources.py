"""The power tree with its nodes as a resource that tells when it moves, and one node of it."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, ClassVar

from pydantic import Field

from interlock_guardrails.facts import FactRegistry
from interlock_servers import runbooks
from interlock_servers.maxlps.facts import POWER_TOPOLOGY
from interlock_servers.maxlps.models import Level
from interlock_servers.offer import Face
from interlock_servers.page import Listing, Page, Row
from interlock_servers.plant_text import PlantName
from interlock_servers.surface.completing import among
from interlock_servers.surface.offering import Attached
from interlock_servers.surface.watching import Variables
from interlock_tools.errors import UnavailableError
from interlock_tools.fact import Fact, FactNeed
from interlock_tools.identity import Target

TOPOLOGY = "maxlps://topology"
NODE = "maxlps://node/{node_id}"
MOST = 1500  # domains and nodes; the tools page through all
LOOK_EVERY_S = 30.0  # each look is a question to DPS, and a tree is rebuilt by hand
AGE_S = 30.0

NodeId = Annotated[str, Field(min_length=1, max_length=200, description="a node of list_nodes")]


class Place(Row):
    """One point of the power tree: what it is, where it hangs, what it may carry."""

    identity: ClassVar[tuple[str, ...]] = ("id", "level")

    id: PlantName
    level: Level
    parent: PlantName | None = None
    budget_w: float | None = None


class Topology(Listing):
    """The tree from the site down, each parent before what hangs on it."""

    listed: ClassVar[str] = "places"

    version: str = Field(description="another tree has another version")
    truncated: bool = Field(description="there is more; power_tree and list_nodes page through it")
    places: list[Place]


def offer_resources(
    face: Face,
    *,
    facts: FactRegistry,
    site: Target,
    node: Callable[[str], Awaitable[Page]],
) -> None:
    """Offer them; `node` reads one node's row."""

    async def tree() -> Fact:
        answer = await facts.fact(FactNeed(kind=POWER_TOPOLOGY, subject=site, max_age_s=AGE_S))
        if not isinstance(answer, Fact):
            raise UnavailableError(f"{POWER_TOPOLOGY} is unknown: {answer.why}; try again later")
        return answer

    async def marks(wanted: Sequence[Variables]) -> Sequence[object]:
        return [(await tree()).version] * len(wanted)

    async def node_ids(prefix: str) -> Sequence[str]:
        places = _walk((await tree()).value["root"], None)
        return among((place.id for place in places if place.level is Level.NODE), prefix)

    @face.resource(TOPOLOGY, marks=marks, every_s=LOOK_EVERY_S)
    async def topology() -> Topology:
        """Site, feeds, PDUs, racks and nodes, and what hangs on what; it tells when it moves."""
        fact = await tree()
        places = list(islice(_walk(fact.value["root"], None), MOST + 1))
        return Topology(
            observed_at=fact.observed_at,
            origin="maxlps",
            version=fact.version,
            truncated=len(places) > MOST,
            places=places[:MOST],
        )

    @face.resource(NODE, complete={"node_id": node_ids})
    async def node_resource(node_id: NodeId) -> Page:
        """One node, with limit and draw of each of its GPUs in W."""
        return await node(node_id)

    @face.prompt(runbooks.text("runbook_slow_node"), complete={"node_id": node_ids})
    async def runbook_slow_node(node_id: NodeId) -> Sequence[Attached]:
        """What to look at when the GPUs of a node are slow: limit, heat, room."""
        return [Attached(f"maxlps://node/{node_id}", await node(node_id))]


def _walk(entity: Mapping[str, Any], parent: str | None) -> Iterator[Place]:
    name, budget_w = entity["name"], entity["budget_w"]
    yield Place(id=name, level=Level(entity["level"]), parent=parent, budget_w=budget_w)
    for child in entity["children"]:
        yield from _walk(child, name)
