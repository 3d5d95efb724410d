"""What `import amdsmi` would give on a host of the plant: the same functions, errors and units.

Written from amdsmi 7.0.2 as its own reading of it: limits in microwatts, `N/A` as text where a
number should be, energy as a count with its resolution.
"""

from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from interlock_servers.devices.twin import GpuFault, HostTwin, RawGpu

RESOLUTION_UJ = 15.259
LINKS = 7
_NAMES = {
    1: "AMDSMI_STATUS_INVAL - Invalid parameters",
    2: "AMDSMI_STATUS_NOT_SUPPORTED - Feature not supported",
    10: "AMDSMI_STATUS_NO_PERM - Permission Denied",
    31: "AMDSMI_STATUS_NOT_FOUND - Device Not found",
    32: "AMDSMI_STATUS_NOT_INIT - Device not initialized",
}


class AmdSmiException(Exception):  # noqa: N818 (the library's own name, as the next)
    """Base of the library's errors."""


class AmdSmiLibraryException(AmdSmiException):
    """It carries the code as `err_code` and words as `err_info`."""

    def __init__(self, err_code: int) -> None:
        super().__init__(err_code)
        self.err_code = err_code
        self.err_info = _NAMES[err_code]

    def __str__(self) -> str:
        return f"Error code:\n\t{self.err_code} | {self.err_info}"


class AmdSmiTemperatureType(IntEnum):
    """Where."""

    EDGE = 0
    HOTSPOT = 1
    VRAM = 2


class AmdSmiTemperatureMetric(IntEnum):
    """When."""

    CURRENT = 0


class AmdSmiTwin:
    """A stand-in for the module `amdsmi`, over one host of the plant."""

    AmdSmiException = AmdSmiException
    AmdSmiLibraryException = AmdSmiLibraryException
    AmdSmiTemperatureType = AmdSmiTemperatureType
    AmdSmiTemperatureMetric = AmdSmiTemperatureMetric

    def __init__(self, host: HostTwin) -> None:
        self.host = host
        self.is_open = False

    def amdsmi_init(self) -> None:
        """Open the driver."""
        self.is_open = True

    def amdsmi_shut_down(self) -> None:
        """Close it."""
        self.is_open = False

    def amdsmi_get_processor_handles(self) -> list[Any]:
        """Opaque handles."""
        self._check_open()
        return [SimpleNamespace(index=index) for index in range(len(self.host.gpus))]

    def amdsmi_get_gpu_device_uuid(self, processor_handle: Any) -> str:
        """The same at every start."""
        self._raw(processor_handle)
        gpu = self.host.gpus[processor_handle.index]
        return f"{gpu:02x}ff74a1-0000-1000-80{gpu:02x}-0123456789ab"

    def amdsmi_get_gpu_device_bdf(self, processor_handle: Any) -> str:
        """Its place on the bus."""
        self._raw(processor_handle)
        return f"0000:{5 + 0x10 * processor_handle.index:02x}:00.0"

    def amdsmi_get_gpu_asic_info(self, processor_handle: Any) -> dict[str, Any]:
        """What chip it is."""
        self._raw(processor_handle)
        return {
            "market_name": "AMD Instinct MI300X",
            "vendor_name": "Advanced Micro Devices Inc. [AMD/ATI]",
            "asic_serial": f"0x{0xABC0 + self.host.gpus[processor_handle.index]:016X}",
        }

    def amdsmi_get_gpu_board_info(self, processor_handle: Any) -> dict[str, Any]:
        """What board it is on; unknown text is `N/A`."""
        self._raw(processor_handle)
        return {"product_serial": "N/A", "product_name": "N/A", "model_number": "N/A"}

    def amdsmi_get_gpu_driver_info(self, processor_handle: Any) -> dict[str, Any]:
        """Its driver."""
        self._raw(processor_handle)
        return {"driver_name": "amdgpu", "driver_version": "6.16.6", "driver_date": "N/A"}

    def amdsmi_get_power_cap_info(self, processor_handle: Any) -> dict[str, int]:
        """Microwatts."""
        raw = self._raw(processor_handle)
        if self.host.has(processor_handle.index, GpuFault.NO_RANGE):
            raise AmdSmiLibraryException(2)
        return {
            "power_cap": round(raw.cap_set_w * 1e6),
            "default_power_cap": round(raw.cap_max_w * 1e6),
            "dpm_cap": 0,
            "min_power_cap": round(raw.cap_min_w * 1e6),
            "max_power_cap": round(raw.cap_max_w * 1e6),
        }

    def amdsmi_set_power_cap(self, processor_handle: Any, sensor_ind: int, cap: int) -> None:
        """Microwatts; root only."""
        raw, gpu = self._raw(processor_handle), processor_handle.index
        if self.host.has(gpu, GpuFault.NO_PERMISSION):
            raise AmdSmiLibraryException(10)
        if self.host.has(gpu, GpuFault.REFUSES):
            raise AmdSmiLibraryException(2)
        if sensor_ind or not raw.cap_min_w <= cap / 1e6 <= raw.cap_max_w:
            raise AmdSmiLibraryException(1)
        self.host.set_limit_w(gpu, cap / 1e6)

    def amdsmi_get_power_info(self, processor_handle: Any) -> dict[str, Any]:
        """Watts; this generation has no average."""
        raw = self._raw(processor_handle)
        return {
            "socket_power": round(raw.power_w),
            "current_socket_power": round(raw.power_w),
            "average_socket_power": "N/A",
            "power_limit": round(raw.cap_set_w),
        }

    def amdsmi_get_energy_count(self, processor_handle: Any) -> dict[str, Any]:
        """A count, and microjoules of each."""
        energy_j = self._raw(processor_handle).energy_j
        return {
            "energy_accumulator": round(energy_j * 1e6 / RESOLUTION_UJ),
            "counter_resolution": RESOLUTION_UJ,
            "timestamp": 0,
        }

    def amdsmi_get_temp_metric(self, processor_handle: Any, sensor_type: Any, metric: Any) -> int:
        """Degrees."""
        raw = self._raw(processor_handle)
        if metric or sensor_type is self.AmdSmiTemperatureType.EDGE:
            raise AmdSmiLibraryException(2)
        is_core = sensor_type is self.AmdSmiTemperatureType.HOTSPOT
        return round(raw.core_c if is_core else raw.memory_c)

    def amdsmi_get_violation_status(self, processor_handle: Any) -> dict[str, Any]:
        """What is active; counts of samples, not seconds."""
        raw = self._raw(processor_handle)
        if self.host.has(processor_handle.index, GpuFault.NO_COUNTERS):
            return dict.fromkeys(
                ("active_ppt_pwr", "active_socket_thrm", "active_prochot_thrm"), "N/A"
            )
        return {
            "acc_counter": 1000,
            "active_ppt_pwr": raw.is_capped,
            "active_socket_thrm": raw.is_hot,
            "active_vr_thrm": False,
            "active_hbm_thrm": "N/A",
            "active_prochot_thrm": False,
        }

    def amdsmi_get_gpu_total_ecc_count(self, processor_handle: Any) -> dict[str, int]:
        """Errors by kind."""
        self._raw(processor_handle)
        corrected, uncorrected = self.host.ecc(processor_handle.index)
        return {
            "correctable_count": corrected,
            "uncorrectable_count": uncorrected,
            "deferred_count": 0,
        }

    def amdsmi_get_gpu_xgmi_link_status(self, processor_handle: Any) -> dict[str, Any]:
        """`U`, `D`, and `X` for the one to itself."""
        self._raw(processor_handle)
        status = ["U"] * LINKS
        if self.host.has(processor_handle.index, GpuFault.LINK_DOWN):
            status[3] = "D"
        status.insert(processor_handle.index, "X")
        return {"status": status, "total_links": LINKS + 1}

    def _check_open(self) -> None:
        if not self.is_open:
            raise AmdSmiLibraryException(32)

    def _raw(self, handle: Any) -> RawGpu:
        self._check_open()
        self.host.wait_if_hung(handle.index)
        raw = self.host.raw(handle.index)
        if not raw.is_lit:
            raise AmdSmiLibraryException(31)
        return raw
