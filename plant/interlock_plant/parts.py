"""The parts of a site: what each is, and on what it hangs."""

from dataclasses import dataclass
from typing import Final

from interlock_plant.parameters import NODE_NAMEPLATE_W, UPS_RIDE_S

SITE_METER: Final = "site"  # the id of the meter at the fence


@dataclass(frozen=True)
class Feed:
    """A utility feed; its rating is that of its breaker."""

    feed_id: str
    rating_w: float


@dataclass(frozen=True)
class Ups:
    """An uninterruptible supply behind a feed: it carries all of the feed's load for `ride_s`.

    `rating_w` is what it can carry without end; above that its overload table counts.
    """

    ups_id: str
    feed_id: str
    rating_w: float
    ride_s: float = UPS_RIDE_S


@dataclass(frozen=True)
class Pdu:
    """A power distribution unit; its rating is that of its breaker.

    `under` names the PDU that feeds it; None where it hangs on its feed directly.
    """

    pdu_id: str
    feed_id: str
    rating_w: float
    under: str | None = None


@dataclass(frozen=True)
class Cdu:
    """A coolant distribution unit; its rating is the heat it is designed to carry.

    `pdu_id` feeds its pumps; None where their power is not part of this site's tree.
    """

    cdu_id: str
    rating_w: float
    pumps: int = 2
    pdu_id: str | None = None


@dataclass(frozen=True)
class Rack:
    """A rack; its rating is a limit on its draw and sizes its coolant flow.

    With a second PDU, `pdu_id` carries `a_share` of the load while both have power, else the one
    that is left carries all of it.
    """

    rack_id: str
    pdu_id: str
    cdu_id: str
    rating_w: float
    pdu_b_id: str | None = None
    a_share: float = 0.5


@dataclass(frozen=True)
class Node:
    """A server and its GPUs."""

    node_id: str
    rack_id: str
    gpu_count: int = 8
    rating_w: float = NODE_NAMEPLATE_W
    is_spare: bool = False  # kept free for the jobs of a node that fails


@dataclass(frozen=True)
class Storage:
    """A battery behind the fence meter: what it holds when full, and what it gives or takes."""

    storage_id: str
    energy_j: float
    power_w: float
