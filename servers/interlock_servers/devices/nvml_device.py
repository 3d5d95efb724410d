"""One NVIDIA GPU through NVML, its values in our units.

NVML counts power in milliwatts, energy in millijoules and violations in nanoseconds; nothing
outside this module sees those.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from interlock_servers.devices import nvml_names as nvml
from interlock_servers.devices.device import (
    MOST_POSSIBLE_W,
    CannotReadError,
    GpuDevice,
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
    WorkloadProfiles,
    Xid,
    finite,
)
from interlock_servers.devices.profiles import of_words
from interlock_tools.clock import Clock

COLDEST_C, HOTTEST_C = -40.0, 200.0
XidsOf = Callable[[int], tuple[Xid, ...] | Unread]


class NvmlDevice(GpuDevice):
    """One GPU behind NVML."""

    def __init__(
        self, library: Any, handle: Any, index: int, clock: Clock, xids_of: XidsOf
    ) -> None:
        self._xids_of = xids_of
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
        if isinstance(self.handle, NoHandle):
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
            xids=self._xids_of(self.identity.index),
            ecc=self._ecc(),
            remapped_rows=try_read(self._remapped_rows),
            links_up=try_read(self._links_up),
            mig=try_read(self._mig),
            profiles=try_read(self._profiles),
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

    def _profiles(self) -> WorkloadProfiles:
        """Asked for, and in force: they conflict, and the driver chooses by priority."""
        structure = getattr(self._library, nvml.CURRENT_PROFILES, None)
        if structure is None:  # an older library
            raise CannotReadError(Unread(Why.NOT_SUPPORTED, f"no {nvml.CURRENT_PROFILES}"))
        told = structure()
        self._ask("nvmlDeviceWorkloadPowerProfileGetCurrentProfiles", ctypes.byref(told))
        return WorkloadProfiles(
            requested=of_words(list(told.requestedProfilesMask.mask)),
            enforced=of_words(list(told.enforcedProfilesMask.mask)),
        )

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
                found[answer.fieldId] = _unread_code(answer.nvmlReturn)
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
        if isinstance(self.handle, NoHandle):
            raise _cannot(self.handle.error)
        call: Callable[..., Any] | None = getattr(self._library, name, None)
        if call is None:  # an older library
            raise CannotReadError(Unread(Why.NOT_SUPPORTED, f"no {name}"))
        try:
            return call(self.handle, *arguments)
        except self._library.NVMLError as error:
            raise _cannot(error) from None


class NoHandle:
    """In place of a handle that NVML did not give."""

    def __init__(self, error: Any) -> None:
        self.error = error


def _cannot(error: Any) -> CannotReadError:
    return CannotReadError(unread_of(error), code=int(error.value))


def unread_of(error: Any) -> Unread:
    """An error of the library as a value that is not there."""
    why = nvml.WHY_OF_ERROR.get(int(error.value), Why.FAILED)
    return Unread(why, str(error))


def _unread_code(code: int) -> Unread:
    """The code of one field, for which the library has no words."""
    return Unread(nvml.WHY_OF_ERROR.get(code, Why.FAILED), f"NVML code {code}")


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
