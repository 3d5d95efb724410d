"""Things that go wrong on request: named faults, each with a target and a moment."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

import numpy as np
from interlock_tools.errors import InvalidRequestError

from interlock_plant.arrays import Bools, Floats, Ints
from interlock_plant.parameters import LEAK_ISOLATION_S, PUMP_LOSS_FLOW
from interlock_plant.site import SITE_METER, SiteSpec


class FaultKind(Enum):
    """What can go wrong, and with what."""

    CAP_IGNORED = "cap_ignored"  # a node: its GPUs accept caps and do not follow them
    METER_FROZEN = "meter_frozen"  # site, feed, PDU, rack or node: its meter repeats one value
    LEAK = "leak"  # a rack: its leak sensor is wet, and its coolant valves shut within 2 s
    PUMP_LOSS = "pump_loss"  # a CDU: one of its two pumps stands still
    NODE_DOWN = "node_down"  # a node: dark


@dataclass(frozen=True)
class Fault:
    """One fault. It begins `at` (aware), or at once when that is None, and lasts until repaired."""

    kind: FaultKind
    target_id: str
    at: datetime | None = None

    def __post_init__(self) -> None:
        if self.at is not None and self.at.utcoffset() is None:
            raise InvalidRequestError("a fault's moment must be aware")
        if self.at is not None and self.at.utcoffset() != timedelta(0):
            object.__setattr__(self, "at", self.at)


@dataclass
class FaultState:
    """What is wrong now, in the shape in which the step needs it, and what is still to come."""

    waiting: tuple[Fault, ...]
    active: dict[tuple[FaultKind, str], Fault]
    obeys: Bools  # per GPU: follows its cap
    node_down: Bools
    pump_share: Floats  # per CDU: of the design flow
    leak_began_s: Ints  # per rack; -1 where it is dry
    frozen_w: dict[str, float]  # per meter
