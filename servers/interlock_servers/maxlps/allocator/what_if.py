"""What would become of a site: nodes added, feeds lost, budgets or floors changed.

Nothing here acts. An answer is the plan for the changed site, or what does not fit in it, and the
difference to the plan for the site as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from interlock_servers.maxlps.allocator.gang import ALONE
from interlock_servers.maxlps.allocator.group_prices import Groups
from interlock_servers.maxlps.allocator.infeasible import NoRelief, Relief, Work, relieve
from interlock_servers.maxlps.allocator.limits import Supply
from interlock_servers.maxlps.allocator.plan import CapPlan, Infeasible
from interlock_servers.maxlps.allocator.problem import Leaves
from interlock_servers.maxlps.allocator.site import Site
from interlock_servers.maxlps.allocator.tree import Floats, Ints, TreeNode
from interlock_tools.errors import InvalidRequestError

FULL = 1 - 1e-4  # of its budget: a node counts as full from here on


class Change(Protocol):
    """Something that may happen to a site."""

    def apply(self, site: Site) -> Site:
        """The site afterwards.

        Raises:
            InvalidRequestError: it cannot happen to this site; names what is wrong.
        """
        ...


@dataclass(frozen=True)
class AddNodes:
    """More nodes under a rack, each like one that is there: its rating, GPUs, work and groups.

    `count` nodes named `<like>+1` and so on. In a synchronous job the new GPUs have no part.
    """

    rack: str
    like: str
    count: int

    def apply(self, site: Site) -> Site:
        """The site with them."""
        site.node(self.rack)
        pattern = site.node(self.like)
        copied = site.gpus_under(frozenset({self.like}))
        if self.count < 1 or not len(copied):
            raise InvalidRequestError("AddNodes: need a count of at least 1 and a node with GPUs")
        used = {node.name for node in site.nodes}
        names = [f"{self.like}+{i + 1}" for i in range(self.count)]
        if taken := sorted(used & set(names)):
            raise InvalidRequestError(f"AddNodes: {taken[0]} is there already")
        several = np.tile(copied, self.count)
        order = np.concatenate((np.arange(len(site.gpu_id)), several))
        columns = {name: values[order] for name, values in vars(site.leaves).items()}
        new_id = int(site.gpu_id.max()) + 1 + np.arange(len(several))
        parts = [
            Groups.of(p.names, p.group[order], most_w=p.most_w, least_w=p.least_w)
            for p in site.parts
        ]
        return replace(
            site,
            nodes=(*site.nodes, *(TreeNode(n, self.rack, pattern.budget_w) for n in names)),
            gpu_node=(*site.gpu_node, *(n for n in names for _ in copied)),
            leaves=Leaves.of(**columns),
            gpu_id=np.concatenate((site.gpu_id, new_id)),
            job=np.concatenate((site.job, np.full(len(several), ALONE))),
            parts=tuple(parts),
        )


@dataclass(frozen=True)
class LoseNode:
    """A PDU, busway or other node fails.

    What hangs right under it and has an alternate is fed from there; the rest goes dark. A job that
    lost a GPU stands still, its other GPUs idle.
    """

    node: str

    def apply(self, site: Site) -> Site:
        """The site without it."""
        if site.node(self.node).parent is None:
            raise InvalidRequestError(f"LoseNode: {self.node} feeds everything")
        failed = site.under(self.node)
        moved: dict[str, str] = {}
        for child in (n.name for n in site.nodes if n.parent == self.node):
            other = site.alternate.get(child)
            if other is not None and other not in failed:
                site.node(other)
                moved[child] = other
        dark = failed - frozenset().union(*(site.under(child) for child in moved))
        nodes = [
            node._replace(parent=moved.get(node.name, node.parent))
            for node in site.nodes
            if node.name not in dark
        ]
        lost = site.gpus_under(dark)
        kept = np.setdiff1d(np.arange(len(site.gpu_id)), lost)
        if not len(kept):
            raise InvalidRequestError(f"LoseNode: nothing is left without {self.node}")
        stopped = np.unique(site.job[lost][site.job[lost] != ALONE])
        left = replace(
            site,
            supplies=tuple(s for s in site.supplies if s.node not in dark),
            alternate={c: p for c, p in site.alternate.items() if not {c, p} & dark},
        ).take(kept)
        left = replace(left, nodes=_feeding(nodes, set(left.gpu_node)))
        return left.pause(np.flatnonzero(np.isin(left.job, stopped))) if len(stopped) else left


@dataclass(frozen=True)
class LoseFeed:
    """One of several feeds of a node fails; the others carry what they are rated for."""

    node: str
    feed: str

    def apply(self, site: Site) -> Site:
        """The site on the feeds that are left, with one spare less."""
        hit = [s for s in site.supplies if s.node == self.node and self.feed in s.feed_w]
        if not hit:
            raise InvalidRequestError(f"LoseFeed: {self.node} has no feed {self.feed!r}")
        left = {name: w for name, w in hit[0].feed_w.items() if name != self.feed}
        supplies = [s for s in site.supplies if s is not hit[0]]
        if hit[0].spare > 1:
            supplies.append(Supply(self.node, left, hit[0].spare - 1, hit[0].window_s))
        budget_w = min(site.node(self.node).budget_w, sum(left.values()))
        return SetBudget(self.node, budget_w).apply(replace(site, supplies=tuple(supplies)))


@dataclass(frozen=True)
class SetBudget:
    """A node gets another rating, in watts at the meter."""

    node: str
    budget_w: float

    def apply(self, site: Site) -> Site:
        """The site with it."""
        site.node(self.node)
        if not self.budget_w > 0:
            raise InvalidRequestError(
                f"SetBudget: {self.node} needs more than 0 W; a node that fails is lost (LoseNode)"
            )
        nodes = [
            n._replace(budget_w=self.budget_w) if n.name == self.node else n for n in site.nodes
        ]
        return replace(site, nodes=tuple(nodes))


@dataclass(frozen=True)
class SetFloor:
    """All GPUs under these nodes are promised another relative work, in [0, 1]."""

    nodes: tuple[str, ...]
    floor_work: float

    def apply(self, site: Site) -> Site:
        """The site with it."""
        reach: frozenset[str] = frozenset().union(*(site.under(name) for name in self.nodes))
        columns = {name: values.copy() for name, values in vars(site.leaves).items()}
        columns["floor_work"][site.gpus_under(reach)] = self.floor_work
        return replace(site, leaves=Leaves.of(**columns))


@dataclass(frozen=True)
class Difference:
    """What changes from one plan to the other; only GPUs that both have are compared.

    Attributes:
        work_before: weighted relative work of all GPUs.
        work_after: the same afterwards, with what came and without what went.
        gpus_added: how many came.
        gpus_lost: how many went dark.
        gpu_id: GPUs of both.
        change_w: by how much the cap of each changes, in watts.
        newly_full: names of nodes that had room and have none.
        newly_free: names of nodes that had none and have room.
        draw_change_w: change of what the site draws at most, in watts at the meter.
    """

    work_before: float
    work_after: float
    gpus_added: int
    gpus_lost: int
    gpu_id: Ints
    change_w: Floats
    newly_full: tuple[str, ...]
    newly_free: tuple[str, ...]
    draw_change_w: float


@dataclass(frozen=True)
class Answer:
    """The plan before and after, or what does not fit.

    Attributes:
        site: the changed site.
        before: the plan for the site as it is.
        after: the plan for the changed site.
        difference: between the two plans; None where one is missing.
        relief: where floors do not fit a node afterwards: the cheapest of the works to pause for an
            hour; those of the site are whole jobs and nodes, by weight, without penalties.
        promises_lost: groups that were promised watts and have no GPU left.
        gpus_change: how many GPUs there are more, or fewer.
    """

    site: Site
    before: CapPlan | Infeasible
    after: CapPlan | Infeasible
    difference: Difference | None
    relief: Relief | NoRelief | None
    promises_lost: tuple[str, ...]
    gpus_change: int = 0


def what_if(
    site: Site, changes: Sequence[Change], works: Callable[[Site], Sequence[Work]] = Site.works
) -> Answer:
    """The answer to these changes, one after the other; `works` is what could be paused then.

    Raises:
        InvalidRequestError: a change cannot happen to this site, or the result is no site.
    """
    changed = site
    for change in changes:
        changed = change.apply(changed)
    before, after = site.plan(), changed.plan()
    difference, relief = None, None
    if isinstance(before, CapPlan) and isinstance(after, CapPlan):
        difference = _difference(site, changed, before, after)
    if isinstance(after, Infeasible) and after.limit == "node":
        promised = changed.gangs.promised(changed.leaves).problem()
        relief = relieve(changed.tree, changed.gpu_budget_w(), promised.lo_w, works(changed))
    gpus = len(changed.gpu_id) - len(site.gpu_id)
    return Answer(changed, before, after, difference, relief, changed.promises_lost, gpus)


def _difference(site: Site, changed: Site, before: CapPlan, after: CapPlan) -> Difference:
    """GPUs are matched by their number, nodes by their name."""
    both, here, there = np.intersect1d(site.gpu_id, changed.gpu_id, return_indices=True)
    full = [
        {n.name for n, w, b in zip(s.nodes, p.gpu_w, p.gpu_budget_w, strict=True) if w >= FULL * b}
        for s, p in ((site, before), (changed, after))
    ]
    draw_w = [p.total_w[s.tree.root] for s, p in ((site, before), (changed, after))]
    return Difference(
        work_before=float(site.leaves.weight @ before.work),
        work_after=float(changed.leaves.weight @ after.work),
        gpus_added=len(changed.gpu_id) - len(both),
        gpus_lost=len(site.gpu_id) - len(both),
        gpu_id=both,
        change_w=after.cap_w[there] - before.cap_w[here],
        newly_full=tuple(sorted(full[1] - full[0])),
        newly_free=tuple(sorted(full[0] - full[1])),
        draw_change_w=float(draw_w[1] - draw_w[0]),
    )


def _feeding(nodes: Sequence[TreeNode], used: set[str]) -> tuple[TreeNode, ...]:
    """The nodes that still feed a GPU."""
    parent = {node.name: node.parent for node in nodes}
    alive: set[str] = set()
    for name in used:
        at: str | None = name
        while at is not None and at not in alive:
            alive.add(at)
            at = parent[at]
    return tuple(node for node in nodes if node.name in alive)
