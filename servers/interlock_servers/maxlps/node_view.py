"""One node of the power picture: where it hangs, what its GPUs may draw, and for whom they work."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from interlock_servers.maxlps.allocator.limits import HostPower
from interlock_servers.maxlps.allocator.refit import Robust
from interlock_servers.maxlps.models import Level
from interlock_servers.maxlps.priors import Prior, is_synchronous, prior_of
from interlock_tools.errors import InvalidRequestError
from interlock_tools.power_curve import FLOOR_RATIO, CurveParameters, cap_for, throughput

HOST = HostPower()
IDLE_SHARE = 0.15  # of its greatest limit: work draws more (H100 idle: 72.5 of 700 W)
FLOOR_RESERVE = 0.01  # floors are planned this much higher: natural draw is known to about 1 to 2 %


@dataclass(frozen=True)
class Group:
    """A resource group as the picture needs it."""

    name: str
    tenant: str | None
    workload_class: str | None
    slo_floor: float | None
    is_active: bool = True

    @property
    def is_synchronous(self) -> bool:
        """Whether its GPUs wait for each other, so that the slowest sets the pace of all."""
        return is_synchronous(self.workload_class)


@dataclass(frozen=True)
class NodeView:
    """One node.

    `set_w` is the highest limit among its GPUs, `each_set_w` that of each, `power_w` the highest
    draw, `each_power_w` that of each; None is unknown. `dark_w`: what a node whose limits nobody
    knows may draw at the wall.
    """

    node_id: str
    path: tuple[str, ...]  # ancestors, nearest first
    rack_id: str | None
    pdu_id: str | None
    gpu_count: int
    set_w: float | None
    each_set_w: tuple[float | None, ...]
    min_w: float | None
    max_w: float | None
    power_w: float | None
    group: Group | None
    fit: Robust | None = None  # where its work was measured
    dark_w: float = float("inf")
    each_power_w: tuple[float | None, ...] = ()

    @property
    def is_dark(self) -> bool:
        """Whether nobody knows its limits now: it can be given none, and may draw its most."""
        return self.min_w is None or self.max_w is None

    @cached_property
    def is_paused(self) -> bool:
        """Whether its group is said to be inactive, and every one of its GPUs is seen to idle.

        Either alone is not enough: a word may be wrong, and what idles may start at any moment.
        """
        if self.group is None or self.group.is_active or self.is_dark or self.power_w is None:
            return False
        return self.power_w <= IDLE_SHARE * self.limits[1]

    @property
    def prior(self) -> Prior:
        """What is known of its kind of work before measuring."""
        if self.is_paused:
            return prior_of("idle")
        return prior_of(None if self.group is None else self.group.workload_class)

    @property
    def limits(self) -> tuple[float, float, float]:
        """Least, greatest and highest present limit of its GPUs, in watts.

        Raises:
            InvalidRequestError: they are not known now.
        """
        if self.min_w is None or self.max_w is None:
            raise InvalidRequestError(
                f"{self.node_id}: its GPUs' limits are not known now; leave it out, or look "
                "at its BMC"
            )
        return self.min_w, self.max_w, self.max_w if self.set_w is None else self.set_w

    @cached_property
    def natural_w(self) -> float:
        """What its hottest GPU draws at full load without a limit: fit, prior, or more if seen.

        What is seen is a lower bound, held back by a limit or not.
        """
        estimate_w, max_w = self._estimate_w, self.limits[1]
        return min(max([estimate_w, *(w for w in self.each_power_w if w is not None)]), max_w)

    @cached_property
    def mean_w(self) -> float:
        """What one of its GPUs draws so on average: silicon differs, one of them is the hottest."""
        each_w = self._each_natural_w
        return sum(each_w) / len(each_w) if each_w else self.natural_w

    @cached_property
    def _each_natural_w(self) -> list[float]:
        estimate_w, max_w = self._estimate_w, self.limits[1]
        seen_w = self.each_power_w or (None,) * self.gpu_count
        return [min(max(estimate_w, watts or 0.0), max_w) for watts in seen_w]

    @cached_property
    def _estimate_w(self) -> float:
        max_w = self.limits[1]
        fits = self.fit is not None and not self.is_paused
        return self.fit.natural_w if self.fit and fits else self.prior.natural_share * max_w

    def work_at(self, cap_w: float) -> float:
        """Relative throughput in [0, 1] under a limit."""
        curve = self.curve
        return float(throughput(cap_w, self.natural_w, curve.p0, curve.gamma))

    @property
    def curve(self) -> CurveParameters:
        """How its work falls under a limit: as fitted, or the prior."""
        return self.prior.curve if self.fit is None else CurveParameters(*self.fit[1:3])

    @property
    def planned_floor(self) -> float:
        """The relative work to plan for: what was promised, and a reserve."""
        promised = 0.0 if self.group is None else self.group.slo_floor or 0.0
        if not promised or self.is_paused:
            return 0.0
        fitted = promised if self.fit is None else self.fit.floor_work
        return min(1.0, max(fitted, promised + FLOOR_RESERVE))

    @property
    def promised_w(self) -> float:
        """The limit per GPU below which the promise, or the device's range, is broken."""
        curve, natural_w = self.curve, self.natural_w
        floor_w = float(cap_for(self.planned_floor, natural_w, curve.p0, curve.gamma))
        return max(self.limits[0], FLOOR_RATIO * natural_w, floor_w)

    def moves_w(self, cap_w: float) -> tuple[float, float]:
        """By how much its GPUs' limits fall and rise under this one, in sum.

        A limit that is not known may be the least as well as the greatest: it counts both ways.
        """
        least_w, most_w, _ = self.limits
        fall_w = sum(max(0.0, (most_w if w is None else w) - cap_w) for w in self.each_set_w)
        rise_w = sum(max(0.0, cap_w - (least_w if w is None else w)) for w in self.each_set_w)
        return fall_w, rise_w

    def meter_w(self, cap_w: float) -> float:
        """What the node draws at most, at the wall, when every GPU is limited so."""
        return self._wall_w([cap_w] * self.gpu_count)

    def meter_now_w(self, unknown_w: float) -> float:
        """The same under the present limits; a limit that is not known is taken as `unknown_w`.

        Of a dark node none is known: it counts with its worst case, whatever is asked for.
        """
        if self.is_dark:
            return self.dark_w
        return self._wall_w(unknown_w if w is None else w for w in self.each_set_w)

    @property
    def limited_w(self) -> float:
        """What the present limits allow it at the wall, whatever its work would draw."""
        if self.is_dark:
            return self.dark_w
        _, max_w, _ = self.limits
        gpus_w = sum(max_w if w is None else w for w in self.each_set_w)
        return float(np.asarray(HOST.fixed_w)) + HOST.slope * gpus_w

    def _wall_w(self, limits_w: Iterable[float]) -> float:
        gpus_w = sum(map(min, limits_w, self._each_natural_w))
        return float(np.asarray(HOST.fixed_w)) + HOST.slope * gpus_w


def lit_worst_case(nodes: Mapping[str, NodeView]) -> dict[str, NodeView]:
    """The same nodes, the dark ones with what they may draw: as much as the largest known one.

    Raises:
        InvalidRequestError: the limits of no node at all are known.
    """
    known = [view for view in nodes.values() if not view.is_dark]
    if not nodes:
        return {}
    if not known:
        raise InvalidRequestError("the limits of no node of this site are known; try again later")
    most_w = max(view.limits[1] for view in known)
    most_gpus = max(view.gpu_count for view in known)

    def counted(view: NodeView) -> NodeView:
        if not view.is_dark:
            return view
        gpus = max(view.gpu_count, most_gpus)
        return replace(view, dark_w=float(np.asarray(HOST.fixed_w)) + HOST.slope * gpus * most_w)

    return {name: counted(view) for name, view in nodes.items()}


def node_view(
    name: str,
    path: tuple[str, ...],
    levels: Mapping[str, Level],
    limits: Mapping[str, Any] | None,
    group: Group | None,
) -> NodeView:
    """The node of this name, from its part of `power.gpu_limits`."""
    limits = limits or {"set_w": [], "min_w": None, "max_w": None, "power_w": []}

    def nearest(level: Level) -> str | None:
        return next((above for above in path if levels[above] is level), None)

    return NodeView(
        node_id=name,
        path=path,
        rack_id=nearest(Level.RACK),
        pdu_id=nearest(Level.PDU),
        gpu_count=len(limits["set_w"]),
        set_w=_highest(limits["set_w"]),
        each_set_w=tuple(limits["set_w"]),
        min_w=limits["min_w"],
        max_w=limits["max_w"],
        power_w=_highest(limits["power_w"]),
        each_power_w=tuple(limits["power_w"]),
        group=group,
        fit=Robust(**limits["fit"]) if limits.get("fit") else None,
    )


def _highest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None
