"""The power picture of a site: who hangs where, who works for whom, which limits hold.

Built from facts alone, so that the guard, the planner and an auditor see the same site.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from interlock_servers.maxlps.allocator.plan import CapPlan, HostPower, Infeasible, plan
from interlock_servers.maxlps.allocator.problem import Leaves
from interlock_servers.maxlps.allocator.tree import PowerTree, TreeNode
from interlock_servers.maxlps.facts import POWER_GPU_LIMITS, POWER_GROUPS, POWER_TOPOLOGY
from interlock_servers.maxlps.models import Level
from interlock_servers.maxlps.priors import Prior, prior_of
from interlock_tools.errors import InvalidRequestError
from interlock_tools.fact import FactSet
from interlock_tools.identity import Target
from interlock_tools.measures import ALLOCATOR, FEASIBLE
from interlock_tools.power_curve import FLOOR_RATIO, throughput

HOST = HostPower()
BINDING = 0.97  # of its limit: a GPU that draws less is not held back by it
FLOOR_RESERVE = 0.01  # floors are planned this much higher: natural draw is known to about 1 to 2 %

Caps = Mapping[str, int]


@dataclass(frozen=True)
class Group:
    """A resource group as the picture needs it."""

    name: str
    tenant: str | None
    workload_class: str | None
    slo_floor: float | None


@dataclass(frozen=True)
class NodeView:
    """One node: where it hangs, what its GPUs may draw and what they work on.

    `set_w` is the highest limit among its GPUs, `each_set_w` that of each, `power_w` the highest
    draw; None is unknown.
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

    @property
    def prior(self) -> Prior:
        """What is known of its kind of work before measuring."""
        return prior_of(None if self.group is None else self.group.workload_class)

    @property
    def limits(self) -> tuple[float, float, float]:
        """Least, greatest and highest present limit of its GPUs, in watts.

        Raises:
            InvalidRequestError: they are not known now.
        """
        if self.min_w is None or self.max_w is None:
            raise InvalidRequestError(
                f"{self.node_id}: DPS does not know its GPUs' limits now; leave it out, or look "
                "at its BMC"
            )
        return self.min_w, self.max_w, self.max_w if self.set_w is None else self.set_w

    @property
    def natural_w(self) -> float:
        """What one of its GPUs draws at full load without a limit: prior, or more if measured."""
        _, max_w, set_w = self.limits
        natural_w = self.prior.natural_share * max_w
        if self.power_w is not None and self.power_w < BINDING * set_w:
            natural_w = max(natural_w, self.power_w)
        return min(natural_w, max_w)

    def work_at(self, cap_w: float) -> float:
        """Relative throughput in [0, 1] under a limit."""
        curve = self.prior.curve
        return float(throughput(cap_w, self.natural_w, curve.p0, curve.gamma))

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
        """The same under the present limits; a limit that is not known is taken as `unknown_w`."""
        return self._wall_w(unknown_w if w is None else w for w in self.each_set_w)

    @property
    def limited_w(self) -> float:
        """What the present limits allow it at the wall, whatever its work would draw."""
        _, max_w, _ = self.limits
        gpus_w = sum(max_w if w is None else w for w in self.each_set_w)
        return float(np.asarray(HOST.fixed_w)) + HOST.slope * gpus_w

    def _wall_w(self, limits_w: Iterable[float]) -> float:
        natural_w = self.natural_w
        gpus_w = sum(min(watts, natural_w) for watts in limits_w)
        return float(np.asarray(HOST.fixed_w)) + HOST.slope * gpus_w


@dataclass(frozen=True)
class Picture:
    """The site as the facts show it."""

    nodes: dict[str, NodeView]
    domains: tuple[TreeNode, ...]
    root: str
    levels: dict[str, Level] = field(default_factory=dict)

    @classmethod
    def of_facts(cls, facts: FactSet, site: Target) -> "Picture":
        """The picture in the facts of a change."""
        return cls.of(
            *(facts.value(kind, site) for kind in (POWER_TOPOLOGY, POWER_GROUPS, POWER_GPU_LIMITS))
        )

    @classmethod
    def of(
        cls,
        topology: Mapping[str, Any],
        groups: Sequence[Mapping[str, Any]],
        limits: Mapping[str, Any],
    ) -> "Picture":
        """The picture from the values of the three facts."""
        by_node = {
            node_id: Group(g["name"], g["tenant"], g["workload_class"], g["slo_floor"])
            for g in sorted(groups, key=_claim)
            for node_id in g["node_ids"]
        }
        domains: list[TreeNode] = []
        levels: dict[str, Level] = {}
        nodes: dict[str, NodeView] = {}

        def walk(entity: Mapping[str, Any], path: tuple[str, ...]) -> None:
            name, level = entity["name"], Level(entity["level"])
            budget_w = float("inf") if entity["budget_w"] is None else float(entity["budget_w"])
            domains.append(TreeNode(name, path[0] if path else None, budget_w))
            levels[name] = level
            if level is Level.NODE:
                nodes[name] = _node(name, path, levels, limits.get(name), by_node.get(name))
            for child in entity["children"]:
                walk(child, (name, *path))

        walk(topology["root"], ())
        return cls(nodes, tuple(domains), topology["root"]["name"], levels)

    def node(self, node_id: str) -> NodeView:
        """One node.

        Raises:
            InvalidRequestError: the site has none of this name.
        """
        if node_id not in self.nodes:
            raise InvalidRequestError(f"{node_id!r} is no node of this site; list_nodes shows them")
        return self.nodes[node_id]

    def plan(
        self, site_limit_w: float | None, margin: float
    ) -> tuple[CapPlan, dict[str, int]] | Infeasible:
        """The best caps within every budget and the site's limit: the plan, and watts by node.

        Raises:
            InvalidRequestError: an argument is out of range, or the limits of a node are unknown.
        """
        views = list(self.nodes.values())
        spread = np.repeat(np.arange(len(views)), [view.gpu_count for view in views])
        columns = np.array([_column(view) for view in views])[spread].T
        natural_w, p0, gamma, lo_w, hi_w, floor = columns
        leaves = Leaves.of(
            natural_w=natural_w, p0=p0, gamma=gamma, lo_w=lo_w, hi_w=hi_w, floor_work=floor
        )
        tree = PowerTree.from_nodes(
            self._budgets(site_limit_w), [views[place].node_id for place in spread]
        )
        began_s = time.perf_counter()
        found = plan(tree, leaves, host=HOST, margin=margin)
        feasible = not isinstance(found, Infeasible)
        ALLOCATOR.record(time.perf_counter() - began_s, {FEASIBLE: feasible})
        if isinstance(found, Infeasible):
            return found
        first = np.searchsorted(spread, np.arange(len(views)))
        caps = {
            view.node_id: _whole_w(float(found.cap_w[place]), float(leaves.problem().lo_w[place]))
            for view, place in zip(views, first, strict=True)
        }
        return found, caps

    def floors_broken(self, caps: Caps) -> frozenset[str]:
        """The groups whose promised throughput these caps would break."""
        broken: set[str] = set()
        for node_id, cap_w in caps.items():
            view = self.node(node_id)
            group, (_, _, set_w) = view.group, view.limits
            if group is None or group.slo_floor is None or cap_w >= set_w:
                continue
            # Below half of natural draw the curve says nothing, and nothing is no promise kept.
            told = cap_w >= FLOOR_RATIO * view.natural_w
            if not told or view.work_at(cap_w) < group.slo_floor:
                broken.add(group.name)
        return frozenset(broken)

    def budgets_broken(
        self,
        caps: Caps,
        site_limit_w: float | None,
        feed_limits_w: Mapping[str, float | None] | None = None,
    ) -> frozenset[str]:
        """The domains that these caps would lift above their budget, or further above it.

        The grid may limit a feed alone; a feed that the topology does not name could be any part of
        the site. Where a present limit is not known, what was before is taken as little.
        """
        grid_w = {feed: w for feed, w in (feed_limits_w or {}).items() if w is not None}
        if site_limit_w is None:
            site_limit_w = min(
                (w for feed, w in grid_w.items() if feed not in self.levels), default=None
            )
        least_w = {node_id: self.node(node_id).limits[0] for node_id in caps}
        before, after = self._load_w({}, least_w), self.load_w(caps)
        return frozenset(
            domain.name
            for domain in self._budgets(site_limit_w, grid_w, rounding=False)
            if after[domain.name] > domain.budget_w and after[domain.name] > before[domain.name]
        )

    def load_w(self, caps: Caps) -> dict[str, float]:
        """What each domain draws at most, at the meter, under present limits and these caps."""
        return self._load_w(caps, {})

    def allowed_w(self) -> dict[str, float]:
        """What each domain may show at its meter while every GPU obeys its present limit."""
        allowed = {domain.name: 0.0 for domain in self.domains}
        for view in self.nodes.values():
            for name in (view.node_id, *view.path):
                allowed[name] += view.limited_w
        return allowed

    def _load_w(self, caps: Caps, unknown_w: Mapping[str, float]) -> dict[str, float]:
        """The same, where a present limit that is not known is taken as the node's `unknown_w`."""
        load = {domain.name: 0.0 for domain in self.domains}
        for node_id, view in self.nodes.items():
            if node_id in caps:
                watts = view.meter_w(caps[node_id])
            else:
                watts = view.meter_now_w(unknown_w.get(node_id, view.limits[1]))
            for name in (view.node_id, *view.path):
                load[name] += watts
        return load

    def _budgets(
        self,
        site_limit_w: float | None,
        grid_w: Mapping[str, float] | None = None,
        *,
        rounding: bool = True,
    ) -> list[TreeNode]:
        """The domains, with the grid's limits, less what rounding caps to whole watts may add."""
        gpus = {domain.name: 0 for domain in self.domains}
        for view in self.nodes.values():
            for name in (view.node_id, *view.path):
                gpus[name] += view.gpu_count
        out: list[TreeNode] = []
        for domain in self.domains:
            budget_w = min(domain.budget_w, (grid_w or {}).get(domain.name, math.inf))
            if domain.name == self.root and site_limit_w is not None:
                budget_w = min(budget_w, site_limit_w)
            slack_w = HOST.slope * gpus[domain.name] if rounding else 0.0
            out.append(domain._replace(budget_w=budget_w - slack_w))
        return out


def _column(view: NodeView) -> tuple[float, ...]:
    min_w, max_w, _ = view.limits
    curve, group = view.prior.curve, view.group
    floor = 0.0 if group is None or group.slo_floor is None else group.slo_floor
    if floor > 0:
        floor = min(1.0, floor + FLOOR_RESERVE)
    return view.natural_w, curve.p0, curve.gamma, min_w, max_w, floor


def _claim(group: Mapping[str, Any]) -> tuple[bool, float]:
    """Of several groups that name a node the last counts: an active one, with most promised."""
    return bool(group.get("active", True)), group["slo_floor"] or 0.0


def _whole_w(cap_w: float, lo_w: float) -> int:
    """Down to whole watts, but not below what a floor needs."""
    return max(int(cap_w), int(np.ceil(lo_w)))


def _node(
    name: str,
    path: tuple[str, ...],
    levels: Mapping[str, Level],
    limits: Mapping[str, Any] | None,
    group: Group | None,
) -> NodeView:
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
        group=group,
    )


def _highest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None
