"""What the simulated BMS makes of requests: it obeys within its own limits, and says nothing back.

Whoever asks sees only what the plant then shows. A request counts while its integration beats.
"""

import json
import threading
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final, NamedTuple

from interlock_plant.plant import Plant
from interlock_servers.transports.mqtt import Message

DEFAULT_C: Final = 25.0  # of a CDU's supply, when nobody asks
LOWEST_C: Final = 20.0
HIGHEST_C: Final = 35.0
CLAMPED_C: Final = (27.0, 29.0)  # while the fault `clamp_requests` is there
LOST_AFTER_S: Final = 30.0  # three beats of 10 s
LIQUID_S: Final = 15.0  # until the valves of a rack are shut or open
POWER_S: Final = 3.0
_TAKES_S: Final = {
    "RackLiquidIsolationRequest": LIQUID_S,
    "RackElectricalIsolationRequest": POWER_S,
}


class _Asked(NamedTuple):
    value: float
    at: datetime


class RequestsAtBms:
    """The requests of one integration as they came in, and what was done about them."""

    def __init__(self, plant: Plant, integration: str | None) -> None:
        self._plant = plant
        self._prefix = f"BMS/v1/{integration}/Value/"
        self.subscriptions = () if integration is None else (("BMS/v1/+/Value/#", 0),)
        self.last_beat_ms: float | None = None
        self.heard = 0  # messages that asked for something
        self.turns = 0  # those of them that asked for something else than the one before
        self._beat_at: datetime | None = None
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, str], _Asked] = {}
        self._since: dict[tuple[str, str], _Asked] = {}

    def hear(self, message: Message) -> None:
        """Take in what an integration says; called in the connection's thread.

        Values of any other publisher, of points that are not its own, retained, or not of good
        quality count for nothing.
        """
        if not message.topic.startswith(self._prefix) or message.retained:
            return
        said = _read(message.payload)
        site = self._plant.site.name
        levels = message.topic.removeprefix(self._prefix).split("/")
        if said is None or len(levels) != 5 or levels[2] != site:
            return
        _, point_type, _, named, _ = levels
        with self._lock:
            if point_type == "HeartbeatTimestampIntegration":
                self.last_beat_ms, self._beat_at = said, message.received_at
                return
            if not self._may_ask(point_type, named):
                return
            key = (point_type, named)
            self.heard += 1
            self._asked[key] = _Asked(said, message.received_at)
            before = self._since.get(key)
            if before is None or before.value != said:
                self.turns += 1
                self._since[key] = self._asked[key]

    def obey(self, now: datetime, faults: Collection[str]) -> None:
        """Do what is asked for now, as far as the BMS lets itself be asked."""
        with self._lock:
            asked, since, beat_at = dict(self._asked), dict(self._since), self._beat_at
        if beat_at is None:
            return
        lost = (now - beat_at).total_seconds() > LOST_AFTER_S
        if lost or "default_for_requests" in faults:
            for cdu in self._plant.site.cdu_ids:
                if ("LiquidTemperatureSpRequest", cdu) in asked:
                    self._plant.set_cdu_target_c(cdu, DEFAULT_C)
            return  # isolation stays as it is: liquid and power do not come back by themselves
        if "ignore_requests" in faults:
            return
        low_c, high_c = CLAMPED_C if "clamp_requests" in faults else (LOWEST_C, HIGHEST_C)
        for (point_type, named), one in asked.items():
            waited_s = (now - since[point_type, named].at).total_seconds()
            if point_type == "LiquidTemperatureSpRequest":
                self._plant.set_cdu_target_c(named, min(max(one.value, low_c), high_c))
            elif (
                point_type in _TAKES_S and one.value in {0, 1} and waited_s >= _TAKES_S[point_type]
            ):
                self._isolate(point_type, named, isolated=one.value == 1)

    def _isolate(self, point_type: str, rack: str, *, isolated: bool) -> None:
        place = self._plant.site.rack_ids.index(rack)
        if point_type == "RackLiquidIsolationRequest":
            self._plant.isolate_liquid(rack, shut=isolated)
        elif bool(self._plant.rack_is_open[place]) is not isolated:
            self._plant.isolate_power(rack, opened=isolated)

    def _may_ask(self, point_type: str, named: str) -> bool:
        site = self._plant.site
        if point_type == "LiquidTemperatureSpRequest":
            return named in site.cdu_ids
        is_ready = point_type in {"Status", "Available"} and self._prefix.split("/")[2] == named
        return is_ready or (point_type in _TAKES_S and named in site.rack_ids)


def _read(payload: bytes) -> float | None:
    try:
        said: Any = json.loads(payload)
        value, quality = said["value"], said["quality"]
    except (ValueError, KeyError, TypeError):
        return None
    good = quality == 1 and isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if good else None
