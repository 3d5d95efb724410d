"""The DSX Flex Agent on the wire, over the plant: it takes targets, reports, and raises alerts.

It only reports: lowering the load is the site's own business, and so is what the meter then says.
"""

import asyncio
import json
import uuid
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from interlock_plant.plant import Plant
from interlock_servers.flex.twin_isv import GridIsvTwin, IsvFault
from interlock_servers.flex.twin_schedule import UNLIMITED, Schedule, TakenTarget
from interlock_servers.flex.twin_wire import (
    Json,
    TwinKey,
    event,
    iso,
    jwks,
    make_key,
    power,
    sign,
    write_jwks,
)
from interlock_servers.transports.mqtt import Message, MqttBus, MqttSettings
from interlock_tools.clock import Clock
from interlock_tools.errors import UnavailableError

__all__ = [
    "AgentFault",
    "FlexAgentTwin",
    "GridIsvTwin",
    "IsvFault",
    "TwinKey",
    "jwks",
    "make_key",
    "write_jwks",
]

HEARTBEAT_S: Final = 10.0
CRITICAL_OVER: Final = 1.2  # of the target


class AgentFault(StrEnum):
    """A way for the agent to misbehave."""

    SILENT = "silent"  # it publishes nothing
    IGNORES_TARGETS = "ignores_targets"  # as it does with a target that it rejects
    CLAIMS_COMPLIANT = "claims_compliant"  # calculated, not metered


@dataclass
class _Breach:
    """An open breach."""

    target: TakenTarget
    feed: str
    detected_at: datetime
    breach_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    severity: str = "warning"


class FlexAgentTwin:
    """The agent; whoever steps the plant calls `step` after each simulated second."""

    def __init__(
        self,
        broker: str,
        plant: Plant,
        key: TwinKey,
        isv_jwks: Mapping[str, Any],
        clock: Clock,
        *,
        identifier: str = "maxlps",
        role: str = "dsx-flex-agent",
        topic_prefix: str = "",
        breach_after_s: float = 0.0,
    ) -> None:
        """Describe the agent.

        Args:
            broker: where the bus is.
            plant: the feeds are those of its site; its site limit follows the targets.
            key: signs what the agent says.
            isv_jwks: the public keys of the ISVs that it obeys.
            clock: of the connection; the agent itself lives in the plant's time.
            identifier: its name.
            role: `dsx-flex-agent`, or the older `poweragent`.
            topic_prefix: `cpc/{id}/` on the common bus.
            breach_after_s: how long a feed may be above a new target before that is a breach.
        """
        self.source = f"//grid/v1/{role}/{identifier}"
        self.faults: set[AgentFault] = set()
        self._plant = plant
        self._key = key
        self._clock = clock
        self._root = f"{topic_prefix}grid/v1/{role}/{identifier}"
        self._breach_after_s = breach_after_s
        self._inbox: deque[bytes] = deque()
        self._heard = 0
        self._something = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._schedule = Schedule(isv_jwks)
        self._governing: dict[str, TakenTarget | None] = dict.fromkeys(plant.site.feed_ids)
        self._ramps: dict[str, str] = {}  # feed -> down or up
        self._ramp_start: dict[str, datetime] = {}
        self._breaches: dict[tuple[str, str], _Breach] = {}
        self._last_status_at: datetime | None = None
        self._bus = MqttBus(
            MqttSettings(brokers=(broker,), client_id=f"twin-flex-{uuid.uuid4().hex[:8]}"),
            clock,
            self._receive,
            subscriptions=[(f"{topic_prefix}grid/v1/isv/+/loadtarget/set", 1)],
        )

    async def __aenter__(self) -> Self:
        """Connect."""
        self._loop = asyncio.get_running_loop()
        await self._bus.enter_connected(10.0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Leave."""
        await self._bus.__aexit__(kind, error, tb)

    def _receive(self, message: Message) -> None:
        self._inbox.append(message.payload)
        self._heard += 1
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._something.set)

    @property
    def heard(self) -> int:
        """How many messages have come since the start, good or not."""
        return self._heard

    async def wait_connected(self, timeout_s: float) -> None:
        """Return once a broker has accepted it (again).

        Raises:
            UnavailableError: none did in time.
        """
        await self._bus.wait_connected(timeout_s)

    async def wait_heard(self, count: int) -> None:
        """Return once `count` messages have come since the start; the caller sets the deadline."""
        while self._heard < count:
            self._something.clear()
            if self._heard < count:
                await self._something.wait()

    async def run(self) -> None:
        """Step once every simulated second, for ever."""
        while True:
            await self.step()
            await self._clock.sleep(1.0)

    async def step(self) -> None:
        """Take what came, see what begins and ends, and say so."""
        now = self._plant.now
        if fed := self._take_inbox(now):
            await self._publish_status(dict.fromkeys(fed, "target_set"))
        self._schedule.forget_ended(now)
        ended = self._finished(("up",))
        if begun := self._begin(now):
            await self._publish_status(begun)
        ended |= self._finished(("down",))
        if ended:
            await self._publish_status(ended)
        await self._watch_breaches(now)
        last = self._last_status_at
        if last is None or now - last >= timedelta(seconds=HEARTBEAT_S):
            await self._publish_status({})

    # --- targets ---

    def _take_inbox(self, now: datetime) -> list[str]:
        """The feeds of which a target was taken."""
        fed: dict[str, None] = {}
        while self._inbox:
            payload = self._inbox.popleft()
            if AgentFault.IGNORES_TARGETS in self.faults:
                continue
            for target in self._schedule.take(payload, now):
                fed.update(dict.fromkeys(target.feeds or self._plant.site.feed_ids))
        return [feed for feed in fed if feed in self._governing]

    def _begin(self, now: datetime) -> dict[str, str]:
        """What changes now, by feed; the plant's own limit follows."""
        begun: dict[str, str] = {}
        for feed, before in self._governing.items():
            after = self._schedule.at(feed, now)
            if after is before:
                continue
            self._governing[feed] = after
            was_w = UNLIMITED if before is None else before.limit_w
            is_w = UNLIMITED if after is None else after.limit_w
            if is_w != was_w:
                self._ramps[feed] = "down" if is_w < was_w else "up"
                self._ramp_start[feed] = now
                begun[feed] = f"start_ramp_{self._ramps[feed]}"
        if begun:
            self._plant.set_site_limit_w(self._site_limit_w())
        return begun

    def _site_limit_w(self) -> float | None:
        targets = list(self._governing.values())
        shared = [target.limit_w for target in targets if target is not None and not target.feeds]
        if shared:
            return shared[0]
        limits_w = [target.limit_w for target in targets if target is not None]
        return sum(limits_w) if len(limits_w) == len(targets) else None

    def _finished(self, ways: tuple[str, ...]) -> dict[str, str]:
        done = {
            feed: f"end_ramp_{way}"
            for feed, way in self._ramps.items()
            if way in ways and self._load_w(feed) <= self._limit_w(feed)
        }
        for feed in done:
            del self._ramps[feed]
        return done

    def _limit_w(self, feed: str) -> float:
        target = self._governing[feed]
        return UNLIMITED if target is None else target.limit_w

    def _load_w(self, feed: str) -> float:
        """What the feed's target is held against: a target for all feeds, against their sum."""
        target = self._governing[feed]
        if target is not None and not target.feeds:
            return float(self._plant.site_power_w)
        return self._feed_w(feed)

    def _feed_w(self, feed: str) -> float:
        return float(self._plant.feed_power_w[self._plant.site.feed_ids.index(feed)])

    # --- what it says ---

    async def _publish_status(self, events: Mapping[str, str]) -> None:
        now = self._plant.now
        self._last_status_at = now
        feeds = {
            feed: self._state(feed, events.get(feed, "periodic"), now) for feed in self._governing
        }
        payload = {"snapshot_time": iso(now), "feeds": feeds}
        await self._say("powerstate/status", "grid.powerstate.status.v1", "powerstate", payload, 1)

    def _state(self, feed: str, what: str, now: datetime) -> Json:
        site = self._plant.site
        place = site.feed_ids.index(feed)
        on_feed = site.feed_of_pdu[site.pdu_of_rack[site.rack_of_node]] == place
        gpus = np.array([node.gpu_count for node in site.nodes])[on_feed]
        idle_w = site.host.base_w * len(gpus) + site.host.slope * site.gpu.idle_w * gpus.sum()
        load_w, limit_w = self._load_w(feed), self._limit_w(feed)
        calculated_w = self._feed_w(feed)
        in_flight = feed in self._ramps
        if AgentFault.CLAIMS_COMPLIANT in self.faults:
            in_flight = False
            calculated_w, load_w = min(calculated_w, limit_w), min(load_w, limit_w)
        state = {
            "metadata": {
                "power_minimum": power(float(idle_w)),
                "power_maximum": power(site.feeds[place].rating_w),
                "default_constraint": power(site.feeds[place].rating_w),
            },
            "targets": self._schedule.listed(feed, now),
            "calculated_load": power(calculated_w),
            "in_flight": in_flight,
            "event": what,
            "compliant": load_w <= limit_w,
        }
        if feed in self._ramps:
            state["power_event_start_time"] = iso(self._ramp_start[feed])
        return state

    async def _watch_breaches(self, now: datetime) -> None:
        above: dict[tuple[str, str], str] = {}
        for feed, target in self._governing.items():
            if target is None or now < target.start + timedelta(seconds=self._breach_after_s):
                continue
            if self._load_w(feed) > target.limit_w:
                # A target for all feeds is breached once, not once per feed.
                above.setdefault((target.target_id, feed if target.feeds else ""), feed)
        for name in [name for name in self._breaches if name not in above]:
            await self._alert(self._breaches.pop(name), "resolved", now)
        for name, feed in above.items():
            target = self._governing[feed]
            if target is None:
                continue
            critical = self._load_w(feed) > CRITICAL_OVER * target.limit_w
            breach = self._breaches.get(name)
            if breach is None:
                breach = self._breaches[name] = _Breach(target, feed, now)
                breach.severity = "critical" if critical else "warning"
                await self._alert(breach, "active", now)
            elif critical and breach.severity == "warning":
                breach.severity = "critical"
                await self._alert(breach, "escalated", now)

    async def _alert(self, breach: _Breach, status: str, now: datetime) -> None:
        details = {"breach_id": breach.breach_id, "detected_at": iso(breach.detected_at)}
        shared = not breach.target.feeds
        measured_w = self._plant.site_power_w if shared else self._feed_w(breach.feed)
        payload: Json = {
            "feed_tag": breach.feed,
            "status": status,
            "severity": breach.severity,
            "breach": details,
            "target": {
                "correlation_id": breach.target.target_id,
                "load_constraint": breach.target.constraint,
            },
            "measured_load": power(float(measured_w)),
            "infrastructure_actions": [],
        }
        if status == "resolved":
            details["resolved_at"] = iso(now)
        else:
            payload["shed_hints"] = []
            if breach.severity == "critical":
                payload["infrastructure_actions"] = ["SHUTDOWN_NODES", "SHUTDOWN_RACKS"]
        await self._say("powerbreach", "grid.powerbreach.alert.v1", "powerbreach", payload, 2)

    async def _say(self, tail: str, kind: str, subject: str, payload: Json, qos: int) -> None:
        if AgentFault.SILENT in self.faults:
            return
        data = sign(json.dumps(payload).encode(), self._key)
        message = event(kind, self.source, subject, self._plant.now, data, None)
        with suppress(UnavailableError):  # an agent that cannot be heard goes on all the same
            await self._bus.publish(f"{self._root}/{tail}", json.dumps(message).encode(), qos=qos)
