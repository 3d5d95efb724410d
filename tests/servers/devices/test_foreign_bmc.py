"""Redfish services that we did not write: OpenStack's sushy-tools, where INTERLOCK_SUSHY_BIN says.

Neither has power limits of GPUs, so neither proves the write; both prove the walk, and that a BMC
without GPUs is read as one.
"""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx2
import pytest

from interlock_servers.devices.bmc import BmcSettings, HttpBmc
from interlock_servers.devices.models import Outcome
from interlock_servers.devices.redfish import RedfishHost
from interlock_servers.devices.twin import HostTwin
from interlock_servers.devices.twin_redfish import SYSTEM, RedfishTwin
from tests.servers.devices.conftest import PlantClock

pytestmark = pytest.mark.live
PATIENCE_S = 30.0


@pytest.fixture
def tools() -> Path:
    """The folder with `sushy-emulator` and `sushy-static`."""
    folder = Path(os.environ.get("INTERLOCK_SUSHY_BIN", ""))
    if not (folder / "sushy-emulator").is_file():
        pytest.skip("INTERLOCK_SUSHY_BIN names no folder with sushy-emulator")
    return folder


@contextmanager
def serving(*command: str, folder: Path) -> Iterator[str]:
    """A server of these tools on a free port; its address, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(  # noqa: S603 (the tool that was named)
        [*command, "-p", str(port)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield url
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


async def answers(url: str) -> None:
    """Return once it answers."""
    with anyio.fail_after(PATIENCE_S):
        async with httpx2.AsyncClient(trust_env=False) as http:
            while True:
                try:
                    await http.get(f"{url}/redfish/v1/")
                except httpx2.TransportError:
                    await anyio.sleep(0.05)
                else:
                    return


async def test_a_service_without_gpus_is_walked_and_has_none(
    tools: Path, tmp_path: Path, clock: PlantClock
) -> None:
    """Its processors are CPUs, or none."""
    with serving(str(tools / "sushy-emulator"), "--fake", folder=tmp_path) as url:
        await answers(url)
        with RedfishHost(clock, HttpBmc(BmcSettings(url=url))) as host:
            assert host.says.startswith("Redfish 1.")
            assert list(host.devices()) == []


async def test_a_mockup_served_by_another_is_read_and_its_yes_to_a_limit_is_seen_through(
    tools: Path, tmp_path: Path, clock: PlantClock, twin: HostTwin
) -> None:
    """It says 204 to every PATCH and changes nothing; only the read-back tells.

    The mockup has the DMTF's form: a folder for each resource, an index.json in each.
    """
    bmc = RedfishTwin(twin)
    processors = f"{SYSTEM}/Processors"
    paths = ["/redfish/v1", "/redfish/v1/Systems", SYSTEM, f"{processors}/CPU_0"]
    for gpu in range(1, len(twin.gpus) + 1):
        path = f"{processors}/GPU_SXM_{gpu}"
        paths += [path, f"{path}/EnvironmentMetrics", f"{path}/ProcessorMetrics"]
    documents = {path: bmc.respond(path, None, None)[2] for path in paths}
    members = [f"{processors}/GPU_SXM_{gpu}" for gpu in range(1, len(twin.gpus) + 1)]
    documents[processors] = {"Members": [{"@odata.id": path} for path in members]}
    for path, document in documents.items():
        folder = tmp_path / path.removeprefix("/redfish/v1").lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.json").write_text(json.dumps(document))
    command = (str(tools / "sushy-static"), "-m", str(tmp_path))
    with serving(*command, folder=tmp_path) as url:
        await answers(url)
        with RedfishHost(clock, HttpBmc(BmcSettings(url=url))) as host:
            devices = host.devices()
            readings = [device.read() for device in devices]
            outcome = devices[0].set_power_limit(500.0)
    assert len(devices) == 8
    assert {reading.limits.max_w for reading in readings} == {700.0}
    assert outcome.outcome is Outcome.IGNORED, outcome
