"""What every deployment of the bus promises who asks the BMS, shown on the twin by real brokers."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from interlock_servers.exchange import holding
from interlock_servers.exchange.bms import request_view
from interlock_servers.exchange.models import parse_value
from interlock_servers.exchange.request_facts import REQUEST_HEARTBEAT
from interlock_servers.exchange.requests import Asked
from interlock_servers.exchange.twin import FaultName
from interlock_servers.exchange.twin_requests import DEFAULT_C
from interlock_servers.transports.broker import Kind, installed_kinds, local_broker
from interlock_servers.transports.mqtt import Message, MqttBus, MqttSettings
from interlock_tools.errors import UnavailableError
from interlock_tools.fact import Fact, FactNeed, Unknown
from interlock_tools.identity import Target
from tests.servers.exchange.asking import ACME, Asking, after, asking_on
from tests.servers.exchange.test_schema import CONTRACTS, accepting
from tests.servers.waiting import until

SUPPLY_TOPIC = f"BMS/v1/{ACME}/Value/CDU/LiquidTemperatureSpRequest/lab/cdu-1/request"


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Asking]:
    """Everything on the best broker that is installed."""
    with anyio.fail_after(90):
        async with local_broker() as broker, asking_on(broker, tmp_path) as asked:
            yield asked


def target_c(it: Asking) -> float:
    """What the BMS controls the first CDU to."""
    return float(it.rig.plant.cdu_target_c[0])


async def outcome(it: Asking, where: tuple[Asked, str]) -> str | None:
    """What is said to have become of a request that stands."""
    return request_view(it.told.said[where], it.asks.wires).outcome


async def heartbeat_fact(it: Asking) -> Fact | Unknown:
    """Whether the guard would be told that we are heard."""
    need = FactNeed(kind=REQUEST_HEARTBEAT, subject=Target(kind="site", id="lab"), max_age_s=30)
    return await it.asks.facts.fact(need)


# What goes out, and what the BMS makes of it


@pytest.mark.trap("EX-W01")
@pytest.mark.parametrize("kind", installed_kinds())
async def test_a_request_reaches_the_bms_on_the_topic_of_its_metadata(
    kind: Kind, tmp_path: Path
) -> None:
    """Through every broker: PUB becomes our id, Metadata becomes Value, and nothing else moves."""
    with anyio.fail_after(90):
        async with local_broker(kind) as broker, asking_on(broker, tmp_path) as it:
            where = it.told.ask(Asked.SUPPLY, "cdu-1", 28.0)
            assert await it.round() is None
            await it.pass_s(20)
            assert {m.topic for m in it.ours} == {SUPPLY_TOPIC}
            assert target_c(it) == 28.0
            assert await outcome(it, where) == "applied"
            assert isinstance(await heartbeat_fact(it), Fact)


@pytest.mark.trap("EX-W02")
async def test_a_value_is_the_payload_of_the_specification_and_is_not_kept(it: Asking) -> None:
    """Quality is the number 1, the timestamp in milliseconds, and no broker gives it out later."""
    it.told.ask(Asked.SUPPLY, "cdu-1", 28.5)
    it.told.ask(Asked.LIQUID, "rack-01", 1.0)
    it.told.ask(Asked.STATUS, "Status", "AI ready")
    await it.round()
    now_ms = int(it.rig.clock.now().timestamp() * 1000)
    assert len(it.ours) == 3
    for message in it.of_us:
        said = json.loads(message.payload)
        assert set(said) == {"value", "timestamp", "quality"}
        assert (said["quality"], type(said["quality"])) == (1, int)
        assert said["timestamp"] == now_ms
        assert parse_value(message.payload).deviations == ()
        if CONTRACTS:
            assert accepting(message.topic, message.payload) == 1, message
    late: list[Message] = []
    settings = MqttSettings(brokers=(it.rig.broker,), client_id="late")
    of_us = [(f"BMS/v1/{ACME}/#", 0)]
    async with MqttBus(settings, it.rig.clock, late.append, subscriptions=of_us) as bus:
        await bus.wait_connected(15)
        it.rig.wait(10)
        await it.round()  # what was kept comes before what is said now
        await until(lambda: any("/HeartbeatTimestampIntegration/" in m.topic for m in late))
        assert not [m for m in late if m.retained or "Heartbeat" not in m.topic]


@pytest.mark.trap("EX-W03")
@pytest.mark.parametrize(
    ("fault", "becomes", "shows_c"),
    [
        (None, "applied", 31.0),
        ("clamp_requests", "clamped", 29.0),
        ("default_for_requests", "fallback", DEFAULT_C),
        ("ignore_requests", "ignored", 26.0),
        ("stale", "unknown", None),
    ],
)
async def test_what_became_of_a_request_is_read_from_what_the_bms_shows(
    it: Asking, fault: FaultName | None, becomes: str, shows_c: float | None
) -> None:
    """There is no acknowledgement: that it was published says nothing."""
    it.rig.plant.set_cdu_target_c("cdu-1", 26.0)
    if fault is not None:
        it.rig.twin.fault(fault)
    where = it.told.ask(Asked.SUPPLY, "cdu-1", 31.0, before_c=26.0, since=after(1))
    await it.round()
    await it.pass_s(20)
    early = request_view(it.told.said[where], it.asks.wires).outcome
    assert early == ("pending" if fault == "ignore_requests" else becomes)
    await it.pass_s(260)
    view = request_view(it.told.said[where], it.asks.wires)
    assert view.shows == shows_c
    assert view.outcome == becomes
    assert len(it.ours) >= 1


@pytest.mark.trap("EX-W04")
async def test_a_request_is_said_again_every_100_seconds_while_it_stands(it: Asking) -> None:
    """And never again once it does not; one call alone would hold nothing."""
    where = it.told.ask(Asked.SUPPLY, "cdu-1", 28.0)
    await it.round()
    await it.pass_s(90)
    assert len(it.ours) == 1
    await it.pass_s(20)
    assert len(it.ours) == 2
    del it.told.said[where]
    await it.pass_s(210)
    assert len(it.ours) == 2


@pytest.mark.trap("EX-W05")
async def test_what_is_taken_back_is_taken_back_in_so_many_words(it: Asking) -> None:
    """Falling silent leaves the last word in force: 0 is said, and the safe temperature."""
    it.told.ask(Asked.SUPPLY, "cdu-1", 28.0)
    it.told.ask(Asked.LIQUID, "rack-01", 1.0)
    await it.round()
    await it.pass_s(30)
    flow_lpm = it.rig.plant.rack_liquid_flow_lpm[0]
    assert (target_c(it), flow_lpm) == (28.0, 0.0)
    it.told.ask(Asked.SUPPLY, "cdu-1", None, change_id="chg-000000000002")
    it.told.ask(Asked.LIQUID, "rack-01", None, change_id="chg-000000000002")
    await it.pass_s(40)
    assert target_c(it) == 25.0
    assert it.rig.plant.rack_liquid_flow_lpm[0] > 0.0
    said = [json.loads(m.payload)["value"] for m in it.ours]
    assert sorted(said) == [0, 1, 25, 28]


async def test_isolation_takes_its_time_and_shows_when_it_is_there(it: Asking) -> None:
    """The valves of the simulated BMS need 15 s; until then nothing is claimed."""
    where = it.told.ask(Asked.LIQUID, "rack-02", 1.0)
    await it.round()
    await it.pass_s(10)
    assert await outcome(it, where) == "pending"
    await it.pass_s(20)
    assert await outcome(it, where) == "applied"
    assert it.rig.plant.rack_liquid_flow_lpm[1] == 0.0


# Who is there


@pytest.mark.trap("EX-W06")
async def test_our_heartbeat_goes_every_ten_seconds_and_the_echo_with_it(it: Asking) -> None:
    """Both are required or asked for by metadata; without a beat the BMS obeys nobody."""
    for _ in range(4):
        await it.pass_s(10)
    beats = [m for m in it.of_us if "/HeartbeatTimestampIntegration/" in m.topic]
    echoes = [m for m in it.of_us if "/HeartbeatEchoIntegration/" in m.topic]
    assert len(beats) == 4
    assert 3 <= len(echoes) <= 4
    moments = [json.loads(m.payload)["value"] for m in beats]
    assert [b - a for a, b in pairwise(moments)] == [10_000] * 3


@pytest.mark.trap("EX-W07")
@pytest.mark.parametrize("how", ["stuck", "store gone", "end overdue", "cancelled"])
async def test_a_loop_that_does_not_work_gives_no_beat_and_the_bms_takes_over(
    it: Asking, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that only beats would keep a bad setpoint alive for ever."""
    monkeypatch.setattr(holding, "ROUND_S", 0.2)
    it.told.ask(Asked.SUPPLY, "cdu-1", 31.0, ends_at=after(60) if how == "end overdue" else None)
    await it.round()
    await it.pass_s(20)
    assert target_c(it) == 31.0
    if how == "stuck":
        it.told.hangs = True
    elif how == "store gone":
        it.told.broken = RuntimeError("the store is out of reach")
    elif how == "end overdue":
        await it.pass_s(100)
    await it.pass_s(50, holds=how != "cancelled")
    assert target_c(it) == DEFAULT_C
    assert how == "cancelled" or it.asks.wires.holder.trouble
    fact = await heartbeat_fact(it)
    assert isinstance(fact, Unknown)
    it.told.hangs, it.told.broken = False, None
    it.told.ask(Asked.SUPPLY, "cdu-1", 31.0)
    await it.pass_s(20)
    assert target_c(it) == 31.0


async def test_a_broker_that_is_gone_costs_the_beat_and_nothing_else(it: Asking) -> None:
    """What cannot be published is said in words, and the loop goes on."""
    await it.asks.publisher.__aexit__(None, None, None)
    it.told.ask(Asked.SUPPLY, "cdu-1", 28.0)
    await it.asks.wires.holder.round()
    assert "nothing was sent" in (it.asks.wires.holder.trouble or "")
    with pytest.raises(UnavailableError):
        await it.asks.wires.holder.say(Asked.SUPPLY, "cdu-1", 28.0, "chg-1")
    async with it.asks.publisher:
        await until(lambda: it.asks.publisher.connected)
        assert await it.round() is None
        assert len(it.ours) == 1


async def test_another_holder_goes_on_from_what_stands(it: Asking) -> None:
    """After a restart everything that stands is said at once: nothing was remembered elsewhere."""
    it.told.ask(Asked.SUPPLY, "cdu-1", 28.0)
    await it.round()
    again = holding.Holder(
        it.rig.client,
        it.asks.wires.namespace,
        it.asks.publisher,
        it.told,
        it.asks.wires.settings,
        it.rig.clock,
    )
    it.rig.wait(10)
    await again.round()
    await until(lambda: len(it.ours) == 2)
    assert [json.loads(m.payload)["value"] for m in it.ours] == [28, 28]
    first, second = (json.loads(m.payload)["timestamp"] for m in it.ours)
    assert timedelta(milliseconds=second - first) == timedelta(seconds=10)
