"""Agents of a small factory on loopback, and the client that reads and caps them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from interlock_plant import Plant
from interlock_servers.devices.agent import NodeAgent
from interlock_servers.devices.client import NodeClient
from interlock_servers.devices.models import LimitOutcome, Outcome
from interlock_servers.devices.node_models import Cap
from interlock_servers.devices.nodes import NodeSettings, NodesSettings
from interlock_servers.devices.nvml import NvmlHost
from interlock_servers.devices.server import NodeServer
from interlock_servers.devices.settings import AgentSettings
from interlock_servers.devices.twin import HostTwin
from interlock_servers.devices.twin_nvml import NvmlTwin
from interlock_tools.errors import FactoryError

READER, WRITER = "reader-token-1", "writer-token-1"
PATIENCE_S = 20.0
NODE, OTHER = "node-001", "node-002"
KEY = f"GPU-{NODE}-0"


class StepClock:
    """A clock that tests move. Whoever sleeps by it wakes when it has come so far."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._sleepers: list[tuple[datetime, asyncio.Event]] = []

    def now(self) -> datetime:
        """The moment it was moved to."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Until it was moved on."""
        due = asyncio.Event()
        self._sleepers.append((self._now + timedelta(seconds=seconds), due))
        await due.wait()

    def advance(self, seconds: float) -> None:
        """Move it on, without waking anybody: agents look when they are told to."""
        self._now += timedelta(seconds=seconds)

    @property
    def sleepers(self) -> int:
        """How many sleep by it."""
        return len(self._sleepers)

    def wake(self) -> None:
        """Let everybody go on who has slept long enough."""
        for moment, due in self._sleepers:
            if moment <= self._now:
                due.set()
        self._sleepers = [entry for entry in self._sleepers if not entry[1].is_set()]


@dataclass
class Nodes:
    """What a test holds: the plant, and by node the hardware, its agent and its server."""

    plant: Plant
    clock: StepClock
    twins: dict[str, HostTwin]
    agents: dict[str, NodeAgent]
    addresses: dict[str, str]
    folder: Path
    servers: dict[str, NodeServer] = field(default_factory=dict)

    async def step(self, seconds: int = 1, *, look: bool = True) -> None:
        """Let the plant and the clock go on, and every agent look."""
        for _ in range(seconds):
            self.plant.step()
        self.clock.advance(seconds)
        if look:
            for agent in self.agents.values():
                await agent.look()

    def settings(self, who: str = "writer", **other: Any) -> NodesSettings:
        """Settings of a client with this token."""
        return NodesSettings(
            nodes=tuple(
                NodeSettings(
                    node_id=node_id,
                    address=address,
                    tls=False,
                    token_file=self.folder / who,
                    deadline_s=5.0,
                )
                for node_id, address in self.addresses.items()
            ),
            **{"controller_id": "interlock-1", **other},
        )


def agent_settings(folder: Path, node_id: str, **other: Any) -> AgentSettings:
    """Settings of an agent on loopback, with a token for each role."""
    for name, token in (("reader", READER), ("writer", WRITER)):
        (folder / name).write_text(token + "\n")
    return AgentSettings(
        **{
            "node_id": node_id,
            "listen": "127.0.0.1:0",
            "state_file": folder / f"{node_id}.json",
            "reader_token_file": folder / "reader",
            "writer_token_file": folder / "writer",
            "driver_timeout_s": 5.0,
            **other,
        }
    )


@asynccontextmanager
async def running(
    plant: Plant,
    clock: StepClock,
    folder: Path,
    *,
    takes_writes: bool = True,
    node_ids: tuple[str, ...] | None = None,
    other: Mapping[str, Any] | None = None,
    host_of: Callable[[HostTwin], Any] = NvmlTwin,
) -> AsyncIterator[Nodes]:
    """An agent for each node of the plant."""
    nodes = Nodes(plant, clock, {}, {}, {}, folder)
    async with AsyncExitStack() as stack:
        with anyio.fail_after(PATIENCE_S):
            for node_id in node_ids or plant.site.node_ids:
                twin = HostTwin(plant, node_id)
                library = host_of(twin)
                settings = agent_settings(folder, node_id, **(other or {}))

                def opened(library: Any = library) -> NvmlHost:
                    return NvmlHost(clock, library)

                agent = NodeAgent(settings, clock, opened, takes_writes=takes_writes)
                await stack.enter_async_context(agent)
                server = await stack.enter_async_context(NodeServer(agent, clock))
                nodes.twins[node_id], nodes.agents[node_id] = twin, agent
                nodes.addresses[node_id], nodes.servers[node_id] = server.address, server
        yield nodes


@asynccontextmanager
async def client_of(nodes: Nodes, who: str = "writer", **other: Any) -> AsyncIterator[NodeClient]:
    """A client with this token."""
    async with NodeClient(nodes.settings(who, **other), nodes.clock) as client:
        yield client


def cap(key: str = KEY, limit_w: float = 450.0, safe_w: float = 600.0, s: float = 30.0) -> Cap:
    """A cap that ends."""
    return Cap(key, limit_w, safe_w, s)


def outcomes(answer: tuple[LimitOutcome, ...] | FactoryError) -> list[Outcome]:
    """What became of each limit."""
    assert not isinstance(answer, FactoryError), answer
    return [each.outcome for each in answer]


def shown_w(nodes: Nodes, gpu: int = 0, node_id: str = NODE) -> float:
    """The limit that the plant's GPU has."""
    return float(nodes.plant.gpu_cap_set_w[nodes.twins[node_id].gpus[gpu]])
