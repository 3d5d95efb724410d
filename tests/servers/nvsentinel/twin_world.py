"""A small plant with NVSentinel on a real cluster, and a clock that stands still between steps."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from interlock_plant import Job, JobClass, Plant, SteadyLoad, hall_site
from interlock_servers.nvsentinel import twin_names as names
from interlock_servers.nvsentinel.twin import NvsentinelTwin, Timings, nvsentinel_on
from interlock_servers.nvsentinel.twin_drainer import DEFAULT_MODES, Modes
from interlock_servers.nvsentinel.twin_events import HealthEvent
from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.connection import PATCH_TYPES
from interlock_servers.transports.kube.embedded import EmbeddedKube
from interlock_servers.transports.kube.kinds import NODES, Kind
from interlock_servers.transports.kube.settings import ClusterSettings
from interlock_servers.transports.kube.watching import Watching
from interlock_tools.clock import ManualClock
from tests.kube.real import running_cluster, why_not

Json = dict[str, Any]
START = datetime(2026, 11, 25, tzinfo=UTC)
QUICK = Timings(reboot_s=60.0, terminate_s=30.0, reset_s=20.0, give_up_s=180.0, validate_s=20.0)
WORDS_S = 5.0  # real seconds for a watch to tell what a test wrote

needs_binaries = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
# A real control plane takes six seconds to start: whole loops run on it too, the rest on ours.
both = pytest.mark.parametrize("which", ["embedded", pytest.param("real", marks=needs_binaries)])
embedded = pytest.mark.parametrize("which", ["embedded"])


@dataclass
class World:
    """What a test drives."""

    plant: Plant
    clock: ManualClock
    client: KubeClient
    twin: NvsentinelTwin
    states: dict[str, list[str | None]] = field(default_factory=dict)  # of each node, as they came
    heard: int = 0  # the newest version of a node that the watch has told

    async def step(self) -> None:
        """One second."""
        self.plant.step()
        self.clock.advance(1)
        await self.twin.step()
        await self._listen()

    async def _listen(self) -> None:
        """Let the watch of this test tell what was written up to now."""
        written = max(int(n["metadata"]["resourceVersion"]) for n in self.twin.cluster.all(NODES))
        with anyio.fail_after(WORDS_S):
            await anyio.sleep(0.001)  # other watches tell too
            while self.heard < written:  # noqa: ASYNC110 (the watch of a test sets no event)
                await anyio.sleep(0.001)

    async def watch(self) -> None:
        """Follow the nodes as anybody can, and note every state that is seen."""
        async for step in Watching(self.client, NODES).steps():
            for node in step.objects:
                about = node["metadata"]
                self.heard = max(self.heard, int(about["resourceVersion"]))
                seen = self.states.setdefault(about["name"], [None])
                state = (about.get("labels") or {}).get(names.STATE)
                if seen[-1] != state:
                    seen.append(state)

    async def let(self, seconds: int) -> None:
        """Some seconds pass."""
        for _ in range(seconds):
            await self.step()

    async def until(self, holds: Callable[[], object], within_s: int = 300) -> int:
        """Seconds pass until something holds; gives how many.

        Raises:
            AssertionError: it did not, in time.
        """
        for second in range(within_s):
            if holds():
                return second
            await self.step()
        raise AssertionError(f"not within {within_s} s")

    def node(self, name: str) -> Json:
        """A node now."""
        found = self.twin.cluster.node(name)
        assert found is not None
        return found

    def labels(self, name: str) -> Mapping[str, str]:
        """The labels of a node."""
        return self.node(name)["metadata"].get("labels") or {}

    def notes(self, name: str) -> Mapping[str, str]:
        """The annotations of a node."""
        return self.node(name)["metadata"].get("annotations") or {}

    def is_cordoned(self, name: str) -> bool:
        """Whether nothing is scheduled there."""
        return bool(self.node(name)["spec"].get("unschedulable"))

    def condition(self, name: str, kind: str) -> Json | None:
        """A condition of a node."""
        return next((c for c in self.node(name)["status"]["conditions"] if c["type"] == kind), None)

    def only(self, kind: Kind) -> Json:
        """The one object of a kind."""
        (found,) = self.twin.cluster.all(kind)
        return found

    def told(self, raw: Json) -> dict[str, tuple[str, str]]:
        """Status and reason of each condition of an object."""
        return {
            c["type"]: (c["status"], c["reason"])
            for c in (raw.get("status") or {}).get("conditions", [])
        }

    async def make(self, kind: Kind, body: Json) -> Json:
        """Create something as a person would; the twin has heard of it afterwards."""
        made = await self.client.create(kind, body)
        await self._heard(kind, made)
        return made

    async def delete(self, kind: Kind, name: str) -> None:
        """Delete it as a person would."""
        seen = await self.client.get(kind, name)
        left = await self.client.delete(kind, name, seen=seen)
        if (left.get("metadata") or {}).get("deletionTimestamp"):
            await self._heard(kind, left)

    async def merge(
        self,
        kind: Kind,
        name: str,
        body: Json,
        namespace: str | None = None,
        part: str | None = None,
    ) -> None:
        """Patch it as a person would, with no lock at all."""
        path = (await self.client.served(kind)).path(namespace, name, part)
        made = await self.client.connection.write(
            "PATCH", path, {"fieldManager": "kubectl"}, body, content=PATCH_TYPES["merge"]
        )
        await self._heard(kind, made)

    async def _heard(self, kind: Kind, made: Json) -> None:
        about, mirror = made["metadata"], self.twin.cluster.mirrors[kind]
        with anyio.fail_after(WORDS_S):
            while True:
                known = mirror.get(about["name"], about.get("namespace", ""))
                if known is not None and int(known["metadata"]["resourceVersion"]) >= int(
                    about["resourceVersion"]
                ):
                    return
                await anyio.sleep(0.01)


def small_jobs() -> tuple[Job, ...]:
    """On six nodes: training on two, serving on two, serving on one; the last stands free."""

    def job(
        name: str, tenant: str, kind: JobClass, nodes: Iterable[int], floor: float | None
    ) -> Job:
        gpus = tuple(gpu for node in nodes for gpu in range(8 * node, 8 * node + 8))
        return Job(name, tenant, kind, gpus, floor_work=floor)

    return (
        job("pretrain", "aurora", JobClass.TRAIN, (0, 1), None),
        job("chat", "borealis", JobClass.SERVING, (2, 3), 0.5),
        job("rank", "cirrus", JobClass.SERVING, (4,), 0.95),
    )


@asynccontextmanager
async def api_server(folder: Path, which: str) -> AsyncIterator[Path]:
    """A kubeconfig of an empty cluster: a `real` one, or our `embedded` one."""
    if which == "real":
        async with running_cluster(folder) as cluster:
            yield cluster.kubeconfig
    else:
        async with EmbeddedKube(folder) as kube:
            yield kube.kubeconfig()


@asynccontextmanager
async def world(
    folder: Path,
    which: str = "embedded",
    *,
    nodes: int = 6,
    jobs: tuple[Job, ...] | None = None,
    timings: Timings = QUICK,
    modes: Modes = DEFAULT_MODES,
    maintenance: bool = False,
    remediation: bool = True,
    gpus_per_pod: int | None = None,
) -> AsyncIterator[World]:
    """Everything, up and quiet."""
    clock = ManualClock(START)
    jobs = small_jobs() if jobs is None else jobs
    plant = Plant(hall_site(nodes), jobs, seed=1, start=START, load=SteadyLoad(jobs))
    async with api_server(folder, which) as kubeconfig:
        settings = ClusterSettings(kubeconfig=kubeconfig)
        async with (
            KubeClient(settings, clock, field_manager="kubectl") as client,
            nvsentinel_on(
                client,
                plant,
                timings=timings,
                modes=modes,
                maintenance=maintenance,
                remediation=remediation,
                gpus_per_pod=gpus_per_pod,
            ) as twin,
        ):
            found = World(plant, clock, client, twin)
            async with anyio.create_task_group() as watching:
                watching.start_soon(found.watch)
                await found.let(2)
                yield found
                watching.cancel_scope.cancel()


def fatal(
    node: str, check: str = "GpuMemWatch", action: str = "RESTART_VM", **more: Any
) -> HealthEvent:
    """A fatal event of the GPU monitor."""
    return HealthEvent(
        "gpu-health-monitor", "GPU", check, node, True, False, action, "it is broken", **more
    )


def healthy(node: str, check: str = "GpuMemWatch", **more: Any) -> HealthEvent:
    """The same check is well."""
    return HealthEvent("gpu-health-monitor", "GPU", check, node, False, True, **more)


def planned_maintenance(action: str = "NONE", **more: str) -> dict[str, object]:
    """A MaintenanceRequest for node-006, as somebody writes it."""
    event = {
        "version": 1,
        "nodeName": "node-006",
        "isHealthy": False,
        "isFatal": False,
        "componentClass": "Node",
        "agent": "somebody",
        "checkName": "PlannedMaintenance",
        "recommendedAction": action,
        "message": "new fans",
        **more,
    }
    return {"metadata": {"name": "maintenance-node-006"}, "spec": {"healthEvent": event}}


async def trip_and_repair(there: World) -> None:
    """Half of the GPU nodes are cordoned, the breaker trips, and then all are well."""
    for node in ("node-004", "node-005", "node-006", "node-001"):
        there.twin.report(fatal(node, action="CONTACT_SUPPORT"))
    await there.let(10)
    for node in ("node-004", "node-005", "node-006", "node-001"):
        there.twin.report(healthy(node))
    await there.let(10)
