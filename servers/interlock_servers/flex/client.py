"""What the grid says: DSX Flex on the bus, and the other signals that the settings name.

On the bus it only listens: what is verified goes to the store, what is not is counted.
"""

import asyncio
import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pydantic import ValidationError

from interlock_servers.flex.envelope import Envelope, Kind, parse_envelope, parse_topic, peek
from interlock_servers.flex.in_force import without_replaced
from interlock_servers.flex.keys import KeySource
from interlock_servers.flex.models import (
    Deviation,
    Enforcement,
    FeedState,
    LoadTarget,
    PowerBreach,
    Reason,
    Rejected,
    RejectedError,
    SiteLimit,
)
from interlock_servers.flex.openadr.client import OpenAdrClient
from interlock_servers.flex.payloads import (
    parse_breach,
    parse_enforcement,
    parse_load_targets,
    parse_power_state,
)
from interlock_servers.flex.recorded import FILE_NAME, TargetRecord
from interlock_servers.flex.replay_file import ReplayFile
from interlock_servers.flex.replays import ReplayGuard
from interlock_servers.flex.schedule import Schedule, grid_schedule
from interlock_servers.flex.settings import FlexSettings
from interlock_servers.flex.signals import GridSignal, Health
from interlock_servers.flex.store import FlexStore
from interlock_servers.flex.strict_json import JsonObject
from interlock_servers.transports.mqtt import Message, MqttBus, MqttSettings
from interlock_tools.clock import Clock

log = logging.getLogger(__name__)

WATCH_S: Final = 0.25
MAX_WAITING: Final = 64  # messages whose key may be published by now
_FILTERS: Final = (
    ("grid/v1/isv/+/loadtarget/set", 1),
    ("grid/v1/+/+/powerstate/status", 1),
    ("grid/v1/+/+/powerbreach", 2),
    ("grid/v1/infra/+/powerbreach/enforcement", 2),
)


class FlexClient:
    """The load targets, feed states and breaches of one site; reads never wait for the bus."""

    def __init__(self, settings: FlexSettings, clock: Clock, *, folder: Path | None = None) -> None:
        """Read the keys and describe the connection.

        In `folder` it is kept what was taken: so that it is not taken again after a restart, and
        the targets for the settlement of an event.

        Raises:
            InvalidRequestError: the keys cannot be read, or do not fit the trusted sources.
        """
        self.settings = settings
        self._clock = clock
        self._keys = None if settings.mqtt is None else KeySource(settings, clock)
        self._waiting: deque[Message] = deque()
        memory = None
        if folder is not None and settings.mqtt is not None:
            memory = ReplayFile(folder / _file_name(settings.mqtt))
        self._replay = ReplayGuard(settings.replay_window_s, memory)
        self._record = None if folder is None else TargetRecord(folder / FILE_NAME)
        self.openadr = None
        if settings.openadr is not None:
            self.openadr = OpenAdrClient(settings.openadr, clock, self._refuse, self._write_down)
        self._signals: tuple[GridSignal, ...] = () if self.openadr is None else (self.openadr,)
        self._store = FlexStore(settings.feeds, self._of_signals)
        self._bus = None if settings.mqtt is None else self._bus_at(settings.mqtt)
        self._lock = threading.Lock()
        self._was_connected = False
        self._told = False  # since we connected, the agent has said what is in force
        self._certain_at: datetime | None = None
        self._accepted = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._watchers: tuple[asyncio.Task[None], ...] = ()
        self._opened = AsyncExitStack()

    def _bus_at(self, mqtt: MqttSettings) -> MqttBus:
        cpc_id = self.settings.cpc_id
        prefixes = [""] if cpc_id is None else ["", f"cpc/{cpc_id}/"]
        filters = [(prefix + name, qos) for prefix in prefixes for name, qos in _FILTERS]
        return MqttBus(mqtt, self._clock, self.hear, subscriptions=filters)

    async def __aenter__(self) -> Self:
        """Start connecting; see `wait_connected`.

        Raises:
            InvalidRequestError: a secret or certificate that the settings name is not there; what
                was taken is kept by another process.
        """
        if not self._replay.recall(self._clock.now()):
            self._store.note([Deviation.REPLAY_MEMORY_LOST])
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            stack.callback(self._replay.close)
            if self._keys is not None:
                await self._keys.look_if_due()
            if self._bus is not None:
                await stack.enter_async_context(self._bus)
            for signal in self._signals:
                await stack.enter_async_context(signal)
            self._opened = stack.pop_all()
        self._watchers = (
            asyncio.create_task(self._watch(), name="flex-watch"),
            *self._watching_keys(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Leave the bus; what was heard can still be read."""
        for watcher in self._watchers:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher
        await self._opened.__aexit__(kind, error, tb)

    async def wait_connected(self, timeout_s: float) -> None:
        """Return once a broker has accepted us; at once where there is no bus.

        Raises:
            UnavailableError: none did in time.
        """
        if self._bus is not None:
            await self._bus.wait_connected(timeout_s)

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Return once `holds()`, asked after every message and every change of the connection.

        The caller sets the deadline.
        """
        while True:
            self._news.clear()
            if holds():
                return
            await self._news.wait()

    # --- reads ---

    def targets_in_force(self, moment: datetime) -> dict[str, LoadTarget]:
        """Per feed the target that limits it at `moment`; a feed without a limit is absent."""
        return self._store.targets_in_force(moment)

    def upcoming(self, moment: datetime) -> tuple[LoadTarget, ...]:
        """The targets that begin after `moment`, in that order."""
        return self._store.upcoming(moment)

    def targets(self, moment: datetime) -> tuple[LoadTarget, ...]:
        """Every target that holds at `moment` or later, replaced ones too."""
        return self._store.targets(moment)

    def open_targets(self, correlation_id: str, moment: datetime) -> tuple[LoadTarget, ...]:
        """The targets of a request that are in force at `moment`, or announced for later."""
        return self._store.open_targets(correlation_id, moment)

    def standing(self, moment: datetime) -> tuple[LoadTarget, ...]:
        """The targets that still hold for some feed at `moment` or later; not replaced ones."""
        return tuple(without_replaced(self._store.targets(moment), self.settings.feeds))

    def verified(self, compact: str, source: str) -> JsonObject:
        """The payload that `source` signed, by the keys as they are known now.

        Raises:
            RejectedError: it would not be believed; says why.
        """
        if self._keys is None:
            raise RejectedError(Reason.KEYS_UNKNOWN, "there is no bus, and so no signer")
        return self._keys.verify(compact, source)

    def set_since(self, feeds: Iterable[str], since: datetime) -> bool:
        """Whether the agent has said `target_set` of each of these feeds since that moment."""
        at = self._store.target_set_at()
        return all(feed in at and at[feed] >= since for feed in feeds)

    def echoed(self, correlation_id: str, feeds: Iterable[str]) -> bool:
        """Whether the agent said `target_set` of each of these feeds with this request among it."""
        return set(feeds) <= self._store.echoes(correlation_id)

    def site_limit(self, moment: datetime) -> SiteLimit:
        """The limit on the whole site at `moment`; only as good as `health` says."""
        return self._store.site_limit(moment)

    def schedule(self, moment: datetime) -> Schedule:
        """The site's limit over time from `moment` on; only as good as `health` says."""
        states = self._store.feed_states()
        whole = states.keys() == set(self.settings.feeds)
        return grid_schedule(
            self._store.targets(moment),
            feeds=self.settings.feeds,
            now=moment,
            ramp=self.settings.ramp,
            draw_w=sum(s.calculated_load_w for s in states.values()) if whole else None,
            notice_s=self.settings.notice_s,
        )

    def feed_states(self) -> dict[str, FeedState]:
        """The agent's last word on each feed; calculated, not metered, and as old as it says."""
        return self._store.feed_states()

    def breaches(self) -> tuple[PowerBreach, ...]:
        """The last word on each breach, the one detected last first."""
        return self._store.breaches()

    def enforcements(self) -> tuple[Enforcement, ...]:
        """The last word on what was enforced for each breach, newest first."""
        return self._store.enforcements()

    @property
    def accepted(self) -> int:
        """How many messages were taken in since the start."""
        return self._accepted

    def rejected(self) -> dict[Reason, Rejected]:
        """What was rejected, by reason."""
        return self._store.rejected()

    def deviations(self) -> dict[Deviation, int]:
        """How often each departure from the specification was accepted."""
        return self._store.deviations()

    def health(self) -> Health:
        """Whether what we know is all there is to know."""
        with self._lock:
            self._look()
            return Health(
                connected=self._was_connected,
                broker=None if self._bus is None else self._bus.broker,
                certain_at=self._certain_at,
                why_not=self._why_not(),
            )

    def _why_not(self) -> str | None:
        if (why := self._why_not_the_bus()) is not None:
            return why
        return next((w for s in self._signals if (w := s.health().why_not) is not None), None)

    def _why_not_the_bus(self) -> str | None:
        if self._bus is None or self._keys is None:
            return None
        if not self._was_connected:
            return f"the bus is disconnected: {self._bus.last_error or 'connecting'}"
        if refused := self._bus.refused_filters:
            return f"the broker refused the subscription to {', '.join(refused)}"
        if (unknown := self._keys.why_not()) is not None:
            return unknown
        if not self._told:
            return "since connecting, the Flex Agent has not said which targets are in force"
        return None

    def _of_signals(self, moment: datetime) -> tuple[LoadTarget, ...]:
        return tuple(target for signal in self._signals for target in signal.targets(moment))

    def _write_down(self, targets: Iterable[LoadTarget]) -> None:
        if self._record is not None:
            self._record.add(targets)

    def _refuse(
        self, error: RejectedError, where: str, source: str | None, name: str | None, at: datetime
    ) -> None:
        self._store.reject(error, where, source, name, at)

    # --- the connection, watched from both threads ---

    async def _watch(self) -> None:
        while True:
            with self._lock:
                self._look()
            await asyncio.sleep(WATCH_S)  # the socket's time, whatever the injected clock says

    def _watching_keys(self) -> Iterable[asyncio.Task[None]]:
        if self._keys is not None:
            yield asyncio.create_task(self._watch_keys(self._keys), name="flex-keys")

    async def _watch_keys(self, keys: KeySource) -> None:
        while True:
            before = len(self._waiting)  # what comes while we look may need another look
            try:
                looked = await keys.look_if_due()
            except Exception:  # whatever a publisher says, we look again
                log.exception("the signers' keys could not be understood")
                looked = False
            if looked:
                with self._lock:
                    waiting, self._waiting = self._waiting, deque()
                for place, message in enumerate(waiting):
                    self.hear(message, looked=place < before)
                self._tell()
            await asyncio.sleep(WATCH_S)

    def _look(self) -> None:
        connected = self._connected()
        # What came while the keys were not known was refused.
        if self._keys is not None and self._keys.why_not() is not None:
            self._told = not self.settings.needs_snapshot
        if connected and not self._was_connected:
            self._told = not self.settings.needs_snapshot
        if connected != self._was_connected:
            self._was_connected = connected
            self._tell()
        if self._why_not() is None:
            self._certain_at = self._clock.now()

    def _connected(self) -> bool:
        """To the bus; where there is none, to every other signal."""
        if self._bus is not None:
            return self._bus.connected
        return all(signal.health().connected for signal in self._signals)

    # --- the network thread, and the loop for what waited for a key ---

    def hear(self, message: Message, looked: bool = False) -> None:
        """Take one message in, as the thread of the network does. Never raises.

        `looked`: its key has been looked for since it came.
        """
        with self._lock:
            self._look()
        try:
            self._take(message)
        except RejectedError as error:
            if looked or error.reason is not Reason.KEY_NOT_PUBLISHED:
                self._reject(error, message)
            else:
                self._wait_for_key(error, message)
        except ValidationError as error:
            self._reject(RejectedError(Reason.BAD_PAYLOAD, str(error)), message)
        except Exception as error:  # one message must never deafen us to the next
            log.exception("flex message failed", extra={"topic": message.topic[:200]})
            self._reject(RejectedError(Reason.FAILED, type(error).__name__), message)
        self._tell()

    def _wait_for_key(self, error: RejectedError, message: Message) -> None:
        """Nobody sends a target twice: it is tried again once the keys were looked at."""
        with self._lock:
            self._waiting.append(message)
            oldest = self._waiting.popleft() if len(self._waiting) > MAX_WAITING else None
        if oldest is not None:
            self._reject(error, oldest)

    def _tell(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    def _take(self, message: Message) -> None:
        topic = parse_topic(message.topic)
        envelope = parse_envelope(topic, message.payload)
        self._replay.check_time(envelope.sent_at, message.received_at)
        payload = self.verified(envelope.data, envelope.source)
        self._replay.take(
            envelope.event_id,
            envelope.sent_at,
            envelope.data,
            message.received_at,
            dated=envelope.kind is Kind.POWER_STATE,
        )
        self._apply(envelope, payload, message.received_at)
        self._store.note(envelope.deviations)
        with self._lock:
            self._accepted += 1

    def _apply(self, envelope: Envelope, payload: JsonObject, at: datetime) -> None:
        match envelope.kind:
            case Kind.LOAD_TARGET:
                targets = parse_load_targets(envelope, payload, at)
                self._replay.check_signed(target.start for target in targets)
                self._store.add_targets(targets, at)
                self._write_down(targets)
            case Kind.POWER_STATE:
                states = parse_power_state(envelope, payload, at)
                for state in states[:1]:  # all have the one moment, which is signed
                    self._replay.check_time(state.snapshot_at, at)
                if self._store.take_snapshot(states, at):
                    with self._lock:
                        self._told = self._connected()
                        self._look()
            case Kind.BREACH:
                self._store.add_breach(parse_breach(envelope, payload, at))
            case Kind.ENFORCEMENT:
                self._store.add_enforcement(parse_enforcement(envelope, payload, at))

    def _reject(self, error: RejectedError, message: Message) -> None:
        source, event_id = peek(message.payload)
        self._store.reject(error, message.topic, source, event_id, message.received_at)
        log.warning(
            "flex message rejected",
            extra={"reason": str(error.reason), "topic": message.topic[:200], "source": source},
        )


def _file_name(mqtt: MqttSettings) -> str:
    """A file for each connection: several may share a folder, and each hears everything."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", mqtt.client_id)
    return f"flex-replays-{plain}.log"
