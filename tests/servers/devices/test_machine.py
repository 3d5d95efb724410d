"""What a machine has: NVIDIA, AMD, both, a card without its driver, or nothing."""

from pathlib import Path

import pytest

from interlock_servers.devices.amd_smi import AmdSmiHost
from interlock_servers.devices.device import GpuHost
from interlock_servers.devices.machine import OpenWay, WayState, cards_on_bus, examine
from interlock_servers.devices.nvml import NvmlHost
from interlock_servers.devices.recorded import Way
from interlock_servers.devices.twin import GpuFault, HostTwin
from interlock_servers.devices.twin_amd_smi import AmdSmiTwin
from interlock_servers.devices.twin_nvml import NvmlTwin
from interlock_tools.clock import Clock
from interlock_tools.errors import UnavailableError
from tests.servers.devices.conftest import PlantClock


def bus(folder: Path, *cards: tuple[str, str]) -> Path:
    """A bus with these cards: vendor and class."""
    for number, (vendor, kind) in enumerate(cards):
        card = folder / f"0000:{number:02x}:00.0"
        card.mkdir(parents=True)
        (card / "vendor").write_text(vendor + "\n")
        (card / "class").write_text(kind + "\n")
    return folder


NVIDIA, AMD, NETWORK = ("0x10de", "0x030200"), ("0x1002", "0x120000"), ("0x15b3", "0x020000")
SOUND_OF_NVIDIA = ("0x10de", "0x040300")


def missing(clock: Clock) -> GpuHost:
    """No library."""
    raise UnavailableError("the driver is not there")


@pytest.fixture
def here(twin: HostTwin) -> dict[Way, OpenWay]:
    """Both vendors' drivers with eight GPUs each."""
    return {
        Way.NVML: lambda clock: NvmlHost(clock, NvmlTwin(twin)),
        Way.AMD_SMI: lambda clock: AmdSmiHost(clock, AmdSmiTwin(twin)),
    }


def state_of(states: tuple[WayState, ...], name: str) -> WayState:
    """The one of this vendor."""
    return next(state for state in states if state.name == name)


def test_only_gpus_count_on_the_bus(tmp_path: Path) -> None:
    """A GPU brings a sound device along, and a network card is none."""
    cards = cards_on_bus(bus(tmp_path, NVIDIA, SOUND_OF_NVIDIA, AMD, NETWORK, NVIDIA))
    assert cards == {"NVIDIA": ["0000:00:00.0", "0000:04:00.0"], "AMD": ["0000:02:00.0"]}
    assert cards_on_bus(tmp_path / "no-bus") == {"NVIDIA": [], "AMD": []}


def test_an_empty_machine_is_well_and_has_none(clock: PlantClock, tmp_path: Path) -> None:
    """Nothing missing is nothing wrong."""
    states = examine(clock, ways={Way.NVML: missing, Way.AMD_SMI: missing}, pci=tmp_path)
    assert [(state.works, state.gpus) for state in states] == [(True, 0)] * 2
    assert all("none on the bus" in state.says[0] for state in states)


def test_a_card_without_its_driver_is_not_an_empty_machine(
    clock: PlantClock, tmp_path: Path
) -> None:
    """It is there and cannot be reached, which somebody should mend."""
    states = examine(clock, ways={Way.NVML: missing, Way.AMD_SMI: missing}, pci=bus(tmp_path, AMD))
    assert state_of(states, "NVIDIA").works
    assert not state_of(states, "AMD").works
    assert "1 on the bus (0000:00:00.0)" in state_of(states, "AMD").says[0]


def test_each_gpu_is_a_line_with_what_cannot_be_read_of_it(
    clock: PlantClock, tmp_path: Path, here: dict[Way, OpenWay], twin: HostTwin
) -> None:
    """Watts, limits, and who else holds it."""
    twin.cap_by_bmc(0, 300.0)
    twin.inject(GpuFault.LOST, [2])
    states = examine(clock, ways=here, pci=bus(tmp_path, *[NVIDIA] * 8))
    nvidia = state_of(states, "NVIDIA")
    assert (nvidia.works, nvidia.gpus) == (True, 8)
    assert "NVML 13.580.95.05, driver 580.95.05: 8 GPUs; 8 on the bus" in nvidia.says[0]
    assert "limit 700 W of 200 W to 700 W, held at 300 W by another" in nvidia.says[1]
    assert "draws unknown (lost)" in nvidia.says[3]
    assert state_of(states, "AMD").gpus == 8
    assert not any(twin.commands)


def test_a_driver_that_shows_fewer_than_the_bus_has_is_not_well(
    clock: PlantClock, tmp_path: Path, here: dict[Way, OpenWay]
) -> None:
    """The ninth is the one that nobody would miss."""
    states = examine(clock, ways=here, pci=bus(tmp_path, *[NVIDIA] * 9))
    assert not state_of(states, "NVIDIA").works
    assert "1 on the bus are not shown by the driver" in state_of(states, "NVIDIA").says[-1]
