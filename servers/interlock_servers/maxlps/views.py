"""What the tools of power answer with."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, WithJsonSchema

from interlock_servers.maxlps.allocator.infeasible import NoRelief, Relief
from interlock_servers.maxlps.allocator.plan import Infeasible
from interlock_servers.maxlps.allocator.provision import Provision
from interlock_servers.maxlps.allocator.tree import TreeNode
from interlock_servers.maxlps.allocator.what_if import Answer
from interlock_servers.maxlps.asking import caps_moved_w, is_feasible
from interlock_servers.maxlps.models import Level
from interlock_servers.maxlps.node_view import NodeView
from interlock_servers.maxlps.picture import Picture
from interlock_servers.maxlps.planning import SitePlan
from interlock_servers.page import Listing, Page, Row
from interlock_servers.paging import MAX_LIMIT
from interlock_servers.plant_text import PlantName, PlantWords

NAMED = 5  # of what is missing, in a sentence
# What the instructions say once is not said again at each tool, and the columns of a table stand in
# its header only: all of it is paid in every conversation.
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]
Cursor = str | None
Fields = list[str] | None
Untold = WithJsonSchema({"type": "array", "items": {"type": "object"}})
Names = Annotated[list[PlantName], WithJsonSchema({"type": "array"})]
ByName = WithJsonSchema({"type": "object"})


class DomainView(Row):
    """One power domain: what it may carry and what hangs on it."""

    identity: ClassVar[tuple[str, ...]] = ("id", "level")

    id: PlantName
    level: Level
    budget_w: float | None = Field(default=None, description="absent: none stated")
    could_draw_w: float | None = Field(default=None, description="all GPUs at their limit")
    headroom_w: float | None = None


class PowerTree(Listing):
    """The power tree without its nodes, the site first."""

    listed: ClassVar[str] = "domains"

    domains: Annotated[list[DomainView], Untold]


class GroupView(Row):
    """One resource group: the nodes of one workload."""

    identity: ClassVar[tuple[str, ...]] = ("name",)

    name: PlantName
    tenant: PlantName | None = None
    workload_class: PlantName | None = None
    slo_floor: float | None = Field(default=None, description="share of throughput promised")
    node_ids: list[PlantName] | None = None


class Groups(Listing):
    """Resource groups by name."""

    listed: ClassVar[str] = "groups"

    groups: Annotated[list[GroupView], Untold]


class NodeRow(Row):
    """The limits and draws of one node's GPUs in whole watts, one for each GPU by its index."""

    identity: ClassVar[tuple[str, ...]] = ("node_id",)

    node_id: PlantName
    rack_id: PlantName | None = None
    pdu_id: PlantName | None = None
    group: PlantName | None = None
    min_w: float | None = None
    max_w: float | None = None
    set_w: list[int | None] | None = Field(default=None, description="limit of each GPU")
    power_w: list[int | None] | None = Field(default=None, description="draw of each GPU")


class Nodes(Listing):
    """Nodes in the order of the tree."""

    listed: ClassVar[str] = "nodes"

    nodes: Annotated[list[NodeRow], Untold]


class OneNode(Page):
    """One node."""

    node: NodeRow


class CapPlanView(Page):
    """The best limits within every budget; where floors do not fit, the closest ones."""

    feasible: bool
    why: PlantWords
    gpu_cap_w_by_node: Annotated[dict[PlantName, int], ByName]
    work_kept_pct: float
    could_draw_w: float
    missing_w: Annotated[dict[PlantName, int], ByName]
    pause: Names
    move: Annotated[dict[PlantName, PlantName], ByName]
    cost_gpu_h: float | None = None
    dark: Names
    steps_left: int
    releases: bool
    site_limit_w: float | None = None


class WhatIf(Page):
    """The plan for a changed site against that for the site as it is."""

    feasible: bool
    why: PlantWords
    work_change_gpus: float | None = None
    gpus_change: int
    caps_fall_w: float | None = None
    caps_rise_w: float | None = None
    draw_change_w: float | None = None
    newly_full: Names
    pause: Names
    cost_gpu_h: float | None = None


class Provisioned(Page):
    """How many more GPUs fit under the budget of as many nameplates, in per cent."""

    static_pct: float
    statistical_pct: float
    capped_pct: float
    work_pct: float
    caps_add_pct: float
    says: PlantWords


def domain_row(domain: TreeNode, picture: Picture, load_w: float) -> DomainView:
    """The row of a domain that draws `load_w` at most."""
    stated = math.isfinite(domain.budget_w)
    return DomainView(
        id=domain.name,
        level=picture.levels[domain.name],
        budget_w=domain.budget_w if stated else None,
        could_draw_w=round(load_w),
        headroom_w=round(domain.budget_w - load_w) if stated else None,
    )


def node_row(view: NodeView, limits: dict[str, Any]) -> NodeRow:
    """The row of a node, from its part of `power.gpu_limits`."""
    return NodeRow(
        node_id=view.node_id,
        rack_id=view.rack_id,
        pdu_id=view.pdu_id,
        group=None if view.group is None else view.group.name,
        min_w=view.min_w,
        max_w=view.max_w,
        set_w=_whole(limits.get("set_w", ())),
        power_w=_whole(limits.get("power_w", ())),
    )


def plan_fields(found: SitePlan) -> dict[str, Any]:
    """What a plan says of itself."""
    relief = found.relief if isinstance(found.relief, Relief) else None
    return {
        "feasible": found.feasible,
        "why": _why(found),
        "gpu_cap_w_by_node": found.caps,
        "work_kept_pct": round(100 * found.work_kept, 2),
        "missing_w": found.missing_w,
        "pause": [] if relief is None else list(relief.pause),
        "move": {} if relief is None else dict(relief.move),
        "cost_gpu_h": None if relief is None else round(relief.cost, 1),
        "dark": list(found.dark),
        "steps_left": found.steps_left,
        "releases": found.releases,
    }


def what_if_fields(answer: Answer) -> dict[str, Any]:
    """What would become of the site, in numbers and words."""
    relief = answer.relief if isinstance(answer.relief, Relief) else None
    difference, moved_w = answer.difference, caps_moved_w(answer)
    after, gpus = answer.after, answer.gpus_change
    if isinstance(after, Infeasible):
        why = f"{after.shortfall_w:.0f} GPU watts are missing under {after.node}. "
        why += relief_text(answer.relief)
    elif isinstance(answer.before, Infeasible):
        why = (
            f"it fits; as it is, {answer.before.shortfall_w:.0f} W lack under {answer.before.node}"
        )
    else:
        why = "every floor fits"
    return {
        "feasible": is_feasible(answer),
        "why": why,
        "gpus_change": gpus,
        "work_change_gpus": None
        if difference is None
        else round(difference.work_after - difference.work_before, 1),
        "caps_fall_w": None if moved_w is None else round(moved_w[0]),
        "caps_rise_w": None if moved_w is None else round(moved_w[1]),
        "draw_change_w": None if difference is None else round(difference.draw_change_w),
        "newly_full": [] if difference is None else list(difference.newly_full),
        "pause": [] if relief is None else list(relief.pause),
        "cost_gpu_h": None if relief is None else round(relief.cost, 1),
    }


def provision_fields(found: Provision) -> dict[str, Any]:
    """What fits, in per cent over as many nodes as nameplates fit, and what that assumes."""
    return {
        "static_pct": round(100 * found.static, 1),
        "statistical_pct": round(100 * found.statistical, 1),
        "capped_pct": round(100 * found.capped, 1),
        "work_pct": round(100 * found.work_vs_nameplate, 1),
        "caps_add_pct": round(100 * found.caps_add, 1),
        "says": _assumed(found),
    }


def _assumed(found: Provision) -> str:
    node, shares = found.node, found.mix.shares.items()
    return (
        f"{found.mix.name}: {', '.join(f'{kind} {share:.0%}' for kind, share in shares)}; "
        f"{found.floors} floors, curves {found.curves}, margin {found.margin:.0%}, nodes of "
        f"{node.nameplate_w:.0f} W by nameplate and {node.measured_max_w:.0f} W at most measured; "
        "the day is modelled, not measured"
    )


def _why(found: SitePlan) -> str:
    """In words: how good it is, or what is missing and what would help."""
    if found.feasible:
        said = f"at most {found.gap or 0.0:.1e} from the optimum"
    elif found.relief is None:
        said = f"above their limit stand: {_named(found.missing_w)}"
    else:
        said = (
            f"the floors do not fit: {_named(found.missing_w)}. These are the lowest caps "
            f"that keep every floor. {relief_text(found.relief)}"
        )
    if found.dark:
        said += f"; {len(found.dark)} dark nodes count at full draw"
    return said


def relief_text(relief: Relief | NoRelief | None) -> str:
    """What could be paused or moved, in words."""
    match relief:
        case Relief() if relief.pause or relief.move:
            moves = [f"{job} to {rack}" for job, rack in relief.move]
            parts = [f"pause {', '.join(relief.pause)}"] if relief.pause else []
            parts += [f"move {', '.join(moves)}"] if moves else []
            doubt = "" if relief.is_proven else f", at least {relief.bound:.1f}"
            return f"To make them fit: {' and '.join(parts)} ({relief.cost:.1f} GPU-h{doubt})"
        case NoRelief() if relief.nodes:
            return f"No pause of work without a floor is enough under {', '.join(relief.nodes[:3])}"
        case _:
            return "Accept a higher limit, or lower a floor"


def _named(missing_w: dict[str, float]) -> str:
    worst = sorted(missing_w.items(), key=lambda item: -item[1])
    more = f" and {len(worst) - NAMED} more" if len(worst) > NAMED else ""
    return ", ".join(f"{watts} W are missing at {name}" for name, watts in worst[:NAMED]) + more


def _whole(watts: Sequence[float | None]) -> list[int | None] | None:
    """Of each GPU; of a node that says nothing, nothing."""
    return [None if w is None else round(w) for w in watts] or None
