"""What facts and operations need of whoever limits a site's GPUs: DPS, or agents of its nodes."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from interlock_servers.maxlps.models import (
    CapResult,
    NodePower,
    NodeStatus,
    ResourceGroup,
    Topology,
)
from interlock_tools.clock import Clock

Limits = Mapping[str, Mapping[int, float | None]]


class NamesNodes(Protocol):
    """A topology, as far as it names its nodes."""

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The nodes, each once."""


class PowerPort(Protocol):
    """`DpsClient` and `NodePowerClient` are this; nothing above them asks which it is.

    Reads raise UnavailableError where nobody answers; nothing was changed then.
    """

    @property
    def clock(self) -> Clock:
        """Of whoever stamps its answers."""

    @property
    def writes(self) -> int:
        """How many were sent; what was read before the last is not what holds."""

    async def active_topology(self) -> Topology:
        """The topology that holds now, with its budgets.

        Raises:
            NotFoundError: none is active.
            ComponentError: it is no tree, or a budget's unit is not known.
        """

    async def active(self) -> NamesNodes:
        """The nodes of the topology that holds now."""

    async def resource_groups(self) -> tuple[ResourceGroup, ...]:
        """Who works where, by name."""

    async def node_power(self, node_ids: Iterable[str]) -> dict[str, NodePower]:
        """Power and limits of these nodes; one that nobody can tell of is absent, never zero."""

    async def nodes_status(self, node_ids: Iterable[str]) -> dict[str, NodeStatus]:
        """Whether these nodes may be written to."""

    async def set_gpu_limits(self, limits: Limits, *, change_id: str = "") -> tuple[CapResult, ...]:
        """Set or clear limits, each of one GPU; sent once, never again.

        Args:
            limits: by node and GPU, watts of that one GPU, or None for the device's default.
            change_id: the change of the guard that allows it.

        Returns:
            What whoever was asked says that it set, in the order asked; it may be clamped.

        Raises:
            InvalidRequestError: it can never be; nothing was sent.
            ComponentError: some GPU did not take its limit; others may have: read back.
            UnavailableError: no answer; the state is unknown: read back.
        """
