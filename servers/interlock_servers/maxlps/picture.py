"""The power picture of a site: who hangs where, who works for whom, which limits hold.

Built from facts alone, so that the guard, the planner and an auditor see the same site.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from interlock_servers.maxlps.allocator.tree import TreeNode
from interlock_servers.maxlps.facts import POWER_GPU_LIMITS, POWER_GROUPS, POWER_TOPOLOGY
from interlock_servers.maxlps.models import Level
from interlock_servers.maxlps.node_view import HOST, Group, NodeView, lit_worst_case, node_view
from interlock_tools.errors import InvalidRequestError
from interlock_tools.fact import FactSet
from interlock_tools.identity import Target
from interlock_tools.power_curve import FLOOR_RATIO

Caps = Mapping[str, int]


@dataclass(frozen=True)
class Picture:
    """The site as the facts show it.

    `loops_w` and `loop_of` are cooling loops: the heat that each takes, in watts at the meter, and
    the loop of each node that has one. `tenants_least_w` is what tenants were promised, GPU watts.
    """

    nodes: dict[str, NodeView]
    domains: tuple[TreeNode, ...]
    root: str
    levels: dict[str, Level] = field(default_factory=dict)
    loops_w: Mapping[str, float] = field(default_factory=dict)
    loop_of: Mapping[str, str] = field(default_factory=dict)
    tenants_least_w: Mapping[str, float] = field(default_factory=dict)

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
            node_id: Group(
                g["name"], g["tenant"], g["workload_class"], g["slo_floor"], g.get("active", True)
            )
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
                nodes[name] = node_view(name, path, levels, limits.get(name), by_node.get(name))
            for child in entity["children"]:
                walk(child, (name, *path))

        walk(topology["root"], ())
        loops = topology.get("loops", [])
        by_rack = {rack_id: loop["name"] for loop in loops for rack_id in loop["rack_ids"]}
        return cls(
            lit_worst_case(nodes),
            tuple(domains),
            topology["root"]["name"],
            levels,
            loops_w={loop["name"]: loop["heat_w"] for loop in loops},
            loop_of={
                node_id: by_rack[view.rack_id]
                for node_id, view in nodes.items()
                if view.rack_id in by_rack
            },
            tenants_least_w=topology.get("tenants_least_w", {}),
        )

    @property
    def lit(self) -> list[NodeView]:
        """The nodes that can be given limits, in the order of the tree."""
        return [view for view in self.nodes.values() if not view.is_dark]

    @property
    def dark(self) -> tuple[str, ...]:
        """The nodes whose limits nobody knows now."""
        return tuple(view.node_id for view in self.nodes.values() if view.is_dark)

    def node(self, node_id: str) -> NodeView:
        """One node.

        Raises:
            InvalidRequestError: the site has none of this name.
        """
        if node_id not in self.nodes:
            raise InvalidRequestError(f"{node_id!r} is no node of this site; list_nodes shows them")
        return self.nodes[node_id]

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
            for domain in self.budgets(site_limit_w, grid_w, rounding=False)
            if after[domain.name] > domain.budget_w and after[domain.name] > before[domain.name]
        ) | frozenset(
            loop
            for loop, heat_w in self.loops_w.items()
            if after[loop] > heat_w and after[loop] > before[loop]
        )

    def load_w(self, caps: Caps) -> dict[str, float]:
        """What each domain, and each loop, draws at most at the meter: present limits, these caps.

        A dark node counts with its worst case.
        """
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
        load = dict.fromkeys([*(domain.name for domain in self.domains), *self.loops_w], 0.0)
        for node_id, view in self.nodes.items():
            if node_id in caps:
                watts = view.meter_w(caps[node_id])
            else:
                watts = view.meter_now_w(unknown_w.get(node_id, view.max_w or 0.0))
            for name in (view.node_id, *view.path):
                load[name] += watts
            if node_id in self.loop_of:
                load[self.loop_of[node_id]] += watts
        return load

    def budgets(
        self,
        site_limit_w: float | None,
        grid_w: Mapping[str, float] | None = None,
        *,
        rounding: bool = True,
    ) -> list[TreeNode]:
        """The domains, with further limits, less what rounding caps to whole watts may add."""
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


def _claim(group: Mapping[str, Any]) -> tuple[bool, float]:
    """Of several groups that name a node the last counts: an active one, with most promised."""
    return bool(group.get("active", True)), group["slo_floor"] or 0.0
