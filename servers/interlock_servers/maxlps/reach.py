"""Whom a change of limits reaches, what it breaks, and what of it was a rise."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from interlock_servers.maxlps.facts import POWER_GPU_LIMITS, POWER_GROUPS, POWER_TOPOLOGY
from interlock_servers.maxlps.picture import Caps, Picture
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.fact import FactNeed
from interlock_tools.identity import Target

GRID_LIMIT, METER_POWER = "grid.limit", "meter.power"
IDENTITY_AGE_S: Final = 60.0
LIMITS_AGE_S: Final = 30.0
GRID_AGE_S: Final = 30.0
METER_AGE_S: Final = 120.0  # a BMS repeats an unchanged value every 100 s
SAME_W: Final = 0.5  # devices take whole watts
Limits = dict[str, dict[int, float | None]]


def power_needs(site: Target) -> tuple[FactNeed, ...]:
    """Tree, groups and limits from DPS, the grid's limit, and a meter that lives."""
    ages = {
        POWER_TOPOLOGY: IDENTITY_AGE_S,
        POWER_GROUPS: IDENTITY_AGE_S,
        POWER_GPU_LIMITS: LIMITS_AGE_S,
        GRID_LIMIT: GRID_AGE_S,
        METER_POWER: METER_AGE_S,
    }
    return tuple(FactNeed(kind=kind, subject=site, max_age_s=age_s) for kind, age_s in ages.items())


def where(picture: Picture, node_ids: Iterable[str]) -> BlastRadius:
    """What hangs on these nodes; no watts move."""
    views = [picture.node(node_id) for node_id in node_ids]
    groups = [view.group for view in views if view.group is not None]
    return BlastRadius(
        gpus=sum(view.gpu_count for view in views),
        hosts=frozenset(view.node_id for view in views),
        racks=frozenset(v.rack_id for v in views if v.rack_id),
        power_domains=frozenset(v.pdu_id or picture.root for v in views),
        jobs=frozenset(group.name for group in groups),
        tenants=frozenset(group.tenant for group in groups if group.tenant),
    )


def reach_of(picture: Picture, caps: Caps, grid: Mapping[str, Any]) -> BlastRadius:
    """Nodes, jobs, tenants and watts; the floors and budgets that these caps would break.

    `grid` is the grid's limit as its fact has it.
    """
    moves_w = [picture.node(node_id).moves_w(cap_w) for node_id, cap_w in caps.items()]
    return where(picture, caps).model_copy(
        update={
            "watts_moved": math.ceil(sum(fall_w + rise_w for fall_w, rise_w in moves_w)),
            "power_rise_w": math.ceil(sum(rise_w for _, rise_w in moves_w)),
            "slo_floors_broken": picture.floors_broken(caps),
            "budgets_broken": picture.budgets_broken(
                caps, grid["limit_w"], grid.get("feed_limits_w")
            ),
            "power_taken_from": _taken_from(picture, caps),
        }
    )


def _taken_from(picture: Picture, caps: Caps) -> frozenset[str]:
    """Whose limits fall while those of others rise: their power goes to somebody else."""
    falls_w: dict[str, float] = {}
    rises_w: dict[str, float] = {}
    for node_id, cap_w in caps.items():
        view = picture.node(node_id)
        name = node_id if view.group is None else view.group.name
        fall_w, rise_w = view.moves_w(cap_w)
        falls_w[name] = falls_w.get(name, 0.0) + fall_w
        rises_w[name] = rises_w.get(name, 0.0) + rise_w
    gain = {name for name, watts in rises_w.items() if watts > falls_w[name]}
    lose = {name for name, watts in falls_w.items() if watts > rises_w[name]}
    return frozenset(lose if gain else ())


def is_set(picture: Picture, node_id: str, caps: Caps) -> bool:
    """Whether every GPU of the node has the limit; one that is not known has not."""
    each_w = picture.node(node_id).each_set_w
    return bool(each_w) and all(w is not None and abs(w - caps[node_id]) <= SAME_W for w in each_w)


def raised(earlier: Picture, now: Picture, asked: Caps) -> tuple[Limits, list[str]]:
    """What was raised: the earlier limits of those GPUs, and the nodes whose earlier nobody knows.

    What was lowered is not in it: low is the safe side.
    """
    back: Limits = {}
    unknown: set[str] = set()
    for node_id, asked_w in asked.items():
        now_w = dict(enumerate(now.nodes[node_id].each_set_w if node_id in now.nodes else ()))
        for gpu_id, was_w in enumerate(earlier.node(node_id).each_set_w):
            if was_w is None:
                unknown.add(node_id)
            elif _is_above(now_w.get(gpu_id), was_w, asked_w):
                back.setdefault(node_id, {})[gpu_id] = float(int(was_w))
    return back, sorted(unknown)


def _is_above(now_w: float | None, was_w: float, asked_w: int) -> bool:
    """Whether a GPU's limit is higher than it was; where nobody knows, whether it was asked to."""
    return asked_w > was_w if now_w is None else now_w > was_w + SAME_W
