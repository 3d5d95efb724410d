"""What does not fit: floors above a budget, a loop or a promised sum; where, and by how much."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from interlock_servers.maxlps.allocator import groups
from interlock_servers.maxlps.allocator.group_prices import Groups
from interlock_servers.maxlps.allocator.problem import Leaves, Problem
from interlock_servers.maxlps.allocator.tree import Floats, Ints, PowerTree


@dataclass(frozen=True)
class Infeasible:
    """The promised floors do not fit: shed or move work, or pause some; nothing was planned.

    Attributes:
        node: the lowest node that does not fit; of several, the one that lacks most. Or a group.
        budget_w: GPU watts that remain at this node after host power and margin (may be negative).
        floors_w: GPU watts that the floors under it need.
        shortfall_w: what is missing, in GPU watts.
        leaves: GPUs under it that hold more than their device and curve need, for their promise;
            where that would not help, all GPUs under it.
        also: names of further nodes (or groups) that do not fit.
        limit: what is broken: a node of the tree; the most that a group may take; the least that a
            group was promised; or, once feeds have failed, the node that they carried.
        proven: whether no caps at all could fit. It is not proven where groups were promised more
            than we found, and each alone, and all of them together, could have it.
    """

    node: str
    budget_w: float
    floors_w: float
    shortfall_w: float
    leaves: Ints
    also: tuple[str, ...]
    limit: Literal["node", "group", "promise", "failover"] = "node"
    proven: bool = True


def of_tree(
    tree: PowerTree,
    leaves: Leaves,
    lo_w: Floats,
    gpu_budget_w: Floats,
    limit: Literal["node", "failover"] = "node",
) -> Infeasible | None:
    """The lowest node whose floors exceed its budget, if any."""
    floors_w = tree.sums(lo_w)
    short = np.maximum(floors_w - gpu_budget_w, 0.0)
    if not short.any():
        return None
    for level in tree.levels:
        missing = level.pick(short, 0.0)
        if missing.any():
            node = int(level.node[np.argmax(missing)])
            break
    under = tree.leaves_under(node)
    least_w = leaves.least_w()[under]
    holding = under[lo_w[under] > least_w]
    return Infeasible(
        node=tree.names[node],
        budget_w=float(gpu_budget_w[node]),
        floors_w=float(floors_w[node]),
        shortfall_w=float(short[node]),
        leaves=holding if least_w.sum() <= gpu_budget_w[node] else under,
        also=tuple(tree.names[i] for i in np.flatnonzero(short) if i != node),
        limit=limit,
    )


def of_groups(parts: Sequence[Groups], leaves: Leaves, lo_w: Floats) -> Infeasible | None:
    """The group whose floors exceed what it may take by most, if any."""
    for part in parts:
        floors_w = part.sums(lo_w)
        short = np.maximum(floors_w - part.most_w, 0.0)
        if not short.any():
            continue
        worst = int(np.argmax(short))
        under = part.leaves_of(worst)
        least_w = leaves.least_w()[under]
        holding = under[lo_w[under] > least_w]
        return Infeasible(
            node=part.names[worst],
            budget_w=float(part.most_w[worst]),
            floors_w=float(floors_w[worst]),
            shortfall_w=float(short[worst]),
            leaves=holding if least_w.sum() <= part.most_w[worst] else under,
            also=tuple(part.names[i] for i in np.flatnonzero(short) if i != worst),
            limit="group",
        )
    return None


def of_promises(
    tree: PowerTree,
    gpu_budget_w: Floats,
    problem: Problem,
    parts: Sequence[Groups],
    short_w: Sequence[Floats],
) -> Infeasible:
    """Groups that did not get what they were promised; proven where even all of it is too little.

    Tested are each such group alone and all of them together.
    """
    missed = [
        (part, int(i))
        for part, short in zip(parts, short_w, strict=True)
        for i in short.nonzero()[0]
    ]
    part, worst = max(missed, key=lambda m: short_w[_place(parts, m[0])][m[1]])

    def reach_w(leaves: Ints) -> float:
        return groups.reachable_w(tree, gpu_budget_w, problem, parts, leaves)

    proven = any(reach_w(p.leaves_of(i)) < p.least_w[i] for p, i in missed)
    if not proven:
        for every in parts:
            mine = [i for p, i in missed if p is every]
            leaves = np.flatnonzero(np.isin(every.group, mine))
            proven |= bool(len(mine)) and reach_w(leaves) < float(every.least_w[mine].sum())
    had_w = float(part.least_w[worst] - short_w[_place(parts, part)][worst])
    return Infeasible(
        node=part.names[worst],
        budget_w=had_w,
        floors_w=float(part.least_w[worst]),
        shortfall_w=float(part.least_w[worst] - had_w),
        leaves=part.leaves_of(worst),
        also=tuple(p.names[i] for p, i in missed if p is not part or i != worst),
        limit="promise",
        proven=proven,
    )


def _place(parts: Sequence[Groups], part: Groups) -> int:
    """Position of this very way to part the GPUs."""
    return next(i for i, each in enumerate(parts) if each is part)
