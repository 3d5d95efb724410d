"""Agents of the nodes of a simulated site: its GPUs behind NVML-shaped twins, each on the wire."""

import secrets
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from interlock_plant.plant import Plant
from interlock_servers.devices.agent import NodeAgent
from interlock_servers.devices.nodes import NodeSettings, NodesSettings
from interlock_servers.devices.nvml import NvmlHost
from interlock_servers.devices.server import NodeServer
from interlock_servers.devices.settings import AgentSettings
from interlock_servers.devices.twin import HostTwin
from interlock_servers.devices.twin_nvml import NvmlTwin
from interlock_servers.maxlps.node_settings import (
    EntitySettings,
    GroupSettings,
    NodePowerSettings,
)
from interlock_tools.clock import Clock

SAMPLE_S = 2.0
HOLD_S = 120.0
SAFE_SHARE = 0.7  # of a GPU's greatest limit: all nodes at it are within every budget of our sites


class OneAtATime:
    """A library that is asked while nobody steps the plant: its calls come from other threads."""

    def __init__(self, library: NvmlTwin, lock: threading.Lock) -> None:
        self._library = library
        self._lock = lock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._library, name)
        if not name.startswith("nvml") or not callable(found):
            return found
        return self._locked(found)

    def _locked(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*arguments: Any) -> Any:
            with self._lock:
                return call(*arguments)

        return ask


def power_settings(plant: Plant, agents: NodesSettings) -> NodePowerSettings:
    """The site of this plant, as whoever has no DPS would write it down."""
    site, power = plant.site, "PowerDistribution"
    root_w = sum(feed.rating_w for feed in site.feeds)
    rows = [
        EntitySettings(name=site.name, kind="PowerDomain", budget_w=root_w, children=site.feed_ids)
    ]
    for feed in site.feeds:
        below = tuple(pdu.pdu_id for pdu in site.pdus if pdu.feed_id == feed.feed_id)
        rows.append(
            EntitySettings(name=feed.feed_id, kind=power, budget_w=feed.rating_w, children=below)
        )
    for pdu in site.pdus:
        below = tuple(rack.rack_id for rack in site.racks if rack.pdu_id == pdu.pdu_id)
        rows.append(
            EntitySettings(name=pdu.pdu_id, kind=power, budget_w=pdu.rating_w, children=below)
        )
    for rack in site.racks:
        below = tuple(node.node_id for node in site.nodes if node.rack_id == rack.rack_id)
        rows.append(
            EntitySettings(name=rack.rack_id, kind=power, budget_w=rack.rating_w, children=below)
        )
    rows += [
        EntitySettings(name=node.node_id, kind="ComputerSystem", budget_w=node.rating_w)
        for node in site.nodes
    ]
    groups = tuple(
        GroupSettings(
            name=job.job_id,
            node_ids=tuple(
                site.node_ids[node]
                for node in sorted({int(site.node_of_gpu[gpu]) for gpu in job.gpu_indices})
            ),
            tenant=job.tenant_id,
            workload_class=job.job_class.value,
            slo_floor=job.floor_work or None,
        )
        for job in plant.jobs
    )
    return NodePowerSettings(
        site_id=site.name,
        agents=agents,
        entities=tuple(rows),
        groups=groups,
        hold_s=HOLD_S,
        safe_w=round(SAFE_SHARE * site.gpu.cap_max_w),
        gpus_per_node=max(len(site.gpus_of_node(node_id)) for node_id in site.node_ids),
    )


@asynccontextmanager
async def serving_nodes(
    plant: Plant, clock: Clock, folder: Path, lock: threading.Lock
) -> AsyncIterator[NodesSettings]:
    """An agent for each node, which takes limits; gives the settings of whoever may set them.

    Whoever steps the plant meanwhile holds `lock`.
    """
    token = folder / "node-token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(16))
    served: list[NodeSettings] = []
    async with AsyncExitStack() as stack:
        for node_id in plant.site.node_ids:
            library = OneAtATime(NvmlTwin(HostTwin(plant, node_id)), lock)

            def opened(library: OneAtATime = library) -> NvmlHost:
                return NvmlHost(clock, library)

            settings = AgentSettings(
                node_id=node_id,
                listen="127.0.0.1:0",
                state_file=folder / f"caps-{node_id}.json",
                writer_token_file=token,
                sample_s=SAMPLE_S,
            )
            agent = NodeAgent(settings, clock, opened, takes_writes=True)
            await stack.enter_async_context(agent)
            server = await stack.enter_async_context(NodeServer(agent, clock))
            served.append(
                NodeSettings(node_id=node_id, address=server.address, tls=False, token_file=token)
            )
        yield NodesSettings(nodes=tuple(served))
