"""Questions about a site that is not there yet: what if it changed, and how many GPUs would fit."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from interlock_servers.maxlps.allocator.infeasible import Work
from interlock_servers.maxlps.allocator.plan import MARGIN, CapPlan
from interlock_servers.maxlps.allocator.provision import Mix, Node, Provision, provision
from interlock_servers.maxlps.allocator.site import Site
from interlock_servers.maxlps.allocator.what_if import (
    AddNodes,
    Answer,
    Change,
    LoseNode,
    SetBudget,
    SetFloor,
    what_if,
)
from interlock_servers.maxlps.node_view import HOST
from interlock_servers.maxlps.picture import Picture
from interlock_servers.maxlps.planning import Sheet
from interlock_servers.maxlps.relief import CHECKPOINT_H
from interlock_tools.errors import InvalidRequestError

Floors = Literal["strict", "relaxed"]
KINDS = ("train", "serving", "batch", "dev")
NODE_GPUS, NODE_MAX_W = 8, 700.0  # the only server whose nameplate and measured maximum we have


def changed(
    picture: Picture,
    *,
    lose: Sequence[str] = (),
    budget_w: Mapping[str, float] | None = None,
    floor: Mapping[str, float] | None = None,
    add: Mapping[str, int] | None = None,
) -> Answer:
    """The plans before and after: nodes added, then domains lost, then other budgets and floors.

    Args:
        picture: the site as it is.
        lose: domains or nodes that fail.
        budget_w: other budgets, in watts at the meter, by domain.
        floor: other promised work, by domain, node or group.
        add: how many nodes like this one come into its rack.

    Raises:
        InvalidRequestError: nothing is asked, or a change cannot happen to this site.
    """
    site = _site(picture)
    changes: list[Change] = []
    for like, count in (add or {}).items():
        changes.append(AddNodes(str(picture.node(like).rack_id), like, count))
    changes += [LoseNode(name) for name in lose]
    changes += [SetBudget(name, watts) for name, watts in (budget_w or {}).items()]
    changes += [SetFloor(_nodes(picture, name), share) for name, share in (floor or {}).items()]
    if not changes:
        raise InvalidRequestError("nothing is changed; say lose, budget_w, floor or add")
    return what_if(site, changes, lambda after: _works(picture, after))


def provisioned(picture: Picture, floors: Floors = "strict") -> Provision:
    """How many more GPUs fit for this site's own mix of work.

    Raises:
        InvalidRequestError: it has other servers than those that are known, or no work is named.
    """
    counts: Counter[str] = Counter()
    for view in picture.lit:
        if (view.gpu_count, view.max_w) != (NODE_GPUS, NODE_MAX_W):
            raise InvalidRequestError(
                f"nameplate and measured maximum are known for servers of {NODE_GPUS} "
                f"GPUs of {NODE_MAX_W:.0f} W; {view.node_id} is another one"
            )
        kind = (view.group.workload_class or "").casefold() if view.group else ""
        counts[kind if kind in KINDS else ""] += view.gpu_count
    known = sum(counts[kind] for kind in KINDS)
    if not known:
        raise InvalidRequestError("no group of this site says what it works on")
    shares = {kind: counts[kind] / known for kind in KINDS if counts[kind]}
    left_out = f", {counts['']} GPUs of other or unknown work left out" if counts[""] else ""
    return provision(
        Mix(f"the mix of this site{left_out}", shares, "global"),
        floors=floors,
        node=Node(host=HOST),
    )


def _site(picture: Picture) -> Site:
    """The allocator's value of the whole site."""
    sheet = Sheet.of(picture)
    return Site(
        nodes=sheet.nodes,
        gpu_node=sheet.gpu_node,
        leaves=sheet.leaves,
        gpu_id=np.arange(len(sheet.gpu_node)),
        job=sheet.job,
        parts=sheet.parts,
        host=HOST,
        margin=MARGIN,
    )


def _nodes(picture: Picture, name: str) -> tuple[str, ...]:
    """A domain or node itself; of a group, its nodes."""
    if name in picture.levels:
        return (name,)
    found = tuple(v.node_id for v in picture.lit if v.group is not None and v.group.name == name)
    if not found:
        raise InvalidRequestError(f"floor: {name!r} is no domain, node or group of this site")
    return found


def _works(picture: Picture, site: Site) -> list[Work]:
    """The groups without a floor; added nodes belong to the group of the one that they are like."""
    floors = site.leaves.floor_work
    jobs: dict[str, list[int]] = {}
    kept: set[str] = set()
    for place, node_id in enumerate(site.gpu_node):
        view = picture.nodes[node_id.partition("+")[0]]
        if view.group is not None:
            jobs.setdefault(view.group.name, []).append(place)
            if floors[place] > 0:
                kept.add(view.group.name)
    return [
        Work(name, np.array(places), float(len(places)), len(places) * CHECKPOINT_H)
        for name, places in jobs.items()
        if name not in kept
    ]


def caps_moved_w(answer: Answer) -> tuple[float, float] | None:
    """By how much caps fall and rise in sum, in GPU watts; None where a plan is missing."""
    if answer.difference is None:
        return None
    moves_w = answer.difference.change_w
    return float(-moves_w[moves_w < 0].sum()), float(moves_w[moves_w > 0].sum())


def is_feasible(answer: Answer) -> bool:
    """Whether the changed site has a plan."""
    return isinstance(answer.after, CapPlan)
