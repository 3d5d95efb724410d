"""Lies, floods and poison over many messages: no crash, and no wrong value that is shown as good.

A slice of it; `INTERLOCK_FUZZ_EXAMPLES` asks for more.
"""

import os
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock_servers.exchange.events import MAX_EVENTS
from interlock_servers.exchange.grammar import BMS_POINTS
from interlock_servers.exchange.models import Compatibility
from interlock_servers.exchange.others import MACHINE_STATES
from interlock_servers.exchange.points import AHEAD_S
from interlock_servers.exchange.readings import reading
from interlock_servers.exchange.reasons import Reason
from interlock_servers.exchange.store import FRESH_S, PointState, PointStore
from interlock_servers.exchange.topics import matches, parse_other
from tests.servers.exchange.hall import START, Hall

EXAMPLES = int(os.environ.get("INTERLOCK_FUZZ_EXAMPLES", "150"))
OLDER = Compatibility(old_topics=True, old_rack_names=True)
TAILS = ("Rack/RackPower/a", "CDU/LiquidTemperature/a", "PowerMeter/ActivePower/a")
UNITS = ("kW", "W", "C", "F", "")

METER = TAILS[2]
BEGINNING: tuple[tuple[Any, ...], ...] = (
    ("describe", METER, {"engUnit": "kW", "objectId": "a"}, False),
    ("say", METER, "PUB", 47),
)

ids = st.sampled_from(["a", "b", "c"])
meanings = st.fixed_dictionaries(
    {"engUnit": st.sampled_from(UNITS), "objectId": ids},
    optional={
        "servesId": st.lists(ids, max_size=3),
        "associateId": ids,
        "isSetpoint": st.booleans(),
        "rackLocationId": ids,
        "integration": st.sampled_from(["PUB", "NICO"]),
    },
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("describe"), st.sampled_from(TAILS), meanings, st.booleans()),
        st.tuples(
            st.just("say"),
            st.sampled_from(TAILS),
            st.sampled_from(["PUB", "NICO"]),
            st.integers(0, 99),
        ),
        st.tuples(st.just("say_badly"), st.sampled_from(TAILS), st.binary(max_size=40)),
        st.tuples(st.just("withdraw"), st.sampled_from(TAILS)),
        st.tuples(st.just("wait"), st.integers(1, 400)),
    ),
    max_size=25,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(steps)
def test_a_good_value_is_what_its_owner_said_last_under_the_meaning_that_is_shown(
    story: list[tuple[Any, ...]],
) -> None:
    """Held against a reader of a few lines that only knows what a value must have met."""
    hall = Hall()
    meaning: dict[str, tuple[object, ...]] = {}
    said: dict[tuple[str, str], tuple[int, tuple[object, ...] | None]] = {}
    for step in (*BEGINNING, *story):
        match step:
            case ("describe", tail, fields, retained):
                object_type, point_type, _ = tail.split("/")
                document = {"objectType": object_type, "pointType": point_type, **fields}
                before = hall.store.point(tail)
                hall.hear(f"BMS/v1/PUB/Metadata/{tail}", document, retained=retained)
                after = hall.store.point(tail)
                if after is not None and after.metadata is not None:
                    known = None if before is None else before.metadata
                    if known is not after.metadata:
                        meaning[tail] = after.metadata.meaning
            case ("say", tail, publisher, number):
                if hall.say(tail, number, by=publisher):
                    said[tail, publisher] = (number, meaning.get(tail))
            case ("say_badly", tail, payload):
                hall.hear(f"BMS/v1/PUB/Value/{tail}", payload)
            case ("withdraw", tail):
                hall.hear(f"BMS/v1/PUB/Metadata/{tail}", b"")
            case ("wait", seconds):
                hall.clock.advance(seconds)
    for tail in TAILS:
        point = hall.store.point(tail)
        if point is None:
            continue
        seen = reading(point, hall.clock.now(), FRESH_S)
        if seen.value is None:
            assert seen.why
            continue
        number, under = said[tail, seen.publisher]
        assert seen.value == number
        assert under in {None, meaning[tail]}
        fixed = {"RackPower": "kW", "LiquidTemperature": "C"}.get(seen.point_type)
        assert fixed in {None, seen.unit}
    for start in ("a", "b", "c"):
        ways = hall.store.catalogue()
        if start in ways.by_object or start in ways.by_rack or start in ways.served_by:
            hall.client.topology(start)
            hall.client.topology(start, "up")
    hall.client.safety()


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.dictionaries(ids, st.lists(ids, max_size=3)), ids)
def test_any_relations_are_walked_to_an_end_and_only_what_is_served_is_lost(
    serves: dict[str, list[str]], start: str
) -> None:
    """Circles, an object that serves itself, and things that nobody describes."""
    hall = Hall()
    for name, served in serves.items():
        hall.meter(name, served)
    known = hall.store.catalogue()
    if start not in known.by_object and start not in known.served_by:
        return
    found = hall.client.topology(start)
    reached = {node.id for node in found.nodes}
    expected = {start}
    for _ in range(4):
        expected |= {one for name in expected for one in serves.get(name, ())}
    assert reached == expected
    assert start in {node.id for node in found.nodes if node.lost}


words = st.text(max_size=12) | st.sampled_from(["BMS", "v1", "NICO", "machine", "state", "grid"])
levels = st.lists(words | st.sampled_from(["cpc", "+", "#", "Value", "Metadata"]), max_size=9)


@settings(max_examples=EXAMPLES, deadline=None)
@given(levels.map("/".join), st.binary(max_size=80), st.booleans())
def test_no_topic_of_any_space_breaks_the_store(topic: str, payload: bytes, retained: bool) -> None:
    """With every liberty allowed: taken or refused with a name, and counted once."""
    store = PointStore(OLDER)
    taken = store.ingest(topic, payload, START, retained=retained)
    refused = store.rejected
    assert store.accepted + store.others + sum(one.times for one in refused.values()) == 1
    assert taken is not bool(refused)
    assert set(refused) <= set(Reason)
    matches("#", topic)
    parse_other(topic)


nico = st.fixed_dictionaries(
    {
        "machine_id": st.sampled_from(["m", "n", "", None, 1]),
        "managed_host_state": st.fixed_dictionaries(
            {"state": st.sampled_from([*sorted(MACHINE_STATES)[:3], "x", "", None, 1, "\u202e"])}
        )
        | st.none()
        | st.text(max_size=3),
        "timestamp": st.sampled_from(
            ["2026-09-01T00:00:00Z", "2026-09-01", "", None, 1, "0001-01-01T00:00:00+14:00"]
        ),
    }
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(nico, max_size=4))
def test_no_machine_state_breaks_the_store_or_is_shown_as_one_that_we_know(
    messages: list[dict[str, Any]],
) -> None:
    """What is known is in the specification, and of the machine of the topic."""
    hall = Hall()
    for message in messages:
        hall.hear("NICO/v1/machine/m/state", message)
    machine = hall.store.machines.machine("m")
    if machine is not None:
        assert machine.state in MACHINE_STATES | {None}
        assert machine.says.isprintable()


# Floods and poison


def test_a_flood_of_points_publishers_machines_and_events_stays_within_its_bounds() -> None:
    """Memory is bounded by settings, and what was known goes on."""
    hall = Hall(max_points=50, max_samples=200)
    tail = hall.rack("r0", "RackLeakDetect", 0)
    for number in range(3000):
        hall.clock.advance(0.01)
        hall.say(f"CDU/Status/x/{number}", number)
        hall.say(tail, number % 2, by=f"i{number % 40}")
        hall.say(tail, number % 2)
        hall.describe_or_not(f"Rack/RackPower/x/{number}")
    assert len(hall.store) == 50
    assert hall.store.rejected["store_full"].times > 2000
    assert len(hall.client.events()) <= MAX_EVENTS
    assert sum(len(hall.store.samples(key)) for key in hall.store.catalogue().keys) <= 200
    point = hall.store.point(tail)
    assert point is not None
    assert point.state(hall.clock.now()) is PointState.GOOD
    assert len(point.foreign) < 8


@pytest.mark.trap("EX-R16")
@pytest.mark.parametrize("retained", [True, False])
@pytest.mark.parametrize(
    "poison",
    [
        {"value": 1, "timestamp": 1, "quality": 1},
        {"value": 1, "timestamp": 99_999_999_999_999, "quality": 1},
        {"value": 1e308, "timestamp": 10**11, "quality": 1},
        {"value": 1, "timestamp": 1743620423000, "quality": 2**80},
        {"value": 2**62, "timestamp": 1743620423000, "quality": 1.0},
    ],
)
def test_a_poisoned_value_never_shows_and_does_not_lock_the_point(
    poison: dict[str, Any], retained: bool
) -> None:
    """One of the far future must not make every true one `out of order`."""
    hall = Hall()
    tail = hall.describe("Rack/RackPower/x/r1", rackLocationId="r1")
    topic = f"BMS/v1/PUB/Value/{tail}"
    hall.hear(topic, poison, retained=retained)
    point = hall.store.point(tail)
    assert point is not None
    assert point.state(hall.clock.now()) is not PointState.GOOD
    assert hall.say(tail, 12)
    assert hall.client.point(tail).points[0].value == 12.0


def test_every_point_of_the_grammar_can_be_described_said_and_read() -> None:
    """All types of all 23 objects, with the cluster's prefix and without."""
    hall = Hall(clusters=True)
    for object_type, point_types in BMS_POINTS.items():
        for point_type in point_types:
            tail = f"{object_type}/{point_type}/x"
            hall.describe(tail, rackLocationId="r", objectId="o")
            hall.say(tail, 1)
            assert hall.client.point(tail).points[0].value == 1.0, tail
    later = hall.clock.now() + timedelta(seconds=-AHEAD_S - 1)
    some = hall.store.point("Rack/RackPower/x")
    assert some is not None
    assert some.state(later) is PointState.CLOCK_AHEAD
