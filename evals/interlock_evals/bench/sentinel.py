"""NVSentinel's servers on 5,000 nodes with 40,000 pods: start, memory, reads, proposal.

Three processes: the API server with NVSentinel's twin, which is not counted; a site with the
servers and the remediation agent, over MCP and HTTP as it ships; and the one that asks both.
"""

import gc
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import anyio.to_thread

from interlock_agents.connection import Servers, connect
from interlock_agents.notes import Note
from interlock_agents.remediation import RemediationAgent
from interlock_evals.bench.measured import Measured, median
from interlock_evals.bench.other_process import OtherProcess, say
from interlock_evals.reports import Figure, Promise
from interlock_evals.sentinel_factory import only_maintenance
from interlock_guardrails.rules import SiteRules
from interlock_plant import Plant, SteadyLoad, hall_jobs, hall_site
from interlock_servers.nvsentinel.settings import NvsentinelSettings
from interlock_servers.nvsentinel.twin import NvsentinelTwin, nvsentinel_on
from interlock_servers.nvsentinel.twin_events import HealthEvent
from interlock_servers.serving import agent_principal, serve_http
from interlock_servers.site import SiteSettings
from interlock_servers.transports.kube.client import KubeClient
from interlock_servers.transports.kube.embedded import EmbeddedKube
from interlock_servers.transports.kube.settings import ClusterSettings
from interlock_tools.clock import ManualClock, SystemClock

MODULE: Final = "interlock_evals.bench.sentinel"
NODES: Final = 5_000
AGENT: Final = agent_principal("remediation", owner="person:fleet-team")
READS: Final = 21  # of each tool
ILL: Final = 20  # nodes with a fault while it is read: pages have rows
FAULTS: Final = 5  # of a node at work, then of free ones: the next with work would wait for it
SETTLES_S: Final = 5.0  # before the first fault: the agent has seen the cluster once by then
LOOK_S: Final = 0.05
PATIENCE_S: Final = 120.0
READ_MS, START_S, MEMORY_MB, PROPOSED_S = 50.0, 20.0, 600.0, 1.0
TOOLS: Final[dict[str, dict[str, Any]]] = {
    "sentinel_status": {},
    "list_node_health": {"state": "all", "limit": 200},
    "explain_node": {},
    "list_remediations": {"limit": 200},
    "list_stuck": {"limit": 200},
    "list_node_events": {"limit": 200},
    "list_rules": {"limit": 200},
}
ASKS: Final = frozenset({"explain_node"})  # it asks the API server, and is no cached read


class Size(NamedTuple):
    """How large it is."""

    nodes: int = NODES
    ill: int = ILL
    faults: int = FAULTS
    reads: int = READS


WHOLE: Final = Size()


def measure(size: Size = WHOLE) -> Measured:
    """One cluster, one start; medians of the reads, and the slowest proposal."""
    with tempfile.TemporaryDirectory(prefix="interlock-sentinel-") as folder:
        cluster = OtherProcess(MODULE, "cluster", folder, *map(str, size))
        try:
            cluster.told()  # it stands
            before = cluster.ask("watches")
            began_s = time.time()
            site = OtherProcess(MODULE, "site", folder, *map(str, size))
            try:
                start_s = site.told()["known_at_s"] - began_s
                seen = site.told()
                watches = _more(before, cluster.ask("watches"))
                time.sleep(SETTLES_S)
                proposed_s = [_proposal(cluster, site) for _ in range(size.faults)]
            finally:
                site.end()
        finally:
            cluster.end()
    return _judged(start_s, seen, watches, proposed_s)


def _proposal(cluster: OtherProcess, site: OtherProcess) -> float:
    """Seconds from before a fault is written to the agent's proposal about it."""
    fault = cluster.ask("fault")
    while True:
        proposed = site.told()
        if proposed["node"] == fault["node"]:
            return float(proposed["at_s"]) - float(fault["at_s"])


def _more(before: Mapping[str, int], now: Mapping[str, int]) -> int:
    """The most watches of one kind that were opened since."""
    return max(now[plural] - before.get(plural, 0) for plural in now)


def _judged(
    start_s: float, seen: Mapping[str, Any], watches: int, proposed_s: list[float]
) -> Measured:
    reads = {name: median(took_s, "ms", 1e3) for name, took_s in seen["reads"].items()}
    slowest = max((name for name in reads if name not in ASKS), key=lambda n: reads[n].value)
    figures = {f"sentinel_{name}_ms": figure for name, figure in reads.items()}
    figures |= {
        "sentinel_cold_start_s": Figure(start_s, "s"),
        "sentinel_memory_mb": Figure(seen["memory_mb"], "MB"),
        "sentinel_fault_to_proposal_s": median(proposed_s, "s"),
        "sentinel_watches_of_a_kind": Figure(watches, ""),
    }
    return Measured(
        figures,
        {
            "sentinel_slowest_read_ms": Promise.at_most(
                float(reads[slowest].value), READ_MS, "ms", f"{slowest} is the slowest"
            ),
            "sentinel_cold_start_s": Promise.at_most(start_s, START_S, "s"),
            "sentinel_memory_mb": Promise.at_most(seen["memory_mb"], MEMORY_MB, "MB"),
            "sentinel_slowest_proposal_s": Promise.at_most(max(proposed_s), PROPOSED_S, "s"),
            "sentinel_watches_of_a_kind": Promise.at_most(watches, 1, ""),
        },
    )


# ── the cluster ───────────────────────────────────────────────────────────────────────────────


async def _cluster(folder: Path, size: Size) -> None:
    """Be the API server and NVSentinel; write a fault when told to."""
    site = hall_site(size.nodes)
    free = set(site.node_ids[-size.faults :])
    kept_free = {int(gpu) for name in free for gpu in site.gpus_of_node(name)}
    jobs = tuple(job for job in hall_jobs(site) if kept_free.isdisjoint(job.gpu_indices))
    clock = ManualClock(datetime.now(UTC))
    plant = Plant(site, jobs, seed=1, start=clock.now(), load=SteadyLoad(jobs))
    async with EmbeddedKube(folder) as kube:
        settings = ClusterSettings(kubeconfig=kube.kubeconfig(), deadline_s=60.0)
        async with (
            KubeClient(settings, clock, field_manager="kubectl") as client,
            nvsentinel_on(client, plant, maintenance=True, gpus_per_pod=1, load=kube.load) as twin,
        ):
            await only_maintenance(client)
            await twin.step()
            for name in site.node_ids[: size.ill]:
                twin.report(_fault(name, "NONE"))
            await twin.connector.reconcile()
            names = iter([site.node_ids[size.ill], *sorted(free)])
            say("stands")
            while line := await anyio.to_thread.run_sync(sys.stdin.readline):
                if line.strip() == "watches":
                    say(kube.watches)
                else:
                    say(await _broken(twin, next(names)))


async def _broken(twin: NvsentinelTwin, name: str) -> dict[str, Any]:
    at_s = time.time()
    twin.report(_fault(name, "COMPONENT_RESET"))
    await twin.connector.reconcile()
    return {"node": name, "at_s": at_s}


def _fault(node: str, action: str) -> HealthEvent:
    codes = ("48",) if action != "NONE" else ("31",)  # 31 is a program's own, and calls for nothing
    return HealthEvent(
        agent="syslog-health-monitor",
        component="GPU",
        check="SysLogsXIDError",
        node=node,
        is_fatal=True,
        is_healthy=False,
        action=action,
        message=f"NVRM: Xid {codes[0]}",
        codes=codes,
    )


# ── the site ──────────────────────────────────────────────────────────────────────────────────


async def _site(folder: Path, size: Size) -> None:
    """Serve, read, and let the agent look on until the input closes."""
    cluster = ClusterSettings(kubeconfig=folder / "admin.kubeconfig")
    settings = SiteSettings(
        rules=SiteRules(site_id="bench", gpus=8 * size.nodes, hosts=size.nodes),
        bundle="supervised",
        data_dir=folder / "site",
        nvsentinel=NvsentinelSettings(cluster=cluster, operations=True),
    )
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(
            serve_http(settings, clock, host="127.0.0.1", port=0)
        )
        hands = connect(served.urls(), served.token(AGENT))
        servers = await stack.enter_async_context(hands)
        await _until_known(servers)
        say({"known_at_s": time.time()})
        reads = await _reads(servers, size)
        say({"reads": reads, "memory_mb": _most_memory_mb()})
        agent = RemediationAgent(servers, clock, _told)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent.run)
            await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
            tasks.cancel_scope.cancel()


async def _until_known(servers: Servers) -> None:
    with anyio.fail_after(PATIENCE_S):
        while True:
            status = await servers.call("nvsentinel", "sentinel_status")
            page = await servers.call("nvsentinel", "list_node_health", state="all", limit=1)
            if not status.get("unknown") and not page.get("unknown") and page["nodes"]:
                return
            await anyio.sleep(LOOK_S)


async def _reads(servers: Servers, size: Size) -> dict[str, list[float]]:
    took_s: dict[str, list[float]] = defaultdict(list)
    about = {"explain_node": {"node_id": hall_site(size.nodes).node_ids[0]}}
    for _ in range(size.reads):
        for tool, arguments in (TOOLS | about).items():
            began_s = time.perf_counter()
            await servers.call("nvsentinel", tool, **arguments)
            took_s[tool].append(time.perf_counter() - began_s)
    return took_s


def _told(note: Note) -> None:
    if note.kind == "proposed":
        say({"node": note.text.partition(":")[0], "at_s": time.time()})


def _most_memory_mb() -> float:
    """The most that this process ever held, as the kernel counts it."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this kernel tells no VmHWM")


if __name__ == "__main__":
    gc.freeze()  # what is loaded is not looked through for garbage, as `interlock` starts
    _run = {"cluster": _cluster, "site": _site}[sys.argv[1]]
    anyio.run(_run, Path(sys.argv[2]), Size(*map(int, sys.argv[3:])))
