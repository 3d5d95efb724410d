"""What DPS says, as frozen types with units in their names; no I/O.

None is unknown everywhere: never zero, never healthy.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

from interlock_servers.maxlps import COMPONENT
from interlock_tools.errors import ComponentError

COMPUTER_SYSTEM = "ComputerSystem"
MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class GpuLimit:
    """One GPU's power and limits. `set_w` is what it reports, not what it follows."""

    gpu_id: int
    power_w: float | None
    set_w: float | None
    min_w: float | None
    max_w: float | None
    temperature_c: float | None


@dataclass(frozen=True, slots=True)
class NodePower:
    """One node as its BMC sees it.

    Attributes:
        gpu_count: as the node says; `gpus` has fewer entries where some did not answer.
        power_w: of the whole node, at the wall.
    """

    node_id: str
    gpu_count: int
    power_w: float | None
    gpus: tuple[GpuLimit, ...]

    def gpu(self, gpu_id: int) -> GpuLimit | None:
        """One GPU, or None where it did not answer."""
        return next((gpu for gpu in self.gpus if gpu.gpu_id == gpu_id), None)

    @property
    def set_w(self) -> tuple[float | None, ...]:
        """Limit set on each GPU, by id."""
        return tuple(gpu.set_w if gpu else None for gpu in self._by_id())

    @property
    def gpu_power_w(self) -> tuple[float | None, ...]:
        """Draw of each GPU, by id."""
        return tuple(gpu.power_w if gpu else None for gpu in self._by_id())

    @property
    def min_w(self) -> float | None:
        """Least limit that every GPU of the node takes."""
        known = [gpu.min_w for gpu in self.gpus if gpu.min_w is not None]
        return max(known) if len(known) == self.gpu_count else None

    @property
    def max_w(self) -> float | None:
        """Greatest limit that every GPU of the node takes."""
        known = [gpu.max_w for gpu in self.gpus if gpu.max_w is not None]
        return min(known) if len(known) == self.gpu_count else None

    def _by_id(self) -> list[GpuLimit | None]:
        found = {gpu.gpu_id: gpu for gpu in self.gpus}
        return [found.get(gpu_id) for gpu_id in range(self.gpu_count)]


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """Whether DPS reaches a node's BMC, and what it has given the node.

    Attributes:
        inaccessible_since: set while DPS does not reach it; then nothing may be written.
        errors: last access and policy errors, text of the plant.
    """

    node_id: str
    inaccessible_since: datetime | None
    last_access_at: datetime | None
    resource_group: str
    policy_name: str
    errors: tuple[str, ...]


class Level(StrEnum):
    """Where in the power tree, by position: DPS knows domains, distributions and systems only."""

    SITE = "site"
    FEED = "feed"
    PDU = "pdu"
    RACK = "rack"
    NODE = "node"


class Entity(NamedTuple):
    """One entity as DPS lists it; `budget_w` is None where it states no limit."""

    name: str
    kind: str
    budget_w: float | None
    children: tuple[str, ...]


@dataclass(frozen=True)
class PowerNode:
    """An entity in the power tree, with everything that it feeds."""

    name: str
    level: Level
    budget_w: float | None
    children: tuple["PowerNode", ...] = ()

    def walk(self) -> Iterator["PowerNode"]:
        """Itself and everything below, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def as_json(self) -> dict[str, Any]:
        """The tree as JSON: name, level, budget_w, children."""
        return {
            "name": self.name,
            "level": self.level.value,
            "budget_w": self.budget_w,
            "children": [child.as_json() for child in self.children],
        }


class TopologyRef(NamedTuple):
    """A topology in the list of them."""

    name: str
    is_active: bool
    node_ids: tuple[str, ...]


@dataclass(frozen=True)
class Topology:
    """A topology with its tree. `dps_hash` is DPS's own, in hex."""

    name: str
    dps_hash: str
    root: PowerNode

    @cached_property
    def node_ids(self) -> tuple[str, ...]:
        """The nodes, in the order of the tree."""
        return tuple(node.name for node in self.root.walk() if node.level is Level.NODE)

    @cached_property
    def version(self) -> str:
        """Changes with DPS's hash and with every name and budget.

        What DPS's hash covers is not public; a changed budget must not pass for the same site.
        """
        told = json.dumps({"dps_hash": self.dps_hash, "root": self.root.as_json()}, sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """Name, DPS's hash and the tree."""
        return {"name": self.name, "dps_hash": self.dps_hash, "root": self.root.as_json()}


@dataclass(frozen=True)
class ResourceGroup:
    """The nodes of one workload.

    Attributes:
        activation_status: DPS's word for it; see `is_active`.
        slo_floor: relative throughput in (0, 1] that it must keep, where its properties say.
        priority: the lower number is the more important.
    """

    name: str
    node_ids: tuple[str, ...]
    activation_status: str
    tenant: str | None
    workload_class: str | None
    slo_floor: float | None
    priority: int | None

    @property
    def is_active(self) -> bool:
        """Whether its policies are on the hardware; activating and deactivating are not."""
        return self.activation_status.casefold() == "active"

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "name": self.name,
            "node_ids": list(self.node_ids),
            "active": self.is_active,
            "activation_status": self.activation_status,
            "tenant": self.tenant,
            "workload_class": self.workload_class,
            "slo_floor": self.slo_floor,
            "priority": self.priority,
        }


@dataclass(frozen=True, slots=True)
class AllocationCheck:
    """The answer to a dry run.

    Attributes:
        downgraded: whether a lesser policy would be applied than was asked for.
        power_w: allocated and capacity of each device that it names.
    """

    would_succeed: bool
    downgraded: bool
    power_w: Mapping[str, tuple[float | None, float | None]]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CapResult:
    """What became of one GPU's limit. `asked_w` None asked to clear it.

    Attributes:
        set_w: what DPS says that it set; None where it does not say.
    """

    node_id: str
    gpu_id: int
    asked_w: float | None
    set_w: float | None

    @property
    def is_clamped(self) -> bool:
        """Whether DPS set another limit than was asked for."""
        if self.asked_w is None or self.set_w is None:
            return False
        return abs(self.set_w - self.asked_w) > CLAMP_TOLERANCE_W


CLAMP_TOLERANCE_W = 0.5  # devices take whole watts


def power_tree(site: str, entities: Sequence[Entity]) -> PowerNode:
    """The tree of a site's entities; several roots are put under one without a budget.

    Raises:
        ComponentError: they are no tree: a name twice, a child that is missing or has two
            parents, a circle, too many levels, or no entity at all.
    """
    by_name = {entity.name: entity for entity in entities}
    parents: dict[str, str] = {}
    if len(by_name) != len(entities) or not entities:
        raise _bad_topology("it holds an entity twice, or none")
    for entity in entities:
        for child in entity.children:
            if child not in by_name:
                raise _bad_topology(f"{entity.name!r} feeds {child!r}, which it does not hold")
            if child in parents:
                raise _bad_topology(f"{child!r} has two parents; only trees can be budgeted")
            parents[child] = entity.name
    roots = [entity.name for entity in entities if entity.name not in parents]
    depth = dict.fromkeys(roots, 0 if len(roots) == 1 else 1)
    order = list(roots)
    for name in order:  # it grows while it is read; what hangs in a circle is never reached
        order.extend(by_name[name].children)
        depth |= dict.fromkeys(by_name[name].children, depth[name] + 1)
    if len(order) != len(entities):
        raise _bad_topology("some of it hangs in a circle")
    if max(depth.values()) > MAX_DEPTH:
        raise _bad_topology(f"it is deeper than {MAX_DEPTH} levels")
    built: dict[str, PowerNode] = {}
    for name in reversed(order):
        entity = by_name[name]
        children = tuple(built[child] for child in entity.children)
        level = _level(entity, children, depth[name])
        built[name] = PowerNode(name, level, entity.budget_w, children)
    if len(roots) == 1:
        return built[roots[0]]
    return PowerNode(site, Level.SITE, None, tuple(built[name] for name in roots))


def _level(entity: Entity, children: tuple[PowerNode, ...], depth: int) -> Level:
    if entity.kind == COMPUTER_SYSTEM:
        return Level.NODE
    if depth == 0:
        return Level.SITE
    if any(child.level is Level.NODE for child in children):
        return Level.RACK
    return Level.FEED if depth == 1 else Level.PDU


def _bad_topology(why: str) -> ComponentError:
    return ComponentError(COMPONENT, "BAD_TOPOLOGY", f"the topology is not usable: {why}")
