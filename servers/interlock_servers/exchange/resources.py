"""The facility bus as resources: the catalogue, one point, one rack, and whether the bus is heard.

A point or rack tells when a value or a state moves, not when it is said again or grows older.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar

from pydantic import Field

from interlock_servers import runbooks
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.readings import Answer, Reading
from interlock_servers.exchange.store import PointState
from interlock_servers.offer import Face
from interlock_servers.page import Heard, Listing, Page, Row
from interlock_servers.paging import MAX_LIMIT, Place
from interlock_servers.plant_text import PlantName, PlantWords
from interlock_servers.surface.completing import among, beginning
from interlock_servers.surface.offering import Attached
from interlock_servers.surface.watching import Variables

CATALOGUE = "exchange://catalogue"
CATALOGUE_FROM = "exchange://catalogue/{cursor}"
POINT = "exchange://point/{+point_id}"  # a key has slashes
RACK = "exchange://rack/{rack_id}"
HEALTH = "exchange://health"

PointId = Annotated[str, Field(min_length=1, max_length=400, description="a key of the catalogue")]
RackId = Annotated[str, Field(min_length=1, max_length=200)]
Origin = Callable[[Answer], dict[str, Any]]


class Described(Row):
    """One point as the bus describes it, without its value."""

    identity: ClassVar[tuple[str, ...]] = ("key",)

    key: PlantName
    object_id: PlantName | None = None
    rack_id: PlantName | None = None
    unit: PlantName | None = None
    is_setpoint: bool


class CataloguePage(Heard, Listing):
    """Points in the order of their keys; list_points has the same with values and filters."""

    listed: ClassVar[str] = "points"

    points: list[Described]
    next_uri: str | None = Field(default=None, description="the rest")


class PointInFull(Heard):
    """One point: what it is, how it reads now, and why where it does not."""

    key: PlantName
    publisher: PlantName
    object_id: PlantName | None = None
    object_name: PlantName | None = None
    rack_id: PlantName | None = None
    is_setpoint: bool
    unit: PlantName | None = None
    state: PointState
    value: float | None = None
    label: PlantName | None = None
    why: PlantWords | None = None
    measured_at: datetime | None = None
    age_s: float | None = None
    last_good_value: float | None = None
    last_good_at: datetime | None = None
    deviations: list[str]
    foreign_publishers: list[PlantName] = Field(description="who wrote it without owning it")

    @classmethod
    def of(cls, point: Reading, **origin: Any) -> "PointInFull":
        """The point as it reads now."""
        return cls(
            **origin,
            key=point.key,
            publisher=point.publisher,
            object_id=point.object_id,
            object_name=point.object_name,
            rack_id=point.rack_location_id,
            is_setpoint=point.is_setpoint,
            unit=point.unit,
            state=point.state,
            value=point.value,
            label=point.label,
            why=point.why,
            measured_at=point.measured_at,
            age_s=None if point.age_s is None else round(point.age_s, 1),
            last_good_value=point.last_good_value,
            last_good_at=point.last_good_at,
            deviations=[str(deviation) for deviation in point.deviations],
            foreign_publishers=list(point.foreign_publishers),
        )


def offer_resources(
    face: Face,
    client: ExchangeClient,
    *,
    origin: Origin,
    rack: Callable[..., Awaitable[Page]],
    health: Callable[[], Awaitable[Page]],
) -> None:
    """Offer them; `rack` and `health` read what the tools of those names show."""
    place = Place.of(CATALOGUE)

    async def point_ids(prefix: str) -> Sequence[str]:
        return beginning(client.store.catalogue().keys, prefix)

    async def rack_ids(prefix: str) -> Sequence[str]:
        return among(client.store.catalogue().by_rack, prefix)

    async def catalogue_marks(wanted: Sequence[Variables]) -> Sequence[object]:
        return [client.store.generation] * len(wanted)

    async def point_marks(wanted: Sequence[Variables]) -> Sequence[object]:
        return [client.marks([one["point_id"]]) for one in wanted]

    async def rack_marks(wanted: Sequence[Variables]) -> Sequence[object]:
        known = client.store.catalogue()
        ids = [one["rack_id"] for one in wanted]
        return [
            (known.served_by.get(one, ()), client.marks(known.by_rack.get(one, ()))) for one in ids
        ]

    def page_from(cursor: str | None) -> CataloguePage:
        found = client.points(limit=MAX_LIMIT, cursor=place.last(cursor))
        more = None if found.next_cursor is None else place.cursor(found.next_cursor)
        return CataloguePage(
            **origin(found),
            points=list(_described(found.points)),
            next_uri=None if more is None else f"{CATALOGUE}/{more}",
        )

    @face.resource(CATALOGUE, marks=catalogue_marks)
    async def catalogue() -> CataloguePage:
        """Which points the bus has, the first of them; it tells when points come or change."""
        return page_from(None)

    @face.resource(CATALOGUE_FROM)
    async def catalogue_from(cursor: Annotated[str, Field(max_length=4096)]) -> CataloguePage:
        """More of the catalogue; next_uri of the part before leads here."""
        return page_from(cursor)

    @face.resource(POINT, complete={"point_id": point_ids}, marks=point_marks)
    async def point(point_id: PointId) -> PointInFull:
        """One point as it reads now; it tells when its value or state moves."""
        found = client.point(point_id)
        return PointInFull.of(found.points[0], **origin(found))

    @face.resource(RACK, complete={"rack_id": rack_ids}, marks=rack_marks)
    async def rack_resource(rack_id: RackId) -> Page:
        """One rack, as get_rack shows it; it tells when a value or state of it moves."""
        return await rack(rack_id, limit=MAX_LIMIT)

    @face.resource(HEALTH)
    async def bus() -> Page:
        """Whether bus and BMS live, as bus_health shows it."""
        return await health()

    @face.prompt(runbooks.text("runbook_silent_bus"))
    async def runbook_silent_bus() -> Sequence[Attached]:
        """What to do when values of the bus look old or are absent."""
        return [Attached(HEALTH, await health())]


def _described(points: Iterable[Reading]) -> Iterable[Described]:
    for point in points:
        yield Described(
            key=point.key,
            object_id=point.object_id,
            rack_id=point.rack_location_id,
            unit=point.unit,
            is_setpoint=point.is_setpoint,
        )
