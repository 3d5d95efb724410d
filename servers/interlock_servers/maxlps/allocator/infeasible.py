"""The cheapest set of work to pause or move so that the floors of the rest fit every budget.

It proposes; who pauses is for people and policy to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from interlock_servers.maxlps.allocator.cover import KEEP, cheapest
from interlock_servers.maxlps.allocator.problem import Leaves
from interlock_servers.maxlps.allocator.tree import NO_NODE, Floats, Ints, PowerTree
from interlock_tools.errors import InvalidRequestError

IDLE_W = 75.0  # of a GPU that is paused (H100: 72.5 W, published)


@dataclass(frozen=True)
class Target:
    """Where a piece of work could run instead.

    Attributes:
        node: name of the node whose spare GPUs it would take.
        gpu_w: GPU watts that its floor needs there, in all.
        cost: of moving it, in the unit of `Work.lost`.
    """

    node: str
    gpu_w: float
    cost: float


@dataclass(frozen=True)
class Work:
    """Something that is paused or moved as a whole.

    Attributes:
        name: of the job.
        leaves: GPUs that it runs on (caller's positions).
        lost: what a pause costs: weight times relative work that is not done, in any one unit for
            all work (weighted GPU-hours, say).
        penalty: further cost of a pause, in the same unit: checkpoint, restore, a broken promise.
        can_pause: whether a pause may be considered at all.
        targets: where it could move.
    """

    name: str
    leaves: Ints
    lost: float
    penalty: float = 0.0
    can_pause: bool = True
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True)
class Relief:
    """What to pause and move.

    Attributes:
        pause: names of the work to pause.
        move: name of the work and of the node to move it to.
        cost: of all of it.
        bound: no set costs less than this.
        is_proven: whether no cheaper set exists; otherwise only the bound is.
        floors_w: GPU watts that the floors under each node need afterwards.
    """

    pause: tuple[str, ...]
    move: tuple[tuple[str, str], ...]
    cost: float
    bound: float
    is_proven: bool
    floors_w: Floats


@dataclass(frozen=True)
class NoRelief:
    """Nothing that may be paused or moved makes the floors fit.

    Attributes:
        nodes: names of those that would still lack, were all of it that may be paused paused; empty
            where each could be helped, but not all at once.
        shortfall_w: GPU watts that each would still lack.
    """

    nodes: tuple[str, ...]
    shortfall_w: tuple[float, ...] = field(default=())


def relieve(
    tree: PowerTree,
    gpu_budget_w: Floats,
    lo_w: Floats,
    works: Sequence[Work],
    *,
    spare_gpus: Mapping[str, int] | None = None,
    idle_w: float = IDLE_W,
) -> Relief | NoRelief:
    """The cheapest pauses and moves after which the floors fit; exact for some hundreds of jobs.

    Args:
        tree: the power tree.
        gpu_budget_w: GPU watts that each node has left after host power and margin, by node.
        lo_w: least cap of each GPU, promises included (`Leaves.problem().lo_w`).
        works: what could be paused or moved; no GPU twice. GPUs of none stay as they are.
        spare_gpus: how many GPUs stand free under a node, for each node that work may move to.
        idle_w: what a GPU draws that is paused or left behind; where its floor is lower, that.

    Raises:
        InvalidRequestError: an argument can never work; names it and why.
        RuntimeError: the search was cut short before any answer was found.
    """
    spare = dict(spare_gpus or {})
    _check(tree, gpu_budget_w, lo_w, works, spare, idle_w)
    floors_w = tree.sums(lo_w)
    nodes = len(tree.names)
    # One row for each node, in watts, and one for each place with spare GPUs, in GPUs.
    need = np.concatenate((floors_w - gpu_budget_w, [-float(count) for count in spare.values()]))
    need[:nodes] += 1e-9 * np.abs(floors_w)  # no order of summing shows a budget exceeded
    if not (need > 0).any():
        return Relief((), (), 0.0, 0.0, True, floors_w)
    options = _options(tree, lo_w, works, list(spare), idle_w)
    gain = np.array([option.gain for option in options]).reshape(-1, len(need))
    lack = (need - np.maximum(gain, 0.0).sum(axis=0))[:nodes]
    if (lack > 0).any():
        short = np.flatnonzero(lack > 0)
        return NoRelief(tuple(tree.names[i] for i in short), tuple(lack[short].tolist()))
    rows = np.isfinite(need) & ((need > 0) | (gain < 0).any(axis=0))  # no limit is no row
    dense = np.unique([option.work for option in options], return_inverse=True)[1]
    cost = np.array([option.cost for option in options])
    found = cheapest(dense, cost, gain[:, rows], need[rows])
    if found is None:
        return NoRelief(())
    chosen = [options[int(o)] for o in found.choice if o != KEEP]
    return Relief(
        pause=tuple(works[o.work].name for o in chosen if o.node is None),
        move=tuple((works[o.work].name, o.node) for o in chosen if o.node is not None),
        cost=found.cost,
        bound=found.bound,
        is_proven=found.is_proven,
        floors_w=floors_w - sum((o.gain[:nodes] for o in chosen), np.zeros(nodes)),
    )


def paused(leaves: Leaves, which: Ints, idle_w: float = IDLE_W) -> Leaves:
    """The same GPUs, these drawing `idle_w` watts each and doing nothing that counts."""
    columns = {name: values.copy() for name, values in vars(leaves).items()}
    for name, value in (("natural_w", idle_w), ("hi_w", idle_w), ("lo_w", 0.0)):
        columns[name][which] = value
    columns["floor_work"][which] = 1.0  # it draws this, whatever it is given
    columns["weight"][which] = 1e-9 * float(leaves.weight.min())
    return replace(leaves, **columns)


def _check(
    tree: PowerTree,
    gpu_budget_w: Floats,
    lo_w: Floats,
    works: Sequence[Work],
    spare: Mapping[str, int],
    idle_w: float,
) -> None:
    """What can never work, by name."""
    if gpu_budget_w.shape != tree.budget_w.shape or np.isnan(gpu_budget_w).any():
        raise InvalidRequestError("gpu_budget_w: need one number for each node")
    if lo_w.shape != (tree.leaf_count,) or not np.isfinite(lo_w).all() or (lo_w < 0).any():
        raise InvalidRequestError("lo_w: need one number of at least 0 W for each GPU")
    if not 0 <= idle_w < np.inf:
        raise InvalidRequestError(f"idle_w: must be at least 0 W, not {idle_w:g}")
    if any(count < 0 for count in spare.values()):
        raise InvalidRequestError("spare_gpus: must be at least 0")
    names = [work.name for work in works]
    if len(set(names)) != len(names):
        raise InvalidRequestError("works: two have the same name")
    seen = np.zeros(tree.leaf_count, dtype=bool)
    for work in works:
        held = np.asarray(work.leaves)
        if not len(held) or (held < 0).any() or (held >= tree.leaf_count).any():
            raise InvalidRequestError(f"works: {work.name} needs GPUs of this tree")
        if seen[held].any() or len(np.unique(held)) != len(held):
            raise InvalidRequestError(f"works: a GPU of {work.name} is named twice")
        seen[held] = True
        costs = [work.lost, work.penalty, *(t.cost for t in work.targets)]
        if not (np.isfinite(costs).all() and min(costs) >= 0):
            raise InvalidRequestError(f"works: costs of {work.name} must be at least 0")
        for target in work.targets:
            tree.position(target.node)
            if target.node not in spare or not 0 <= target.gpu_w < np.inf:
                raise InvalidRequestError(
                    f"works: {work.name} may move to {target.node} only with spare_gpus and gpu_w"
                )


class _Option(NamedTuple):
    """One thing that may be done to one piece of work: a pause, or a move to a node."""

    work: int
    node: str | None
    cost: float
    gain: Floats


def _options(
    tree: PowerTree, lo_w: Floats, works: Sequence[Work], slots: list[str], idle_w: float
) -> list[_Option]:
    """All that may be done, work by work."""
    out: list[_Option] = []
    for number, work in enumerate(works):
        by_leaf = np.zeros(tree.leaf_count)
        by_leaf[work.leaves] = np.maximum(lo_w[work.leaves] - idle_w, 0.0)
        freed_w, seats = tree.sums(by_leaf), np.zeros(len(slots))
        if work.can_pause:
            gain = np.concatenate((freed_w, seats))
            out.append(_Option(number, None, work.lost + work.penalty, gain))
        for target in work.targets:
            taken_w, at = np.zeros(len(tree.names)), tree.position(target.node)
            while at != NO_NODE:
                taken_w[at] = target.gpu_w
                at = int(tree.parent[at])
            used = seats.copy()
            used[slots.index(target.node)] = -len(work.leaves)
            gain = np.concatenate((freed_w - taken_w, used))
            out.append(_Option(number, target.node, target.cost, gain))
    return out
