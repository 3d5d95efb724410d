"""What every deployment of the bus promises a reader, shown on the twin through real brokers."""

from collections.abc import Callable
from contextlib import AsyncExitStack

import anyio
import pytest

from interlock_plant.faults import Fault, FaultKind
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.models import Compatibility
from interlock_servers.exchange.readings import MeterKind
from interlock_servers.exchange.store import FRESH_S, PointState
from interlock_servers.exchange.twin import FaultName
from interlock_servers.transports.broker import Kind, installed_kinds, local_broker
from interlock_tools.errors import InvalidRequestError, NotFoundError, UnavailableError
from tests.servers.exchange.conftest import Rig, listening, rig_on
from tests.servers.waiting import until

METERS: list[tuple[MeterKind, str]] = [("site", "lab"), ("feed", "feed-a"), ("pdu", "pdu-2")]


def power_w(client: ExchangeClient, kind: MeterKind, name: str) -> float:
    """The power of something, which the test expects to be known."""
    power = client.power(kind, name).power
    assert power.power_w is not None, power.why
    return power.power_w


def check_balance(client: ExchangeClient) -> None:
    """Every meter shows what the meters and racks that it serves show together."""
    kinds: dict[str, MeterKind] = {"meter": "pdu", "rack": "rack"}
    tree = client.topology("lab")
    for node in tree.nodes:
        below = [served for server, served in tree.edges if server == node.id]
        if node.kind == "meter" and below:
            of = {n.id: kinds[n.kind] for n in tree.nodes}
            total_w = sum(power_w(client, of[name], name) for name in below)
            assert power_w(client, "pdu", node.id) == pytest.approx(total_w, rel=0.02), node.id


# What is there


@pytest.mark.parametrize("kind", installed_kinds())
async def test_a_reader_of_any_broker_sees_the_plant_as_it_is(kind: Kind) -> None:
    """Meaning comes retained, values live; both must arrive through every broker."""
    with anyio.fail_after(60):
        async with local_broker(kind) as broker, rig_on(broker) as rig:
            await rig.hear()
            rig.wait(5)
            await rig.hear()
            plant, client = rig.plant, rig.client
            assert power_w(client, "site", "lab") == pytest.approx(plant.site_power_w, abs=1.0)
            for name, truth_w in zip(plant.site.rack_ids, plant.rack_power_w, strict=True):
                assert power_w(client, "rack", name) == pytest.approx(truth_w, abs=1.0)
            check_balance(client)
            assert client.heartbeats().bms_alive is True
            assert client.ingest().rejected == {}
            assert client.ingest().deviations == {}

            late = listening(rig.clock, broker, client_id="late")
            async with late:
                await until(lambda: len(late.store) == len(client.store))
                page = late.points(object_type="Rack", point_type="RackPower")
                assert {point.unit for point in page.points} == {"kW"}
                assert {point.state for point in page.points} == {PointState.NEVER_SEEN}
                assert late.power("site", "lab").power.power_w is None


async def test_the_path_of_power_and_coolant_is_read_out_of_what_serves_what(rig: Rig) -> None:
    """`servesId` is the topology; names and tag paths are not."""
    down = rig.client.topology("lab")
    assert {node.id for node in down.nodes if node.kind == "rack"} == set(rig.plant.site.rack_ids)
    assert ("pdu-1", "rack-01") in down.edges
    up = rig.client.topology("rack-01", "up")
    assert {node.id: node.kind for node in up.nodes} == {
        "rack-01": "rack",
        "pdu-1": "meter",
        "cdu-1": "equipment",
        "feed-a": "meter",
        "lab": "meter",
    }
    assert rig.client.topology("lab", limit=3).truncated
    with pytest.raises(NotFoundError):
        rig.client.topology("rack-99")


async def test_a_leak_shows_on_its_rack_and_then_the_isolation(rig: Rig) -> None:
    """States carry the labels that the metadata lists."""

    def labels() -> tuple[str | None, ...]:
        points = {point.point_type: point for point in rig.client.rack("rack-03").points}
        seen = ("RackLeakDetect", "RackLiquidIsolationStatus", "RackLeakSensorFault")
        return tuple(points[name].label for name in seen)

    assert labels() == ("NoLeak", "NotIsolated", "NoFault")
    rig.plant.inject(Fault(FaultKind.LEAK, "rack-03"))
    rig.wait(1)
    await rig.hear()
    assert labels()[0] == "Leak"
    rig.wait(4)
    await rig.hear()
    assert labels() == ("Leak", "Isolated", "NoFault")


async def test_pages_cover_every_point_once_and_filters_narrow_them(rig: Rig) -> None:
    """A site has more points than an answer may hold."""
    keys: list[str] = []
    cursor: str | None = None
    while True:
        page = rig.client.points(limit=7, cursor=cursor)
        assert len(page.points) <= 7
        keys += [point.key for point in page.points]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert keys == sorted(set(keys))
    assert len(keys) == len(rig.client.store)
    supply = rig.client.points(object_type="CDU", object_id="cdu-1", point_type="LiquidTemperature")
    assert [point.process_area for point in supply.points] == [
        ("Secondary", "Return"),
        ("Secondary", "Supply"),
    ]
    assert rig.client.points(rack_location_id="rack-01", object_id="cdu-1").points == ()
    for wrong in (0, 501):
        with pytest.raises(InvalidRequestError, match="limit"):
            rig.client.points(limit=wrong)
    with pytest.raises(InvalidRequestError, match="object_type"):
        rig.client.points(object_type="Toaster")
    with pytest.raises(NotFoundError):
        rig.client.rack("rack-99")
    assert rig.client.meter("feed-a").serves == ("pdu-1",)


# What must not be believed


@pytest.mark.parametrize(
    ("fault", "after_s", "state", "word"),
    [
        ("stale", 251, PointState.STALE, "stale since"),
        ("malformed", 251, PointState.STALE, "stale since"),
        ("bad_quality", 2, PointState.BAD_QUALITY, "quality is 0"),
    ],
)
async def test_a_reading_that_cannot_be_trusted_is_unknown_and_says_why(
    rig: Rig, fault: FaultName, after_s: int, state: PointState, word: str
) -> None:
    """Unknown is a value: never the last number, never zero."""
    known_w = power_w(rig.client, "feed", "feed-a")
    rig.twin.fault(fault)
    rig.wait(after_s)
    await rig.hear()
    for kind, name in METERS:
        power = rig.client.power(kind, name).power
        assert (power.power_w, power.state) == (None, state)
        assert word in (power.why or "")
    reading = rig.client.meter("feed-a").points[0]
    assert reading.value is None
    assert reading.last_good_value == pytest.approx(known_w / 1000)
    rig.twin.repair(fault)
    rig.wait(1)
    await rig.hear()
    assert power_w(rig.client, "feed", "feed-a") > 0


async def test_a_reading_is_fresh_for_250_seconds_and_not_one_longer(rig: Rig) -> None:
    """Two and a half of the 100 s after which an unchanged value must return."""
    rig.wait(int(FRESH_S))
    assert power_w(rig.client, "site", "lab") > 0
    rig.wait(1)
    assert rig.client.power("site", "lab").power.power_w is None


async def test_an_unchanged_value_returns_every_100_seconds(rig: Rig) -> None:
    """So that silence means something: a steady plant stays known."""
    for _ in range(6):
        rig.wait(100)
        await rig.hear()
        assert power_w(rig.client, "site", "lab") > 0


@pytest.mark.trap("EX-R39")
@pytest.mark.parametrize(
    ("fault", "deviation"),
    [("string_quality", "quality_as_string"), ("seconds", "timestamp_in_seconds")],
)
async def test_a_known_habit_is_read_and_counted_or_refused_as_the_settings_say(
    fault: FaultName, deviation: str
) -> None:
    """Real clients do both; that we go along is said, and can be ended."""
    strict = Compatibility(string_quality=False, seconds=False)
    for compatibility, accepted in ((Compatibility(), True), (strict, False)):
        with anyio.fail_after(30):
            async with (
                local_broker() as broker,
                rig_on(broker, compatibility=compatibility) as rig,
            ):
                rig.twin.fault(fault)
                await rig.hear()
                power = rig.client.power("site", "lab").power
                assert (power.power_w is not None) is accepted
                assert (deviation in rig.client.ingest().deviations) is accepted
                assert bool(rig.client.ingest().rejected) is not accepted


async def test_a_meter_that_lies_does_not_balance(rig: Rig) -> None:
    """The suite can fail: one wrong meter, and the promise of balance is broken."""
    check_balance(rig.client)
    rig.twin.fault("lying_meter", "feed-b")
    await rig.hear()
    with pytest.raises(AssertionError, match=r"lab|feed-b"):
        check_balance(rig.client)


# Whether anyone is there


@pytest.mark.trap("EX-R32")
async def test_the_bms_is_alive_for_three_beats_and_then_it_is_not(rig: Rig) -> None:
    """Without the heartbeat nothing tells a steady plant from a dead BMS."""
    rig.twin.fault("no_heartbeat")
    rig.wait(30)
    assert rig.client.heartbeats().bms_alive is True
    rig.wait(1)
    await rig.hear()
    answer = rig.client.heartbeats()
    assert answer.bms_alive is False
    assert "31 s old" in (answer.why or "")
    rig.twin.repair("no_heartbeat")
    await rig.hear()
    assert rig.client.heartbeats().bms_alive is True


@pytest.mark.parametrize("kind", installed_kinds())
async def test_when_the_broker_goes_reads_go_on_and_say_since_when(kind: Kind) -> None:
    """The store is the last that is known; it never pretends to be the present."""
    with anyio.fail_after(60):
        async with AsyncExitStack() as life:
            broker = await life.enter_async_context(local_broker(kind))
            async with rig_on(broker) as rig:
                await rig.hear()
                heard_at = rig.clock.now()
                await life.aclose()
                await until(lambda: not rig.client.bus_state().connected)
                rig.wait(60)
                with pytest.raises(UnavailableError):
                    await rig.twin.publish_once()
                answer = rig.client.power("site", "lab")
                assert answer.bus.stale_since == answer.observed_at == heard_at
                assert answer.power.age_s == pytest.approx(60, abs=0.01)
                assert answer.power.power_w is not None
                beats = rig.client.heartbeats()
                assert beats.bms_alive is None
                assert "not heard" in (beats.why or "")
                rig.wait(200)
                assert rig.client.power("site", "lab").power.power_w is None

                async with local_broker(kind, port=int(broker.rpartition(":")[2])):
                    await until(lambda: rig.client.bus_state().connected and rig.twin.connected)
                    await rig.client.wait_connected(15)
                    await rig.hear()
                    answer = rig.client.power("site", "lab")
                    assert answer.bus.stale_since is None
                    assert answer.power.power_w is not None
                    assert rig.client.heartbeats().bms_alive is True


async def test_with_a_second_broker_the_plant_stays_in_sight() -> None:
    """The hub is not a single point of failure."""
    with anyio.fail_after(60):
        async with local_broker() as second, AsyncExitStack() as life:
            first = await life.enter_async_context(local_broker())
            async with rig_on(second) as ahead, listening(ahead.clock, first, second) as client:
                await client.wait_connected(15)
                assert client.bus_state().broker == first
                await life.aclose()
                await until(lambda: client.bus_state().broker == second)
                await client.wait_connected(15)
                sees_everything = _sees_everything(client, ahead)
                while not sees_everything():  # what came before it had subscribed comes again
                    await ahead.hear()


def _sees_everything(client: ExchangeClient, rig: Rig) -> Callable[[], bool]:
    return lambda: (
        len(client.store) == len(rig.client.store)
        and client.power("site", "lab").power.power_w is not None
    )


async def test_the_bms_goes_on_by_itself_and_through_a_lost_broker() -> None:
    """`run` is what the demo starts and forgets."""
    with anyio.fail_after(60):
        async with AsyncExitStack() as life:
            broker = await life.enter_async_context(local_broker())
            async with rig_on(broker) as rig, anyio.create_task_group() as tasks:
                tasks.start_soon(rig.twin.run)

                def known() -> bool:
                    rig.clock.advance(1)
                    return rig.client.heartbeats().bms_alive is True

                await until(known)
                await life.aclose()
                await until(lambda: not rig.client.bus_state().connected)
                rig.wait(300)
                async with local_broker(port=int(broker.rpartition(":")[2])):
                    await until(known)
                    tasks.cancel_scope.cancel()
