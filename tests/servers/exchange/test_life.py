"""Who is alive, and what is left of the bus when brokers die, forget or say everything again."""

import json

import anyio
import pytest

from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.models import Compatibility
from interlock_servers.exchange.settings import ExchangeSettings
from interlock_servers.transports.broker import local_broker
from interlock_servers.transports.mqtt import MqttBus, MqttSettings
from interlock_tools.clock import ManualClock
from tests.servers.exchange.hall import START, Hall
from tests.servers.scripted_broker import ScriptedBroker, scripted
from tests.servers.waiting import until

FAILOVER_S = 3.0
LEAK = "Rack/RackLeakDetect/x/r1"


def publish(topic: str, said: object, *, retain: bool = False) -> bytes:
    """One PUBLISH at QoS 0 as it stands on the wire."""
    payload = json.dumps(said).encode()
    body = len(topic).to_bytes(2) + topic.encode() + payload
    size = b""
    left = len(body)
    while left:
        left, low = divmod(left, 128)
        size += bytes((low | (0x80 if left else 0),))
    return bytes((0x31 if retain else 0x30,)) + size + body


def described() -> bytes:
    """What every broker keeps of a leak sensor."""
    states = [{"value": 0, "text": "NoLeak"}, {"value": 1, "text": "Leak"}]
    said = {
        "objectType": "Rack",
        "pointType": "RackLeakDetect",
        "rackLocationId": "r1",
        "rackLocationName": "r1",
        "stateText": states,
    }
    return publish(f"BMS/v1/PUB/Metadata/{LEAK}", said, retain=True)


def value(number: int, second: int) -> bytes:
    """A reading of so many seconds after the start."""
    at_ms = int(START.timestamp() * 1000) + second * 1000
    said = {"value": number, "timestamp": at_ms, "quality": 1}
    return publish(f"BMS/v1/PUB/Value/{LEAK}", said)


@pytest.mark.trap("EX-R09")
async def test_a_broker_that_dies_without_a_word_is_left_within_three_seconds() -> None:
    """What the next one says again has no second effect: no event, no reading, no older value."""
    first = ScriptedBroker(
        suback=(1, 0), pong=False, on_subscribe=described() + value(0, 0) + value(1, 1)
    )
    again = described() + value(1, 1) + value(0, 0) + value(1, 1)
    second = ScriptedBroker(suback=(1, 0), on_subscribe=again)
    with anyio.fail_after(30):
        async with scripted(first), scripted(second):
            mqtt = MqttSettings(brokers=(first.url, second.url), client_id="x")
            settings = ExchangeSettings(mqtt=mqtt, site_id="lab")
            async with ExchangeClient(settings, ManualClock(START)) as client:
                await until(lambda: client.store.accepted == 3)
                with anyio.fail_after(FAILOVER_S):
                    await until(lambda: client.bus_state().broker == second.url)
                await until(lambda: client.store.accepted == 6)
                assert client.store.rejected["out_of_order"].times == 1
                assert [e.after for e in client.events() if e.kind == "leak"] == ["Leak"]
                assert [s.value for s in client.history(LEAK)] == [0.0, 1.0]
                point = client.point(LEAK).points[0]
                assert (point.value, point.label) == (1.0, "Leak")


@pytest.mark.trap("EX-R05")
def test_what_a_broker_forgot_comes_back_with_the_cadence() -> None:
    """Nothing rests on retained messages: the BMS describes every point each 100 s."""
    hall = Hall()
    assert hall.say(LEAK, 1)
    assert hall.client.point(LEAK).points[0].state == "no_metadata"
    hall.clock.advance(100)
    hall.describe(LEAK, rackLocationId="r1")  # said, not replayed
    hall.say(LEAK, 1)
    point = hall.client.point(LEAK).points[0]
    assert (point.state, point.label) == ("good", "Leak")
    assert set(hall.store.catalogue().by_rack) == {"r1"}


def beat(hall: Hall, client: str, scope: str) -> None:
    """The life sign of one client of the BMS."""
    tail = f"System/HeartbeatTimestampBms/x/{client}"
    hall.describe(tail, objectName="BMS", objectId="BMS", scope=scope)
    hall.say(tail, hall.now_ms)


@pytest.mark.trap("EX-R34")
def test_the_bms_is_alive_when_each_of_its_clients_is() -> None:
    """One that went silent takes its topics with it, however lively the other."""
    hall = Hall()
    beat(hall, "one", "BMS/v1/PUB/Value/Rack/#")
    beat(hall, "two", "BMS/v1/PUB/Value/CDU/#")
    assert hall.client.heartbeats().bms_alive is True
    hall.clock.advance(31)
    beat(hall, "one", "BMS/v1/PUB/Value/Rack/#")
    beats = hall.client.heartbeats()
    # Nothing connects here, so silence cannot be told from deafness; it is never `alive`.
    assert beats.bms_alive is None
    assert {b.scope: b.alive for b in beats.beats} == {
        "BMS/v1/PUB/Value/Rack/#": True,
        "BMS/v1/PUB/Value/CDU/#": False,
    }


@pytest.mark.trap("EX-R35")
def test_an_echo_is_no_life_sign_of_whom_it_names() -> None:
    """It says only that a beat of that one once arrived."""
    hall = Hall()
    tail = hall.describe("System/HeartbeatEchoBms/x/mepai", objectName="M", objectId="MEPAI")
    hall.say(tail, hall.now_ms)
    assert hall.client.heartbeats().beats == ()
    own = hall.describe(
        "System/HeartbeatTimestampIntegration/x/mepai",
        objectName="M",
        objectId="MEPAI",
        integration="MEPAI",
    )
    hall.say(own, hall.now_ms, by="MEPAI")
    (one,) = hall.client.heartbeats().beats
    assert (one.kind, one.publisher, one.alive) == ("integration", "MEPAI", True)
    assert hall.client.heartbeats().bms_alive is None


@pytest.mark.parametrize("prefix", ["", "cpc/east/"])
async def test_every_space_that_is_asked_for_is_heard_through_a_real_broker(prefix: str) -> None:
    """BMS of both grammars, machines and the grid; with a cluster's prefix and without."""
    states = [{"value": 0, "text": "NoLeak"}, {"value": 1, "text": "Leak"}]
    older = {"pointType": "LeakDetectRack", "rackID": "r9", "stateText": states}
    machine = {
        "machine_id": "m1",
        "managed_host_state": {"state": "ready"},
        "timestamp": START.isoformat(),
    }
    target = {"type": "grid.loadtarget.set.v1", "source": "//grid/v1/isv/acme", "data": "x.y.z"}
    said = {
        "BMS/v1/hall/r9/leak/Metadata": older,
        "BMS/v1/hall/r9/leak/Value": {"value": 1, "timestamp": START.timestamp(), "quality": "1"},
        "NICO/v1/machine/m1/state": machine,
        "grid/v1/isv/acme/loadtarget/set": target,
    }
    with anyio.fail_after(40):
        async with local_broker() as broker:
            mqtt = MqttSettings(brokers=(broker,), client_id="reader")
            settings = ExchangeSettings(
                mqtt=mqtt,
                site_id="lab",
                clusters=True,
                nico=True,
                grid=True,
                compatibility=Compatibility(old_topics=True, old_rack_names=True),
            )
            clock = ManualClock(START)
            speaks = MqttSettings(brokers=(broker,), client_id="speaker")
            async with (
                ExchangeClient(settings, clock) as client,
                MqttBus(speaks, clock, lambda _: None, subscriptions=()) as speaker,
            ):
                await client.wait_connected(15)
                await speaker.wait_connected(15)
                for topic, payload in said.items():
                    await speaker.publish(prefix + topic, json.dumps(payload).encode(), qos=1)
                await until(lambda: client.store.accepted == 2 and client.store.others == 2)
                assert client.store.rejected == {}
                (leak,) = (one for one in client.safety() if one.id == "r9")
                assert leak.leak is True
                name = "east/m1" if prefix else "m1"
                found = client.store.machines.machine(name)
                assert found is not None
                assert found.state == "ready"
                assert [e.kind for e in client.events()] == ["grid", "bus"]
