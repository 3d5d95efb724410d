"""The connection to the bus: what it refuses, what it survives and what it admits."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import anyio
import pytest
from pydantic import ValidationError

from interlock_servers.transports import mqtt, mqtt_connection
from interlock_servers.transports.broker import Kind, installed_kinds, local_broker
from interlock_servers.transports.mqtt import Message, MqttBus, MqttSettings, check_topic
from interlock_tools.clock import SystemClock
from interlock_tools.errors import InvalidRequestError, UnavailableError
from tests.servers.certificates import self_signed
from tests.servers.scripted_broker import ScriptedBroker, scripted
from tests.servers.waiting import until

NOWHERE = "mqtt://127.0.0.1:1"  # nothing listens on port 1


@asynccontextmanager
async def bus(
    *brokers: str,
    subscriptions: Sequence[tuple[str, int]] = (("plant/#", 1),),
    heard: list[Message] | None = None,
    **settings: object,
) -> AsyncIterator[MqttBus]:
    """A connection under test, with everything it hears in `heard`."""
    heard = [] if heard is None else heard
    described = MqttSettings.model_validate({"brokers": brokers, "client_id": "test", **settings})
    async with MqttBus(described, SystemClock(), heard.append, subscriptions=subscriptions) as it:
        yield it


# Before anything is sent


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("localhost:1883", "mqtt:// or mqtts://"),
        ("http://localhost:1883", "mqtt:// or mqtts://"),
        ("mqtt://localhost", "host and a port"),
        ("mqtt://:1883", "host and a port"),
        ("mqtt://localhost:0", "host and a port"),
        ("mqtt://localhost:99999", "cannot be read"),
        ("mqtt://localhost:seven", "cannot be read"),
        ("mqtt://[::1:1883", "cannot be read"),
        ("mqtt://localhost:1883/topic", "end after its port"),
        ("mqtt://user:hunter2@localhost:1883", "no credentials"),
    ],
)
def test_a_url_that_names_no_broker_is_refused_with_its_reason(url: str, why: str) -> None:
    """A wrong address is found when settings are read, and credentials in it are not repeated."""
    with pytest.raises(ValidationError, match=why) as refusal:
        MqttSettings(brokers=(url,), client_id="test")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.trap("EX-R02")
@pytest.mark.parametrize("host", ["bus.example", "10.0.0.7", "localhost.example"])
def test_a_secret_is_never_sent_in_the_clear_over_a_network(host: str) -> None:
    """One plain broker among several is enough to lose a token."""
    with pytest.raises(ValidationError, match="never sent in the clear"):
        MqttSettings(
            brokers=(f"mqtts://{host}:8883", f"mqtt://{host}:1883"),
            client_id="test",
            username="oauthtoken",
            password_env="TOKEN",  # noqa: S106 (the name of a variable)
        )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_a_secret_may_go_to_this_machine(host: str) -> None:
    """What never leaves the machine needs no encryption."""
    settings = MqttSettings(
        brokers=(f"mqtt://{host}:1883",), client_id="test", username="u", password_file=Path("f")
    )
    assert settings.addresses[0].loopback


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"password_env": "A"}, "no password without a username"),
        ({"username": "u", "password_env": "A", "password_file": "f"}, "not both"),
        ({"cert_file": "c"}, "client certificate needs TLS"),
        ({"key_file": "k"}, "needs cert_file"),
        ({"password": "hunter2"}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, str], why: str) -> None:
    """A secret itself is no setting; only where it is kept."""
    with pytest.raises(ValidationError, match=why) as refusal:
        MqttSettings.model_validate(
            {"brokers": ("mqtt://localhost:1883",), "client_id": "test", **settings}
        )
    assert "hunter2" not in str(refusal.value)


async def test_a_missing_secret_is_said_before_the_first_connection() -> None:
    """Otherwise it would look like a broker that refuses us, for ever."""
    with pytest.raises(InvalidRequestError, match="INTERLOCK_NO_SUCH_TOKEN"):
        async with bus(NOWHERE, username="u", password_env="INTERLOCK_NO_SUCH_TOKEN"):  # noqa: S106
            pass


@pytest.mark.parametrize(
    "topic",
    ["a/+", "a/#", "a b", "a.b", "a\0b", "a\nb", "a\u00a0b", "", "/a", "a/", "a//b", "\ud800"],
)
def test_a_topic_that_some_broker_would_cut_us_for_is_never_published(topic: str) -> None:
    """NATS cuts or rewrites where mosquitto is content; ours must work on both."""
    with pytest.raises(InvalidRequestError, match="topic"):
        check_topic(topic)


@pytest.mark.parametrize(
    ("topic_filter", "qos"), [("a/#/b", 0), ("a#", 0), ("a+/b", 0), ("a b/#", 0), ("a", 3)]
)
def test_a_filter_that_no_broker_understands_is_refused(topic_filter: str, qos: int) -> None:
    """A filter that matches nothing looks like a silent plant."""
    settings = MqttSettings(brokers=(NOWHERE,), client_id="test")
    with pytest.raises(InvalidRequestError):
        MqttBus(settings, SystemClock(), lambda _: None, subscriptions=[(topic_filter, qos)])


# On a real broker


@pytest.mark.parametrize("kind", installed_kinds())
async def test_what_is_published_is_heard_and_what_is_retained_is_heard_later(kind: Kind) -> None:
    """The one thing a bus is for, on every broker that is installed."""
    heard: list[Message] = []
    with anyio.fail_after(40):
        async with local_broker(kind) as url:
            async with bus(url, heard=heard) as one:
                await one.wait_connected(10)
                assert (one.connected, one.broker, one.last_error) == (True, url, None)
                await one.publish("plant/a", b"live", qos=0, retain=False)
                await one.publish("plant/b", b"kept", qos=1, retain=True)
                await until(lambda: len(heard) == 2)
            assert not one.connected
            later: list[Message] = []
            async with bus(url, heard=later) as two:
                await two.wait_connected(10)
                await until(lambda: later)
    assert {(m.topic, m.payload, m.retained) for m in heard} == {
        ("plant/a", b"live", False),
        ("plant/b", b"kept", False),
    }
    assert [(m.topic, m.payload, m.retained) for m in later] == [("plant/b", b"kept", True)]
    assert later[0].received_at.utcoffset() == timedelta(0)


async def test_when_a_broker_dies_the_next_one_takes_over_with_the_same_subscriptions() -> None:
    """The hub is not a single point of failure."""
    heard: list[Message] = []
    with anyio.fail_after(40):
        async with local_broker() as second, AsyncExitStack() as life:
            first = await life.enter_async_context(local_broker())
            async with bus(NOWHERE, first, second, heard=heard) as under_test:
                await under_test.wait_connected(10)
                assert under_test.broker == first
                await life.aclose()
                await until(lambda: under_test.broker == second)
                await under_test.wait_connected(10)
                await under_test.publish("plant/a", b"still here", qos=1, retain=False)
                await until(lambda: heard)


async def test_a_broker_that_comes_back_is_found_again() -> None:
    """With one broker, patience is the failover."""
    heard: list[Message] = []
    with anyio.fail_after(40):
        async with AsyncExitStack() as life:
            url = await life.enter_async_context(local_broker())
            async with bus(url, heard=heard) as under_test:
                await under_test.wait_connected(10)
                await life.aclose()
                await until(lambda: not under_test.connected)
                with pytest.raises(UnavailableError, match="nothing was sent"):
                    await under_test.publish("plant/a", b"", qos=0, retain=False)
                async with local_broker(port=int(url.rpartition(":")[2])):
                    await until(lambda: under_test.connected)
                    await under_test.wait_connected(10)
                    assert under_test.last_error is None
                    await under_test.publish("plant/a", b"again", qos=1, retain=False)
                    await until(lambda: heard)


async def test_a_subscriber_that_breaks_its_promise_does_not_break_the_connection() -> None:
    """One bad message must not end all later ones."""
    calls: list[Message] = []

    def fails(message: Message) -> NoReturn:
        calls.append(message)
        raise RuntimeError("it must not raise, and does")

    with anyio.fail_after(20):
        async with local_broker() as url:
            settings = MqttSettings(brokers=(url,), client_id="test")
            subscriptions = [("plant/#", 0)]
            async with MqttBus(settings, SystemClock(), fails, subscriptions=subscriptions) as it:
                await it.wait_connected(10)
                await it.publish("plant/a", b"1", qos=0, retain=False)
                await it.publish("plant/a", b"2", qos=0, retain=False)
                await until(lambda: len(calls) == 2)
                assert it.connected


async def test_a_broker_that_is_not_installed_is_not_replaced_by_another() -> None:
    """Who asks for NATS wants to see NATS."""
    with pytest.raises(InvalidRequestError, match="none of"):
        async with local_broker("rabbit"):  # type: ignore[arg-type]
            pass


# What only a scripted broker answers


@pytest.mark.trap("EX-R08")
async def test_a_refused_filter_is_named() -> None:
    """MQTT 3.1.1 says no more than 0x80; without a name it would look like silence."""
    with anyio.fail_after(20):
        async with scripted(ScriptedBroker(suback=(0, 0x80))) as broker:
            asked = [("plant/#", 0), ("secret/#", 1)]
            async with bus(broker.url, subscriptions=asked) as under_test:
                await under_test.wait_connected(10)
                assert under_test.connected
                assert under_test.refused_filters == ("secret/#",)
                assert "secret/#" in (under_test.last_error or "")
                assert "plant/#" not in (under_test.last_error or "")


@pytest.mark.parametrize(("code", "word"), [(4, "password"), (5, "authori")])
async def test_a_refused_credential_says_so_and_the_next_broker_is_tried(
    code: int, word: str
) -> None:
    """The codes 4 and 5 are all that a broker ever says."""
    with anyio.fail_after(20):
        async with scripted(ScriptedBroker(connack=code)) as no:
            async with bus(no.url) as under_test:
                with pytest.raises(UnavailableError, match=f"(?i){word}"):
                    await under_test.wait_connected(1)
                assert not under_test.connected
            async with scripted(ScriptedBroker()) as yes, bus(no.url, yes.url) as under_test:
                await under_test.wait_connected(10)
                assert under_test.broker == yes.url


async def test_a_broker_that_accepts_and_says_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gateway may accept for a broker that is dead."""
    monkeypatch.setattr(mqtt_connection, "CONNECT_TIMEOUT_S", 0.3)
    with anyio.fail_after(20):
        async with (
            scripted(ScriptedBroker(connack=None)) as mute,
            scripted(ScriptedBroker()) as speaks,
            bus(mute.url, speaks.url) as under_test,
        ):
            await under_test.wait_connected(10)
            assert under_test.broker == speaks.url
            assert mute.connects


async def test_no_acknowledgement_in_time_leaves_the_outcome_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a write without an answer the state is unknown, never failed."""
    monkeypatch.setattr(mqtt, "ACK_TIMEOUT_S", 0.2)
    with anyio.fail_after(20):
        async with scripted(ScriptedBroker(puback=False)) as broker, bus(broker.url) as under_test:
            await under_test.wait_connected(10)
            with pytest.raises(UnavailableError, match="may have been sent"):
                await under_test.publish("plant/a", b"1", qos=1, retain=False)


async def test_a_publish_under_way_fails_when_the_connection_is_lost() -> None:
    """It must not wait for an acknowledgement that cannot come."""
    with anyio.fail_after(20):
        async with scripted(ScriptedBroker(puback=False)) as broker, bus(broker.url) as under_test:
            await under_test.wait_connected(10)
            async with anyio.create_task_group() as tasks:

                async def publish() -> None:
                    with pytest.raises(UnavailableError, match="lost"):
                        await under_test.publish("plant/a", b"1", qos=1, retain=False)

                tasks.start_soon(publish)
                await anyio.wait_all_tasks_blocked()
                broker.writers[0].close()


async def test_a_broker_that_sends_nonsense_costs_the_connection_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The parser's errors must not end the thread that reconnects."""
    nonsense = b"\x30\x05\x00\x09abc" + b"\xff" * 8
    with anyio.fail_after(20):
        script = ScriptedBroker(on_subscribe=nonsense)
        async with scripted(script) as broker, bus(broker.url):
            await until(lambda: len(broker.connects) >= 2)
    # The next connection clears `last_error`; what was amiss is on the log.
    assert "mqtt bus is not as it should be" in caplog.messages


@pytest.mark.trap("EX-R03")
async def test_a_token_goes_over_tls_to_the_broker_that_the_certificate_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encrypted to someone unknown is no better than in the clear."""
    monkeypatch.setenv("TEST_TOKEN", "hunter2")
    server, ca_file = self_signed(tmp_path)
    secret: Any = {"username": "oauthtoken", "password_env": "TEST_TOKEN"}
    with anyio.fail_after(20):
        async with scripted(ScriptedBroker(tls=server)) as broker:
            async with bus(broker.url, ca_file=ca_file, **secret) as under_test:
                await under_test.wait_connected(10)
                assert broker.connects[0].endswith(b"\x00\x0aoauthtoken\x00\x07hunter2")
            async with bus(broker.url, **secret) as untrusting:
                with pytest.raises(UnavailableError, match=r"(?i)certificate"):
                    await untrusting.wait_connected(1)
                assert len(broker.connects) == 1
