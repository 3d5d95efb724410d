"""Points and machines: each message goes to a reader and to the oracle, which must agree."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

from interlock_evals.chaos.bus.facility import Facility
from interlock_evals.chaos.bus.found import Found
from interlock_evals.chaos.bus.oracle import Oracle, Verdict
from interlock_evals.chaos.bus.others import Others
from interlock_evals.chaos.bus.readings import Readings
from interlock_evals.chaos.bus.shots import Machine, Shot
from interlock_servers.exchange.catalogue import Catalogue
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.points import PointState
from interlock_servers.exchange.readings import Reading, reading
from interlock_servers.exchange.settings import ExchangeSettings
from interlock_servers.transports.mqtt import Message, MqttSettings
from interlock_tools.clock import ManualClock
from interlock_tools.errors import FactoryError

START = datetime(2026, 9, 1, tzinfo=UTC)
POINTS, MAX_POINTS = 200, 600
FRESH_S = 250.0
STEP_MS, PAUSE_MS = 60, 200_000  # between messages, and now and then
WALK_EVERY = 2_000
SHARES = {"value": 70, "metadata": 16, "topic": 5, "noise": 3, "machine": 6}


def settings_of(max_points: int = MAX_POINTS) -> ExchangeSettings:
    """A reader of everything, on a bus that is not there."""
    mqtt = MqttSettings(brokers=("mqtt://127.0.0.1:1",), client_id="chaos-bus")
    return ExchangeSettings(
        mqtt=mqtt, site_id="thing-0", clusters=True, nico=True, max_points=max_points
    )


class PointRun:
    """A reader, an oracle and all that they are told; everything follows from the seed."""

    def __init__(self, seed: int, reader: type[ExchangeClient] = ExchangeClient) -> None:
        self._chance = random.Random(f"points/{seed}")  # noqa: S311 - repeatable, not secret
        self.clock = ManualClock(START)
        self.reader = reader(settings_of(), self.clock)
        self.oracle = Oracle(MAX_POINTS)
        self._facility = Facility(self._chance, POINTS)
        self._readings = Readings(self._chance, self._facility)
        self._others = Others(self._chance, self._facility)
        self._now_ms = int(START.timestamp()) * 1000
        self._refused: Counter[str] = Counter()
        self.found = Found()

    def run(self, messages: int) -> Found:
        """Send so many messages more; what was found since the start."""
        if not self.found.total:
            for shot in self._facility.describe_all():
                self._send(shot)
        kinds, weights = tuple(SHARES), tuple(SHARES.values())
        for number in range(messages):
            self._wait(PAUSE_MS if self._chance.random() < 1e-4 else STEP_MS)
            (kind,) = self._chance.choices(kinds, weights)
            self._send(self._shot(kind))
            if number % WALK_EVERY == 0:
                self._walk()
        return self.found

    def _shot(self, kind: str) -> Shot:
        match kind:
            case "value":
                return self._readings.say(self._now_ms)
            case "metadata":
                return self._facility.describe()
            case "machine":
                return self._others.machine(self._now_ms)
            case "topic":
                return self._others.topic(self._now_ms)
            case _:
                return self._others.noise(self._now_ms)

    def _wait(self, most_ms: int) -> None:
        wait_ms = self._chance.randrange(most_ms)
        self._now_ms += wait_ms
        self.clock.advance(timedelta(milliseconds=wait_ms) / timedelta(seconds=1))

    def _send(self, shot: Shot) -> None:
        self.found.messages[shot.kind] += 1
        store = self.reader.store
        before = store.accepted + store.others
        now = self.clock.now()
        try:
            self.reader.hear(Message(shot.topic, shot.payload, shot.retained, 0, now))
        except Exception as error:  # what must never be is what is sought
            self.found.note("crashes", f"{error!r} on {_said(shot)}")
            return
        verdict = self.oracle.hear(shot, self._now_ms)
        self._judge(shot, verdict, store.accepted + store.others - before)
        if (key := getattr(shot.meant, "key", None)) is not None:
            self._compare(key, shot)
        self._compare(self._chance.choice(self._facility.points).key, shot)
        if isinstance(shot.meant, Machine):
            self._compare_machine(shot.meant.machine_id, shot)

    def _judge(self, shot: Shot, verdict: Verdict, taken: int) -> None:
        """Whether the message was taken where it must be, and otherwise refused by a right name."""
        refused = Counter({name: one.times for name, one in self.reader.store.rejected.items()})
        named = refused - self._refused
        self._refused = refused
        self.found.taken += taken
        self.found.rejected.update(named)
        if taken + named.total() != 1:
            self.found.note(
                "unnamed", f"counted {taken} times and refused as {dict(named)}: {_said(shot)}"
            )
        elif bool(taken) is not verdict.taken:
            self.found.note("misjudged", f"{dict(named) or 'taken'}, not {verdict}: {_said(shot)}")
        elif not taken and not named.keys() <= verdict.reasons:
            self.found.note("unnamed", f"{dict(named)}, not {verdict}: {_said(shot)}")

    def _compare(self, key: str, shot: Shot) -> None:
        """Whether exactly what must be shown of a point is shown of it."""
        point, must = self.reader.store.point(key), self.oracle.shown(key, self._now_ms)
        if point is None:
            if must.number is not None:
                self.found.note("wrong", f"{key} is unknown, not {must}, after {_said(shot)}")
            return
        seen = reading(point, self.clock.now(), FRESH_S)
        self.found.shown += seen.value is not None
        if must.either and seen.value is None:
            return
        if (seen.value, seen.state is PointState.GOOD) != (must.number, must.number is not None):
            self.found.note(
                "wrong", f"{seen.value} ({seen.state}), not {must}, after {_said(shot)}"
            )
        elif seen.value is None:
            if not seen.why:
                self.found.note(
                    "wrong", f"{key} shows nothing and says no why, after {_said(shot)}"
                )
        elif not self._is_told_rightly(seen, must.unit, must.label, must.at_ms):
            self.found.note("wrong", f"{seen} is not {must}, after {_said(shot)}")

    def _is_told_rightly(
        self, seen: Reading, unit: str | None, label: str | None, at_ms: int
    ) -> bool:
        """Whether unit, text and age of a good value are those of that value."""
        age_s = (self._now_ms - at_ms) / 1000
        return (
            (seen.unit, seen.label) == (unit, label)
            and seen.age_s is not None
            and abs(seen.age_s - age_s) < 1e-3
        )

    def _compare_machine(self, machine_id: str, shot: Shot) -> None:
        found = self.reader.store.machines.machine(machine_id)
        state = None if found is None else found.state
        if state != (must := self.oracle.machine(machine_id)):
            self.found.note(
                "wrong", f"{machine_id} is {state!r}, not {must!r}, after {_said(shot)}"
            )

    def _walk(self) -> None:
        """Ask everything that somebody may ask, and hold the answers against each other."""
        try:
            self._search()
            known = self.reader.store.catalogue()
            self._relate(known)
            for name in sorted({*known.by_object, *known.by_rack, *known.served_by})[:20]:
                self.reader.topology(name)
                self.reader.topology(name, "up")
                self.reader.power("pdu", name)
            for rack in sorted(known.by_rack)[:5]:
                self.reader.rack(rack)
            for key in self._chance.sample(known.keys, 5):
                self.reader.history(key)
            self.reader.safety()
            self.reader.heartbeats()
            self.reader.events()
            self.reader.retained("BMS/v1/PUB/Metadata/Rack/#", 50)
        except FactoryError as error:
            self.found.note("wrong", f"a question that can be answered was refused: {error}")
        except Exception as error:
            self.found.note("crashes", f"{error!r} on a question")

    def _relate(self, known: Catalogue) -> None:
        """What belongs to whom, and what serves what, is what was said last."""
        seen = {
            "rack": known.by_rack,
            "thing": known.by_object,
            "part_of": known.associated,
            "serves": known.serves,
            "served_by": known.served_by,
        }
        for name, must in self.oracle.relations().items():
            if {whose: set(members) for whose, members in seen[name].items()} != must:
                self.found.note("wrong", f"the catalogue has other relations of {name}")

    def _search(self) -> None:
        """Page by page, every state: together they are all points, each of them once."""
        seen: Counter[str] = Counter()
        for state in PointState:
            cursor = None
            while True:
                page = self.reader.points(state=state, limit=97, cursor=cursor)
                for one in page.points:
                    seen[one.key] += 1
                    if one.state is not state:
                        self.found.note("wrong", f"{one.key} is {one.state} among {state}")
                    must = self.oracle.shown(one.key, self._now_ms)
                    if one.value != must.number and not must.either:
                        self.found.note("wrong", f"a page shows {one.value}, not {must}")
                if (cursor := page.next_cursor) is None:
                    break
        if set(seen) != set(self.reader.store.catalogue().keys) or seen.total() != len(seen):
            self.found.note("wrong", f"{len(seen)} points were found in {seen.total()} places")
        if len(seen) != len(self.oracle):
            self.found.note("wrong", f"{len(seen)} points, not {len(self.oracle)}")


def _said(shot: Shot) -> str:
    return f"{shot.kind} {shot.topic[:90]!r} {shot.payload[:160]!r} retained={shot.retained}"
