"""The contract: what NVSentinel's modules write, as our client reads it, on both API servers.

The twin and the client share no code; they meet here, on the Kubernetes API alone.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from interlock_plant import Fault, FaultKind
from interlock_servers.nvsentinel import twin_names
from interlock_servers.nvsentinel.client import NvsentinelClient
from interlock_servers.nvsentinel.installed import BreakerState, Installed, Mode, installed
from interlock_servers.nvsentinel.models import CordonedBy, Node, Outcome
from interlock_servers.nvsentinel.next_step import next_of, stage_of
from interlock_servers.nvsentinel.settings import NvsentinelSettings
from interlock_servers.nvsentinel.stuck import findings
from interlock_servers.nvsentinel.twin import TwinFault
from interlock_servers.nvsentinel.twin_drainer import Mode as DrainMode
from interlock_servers.transports.kube.kinds import NODES
from tests.servers.nvsentinel.twin_world import (
    World,
    both,
    embedded,
    fatal,
    planned_maintenance,
    trip_and_repair,
    world,
)
from tests.servers.waiting import PATIENCE_S, until

XID_79 = Fault(FaultKind.GPU_LOST, "node-001/gpu-3", xid=79)
HBM = Fault(FaultKind.HBM_ERROR, "node-006/gpu-1", xid=48)
ILL = "node-006"
LOOP = (
    "in-service",
    "faulty",
    "quarantined",
    "draining",
    "drain-succeeded",
    "remediating",
    "remediation-requested",
)


@dataclass
class Read:
    """The twin's world, and our client of it."""

    there: World
    client: NvsentinelClient

    async def node(self, name: str = ILL) -> Node:
        """A node, asked now."""
        return (await self.client.node(name))[0]

    async def stage(self, name: str = ILL) -> str:
        """Where it stands, in our words."""
        return stage_of(await self.node(name), self.now)

    @property
    def now(self) -> Installed:
        """What of NVSentinel is there."""
        return installed(self.client)

    async def stages(self, name: str, to: str, within_s: int = 300) -> list[str]:
        """The stages that a node goes through, second by second, up to one of them."""
        seen = [await self.stage(name)]
        for _ in range(within_s):
            await self.there.step()
            stage = await self.stage(name)
            if stage != seen[-1]:
                seen.append(stage)
                if stage == to:
                    return seen
        raise AssertionError(f"{to} not within {within_s} s: {seen}")

    async def succeeded(self, name: str, within_s: int = 60) -> None:
        """Until the one request about a node has ended well; a node may be back before that."""
        for _ in range(within_s):
            (request,) = await self.client.every_request(name)
            if request.outcome is not Outcome.OPEN:
                assert request.outcome is Outcome.SUCCEEDED
                return
            await self.there.step()
        raise AssertionError(f"not within {within_s} s")

    def stuck(self, name: str = ILL) -> set[str]:
        """The words for what does not go on about a node."""
        return {one.what for one in findings(self.client, self.now, node_id=name)}


@asynccontextmanager
async def reading(folder: Path, which: str, **more: Any) -> AsyncIterator[Read]:
    """Both, up and quiet."""
    async with world(folder, which, **more) as there:
        settings = NvsentinelSettings(cluster=there.client.settings, operations=True)
        async with NvsentinelClient(settings, there.clock) as client:
            with anyio.fail_after(PATIENCE_S):
                await client.listed()
            yield Read(there, client)


@both
async def test_a_fault_is_followed_to_the_nodes_return(tmp_path: Path, which: str) -> None:
    """Each stage once and in order; the reboot is over when its request says so, not the label."""
    async with reading(tmp_path, which) as read:
        assert read.now.mode is Mode.REMEDIATION
        assert read.now.breaker.state is BreakerState.CLOSED
        read.there.plant.inject(XID_79)
        seen = await read.stages("node-001", to="remediation-requested")
        assert seen == [one for one in LOOP if one in seen]  # some last for less than a second
        assert {"draining", "remediation-requested"} <= set(seen)
        node = await read.node("node-001")
        assert node.cordoned_by is CordonedBy.NVSENTINEL
        assert [one.type for one in node.faults] == ["SysLogsXIDError"]
        (request,) = await read.client.every_request("node-001")
        assert (request.kind, request.outcome) == ("RebootNode", Outcome.OPEN)
        held = await read.client.lease("node-001")
        assert held is not None
        assert held.owner == f"RebootNode/{request.name}"
        await read.stages("node-001", to="in-service")
        await read.succeeded("node-001")
        assert await read.client.lease("node-001") is None
        assert (await read.node("node-001")).calm


@both
async def test_a_reset_names_the_gpu_of_the_fault(tmp_path: Path, which: str) -> None:
    """One request of the kind GPUReset, which ends by its own condition."""
    async with reading(tmp_path, which) as read:
        read.there.plant.inject(HBM)
        await read.stages(ILL, to="remediation-requested")
        (request,) = await read.client.every_request(ILL)
        assert request.kind == "GPUReset"
        await read.stages(ILL, to="in-service")
        await read.succeeded(ILL)


@embedded
async def test_monitoring_only_is_said(tmp_path: Path, which: str) -> None:
    """The default installation: the fault shows, nothing acts, and nothing is said to be next."""
    async with reading(tmp_path, which, remediation=False) as read:
        assert read.now.mode is Mode.MONITORING
        read.there.plant.inject(HBM)
        await read.stages(ILL, to="faulty")
        await read.there.let(30)
        node = await read.node()
        assert not node.cordoned
        assert next_of(node, [], read.now, 0).startswith("nothing by itself")


@both
async def test_a_maintenance_is_held_until_it_is_deleted(tmp_path: Path, which: str) -> None:
    """The sanctioned path: cordoned by NVSentinel, for a request that we read as open."""
    async with reading(tmp_path, which, maintenance=True) as read:
        await read.there.make(twin_names.MAINTENANCES, planned_maintenance())
        await read.there.until(lambda: read.there.is_cordoned(ILL))
        node = await read.node()
        assert node.cordoned_by is CordonedBy.NVSENTINEL
        (request,) = await read.client.every_request(ILL)
        assert request.kind == "MaintenanceRequest"
        await read.there.delete(twin_names.MAINTENANCES, "maintenance-node-006")
        await read.there.until(lambda: not read.there.is_cordoned(ILL))
        assert (await read.node()).calm


@embedded
async def test_an_opted_out_node_is_shown_and_left(tmp_path: Path, which: str) -> None:
    """Its fault shows, with what keeps NVSentinel off."""
    async with reading(tmp_path, which) as read:
        label = {"metadata": {"labels": {twin_names.MANAGED: "false"}}}
        await read.there.merge(NODES, ILL, label)
        read.there.plant.inject(HBM)
        await read.stages(ILL, to="faulty")
        await read.there.let(20)
        node = await read.node()
        assert not node.cordoned
        assert node.opted_out
        await until(lambda: "opted_out" in read.stuck())


@embedded
async def test_a_tripped_breaker_is_read_and_what_it_holds_back(tmp_path: Path, which: str) -> None:
    """Nodes that recovered stay out for it, and that is what they are said to wait for."""
    async with reading(tmp_path, which) as read:
        await trip_and_repair(read.there)
        await until(lambda: read.now.breaker.state is BreakerState.TRIPPED)
        node = await read.node()
        assert (node.faults, node.cordoned_by) == ((), CordonedBy.NVSENTINEL)
        await until(lambda: "held_by_breaker" in read.stuck())
        assert "breaker_tripped" in {one.what for one in findings(read.client, read.now)}


@embedded
async def test_an_uncordon_by_hand_is_read_as_one(tmp_path: Path, which: str) -> None:
    """The quarantine is over, the fault is not, and that is said."""
    async with reading(tmp_path, which, modes=(("*", DrainMode.ALLOW_COMPLETION),)) as read:
        read.there.twin.report(fatal("node-001"))
        await read.there.until(lambda: read.there.is_cordoned("node-001"))
        await read.there.merge(NODES, "node-001", {"spec": {"unschedulable": None}})
        await read.there.let(5)
        await until(lambda: "cancelled_by_hand" in read.stuck("node-001"))


@embedded
async def test_a_silent_provider_is_named(tmp_path: Path, which: str) -> None:
    """The request stays open; past its time that is said, with upstream's issue."""
    async with reading(tmp_path, which) as read:
        read.there.twin.inject(TwinFault.PROVIDER_SILENT, ILL)
        read.there.twin.report(fatal(ILL))
        await read.stages(ILL, to="remediation-requested")
        read.there.clock.advance(1600)
        await until(lambda: "provider_silent" in read.stuck())
