"""Whom it reaches when racks lose coolant or power, or all of them get warmer coolant.

Racks come from the bus, nodes and jobs from facts about the power tree and its groups; the join is
the rack's id, exact on both sides. A rack that the power tree does not know reaches nobody knows
whom, and that is an error.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from interlock_tools.blast_radius import BlastRadius
from interlock_tools.errors import InvalidRequestError
from interlock_tools.fact import FactSet
from interlock_tools.identity import Target

POWER_TOPOLOGY = "power.topology"
POWER_GROUPS = "power.groups"
POWER_GPU_LIMITS = "power.gpu_limits"
REACH = (POWER_TOPOLOGY, POWER_GROUPS, POWER_GPU_LIMITS)


class _Rack(NamedTuple):
    above: str
    budget_w: float | None
    nodes: tuple[str, ...]


def reach_of(
    racks: Sequence[str],
    facts: FactSet,
    site: Target,
    *,
    stops: bool = False,
    starts: bool = False,
) -> BlastRadius:
    """What works in these racks; with `stops` the floors that break, with `starts` what may rise.

    Raises:
        InvalidRequestError: the power tree has no such rack, or no budget for one that starts.
    """
    topology, groups, limits = (facts.value(kind, site) for kind in REACH)
    known = _racks(topology["root"], "")
    missing = [rack for rack in racks if rack not in known]
    if missing:
        raise InvalidRequestError(
            f"{', '.join(missing[:4])}: the power tree has no such rack, so nobody knows whom this "
            "reaches; the id must be the same in the BMS and in DPS"
        )
    nodes = [node for rack in racks for node in known[rack].nodes]
    working = [group for group in groups if not set(group["node_ids"]).isdisjoint(nodes)]
    floored = [group["name"] for group in working if (group["slo_floor"] or 0.0) > 0.0]
    return BlastRadius(
        gpus=_gpus(limits, nodes),
        hosts=frozenset(nodes),
        racks=frozenset(racks),
        power_domains=frozenset(known[rack].above for rack in racks),
        jobs=frozenset(group["name"] for group in working),
        tenants=frozenset(group["tenant"] for group in working if group["tenant"]),
        power_rise_w=_rise_w((rack, known[rack]) for rack in racks) if starts else 0,
        slo_floors_broken=frozenset(floored) if stops else frozenset(),
    )


def _racks(entity: Mapping[str, Any], above: str) -> dict[str, _Rack]:
    """Every rack of the tree with what stands above it and the nodes below."""
    if entity["level"] == "rack":
        return {entity["name"]: _Rack(above, entity["budget_w"], tuple(_nodes(entity)))}
    found: dict[str, _Rack] = {}
    for child in entity["children"]:
        found |= _racks(child, entity["name"])
    return found


def _nodes(entity: Mapping[str, Any]) -> list[str]:
    if entity["level"] == "node":
        return [str(entity["name"])]
    return [node for child in entity["children"] for node in _nodes(child)]


def _gpus(limits: Mapping[str, Any], nodes: Iterable[str]) -> int:
    """How many GPUs; a node that is dark does not say, and counts as the largest that does."""
    known = {node: len(one["set_w"]) for node, one in limits.items()}
    most = max(known.values(), default=0)
    return sum(known.get(node) or most for node in nodes)


def _rise_w(racks: Iterable[tuple[str, _Rack]]) -> int:
    """What dark racks may draw once they have power: their budgets, for nothing reads them."""
    total_w = 0.0
    for name, rack in racks:
        if rack.budget_w is None:
            raise InvalidRequestError(
                f"{name}: the power tree states no budget for it, so nobody knows how much power "
                "comes back with it"
            )
        total_w += rack.budget_w
    return math.ceil(total_w)
