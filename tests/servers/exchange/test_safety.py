"""Leaks, isolation, what happened and what was: as far as the bus may be believed."""

from datetime import timedelta

import pytest

from interlock_guardrails.facts import FactRegistry
from interlock_servers.exchange.events import MAX_EVENTS, MAX_OF_ONE, EventKind, EventRing
from interlock_servers.exchange.facts import ExchangeFacts
from interlock_servers.exchange.history import Budget, Ring
from interlock_servers.exchange.safety import Safety
from interlock_servers.exchange.store import PointState
from interlock_tools.fact import Fact, FactNeed, Unknown
from interlock_tools.identity import Target
from tests.servers.exchange.hall import START, Hall, two_feeds


def rack(hall: Hall, name: str = "r1") -> Safety:
    """What is known of a rack's safety."""
    return next(one for one in hall.client.safety() if one.id == name)


async def fact(hall: Hall, kind: str, subject: str) -> Fact | Unknown:
    """What the guard is told."""
    target_kind, _, target_id = subject.partition(":")
    need = FactNeed(kind=kind, subject=Target(kind=target_kind, id=target_id), max_age_s=300)
    registry = FactRegistry([ExchangeFacts(hall.client)])
    gathered = await registry.gather([need], hall.clock)
    told: list[Fact | Unknown] = [*gathered.facts, *gathered.unknown]
    return told[0]


# Leaks


@pytest.mark.trap("EX-R30")
@pytest.mark.parametrize(
    ("leak", "fault", "known"),
    [(0, 0, False), (1, 0, True), (0, 1, None), (1, 1, None), (1, None, True), (0, None, None)],
)
def test_a_leak_sensor_at_fault_says_nothing_either_way(
    leak: int, fault: int | None, known: bool | None
) -> None:
    """A fault that cannot be told takes the all-clear away and leaves the alarm."""
    hall = Hall()
    hall.rack("r1", "RackLeakDetect", leak)
    hall.rack("r1", "RackLeakSensorFault", fault)
    found = rack(hall)
    assert found.leak is known
    assert bool(found.why) is (known is None)
    assert found.calm is (known is False)


@pytest.mark.parametrize("quality", [0, 192])
def test_a_leak_of_bad_quality_is_unknown_and_never_dry(quality: int) -> None:
    """Only quality 1 counts, for the all-clear as for the alarm."""
    hall = Hall()
    hall.rack("r1", "RackLeakDetect", 0, quality=quality)
    assert rack(hall).leak is None
    assert "quality" in (rack(hall).why or "")
    assert not rack(hall).calm


@pytest.mark.trap("EX-R29")
def test_the_leak_of_a_tray_is_information_beside_the_rack() -> None:
    """An integration says it; the BMS does nothing about it, and it is no leak of the rack."""
    hall = Hall()
    hall.rack("r1", "RackLeakDetect", 0)
    tail = hall.describe("Rack/RackLeakDetectTray/x/r1", rackLocationId="r1", integration="NICO")
    hall.say(tail, 1, by="NICO")
    assert (rack(hall).leak, rack(hall).tray_leak, rack(hall).calm) == (False, True, False)


@pytest.mark.trap("EX-R28")
def test_a_request_of_minus_one_is_unknown() -> None:
    """-1 is `unknown`, and not `not requested`."""
    hall = Hall()
    texts = {"Unknown": -1, "NoIsolationRequested": 0, "IsolationRequested": 1}
    states = [{"value": number, "text": text} for text, number in texts.items()]
    tail = hall.describe(
        "Rack/RackLiquidIsolationRequest/x/r1",
        rackLocationId="r1",
        integration="NICO",
        stateText=states,
    )
    hall.say(tail, -1, by="NICO")
    assert rack(hall).liquid_requested is None
    hall.say(tail, 1, by="NICO")
    assert rack(hall).liquid_requested is True


@pytest.mark.trap("EX-R27")
def test_what_others_write_about_a_leak_is_not_believed() -> None:
    """The value of a point is its owner's, whoever else may publish it."""
    hall = Hall()
    tail = hall.rack("r1", "RackLeakDetect", 1)
    hall.say(tail, 0, by="NICO")
    assert rack(hall).leak is True


def test_the_leak_of_other_equipment_is_told_in_its_own_words() -> None:
    """No specification says which number is a leak there."""
    hall = Hall()
    states = [{"value": 0, "text": "Nass"}, {"value": 1, "text": "Trocken"}]
    tail = hall.describe("CDU/LeakDetect/x/c", stateText=states, objectId="cdu-1")
    hall.say(tail, 0)
    found = rack(hall, "cdu-1")
    assert (found.kind, found.leak, found.says) == ("equipment", None, "Nass")
    assert not found.calm


# What happened


@pytest.mark.trap("EX-R46")
def test_a_change_of_state_is_an_event_once_however_often_it_is_said() -> None:
    """Repeats, replays and foreign words are no events; a failover has no second effect."""
    hall = Hall()
    tail = hall.rack("r1", "RackLeakDetect", 0)
    hall.clock.advance(1)
    for _ in range(3):
        hall.say(tail, 1)
    hall.say(tail, 0, by="NICO")
    hall.say(tail, 0, quality=0)
    (event,) = hall.client.events()
    assert (event.kind, event.before, event.after) == ("leak", "NoLeak", "Leak")
    assert event.at == START + timedelta(seconds=1)
    assert len(hall.client.history(tail)) == 3  # 0, 1, and the 0 of bad quality


def test_a_point_that_flutters_does_not_push_out_what_else_happened() -> None:
    """It takes its share of places; then the last of them counts."""
    hall = Hall()
    hall.say(hall.rack("r1", "RackLeakDetect", 0), 1)
    tail = hall.rack("r2", "RackLiquidIsolationStatus", 0)
    for number in range(5000):
        hall.clock.advance(0.1)
        hall.say(tail, (number + 1) % 2)
    events = hall.client.events()
    assert len(events) == MAX_OF_ONE + 1
    assert events[0].times == 5000 - MAX_OF_ONE + 1
    assert events[-1].kind is EventKind.LEAK


def test_the_ring_of_events_is_bounded_and_says_what_fell_out() -> None:
    """The newest stay."""
    ring = EventRing()
    for number in range(MAX_EVENTS + 7):
        ring.add(EventKind.STATE, f"p{number}", None, "x", START)
    assert (len(ring), ring.dropped) == (MAX_EVENTS, 7)
    assert ring.newest_first()[0].subject == f"p{MAX_EVENTS + 6}"


def test_the_memory_of_readings_is_of_one_size_and_nobody_loses_to_another() -> None:
    """A point that comes late finds what is left; one that is full goes round in its own."""
    budget, first, second = Budget(10), Ring(), Ring()
    for number in range(8):
        first.add(number, float(number), 1, budget)
    for number in range(5):
        second.add(number, None, 1, budget)
    for number in range(8, 10):
        first.add(number, float(number), 1, budget)
    assert budget.left == 0
    assert [one.timestamp_ms for one in first.samples()] == list(range(2, 10))
    assert [one.timestamp_ms for one in second.samples()] == [3, 4]
    assert not second.samples()[0].good
    first.add(11, 1.0, 2**70 + 1, budget)
    assert not first.samples()[-1].good
    first.clear(budget)
    assert (budget.left, first.samples()) == (8, [])


@pytest.mark.trap("EX-R38")
def test_a_machine_state_that_nobody_knows_is_unknown_and_no_error() -> None:
    """NICo may add states; the message is taken, its state is not."""
    hall = Hall()
    for state in ("ready", "dreaming"):
        hall.clock.advance(1)
        said = {
            "machine_id": "m1",
            "managed_host_state": {"state": state},
            "timestamp": hall.clock.now().isoformat(),
        }
        assert hall.hear("NICO/v1/machine/m1/state", said)
    machine = hall.store.machines.machine("m1")
    assert machine is not None
    assert (machine.state, machine.says) == (None, "dreaming")
    assert "unknown_state" in hall.store.deviations
    assert [e.after for e in hall.client.events()] == ["dreaming"]
    assert not hall.hear("NICO/v1/machine/m2/state", said)
    assert "foreign_subject" in hall.store.rejected


@pytest.mark.trap("EX-R37")
def test_a_message_of_the_grid_is_told_as_unverified_and_holds_nothing() -> None:
    """Whether it is signed is for the flex component to say."""
    hall = Hall()
    said = {"type": "grid.loadtarget.set.v1", "source": "//grid/v1/isv/acme", "data": {"x": 1}}
    assert hall.hear("grid/v1/isv/acme/loadtarget/set", said)
    assert not hall.hear("grid/v1/isv/other/loadtarget/set", said)
    (event,) = hall.client.events()
    assert event.after == "grid.loadtarget.set.v1, unverified"


# What the guard is told


async def test_the_guard_is_told_heat_flow_leak_isolation_feeds_and_age() -> None:
    """Each of the oldest reading in it."""
    hall = two_feeds()
    hall.rack("r1", "RackLiquidSupplyTemperature", 30.5)
    hall.clock.advance(20)
    hall.beat()
    hall.rack("r1", "RackLiquidReturnTemperature", 44.0)
    hall.rack("r1", "RackLiquidFlow", 80.0)
    hall.rack("r1", "RackLeakDetect", 0)
    hall.rack("r1", "RackLeakSensorFault", 0)
    hall.rack("r1", "RackLiquidIsolationStatus", 1)
    heat = await fact(hall, "rack.temperature", "rack:r1")
    assert isinstance(heat, Fact)
    assert heat.value == {"supply_c": 30.5, "return_c": 44.0}
    assert heat.observed_at == START
    for kind, value in (
        ("rack.flow", {"flow_lpm": 80.0}),
        ("rack.leak", {"leak": False, "sensor_fault": False}),
        ("rack.isolation", {"liquid": True}),
        ("rack.feeds", {"feeds": ["feed-a", "feed-b"]}),
    ):
        told = await fact(hall, kind, "rack:r1")
        assert isinstance(told, Fact), told
        assert told.value == value
    age = await fact(hall, "point.age", "point:Rack/RackLiquidSupplyTemperature/x/r1")
    assert isinstance(age, Fact)
    assert age.value == {"age_s": 20.0}


@pytest.mark.trap("EX-R33")
async def test_the_guard_is_told_nothing_of_racks_while_the_bms_may_be_dead() -> None:
    """Old and unchanged look the same."""
    hall = two_feeds()
    hall.rack("r1", "RackLiquidFlow", 80.0)
    assert isinstance(await fact(hall, "rack.flow", "rack:r1"), Fact)
    hall.clock.advance(31)
    told = await fact(hall, "rack.flow", "rack:r1")
    assert isinstance(told, Unknown)
    assert "alive" in told.why


@pytest.mark.trap("EX-R22")
@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        ("rack.flow", "rack:R1"),
        ("rack.flow", "rack:r9"),
        ("rack.flow", "node:r1"),
        ("rack.temperature", "rack:r1"),
        ("rack.leak", "rack:r1"),
        ("rack.isolation", "rack:r1"),
        ("point.age", "point:x"),
    ],
)
async def test_what_the_bus_does_not_say_is_unknown_to_the_guard(kind: str, subject: str) -> None:
    """The id of a rack is exact: no case, no guess."""
    told = await fact(two_feeds(), kind, subject)
    assert isinstance(told, Unknown)
    assert told.why


async def test_what_two_things_claim_is_unknown_to_the_guard_and_a_missing_name_is_no_claim() -> (
    None
):
    """Whose power would it be? A point that gives no name belongs to whoever has one."""
    hall = two_feeds()
    hall.describe("Rack/RackLiquidFlow/x/r1", rackLocationId="r1")
    assert hall.store.catalogue().conflicts == {}
    assert isinstance(await fact(hall, "meter.power", "rack:r1"), Fact)
    hall.describe("Rack/RackLiquidFlow/y/r1", rackLocationId="r1", rackLocationName="other")
    told = await fact(hall, "meter.power", "rack:r1")
    assert isinstance(told, Unknown)
    assert "two things claim" in told.why


@pytest.mark.trap("EX-R23")
async def test_a_setpoint_is_no_reading() -> None:
    """A target of 20 kW is not a power of 20 kW."""
    hall = two_feeds()
    tail = "PowerMeter/ActivePower/x/target"
    hall.describe(tail, engUnit="kW", objectId="feed-a", servesId=[], isSetpoint=True)
    hall.say(tail, 20)
    power = hall.client.power("feed", "feed-a").power
    assert (power.power_w, power.state) == (100_000.0, PointState.GOOD)
