"""Commands beside a running site must not disturb it."""

import io
import os
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import anyio
from mcp import Client, StdioServerParameters
from rich.console import Console

from interlock_console.running import examine, settings_toml
from interlock_console.settings import parse
from interlock_evals.factory import running_factory
from interlock_servers.exchange.client import ExchangeClient
from interlock_tools.clock import ScaledClock

MAIN = "from interlock_console.start import main; main()"


async def test_a_look_at_a_site_does_not_push_its_server_off_the_bus() -> None:
    """A broker closes whoever had the client id before: doctor must come under another one."""
    clock = ScaledClock.starting_now(datetime.now(UTC), 1.0)
    said = Console(record=True, width=200, quiet=True)
    with anyio.fail_after(60):
        async with running_factory(clock) as factory:
            document = tomllib.loads(settings_toml(factory.addresses))
            settings = parse(document, "factory")
            assert settings.exchange is not None
            async with ExchangeClient(settings.exchange, clock) as server:
                await server.wait_connected(10)
                status = await examine(said, settings)
                state = server.bus_state()

    assert status == 0
    assert state.connected
    assert state.last_error is None


async def test_a_look_shows_the_agents_of_a_site_without_dps_and_sets_nothing() -> None:
    """Which nodes answer, with how many GPUs, and that their safe values fit; from its own file."""
    clock = ScaledClock.starting_now(datetime.now(UTC), 1.0)
    said = Console(file=io.StringIO(), record=True, width=200)
    with anyio.fail_after(90):
        async with running_factory(clock, agents=True) as factory:
            document = tomllib.loads(settings_toml(factory.addresses))
            settings = parse(document, "factory")
            assert settings.maxlps == factory.addresses.agents
            status = await examine(said, settings)
            limits_w = set(factory.plant.gpu_cap_set_w.tolist())

    text = said.export_text()
    assert status == 0, text
    assert "64 of 64 nodes answer, with 512 GPUs" in text
    assert "limits are set by the agents of its nodes" in text
    assert limits_w == {700.0}


def served(component: str, folder: Path) -> Client:
    """A client of `interlock serve` without settings, over stdio."""
    return Client(
        StdioServerParameters(
            command=sys.executable,
            args=["-c", MAIN, "serve", component, "--stdio"],
            env=dict(os.environ),
            cwd=folder,
        )
    )


async def test_the_devices_server_brings_a_site_of_its_own(tmp_path: Path) -> None:
    """Over stdio, without settings: GPUs behind agents, as on a site without DPS."""
    with anyio.fail_after(90):
        async with served("devices", tmp_path) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            answer = await client.call_tool("list_hosts", {"limit": 1})
    assert tools == {"list_hosts", "list_gpus", "get_gpu", "why_slow"}
    assert answer.structured_content is not None
    assert answer.structured_content["nodes"][0]["state"] == "fresh"


async def test_the_servers_of_nvsentinel_bring_a_cluster_of_their_own(tmp_path: Path) -> None:
    """Over stdio, without settings: NVSentinel's twin acts on the nodes of the plant."""
    with anyio.fail_after(90):
        async with served("nvsentinel", tmp_path) as client:
            mode = "unknown"
            while mode == "unknown":
                answer = await client.call_tool("sentinel_status", {})
                assert answer.structured_content is not None
                mode = answer.structured_content["mode"]
    assert mode == "remediation"
    assert answer.structured_content["nodes"] == {"in-service": 64}


async def test_the_settings_of_a_factory_with_a_cluster_attach_to_it() -> None:
    """The file that `interlock plant --kubernetes --settings` writes names the cluster."""
    clock = ScaledClock.starting_now(datetime.now(UTC), 1.0)
    with anyio.fail_after(60):
        async with running_factory(clock, kubernetes=True) as factory:
            settings = parse(tomllib.loads(settings_toml(factory.addresses)), "factory")
            assert settings.nvsentinel == factory.addresses.nvsentinel()
            assert settings.nvsentinel is not None
            assert settings.nvsentinel.cluster.kubeconfig == factory.addresses.kubernetes


async def test_a_look_leaves_nothing_behind(tmp_path: Path) -> None:
    """It keeps its store for itself: no key, no ledger, no change of the site's own."""
    document = {
        "data_dir": str(tmp_path / "data"),
        "sinks": {"file": str(tmp_path / "checkpoints.jsonl")},
        "site": {"site_id": "lab", "gpus": 8, "hosts": 1},
    }

    assert await examine(Console(quiet=True), parse(document, "small")) == 0
    assert [path async for path in anyio.Path(tmp_path).iterdir()] == []
