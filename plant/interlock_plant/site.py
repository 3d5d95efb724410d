"""What stands where: a frozen, validated description of one site and its power and cooling trees.

Power flows feed -> (UPS) -> PDU -> rack -> node -> GPU. A PDU may stand under another PDU, and a
rack may hang on two PDUs that share its load. Every CDU cools some racks; that tree does not nest
in the power tree. GPU `i` is the i-th in the order of the nodes, `<node>/gpu-<k>` by name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from interlock_plant.arrays import Bools, Ints
from interlock_plant.parameters import H100_HOST, H100_SXM, GpuParameters, HostParameters
from interlock_plant.parts import SITE_METER, Cdu, Feed, Node, Pdu, Rack, Storage, Ups
from interlock_plant.site_checks import Parts, check_parts
from interlock_tools.errors import InvalidRequestError

__all__ = ["SITE_METER", "Cdu", "Feed", "Node", "Pdu", "Rack", "SiteSpec", "Storage", "Ups"]


@dataclass(frozen=True)
class SiteSpec:
    """One site. Construction fails rather than describe a site that cannot stand.

    Raises:
        InvalidRequestError: an id is empty or used twice, a rating is not a positive number, a
            parent does not exist, PDUs stand in a circle, or there is no node; names the part.
    """

    name: str
    feeds: tuple[Feed, ...]
    pdus: tuple[Pdu, ...]
    cdus: tuple[Cdu, ...]
    racks: tuple[Rack, ...]
    nodes: tuple[Node, ...]
    gpu: GpuParameters = H100_SXM
    host: HostParameters = H100_HOST
    ups: tuple[Ups, ...] = ()
    chassis_spread: float = 0.0  # 1 sd of node power from chassis to chassis
    storage: Storage | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.chassis_spread <= 0.2:
            raise InvalidRequestError(f"{self.name}: chassis_spread must be in [0, 0.2]")
        trees = (self.feeds, self.ups, self.pdus, self.cdus, self.racks, self.nodes)
        check_parts(self.name, Parts(*trees, self.storage))

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

    @cached_property
    def ups_ids(self) -> tuple[str, ...]:
        """Id of each UPS."""
        return tuple(ups.ups_id for ups in self.ups)

    @cached_property
    def node_places(self) -> Mapping[str, int]:
        """Index of each node by its id."""
        return {node_id: place for place, node_id in enumerate(self.node_ids)}

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
    def pdu_b_of_rack(self) -> Ints:
        """Index of the second PDU of each rack; that of the first where it has one only."""
        return _parents((rack.pdu_b_id or rack.pdu_id for rack in self.racks), self.pdu_ids)

    @cached_property
    def pdu_above(self) -> Ints:
        """Index of the PDU above each PDU; -1 where it hangs on its feed."""
        place = {name: index for index, name in enumerate(self.pdu_ids)}
        return np.array(
            [-1 if pdu.under is None else place[pdu.under] for pdu in self.pdus], dtype=np.int64
        )

    @cached_property
    def pdu_of_cdu(self) -> Ints:
        """Index of the PDU of each CDU's pumps; -1 where they are not in this tree."""
        place = {name: index for index, name in enumerate(self.pdu_ids)}
        return np.array(
            [-1 if cdu.pdu_id is None else place[cdu.pdu_id] for cdu in self.cdus], dtype=np.int64
        )

    @cached_property
    def feed_of_ups(self) -> Ints:
        """Index of the feed of each UPS."""
        return _parents((ups.feed_id for ups in self.ups), self.feed_ids)

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

    @cached_property
    def first_gpu(self) -> Ints:
        """Index of the first GPU of each node, and at the end the number of GPUs."""
        return np.searchsorted(self.node_of_gpu, np.arange(len(self.nodes) + 1))

    @cached_property
    def is_spare(self) -> Bools:
        """Whether each node is kept free for the jobs of others."""
        return np.array([node.is_spare for node in self.nodes], dtype=np.bool_)

    @property
    def gpu_count(self) -> int:
        """GPUs on the site."""
        return len(self.node_of_gpu)

    def gpus_of_node(self, node_id: str) -> Ints:
        """Indices of the GPUs of one node.

        Raises:
            InvalidRequestError: no such node.
        """
        place = self.node_places.get(node_id)
        if place is None:
            raise InvalidRequestError(f"{self.name} has no node {node_id!r}")
        return np.arange(self.first_gpu[place], self.first_gpu[place + 1])

    def gpu_id(self, gpu_index: int) -> str:
        """Name of one GPU, `<node>/gpu-<k>`."""
        node = int(self.node_of_gpu[gpu_index])
        return f"{self.node_ids[node]}/gpu-{gpu_index - int(self.first_gpu[node])}"

    def gpu_place(self, gpu_id: str) -> int | None:
        """Index of the GPU of this name; None where there is none."""
        node_id, mark, number = gpu_id.rpartition("/gpu-")
        place = self.node_places.get(node_id)
        if not mark or place is None or not (number.isascii() and number.isdigit()):
            return None
        gpu = int(self.first_gpu[place]) + int(number)
        return gpu if gpu < self.first_gpu[place + 1] and str(int(number)) == number else None


def _parents(parents: Iterable[str], known: Sequence[str]) -> Ints:
    place = {name: index for index, name in enumerate(known)}
    return np.array([place[parent] for parent in parents], dtype=np.int64)
