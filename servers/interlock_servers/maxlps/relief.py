"""Which work of a site to pause or move so that the floors of the rest fit; a proposal, no act."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from interlock_servers.maxlps.allocator.infeasible import NoRelief, Relief, Target, Work, relieve
from interlock_servers.maxlps.allocator.tree import Floats, PowerTree
from interlock_servers.maxlps.models import Level
from interlock_servers.maxlps.picture import Picture

# Longest checkpoint and restore of one GPU that holds about 55 GB (arXiv 2502.16631), in hours.
CHECKPOINT_H: Final = (146 + 145) / 3600


def relief_of(
    tree: PowerTree,
    gpu_budget_w: Floats,
    lo_w: Floats,
    picture: Picture,
    work_of: Mapping[str, float],
) -> Relief | NoRelief:
    """The cheapest groups to pause, or to move to racks whose nodes have no work.

    Costs are GPU-hours of work that an hour of pause loses, checkpoint and restore included. Work
    with a promised floor is never proposed, nor is a node of which nobody says what it does.

    Args:
        tree: the tree of the GPUs that can be capped.
        gpu_budget_w: what each of its nodes has left.
        lo_w: least cap of each GPU.
        picture: the site.
        work_of: relative work of each node under the closest caps.
    """
    gpu_node = [tree.names[node] for node in tree.leaf_node]
    jobs: dict[str, list[int]] = {}
    spare: dict[str, int] = {}
    for place, node_id in enumerate(gpu_node):
        view = picture.nodes[node_id]
        if view.is_paused:
            continue
        if view.group is None:
            if view.rack_id is not None:
                spare[view.rack_id] = spare.get(view.rack_id, 0) + 1
        elif not view.group.slo_floor:
            jobs.setdefault(view.group.name, []).append(place)
    short = {tree.names[i] for i in np.flatnonzero(tree.sums(lo_w) > gpu_budget_w)}
    racks = [
        rack
        for rack in spare
        if not short & {rack, *_above(picture, rack)} and picture.levels[rack] is Level.RACK
    ]
    works = []
    for name, places in jobs.items():
        saved = len(places) * CHECKPOINT_H
        targets = tuple(
            Target(rack, gpu_w=float(lo_w[places].sum()), cost=saved)
            for rack in racks
            if spare[rack] >= len(places)
        )
        lost = sum(work_of[gpu_node[place]] for place in places)
        works.append(Work(name, np.array(places), lost, saved, targets=targets))
    return relieve(
        tree, gpu_budget_w, lo_w, works, spare_gpus={rack: spare[rack] for rack in racks}
    )


def _above(picture: Picture, rack_id: str) -> tuple[str, ...]:
    """What feeds a rack."""
    for view in picture.nodes.values():
        if view.rack_id == rack_id:
            return view.path[view.path.index(rack_id) + 1 :]
    return ()
