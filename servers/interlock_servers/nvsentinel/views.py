"""What the tools of NVSentinel answer with; every name and message in it is text of the plant."""

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field, WithJsonSchema

from interlock_servers.page import Listing, Page, Row
from interlock_servers.paging import MAX_LIMIT
from interlock_servers.plant_text import PlantName, PlantWords

# What the instructions say once is not said again at each tool, and the columns of a table stand in
# its header: all of that is paid in every conversation.
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]
Cursor = str | None
Fields = list[str] | None
Untold = WithJsonSchema({"type": "array", "items": {"type": "object"}})
Told = WithJsonSchema({"type": "object"})


class Watched(Page):
    """Base of an answer from the caches; since `stale_since` the cluster is not heard."""

    stale_since: datetime | None = None
    unknown: PlantWords | None = None


class ModuleView(BaseModel):
    """One module."""

    name: PlantName
    ready: str
    version: PlantName | None = None
    dry_run: bool | None = None


class SentinelStatus(Watched):
    """What is installed, and how many nodes are in which state."""

    mode: str
    why: PlantWords | None = None
    dry_run: bool | None = None
    breaker: str
    breaker_why: PlantWords | None = None
    breaker_cursor: PlantName | None = None
    modules: Annotated[list[ModuleView], Untold]
    missing: Annotated[dict[str, PlantWords] | None, Told] = None
    nodes: Annotated[dict[str, int], Told]
    stuck: int
    unreadable: Annotated[dict[str, PlantWords] | None, Told] = None


class NodeView(Row):
    """One node."""

    identity: ClassVar[tuple[str, ...]] = ("node_id", "stage")

    node_id: PlantName
    stage: PlantName
    ready: bool | None = None
    faults: list[PlantName] | None = None
    since: datetime | None = None
    cordoned_by: str | None = None
    next: PlantWords | None = None
    pods: int | None = None
    lease: PlantName | None = None
    opted_out: bool | None = None
    why: PlantWords | None = None


class Nodes(Watched, Listing):
    """Nodes that match, by name."""

    listed: ClassVar[str] = "nodes"

    nodes: list[NodeView]


class FaultView(BaseModel):
    """One condition that shows a fault."""

    check: PlantName
    since: datetime | None = None
    message: PlantWords | None = None


class EventView(BaseModel):
    """One event that keeps the node quarantined."""

    check: PlantName
    agent: PlantName | None = None
    action: PlantName
    fatal: bool | None = None
    entities: list[PlantName] | None = None
    message: PlantWords | None = None


class PodView(Row):
    """One pod that a drain would meet."""

    identity: ClassVar[tuple[str, ...]] = ("namespace", "pod")

    namespace: PlantName
    pod: PlantName
    tenant: PlantName | None = None
    job: PlantName | None = None
    gang: PlantName | None = None
    gpus: int | None = None
    devices: list[PlantName] | None = None
    budgets: list[PlantName] | None = None
    blocked: bool | None = None
    leaving_since: datetime | None = None


class NodeStory(Watched, Listing):
    """One node: what is the matter, whose the cordon is, and who would be met by a drain."""

    listed: ClassVar[str] = "pods"

    node_id: PlantName
    stage: PlantName
    next: PlantWords
    ready: bool | None = None
    cordoned_by: str
    cordon_writers: list[PlantName] | None = None
    since: datetime | None = None
    faults: Annotated[list[FaultView], Untold]
    unsure: list[PlantName] | None = None
    events: Annotated[list[EventView] | None, Untold] = None
    events_why: PlantWords | None = None
    opted_out: list[PlantName] | None = None
    lease: PlantName | None = None
    requests: list[PlantWords] | None = None
    stuck: list[PlantWords] | None = None
    gpus: int
    known_gpus: list[PlantName] | None = None
    rack: PlantName | None = None
    pods: Annotated[list[PodView], Untold]


class StuckView(Row):
    """One thing that does not go on."""

    identity: ClassVar[tuple[str, ...]] = ("what", "says")

    what: str
    says: PlantWords
    node_id: PlantName | None = None
    since: datetime | None = None
    issue: str | None = None


class Stuck(Watched, Listing):
    """What does not go on."""

    listed: ClassVar[str] = "stuck"

    stuck: Annotated[list[StuckView], Untold]


class RuleView(Row):
    """One rule set."""

    identity: ClassVar[tuple[str, ...]] = ("number", "rule")

    number: int
    rule: PlantName
    enabled: bool | None = None
    priority: int | None = None
    match: list[PlantWords] | None = None
    cordons: bool | None = None
    taint: PlantName | None = None


class Rules(Watched, Listing):
    """The rule sets by which nodes are quarantined."""

    listed: ClassVar[str] = "rules"

    rules: Annotated[list[RuleView], Untold]


class RequestView(Row):
    """One request, as its own conditions say."""

    identity: ClassVar[tuple[str, ...]] = ("kind", "name")

    kind: str
    name: PlantName
    node_ids: list[PlantName] | None = None
    wants: PlantWords | None = None
    outcome: str | None = None
    phase: PlantName | None = None
    says: PlantWords | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    change_id: PlantName | None = None


class Requests(Watched, Listing):
    """Requests, newest first."""

    listed: ClassVar[str] = "requests"

    requests: Annotated[list[RequestView], Untold]


class PastView(Row):
    """One event."""

    identity: ClassVar[tuple[str, ...]] = ("key",)

    key: PlantName
    at: datetime | None = None
    node_id: PlantName | None = None
    type: PlantName | None = None
    reason: PlantName | None = None
    source: PlantName | None = None
    message: PlantWords | None = None
    times: int | None = None


class PastEvents(Watched, Listing):
    """Events, newest first."""

    listed: ClassVar[str] = "events"

    events: Annotated[list[PastView], Untold]
