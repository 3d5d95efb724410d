"""A checkpoint on the bus is kept once the broker gave it back; a thread never waits for ever."""

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from pydantic import ValidationError
from sqlalchemy import Engine

from interlock_guardrails.engine import create_store_engine, create_tables
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.sinks import Readable, Sink
from interlock_servers.checkpoint_sink import (
    GitSinkSettings,
    MqttCheckpointSink,
    MqttSinkSettings,
    SinkSettings,
    checkpoint_sinks,
    open_ledger,
)
from interlock_servers.transports.broker import local_broker
from interlock_servers.transports.mqtt import Message, MqttBus, MqttSettings
from interlock_tools.clock import ManualClock, SystemClock
from interlock_tools.errors import ConflictError, InvalidRequestError
from tests.servers.scripted_broker import ScriptedBroker, scripted
from tests.servers.waiting import until

TOPIC = "interlock/v1/lab/ledger/checkpoint"
NOWHERE = "mqtt://127.0.0.1:1"  # nothing listens on port 1
NOTE = "interlock/lab\n1\nroot\n\n\u2014 signature\n"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop for the broker that the tests share."""
    return "asyncio"


@pytest.fixture(scope="module")
async def broker() -> AsyncIterator[str]:
    """A broker of our own."""
    async with local_broker() as url:
        yield url


def bus_settings(url: str) -> MqttSettings:
    """How to reach it."""
    return MqttSettings(brokers=(url,), client_id="checkpoints")


def sink_on(url: str, topic: str = TOPIC, **times: float) -> MqttCheckpointSink:
    """A sink that waits no longer than a test may."""
    times = {"connect_s": 10.0, "retained_s": 0.2, "deadline_s": 10.0} | times
    return MqttCheckpointSink(bus_settings(url), topic, SystemClock(), **times)


async def publish(sink: Sink, note: str) -> None:
    """As the ledger does: in a thread."""
    await anyio.to_thread.run_sync(sink.publish, note)


async def test_a_checkpoint_is_retained_for_who_comes_later(broker: str) -> None:
    """Another machine, or this one after its disk was lost."""
    topic = f"{TOPIC}/later"
    async with sink_on(broker, topic) as sink:
        assert isinstance(sink, Readable)
        assert sink.kept() == []
        await publish(sink, NOTE.replace("1", "0"))
        await publish(sink, NOTE)
        await publish(sink, NOTE)  # it may come again
    heard: list[Message] = []
    described = MqttSettings(brokers=(broker,), client_id="witness")
    async with MqttBus(described, SystemClock(), heard.append, subscriptions=[(topic, 1)]):
        await until(lambda: heard)
    assert (heard[0].retained, heard[0].payload.decode()) == (True, NOTE)
    async with sink_on(broker, topic, retained_s=10.0) as again:
        assert again.kept() == [NOTE]


async def test_a_broker_that_is_not_there_is_a_failing_sink(broker: str) -> None:
    """It keeps nobody from starting, and nothing is said to be kept."""
    async with sink_on(NOWHERE, connect_s=0.05) as sink:
        with pytest.raises(OSError, match="no broker in"):
            sink.kept()
        with pytest.raises(OSError, match="not connected to a broker"):
            await publish(sink, NOTE)


async def test_a_broker_that_takes_and_does_not_give_back_is_a_failing_sink() -> None:
    """An acknowledgement is what one also gets for a topic that an ACL closed."""
    async with (
        scripted(ScriptedBroker()) as quiet,
        sink_on(quiet.url, retained_s=0.0, deadline_s=0.2) as sink,
    ):
        with pytest.raises(OSError, match="did not give the checkpoint back"):
            await publish(sink, NOTE)


async def test_a_broker_that_refuses_the_subscription_cannot_be_read() -> None:
    """That it holds nothing must not be concluded from silence."""
    async with scripted(ScriptedBroker(suback=(0x80,))) as closed, sink_on(closed.url) as sink:
        with pytest.raises(OSError, match="refused the subscription"):
            sink.kept()


async def test_a_loop_that_is_stuck_holds_the_thread_for_a_bounded_time(broker: str) -> None:
    """The thread that publishes must come back to the other sinks."""
    outcome: list[BaseException] = []
    async with sink_on(broker, f"{TOPIC}/stuck", deadline_s=-0.9) as sink:

        def act() -> None:
            try:
                sink.publish(NOTE)
            except OSError as error:
                outcome.append(error)

        thread = threading.Thread(target=act)
        thread.start()
        thread.join(timeout=30)  # the loop does nothing else meanwhile
        assert not thread.is_alive()
    assert "did not give the checkpoint back" in str(outcome[0])


async def test_the_loops_own_thread_is_refused_instead_of_stopped(broker: str) -> None:
    """It would wait for itself."""
    async with sink_on(broker, f"{TOPIC}/own") as sink:
        with pytest.raises(OSError, match="the thread of the event loop"):
            sink.publish(NOTE)


async def test_a_sink_that_was_left_is_a_failing_sink(broker: str) -> None:
    """The ledger may still have a checkpoint to give when the site goes down."""
    async with sink_on(broker, f"{TOPIC}/left") as sink:
        pass
    with pytest.raises(OSError, match="closed"):
        await publish(sink, NOTE)


def test_a_closed_loop_is_a_failing_sink() -> None:
    """The same, a moment later."""
    loop = asyncio.new_event_loop()
    sink = sink_on(NOWHERE)
    sink._loop = loop
    loop.close()
    with pytest.raises(OSError, match="closed"):
        sink.publish(NOTE)


# Settings


def test_the_file_is_always_there_and_the_others_by_name(tmp_path: Path) -> None:
    """Nobody can turn the last outside place off."""
    assert SinkSettings().file == Path("checkpoints.jsonl")
    with pytest.raises(ValidationError):
        SinkSettings.model_validate({"file": None})
    with pytest.raises(ValidationError, match="no name of a git"):
        GitSinkSettings(path=tmp_path, branch="--force")
    with pytest.raises(ValidationError, match="no name of a git"):
        GitSinkSettings(path=tmp_path, remote="https://user:hunter2@host/x.git")


def test_a_topic_that_a_broker_would_not_take_is_refused() -> None:
    """Before anything is connected."""
    settings = MqttSinkSettings(mqtt=bus_settings(NOWHERE))
    assert settings.topic_of("lab") == TOPIC
    with pytest.raises(InvalidRequestError):
        settings.topic_of("two words")


async def test_a_site_has_every_place_that_its_settings_name(
    broker: str, tmp_path: Path, empty_store: Engine
) -> None:
    """And the ledger writes to each, from its own thread, and closes off the loop."""
    clock = ManualClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    settings = SinkSettings(
        git=GitSinkSettings(path=tmp_path / "no-tree"),
        mqtt=MqttSinkSettings(mqtt=bus_settings(broker), topic=f"{TOPIC}/site"),
    )
    where: dict[str, Any] = {"site_id": "lab", "data_dir": tmp_path, "clock": clock}
    async with checkpoint_sinks(settings, **where) as sinks:
        assert [sink.name for sink in sinks] == [
            "file checkpoints.jsonl",
            "git no-tree",
            f"mqtt {TOPIC}/site",
        ]
    async with open_ledger(empty_store, settings, **where) as ledger:
        ledger.append_read(RecordKind.READ, {})
        await anyio.to_thread.run_sync(ledger.flush)
        note = await anyio.to_thread.run_sync(ledger.checkpoint)
        told = [record["body"] for record in ledger.read() if record["kind"] == "checkpoint"]
    assert [(body["sink"], body.get("read", body.get("published"))) for body in told] == [
        ("git no-tree", False),  # could not be read
        ("git no-tree", False),  # could not be written
    ]
    async with sink_on(broker, f"{TOPIC}/site", retained_s=10.0) as again:
        assert again.kept() == [note]


async def test_a_store_that_the_bus_knows_better_does_not_go_on(
    broker: str, tmp_path: Path, empty_store: Engine
) -> None:
    """The host was rolled back, file and all; the broker was not."""
    clock = ManualClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    mqtt = MqttSinkSettings(mqtt=bus_settings(broker), topic=f"{TOPIC}/rolled-back")
    settings = SinkSettings(mqtt=mqtt)
    where: dict[str, Any] = {"site_id": "lab", "data_dir": tmp_path, "clock": clock}
    async with open_ledger(empty_store, settings, **where) as ledger:
        ledger.append_read(RecordKind.READ, {})
        await anyio.to_thread.run_sync(ledger.flush)
        await anyio.to_thread.run_sync(ledger.checkpoint)
    (tmp_path / "checkpoints.jsonl").unlink()
    fresh = create_store_engine(f"sqlite:///{tmp_path / 'fresh.db'}")
    create_tables(fresh)
    with pytest.raises(ConflictError, match="rolled-back: the store is older: it has 0 records"):
        async with open_ledger(fresh, settings, **where):
            pass
    async with open_ledger(fresh, settings, **where, overruled_by="person:operator") as ledger:
        assert ledger.size_and_root()[0] == 1
    async with open_ledger(fresh, settings, **where):
        pass
    fresh.dispose()


@pytest.fixture
def empty_store(tmp_path: Path) -> Any:
    """A store with its tables."""
    engine = create_store_engine(f"sqlite:///{tmp_path / 'store.db'}")
    create_tables(engine)
    yield engine
    engine.dispose()
