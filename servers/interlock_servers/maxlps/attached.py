"""What a site needs of whoever limits its GPUs: put together once, at the start."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from interlock_guardrails.store import Store
from interlock_servers.devices.client import NodeClient, NodeState
from interlock_servers.devices.settings import NodesSettings
from interlock_servers.maxlps.client import DpsClient
from interlock_servers.maxlps.facts import MaxlpsFacts
from interlock_servers.maxlps.holding import CapHolder, Note
from interlock_servers.maxlps.node_power import NodePowerClient
from interlock_servers.maxlps.node_settings import NodePowerSettings, PowerSettings
from interlock_servers.maxlps.port import PowerPort
from interlock_tools.clock import Clock

NAMED = 3  # nodes, in a sentence


@dataclass(frozen=True)
class Powering:
    """Whoever limits a site's GPUs, and whoever reads them.

    Attributes:
        power: DPS or the agents; None where the site limits nothing.
        facts: what it tells the guard.
        nodes: the agents, where there are any; beside DPS they are only read.
        holder: gives them our sign of life; None where they are only read.
        by: what limits the GPUs, in words.
        dps: where DPS limits them: groups and policies are its own.
    """

    power: PowerPort | None = None
    facts: MaxlpsFacts | None = None
    nodes: NodeClient | None = None
    holder: CapHolder | None = None
    by: str = "DPS"
    alongside: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = field(default=())
    dps: DpsClient | None = None

    def notes(self) -> tuple[Note, ...]:
        """What a person should know of the nodes."""
        return () if self.holder is None else self.holder.notes()

    async def look(self) -> None:
        """Ask every agent once, so that there is something to say."""
        if self.nodes is not None:
            await self.nodes.read()

    def says(self) -> tuple[bool, str]:
        """Whether the agents work, and how they stand, in a sentence."""
        if self.nodes is None:
            return True, ""
        views = list(self.nodes.views().values())
        fresh = [view for view in views if view.state is NodeState.FRESH]
        gpus = sum(len(view.answer.gpus) for view in fresh if view.answer is not None)
        writing = [v.node_id for v in fresh if v.answer is not None and v.answer.takes_writes]
        parts = [f"{len(fresh)} of {len(views)} nodes answer, with {gpus} GPUs"]
        works = len(fresh) == len(views)
        if not works:
            silent = [f"{v.node_id}: {v.why}" for v in views if v.state is not NodeState.FRESH]
            parts += silent[:NAMED]
        if self.holder is None:
            parts.append("they are only read")
            if writing:
                parts.append(
                    f"{len(writing)} let themselves be written, such as {writing[0]}: start them "
                    "without --allow-writes, so that DPS alone limits their GPUs"
                )
        else:
            if len(writing) < len(fresh):
                parts.append(
                    f"{len(fresh) - len(writing)} take no limit: --allow-writes is missing"
                )
            if self.holder.trouble is not None:
                parts.append(f"caps are not held: {self.holder.trouble}")
            notes = self.notes()
            works = works and not notes
            parts += [f"{note.node_id}: {note.says}" for note in notes[:NAMED]]
        return works, "; ".join(parts)


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
        InvalidRequestError: a secret that the settings name is not there.
    """
    if isinstance(power, NodePowerSettings):
        async with NodeClient(power.agents, clock) as nodes:
            client = NodePowerClient(power, nodes, clock)
            holder = CapHolder(client, store, clock, power.hold_s)
            facts = _facts(client, site_id, power)
            yield Powering(client, facts, nodes, holder, "the agents of its nodes", (holder.run,))
        return
    if readings is not None:
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
