"""Our one way onto the bus: a connection of its own, and only to topics that metadata gave.

The connection that listens cannot publish, and this one does not listen.
"""

from types import TracebackType
from typing import Self

from interlock_servers.exchange.requests import Writable, value_payload
from interlock_servers.transports.mqtt import MqttBus, MqttSettings
from interlock_tools.clock import Clock
from interlock_tools.errors import UnavailableError

ACTIONABLE_QOS = 1  # "higher only for critical, time-sensitive points"


class Publisher:
    """Publishes values of our points; that one left us says nothing about who obeyed it."""

    def __init__(self, settings: MqttSettings, clock: Clock) -> None:
        self._clock = clock
        self._bus = MqttBus(settings, clock, lambda _: None, subscriptions=())
        self.sent = 0  # values that a broker has, or is being given

    async def __aenter__(self) -> Self:
        """Start connecting; it does not wait for a broker.

        Raises:
            InvalidRequestError: a secret or a certificate that the settings name is not there.
        """
        await self._bus.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the broker; what was published is not taken back."""
        await self._bus.__aexit__(kind, error, traceback)

    @property
    def connected(self) -> bool:
        """Whether a broker has accepted us."""
        return self._bus.connected

    @property
    def last_error(self) -> str | None:
        """What went wrong last with the connection."""
        return self._bus.last_error

    async def publish(self, point: Writable, value: float, *, qos: int = 0) -> None:
        """Say a value once, now, with this moment's timestamp; never retained.

        Raises:
            UnavailableError: no broker took it; with QoS above 0 it may have been sent.
        """
        payload = value_payload(value, self._clock.now())
        self.sent += 1
        try:
            await self._bus.publish(point.topic, payload, qos=qos, retain=False)
        except UnavailableError:
            self.sent -= 1
            raise
