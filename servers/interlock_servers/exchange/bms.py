"""The MCP faces of what is asked of the BMS: requests are proposed here, and seen as they stand."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar

from interlock_guardrails.guard import Guard
from interlock_servers.exchange import COMPONENT
from interlock_servers.exchange.asking import AskBms, Wires
from interlock_servers.exchange.intents import Intent
from interlock_servers.exchange.operations import ISOLATION
from interlock_servers.exchange.outcomes import Setpoint, of_setpoint, of_state
from interlock_servers.exchange.points import Point
from interlock_servers.exchange.request_facts import heard_at
from interlock_servers.exchange.requests import REPUBLISH_S, Asked, shown, target_of
from interlock_servers.exchange.views import Cursor, Fields, Limit, Untold
from interlock_servers.identity import WhoCalls
from interlock_servers.offer import Face
from interlock_servers.page import Heard, Listing, Row
from interlock_servers.paging import Place, only, paged
from interlock_servers.plant_text import PlantName, PlantWords
from interlock_tools.errors import UnavailableError

INSTRUCTIONS = """\
What is asked of the building management system (BMS): supply temperature and readiness; the
isolation server has the rest. What changes something proposes; people approve elsewhere.
The BMS never answers: it applies, clamps, ignores or falls back, and list_requests shows what
became of each request. Look with the exchange server first. Requests end when our life sign does.
"""
ISOLATION_INSTRUCTIONS = """\
The isolation of racks from coolant or power, asked of the building management system (BMS). Two
people approve elsewhere. Nothing ends by itself: what was isolated is withdrawn, by two people too.
The bms server's list_requests shows what stands; get_rack and list_leaks of exchange show the rack.
"""
STATUS = {
    Asked.LIQUID: "RackLiquidIsolationStatus",
    Asked.ELECTRICAL: "RackElectricalIsolationStatus",
}


class RequestView(Row):
    """One request that stands, and what the BMS makes of it."""

    identity: ClassVar[tuple[str, ...]] = ("asks", "whose")

    asks: str
    whose: PlantName
    change_id: str | None = None
    value: float | str | None = None
    outcome: str | None = None
    shows: float | None = None
    ends_at: datetime | None = None
    why: PlantWords | None = None


class Requests(Heard, Listing):
    """What is asked for now; `beat_at` is when our life sign was last heard on the bus."""

    listed: ClassVar[str] = "requests"

    integration: str
    beat_at: datetime | None = None
    trouble: PlantWords | None = None
    requests: Annotated[list[RequestView], Untold]


def bms_face(
    operations: Sequence[AskBms[Any]], wires: Wires, *, guard: Guard, who: WhoCalls
) -> Face:
    """The tools that ask the BMS for something."""
    face = Face("bms", guard=guard, who=who, instructions=INSTRUCTIONS)

    @face.read
    async def list_requests(
        limit: Limit = 50, cursor: Cursor = None, fields: Fields = None
    ) -> Requests:
        """What we ask of the BMS now, and whether it applies, clamps or ignores it."""
        client, now = wires.client, wires.client.now()
        standing = await wires.intents.standing(now)
        place = Place.of("list_requests")
        rows = [one for one in standing.values() if one.value is not None]
        page, more = paged(rows, _id, place, limit=limit, cursor=cursor)
        return Requests(
            observed_at=client.ingest().observed_at,
            origin=COMPONENT,
            stale_since=client.bus_state().stale_since,
            integration=wires.namespace.integration,
            beat_at=heard_at(client, wires.namespace),
            trouble=wires.holder.trouble,
            requests=only(RequestView, [request_view(one, wires) for one in page], fields),
            next_cursor=more,
        )

    for operation in operations:
        if type(operation) not in ISOLATION:
            face.propose(operation)
    return face


def isolation_face(operations: Sequence[AskBms[Any]], *, guard: Guard, who: WhoCalls) -> Face:
    """The tools that take a rack's coolant or power away: a toolset of their own."""
    face = Face("isolation", guard=guard, who=who, instructions=ISOLATION_INSTRUCTIONS)
    for operation in operations:
        if type(operation) in ISOLATION:
            face.propose(operation)
    return face


def _id(intent: Intent) -> str:
    return f"{intent.asked}/{intent.whose}"


def request_view(intent: Intent, wires: Wires) -> RequestView:
    """What it asks for, beside what the BMS shows at this moment."""
    shows, outcome, why = None, None, None
    times = 1 + int((wires.client.now() - intent.since).total_seconds() // REPUBLISH_S)
    try:
        asked = wires.holder.value_of(intent)
        point = wires.namespace.writable(intent.asked, intent.whose)
        shows, at = shown(wires.client, _shown_by(intent, point.key, wires))
        if at is None or at < intent.since:
            shows = None  # what was shown before says nothing about it
        limits = wires.settings.supply
        if intent.asked is Asked.SUPPLY and limits is not None:
            seen = Setpoint(asked, intent.before_c, shows, limits.safe_c, times)
            outcome = of_setpoint(seen)
        else:
            outcome = of_state(asked, shows, times)
    except UnavailableError as error:
        why = str(error)
    return RequestView(
        change_id=intent.change_id,
        asks=intent.asked,
        whose=intent.whose,
        value=intent.value,
        outcome=outcome,
        shows=shows,
        ends_at=intent.ends_at,
        why=why,
    )


def _shown_by(intent: Intent, key: str, wires: Wires) -> list[Point]:
    store = wires.client.store
    if intent.asked is Asked.SUPPLY:
        (point,) = store.points([key])
        return [] if point.metadata is None else target_of(wires.client, point.metadata)
    if intent.asked in STATUS:
        rack = store.points(store.catalogue().by_rack.get(intent.whose, ()))
        return [p for p in rack if p.topic.point_type == STATUS[intent.asked]]
    return store.points([key])
