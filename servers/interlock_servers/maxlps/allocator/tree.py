"""The power tree: which GPUs hang under which node, and how many watts each node may draw."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interlock_tools.errors import InvalidRequestError, NotFoundError

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

NO_NODE = -1  # parent of the root; also marks leaves that no node of a level feeds


class TreeNode(NamedTuple):
    """A point of distribution: server, rack, PDU, feed or site. The root's parent is None."""

    name: str
    parent: str | None
    budget_w: float


@dataclass(frozen=True)
class Level:
    """The nodes of one height, as segments of contiguous leaves that together cover all leaves.

    A segment that no node of this height feeds has `node` NO_NODE and no limit. None reaches across
    the border of a node of a greater height, so that sums of segments are sums of those below.
    """

    starts: Ints
    sizes: Ints
    node: Ints

    def pick(self, by_node: Floats, otherwise: float) -> Floats:
        """One value for each segment, from one value for each node of the tree."""
        return np.where(self.node == NO_NODE, otherwise, by_node[self.node])


@dataclass(frozen=True)
class PowerTree:
    """A checked tree. Leaves and nodes keep the caller's order; `order` is the inner one.

    Attributes:
        names: name of each node.
        parent: position of each node's parent; NO_NODE for the root.
        budget_w: budget of each node, in watts; infinite where a node sets no limit.
        leaf_node: position of the node that each leaf hangs under.
        order: caller's position of each leaf in the inner order, where every node is contiguous.
        levels: nodes by height, bottom-up: a node comes after everything under it.
    """

    names: tuple[str, ...]
    parent: Ints
    budget_w: Floats
    leaf_node: Ints
    order: Ints
    levels: tuple[Level, ...]

    @classmethod
    def from_nodes(cls, nodes: Iterable[TreeNode], leaf_parents: Sequence[str]) -> "PowerTree":
        """A tree from named nodes and, for each leaf (GPU), the name of the node it hangs under.

        Raises:
            InvalidRequestError: it is no tree: names the nodes or leaves and what is wrong.
        """
        listed = list(nodes)
        at = {node.name: position for position, node in enumerate(listed)}
        if len(at) != len(listed):
            raise InvalidRequestError("nodes: two nodes of the power tree have the same name")
        orphans = [n.name for n in listed if n.parent is not None and n.parent not in at]
        if orphans:
            raise InvalidRequestError(
                f"nodes: orphans, their parent is not a node: {_few(orphans)}"
            )
        lost = [leaf for leaf, name in enumerate(leaf_parents) if name not in at]
        if lost:
            raise InvalidRequestError(
                f"leaves: orphans, their node is not listed: GPU {_few(lost)}"
            )
        return cls.from_arrays(
            [node.name for node in listed],
            [NO_NODE if node.parent is None else at[node.parent] for node in listed],
            [node.budget_w for node in listed],
            [at[name] for name in leaf_parents],
        )

    @classmethod
    def from_arrays(
        cls, names: Sequence[str], parent: ArrayLike, budget_w: ArrayLike, leaf_node: ArrayLike
    ) -> "PowerTree":
        """A tree from positions: each node's parent, each leaf's node; for very large sites.

        Raises:
            InvalidRequestError: it is no tree: names the nodes or leaves and what is wrong.
        """
        up = np.asarray(parent, dtype=np.intp)
        budget = np.asarray(budget_w, dtype=np.float64)
        under = np.asarray(leaf_node, dtype=np.intp)
        _check_shape(names, up, budget, under)
        depth = _depths(names, up)
        order, levels = _arrange(names, up, under, depth)
        return cls(tuple(names), up, budget, under, order, levels)

    @property
    def leaf_count(self) -> int:
        """How many leaves (GPUs) the tree has."""
        return len(self.leaf_node)

    @property
    def root(self) -> int:
        """Position of the node that feeds everything."""
        return int(np.flatnonzero(self.parent == NO_NODE)[0])

    def position(self, name: str) -> int:
        """Position of the node with this name.

        Raises:
            NotFoundError: the tree has no such node.
        """
        if name not in self.names:
            raise NotFoundError(f"the power tree has no node named {name!r}")
        return self.names.index(name)

    @cached_property
    def is_in_order(self) -> bool:
        """Whether the caller's order of leaves is the inner one already; saves copies."""
        return bool((np.diff(self.order) > 0).all())

    def sums(self, by_leaf: Floats) -> Floats:
        """Sum over the leaves under each node (caller's order in, node order out)."""
        inner = self.to_inner(by_leaf)
        out = np.zeros(len(self.names))
        for level in self.levels:
            real = level.node != NO_NODE
            out[level.node[real]] = np.add.reduceat(inner, level.starts)[real]
        return out

    def to_inner(self, by_leaf: Floats) -> Floats:
        """Values by leaf, from the caller's order to the inner one; may be the same array."""
        return by_leaf if self.is_in_order else by_leaf[self.order]

    def to_caller(self, inner: Floats) -> Floats:
        """Values by leaf, from the inner order to the caller's; may be the same array."""
        if self.is_in_order:
            return inner
        out = np.empty_like(inner)
        out[self.order] = inner
        return out

    def leaves_under(self, node: int) -> Ints:
        """Caller's positions of the leaves under this node, ascending."""
        for level in self.levels:
            for segment in np.flatnonzero(level.node == node):
                start = level.starts[segment]
                return np.sort(self.order[start : start + level.sizes[segment]])
        raise NotFoundError(f"the power tree has no node at position {node}")


def _check_shape(names: Sequence[str], parent: Ints, budget_w: Floats, leaf_node: Ints) -> None:
    """What can be seen without walking the tree."""
    count = len(names)
    if not count or parent.shape != (count,) or budget_w.shape != (count,):
        raise InvalidRequestError("nodes: need one name, one parent and one budget for each node")
    if leaf_node.ndim != 1 or not len(leaf_node):
        raise InvalidRequestError("leaves: the power tree feeds no GPU")
    bad = np.flatnonzero(np.isnan(budget_w) | (budget_w <= 0))
    if len(bad):
        told = _few([f"{names[i]} ({budget_w[i]:g} W)" for i in bad.tolist()])
        raise InvalidRequestError(f"budget_w: a budget must be above zero: {told}")
    stray = np.flatnonzero((parent < NO_NODE) | (parent >= count))
    roots = np.flatnonzero(parent == NO_NODE)
    if len(stray) or len(roots) > 1:
        told = _few([names[i] for i in (stray if len(stray) else roots).tolist()])
        raise InvalidRequestError(f"nodes: orphans, one root feeds everything: {told}")
    lost = np.flatnonzero((leaf_node < 0) | (leaf_node >= count))
    if len(lost):
        raise InvalidRequestError(f"leaves: orphans, their node is not listed: GPU {_few(lost)}")


def _depths(names: Sequence[str], parent: Ints) -> Ints:
    """Steps from the root to each node; whoever is never reached stands in or under a cycle."""
    depth = np.where(parent == NO_NODE, 0, -1).astype(np.intp)
    steps = 0
    while len(found := np.flatnonzero((depth < 0) & (depth[parent] == steps))):
        steps += 1
        depth[found] = steps
    if len(looped := np.flatnonzero(depth < 0)):
        told = _few([names[i] for i in looped.tolist()])
        raise InvalidRequestError(f"nodes: a cycle, the root is never reached from {told}")
    return depth


def _arrange(
    names: Sequence[str], parent: Ints, leaf_node: Ints, depth: Ints
) -> tuple[Ints, tuple[Level, ...]]:
    """The inner order of the leaves, and the levels over it."""
    direct = np.bincount(leaf_node, minlength=len(names)).astype(np.intp)
    total, height = direct.copy(), np.zeros(len(names), dtype=np.intp)
    by_depth = [np.flatnonzero(depth == d) for d in range(int(depth.max()) + 1)]
    for here in reversed(by_depth[1:]):
        np.add.at(total, parent[here], total[here])
        np.maximum.at(height, parent[here], height[here] + 1)
    if len(empty := np.flatnonzero(total == 0)):
        told = _few([names[i] for i in empty.tolist()])
        raise InvalidRequestError(f"nodes: empty, no GPU under {told}")

    start = np.zeros(len(names), dtype=np.intp)
    for here in by_depth[1:]:  # a node's own leaves come first, then its children side by side
        here = here[np.argsort(parent[here], kind="stable")]
        before = _firsts(total[here])
        eldest = np.append(True, np.diff(parent[here]) != 0)
        family = np.cumsum(eldest) - 1
        start[here] = start[parent[here]] + direct[parent[here]] + before - before[eldest][family]

    order = np.argsort(start[leaf_node], kind="stable")
    levels, edges = [], np.zeros(1, dtype=np.intp)
    for h in reversed(range(int(height.max()) + 1)):
        here = np.flatnonzero(height == h)
        edges = np.unique(np.concatenate((edges, start[here], start[here] + total[here])))
        edges = edges[edges < len(leaf_node)]
        node = np.full(len(edges), NO_NODE, dtype=np.intp)
        node[np.searchsorted(edges, start[here])] = here
        levels.append(Level(edges, np.diff(np.append(edges, len(leaf_node))), node))
    return order, tuple(reversed(levels))


def runs(starts: Ints, sizes: Ints) -> Ints:
    """All positions in runs that start here and have these sizes, run by run."""
    positions: Ints = np.repeat(starts - _firsts(sizes), sizes) + np.arange(int(sizes.sum()))
    return positions


def _firsts(sizes: Ints) -> Ints:
    """Where each run starts when runs of these sizes stand side by side."""
    return np.cumsum(sizes) - sizes


def _few(items: Iterable[object], most: int = 5) -> str:
    """The first few, and how many more."""
    told = [str(item) for item in items]
    rest = f" and {len(told) - most} more" if len(told) > most else ""
    return ", ".join(told[:most]) + rest
