"""NVIDIA's GPUs of this host through NVML, by way of `nvidia-ml-py`.

NVML counts power in milliwatts, energy in millijoules and violations in nanoseconds; nothing
outside this module sees those.
"""

import importlib
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final

from interlock_servers.devices import COMPONENT
from interlock_servers.devices import nvml_names as nvml
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
    MigMode,
    PowerLimits,
    RemappedRows,
    Unread,
    Vendor,
    Why,
    Xid,
    finite,
)
from interlock_tools.clock import Clock
from interlock_tools.errors import ComponentError, UnavailableError

MODULE: Final = "pynvml"
DISTRIBUTION: Final = "nvidia-ml-py"
MAX_XIDS = 16  # the last ones of each GPU
MAX_EVENTS = 64  # drained at one look, so that a storm of them cannot hold a read up
COLDEST_C, HOTTEST_C = -40.0, 200.0
MOST_GPUS = 64


def load_library() -> Any:
    """The library of Python, without opening the driver.

    Raises:
        UnavailableError: it is not installed.
    """
    try:
        return importlib.import_module(MODULE)
    except ImportError:
        raise UnavailableError(
            f"NVML: {DISTRIBUTION} is not installed; install interlock-dsx[nvidia]"
        ) from None


class NvmlHost(GpuHost):
    """Every GPU that NVML shows on this host."""

    def __init__(self, clock: Clock, library: Any = None) -> None:
        """Open the driver.

        Args:
            clock: stamps what is read.
            library: what has the functions of `pynvml`; by default that itself.

        Raises:
            UnavailableError: library or driver are not there; says which.
        """
        self._clock = clock
        self._library = load_library() if library is None else library
        try:
            self._library.nvmlInit()
        except self._library.NVMLError as error:
            raise _not_there(error) from None
        self.says = f"NVML {self._version('nvmlSystemGetNVMLVersion')}, driver " + self._version(
            "nvmlSystemGetDriverVersion"
        )
        self._events: Any = None
        self._xids: dict[int, deque[Xid]] = defaultdict(lambda: deque(maxlen=MAX_XIDS))
        self._no_events: dict[int, Unread] = {}
        try:
            self._devices = self._open()
        except self._library.NVMLError as error:
            self.close()
            raise ComponentError(COMPONENT, f"NVML_{error.value}", str(error)) from None

    def devices(self) -> Sequence["NvmlDevice"]:
        """The GPUs, by index."""
        return self._devices

    def close(self) -> None:
        """Let the library go; what it says to that changes nothing."""
        with suppress(self._library.NVMLError):
            if self._events is not None:
                self._library.nvmlEventSetFree(self._events)
        with suppress(self._library.NVMLError):
            self._library.nvmlShutdown()

    def xids_of(self, index: int) -> tuple[Xid, ...] | Unread:
        """The last XIDs of one GPU since the host was opened, oldest first."""
        if index in self._no_events:
            return self._no_events[index]
        self._drain()
        return tuple(self._xids[index])

    def _open(self) -> tuple["NvmlDevice", ...]:
        count = self._library.nvmlDeviceGetCount()
        if not 0 <= count <= MOST_GPUS:
            raise ComponentError(COMPONENT, "BAD_COUNT", f"NVML counts {count} GPUs")
        devices = []
        for index in range(count):
            try:
                handle = self._library.nvmlDeviceGetHandleByIndex(index)
            except self._library.NVMLError as error:
                # one that has no handle is not passed over: it is there, and says nothing
                handle = _NoHandle(error)
            devices.append(NvmlDevice(self, self._library, handle, index, self._clock))
        self._register(devices)
        return tuple(devices)

    def _register(self, devices: Sequence["NvmlDevice"]) -> None:
        """Ask to be told of XIDs; a device that does not tell them says so at each reading."""
        library = self._library
        try:
            self._events = library.nvmlEventSetCreate()
        except library.NVMLError as error:
            self._no_events = {device.identity.index: _unread(error) for device in devices}
            return
        for device in devices:
            try:
                kinds = library.nvmlDeviceGetSupportedEventTypes(device.handle)
                if not kinds & nvml.XID_EVENT:
                    self._no_events[device.identity.index] = Unread(Why.NOT_SUPPORTED)
                    continue
                library.nvmlDeviceRegisterEvents(device.handle, nvml.XID_EVENT, self._events)
            except library.NVMLError as error:
                self._no_events[device.identity.index] = _unread(error)

    def _drain(self) -> None:
        """Take the events that are there, without waiting for one."""
        library = self._library
        for _ in range(MAX_EVENTS):
            try:
                event = library.nvmlEventSetWait_v2(self._events, 0)
            except library.NVMLError:  # a timeout: there is none
                return
            if event.eventType != nvml.XID_EVENT:
                continue
            xid = Xid(int(event.eventData), self._clock.now())
            for index in self._whose(event.device):
                self._xids[index].append(xid)

    def _whose(self, handle: Any) -> list[int]:
        """Whose event it is; of a GPU that is gone it can no longer be asked, so of all gone."""
        try:
            return [int(self._library.nvmlDeviceGetIndex(handle))]
        except self._library.NVMLError:
            return [device.identity.index for device in self._devices if device.is_gone()]

    def _version(self, name: str) -> str:
        try:
            return str(getattr(self._library, name)())
        except self._library.NVMLError as error:
            return f"unknown ({error})"


class NvmlDevice(GpuDevice):
    """One GPU behind NVML."""

    def __init__(self, host: NvmlHost, library: Any, handle: Any, index: int, clock: Clock) -> None:
        self._host = host
        self._library = library
        self.handle = handle
        self._clock = clock
        self.identity = GpuIdentity(
            index=index,
            vendor=Vendor.NVIDIA,
            uuid=self._text("nvmlDeviceGetUUID"),
            serial=self._text("nvmlDeviceGetSerial"),
            model=self._text("nvmlDeviceGetName"),
            bus_id=try_read(lambda: _as_text(self._ask("nvmlDeviceGetPciInfo").busId)),
        )

    def is_gone(self) -> bool:
        """Whether it has fallen off the bus."""
        answer = try_read(lambda: self._ask("nvmlDeviceGetIndex"))
        return isinstance(answer, Unread) and answer.why is Why.LOST

    def limits(self) -> PowerLimits:
        """Its limits, each by its own call."""
        return self._limits(self._fields((nvml.POWER_REQUESTED_LIMIT,)))

    def _limits(self, fields: Mapping[int, float | Unread]) -> PowerLimits:
        span = try_read(lambda: self._ask("nvmlDeviceGetPowerManagementLimitConstraints"))
        least, most = (span, span) if isinstance(span, Unread) else (span[0], span[1])
        return PowerLimits(
            now_w=self._watts("nvmlDeviceGetPowerManagementLimit"),
            default_w=self._watts("nvmlDeviceGetPowerManagementDefaultLimit"),
            min_w=_limit_w(least),
            max_w=_limit_w(most),
            enforced_w=self._watts("nvmlDeviceGetEnforcedPowerLimit"),
            requested_w=_limit_w(fields[nvml.POWER_REQUESTED_LIMIT]),
        )

    def command_limit_w(self, limit_w: float) -> None:
        """Ask for a limit, in whole milliwatts, by the call that tells when it is refused.

        The wrapper of the newer `..._v2` drops the library's answer and always says success.

        Raises:
            RefusedError: NVML said no.
        """
        if isinstance(self.handle, _NoHandle):
            raise RefusedError(f"NVML gives no handle of it: {self.handle.error}")
        try:
            self._library.nvmlDeviceSetPowerManagementLimit(self.handle, round(limit_w * 1000))
        except self._library.NVMLError as error:
            raise RefusedError(f"NVML: {error}") from None

    def read(self) -> GpuReading:
        """Everything; a field that is not supported does not hide the others."""
        fields = self._fields(nvml.FIELDS)
        instant_w = _draw_w(fields[nvml.POWER_INSTANT])
        if isinstance(instant_w, Unread):
            instant_w = _draw_w(try_read(lambda: float(self._ask("nvmlDeviceGetPowerUsage"))))
        violations = {
            kind: _seconds(fields[number]) for number, kind in nvml.VIOLATION_FIELDS.items()
        }
        return GpuReading(
            identity=self.identity,
            observed_at=self._clock.now(),
            limits=self._limits(fields),
            power_average_w=_draw_w(fields[nvml.POWER_AVERAGE]),
            power_instant_w=instant_w,
            energy_j=try_read(lambda: self._ask("nvmlDeviceGetTotalEnergyConsumption") / 1000.0),
            events=try_read(
                lambda: EventReason(self._ask("nvmlDeviceGetCurrentClocksEventReasons"))
            ),
            violations_s=MappingProxyType(violations),
            temperature_c=finite(try_read(self._temperature_c), COLDEST_C, HOTTEST_C),
            memory_temperature_c=finite(fields[nvml.MEMORY_TEMPERATURE], COLDEST_C, HOTTEST_C),
            xids=self._host.xids_of(self.identity.index),
            ecc=self._ecc(),
            remapped_rows=try_read(self._remapped_rows),
            links_up=try_read(self._links_up),
            mig=try_read(self._mig),
        )

    def _temperature_c(self) -> float:
        try:
            return float(self._ask("nvmlDeviceGetTemperatureV", nvml.TEMPERATURE_GPU))
        except CannotReadError as error:
            if error.unread.why is not Why.NOT_SUPPORTED:
                raise
        return float(self._ask("nvmlDeviceGetTemperature", nvml.TEMPERATURE_GPU))

    def _ecc(self) -> Ecc:
        def count(kind: int, since: int) -> int | Unread:
            return try_read(lambda: int(self._ask("nvmlDeviceGetTotalEccErrors", kind, since)))

        return Ecc(
            is_on=try_read(lambda: bool(self._ask("nvmlDeviceGetEccMode")[0])),
            corrected=count(nvml.CORRECTED, nvml.VOLATILE_ECC),
            uncorrected=count(nvml.UNCORRECTED, nvml.VOLATILE_ECC),
            corrected_ever=count(nvml.CORRECTED, nvml.AGGREGATE_ECC),
            uncorrected_ever=count(nvml.UNCORRECTED, nvml.AGGREGATE_ECC),
        )

    def _remapped_rows(self) -> RemappedRows:
        corrected, uncorrected, is_pending, has_failed = self._ask("nvmlDeviceGetRemappedRows")
        return RemappedRows(corrected, uncorrected, bool(is_pending), bool(has_failed))

    def _mig(self) -> MigMode:
        now, pending = self._ask("nvmlDeviceGetMigMode")
        return MigMode(bool(now), bool(pending))

    def _links_up(self) -> tuple[bool, ...]:
        """Links are counted until one is not there; a device without any has no such value."""
        up: list[bool] = []
        for link in range(nvml.MAX_LINKS):
            try:
                up.append(bool(self._ask("nvmlDeviceGetNvLinkState", link)))
            except CannotReadError as error:
                ends = error.code in (nvml.NOT_SUPPORTED, nvml.INVALID_ARGUMENT)
                if not up or not ends:
                    raise
                break
        return tuple(up)

    def _fields(self, ids: Sequence[int]) -> dict[int, float | Unread]:
        """Each field, by its own return code: one that fails says nothing of the others."""
        try:
            answers = self._ask("nvmlDeviceGetFieldValues", list(ids))
        except CannotReadError as error:
            return dict.fromkeys(ids, error.unread)
        found: dict[int, float | Unread] = dict.fromkeys(
            ids, Unread(Why.FAILED, "NVML left it out")
        )
        for answer in answers:
            if answer.fieldId not in found:
                continue
            if answer.nvmlReturn != nvml.SUCCESS:
                found[answer.fieldId] = _unread_code(answer.nvmlReturn, self._library)
                continue
            member = nvml.VALUE_MEMBERS.get(answer.valueType)
            found[answer.fieldId] = (
                float(getattr(answer.value, member))
                if member
                else Unread(Why.IMPLAUSIBLE, f"a value of unknown type {answer.valueType}")
            )
        return found

    def _watts(self, name: str) -> float | Unread:
        return _limit_w(try_read(lambda: float(self._ask(name))))

    def _text(self, name: str) -> str | Unread:
        return try_read(lambda: _as_text(self._ask(name)))

    def _ask(self, name: str, *arguments: Any) -> Any:
        """One call; its failure as `CannotReadError` with the library's own code."""
        if isinstance(self.handle, _NoHandle):
            raise _cannot(self.handle.error)
        call: Callable[..., Any] | None = getattr(self._library, name, None)
        if call is None:  # an older library
            raise CannotReadError(Unread(Why.NOT_SUPPORTED, f"no {name}"))
        try:
            return call(self.handle, *arguments)
        except self._library.NVMLError as error:
            raise _cannot(error) from None


class _NoHandle:
    """In place of a handle that NVML did not give."""

    def __init__(self, error: Any) -> None:
        self.error = error


def _cannot(error: Any) -> CannotReadError:
    return CannotReadError(_unread(error), code=int(error.value))


def _unread(error: Any) -> Unread:
    why = nvml.WHY_OF_ERROR.get(int(error.value), Why.FAILED)
    return Unread(why, str(error))


def _unread_code(code: int, library: Any) -> Unread:
    return _unread(library.NVMLError(code))


def _not_there(error: Any) -> UnavailableError:
    match int(error.value):
        case nvml.LIBRARY_NOT_FOUND:
            why = "libnvidia-ml.so.1 is not on this machine; there is no NVIDIA driver"
        case nvml.DRIVER_NOT_LOADED:
            why = "the NVIDIA driver is installed and not loaded"
        case nvml.NO_PERMISSION:
            why = "no permission to open the NVIDIA driver"
        case _:
            why = str(error)
    return UnavailableError(f"NVML: {why}")


def _as_text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if not text:
        raise CannotReadError(Unread(Why.NOT_SUPPORTED, "empty"))
    return text


def _limit_w(milliwatts: float | Unread) -> float | Unread:
    """A limit of nothing is one that was not read."""
    if isinstance(milliwatts, Unread):
        return milliwatts
    return finite(milliwatts / 1000.0, 1.0, MOST_POSSIBLE_W)


def _draw_w(milliwatts: float | Unread) -> float | Unread:
    if isinstance(milliwatts, Unread):
        return milliwatts
    return finite(milliwatts / 1000.0, 0.0, MOST_POSSIBLE_W)


def _seconds(nanoseconds: float | Unread) -> float | Unread:
    if isinstance(nanoseconds, Unread):
        return nanoseconds
    return finite(nanoseconds / 1e9, 0.0, 1e12)
