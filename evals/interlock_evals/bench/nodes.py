"""Reading 512 GPUs through 64 node agents: how long for all of them, and of processor for us.

The agents are a process of their own over a plant that goes on, look at their devices by
themselves, and answer over gRPC with a token each, as on a site.
"""

import resource
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread

from interlock_evals.bench.measured import Measured, median
from interlock_evals.bench.other_process import OtherProcess, say
from interlock_evals.node_agents import serving_nodes
from interlock_evals.reports import Promise
from interlock_plant.halls import lab_site
from interlock_plant.jobs import jobs_of
from interlock_plant.load import SyntheticLoad
from interlock_plant.plant import Plant
from interlock_servers.devices.client import NodeClient, NodeState, NodeView
from interlock_servers.devices.nodes import NodesSettings
from interlock_tools.clock import SystemClock

READS, GPUS, NODES = 41, 512, 64
PAUSE_S = 0.1  # between reads, so that agents look meanwhile as they do on a site
LIMIT_MS = 500.0


def measure() -> Measured:
    """The median over the reads; the limit is that of the issue that it came from."""
    whole_s, used_s = anyio.run(_measure)
    read_ms = median(whole_s, "ms", 1e3)
    figures = {
        "nodes_512_gpus_read_ms": read_ms,
        "nodes_512_gpus_read_cpu_ms": median(used_s, "ms", 1e3),
    }
    promise = Promise.at_most(float(read_ms.value), LIMIT_MS, "ms")
    return Measured(figures, {"nodes_512_gpus_read_ms": promise})


async def _measure() -> tuple[list[float], list[float]]:
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as folder:
        agents = OtherProcess("interlock_evals.bench.nodes", folder)
        try:
            said = await anyio.to_thread.run_sync(agents.told)
            settings = NodesSettings.model_validate(said)
            async with NodeClient(settings, SystemClock(), reads_only=True) as client:
                _check(await client.read())  # connects
                return await _reads(client)
        finally:
            await anyio.to_thread.run_sync(agents.end)


async def _reads(client: NodeClient) -> tuple[list[float], list[float]]:
    whole_s, used_s = [], []
    for _ in range(READS):
        await anyio.sleep(PAUSE_S)
        before, began = _used_s(), time.perf_counter()
        views = await client.read()
        whole_s.append(time.perf_counter() - began)
        used_s.append(_used_s() - before)
        _check(views)
    return whole_s, used_s


def _check(views: dict[str, NodeView]) -> None:
    """A read that misses some is no read."""
    gpus = sum(len(view.answer.gpus) for view in views.values() if view.answer is not None)
    fresh = [view for view in views.values() if view.state is NodeState.FRESH]
    if gpus != GPUS or len(fresh) != NODES:
        raise RuntimeError(f"{gpus} GPUs of {len(fresh)} nodes")


def _used_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _serve(folder: Path) -> None:
    """Be the agents until our input closes; say where they are in one line."""
    site = lab_site()
    jobs = jobs_of(site)
    start = datetime.now(UTC)
    plant = Plant(site, jobs, seed=7, start=start, load=SyntheticLoad(jobs, seed=7))
    plant.step()
    lock = threading.Lock()

    async def go_on() -> None:
        """A plant that stood would show power and count no energy: its nodes would be liars."""
        while True:
            await anyio.sleep(max(0.0, (plant.now - datetime.now(UTC)).total_seconds()))
            with lock:
                plant.step()

    async with (
        serving_nodes(plant, SystemClock(), folder, lock) as settings,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(go_on)
        say(settings.model_dump(mode="json"))
        await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(_serve, Path(sys.argv[1]))
