"""The agent of one node: it reads the GPUs by itself, answers with what it saw, and keeps caps.

Whoever asks it never waits for a device: an answer is the last look, with its age.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from interlock_servers.devices.device import GpuDevice, GpuHost
from interlock_servers.devices.keeping import CapKeeper
from interlock_servers.devices.models import GpuReading, LimitOutcome, Unread
from interlock_servers.devices.node_models import Cap, HeldCap, NodeAnswer
from interlock_servers.devices.settings import AgentSettings
from interlock_servers.devices.worker import DriverThread, HungError
from interlock_tools.clock import Clock
from interlock_tools.errors import FactoryError

log = logging.getLogger(__name__)

OpenHost = Callable[[], GpuHost]


class NodeAgent:
    """One host's GPUs, for `NodeServer` to serve."""

    def __init__(
        self, settings: AgentSettings, clock: Clock, open_host: OpenHost, *, takes_writes: bool
    ) -> None:
        """Describe the agent.

        Args:
            settings: of the agent.
            clock: of ages and ends.
            open_host: opens the GPUs; called again where they are gone, in the driver's thread.
            takes_writes: whether it sets limits. Without, it ends the caps that it still holds.

        Raises:
            InvalidRequestError: it cannot be known which caps it holds from before.
        """
        self.settings = settings
        self.takes_writes = takes_writes
        self._clock = clock
        self._open_host = open_host
        self._boot_id = uuid.uuid4().hex
        self._sequence = 0
        self._readings: tuple[GpuReading, ...] | None = None
        self._failure = "the devices were not read yet"
        self._host: GpuHost | None = None
        self._says = ""
        self._driver = DriverThread(f"interlock-{settings.node_id}")
        self._caps = CapKeeper(
            settings, clock, self._driver, self._devices_by_key, takes_writes=takes_writes
        )
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """End the caps that are over, read once, and go on with both until it is left."""
        await self.look()
        self._looking = asyncio.create_task(self._look_again())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every cap at its safe value: nobody would end it when we are gone."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        try:
            await self._caps.end()
            await self._driver.run(self._close, self.settings.driver_timeout_s)
        except (HungError, FactoryError, OSError) as failure:
            left = len(self._caps.held())
            log.warning(
                "caps are left: node=%s caps=%s why=%s", self.settings.node_id, left, failure
            )
        self._driver.close()

    # ── reads ─────────────────────────────────────────────────────────────────────────────────

    def answer(self) -> NodeAnswer:
        """What it saw last, and how old that is."""
        now = self._clock.now()
        readings = self._readings
        age_s = None
        if readings is not None:
            oldest = min((each.observed_at for each in readings), default=now)
            age_s = (now - oldest).total_seconds()
        return NodeAnswer(
            node_id=self.settings.node_id,
            boot_id=self._boot_id,
            sequence=self._sequence,
            age_s=age_s,
            says=self._says,
            takes_writes=self.takes_writes,
            failure=self._failure,
            gpus=readings or (),
            held=self._caps.held(),
        )

    async def look(self) -> None:
        """End the caps that are over, then read every device; what fails is told in `answer`."""
        try:
            await self._caps.end_overdue()
            readings = await self._driver.run(self._read, self.settings.driver_timeout_s)
        except HungError:
            self._failure = "the driver does not answer"
            return
        except FactoryError as error:
            self._failure = str(error)
            return
        except OSError as error:
            self._failure = f"held caps cannot be written: {error}"
            return
        self._readings, self._failure = readings, ""
        self._sequence += 1
        self._caps.compare(readings)

    # ── writes ────────────────────────────────────────────────────────────────────────────────

    async def set_limits(
        self, caps: Sequence[Cap], *, controller_id: str, change_id: str
    ) -> tuple[LimitOutcome, ...]:
        """Set limits, those that lower first, and raise only when all of those hold.

        Args:
            caps: at most one for each GPU; each ends by itself.
            controller_id: who holds them from now on.
            change_id: the change of the guard that allows it.

        Returns:
            What became of each, in the order asked.

        Raises:
            InvalidRequestError: it can never be; nothing was done.
            ConflictError: another holds caps here, or it cannot be done now; nothing was done.
        """
        return await self._caps.set_limits(
            caps, self._readings or (), controller_id=controller_id, change_id=change_id
        )

    def renew(
        self, keys: Sequence[str], *, controller_id: str, expires_in_s: float
    ) -> tuple[tuple[HeldCap, ...], tuple[str, ...]]:
        """Let caps last longer: the sign of life of who holds them.

        Returns:
            The caps renewed, and the GPUs that this controller holds none on. What is over stays
            over: it is on its way to its safe value.

        Raises:
            InvalidRequestError: a time that is not allowed.
        """
        return self._caps.renew(keys, controller_id=controller_id, expires_in_s=expires_in_s)

    async def end(self, keys: Sequence[str], *, controller_id: str) -> tuple[LimitOutcome, ...]:
        """End caps of this controller now, at their safe values.

        Returns:
            What became of each; of a GPU that it holds none on, a refusal.
        """
        return await self._caps.end(keys, controller_id=controller_id)

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    async def _look_again(self) -> None:
        while True:
            await self._clock.sleep(self.settings.sample_s)
            try:
                await self.look()
            except Exception as error:  # caps end only as long as this goes on
                log.exception("look failed: node=%s", self.settings.node_id)
                self._failure = f"the devices cannot be read: {error!r}"

    def _read(self) -> tuple[GpuReading, ...]:
        """In the driver's thread: everything, opening the host where it is not open."""
        readings = tuple(device.read() for device in self._opened().devices())
        if readings and all(_says_nothing(reading) for reading in readings):
            self._close()  # the driver was loaded anew, or is gone: begin again at the next look
        return readings

    def _opened(self) -> GpuHost:
        if self._host is None:
            self._host = self._open_host()
            self._says = self._host.says
        return self._host

    def _close(self) -> None:
        host, self._host = self._host, None
        if host is not None:
            host.close()

    async def _devices_by_key(self) -> Mapping[str, GpuDevice]:
        def devices() -> dict[str, GpuDevice]:
            return {device.identity.key: device for device in self._opened().devices()}

        return await self._driver.run(devices, self.settings.driver_timeout_s)


def _says_nothing(reading: GpuReading) -> bool:
    """Whether not even its limit and its power can be read."""
    return isinstance(reading.limits.now_w, Unread) and isinstance(reading.power_w, Unread)
