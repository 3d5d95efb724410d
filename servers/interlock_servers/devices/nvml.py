"""NVIDIA's GPUs of this host through NVML, by way of `nvidia-ml-py`."""

import importlib
from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from interlock_servers.devices import COMPONENT
from interlock_servers.devices import nvml_names as nvml
from interlock_servers.devices.device import GpuHost
from interlock_servers.devices.models import Unread, Why, Xid
from interlock_servers.devices.nvml_device import NoHandle, NvmlDevice, unread_of
from interlock_tools.clock import Clock
from interlock_tools.errors import ComponentError, UnavailableError

MODULE: Final = "pynvml"
DISTRIBUTION: Final = "nvidia-ml-py"
MAX_XIDS = 16  # the last ones of each GPU
MAX_EVENTS = 64  # drained at one look, so that a storm of them cannot hold a read up
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

    def devices(self) -> Sequence[NvmlDevice]:
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

    def _open(self) -> tuple[NvmlDevice, ...]:
        count = self._library.nvmlDeviceGetCount()
        if not 0 <= count <= MOST_GPUS:
            raise ComponentError(COMPONENT, "BAD_COUNT", f"NVML counts {count} GPUs")
        devices = []
        for index in range(count):
            try:
                handle = self._library.nvmlDeviceGetHandleByIndex(index)
            except self._library.NVMLError as error:
                # one that has no handle is not passed over: it is there, and says nothing
                handle = NoHandle(error)
            devices.append(NvmlDevice(self._library, handle, index, self._clock, self.xids_of))
        self._register(devices)
        return tuple(devices)

    def _register(self, devices: Sequence[NvmlDevice]) -> None:
        """Ask to be told of XIDs; a device that does not tell them says so at each reading."""
        library = self._library
        try:
            self._events = library.nvmlEventSetCreate()
        except library.NVMLError as error:
            self._no_events = {device.identity.index: unread_of(error) for device in devices}
            return
        for device in devices:
            if isinstance(device.handle, NoHandle):
                self._no_events[device.identity.index] = unread_of(device.handle.error)
                continue
            try:
                kinds = library.nvmlDeviceGetSupportedEventTypes(device.handle)
                if not kinds & nvml.XID_EVENT:
                    self._no_events[device.identity.index] = Unread(Why.NOT_SUPPORTED)
                    continue
                library.nvmlDeviceRegisterEvents(device.handle, nvml.XID_EVENT, self._events)
            except library.NVMLError as error:
                self._no_events[device.identity.index] = unread_of(error)

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
