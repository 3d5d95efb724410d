"""An MQTT 3.1.1 connection that survives its brokers; it does not know what the messages mean."""

import asyncio
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

import anyio
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from interlock_servers.transports.mqtt_settings import (
    BrokerAddress,
    MqttSettings,
    check_filter,
    check_qos,
    check_topic,
    parse_broker,
)
from interlock_servers.transports.spans import publishing
from interlock_tools.clock import Clock
from interlock_tools.errors import InvalidRequestError, UnavailableError

__all__ = [
    "BrokerAddress",
    "Message",
    "MqttBus",
    "MqttSettings",
    "check_filter",
    "check_topic",
    "parse_broker",
]

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
ACK_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
FIRST_RETRY_S = 0.25
LAST_RETRY_S = 30.0
STABLE_S = 10.0  # a connection that lived this long starts the back-off afresh
MAX_PAYLOAD_BYTES = 4_194_304  # max_payload of the DSX event bus
MAX_WAITING = 10_000


class Message(NamedTuple):
    """One message as it came off the wire."""

    topic: str
    payload: bytes
    retained: bool
    qos: int
    received_at: datetime


class _Connection(Client):
    """One connection to one broker; it is never reused, so that no old message is sent twice."""

    def __init__(self, client_id: str) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=True,
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        self.answered = threading.Event()  # a CONNACK came, whatever it says
        self.ended = threading.Event()
        self.why_ended = ""
        self.up_since_s: float | None = None

    def loop_forever(
        self, timeout: float = 1.0, retry_first_connection: bool = False
    ) -> MQTTErrorCode:
        """Serve the connection until it ends; a broker that sends nonsense ends it, no more."""
        del retry_first_connection
        try:
            return super().loop_forever(timeout, retry_first_connection=False)
        except Exception as error:  # paho raises what its parser and our callbacks raise
            log.exception("mqtt connection failed")
            self.why_ended = self.why_ended or f"it broke: {type(error).__name__}"
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        finally:
            self.answered.set()
            self.ended.set()

    def let_go(self) -> None:
        """Close what a failed attempt left open, and let the object go with its last user."""
        if isinstance(sock := self.socket(), socket.socket):
            sock.close()
        self.on_connect = self.on_subscribe = self.on_disconnect = None
        self.on_publish = self.on_message = None


class MqttBus:
    """A connection to the first broker that answers, kept up until the context ends.

    Entering it does not wait for a broker: see `wait_connected`. A session is clean, so messages
    sent while it was down are lost except retained ones.
    """

    def __init__(
        self,
        settings: MqttSettings,
        clock: Clock,
        on_message: Callable[[Message], None],
        *,
        subscriptions: Sequence[tuple[str, int]],
    ) -> None:
        """Describe the connection; `on_message` is called in its thread and must not raise.

        Raises:
            InvalidRequestError: a filter that is not valid, or a QoS outside 0..2.
        """
        for topic_filter, qos in subscriptions:
            check_filter(topic_filter)
            check_qos(qos)
        self._settings = settings
        self._clock = clock
        self._on_message = on_message
        self._subscriptions = list(subscriptions)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: _Connection | None = None
        self._broker: str | None = None
        self._ready = False
        self._last_error: str | None = None
        self._refused: tuple[str, ...] = ()
        self._waiting: dict[tuple[int, int], asyncio.Future[None]] = {}
        self._changed = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a broker has accepted us and has not left since."""
        return self._broker is not None

    @property
    def broker(self) -> str | None:
        """The URL of the broker that we are connected to."""
        return self._broker

    @property
    def last_error(self) -> str | None:
        """What went wrong last; None once a broker accepts us and every filter."""
        return self._last_error

    @property
    def refused_filters(self) -> tuple[str, ...]:
        """The subscriptions that the broker refused (SUBACK 0x80): nothing will come for them."""
        return self._refused

    async def __aenter__(self) -> Self:
        """Start connecting.

        Raises:
            InvalidRequestError: a secret or a certificate that the settings name is not there.
        """
        self._settings.read_password()
        if any(address.tls for address in self._settings.addresses):
            self._settings.tls_context()
        self._loop = asyncio.get_running_loop()
        self._stop.clear()
        self._thread = threading.Thread(
            target=self._keep_connected, name=f"mqtt-{self._settings.client_id}", daemon=True
        )
        self._thread.start()
        return self

    async def enter_connected(self, timeout_s: float) -> None:
        """Enter and wait until a broker has accepted us; where none does, leave again.

        Raises:
            InvalidRequestError: as on entering.
            UnavailableError: no broker accepted us in time.
        """
        await self.__aenter__()
        try:
            await self.wait_connected(timeout_s)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Say goodbye to the broker and end the thread."""
        self._stop.set()
        if (connection := self._connection) is not None:
            connection.disconnect()
        if (thread := self._thread) is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(thread.join, CONNECT_TIMEOUT_S + 2 * CLOSE_TIMEOUT_S)
            if thread.is_alive():
                log.warning(
                    "mqtt thread did not end", extra={"client_id": self._settings.client_id}
                )
        self._fail_waiting(None, "the bus was closed")

    async def wait_connected(self, timeout_s: float) -> None:
        """Return once a broker accepted us and answered our subscriptions.

        Raises:
            UnavailableError: none did in time; it says what the last attempt met.
        """
        try:
            with anyio.fail_after(timeout_s):
                while not self._ready:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            why = self._last_error or "no broker has answered yet"
            raise UnavailableError(f"no broker in {timeout_s:g} s: {why}") from None

    @publishing
    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False
    ) -> None:
        """Hand one message to the broker; at QoS 0 that it left us, above that it was taken.

        Being taken proves neither that an ACL let it through nor that anyone obeyed it.

        Raises:
            InvalidRequestError: a topic, size or QoS that can never work; nothing was sent.
            UnavailableError: not connected, or no acknowledgement in time; it may have been sent.
        """
        check_topic(topic)
        check_qos(qos)
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise InvalidRequestError(
                f"a payload may have {MAX_PAYLOAD_BYTES} bytes, not {len(payload)}"
            )
        connection = self._connection
        if connection is None or self._broker is None:
            raise UnavailableError(
                f"not connected to a broker, nothing was sent: {self._last_error or 'connecting'}"
            )
        sent = connection.publish(topic, payload, qos, retain)
        if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise UnavailableError(f"nothing was sent: {sent.rc.name}")
        # The acknowledgement is posted to this loop, so it cannot overtake these lines.
        key = (id(connection), sent.mid)
        taken = self._waiting[key] = asyncio.get_running_loop().create_future()
        if connection.ended.is_set():
            self._fail_waiting(connection, "the connection was lost")
        try:
            with anyio.fail_after(ACK_TIMEOUT_S):
                await taken
        except TimeoutError:
            raise UnavailableError(
                f"no acknowledgement in {ACK_TIMEOUT_S:g} s; {topic} may have been sent"
            ) from None
        finally:
            self._waiting.pop(key, None)

    # From here on: called in the connection's thread.

    def _keep_connected(self) -> None:
        brokers = self._settings.brokers
        attempt = failures = 0
        while not self._stop.is_set():
            lived_s = self._hold(brokers[attempt % len(brokers)])
            attempt += 1
            failures = 1 if lived_s >= STABLE_S else failures + 1
            # Every other broker is tried at once; the wait grows with each round of them.
            rounds, rest = divmod(failures, len(brokers))
            if rest == 0:
                wait_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(rounds - 1, 10))
                self._stop.wait(wait_s * random.uniform(0.75, 1.25))  # noqa: S311 (jitter)

    def _hold(self, url: str) -> float:
        """Connect to one broker and stay until it ends; how long it had accepted us, in seconds."""
        connection = _Connection(self._settings.client_id)
        try:
            self._connect(connection, url)
            self._serve(connection)
        except (OSError, ValueError, InvalidRequestError) as error:
            connection.why_ended = str(error)
        except Exception as error:  # whatever it is, the next attempt must come
            log.exception("mqtt connection failed")
            connection.why_ended = f"it broke: {type(error).__name__}"
        finally:
            self._connection, self._broker, self._ready = None, None, False
            connection.let_go()
        if not self._stop.is_set():
            self._note(f"{url}: {connection.why_ended or 'the connection was lost'}")
        self._post(self._fail_waiting, connection, "the connection was lost")
        since_s = connection.up_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def _connect(self, connection: _Connection, url: str) -> None:
        address = parse_broker(url)
        if self._settings.username is not None:
            connection.username_pw_set(self._settings.username, self._settings.read_password())
        if address.tls:
            connection.tls_set_context(self._settings.tls_context())
        self._wire(connection, url)
        connection.connect_timeout = CONNECT_TIMEOUT_S
        connection.max_queued_messages_set(MAX_WAITING)
        connection.connect(address.host, address.port, self._settings.keepalive_s)

    def _serve(self, connection: _Connection) -> None:
        self._connection = connection
        connection.loop_start()
        if not connection.answered.wait(CONNECT_TIMEOUT_S):
            connection.why_ended = f"no CONNACK in {CONNECT_TIMEOUT_S:g} s"
        while not self._stop.is_set() and not connection.why_ended:
            if connection.ended.wait(0.5):
                break
        self._end(connection)

    def _end(self, connection: _Connection) -> None:
        """Leave politely, then by force; the thread below must never outlive us."""
        connection.disconnect()
        if not connection.ended.wait(CLOSE_TIMEOUT_S):
            if isinstance(sock := connection.socket(), socket.socket):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            connection.ended.wait(CLOSE_TIMEOUT_S)

    def _wire(self, connection: _Connection, url: str) -> None:
        asked: dict[int, list[str]] = {}

        def on_connect(
            client: Client, _: Any, __: ConnectFlags, reason: ReasonCode, ___: Properties | None
        ) -> None:
            if reason.is_failure:
                connection.why_ended = f"the broker refused us: {reason}"
            else:
                connection.up_since_s = time.monotonic()  # a span, not a moment
                self._broker = url
                if self._subscriptions:
                    _, mid = client.subscribe(self._subscriptions)
                    asked[mid or 0] = [topic_filter for topic_filter, _ in self._subscriptions]
                else:
                    self._accept(())
            connection.answered.set()

        def on_subscribe(
            _: Client, __: Any, mid: int, reasons: list[ReasonCode], ___: Properties | None
        ) -> None:
            answers = zip(asked.pop(mid, []), reasons, strict=False)
            self._accept(tuple(name for name, reason in answers if reason.is_failure))

        def on_disconnect(
            _: Client, __: Any, ___: DisconnectFlags, reason: ReasonCode, ____: Properties | None
        ) -> None:
            if not connection.why_ended and reason.is_failure:
                connection.why_ended = f"the connection was lost: {reason}"
            self._broker, self._ready = None, False

        def on_publish(_: Client, __: Any, mid: int, ___: ReasonCode, ____: Properties) -> None:
            self._post(self._acknowledge, (id(connection), mid))

        connection.on_connect = on_connect
        connection.on_subscribe = on_subscribe
        connection.on_disconnect = on_disconnect
        connection.on_publish = on_publish
        connection.on_message = self._receive

    def _receive(self, _: Client, __: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            log.warning("mqtt message dropped, its topic is not UTF-8")
            return
        try:
            payload = bytes(message.payload)
            self._on_message(
                Message(topic, payload, message.retain, message.qos, self._clock.now())
            )
        except Exception:  # the connection outlives a subscriber that breaks its promise
            log.exception("mqtt subscriber failed", extra={"topic": topic[:200]})

    def _accept(self, refused: tuple[str, ...]) -> None:
        self._refused, self._ready = refused, True
        if refused:
            self._note(f"the broker refused the subscription to {', '.join(refused)} (SUBACK 0x80)")
        else:
            self._last_error = None
        self._post(self._changed.set)

    def _note(self, error: str) -> None:
        if error != self._last_error:
            log.warning("mqtt bus is not as it should be", extra={"error": error})
        self._last_error = error

    def _post(self, call: Callable[..., object], *args: object) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(call, *args)

    # From here on: called in the event loop's thread.

    def _acknowledge(self, key: tuple[int, int]) -> None:
        if (taken := self._waiting.get(key)) is not None and not taken.done():
            taken.set_result(None)

    def _fail_waiting(self, connection: _Connection | None, why: str) -> None:
        for (owner, _), taken in list(self._waiting.items()):
            if (connection is None or owner == id(connection)) and not taken.done():
                taken.set_exception(UnavailableError(f"{why}; the message may have been sent"))
