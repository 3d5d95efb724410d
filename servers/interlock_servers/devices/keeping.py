"""The caps of one node: setting them, holding them, and ending each at its safe value.

Every cap has an end. When its time is over and nobody has renewed it, because the controller is
silent, gone or cut off, its safe value is set, and tried again until the device has it. This knows
nothing of budgets: what is safe is said with the cap.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from interlock_servers.devices.device import GpuDevice, why_not_settable
from interlock_servers.devices.leases import Lease, LeaseBook
from interlock_servers.devices.models import (
    SAME_W,
    GpuReading,
    LimitOutcome,
    Outcome,
    known,
)
from interlock_servers.devices.node_models import MOST_CAPS, Cap, CapState, HeldCap
from interlock_servers.devices.settings import AgentSettings
from interlock_servers.devices.worker import DriverThread, HungError
from interlock_tools.clock import Clock
from interlock_tools.errors import ConflictError, InvalidRequestError

log = logging.getLogger(__name__)

# What leaves the device as it was: then there is nothing to bring back.
_NOTHING_DONE: Final = frozenset({Outcome.REFUSED, Outcome.IGNORED})

DevicesByKey = Callable[[], Awaitable[Mapping[str, GpuDevice]]]


class CapKeeper:
    """Sets and ends the caps of one node, one request at a time."""

    def __init__(
        self,
        settings: AgentSettings,
        clock: Clock,
        driver: DriverThread,
        devices: DevicesByKey,
        *,
        takes_writes: bool,
    ) -> None:
        """Take over what was held before.

        Args:
            settings: of the agent.
            clock: of ends.
            driver: where devices are asked.
            devices: the GPUs by key, in the driver's time; raises HungError.
            takes_writes: whether it sets any; without, it ends the caps that it still holds.

        Raises:
            InvalidRequestError: it cannot be known which caps are held from before.
        """
        self._settings = settings
        self._clock = clock
        self._driver = driver
        self._devices = devices
        self._takes_writes = takes_writes
        self._book = LeaseBook(settings.state_file)
        self._one_at_a_time = asyncio.Lock()

    def held(self) -> tuple[HeldCap, ...]:
        """The caps that it holds."""
        now = self._clock.now()
        return tuple(lease.held(now) for lease in self._book.all())

    async def set_limits(
        self,
        caps: Sequence[Cap],
        readings: Sequence[GpuReading],
        *,
        controller_id: str,
        change_id: str,
    ) -> tuple[LimitOutcome, ...]:
        """Set limits, those that lower first; as `NodeAgent.set_limits`.

        `readings` are the last ones: they say what is in range and what would rise.
        """
        self._check(caps, controller_id, change_id)
        async with self._one_at_a_time:
            self._check_holder(controller_id)
            try:
                devices = await self._devices()
            except HungError:
                raise ConflictError("the driver does not answer; nothing was set") from None
            limits = {each.identity.key: each.limits for each in readings}
            for cap in caps:
                if cap.key not in devices or cap.key not in limits:
                    raise InvalidRequestError(f"{self._settings.node_id} has no GPU {cap.key!r}")
                for what, watts in (("limit_w", cap.limit_w), ("safe_w", cap.safe_w)):
                    if (why := why_not_settable(limits[cap.key], watts)) is not None:
                        raise InvalidRequestError(f"{what} of {cap.key}: {why}")
            earlier = {cap.key: self._book.of(cap.key) for cap in caps}
            now = self._clock.now()
            try:
                self._book.put(_lease(cap, now, controller_id, change_id) for cap in caps)
            except OSError as error:
                why = f"caps cannot be written down, so none is set: {error}"
                raise ConflictError(why) from None
            rises_w = {cap.key: _rise_w(cap, known(limits[cap.key].now_w)) for cap in caps}
            outcomes: dict[str, LimitOutcome] = {}
            for cap in sorted(caps, key=lambda cap: rises_w[cap.key]):
                failed = [outcome.key for outcome in outcomes.values() if not outcome.holds]
                if rises_w[cap.key] > 0 and failed:
                    why = f"not raised, because the limit of {failed[0]} did not hold"
                    outcome = LimitOutcome(cap.key, cap.limit_w, Outcome.REFUSED, None, None, why)
                else:
                    outcome = await self._set(devices[cap.key], cap.limit_w)
                outcomes[cap.key] = outcome
                self._note("limit asked for", outcome, change_id)
            self._forget([o for o in outcomes.values() if o.outcome in _NOTHING_DONE], earlier)
        return tuple(outcomes[cap.key] for cap in caps)

    def renew(
        self, keys: Sequence[str], *, controller_id: str, expires_in_s: float
    ) -> tuple[tuple[HeldCap, ...], tuple[str, ...]]:
        """Let caps last longer; as `NodeAgent.renew`."""
        self._check_span(expires_in_s)
        now = self._clock.now()
        renewed, not_held = [], []
        for key in dict.fromkeys(keys):
            lease = self._book.of(key)
            if lease is None or lease.controller_id != controller_id or lease.is_over(now):
                not_held.append(key)
                continue
            ends = now + timedelta(seconds=expires_in_s)
            renewed.append(replace(lease, renewed_at=now, expires_at=ends))
        if renewed:
            self._book.put(renewed)
        return tuple(lease.held(now) for lease in renewed), tuple(not_held)

    async def end(
        self, keys: Sequence[str] | None = None, *, controller_id: str | None = None
    ) -> tuple[LimitOutcome, ...]:
        """End caps now, at their safe values: those of these GPUs and this controller, or all."""
        outcomes = []
        is_hung = False
        async with self._one_at_a_time:
            wanted = [lease.key for lease in self._book.all()] if keys is None else keys
            for key in dict.fromkeys(wanted):
                lease = self._book.of(key)
                if lease is None or controller_id not in (None, lease.controller_id):
                    why = "this controller holds no cap on it"
                    outcomes.append(LimitOutcome(key, 0.0, Outcome.REFUSED, None, None, why))
                    continue
                if not is_hung:  # one wait for a driver that hangs is enough
                    try:
                        outcomes.append(await self._bring_back(lease))
                        continue
                    except HungError:
                        is_hung = True
                why = "the driver does not answer; it is tried again when the cap is over"
                outcomes.append(LimitOutcome(key, lease.safe_w, Outcome.UNKNOWN, None, None, why))
        return tuple(outcomes)

    async def end_overdue(self) -> None:
        """End the caps whose time is over.

        Raises:
            HungError: the driver does not answer; they are still held.
        """
        async with self._one_at_a_time:
            for lease in self._book.over(self._clock.now()):
                try:
                    outcome = await self._bring_back(lease)
                except HungError:
                    raise
                except Exception:  # whatever it is, the other caps must end
                    log.exception("cap cannot be ended: gpu=%s", lease.key)
                    continue
                self._note("cap is over", outcome, lease.change_id)

    def compare(self, readings: Sequence[GpuReading]) -> None:
        """See which caps the devices no longer have. They are not set again: two would fight."""
        for reading in readings:
            lease, now_w = self._book.of(reading.identity.key), known(reading.limits.now_w)
            if lease is None or now_w is None or reading.observed_at < lease.renewed_at:
                continue
            holds = abs(now_w - lease.limit_w) <= SAME_W
            self._book.mark(lease.key, CapState.HELD if holds else CapState.REVERTED)

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    async def _set(self, device: GpuDevice, limit_w: float) -> LimitOutcome:
        try:
            return await self._driver.run(
                lambda: device.set_power_limit(limit_w), self._settings.driver_timeout_s
            )
        except HungError as error:
            kind = Outcome.UNKNOWN if error.begun else Outcome.REFUSED
            why = "the driver does not answer" + ("" if error.begun else "; it was not asked")
            return LimitOutcome(device.identity.key, limit_w, kind, None, None, why)

    async def _bring_back(self, lease: Lease) -> LimitOutcome:
        """Set the safe value, or leave a limit that somebody else has set no higher than that."""
        device = (await self._devices()).get(lease.key)
        if device is None:
            why = "the GPU is not there now; its cap is kept until it is"
            return LimitOutcome(lease.key, lease.safe_w, Outcome.UNKNOWN, None, None, why)
        now_w = await self._driver.run(
            lambda: known(device.limits().now_w), self._settings.driver_timeout_s
        )
        is_ours = now_w is None or abs(now_w - lease.limit_w) <= SAME_W
        if now_w is not None and not is_ours and now_w <= lease.safe_w + SAME_W:
            why = f"somebody else has set {now_w:g} W; it is not raised"
            outcome = LimitOutcome(lease.key, lease.safe_w, Outcome.APPLIED, now_w, now_w, why)
        else:
            outcome = await self._set(device, lease.safe_w)
        if outcome.holds:
            self._book.drop([lease.key])
        return outcome

    def _forget(self, outcomes: Sequence[LimitOutcome], earlier: dict[str, Lease | None]) -> None:
        """Where nothing was done, what was held before is held still."""
        back = [lease for o in outcomes if (lease := earlier[o.key]) is not None]
        gone = [o.key for o in outcomes if earlier[o.key] is None]
        if back:
            self._book.put(back)
        if gone:
            self._book.drop(gone)

    def _note(self, what: str, outcome: LimitOutcome, change_id: str) -> None:
        log.info(
            "%s: node=%s gpu=%s asked_w=%s outcome=%s change=%s why=%s",
            what,
            self._settings.node_id,
            outcome.key,
            outcome.asked_w,
            outcome.outcome.value,
            change_id,
            outcome.why,
        )

    def _check(self, caps: Sequence[Cap], controller_id: str, change_id: str) -> None:
        if not self._takes_writes:
            raise InvalidRequestError("this agent only reads; it was not started to set limits")
        if not controller_id or not change_id:
            raise InvalidRequestError("controller_id and change_id say who caps and by what right")
        keys = [cap.key for cap in caps]
        if not keys or len(keys) > MOST_CAPS or len(set(keys)) != len(keys):
            raise InvalidRequestError(f"caps name {len(keys)} GPUs; 1 to {MOST_CAPS}, each once")
        most_w = self._settings.most_w
        for cap in caps:
            self._check_span(cap.expires_in_s)
            if most_w is not None and not max(cap.limit_w, cap.safe_w) <= most_w:
                raise InvalidRequestError(
                    f"{cap.key}: this agent never sets more than {most_w:g} W, whoever asks"
                )

    def _check_span(self, expires_in_s: float) -> None:
        if not 0 < expires_in_s <= self._settings.most_hold_s:
            raise InvalidRequestError(
                f"expires_in_s {expires_in_s:g} must be above 0 and at most "
                f"{self._settings.most_hold_s:g}: a cap without an end is not set"
            )

    def _check_holder(self, controller_id: str) -> None:
        others = {lease.controller_id for lease in self._book.all()} - {controller_id}
        if others:
            raise ConflictError(
                f"{', '.join(sorted(others))} holds caps on this node; one controller at a time"
            )


def _rise_w(cap: Cap, now_w: float | None) -> float:
    """By how much a cap raises its limit; where the present one is not known, without bound."""
    return float("inf") if now_w is None else cap.limit_w - now_w


def _lease(cap: Cap, now: datetime, controller_id: str, change_id: str) -> Lease:
    return Lease(
        key=cap.key,
        limit_w=cap.limit_w,
        safe_w=cap.safe_w,
        renewed_at=now,
        expires_at=now + timedelta(seconds=cap.expires_in_s),
        controller_id=controller_id,
        change_id=change_id,
    )
