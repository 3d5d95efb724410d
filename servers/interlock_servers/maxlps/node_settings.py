"""A site whose GPUs are reached by agents of its nodes: what no component here knows, as settings.

Power tree, groups and safe values come from here; limits and power come from the nodes.
"""

from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from interlock_servers.devices.nodes import NodesSettings
from interlock_servers.maxlps.settings import Loop, MaxlpsSettings


class EntitySettings(BaseModel):
    """One entity of the power tree, as DPS would list it; nodes are of kind `ComputerSystem`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    kind: str = Field(min_length=1, max_length=100)
    budget_w: float | None = Field(default=None, gt=0)
    children: tuple[str, ...] = ()


class GroupSettings(BaseModel):
    """The nodes of one piece of work, with what was promised for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    node_ids: tuple[str, ...]
    tenant: str | None = None
    workload_class: str | None = None
    slo_floor: float | None = Field(default=None, gt=0, le=1)
    priority: int | None = Field(default=None, ge=0)


class NodePowerSettings(BaseModel):
    """A site whose GPUs are reached through agents of its nodes.

    Attributes:
        site_id: whose limits these are.
        agents: where they are.
        entities: the power tree with its budgets.
        groups: who works where.
        hold_s: how long a limit lasts without a sign of life.
        safe_w: of each GPU of a node, what it goes back to then; it must fit the budgets above.
        safe_w_by_node: where it differs.
        gpus_per_node: how many a node has at least; one that shows fewer is dark, and is capped
            and counted as one that nobody knows. None: as many as it shows.
        loops, tenants_least_w: as in `MaxlpsSettings`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site_id: str = Field(min_length=1, max_length=200)
    agents: NodesSettings
    entities: tuple[EntitySettings, ...] = Field(min_length=1)
    groups: tuple[GroupSettings, ...] = ()
    hold_s: float = Field(default=120.0, ge=5, le=86_400)
    safe_w: float = Field(gt=0, le=20_000)
    safe_w_by_node: dict[str, float] = {}
    gpus_per_node: int | None = Field(default=None, ge=1, le=64)
    loops: tuple[Loop, ...] = ()
    tenants_least_w: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _safe_values_are_of_nodes(self) -> Self:
        """A misspelt node would go to a value that nobody meant for it."""
        known = {node.node_id for node in self.agents.nodes}
        for what, names in (
            ("safe_w_by_node", set(self.safe_w_by_node)),
            ("groups", {node_id for group in self.groups for node_id in group.node_ids}),
        ):
            if names - known:
                raise ValueError(f"{what}: there is no agent of {min(names - known)!r}")
        return self


def _one_master(table: Any) -> Any:
    if isinstance(table, dict) and "agents" in table and "address" in table:
        raise ValueError(
            "address (DPS) and agents (of the nodes) would be two masters of the same GPUs: leave "
            "one out; agents that are to be read beside DPS stand in [devices]"
        )
    return table


def _which(table: Any) -> str:
    by_nodes = isinstance(table, NodePowerSettings) or (
        isinstance(table, dict) and "agents" in table
    )
    return "nodes" if by_nodes else "dps"


PowerSettings = MaxlpsSettings | NodePowerSettings
PowerTable = Annotated[
    Annotated[MaxlpsSettings, Tag("dps")] | Annotated[NodePowerSettings, Tag("nodes")],
    Discriminator(_which),
    BeforeValidator(_one_master),
]


class PowerTables(BaseModel):
    """Who limits the GPUs of a site, and who reads them.

    `maxlps` is DPS or the agents of the nodes, never both; `devices` is agents that are read beside
    DPS, or alone, and never written.
    """

    maxlps: PowerTable | None = None
    devices: NodesSettings | None = None

    @model_validator(mode="after")
    def _agents_are_named_once(self) -> Self:
        if self.devices is not None and isinstance(self.maxlps, NodePowerSettings):
            raise ValueError("devices: the agents of maxlps are read already; leave [devices] out")
        return self
