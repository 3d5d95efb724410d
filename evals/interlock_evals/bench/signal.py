"""From the grid's word on the bus to the first cap in a GPU: 10,240 GPUs, every wire real.

People's time is not in it: operators vote the moment that they are asked. Plant, twins, servers and
agent share one process, so that what the twins need is in the figures too.
"""

import gc
import logging
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import anyio

from interlock_agents.connection import connect
from interlock_agents.power import Note, PowerAgent
from interlock_evals.bench.measured import Measured, median
from interlock_evals.factory import Factory, running_factory
from interlock_evals.personas import approve
from interlock_evals.reports import Promise
from interlock_guardrails.rules import SiteRules
from interlock_servers.serving import Served, agent_principal, serve_http
from interlock_servers.site import SiteSettings
from interlock_tools.clock import ScaledClock

SITE: Final = "hall"  # 10,240 GPUs
AGENT: Final = agent_principal("power", owner="person:power-team")
SITES: Final = 3
CUT: Final = 0.20
MOST_S: Final = 1.0
PATIENCE_S: Final = 60.0
SETTLES_S: Final = 3.0  # before the signal, so that nothing of the start is in it
LOOK_S: Final = 0.002


@dataclass
class _Course:
    """When things happened, by the machine's clock."""

    factory: Factory
    served: Served
    asked_s: float = 0.0
    proposed_s: float = 0.0
    voted_s: float = 0.0
    asked: anyio.Event = field(default_factory=anyio.Event)

    def told(self, note: Note) -> None:
        """Take the moment of a proposal."""
        if note.kind == "proposed":
            self.proposed_s = time.perf_counter()
            self.asked.set()

    async def vote(self) -> None:
        """Let as many say yes to each of the agent's proposals as policy asks for, at once.

        The signal names no feeds and no end, which takes three. It goes on until cancelled.
        """
        approvals = self.served.site.approvals
        while True:
            await self.asked.wait()
            self.asked = anyio.Event()
            for change in await approvals.waiting():
                await approve(approvals, change)
                self.voted_s = time.perf_counter()

    async def signal(self, limit_w: float) -> dict[str, float]:
        """Send it; how long until a cap is lower than it was, and what of that went where."""
        plant = self.factory.plant
        before_w = float(plant.gpu_cap_set_w.sum())
        self.asked_s = time.perf_counter()
        await self.factory.grid.set_target(limit_w)
        with anyio.fail_after(PATIENCE_S):
            while float(plant.gpu_cap_set_w.sum()) >= before_w:  # noqa: ASYNC110 (no one tells)
                await anyio.sleep(LOOK_S)
        written_s = time.perf_counter()
        return {
            "signal_to_first_cap_s": written_s - self.asked_s,
            "signal_to_proposal_s": self.proposed_s - self.asked_s,
            "vote_to_first_cap_s": written_s - self.voted_s,
        }


def measure() -> Measured:
    """One signal on each of some fresh sites."""
    logging.getLogger().addHandler(logging.NullHandler())
    gc.freeze()  # what is loaded is not looked through for garbage, as `interlock` starts
    took_s: dict[str, list[float]] = defaultdict(list)
    for _ in range(SITES):
        with tempfile.TemporaryDirectory(prefix="interlock-signal-") as folder:
            for name, seconds in anyio.run(_signal, Path(folder)).items():
                took_s[name].append(seconds)
    figures = {name: median(values, "s") for name, values in took_s.items()}
    reached_s = figures["signal_to_first_cap_s"].value
    why_not = "facts, plan, proposal, decision and act share their cores with plant and twins"
    return Measured(
        figures, {"signal_to_first_cap_s": Promise.at_most(reached_s, MOST_S, "s", why_not)}
    )


async def _signal(folder: Path) -> dict[str, float]:
    clock = ScaledClock.starting_now(datetime(2026, 1, 15, 14, tzinfo=UTC), 1.0)
    async with AsyncExitStack() as stack:
        factory = await stack.enter_async_context(running_factory(clock, site=SITE))
        addresses = factory.addresses
        settings = SiteSettings(
            rules=SiteRules(site_id=addresses.site_id, gpus=addresses.gpus, hosts=addresses.hosts),
            bundle="supervised",
            data_dir=folder,
            exchange=addresses.exchange("interlock"),
            maxlps=addresses.maxlps(),
            flex=addresses.flex("interlock"),
        )
        served = await stack.enter_async_context(
            serve_http(settings, clock, host="127.0.0.1", port=0)
        )
        servers = await stack.enter_async_context(connect(served.urls(), served.token(AGENT)))
        with anyio.fail_after(PATIENCE_S):
            while True:
                power = await servers.call("exchange", "site_power")
                if (await servers.call("flex", "grid_limit"))["known"] and power.get("power_w"):
                    break
                await anyio.sleep(0.2)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        course = _Course(factory, served)
        agent = PowerAgent(servers, clock, course.told)
        tasks.start_soon(agent.run)
        tasks.start_soon(course.vote)
        await anyio.sleep(SETTLES_S)
        took_s = await course.signal(round((1 - CUT) * factory.plant.site_power_w, -3))
        tasks.cancel_scope.cancel()
        return took_s
