"""What `import pynvml` would give on a host of the plant: the same functions, errors and units.

Written from nvidia-ml-py 13.615.71 as its own reading of it: milliwatts, millijoules, nanoseconds,
codes of return, a union for each field, handles that are opaque.
"""

import ctypes
from types import SimpleNamespace
from typing import Any

from interlock_servers.devices.twin import GpuFault, HostTwin, RawGpu

_NAMES = {
    1: "Uninitialized",
    2: "Invalid Argument",
    3: "Not Supported",
    4: "Insufficient Permissions",
    10: "Timeout",
    15: "GPU is lost",
}
LINKS = 18


class NVMLError(Exception):
    """As the library's: it carries the code as `value`."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return _NAMES.get(self.value, f"NVML Error with code {self.value}")


class Mask255(ctypes.Structure):
    """As the library's: 255 bits in words of 32."""

    _fields_ = (("mask", ctypes.c_uint * 8),)


class CurrentProfiles(ctypes.Structure):
    """As the library's, filled by the call that is given it."""

    _fields_ = (
        ("version", ctypes.c_uint),
        ("perfProfilesMask", Mask255),
        ("requestedProfilesMask", Mask255),
        ("enforcedProfilesMask", Mask255),
    )


class NvmlTwin:
    """A stand-in for the module `pynvml`, over one host of the plant.

    Attributes:
        is_open: whether the library was initialised and not shut down.
        dropped: what `nvmlDeviceSetPowerManagementLimit_v2` was answered and did not pass on.
    """

    NVMLError = NVMLError
    c_nvmlWorkloadPowerProfileCurrentProfiles_v1_t = CurrentProfiles  # noqa: N815 (its name)

    def __init__(self, host: HostTwin) -> None:
        self.host = host
        self.is_open = False
        self.dropped: list[int] = []

    # ── the library ───────────────────────────────────────────────────────────────────────────

    def nvmlInit(self) -> None:  # noqa: N802 (the library's own names, here and below)
        """Open the driver."""
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Close it."""
        self._check_open()
        self.is_open = False

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        """Its version."""
        return "580.95.05"

    def nvmlSystemGetNVMLVersion(self) -> str:  # noqa: N802
        """The library's version."""
        return "13.580.95.05"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """How many GPUs."""
        self._check_open()
        return len(self.host.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        """An opaque handle."""
        self._check_open()
        if not 0 <= index < len(self.host.gpus):
            raise NVMLError(2)
        if self.host.has(index, GpuFault.LOST):
            raise NVMLError(15)
        return SimpleNamespace(index=index)

    # ── who it is ─────────────────────────────────────────────────────────────────────────────

    def nvmlDeviceGetIndex(self, handle: Any) -> int:  # noqa: N802
        """Its place."""
        self._raw(handle)
        return int(handle.index)

    def nvmlDeviceGetUUID(self, handle: Any) -> str:  # noqa: N802
        """The same at every start."""
        self._raw(handle)
        return f"GPU-{self.host.node_id}-{handle.index}"

    def nvmlDeviceGetSerial(self, handle: Any) -> str:  # noqa: N802
        """Of the board."""
        self._raw(handle)
        return f"165{self.host.gpus[handle.index]:07d}"

    def nvmlDeviceGetName(self, handle: Any) -> str:  # noqa: N802
        """The model."""
        self._raw(handle)
        return f"NVIDIA {self.host.plant.site.gpu.model}"

    def nvmlDeviceGetPciInfo(self, handle: Any) -> Any:  # noqa: N802
        """A structure whose text is bytes."""
        self._raw(handle)
        return SimpleNamespace(busId=f"00000000:{0x18 + 8 * handle.index:02X}:00.0".encode())

    # ── power ─────────────────────────────────────────────────────────────────────────────────

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:  # noqa: N802
        """Milliwatts."""
        return round(self._raw(handle).power_w * 1000)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:  # noqa: N802
        """Millijoules."""
        return round(self._raw(handle).energy_j * 1000)

    def nvmlDeviceGetPowerManagementLimit(self, handle: Any) -> int:  # noqa: N802
        """Milliwatts."""
        return round(self._raw(handle).cap_set_w * 1000)

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: Any) -> int:  # noqa: N802
        """Milliwatts."""
        return round(self._raw(handle).cap_max_w * 1000)

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle: Any) -> list[int]:  # noqa: N802
        """Least and greatest, in milliwatts."""
        raw = self._raw(handle)
        if self.host.has(handle.index, GpuFault.NO_RANGE):
            raise NVMLError(3)
        return [round(raw.cap_min_w * 1000), round(raw.cap_max_w * 1000)]

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int:  # noqa: N802
        """The lowest of all limits, in milliwatts."""
        raw = self._raw(handle)
        limits_w = [raw.cap_set_w, raw.cap_max_w]
        if raw.bmc_cap_w is not None:
            limits_w.append(raw.bmc_cap_w)
        return round(min(limits_w) * 1000)

    def nvmlDeviceSetPowerManagementLimit(self, handle: Any, limit: int) -> None:  # noqa: N802
        """Milliwatts; root only."""
        code = self._set(handle, limit)
        if code:
            raise NVMLError(code)

    def nvmlDeviceSetPowerManagementLimit_v2(  # noqa: N802
        self,
        device: Any,
        powerScope: int,  # noqa: N803
        powerLimit: int,  # noqa: N803
    ) -> int:
        """Always success, whatever the driver said: so does the library's own wrapper."""
        self.dropped.append(2 if powerScope else self._set(device, powerLimit))
        return 0

    def _set(self, handle: Any, limit: int) -> int:
        raw, gpu = self._raw(handle), handle.index
        if self.host.has(gpu, GpuFault.NO_PERMISSION):
            return 4
        if not raw.cap_min_w <= limit / 1000 <= raw.cap_max_w:
            return 2
        if self.host.has(gpu, GpuFault.REFUSES):
            return 3
        self.host.set_limit_w(gpu, limit / 1000)
        return 0

    # ── why it is slow ────────────────────────────────────────────────────────────────────────

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any) -> int:  # noqa: N802
        """Bits."""
        raw, gpu = self._raw(handle), handle.index
        bits = 0x1 if raw.is_idle else 0
        bits |= 0x4 if raw.is_capped else 0
        bits |= 0x8 if raw.is_hot or raw.is_braked else 0
        bits |= 0x10 if self.host.has(gpu, GpuFault.SYNC_BOOST) else 0
        bits |= 0x40 if raw.is_hot else 0
        return bits | (0x80 if raw.is_braked else 0)

    def nvmlDeviceGetFieldValues(  # noqa: N802
        self,
        handle: Any,
        fieldIds: Any,  # noqa: N803
    ) -> list[Any]:
        """Each with a return code of its own."""
        raw = self._raw(handle)
        return [self._field(raw, handle.index, number) for number in fieldIds]

    def _field(self, raw: RawGpu, gpu: int, number: int) -> Any:
        held = self.host.held_s
        watts = {185: raw.power_w, 186: raw.instant_w, 192: raw.cap_set_w}
        counters_s = {
            74: held(gpu, "cap"),
            75: held(gpu, "heat"),
            76: held(gpu, "sync"),
            77: 0.0,
            79: held(gpu, "reliability"),
            80: held(gpu, "cap") + held(gpu, "heat"),
            269: 0.0,
            270: held(gpu, "heat"),
            271: held(gpu, "brake"),
        }
        less = self.host.has(gpu, GpuFault.NO_COUNTERS)
        if number in watts and not (less and number != 192):
            return _value(number, 1, uiVal=round(watts[number] * 1000))
        if number in counters_s and not less:
            return _value(number, 3, ullVal=round(counters_s[number] * 1e9))
        if number == 82:
            return _value(number, 1, uiVal=round(raw.memory_c))
        # what it has not: the code says so, and the value looks like a zero
        return _value(number, 0, code=3, dVal=0.0)

    def nvmlDeviceGetTemperatureV(self, handle: Any, sensor: int) -> int:  # noqa: N802
        """Degrees of the core."""
        if sensor:
            raise NVMLError(3)
        return round(self._raw(handle).core_c)

    # ── its health ────────────────────────────────────────────────────────────────────────────

    def nvmlDeviceGetEccMode(self, handle: Any) -> list[int]:  # noqa: N802
        """Now, and after the next reset."""
        self._raw(handle)
        return [1, 1]

    def nvmlDeviceGetTotalEccErrors(  # noqa: N802
        self,
        handle: Any,
        errorType: int,  # noqa: N803
        counterType: int,  # noqa: N803
    ) -> int:
        """Corrected 0, uncorrected 1; the same since the load and ever."""
        self._raw(handle)
        del counterType
        return self.host.ecc(handle.index)[errorType]

    def nvmlDeviceGetRemappedRows(self, device: Any) -> tuple[int, int, int, int]:  # noqa: N802
        """Corrected, uncorrected, pending, failed."""
        self._raw(device)
        return 0, 0, 0, int(self.host.has(device.index, GpuFault.ROW_REMAP_FAILED))

    def nvmlDeviceGetNvLinkState(self, device: Any, link: int) -> int:  # noqa: N802
        """Up or not."""
        self._raw(device)
        if not 0 <= link < LINKS:
            raise NVMLError(2)
        return int(not (self.host.has(device.index, GpuFault.LINK_DOWN) and link == 3))

    def nvmlDeviceGetMigMode(self, device: Any) -> list[int]:  # noqa: N802
        """Now, and after the next reset."""
        self._raw(device)
        return [0, 0]

    def nvmlDeviceWorkloadPowerProfileGetCurrentProfiles(  # noqa: N802
        self,
        device: Any,
        currentProfiles: Any,  # noqa: N803
    ) -> int:
        """Fills the structure that it is given."""
        self._raw(device)
        requested, enforced = self.host.profiles
        if requested is None:
            raise NVMLError(3)
        for name, profiles in (("requested", requested), ("enforced", enforced or ())):
            mask = getattr(currentProfiles._obj, f"{name}ProfilesMask").mask
            for profile in profiles:
                mask[profile // 32] |= 1 << profile % 32
        return 0

    # ── events ────────────────────────────────────────────────────────────────────────────────

    def nvmlEventSetCreate(self) -> Any:  # noqa: N802
        """A set that devices are registered with."""
        self._check_open()
        return SimpleNamespace(registered={})

    def nvmlEventSetFree(self, eventSet: Any) -> None:  # noqa: N802, N803
        """Forget it."""
        eventSet.registered.clear()

    def nvmlDeviceGetSupportedEventTypes(self, handle: Any) -> int:  # noqa: N802
        """Bits; XIDs are 0x8."""
        self._raw(handle)
        return 0x1F

    def nvmlDeviceRegisterEvents(  # noqa: N802
        self,
        handle: Any,
        eventTypes: int,  # noqa: N803
        eventSet: Any,  # noqa: N803
    ) -> None:
        """Be told of them."""
        eventSet.registered[handle.index] = eventTypes

    def nvmlEventSetWait_v2(self, eventSet: Any, timeoutms: int) -> Any:  # noqa: N802, N803
        """The next event, or a timeout; the twin never waits."""
        del timeoutms
        for gpu, kinds in eventSet.registered.items():
            if kinds & 0x8 and (code := self.host.take_xid(gpu)) is not None:
                device = SimpleNamespace(index=gpu)
                return SimpleNamespace(device=device, eventType=0x8, eventData=code)
        raise NVMLError(10)

    # ── inside ────────────────────────────────────────────────────────────────────────────────

    def _check_open(self) -> None:
        if not self.is_open:
            raise NVMLError(1)

    def _raw(self, handle: Any) -> RawGpu:
        self._check_open()
        self.host.wait_if_hung(handle.index)
        raw = self.host.raw(handle.index)
        if not raw.is_lit:
            raise NVMLError(15)
        return raw


def _value(number: int, kind: int, *, code: int = 0, **member: float) -> Any:
    """One field: the union has every member, and only that of its type is set."""
    union = dict.fromkeys(("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal"), 0)
    return SimpleNamespace(
        fieldId=number,
        scopeId=0,
        timestamp=0,
        latencyUsec=0,
        valueType=kind,
        nvmlReturn=code,
        value=SimpleNamespace(**(union | member)),
    )
