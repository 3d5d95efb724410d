"""One host of a small factory, its GPUs behind each way to them."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from interlock_plant import Job, JobClass, Plant, SteadyLoad, hall_site
from interlock_servers.devices.amd_smi import AmdSmiHost
from interlock_servers.devices.bmc import BmcSettings, HttpBmc
from interlock_servers.devices.device import GpuHost
from interlock_servers.devices.nvml import NvmlHost
from interlock_servers.devices.redfish import RedfishHost
from interlock_servers.devices.twin import HostTwin
from interlock_servers.devices.twin_amd_smi import AmdSmiTwin
from interlock_servers.devices.twin_nvml import NvmlTwin
from interlock_servers.devices.twin_redfish import LOGIN, RedfishTwin
from interlock_tools.errors import UnavailableError
from tests.servers.devices.nodes import Nodes, StepClock, running

START = datetime(2026, 9, 1, 12, tzinfo=UTC)
WAYS = ("nvml", "amdsmi", "redfish")


class PlantClock:
    """The clock of the plant; nobody here sleeps by it."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def now(self) -> datetime:
        """The plant's second."""
        return START + timedelta(seconds=self._plant.second)

    async def sleep(self, seconds: float) -> None:
        """Let the plant's time pass."""
        for _ in range(max(1, round(seconds))):
            self._plant.step()


@pytest.fixture
def plant() -> Plant:
    """Two nodes; all GPUs train, uncapped."""
    site = hall_site(2)
    jobs = (Job("pretrain", "aurora", JobClass.TRAIN, tuple(range(site.gpu_count))),)
    return Plant(site, jobs, seed=7, start=START, load=SteadyLoad(jobs))


@pytest.fixture
def clock(plant: Plant) -> PlantClock:
    """The one clock."""
    return PlantClock(plant)


@pytest.fixture
def twin(plant: Plant) -> HostTwin:
    """The hardware of the first node."""
    return HostTwin(plant, plant.site.node_ids[0])


Opener = Callable[[str], GpuHost]


@pytest.fixture
def opened(twin: HostTwin, clock: PlantClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Opens the host by a way of choice."""
    monkeypatch.setenv("TWIN_PASSWORD", LOGIN[1])
    with ExitStack() as stack:

        def by(way: str) -> GpuHost:
            match way:
                case "nvml":
                    host: GpuHost = NvmlHost(clock, NvmlTwin(twin))
                case "amdsmi":
                    host = AmdSmiHost(clock, AmdSmiTwin(twin))
                case _:
                    host = RedfishHost(clock, bmc_of(stack.enter_context(RedfishTwin(twin))))
            return stack.enter_context(host)

        yield by


def bmc_of(twin: RedfishTwin, *, deadline_s: float = 5.0) -> HttpBmc:
    """A connection to a BMC of a twin."""
    user, variable = LOGIN[0], "TWIN_PASSWORD"
    return HttpBmc(
        BmcSettings(url=twin.url, username=user, password_env=variable, deadline_s=deadline_s)
    )


@pytest.fixture(params=WAYS)
def host(request: pytest.FixtureRequest, opened: Opener) -> GpuHost:
    """The host by each way."""
    return opened(request.param)


@pytest.fixture(params=[*WAYS, pytest.param("real", marks=pytest.mark.live)])
def any_host(request: pytest.FixtureRequest, opened: Opener, clock: PlantClock) -> GpuHost:
    """The twins always; the NVIDIA GPUs of this machine where INTERLOCK_REAL_GPU asks for them."""
    if request.param != "real":
        return opened(request.param)
    if not os.environ.get("INTERLOCK_REAL_GPU"):
        pytest.skip("INTERLOCK_REAL_GPU does not ask for the GPUs of this machine")
    try:
        return NvmlHost(clock)
    except UnavailableError as error:
        pytest.fail(str(error))


@pytest.fixture
def step_clock() -> StepClock:
    """The one clock of agents and client."""
    return StepClock(START)


@pytest.fixture
async def nodes(plant: Plant, step_clock: StepClock, tmp_path: Path) -> AsyncIterator[Nodes]:
    """Two agents that take writes."""
    async with running(plant, step_clock, tmp_path) as both:
        yield both
