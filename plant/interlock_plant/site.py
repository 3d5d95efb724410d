"""What stands where: a frozen, validated description of one site and its power and cooling trees.

Power flows feed -> PDU -> rack -> node -> GPU, each child on one parent. Every CDU cools some
racks; that tree does not nest in the power tree. GPU `i` is the i-th in the order of the nodes.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from interlock_plant.arrays import Ints
from interlock_plant.parameters import (
    H100_HOST,
    H100_SXM,
    NODE_NAMEPLATE_W,
    GpuParameters,
    HostParameters,
)
from interlock_tools.errors import InvalidRequestError

SITE_METER: Final = "site"  # the id of the meter at the fence


@dataclass(frozen=True)
class Feed:
    """A utility feed; its rating is that of its breaker."""

    feed_id: str
    rating_w: float


@dataclass(frozen=True)
class Pdu:
    """A power distribution unit; its rating is that of its breaker."""

    pdu_id: str
    feed_id: str
    rating_w: float


@dataclass(frozen=True)
class Cdu:
    """A coolant distribution unit; its rating is the heat it is designed to carry."""

    cdu_id: str
    rating_w: float


@dataclass(frozen=True)
class Rack:
    """A rack; its rating is a limit on its draw and sizes its coolant flow."""

    rack_id: str
    pdu_id: str
    cdu_id: str
    rating_w: float


@dataclass(frozen=True)
class Node:
    """A server and its GPUs."""

    node_id: str
    rack_id: str
    gpu_count: int = 8
    rating_w: float = NODE_NAMEPLATE_W


@dataclass(frozen=True)
class SiteSpec:
    """One site. Construction fails rather than describe a site that cannot stand.

    Raises:
        InvalidRequestError: an id is empty or used twice, a rating is not a positive number, a
            parent does not exist, or there is no node.
    """

    name: str
    feeds: tuple[Feed, ...]
    pdus: tuple[Pdu, ...]
    cdus: tuple[Cdu, ...]
    racks: tuple[Rack, ...]
    nodes: tuple[Node, ...]
    gpu: GpuParameters = H100_SXM
    host: HostParameters = H100_HOST

    def __post_init__(self) -> None:
        ratings_w = [
            *((feed.feed_id, feed.rating_w) for feed in self.feeds),
            *((pdu.pdu_id, pdu.rating_w) for pdu in self.pdus),
            *((cdu.cdu_id, cdu.rating_w) for cdu in self.cdus),
            *((rack.rack_id, rack.rating_w) for rack in self.racks),
            *((node.node_id, node.rating_w) for node in self.nodes),
        ]
        _check_ids([SITE_METER, *(name for name, _ in ratings_w)])
        _check_parents(self.pdu_ids, "feed", (p.feed_id for p in self.pdus), self.feed_ids)
        _check_parents(self.rack_ids, "PDU", (r.pdu_id for r in self.racks), self.pdu_ids)
        _check_parents(self.rack_ids, "CDU", (r.cdu_id for r in self.racks), self.cdu_ids)
        _check_parents(self.node_ids, "rack", (n.rack_id for n in self.nodes), self.rack_ids)
        for name, rating_w in ratings_w:
            if not (math.isfinite(rating_w) and rating_w > 0):
                raise InvalidRequestError(f"{name}: rating_w must be a positive number")
        if not self.nodes:
            raise InvalidRequestError(f"{self.name}: a site needs at least one node")
        for node in self.nodes:
            if node.gpu_count < 1:
                raise InvalidRequestError(f"{node.node_id}: gpu_count must be at least 1")

    # --- ids, in index order ---

    @cached_property
    def feed_ids(self) -> tuple[str, ...]:
        """Id of each feed."""
        return tuple(feed.feed_id for feed in self.feeds)

    @cached_property
    def pdu_ids(self) -> tuple[str, ...]:
        """Id of each PDU."""
        return tuple(pdu.pdu_id for pdu in self.pdus)

    @cached_property
    def cdu_ids(self) -> tuple[str, ...]:
        """Id of each CDU."""
        return tuple(cdu.cdu_id for cdu in self.cdus)

    @cached_property
    def rack_ids(self) -> tuple[str, ...]:
        """Id of each rack."""
        return tuple(rack.rack_id for rack in self.racks)

    @cached_property
    def node_ids(self) -> tuple[str, ...]:
        """Id of each node."""
        return tuple(node.node_id for node in self.nodes)

    # --- the trees, as index arrays: parent of each child ---

    @cached_property
    def feed_of_pdu(self) -> Ints:
        """Index of the feed of each PDU."""
        return _parents((pdu.feed_id for pdu in self.pdus), self.feed_ids)

    @cached_property
    def pdu_of_rack(self) -> Ints:
        """Index of the PDU of each rack."""
        return _parents((rack.pdu_id for rack in self.racks), self.pdu_ids)

    @cached_property
    def cdu_of_rack(self) -> Ints:
        """Index of the CDU of each rack."""
        return _parents((rack.cdu_id for rack in self.racks), self.cdu_ids)

    @cached_property
    def rack_of_node(self) -> Ints:
        """Index of the rack of each node."""
        return _parents((node.rack_id for node in self.nodes), self.rack_ids)

    @cached_property
    def node_of_gpu(self) -> Ints:
        """Index of the node of each GPU."""
        counts = [node.gpu_count for node in self.nodes]
        return np.repeat(np.arange(len(self.nodes), dtype=np.int64), counts)

    @cached_property
    def rack_of_gpu(self) -> Ints:
        """Index of the rack of each GPU."""
        return self.rack_of_node[self.node_of_gpu]

    @property
    def gpu_count(self) -> int:
        """GPUs on the site."""
        return len(self.node_of_gpu)

    def gpus_of_node(self, node_id: str) -> Ints:
        """Indices of the GPUs of one node.

        Raises:
            InvalidRequestError: no such node.
        """
        if node_id not in self.node_ids:
            raise InvalidRequestError(f"{self.name} has no node {node_id!r}")
        return np.flatnonzero(self.node_of_gpu == self.node_ids.index(node_id))


def _check_ids(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise InvalidRequestError("an id is empty")
        if name in seen:
            raise InvalidRequestError(f"id {name!r} is used twice")
        seen.add(name)


def _check_parents(
    children: Sequence[str], kind: str, parents: Iterable[str], known: Sequence[str]
) -> None:
    names = set(known)
    for child, parent in zip(children, parents, strict=True):
        if parent not in names:
            raise InvalidRequestError(f"{child} is an orphan: there is no {kind} {parent!r}")


def _parents(parents: Iterable[str], known: Sequence[str]) -> Ints:
    place = {name: index for index, name in enumerate(known)}
    return np.array([place[parent] for parent in parents], dtype=np.int64)
