"""What an integration may ask of the BMS, and on which topic: both from metadata and nothing else.

A topic is never put together from what a caller said. It is the topic on which the BMS described
the point, with PUB as our id and Metadata as Value; where two points could be meant there is none.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.models import BMS, PointMetadata
from interlock_servers.exchange.points import FRESH_S, Point, PointState
from interlock_servers.plant_text import plant_text
from interlock_tools.errors import UnavailableError

CDU_SUPPLY = "cdu.supply"  # the fact of what a CDU is controlled to
REPUBLISH_S = 100.0  # as values that the BMS publishes: the specification names no other cadence


class Asked(StrEnum):
    """Which kind of point carries a request; the value is its point type.

    `GenericPoint` is not here: what it does is known per project only. `RackLeakDetectTray` is not
    here either: nobody acts on it, and false data would mislead.
    """

    SUPPLY = "LiquidTemperatureSpRequest"
    LIQUID = "RackLiquidIsolationRequest"
    ELECTRICAL = "RackElectricalIsolationRequest"
    STATUS = "Status"
    AVAILABLE = "Available"


BEAT = "HeartbeatTimestampIntegration"
ECHO = "HeartbeatEchoIntegration"
OBJECT_TYPE = {
    Asked.SUPPLY: "CDU",
    Asked.LIQUID: "Rack",
    Asked.ELECTRICAL: "Rack",
    Asked.STATUS: "System",
    Asked.AVAILABLE: "System",
}


class Writable(NamedTuple):
    """A point whose value is ours to write, as the BMS described it, and when it said so."""

    key: str
    topic: str
    metadata: PointMetadata
    described_at: datetime


class Namespace:
    """The points whose metadata names our integration."""

    def __init__(self, client: ExchangeClient, integration: str) -> None:
        self._client = client
        self.integration = integration
        self._systems: tuple[int, tuple[str, ...]] | None = None

    def writable(self, asked: Asked, whose: str) -> Writable:
        """The one point that carries this request for a CDU, a rack, or our own readiness.

        Raises:
            UnavailableError: there is none that may be written now, or more than one; says why.
        """
        store = self._client.store
        catalogue = store.catalogue()
        object_type = OBJECT_TYPE[asked]
        if object_type == "System":
            return self._ours(f"our {asked}", self._system(asked))
        if whose in catalogue.conflicts:
            raise UnavailableError(f"two things claim this id: {catalogue.conflicts[whose]}")
        of = catalogue.by_rack if object_type == "Rack" else catalogue.by_object
        found = [
            point
            for point in store.points(of.get(whose, ()))
            if (point.topic.object_type, point.topic.point_type) == (object_type, asked)
        ]
        return self._ours(f"{asked} of {plant_text(whose, 80)}", found)

    def beat(self) -> Writable:
        """Where our own life sign goes.

        Raises:
            UnavailableError: as for any other point.
        """
        return self._ours("our heartbeat", self._system(BEAT))

    def echo(self) -> Writable | None:
        """Where the life sign of the BMS is to be echoed, if its metadata asks for that."""
        found = self._system(ECHO)
        return self._ours("our echo", found) if found else None

    def mine(self) -> list[Point]:
        """Every point that names us."""
        store = self._client.store
        return [p for p in store.points(store.catalogue().keys) if self._is_mine(p)]

    def _system(self, point_type: str) -> list[Point]:
        """Our points of the whole system, of this type; found anew when the catalogue changes."""
        store = self._client.store
        if self._systems is None or self._systems[0] != store.generation:
            generation = store.generation
            keys = [p.topic.key for p in self.mine() if p.topic.object_type == "System"]
            self._systems = generation, tuple(keys)
        found = store.points(self._systems[1])
        return [point for point in found if point.topic.point_type == point_type]

    def _is_mine(self, point: Point) -> bool:
        return point.metadata is not None and point.metadata.integration == self.integration

    def _ours(self, what: str, found: Iterable[Point]) -> Writable:
        points = list(found)
        if len(points) > 1:
            keys = ", ".join(plant_text(point.topic.key, 80) for point in points[:4])
            raise UnavailableError(f"{len(points)} points could be meant by {what}: {keys}")
        if not points:
            raise UnavailableError(f"no metadata of the BMS describes {what}")
        (point,) = points
        return self._checked(what, point)

    def _checked(self, what: str, point: Point) -> Writable:
        metadata, topic = point.metadata, point.topic
        if metadata is None or metadata.integration != self.integration:
            owner = None if metadata is None else metadata.integration
            named = plant_text(owner, 80) if owner else "nobody"
            raise UnavailableError(
                f"{what} is written by {named}, as its metadata says, not by {self.integration}"
            )
        if metadata.contradiction is not None:
            raise UnavailableError(f"{what}: {plant_text(metadata.contradiction)}")
        if topic.older:
            raise UnavailableError(f"{what} is described in a grammar that has no topic to write")
        described_on, described_at = self._client.store.described(topic.key)
        if described_at is None:
            raise UnavailableError(
                f"{what}: the BMS has not described it since we listen; what a broker kept may be "
                f"of another time, so wait for the {REPUBLISH_S:g} s in which it says it again"
            )
        age_s = (self._client.now() - described_at).total_seconds()
        if age_s > FRESH_S:
            raise UnavailableError(f"{what} was last described {age_s:.0f} s ago")
        return Writable(
            topic.key, value_topic(described_on, self.integration), metadata, described_at
        )


def value_topic(described_on: str, integration: str) -> str:
    """The topic of a point's value, from the topic of its metadata: the only way there is.

    A prefix `cpc/{id}/` stays; only the two segments of the grammar are changed.

    Raises:
        UnavailableError: it is no topic of metadata of the BMS.
    """
    head, grammar, tail = described_on.partition(f"BMS/v1/{BMS}/Metadata/")
    if not grammar or not tail or (head and not head.startswith("cpc/")):
        raise UnavailableError(f"{plant_text(described_on)} is no topic of the BMS's metadata")
    return f"{head}BMS/v1/{integration}/Value/{tail}"


def value_payload(value: float, now: datetime) -> bytes:
    """The value as the specification has it: milliseconds, and quality 1 as a number."""
    whole = int(value) if float(value).is_integer() else value
    said = {"value": whole, "timestamp": int(now.timestamp() * 1000), "quality": 1}
    return json.dumps(said).encode()


def shown(client: ExchangeClient, found: Iterable[Point]) -> tuple[float | None, datetime | None]:
    """The value and moment of the one point of these that may be believed; None where none may."""
    points = list(found)
    if len(points) != 1:
        return None, None
    (point,) = points
    good = point.state(client.now(), FRESH_S) is PointState.GOOD
    if not good or point.latest is None:
        return None, None
    return point.latest.value, point.latest.measured_at


def target_of(client: ExchangeClient, asked: PointMetadata) -> list[Point]:
    """The points that show what a CDU's supply is controlled to: same object, same process area."""
    return _temperatures(client, asked, is_setpoint=True)


def measured_of(client: ExchangeClient, asked: PointMetadata) -> list[Point]:
    """The points that show what it is."""
    return _temperatures(client, asked, is_setpoint=False)


def _temperatures(
    client: ExchangeClient, asked: PointMetadata, *, is_setpoint: bool
) -> list[Point]:
    store = client.store
    keys = store.catalogue().by_object.get(asked.object_id or "", ())
    return [
        point
        for point in store.points(keys)
        if point.topic.point_type == "LiquidTemperature"
        and point.metadata is not None
        and point.metadata.is_setpoint is is_setpoint
        and point.metadata.process_area == asked.process_area
        and point.metadata.integration is None
    ]
