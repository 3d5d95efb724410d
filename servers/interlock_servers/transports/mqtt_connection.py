"""The thread that keeps one MQTT connection up: which broker, since when, with which token.

It does not know what messages mean or who waits for them.
"""

import asyncio
import logging
import random
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from interlock_servers.transports.mqtt_settings import MqttSettings, parse_broker
from interlock_servers.transports.mqtt_token import Token, renew_at_s
from interlock_tools.clock import Clock
from interlock_tools.errors import FactoryError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
NEXT_TIMEOUT_S = 1.0  # where another broker waits
CLOSE_TIMEOUT_S = 2.0
FIRST_RETRY_S = 0.25
LAST_RETRY_S = 30.0
STABLE_S = 10.0  # a connection that lived this long starts the back-off afresh
MAX_WAITING = 10_000
# A broker that dies without a word is found by a ping that stays unanswered: one interval until it
# is sent and one until it is missed. With another broker at hand both are a second.
SEVERAL_KEEPALIVE_S = 1
LOOP_S = 0.25
LOOK_EVERY_S = 0.5
FETCH_EVERY_S = 5.0


class Message(NamedTuple):
    """One message as it came off the wire."""

    topic: str
    payload: bytes
    retained: bool
    qos: int
    received_at: datetime


class Connection(Client):
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
        del timeout, retry_first_connection
        try:
            return super().loop_forever(LOOP_S, retry_first_connection=False)
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


class Link(ABC):
    """Keeps a connection to the first broker that answers; what waits on it is a subclass's."""

    def __init__(
        self,
        settings: MqttSettings,
        clock: Clock,
        on_message: Callable[[Message], None],
        subscriptions: Sequence[tuple[str, int]],
        on_change: Callable[[str | None], None] | None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._on_message = on_message
        self._subscriptions = list(subscriptions)
        self._on_change = on_change
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Connection | None = None
        self._broker: str | None = None
        self._ready = False
        self._last_error: str | None = None
        self._refused: tuple[str, ...] = ()
        self._changed = asyncio.Event()
        self._token: Token | None = None
        self._fresher: Token | None = None
        self._renewal_s: float | None = None
        self._look_after_s = 0.0

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

    @abstractmethod
    def _acknowledge(self, key: tuple[int, int]) -> None:
        """Say that the broker took what was published under this key."""

    @abstractmethod
    def _fail_waiting(self, connection: Connection | None, why: str) -> None:
        """Say of what waits on this connection, or on any, that its outcome is unknown."""

    # From here on: called in the connection's thread.

    def _keep_connected(self) -> None:
        brokers = self._settings.brokers
        attempt = failures = 0
        while not self._stop.is_set():
            lived_s = self._hold(brokers[attempt % len(brokers)])
            if self._fresher is not None:  # we left by ourselves: the same broker, at once
                failures = 0
                continue
            attempt += 1
            failures = 1 if lived_s >= STABLE_S else failures + 1
            # Every other broker is tried at once; the wait grows with each round of them.
            rounds, rest = divmod(failures, len(brokers))
            if rest == 0:
                wait_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(rounds - 1, 10))
                self._stop.wait(wait_s * random.uniform(0.75, 1.25))  # noqa: S311 (jitter)

    def _hold(self, url: str) -> float:
        """Connect to one broker and stay until it ends; how long it had accepted us, in seconds."""
        connection = Connection(self._settings.client_id)
        try:
            self._connect(connection, url)
            self._serve(connection)
        except (OSError, ValueError, FactoryError) as error:
            connection.why_ended = str(error)
        except Exception as error:  # whatever it is, the next attempt must come
            log.exception("mqtt connection failed")
            connection.why_ended = f"it broke: {type(error).__name__}"
        finally:
            self._connection, self._ready = None, False
            self._be_at(None)
            connection.let_go()
        if not self._stop.is_set() and self._fresher is None:
            self._note(f"{url}: {connection.why_ended or 'the connection was lost'}")
        self._post(self._fail_waiting, connection, "the connection was lost")
        since_s = connection.up_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def _connect(self, connection: Connection, url: str) -> None:
        address = parse_broker(url)
        self._token, self._fresher = (
            self._fresher or self._settings.read_token(self._clock.now()),
            None,
        )
        now = self._clock.now()
        if self._token is not None:
            self._token.check(now)
        self._renewal_s = renew_at_s(self._token, now, self._settings.renew_before_s)
        if self._settings.username is not None:
            secret = None if self._token is None else self._token.secret
            connection.username_pw_set(self._settings.username, secret)
        if address.tls:
            connection.tls_set_context(self._settings.tls_context())
        self._wire(connection, url)
        connection.connect_timeout = self._patience_s
        connection.max_queued_messages_set(MAX_WAITING)
        keepalive_s = self._settings.keepalive_s
        if len(self._settings.brokers) > 1:
            keepalive_s = min(keepalive_s, SEVERAL_KEEPALIVE_S)
        connection.connect(address.host, address.port, keepalive_s)

    @property
    def _patience_s(self) -> float:
        """How long a broker may take to answer: less where another one may answer instead."""
        several = len(self._settings.brokers) > 1
        return min(CONNECT_TIMEOUT_S, NEXT_TIMEOUT_S) if several else CONNECT_TIMEOUT_S

    def _serve(self, connection: Connection) -> None:
        self._connection = connection
        connection.loop_start()
        if not connection.answered.wait(self._patience_s):
            connection.why_ended = f"no CONNACK in {self._patience_s:g} s"
        while not self._stop.is_set() and not connection.why_ended:
            if connection.ended.wait(LOOK_EVERY_S):
                break
            renewal_s = self._renewal_s
            if renewal_s is not None and self._clock.now().timestamp() >= renewal_s:
                self._renew(connection)
        self._end(connection)

    def _renew(self, connection: Connection) -> None:
        """Leave for a fresher token where there is one; a broker asks for it only at connect."""
        if time.monotonic() < self._look_after_s:
            return
        self._look_after_s = time.monotonic() + self._settings.seconds_between_looks(FETCH_EVERY_S)
        try:
            found = self._settings.read_token(self._clock.now())
        except (OSError, FactoryError) as error:
            self._note(f"the token cannot be renewed: {error}")
            return
        if found is not None and found.outlives(self._token):
            self._fresher = found
            connection.why_ended = "to renew the token"
        else:
            self._note("the token expires soon, and no fresher one is there")

    def _end(self, connection: Connection) -> None:
        """Leave politely, then by force; the thread below must never outlive us."""
        connection.disconnect()
        if not connection.ended.wait(CLOSE_TIMEOUT_S):
            if isinstance(sock := connection.socket(), socket.socket):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            connection.ended.wait(CLOSE_TIMEOUT_S)

    def _wire(self, connection: Connection, url: str) -> None:
        asked: dict[int, list[str]] = {}

        def on_connect(
            client: Client, _: Any, __: ConnectFlags, reason: ReasonCode, ___: Properties | None
        ) -> None:
            if reason.is_failure:
                connection.why_ended = f"the broker refused us: {reason}"
            else:
                connection.up_since_s = time.monotonic()  # a span, not a moment
                self._be_at(url)
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
            self._ready = False
            self._be_at(None)

        def on_publish(_: Client, __: Any, mid: int, ___: ReasonCode, ____: Properties) -> None:
            self._post(self._acknowledge, (id(connection), mid))

        connection.on_connect = on_connect
        connection.on_subscribe = on_subscribe
        connection.on_disconnect = on_disconnect
        connection.on_publish = on_publish
        connection.on_message = self._receive

    def _be_at(self, broker: str | None) -> None:
        """Remember where we are, and tell whoever wants to know when that is somewhere else."""
        before, self._broker = self._broker, broker
        if before != broker and self._on_change is not None:
            try:
                self._on_change(broker)
            except Exception:  # the connection outlives a listener that breaks its promise
                log.exception("mqtt listener failed")

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
