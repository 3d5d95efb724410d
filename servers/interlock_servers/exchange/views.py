"""What the tools of the bus answer with."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field, WithJsonSchema

from interlock_servers.exchange.store import PointState
from interlock_servers.page import Listing, Page, Row
from interlock_servers.paging import MAX_LIMIT
from interlock_servers.plant_text import PlantName, PlantWords

# What the instructions of the server say once is not said again at each of its tools, and the
# columns of most tables stand in their header only: all of that is paid in every conversation.
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]
Cursor = str | None
Fields = list[str] | None
Untold = WithJsonSchema({"type": "array", "items": {"type": "object"}})


class Heard(Page):
    """Base of an answer from what the bus has told us; since `stale_since` it is silent."""

    stale_since: datetime | None = None


class PointView(Row):
    """One point as it reads now."""

    identity: ClassVar[tuple[str, ...]] = ("key", "state")

    key: PlantName
    state: Annotated[PointState, WithJsonSchema({"type": "string"})]
    value: float | None = None
    unit: PlantName | None = None
    object_id: PlantName | None = None
    rack_id: PlantName | None = None
    part_of: PlantName | None = None
    area: list[PlantName] | None = None
    setpoint: bool | None = None
    label: PlantName | None = None
    why: PlantWords | None = None
    age_s: float | None = None
    last_good_value: float | None = None


class Points(Heard, Listing):
    """Points that match, in the order of their keys."""

    listed: ClassVar[str] = "points"

    points: list[PointView]


class MeterView(Row):
    """What one meter says."""

    identity: ClassVar[tuple[str, ...]] = ("id",)

    id: PlantName
    kind: Literal["meter", "rack"] | None = None
    depth: int | None = None
    power_w: float | None = None
    age_s: float | None = None
    why: PlantWords | None = None


class SitePower(Heard, Listing):
    """The site's main meter and the meters and racks below it."""

    listed: ClassVar[str] = "below"

    site_id: str
    power_w: float | None = None
    measured_at: datetime | None = None
    why: PlantWords | None = None
    below: Annotated[list[MeterView], Untold]


class RackView(Heard, Listing):
    """One rack: its power, its points and what serves it."""

    listed: ClassVar[str] = "points"

    rack_id: PlantName
    power_w: float | None = None
    why: PlantWords | None = None
    served_by: list[PlantName]
    points: Annotated[list[PointView], Untold]


class Reached(Row):
    """One thing on the path."""

    identity: ClassVar[tuple[str, ...]] = ("id",)

    id: PlantName
    kind: Literal["meter", "equipment", "rack", "unknown"] | None = None
    steps: int | None = None
    lost: bool | None = None
    via: list[PlantName] | None = None


class Path(Heard, Listing):
    """What a meter or rack hangs on, or what hangs on it, nearest first."""

    listed: ClassVar[str] = "reaches"

    id: PlantName
    direction: Literal["down", "up"]
    truncated: bool
    warnings: list[PlantWords] | None = None
    reaches: Annotated[list[Reached], Untold]


class Beat(BaseModel):
    """One life sign; alive is absent where it cannot be told."""

    publisher: PlantName
    scope: PlantName | None = None
    alive: bool | None = None
    age_s: float | None = None
    why: PlantWords | None = None


class BusHealth(Heard):
    """Whether we hear the bus and whom, and what was wrong with what we heard."""

    connected: bool
    broker: str | None = None
    bms_alive: bool | None = None
    why: PlantWords | None = None
    beats: Annotated[list[Beat], Untold]
    points: int
    accepted: int
    conflicts: dict[str, str] | None = None
    rejected: dict[str, int]
    deviations: dict[str, int]


class Past(Row):
    """One reading of the past; a value is there only where it could be trusted when it came."""

    identity: ClassVar[tuple[str, ...]] = ("at",)

    at: datetime
    value: float | None = None
    label: PlantName | None = None
    quality: int | None = None


class History(Heard, Listing):
    """What one point said, newest first."""

    listed: ClassVar[str] = "readings"

    key: PlantName
    unit: PlantName | None = None
    readings: Annotated[list[Past], Untold]


class EventView(Row):
    """One change."""

    identity: ClassVar[tuple[str, ...]] = ("number", "kind", "subject")

    number: int
    kind: str
    subject: PlantName
    before: PlantName | None = None
    after: PlantName | None = None
    at: datetime | None = None
    times: int | None = None


class Events(Heard, Listing):
    """What happened lately, newest first."""

    listed: ClassVar[str] = "events"

    dropped: int
    events: Annotated[list[EventView], Untold]


class SafetyView(Row):
    """One rack or piece of equipment; an absent state is unknown."""

    identity: ClassVar[tuple[str, ...]] = ("id", "kind")

    id: PlantName
    kind: str
    leak: bool | None = None
    sensor_fault: bool | None = None
    tray_leak: bool | None = None
    liquid_isolated: bool | None = None
    electrical_isolated: bool | None = None
    liquid_requested: bool | None = None
    electrical_requested: bool | None = None
    says: PlantName | None = None
    why: PlantWords | None = None


class SafetyPage(Heard, Listing):
    """Leaks and isolation."""

    listed: ClassVar[str] = "racks"

    racks: Annotated[list[SafetyView], Untold]
