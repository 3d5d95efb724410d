"""An MQTT 3.1.1 connection that survives its brokers; it does not know what the messages mean."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import anyio
from paho.mqtt.enums import MQTTErrorCode

from interlock_servers.transports.mqtt_connection import (
    CLOSE_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    Connection,
    Link,
    Message,
)
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

ACK_TIMEOUT_S = 5.0
MAX_PAYLOAD_BYTES = 4_194_304  # max_payload of the DSX event bus


class MqttBus(Link):
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
        on_change: Callable[[str | None], None] | None = None,
    ) -> None:
        """Describe the connection; `on_message` is called in its thread and must not raise.

        `on_change` is called there too, with the broker that we came to, or None when it is lost.

        Raises:
            InvalidRequestError: a filter that is not valid, or a QoS outside 0..2.
        """
        for topic_filter, qos in subscriptions:
            check_filter(topic_filter)
            check_qos(qos)
        super().__init__(settings, clock, on_message, subscriptions, on_change)
        self._waiting: dict[tuple[int, int], asyncio.Future[None]] = {}

    async def __aenter__(self) -> Self:
        """Start connecting.

        Raises:
            InvalidRequestError: a secret or a certificate that the settings name is not there.
        """
        self._settings.check_secrets()
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

    def _acknowledge(self, key: tuple[int, int]) -> None:
        if (taken := self._waiting.get(key)) is not None and not taken.done():
            taken.set_result(None)

    def _fail_waiting(self, connection: Connection | None, why: str) -> None:
        for (owner, _), taken in list(self._waiting.items()):
            if (connection is None or owner == id(connection)) and not taken.done():
                taken.set_exception(UnavailableError(f"{why}; the message may have been sent"))
