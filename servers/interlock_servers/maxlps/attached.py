"""What a site needs of whoever limits its GPUs: put together once, at the start.

What only nodes need is loaded only where there are agents: a server over stdio must start at once.
"""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from interlock_guardrails.store import Store
from interlock_servers.devices.nodes import NodesSettings
from interlock_servers.maxlps.client import DpsClient
from interlock_servers.maxlps.facts import MaxlpsFacts
from interlock_servers.maxlps.models import Topology
from interlock_servers.maxlps.node_settings import NodePowerSettings, PowerSettings
from interlock_servers.maxlps.port import PowerPort
from interlock_tools.clock import Clock

if TYPE_CHECKING:
    from interlock_servers.devices.client import NodeClient
    from interlock_servers.maxlps.holding import CapHolder, Note

NAMED = 3  # nodes, in a sentence
LOOK_EVERY_S = 5.0  # half of what a reading may be old, unless told otherwise


@dataclass(frozen=True)
class Powering:
    """Whoever limits a site's GPUs, and whoever reads them.

    Attributes:
        power: DPS or the agents; None where the site limits nothing.
        facts: what it tells the guard.
        nodes: the agents, where there are any; beside DPS they are only read.
        holder: gives them our sign of life; None where they are only read.
        settings, topology: of the nodes, where they limit the GPUs.
        alongside: what runs where changes are carried out.
        dps: where DPS limits them: groups and policies are its own.
    """

    power: PowerPort | None = None
    facts: MaxlpsFacts | None = None
    nodes: "NodeClient | None" = None
    holder: "CapHolder | None" = None
    settings: NodePowerSettings | None = None
    topology: Topology | None = None
    alongside: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = field(default=())
    dps: DpsClient | None = None

    def notes(self) -> "tuple[Note, ...]":
        """What a person should know of the nodes."""
        return () if self.holder is None else self.holder.notes()

    async def watch(self) -> None:
        """Read the agents until cancelled, so that their readings stay fresh and have a past."""
        if self.nodes is None:
            return
        while True:
            await self.nodes.read()
            await self.nodes.clock.sleep(LOOK_EVERY_S)

    def health(self) -> tuple[bool, str]:
        """Whether limits can be set, and by what, in a sentence."""
        if self.holder is None:
            return True, "DPS answers by reflection"
        says = "limits are set by the agents of its nodes"
        if self.holder.trouble is not None:
            return False, f"{says}; caps are not held: {self.holder.trouble}"
        over_w = self.unsafe()
        if over_w:
            worst = max(over_w, key=lambda name: over_w[name])
            return False, (
                f"{says}; their safe values break the budget of {len(over_w)} domains, of {worst} "
                f"by {over_w[worst]:.0f} W: choose a lower safe_w"
            )
        return True, f"{says}; {self.holder.says()}"

    def devices_health(self) -> tuple[bool, str]:
        """Whether the agents answer, and what is to be known of them, in a sentence."""
        if self.nodes is None:
            return True, "no agents"
        views = list(self.nodes.views().values())
        fresh = [view for view in views if view.is_fresh]
        silent = [f"{v.node_id}: {v.why}" for v in views if not v.is_fresh]
        gpus = sum(len(view.answer.gpus) for view in fresh if view.answer is not None)
        writing = [v.node_id for v in fresh if v.answer is not None and v.answer.takes_writes]
        notes = [f"{note.node_id}: {note.says}" for note in self.notes()]
        parts = [f"{len(fresh)} of {len(views)} nodes answer, with {gpus} GPUs", *silent[:NAMED]]
        if self.holder is None:
            parts.append("they are only read")
            if writing and self.power is not None:
                parts.append(
                    f"{len(writing)} let themselves be written, such as {writing[0]}: start them "
                    "without --allow-writes, so that DPS alone limits their GPUs"
                )
        elif len(writing) < len(fresh):
            parts.append(f"{len(fresh) - len(writing)} take no limit: --allow-writes is missing")
        return not silent and not notes, "; ".join([*parts, *notes[:NAMED]])

    def unsafe(self) -> dict[str, float]:
        """The domains that break when every node is at its safe value, in watts too many."""
        if self.nodes is None or self.settings is None or self.topology is None:
            return {}
        from interlock_servers.maxlps.safe_values import unsafe_domains

        views = self.nodes.views().items()
        shown = {n: len(v.answer.gpus) for n, v in views if v.answer is not None and v.answer.gpus}
        return unsafe_domains(self.settings, self.topology, shown)


@asynccontextmanager
async def powering(
    power: PowerSettings | None,
    readings: NodesSettings | None,
    store: Store,
    clock: Clock,
    site_id: str,
) -> AsyncIterator[Powering]:
    """Connect to DPS or to the nodes; beside DPS the nodes are read and never written.

    Raises:
        UnavailableError: DPS does not answer.
        ComponentError: the power tree of the settings is none, or names other nodes than agents.
        InvalidRequestError: a secret that the settings name is not there.
    """
    if isinstance(power, NodePowerSettings):
        from interlock_servers.devices.client import NodeClient
        from interlock_servers.maxlps.holding import CapHolder
        from interlock_servers.maxlps.node_power import NodePowerClient

        async with NodeClient(power.agents, clock) as nodes:
            client = NodePowerClient(power, nodes, clock)
            holder = CapHolder(client, store, clock, power.hold_s)
            facts = _facts(client, site_id, power)
            topology = await client.active_topology()
            yield Powering(client, facts, nodes, holder, power, topology, (holder.run,))
        return
    if readings is not None:
        from interlock_servers.devices.client import NodeClient

        async with (
            NodeClient(readings, clock, reads_only=True) as nodes,
            powering(power, None, store, clock, site_id) as dps,
        ):
            yield Powering(dps.power, dps.facts, nodes, dps=dps.dps)
        return
    if power is None:
        yield Powering()
        return
    async with DpsClient(power, clock) as client_of_dps:
        yield Powering(client_of_dps, _facts(client_of_dps, site_id, power), dps=client_of_dps)


def _facts(client: PowerPort, site_id: str, settings: PowerSettings) -> MaxlpsFacts:
    return MaxlpsFacts(
        client, site_id, loops=settings.loops, tenants_least_w=settings.tenants_least_w
    )
