"""GPUs of any kind as an agent of ours sees them: what each is, what is unknown, why it is slow."""

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from interlock_agents.connection import Servers
from interlock_guardrails.facts import FactRegistry
from interlock_plant import Job, JobClass, Plant, SteadyLoad, hall_site
from interlock_servers.devices.agent import NodeAgent
from interlock_servers.devices.amd_smi import AmdSmiHost
from interlock_servers.devices.client import NodeClient
from interlock_servers.devices.device import GpuHost
from interlock_servers.devices.node_models import Cap
from interlock_servers.devices.nodes import NodeSettings, NodesSettings
from interlock_servers.devices.nvml import NvmlHost
from interlock_servers.devices.redfish import RedfishHost
from interlock_servers.devices.server import NodeServer
from interlock_servers.devices.twin import GpuFault, HostTwin
from interlock_servers.devices.twin_amd_smi import AmdSmiTwin
from interlock_servers.devices.twin_nvml import NvmlTwin
from interlock_servers.devices.twin_redfish import LOGIN, RedfishTwin
from interlock_servers.identity import local_caller
from interlock_servers.maxlps.attached import powering
from interlock_servers.maxlps.gpu_face import devices_face
from interlock_tools.errors import ComponentError, InvalidRequestError
from interlock_tools.identity import Principal, PrincipalKind
from tests.guardrails.conftest import House, house_in
from tests.servers.devices.conftest import START, bmc_of
from tests.servers.devices.nodes import NODE, Nodes, StepClock, agent_settings, running

READER = Principal(
    id="agent:reader",
    kind=PrincipalKind.AGENT,
    authenticated_by="token:local",
    scopes=frozenset({"interlock:read"}),
)


class NoGpus(NvmlTwin):
    """A machine with a driver and no GPU."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 (the library's own name)
        """None."""
        return 0


Open = Callable[[HostTwin, StepClock, ExitStack], GpuHost]
WAYS: dict[str, Open] = {
    "nvidia": lambda twin, clock, stack: NvmlHost(clock, NvmlTwin(twin)),
    "amd": lambda twin, clock, stack: AmdSmiHost(clock, AmdSmiTwin(twin)),
    "bmc": lambda twin, clock, stack: RedfishHost(
        clock, bmc_of(stack.enter_context(RedfishTwin(twin)))
    ),
    "empty": lambda twin, clock, stack: NvmlHost(clock, NoGpus(twin)),
}


@pytest.fixture
def plant() -> Plant:
    """Two nodes at work."""
    jobs = (Job("pretrain", "aurora", JobClass.TRAIN, tuple(range(16))),)
    return Plant(hall_site(2), jobs, seed=7, start=START, load=SteadyLoad(jobs))


@pytest.fixture
def house(tmp_path: Path) -> Any:
    """A guard for the face."""
    with house_in(tmp_path) as built:
        yield built


@asynccontextmanager
async def seen(house: House, nodes: NodesSettings, clock: StepClock) -> AsyncIterator[Servers]:
    """The face over these agents, which are read only."""
    async with NodeClient(nodes, clock, reads_only=True) as client:
        face = devices_face(
            client,
            facts=FactRegistry(),
            site_id="hall",
            guard=house.guard,
            who=local_caller(READER),
        )
        async with Client(face.server()) as met:
            yield Servers({"devices": met})


@pytest.mark.parametrize(
    ("way", "vendors", "gpus", "by"),
    [
        ("nvidia", ["nvidia"], 8, "NVML"),
        ("amd", ["amd"], 8, "AMD SMI"),
        ("bmc", ["nvidia"], 8, "Redfish"),
        ("empty", [], 0, "NVML"),
    ],
)
async def test_every_kind_of_machine_says_what_it_is_and_what_it_does_not_know(
    house: House,
    plant: Plant,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    vendors: list[str],
    gpus: int,
    by: str,
) -> None:
    """One tool for all of them; what one way does not carry has its reason, and is no zero."""
    monkeypatch.setenv("TWIN_PASSWORD", LOGIN[1])
    clock, twin = StepClock(START), HostTwin(plant, NODE)
    plant.step()
    with ExitStack() as stack:
        agent = NodeAgent(
            agent_settings(tmp_path, NODE),
            clock,
            lambda: WAYS[way](twin, clock, stack),
            takes_writes=False,
        )
        async with agent, NodeServer(agent, clock) as server:
            node = NodeSettings(
                node_id=NODE, address=server.address, tls=False, token_file=tmp_path / "reader"
            )
            async with seen(house, NodesSettings(nodes=(node,)), clock) as met:
                hosts = await met.call("devices", "list_hosts")
                listed = await met.call("devices", "list_gpus")
                if gpus:
                    one = await met.call("devices", "get_gpu", node_id=NODE, gpu=0)
                why = await met.call("devices", "why_slow", node_id=NODE)
    (row,) = hosts["nodes"]
    assert (row["gpus"], row["vendors"]) == (gpus, vendors)
    assert row["state"] == ("fresh" if gpus else "empty")
    assert by in row["by"]
    assert "power_w" in row if gpus else "power_w" not in row
    assert len(listed["gpus"]) == why["looked_at"] == gpus
    if gpus:
        for name, reason in one["unknown"].items():
            assert reason
            assert name not in one["gpu"]
        shown_w = one["gpu"].get("power_w", one["gpu"].get("instant_w"))
        assert shown_w == pytest.approx(float(plant.gpu_power_w[0]), abs=1)


async def test_why_slow_names_cap_heat_and_sync_with_evidence(
    house: House, plant: Plant, tmp_path: Path
) -> None:
    """Now, and how long between two readings."""
    async with running(plant, StepClock(START), tmp_path, node_ids=(NODE,)) as nodes:
        twin = nodes.twins[NODE]
        twin.set_limit_w(0, 300.0)
        twin.inject(GpuFault.SYNC_BOOST, [1])
        twin.inject(GpuFault.RELIABILITY, [2])
        twin.raise_xid(3, 79)
        await nodes.step(3)
        async with seen(house, nodes.settings("reader"), nodes.clock) as met:
            await met.call("devices", "why_slow", node_id=NODE)
            await nodes.step(10)
            why = await met.call("devices", "why_slow", node_id=NODE)
    found = {(row["gpu"], row["cause"]): row for row in why["findings"]}
    assert "300 W" in found[0, "power_cap"]["says"]
    assert found[0, "power_cap"]["now"]
    assert found[0, "power_cap"]["share"] == pytest.approx(1.0, abs=0.05)
    assert (1, "sync_boost") in found
    assert found[2, "reliability"]["share"] == pytest.approx(1.0, abs=0.05)
    assert "XID 79" in found[3, "fault"]["says"]
    assert why["by_cause"]["sync_boost"] == 1


async def test_a_node_that_is_silent_is_named_and_tells_nothing(
    house: House, plant: Plant, tmp_path: Path
) -> None:
    """Old readings are no readings; the GPUs are listed as there, and that is all."""
    async with (
        running(plant, StepClock(START), tmp_path, node_ids=(NODE,)) as nodes,
        seen(house, nodes.settings("reader"), nodes.clock) as met,
    ):
        await met.call("devices", "list_gpus")
        nodes.clock.advance(60.0)  # nobody looks at the devices
        hosts = await met.call("devices", "list_hosts")
        listed = await met.call("devices", "list_gpus")
        why = await met.call("devices", "why_slow", node_id=NODE)
        with pytest.raises(ComponentError, match="stale"):
            await met.call("devices", "get_gpu", node_id=NODE, gpu=0)
    assert hosts["nodes"][0]["state"] == "stale"
    assert listed["silent"] == why["silent"] == [NODE]
    assert all(set(row) == {"node_id", "gpu", "state"} for row in listed["gpus"])
    assert why["looked_at"] == 0


async def test_questions_that_cannot_be_answered_say_why(
    house: House, plant: Plant, tmp_path: Path
) -> None:
    """A node, a GPU or a group that is not there; or neither named."""
    async with (
        running(plant, StepClock(START), tmp_path, node_ids=(NODE,)) as nodes,
        seen(house, nodes.settings("reader"), nodes.clock) as met,
    ):
        for tool, arguments, match in (
            ("get_gpu", {"node_id": "node-999", "gpu": 0}, "list_hosts has them"),
            ("get_gpu", {"node_id": NODE, "gpu": 8}, "shows no GPU 8"),
            ("why_slow", {}, "name a node, or a group"),
            ("why_slow", {"group": "pretrain"}, "groups are unknown"),
        ):
            with pytest.raises(ComponentError, match=match):
                await met.call("devices", tool, **arguments)


async def test_beside_dps_the_nodes_are_read_and_never_written(
    house: House, nodes_beside: Nodes
) -> None:
    """The reader has no way to write, and says who lets itself be written: two masters."""
    settings, clock = nodes_beside.settings("writer"), nodes_beside.clock
    async with powering(None, settings, house.guard.store, clock, "hall") as gpus:
        assert gpus.nodes is not None
        assert gpus.holder is None
        await gpus.nodes.read()
        works, says = gpus.devices_health()
        cap = Cap(f"GPU-{NODE}-0", 400.0, 400.0, 30.0)
        for write in (
            gpus.nodes.set_limits({NODE: [cap]}, change_id="chg-1"),
            gpus.nodes.renew({NODE: [cap.key]}, expires_in_s=30.0),
            gpus.nodes.end({NODE: [cap.key]}),
        ):
            with pytest.raises(InvalidRequestError, match="only read here"):
                await write
    assert works
    assert "they are only read" in says
    assert not any(nodes_beside.twins[NODE].commands)


@pytest.fixture
async def nodes_beside(plant: Plant, tmp_path: Path) -> AsyncIterator[Nodes]:
    """Two agents that would take writes."""
    async with running(plant, StepClock(START), tmp_path) as nodes:
        yield nodes


async def test_what_is_compared_with_is_at_most_about_a_minute_old(
    plant: Plant, tmp_path: Path
) -> None:
    """A share of an hour says nothing of now."""
    async with (
        running(plant, StepClock(START), tmp_path, node_ids=(NODE,)) as nodes,
        NodeClient(nodes.settings("reader"), nodes.clock) as client,
    ):
        for _ in range(30):
            await nodes.step(5)
            view = (await client.read())[NODE]
            if view.earlier is not None and view.answer is not None:
                span = view.answer.gpus[0].observed_at - view.earlier.gpus[0].observed_at
                assert timedelta(0) < span <= timedelta(seconds=70)
        assert view.earlier is not None
