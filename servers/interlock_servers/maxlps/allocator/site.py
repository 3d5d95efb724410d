"""A whole site as one value: everything that a plan is made from, so that it can be asked about."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from interlock_servers.maxlps.allocator.gang import ALONE, Gangs
from interlock_servers.maxlps.allocator.group_prices import NO_GROUP, Groups
from interlock_servers.maxlps.allocator.infeasible import Work, paused
from interlock_servers.maxlps.allocator.limits import (
    MARGIN,
    HostPower,
    Ramp,
    Reserve,
    Supply,
    gpu_budget_w,
    ratings_w,
)
from interlock_servers.maxlps.allocator.plan import CapPlan, Infeasible, plan
from interlock_servers.maxlps.allocator.problem import Leaves
from interlock_servers.maxlps.allocator.tree import Floats, Ints, PowerTree, TreeNode
from interlock_tools.errors import InvalidRequestError


@dataclass(frozen=True)
class Site:
    """What hangs where, what it works on, and which limits hold.

    Attributes:
        nodes: the power tree, in any order.
        gpu_node: name of the node that each GPU hangs under.
        leaves: what is known of each GPU.
        gpu_id: a number of each GPU that stays with it when others come and go.
        job: synchronous job of each GPU, or ALONE; numbers need not be without gaps.
        parts: ways to part the GPUs into groups with limits.
        supplies: nodes carried by several feeds.
        alternate: for a node with a second feed, the node that it can hang under instead.
        reserve: whether the reserve of feeds is kept or used; see `plan`.
        emergency_s: how soon emergency caps act.
        host: power that the caps do not reach.
        margin: share of each budget that is left free.
        ramp: a target of the site.
        promises_lost: groups that were promised watts and have no GPU left.
    """

    nodes: tuple[TreeNode, ...]
    gpu_node: tuple[str, ...]
    leaves: Leaves
    gpu_id: Ints
    job: Ints
    parts: tuple[Groups, ...] = ()
    supplies: tuple[Supply, ...] = ()
    alternate: Mapping[str, str] = field(default_factory=dict)
    reserve: Reserve = "kept"
    emergency_s: float | None = None
    host: HostPower = field(default_factory=HostPower)
    margin: float = MARGIN
    ramp: Ramp | None = None
    promises_lost: tuple[str, ...] = ()

    @property
    def tree(self) -> PowerTree:
        """The checked tree."""
        return PowerTree.from_nodes(self.nodes, self.gpu_node)

    @property
    def gangs(self) -> Gangs:
        """The jobs, numbered without gaps."""
        known, dense = np.unique(self.job, return_inverse=True)
        shift = int(bool(len(known)) and int(known[0]) == ALONE)
        return Gangs.of(dense - shift, len(self.job))

    def plan(self) -> CapPlan | Infeasible:
        """The plan for it, from nothing; see `plan.plan` for what it raises."""
        return plan(
            self.tree,
            self.leaves,
            host=self.host,
            margin=self.margin,
            ramp=self.ramp,
            gangs=self.gangs,
            parts=self.parts,
            supplies=self.supplies,
            reserve=self.reserve,
            emergency_s=self.emergency_s,
        )

    def gpu_budget_w(self) -> Floats:
        """GPU watts that each node has left, in the order of `nodes`."""
        tree = self.tree
        rating_w = ratings_w(tree, self.supplies, self.reserve)
        return gpu_budget_w(tree, rating_w, self.host, self.margin, self.ramp)

    def node(self, name: str) -> TreeNode:
        """One node of the tree.

        Raises:
            InvalidRequestError: there is none of this name.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise InvalidRequestError(f"{name!r} is no node of this site")

    def under(self, name: str) -> frozenset[str]:
        """Names of this node and of everything under it."""
        self.node(name)
        found = {name}
        while more := {n.name for n in self.nodes if n.parent in found} - found:
            found |= more
        return frozenset(found)

    def gpus_under(self, names: frozenset[str]) -> Ints:
        """Positions of the GPUs that hang right under one of these nodes."""
        return np.flatnonzero([name in names for name in self.gpu_node])

    def take(self, kept: Ints) -> "Site":
        """The site with these GPUs only; jobs that lost one are as they are, groups shrink."""
        lost: list[str] = []
        parts: list[Groups] = []
        for part in self.parts:
            group = part.group[kept]
            alive = np.unique(group[group != NO_GROUP])
            gone = np.setdiff1d(np.arange(len(part.names)), alive)
            lost += [part.names[i] for i in gone if part.least_w[i] > 0]
            if not len(alive):
                continue
            number = np.full(len(part.names) + 1, NO_GROUP)  # the last: of GPUs without a group
            number[alive] = np.arange(len(alive))
            parts.append(
                Groups.of(
                    [part.names[i] for i in alive],
                    number[group],
                    most_w=part.most_w[alive],
                    least_w=part.least_w[alive],
                )
            )
        columns = {name: values[kept] for name, values in vars(self.leaves).items()}
        return replace(
            self,
            gpu_node=tuple(self.gpu_node[i] for i in kept),
            leaves=Leaves.of(**columns),
            gpu_id=self.gpu_id[kept],
            job=self.job[kept],
            parts=tuple(parts),
            promises_lost=(*self.promises_lost, *lost),
        )

    def pause(self, which: Ints) -> "Site":
        """The site with these GPUs idle, out of their jobs."""
        job = self.job.copy()
        job[which] = ALONE
        return replace(self, leaves=paused(self.leaves, which), job=job)

    def works(self) -> list[Work]:
        """What could be paused as a whole: each job, and each node's GPUs that have none.

        The loss is weighted GPU-hours for each hour of pause; penalties are the caller's to add.
        """
        keys: dict[str, list[int]] = {}
        for gpu, (job, node) in enumerate(zip(self.job.tolist(), self.gpu_node, strict=True)):
            keys.setdefault(node if job == ALONE else f"job-{job}", []).append(gpu)
        weight = self.leaves.weight
        return [
            Work(name, np.array(gpus), lost=float(weight[gpus].sum()))
            for name, gpus in keys.items()
        ]
