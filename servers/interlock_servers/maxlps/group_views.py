"""What the tools of resource groups answer with."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from interlock_servers.maxlps.group_models import GPU, GroupState, Policy, each_gpu_w
from interlock_servers.maxlps.models import AllocationCheck, Level
from interlock_servers.maxlps.picture import Picture
from interlock_servers.maxlps.views import Untold
from interlock_servers.page import Listing, Row
from interlock_servers.plant_text import PlantName, PlantWords


class GroupRow(Row):
    """One resource group. `priority` is absent before DPS 0.10."""

    identity: ClassVar[tuple[str, ...]] = ("name",)

    name: PlantName
    status: PlantName | None = None
    policy: PlantName | None = None
    downgraded_nodes: int | None = None
    priority: int | None = None
    dpm: bool | None = None
    prs: bool | None = None
    nodes: int | None = None
    nvml_profiles: list[int] | None = None


class ResourceGroups(Listing):
    """Resource groups by name."""

    listed: ClassVar[str] = "groups"

    groups: Annotated[list[GroupRow], Untold]


class GroupNode(Row):
    """One node of a group: what was asked for, what DPS applied, what its GPUs are limited to."""

    identity: ClassVar[tuple[str, ...]] = ("node_id",)

    node_id: PlantName
    requested: PlantName | None = None
    applied: PlantName | None = None
    downgraded: bool | None = None
    set_w: float | None = None
    out_of_reach_since: str | None = None


class GroupNodes(Listing):
    """The nodes of one group."""

    listed: ClassVar[str] = "nodes"

    nodes: Annotated[list[GroupNode], Untold]


class PolicyRow(Row):
    """One policy. `gpus_of_node_w` is what DPS holds, `each_gpu_w` the same for one GPU.

    `other` names limits of percentages and of element types that are not known here.
    """

    identity: ClassVar[tuple[str, ...]] = ("name",)

    name: PlantName
    gpus_of_node_w: float | None = None
    each_gpu_w: float | None = None
    node_w: float | None = None
    cpus_w: float | None = None
    memory_w: float | None = None
    other: list[PlantWords] | None = None
    bundle_types: list[PlantName] | None = None


class Policies(Listing):
    """Policies by name."""

    listed: ClassVar[str] = "policies"

    policies: Annotated[list[PolicyRow], Untold]


class Share(Row):
    """What DPS has allocated under one entity, by its dry run."""

    identity: ClassVar[tuple[str, ...]] = ("id",)

    id: PlantName
    level: Level | None = None
    allocated_w: float | None = None
    capacity_w: float | None = None
    headroom_w: float | None = None


class Allocation(Listing):
    """Entities of the topology with what is allocated in each."""

    listed: ClassVar[str] = "entities"

    entities: Annotated[list[Share], Untold]


class Rehearsal(Allocation):
    """A strict dry run. Who would lose power it cannot say."""

    would_succeed: bool
    downgraded: bool


def group_row(group: GroupState) -> GroupRow:
    """The row of a group."""
    lesser = [pair for pair in group.policies.values() if pair[0] != pair[1]]
    return GroupRow(
        name=group.name,
        status=group.status,
        policy=group.policy,
        downgraded_nodes=len(lesser) if group.status == "active" else None,
        priority=group.priority,
        dpm=group.dpm,
        prs=group.prs,
        nodes=len(group.node_ids),
        nvml_profiles=list(group.nvml_profiles) or None,
    )


def node_row(
    node_id: str, group: GroupState, picture: Picture, unreached: Mapping[str, Any]
) -> GroupNode:
    """The row of a node of a group."""
    pair = group.policies.get(node_id)
    view = picture.nodes.get(node_id)
    return GroupNode(
        node_id=node_id,
        requested=pair[0] or None if pair else None,
        applied=pair[1] or None if pair else None,
        downgraded=pair[0] != pair[1] if pair and group.status == "active" else None,
        set_w=view.set_w if view else None,
        out_of_reach_since=unreached.get(node_id, "unknown"),
    )


def policy_row(policy: Policy, gpus_per_node: int | None) -> PolicyRow:
    """The row of a policy; `gpus_per_node` is None where nodes differ."""
    watts = {limit.element: limit.watts for limit in policy.limits if limit.watts is not None}
    total_w = watts.pop(GPU, None)
    named = {"NODE", "CPU", "MEMORY"}
    other = [f"{element}: {w:g} W" for element, w in watts.items() if element not in named]
    other += [
        f"{limit.element}: {limit.percentage:g} %"
        for limit in policy.limits
        if limit.percentage is not None
    ]
    each_w = each_gpu_w(total_w, gpus_per_node) if total_w is not None and gpus_per_node else None
    return PolicyRow(
        name=policy.name,
        gpus_of_node_w=total_w,
        each_gpu_w=each_w,
        node_w=watts.get("NODE"),
        cpus_w=watts.get("CPU"),
        memory_w=watts.get("MEMORY"),
        other=other or None,
        bundle_types=list(policy.bundle_types) or None,
    )


def shares(checks: list[AllocationCheck], levels: Mapping[str, Level]) -> list[Share]:
    """A row for each entity; of several dry runs the fullest picture of it counts."""
    found: dict[str, tuple[float | None, float | None]] = {}
    for check in checks:
        for name, (allocated_w, capacity_w) in check.power_w.items():
            before_w = found.get(name, (None, None))[0]
            if before_w is None or (allocated_w is not None and allocated_w > before_w):
                found[name] = (allocated_w, capacity_w)
    return [
        Share(
            id=name,
            level=levels.get(name),
            allocated_w=None if allocated_w is None else round(allocated_w),
            capacity_w=None if capacity_w is None else round(capacity_w),
            headroom_w=None
            if allocated_w is None or capacity_w is None
            else round(capacity_w - allocated_w),
        )
        for name, (allocated_w, capacity_w) in sorted(found.items())
    ]
