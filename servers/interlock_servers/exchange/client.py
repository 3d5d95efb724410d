"""Reading DSX Exchange: one connection, one store, and typed answers out of it.

It only listens. Nothing here can publish to the bus.
"""

from collections.abc import Iterable
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

from interlock_servers.exchange.columns import Wanted
from interlock_servers.exchange.events import Event, EventKind
from interlock_servers.exchange.heartbeats import all_alive, heartbeat
from interlock_servers.exchange.history import Sample
from interlock_servers.exchange.models import OBJECT_TYPES
from interlock_servers.exchange.points import Kept
from interlock_servers.exchange.readings import (
    BusState,
    Heartbeats,
    Ingest,
    Meter,
    MeterKind,
    Node,
    PointPage,
    Power,
    PowerAnswer,
    Rack,
    Topology,
    power,
    reading,
)
from interlock_servers.exchange.safety import Safety, safety
from interlock_servers.exchange.search import belongs_to, search
from interlock_servers.exchange.settings import ExchangeSettings
from interlock_servers.exchange.store import (
    Catalogue,
    PointState,
    PointStore,
)
from interlock_servers.exchange.tap import Collected, Taps
from interlock_servers.exchange.topics import matches
from interlock_servers.exchange.topology import MAX_NODES, walk
from interlock_servers.transports.mqtt import Message, MqttBus, check_filter
from interlock_tools.clock import Clock
from interlock_tools.errors import InvalidRequestError, NotFoundError

MAX_PAGE = 500


class ExchangeClient:
    """The bus as a set of reads that always answer: with the last that is known, and its age.

    Reads look at what was heard and never wait for the network; when the broker is gone they
    say since when.
    """

    def __init__(self, settings: ExchangeSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._store = PointStore(settings.compatibility, settings.max_points, settings.max_samples)
        self._taps = Taps()
        self._bus = MqttBus(
            settings.mqtt,
            clock,
            self.hear,
            subscriptions=settings.subscriptions(),
            on_change=self._tell_bus,
        )
        self._started_at = clock.now()

    async def __aenter__(self) -> Self:
        """Start listening; it does not wait for a broker.

        Raises:
            InvalidRequestError: a secret or a certificate that the settings name is not there.
        """
        self._started_at = self._clock.now()
        await self._bus.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening; what was heard stays readable."""
        await self._bus.__aexit__(kind, error, traceback)

    async def wait_connected(self, timeout_s: float) -> None:
        """Return once a broker has accepted us and our subscriptions.

        Raises:
            UnavailableError: none did in time.
        """
        await self._bus.wait_connected(timeout_s)

    @property
    def site_id(self) -> str:
        """The site whose bus this is."""
        return self._settings.site_id

    def now(self) -> datetime:
        """This moment, by the one clock."""
        return self._clock.now()

    @property
    def store(self) -> PointStore:
        """What was heard."""
        return self._store

    def bus_state(self) -> BusState:
        """Whether we hear the bus at this moment."""
        connected, broker = self._bus.connected, self._bus.broker
        heard_at = self._store.last_message_at or self._started_at
        return BusState(
            connected=connected,
            broker=broker,
            stale_since=None if connected else heard_at,
            last_error=self._bus.last_error,
        )

    def points(
        self,
        *,
        object_type: str | None = None,
        point_type: str | None = None,
        object_id: str | None = None,
        rack_location_id: str | None = None,
        state: PointState | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> PointPage:
        """The points that match every filter given, in the order of their keys.

        Args:
            object_type: one of the 23 of the specification.
            point_type: such as `RackPower`.
            object_id: points of this object.
            rack_location_id: points of this rack.
            state: points whose last reading is so.
            limit: how many at most, 1 to 500.
            cursor: `next_cursor` of the page before.

        Raises:
            InvalidRequestError: a limit out of range or an object type that does not exist.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidRequestError(f"limit must be 1 to {MAX_PAGE}, not {limit}")
        if object_type is not None and object_type not in OBJECT_TYPES:
            raise InvalidRequestError(
                f"object_type {object_type!r} is none of {', '.join(sorted(OBJECT_TYPES))}"
            )
        now, fresh_s = self._clock.now(), self._settings.fresh_s

        wanted = Wanted(object_type, point_type, state, now, fresh_s)
        found = search(self._store, wanted, object_id, rack_location_id, cursor, limit)
        page = tuple(reading(point, now, self._settings.fresh_s) for point in found[:limit])
        more = page[-1].key if len(found) > limit else None
        bus = self.bus_state()
        return PointPage(observed_at=_heard(bus, now), bus=bus, points=page, next_cursor=more)

    def point(self, key: str) -> PointPage:
        """One point, as a page of its own.

        Raises:
            NotFoundError: nothing was ever heard of it.
        """
        now, bus, found = self._clock.now(), self.bus_state(), self._store.points([key])
        if not found:
            raise NotFoundError(f"no point on the bus has the key {key!r}; list_points has keys")
        page = tuple(reading(point, now, self._settings.fresh_s) for point in found)
        return PointPage(observed_at=_heard(bus, now), bus=bus, points=page, next_cursor=None)

    def marks(self, keys: Iterable[str]) -> tuple[tuple[str, PointState, float | None], ...]:
        """Each point's state and last value: equal while neither moves, however old they grow."""
        now, fresh_s = self._clock.now(), self._settings.fresh_s
        return tuple(
            (p.topic.key, p.state(now, fresh_s), None if p.latest is None else p.latest.value)
            for p in self._store.points(keys)
        )

    def rack(self, rack_location_id: str) -> Rack:
        """Everything that the bus says of one rack location.

        Raises:
            NotFoundError: no metadata names it.
        """
        catalogue, now, bus = self._store.catalogue(), self._clock.now(), self.bus_state()
        found = self._store.points(catalogue.by_rack.get(rack_location_id, ()))
        if not found:
            raise NotFoundError(
                f"no point on the bus belongs to rack {rack_location_id!r}; site_power lists racks"
            )
        names = (p.metadata.rack_location_name for p in found if p.metadata)
        return Rack(
            observed_at=_heard(bus, now),
            bus=bus,
            rack_location_id=rack_location_id,
            name=next((name for name in names if name), None),
            power=self._power("rack", rack_location_id, catalogue, now),
            points=tuple(reading(point, now, self._settings.fresh_s) for point in found),
            served_by=catalogue.served_by.get(rack_location_id, ()),
        )

    def meter(self, object_id: str) -> Meter:
        """Everything that the bus says of one meter or piece of equipment.

        Raises:
            NotFoundError: no metadata names it.
        """
        catalogue, now, bus = self._store.catalogue(), self._clock.now(), self.bus_state()
        found = self._store.points(catalogue.by_object.get(object_id, ()))
        if not found:
            raise NotFoundError(f"no point on the bus belongs to object {object_id!r}")
        names = (p.metadata.object_name for p in found if p.metadata)
        return Meter(
            observed_at=_heard(bus, now),
            bus=bus,
            object_id=object_id,
            name=next((name for name in names if name), None),
            points=tuple(reading(point, now, self._settings.fresh_s) for point in found),
            serves=catalogue.serves.get(object_id, ()),
            served_by=catalogue.served_by.get(object_id, ()),
        )

    def power(self, kind: MeterKind, subject_id: str) -> PowerAnswer:
        """The power of a site, feed, PDU or rack in watts, or why it is not known.

        Raises:
            InvalidRequestError: another kind, or a site that this bus does not carry.
        """
        if kind not in {"site", "feed", "pdu", "rack"}:
            raise InvalidRequestError(f"kind must be site, feed, pdu or rack, not {kind!r}")
        if kind == "site" and subject_id != self.site_id:
            raise InvalidRequestError(f"this bus carries site {self.site_id}, not {subject_id!r}")
        catalogue, now, bus = self._store.catalogue(), self._clock.now(), self.bus_state()
        found = self._power(kind, subject_id, catalogue, now)
        return PowerAnswer(observed_at=_heard(bus, now), bus=bus, power=found)

    def topology(
        self, start_id: str, direction: Literal["down", "up"] = "down", limit: int = MAX_NODES
    ) -> Topology:
        """What an object serves, or by what it is served, step by step to the end.

        Down, each node says whether it is lost with the start: whether nothing else serves it. A
        point's key stands for the thing that the point belongs to, such as a breaker's meter.

        Raises:
            InvalidRequestError: a direction or limit that does not exist.
            NotFoundError: no metadata names the object, neither as itself nor as served.
        """
        if direction not in {"down", "up"} or not 1 <= limit <= MAX_NODES:
            raise InvalidRequestError(f"direction is down or up, limit 1 to {MAX_NODES}")
        catalogue, now, bus = self._store.catalogue(), self._clock.now(), self.bus_state()
        start = belongs_to(self._store, start_id)
        if self._kind(start, catalogue) == "unknown" and start not in catalogue.served_by:
            raise NotFoundError(
                f"nothing on the bus is called {start_id!r}; site_power lists meters and racks"
            )
        reached = walk(catalogue, start, direction, limit)
        return Topology(
            observed_at=_heard(bus, now),
            bus=bus,
            id=start,
            direction=direction,
            nodes=tuple(
                Node(
                    id=name,
                    kind=self._kind(name, catalogue),
                    distance=steps,
                    lost=None if reached.lost is None else name in reached.lost,
                )
                for name, steps in reached.distance.items()
            ),
            edges=reached.edges,
            truncated=reached.truncated,
            warnings=reached.warnings,
        )

    def heartbeats(self) -> Heartbeats:
        """Every life sign on the bus; the BMS lives when each of its clients gives one."""
        now, bus = self._clock.now(), self.bus_state()
        found = self._store.points(self._store.catalogue().heartbeats)
        beats = tuple(heartbeat(point, now) for point in found)
        alive, why = all_alive([beat for beat in beats if beat.kind == "bms"])
        if not bus.connected and alive is False:
            alive, why = None, "the bus is not heard, so silence says nothing about the BMS"
        return Heartbeats(
            observed_at=_heard(bus, now), bus=bus, bms_alive=alive, why=why, beats=beats
        )

    def ingest(self) -> Ingest:
        """What came in since the start, what was rejected and which liberties were taken."""
        now, bus = self._clock.now(), self.bus_state()
        return Ingest(
            observed_at=_heard(bus, now),
            bus=bus,
            points=len(self._store),
            accepted=self._store.accepted,
            rejected=self._store.rejected,
            deviations=self._store.deviations,
        )

    def history(self, key: str) -> list[Sample]:
        """What the owner of a point said lately, oldest first.

        Raises:
            NotFoundError: nothing was ever heard of it.
        """
        self.point(key)
        return self._store.samples(key)

    def safety(self, rack_id: str | None = None) -> tuple[Safety, ...]:
        """Leaks and isolation of one rack, or of every rack and all equipment that can leak."""
        return safety(self._store, self._clock.now(), self._settings.fresh_s, rack_id)

    def events(self) -> list[Event]:
        """What happened lately, newest first."""
        return self._store.events.newest_first()

    def retained(self, topic_filter: str, limit: int) -> tuple[list[Kept], bool]:
        """Metadata as it came on topics that the filter takes, and whether there is more.

        Raises:
            InvalidRequestError: no filter that a broker would understand.
        """
        check_filter(topic_filter)
        found = self._store.retained(lambda topic: matches(topic_filter, topic), limit)
        return found[:limit], len(found) > limit

    async def listen(
        self, topic_filter: str, max_messages: int, max_duration_s: float
    ) -> Collected:
        """Messages as they come, of the topics that the filter takes and that we subscribe to.

        Raises:
            InvalidRequestError: no filter that a broker would understand.
        """
        check_filter(topic_filter)
        return await self._taps.collect(topic_filter, max_messages, max_duration_s)

    def subscriptions(self) -> tuple[str, ...]:
        """The filters that we listen to."""
        return tuple(topic_filter for topic_filter, _ in self._settings.subscriptions())

    def _tell_bus(self, broker: str | None) -> None:
        said = "connected" if broker else "lost"
        self._store.events.add(EventKind.BUS, broker or "bus", None, said, self._clock.now())

    def hear(self, message: Message) -> None:
        """Take one message in, as the thread of the network does. Never raises."""
        self._taps.pass_on(message)
        self._store.ingest(
            message.topic, message.payload, message.received_at, retained=message.retained
        )

    def _power(
        self, kind: MeterKind, subject_id: str, catalogue: Catalogue, now: datetime
    ) -> Power:
        if kind == "rack":
            keys, point = catalogue.by_rack.get(subject_id, ()), ("Rack", "RackPower")
        else:
            keys, point = catalogue.by_object.get(subject_id, ()), ("PowerMeter", "ActivePower")
        found = [
            p
            for p in self._store.points(keys)
            if (p.topic.object_type, p.topic.point_type) == point
            and p.metadata is not None
            and not p.metadata.is_setpoint
        ]
        return power(kind, subject_id, found, now, self._settings.fresh_s)

    def _kind(
        self, name: str, catalogue: Catalogue
    ) -> Literal["meter", "equipment", "rack", "unknown"]:
        points = self._store.points(catalogue.by_object.get(name, ()))
        if any(point.topic.object_type == "PowerMeter" for point in points):
            return "meter"
        if points:
            return "equipment"
        return "rack" if name in catalogue.by_rack else "unknown"


def _heard(bus: BusState, now: datetime) -> datetime:
    return bus.stale_since or now
