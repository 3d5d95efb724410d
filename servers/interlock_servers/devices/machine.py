"""What GPUs this machine has, and which way leads to them: NVIDIA, AMD, both, or none; reads only.

A card on the bus whose driver is missing is not the same as no card, so the bus is asked too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from interlock_servers.devices.device import GpuDevice, GpuHost
from interlock_servers.devices.models import Unread, known
from interlock_servers.devices.recorded import Way
from interlock_tools.clock import Clock
from interlock_tools.errors import FactoryError

PCI: Final = Path("/sys/bus/pci/devices")
_VENDORS: Final = {"0x10de": "NVIDIA", "0x1002": "AMD"}
_WAY_OF: Final = {"NVIDIA": Way.NVML, "AMD": Way.AMD_SMI}
_DISPLAY_CLASSES: Final = ("0x0300", "0x0302", "0x0380")  # VGA, 3D, other display
_ACCELERATOR_CLASS: Final = "0x1200"

OpenWay = Callable[[Clock], GpuHost]


@dataclass(frozen=True, slots=True)
class WayState:
    """One way to GPUs on this machine.

    Attributes:
        works: whether it is there and shows GPUs, or is rightly not there.
        says: one line for each thing worth knowing.
    """

    name: str
    works: bool
    gpus: int
    says: tuple[str, ...]


def open_nvml(clock: Clock) -> GpuHost:
    """NVIDIA's GPUs of this machine.

    Raises:
        UnavailableError: library or driver are not there.
    """
    from interlock_servers.devices.nvml import NvmlHost

    return NvmlHost(clock)


def open_amd_smi(clock: Clock) -> GpuHost:
    """AMD's GPUs of this machine.

    Raises:
        UnavailableError: library or driver are not there.
    """
    from interlock_servers.devices.amd_smi import AmdSmiHost

    return AmdSmiHost(clock)


WAYS: Final[dict[Way, OpenWay]] = {Way.NVML: open_nvml, Way.AMD_SMI: open_amd_smi}


def cards_on_bus(pci: Path = PCI) -> dict[str, list[str]]:
    """Place on the bus of each GPU, by vendor; what the kernel sees, with or without a driver."""
    found: dict[str, list[str]] = {"NVIDIA": [], "AMD": []}
    for card in sorted(pci.iterdir()) if pci.is_dir() else []:
        vendor = _VENDORS.get(_word(card / "vendor"))
        kind = _word(card / "class")[:6]
        if vendor and (kind in _DISPLAY_CLASSES or kind == _ACCELERATOR_CLASS):
            found[vendor].append(card.name)
    return found


def examine(
    clock: Clock, *, ways: dict[Way, OpenWay] | None = None, pci: Path = PCI
) -> tuple[WayState, ...]:
    """What each way finds here. It opens drivers, reads, and sets nothing."""
    cards = cards_on_bus(pci)
    states = []
    for vendor, way in _WAY_OF.items():
        open_way = (WAYS if ways is None else ways)[way]
        states.append(_state_of(vendor, cards[vendor], open_way, clock))
    return tuple(states)


def _state_of(vendor: str, cards: list[str], open_way: OpenWay, clock: Clock) -> WayState:
    on_bus = f"{len(cards)} on the bus ({', '.join(cards)})" if cards else "none on the bus"
    try:
        with open_way(clock) as host:
            devices = host.devices()
            lines = [f"{host.says}: {len(devices)} GPUs; {on_bus}"]
            lines += [line_of(device) for device in devices]
            silent = len(cards) > len(devices)
            if silent:
                lines.append(f"{len(cards) - len(devices)} on the bus are not shown by the driver")
            return WayState(vendor, not silent, len(devices), tuple(lines))
    except FactoryError as error:
        return WayState(vendor, not cards, 0, (f"{error}; {on_bus}",))


def line_of(device: GpuDevice) -> str:
    """One GPU in one line: who it is, what it draws and may draw, and what cannot be read."""
    reading = device.read()
    limits = reading.limits
    model = known(device.identity.model) or "unknown model"
    parts = [
        f"GPU {device.identity.index} {model}",
        f"draws {_watts(reading.power_w)}",
        f"limit {_watts(limits.now_w)} of {_watts(limits.min_w)} to {_watts(limits.max_w)}",
    ]
    if limits.is_held_lower_by_another:
        parts.append(f"held at {_watts(limits.enforced_w)} by another")
    unread = sorted(name for name, why in reading.unread().items() if why.why != "not_asked")
    if unread:
        parts.append(f"not readable: {', '.join(unread)}")
    return ", ".join(parts)


def _watts(value: float | Unread) -> str:
    return f"unknown ({value.why.value})" if isinstance(value, Unread) else f"{value:.0f} W"


def _word(file: Path) -> str:
    try:
        return file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
