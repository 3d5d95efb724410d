"""AMD's GPUs of this host through AMD SMI, by way of `amdsmi`.

Limits are microwatts there, power watts, energy a count of a resolution in microjoules. Written
from the source of amdsmi 7.0.2 and its documentation; no AMD machine was within reach.
"""

import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from typing import Any, Final

from interlock_servers.devices import COMPONENT
from interlock_servers.devices.device import (
    MOST_POSSIBLE_W,
    CannotReadError,
    GpuDevice,
    GpuHost,
    RefusedError,
    try_read,
)
from interlock_servers.devices.models import (
    Ecc,
    EventReason,
    GpuIdentity,
    GpuReading,
    PowerLimits,
    Unread,
    Vendor,
    Why,
    finite,
)
from interlock_tools.clock import Clock
from interlock_tools.errors import ComponentError, UnavailableError

MODULE: Final = "amdsmi"
NOT_AVAILABLE: Final = "N/A"
POWER_SENSOR: Final = 0
COLDEST_C, HOTTEST_C = -40.0, 200.0

READS: Final = frozenset(
    {
        "amdsmi_init",
        "amdsmi_shut_down",
        "amdsmi_get_processor_handles",
        "amdsmi_get_gpu_device_uuid",
        "amdsmi_get_gpu_device_bdf",
        "amdsmi_get_gpu_asic_info",
        "amdsmi_get_gpu_board_info",
        "amdsmi_get_gpu_driver_info",
        "amdsmi_get_power_cap_info",
        "amdsmi_get_power_info",
        "amdsmi_get_energy_count",
        "amdsmi_get_temp_metric",
        "amdsmi_get_violation_status",
        "amdsmi_get_gpu_total_ecc_count",
        "amdsmi_get_gpu_xgmi_link_status",
    }
)
WRITES: Final = frozenset({"amdsmi_set_power_cap"})

_WHY_OF_ERROR: Final = {
    2: Why.NOT_SUPPORTED,
    3: Why.NOT_SUPPORTED,  # not yet implemented
    10: Why.NO_PERMISSION,
    31: Why.LOST,  # device not found
    40: Why.NOT_SUPPORTED,  # no data
    55: Why.NOT_SUPPORTED,  # setting unavailable
}
# What is active now, as the reason of NVML that says the same.
_ACTIVE: Final = {
    "active_ppt_pwr": EventReason.SW_POWER_CAP,
    "active_socket_thrm": EventReason.HW_SLOWDOWN | EventReason.HW_THERMAL,
    "active_hbm_thrm": EventReason.HW_SLOWDOWN | EventReason.HW_THERMAL,
    "active_vr_thrm": EventReason.HW_SLOWDOWN | EventReason.HW_THERMAL,
    "active_prochot_thrm": EventReason.HW_SLOWDOWN | EventReason.HW_THERMAL,
}


def load_library() -> Any:
    """The library of Python; importing it loads `libamd_smi.so`.

    Raises:
        UnavailableError: it, or the library of ROCm below it, is not installed.
    """
    said = io.StringIO()
    try:
        with redirect_stdout(said):  # without ROCm it prints, and then fails with a KeyError
            return importlib.import_module(MODULE)
    except ImportError:
        why = "amdsmi is not installed; install interlock-dsx[amd]"
    except (KeyError, OSError, AttributeError) as error:
        first = said.getvalue().strip().splitlines() or [repr(error)]
        why = f"libamd_smi.so of ROCm is not on this machine ({first[0]})"
    raise UnavailableError(f"AMD SMI: {why}")


class AmdSmiHost(GpuHost):
    """Every GPU that AMD SMI shows on this host."""

    def __init__(self, clock: Clock, library: Any = None) -> None:
        """Open the driver.

        Args:
            clock: stamps what is read.
            library: what has the functions of `amdsmi`; by default that itself.

        Raises:
            UnavailableError: library or driver are not there; says which.
            ComponentError: they are there and failed.
        """
        self._library = load_library() if library is None else library
        try:
            self._library.amdsmi_init()
        except self._library.AmdSmiException as error:
            raise UnavailableError(f"AMD SMI: {_said(error)}") from None
        try:
            handles = self._library.amdsmi_get_processor_handles()
        except self._library.AmdSmiException as error:
            self.close()
            raise ComponentError(COMPONENT, "AMD_SMI", _said(error)) from None
        self._devices = tuple(
            AmdSmiDevice(self._library, handle, index, clock)
            for index, handle in enumerate(handles)
        )
        version = self._devices[0].driver_version() if self._devices else "unknown"
        self.says = f"AMD SMI, driver {version}"

    def devices(self) -> Sequence["AmdSmiDevice"]:
        """The GPUs, by index."""
        return self._devices

    def close(self) -> None:
        """Let the library go; what it says to that changes nothing."""
        with suppress(self._library.AmdSmiException):
            self._library.amdsmi_shut_down()


class AmdSmiDevice(GpuDevice):
    """One GPU behind AMD SMI."""

    def __init__(self, library: Any, handle: Any, index: int, clock: Clock) -> None:
        self._library = library
        self._handle = handle
        self._clock = clock
        board = try_read(lambda: self._ask("amdsmi_get_gpu_board_info"))
        asic = try_read(lambda: self._ask("amdsmi_get_gpu_asic_info"))
        self.identity = GpuIdentity(
            index=index,
            vendor=Vendor.AMD,
            uuid=try_read(lambda: str(self._ask("amdsmi_get_gpu_device_uuid"))),
            serial=_first(_text(board, "product_serial"), _text(asic, "asic_serial")),
            model=_first(_text(asic, "market_name"), _text(board, "product_name")),
            bus_id=try_read(lambda: str(self._ask("amdsmi_get_gpu_device_bdf"))),
        )

    def driver_version(self) -> str:
        """As its driver says."""
        info = try_read(lambda: self._ask("amdsmi_get_gpu_driver_info"))
        version = _text(info, "driver_version")
        return "unknown" if isinstance(version, Unread) else version

    def limits(self) -> PowerLimits:
        """Its limits. AMD SMI tells no other limit than its own."""
        cap = try_read(lambda: self._ask("amdsmi_get_power_cap_info"))
        return PowerLimits(
            now_w=_limit_w(cap, "power_cap"),
            default_w=_limit_w(cap, "default_power_cap"),
            min_w=_limit_w(cap, "min_power_cap"),
            max_w=_limit_w(cap, "max_power_cap"),
        )

    def command_limit_w(self, limit_w: float) -> None:
        """Ask for a limit, in whole microwatts.

        Raises:
            RefusedError: AMD SMI said no.
        """
        try:
            self._library.amdsmi_set_power_cap(
                self._handle, POWER_SENSOR, round(limit_w * 1_000_000)
            )
        except self._library.AmdSmiException as error:
            raise RefusedError(f"AMD SMI: {_said(error)}") from None

    def read(self) -> GpuReading:
        """Everything that it has in common with others.

        Its violation counters count samples, not seconds, and are left out; what is active now is
        there as events.
        """
        power = try_read(lambda: self._ask("amdsmi_get_power_info"))
        kinds = self._library.AmdSmiTemperatureType
        return GpuReading(
            identity=self.identity,
            observed_at=self._clock.now(),
            limits=self.limits(),
            power_average_w=_watts(power, "average_socket_power"),
            power_instant_w=_first(
                _watts(power, "current_socket_power"), _watts(power, "socket_power")
            ),
            energy_j=try_read(self._energy_j),
            events=try_read(self._events),
            temperature_c=self._temperature_c(kinds.HOTSPOT),
            memory_temperature_c=self._temperature_c(kinds.VRAM),
            xids=Unread(Why.NOT_SUPPORTED, "XIDs are NVIDIA's"),
            ecc=self._ecc(),
            links_up=try_read(self._links_up),
        )

    def _energy_j(self) -> float:
        count = self._ask("amdsmi_get_energy_count")
        return float(count["energy_accumulator"]) * float(count["counter_resolution"]) / 1e6

    def _events(self) -> EventReason:
        status = self._ask("amdsmi_get_violation_status")
        told = {name: status.get(name, NOT_AVAILABLE) for name in _ACTIVE}
        if all(value == NOT_AVAILABLE for value in told.values()):
            raise CannotReadError(Unread(Why.NOT_SUPPORTED, "no violation status"))
        events = EventReason(0)
        for name, value in told.items():
            if value != NOT_AVAILABLE and bool(value):
                events |= _ACTIVE[name]
        return events

    def _temperature_c(self, kind: Any) -> float | Unread:
        now = self._library.AmdSmiTemperatureMetric.CURRENT
        celsius = try_read(lambda: float(self._ask("amdsmi_get_temp_metric", kind, now)))
        return finite(celsius, COLDEST_C, HOTTEST_C)

    def _ecc(self) -> Ecc:
        count = try_read(lambda: self._ask("amdsmi_get_gpu_total_ecc_count"))
        if isinstance(count, Unread):
            return Ecc(corrected=count, uncorrected=count)
        return Ecc(
            corrected=int(count["correctable_count"]), uncorrected=int(count["uncorrectable_count"])
        )

    def _links_up(self) -> tuple[bool, ...]:
        """Links that are up or down; those that are switched off, or not told, are no links."""
        status = self._ask("amdsmi_get_gpu_xgmi_link_status")["status"]
        return tuple(state == "U" for state in status if state in ("U", "D"))

    def _ask(self, name: str, *arguments: Any) -> Any:
        call: Callable[..., Any] | None = getattr(self._library, name, None)
        if call is None:  # an older library
            raise CannotReadError(Unread(Why.NOT_SUPPORTED, f"no {name}"))
        try:
            answer = call(self._handle, *arguments)
        except self._library.AmdSmiException as error:
            why = _WHY_OF_ERROR.get(getattr(error, "err_code", None) or 0, Why.FAILED)
            raise CannotReadError(Unread(why, _said(error))) from None
        if answer == NOT_AVAILABLE:
            raise CannotReadError(Unread(Why.NOT_SUPPORTED, NOT_AVAILABLE))
        return answer


def _said(error: Exception) -> str:
    """The library's words in one line."""
    info = getattr(error, "err_info", None) or str(error)
    return " ".join(str(info).split())


def _number(answer: Mapping[str, Any] | Unread, name: str) -> float | Unread:
    """A number by name; `N/A` is a string in the place of one."""
    if isinstance(answer, Unread):
        return answer
    value = answer.get(name, NOT_AVAILABLE)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Unread(Why.NOT_SUPPORTED, f"{name} is {value!r}")
    return float(value)


def _text(answer: Mapping[str, Any] | Unread, name: str) -> str | Unread:
    if isinstance(answer, Unread):
        return answer
    value = answer.get(name, NOT_AVAILABLE)
    if not isinstance(value, str) or value in ("", NOT_AVAILABLE):
        return Unread(Why.NOT_SUPPORTED, f"{name} is {value!r}")
    return value


def _limit_w(answer: Mapping[str, Any] | Unread, name: str) -> float | Unread:
    """A limit in watts. On a host of virtual machines the library gives watts: that is not guessed.

    500 microwatts are no limit of a GPU, so what comes in watts is told as implausible.
    """
    microwatts = _number(answer, name)
    if isinstance(microwatts, Unread):
        return microwatts
    return finite(microwatts / 1e6, 1.0, MOST_POSSIBLE_W)


def _watts(answer: Mapping[str, Any] | Unread, name: str) -> float | Unread:
    """Power in watts; the greatest number of its width means that there is none."""
    return finite(_number(answer, name), 0.0, MOST_POSSIBLE_W)


def _first(one: Any, other: Any) -> Any:
    """The first that is known; where neither is, why the first is not."""
    return other if isinstance(one, Unread) and not isinstance(other, Unread) else one
