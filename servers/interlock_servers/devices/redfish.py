"""GPUs of one host through its BMC: DMTF Redfish, `EnvironmentMetrics` of each GPU processor.

Out of band, in watts. A limit set here and one set in band are different requests on one GPU, so
one host has one agent that writes, by one of the two. Written from the DMTF schemas and power.md
3.5 (H100: `GPU_SXM_n`, later: `GPU_n`); the paths are found by walking, not by their names.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from interlock_servers.devices import COMPONENT
from interlock_servers.devices.bmc import ROOT, Answer, Bmc
from interlock_servers.devices.device import (
    MOST_POSSIBLE_W,
    CannotReadError,
    GpuDevice,
    GpuHost,
    RefusedError,
    UnansweredError,
    try_read,
)
from interlock_servers.devices.models import (
    EventReason,
    GpuIdentity,
    GpuReading,
    PowerLimits,
    Unread,
    Vendor,
    Why,
    WorkloadProfiles,
    finite,
)
from interlock_servers.devices.profiles import of_redfish_mask
from interlock_tools.clock import Clock
from interlock_tools.errors import ComponentError, UnavailableError

MAX_MEMBERS = 512
GPU_TYPES: Final = frozenset({"GPU", "Accelerator"})
COLDEST_C, HOTTEST_C = -40.0, 200.0
J_PER_KWH: Final = 3.6e6

# `Oem.Nvidia.ThrottleReasons` of ProcessorMetrics, as the reason of NVML that says the same.
_NVIDIA_REASONS: Final = {
    "Idle": EventReason.IDLE,
    "AppClockSetting": EventReason.APPLICATION_CLOCKS,
    "SWPowerCap": EventReason.SW_POWER_CAP,
    "HWSlowdown": EventReason.HW_SLOWDOWN,
    "SyncBoost": EventReason.SYNC_BOOST,
    "SWThermalSlowdown": EventReason.SW_THERMAL,
    "HWThermalSlowdown": EventReason.HW_THERMAL,
    "HWPowerBrakeSlowdown": EventReason.HW_POWER_BRAKE,
    "DisplayClockSetting": EventReason.DISPLAY,
}
_OFF: Final = "Disabled"
_SAYS_NONE: Final = frozenset({"NA", "None", ""})


class RedfishHost(GpuHost):
    """Every GPU that a BMC shows with `EnvironmentMetrics`."""

    def __init__(self, clock: Clock, bmc: Bmc) -> None:
        """Walk the BMC once.

        Raises:
            UnavailableError: it does not answer.
            ComponentError: it lets us not in, or is no Redfish service.
        """
        self._bmc = bmc
        try:
            root = self._read(f"{ROOT}/")
            found = list(self._gpus(root))
        except BaseException:
            bmc.close()
            raise
        self.says = f"Redfish {root.get('RedfishVersion', 'of unknown version')}"
        self._devices = tuple(
            RedfishDevice(bmc, path, processor, index, clock)
            for index, (path, processor) in enumerate(found)
        )

    def devices(self) -> Sequence["RedfishDevice"]:
        """The GPUs, in the order in which the BMC lists them."""
        return self._devices

    def close(self) -> None:
        """Let the connection go."""
        self._bmc.close()

    def _gpus(self, root: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for system in self._members(_link(root, "Systems")):
            processors = _link(self._read(system), "Processors")
            for path in self._members(processors):
                processor = self._read(path)
                if processor.get("ProcessorType") in GPU_TYPES:
                    yield path, processor

    def _members(self, collection: str | None) -> list[str]:
        """The links of a collection, over all its pages."""
        found: list[str] = []
        seen = set[str]()
        while collection is not None and collection not in seen and len(found) < MAX_MEMBERS:
            seen.add(collection)
            page = self._read(collection)
            members = page.get("Members")
            for member in members if isinstance(members, list) else []:
                path = member.get("@odata.id") if isinstance(member, dict) else None
                if isinstance(path, str):
                    found.append(path)
            following = page.get("Members@odata.nextLink")
            collection = following if isinstance(following, str) else None
        return found

    def _read(self, path: str) -> dict[str, Any]:
        answer = self._bmc.get(path)
        if answer.status in (401, 403):
            raise ComponentError(COMPONENT, str(answer.status), f"the BMC lets us not in at {path}")
        if answer.status != 200 or not answer.body:
            raise ComponentError(
                COMPONENT, str(answer.status), f"no Redfish at {path}: {_said(answer)}"
            )
        return answer.body


class RedfishDevice(GpuDevice):
    """One GPU behind a BMC."""

    def __init__(
        self, bmc: Bmc, path: str, processor: Mapping[str, Any], index: int, clock: Clock
    ) -> None:
        self._bmc = bmc
        self._clock = clock
        self._environment = _link(processor, "EnvironmentMetrics")
        self._metrics = _link(processor, "Metrics")
        self._profile = _link(_inside(processor, "Oem", "Nvidia"), "WorkloadPowerProfile")
        self.path = path
        self.identity = GpuIdentity(
            index=index,
            vendor=_vendor(processor),
            uuid=_text(processor, "UUID"),
            serial=_text(processor, "SerialNumber"),
            model=_text(processor, "Model"),
            bus_id=Unread(Why.NOT_ASKED, "a BMC knows no place on the host's bus"),
        )

    def limits(self) -> PowerLimits:
        """Its limit as the BMC holds it."""
        environment = try_read(lambda: self._get(self._environment).body)
        return _limits(environment)

    def command_limit_w(self, limit_w: float) -> None:
        """Ask for a limit, in watts, of the resource as it was read.

        Raises:
            RefusedError: the BMC said no, or the resource was changed in between.
            UnansweredError: the connection ended without an answer.
        """
        if self._environment is None:
            raise RefusedError("the BMC has no EnvironmentMetrics for it")
        try:
            seen = self._bmc.get(self._environment)
        except UnavailableError as error:
            raise RefusedError(f"not sent: {error}") from None
        if _inside(seen.body, "PowerLimitWatts").get("ControlMode") == _OFF:
            raise RefusedError("its power control is switched off: it would follow no set point")
        body = {"PowerLimitWatts": {"SetPoint": round(limit_w)}}
        try:
            answer = self._bmc.patch(self._environment, body, seen.etag)
        except UnavailableError as error:
            raise UnansweredError(str(error)) from None
        if answer.status == 412:
            raise RefusedError("the limit was changed by another since it was read")
        if answer.status == 202:
            raise UnansweredError("the BMC took it as a task and has not done it yet")
        if answer.status not in (200, 204):
            raise RefusedError(f"the BMC said {answer.status}: {_said(answer)}")

    def read(self) -> GpuReading:
        """What a BMC knows of it; it has no NVLink, MIG, ECC and XIDs here."""
        environment = try_read(lambda: self._get(self._environment).body)
        return GpuReading(
            identity=self.identity,
            observed_at=self._clock.now(),
            limits=_limits(environment),
            power_instant_w=_sensor(environment, "PowerWatts", MOST_POSSIBLE_W),
            energy_j=_energy_j(environment),
            events=try_read(self._events),
            temperature_c=_sensor(environment, "TemperatureCelsius", HOTTEST_C, COLDEST_C),
            xids=Unread(Why.NOT_ASKED, "a BMC knows no XIDs"),
            profiles=try_read(self._profiles),
        )

    def _events(self) -> EventReason:
        if self._metrics is None:
            raise CannotReadError(Unread(Why.NOT_SUPPORTED, "no ProcessorMetrics"))
        body = self._get(self._metrics).body
        reasons = _inside(body, "Oem", "Nvidia").get("ThrottleReasons")
        if not isinstance(reasons, list):
            raise CannotReadError(Unread(Why.NOT_SUPPORTED, "no ThrottleReasons"))
        events = EventReason(0)
        for reason in reasons:
            if reason in _SAYS_NONE:
                continue
            if reason not in _NVIDIA_REASONS:
                raise CannotReadError(Unread(Why.IMPLAUSIBLE, f"unknown reason {reason!r}"))
            events |= _NVIDIA_REASONS[reason]
        return events

    def _profiles(self) -> WorkloadProfiles:
        """In the numbers of NVML; a BMC's are three higher."""
        if self._profile is None:
            raise CannotReadError(Unread(Why.NOT_SUPPORTED, "no WorkloadPowerProfile"))
        body = self._get(self._profile).body
        try:
            requested, enforced = (
                of_redfish_mask(str(body.get(name, "none")))
                for name in ("RequestedProfileMask", "EnforcedProfileMask")
            )
        except ValueError as error:
            raise CannotReadError(Unread(Why.IMPLAUSIBLE, str(error))) from None
        return WorkloadProfiles(requested, enforced)

    def _get(self, path: str | None) -> Answer:
        if path is None:
            raise CannotReadError(Unread(Why.NOT_SUPPORTED, "the BMC has no such resource"))
        try:
            answer = self._bmc.get(path)
        except UnavailableError as error:
            raise CannotReadError(Unread(Why.FAILED, str(error))) from None
        match answer.status:
            case 200:
                return answer
            case 401 | 403:
                raise CannotReadError(Unread(Why.NO_PERMISSION, f"HTTP {answer.status}"))
            case 404:
                raise CannotReadError(Unread(Why.LOST, "the BMC no longer shows it"))
            case status:
                raise CannotReadError(Unread(Why.FAILED, f"HTTP {status}: {_said(answer)}"))


def _limits(environment: Mapping[str, Any] | Unread) -> PowerLimits:
    """The limit and its range. A set point whose control is off is no limit: it is not followed."""
    if isinstance(environment, Unread):
        return PowerLimits(*[environment] * 4)
    control = _inside(environment, "PowerLimitWatts")
    if not control:
        return PowerLimits(*[Unread(Why.NOT_SUPPORTED, "no PowerLimitWatts")] * 4)
    now_w = _watts(control, "SetPoint")
    if control.get("ControlMode") == _OFF:
        now_w = Unread(Why.NOT_SUPPORTED, f"SetPoint {control.get('SetPoint')} is switched off")
    return PowerLimits(
        now_w=now_w,
        default_w=_watts(control, "DefaultSetPoint"),
        min_w=_watts(control, "AllowableMin"),
        max_w=_watts(control, "AllowableMax"),
    )


def _watts(control: Mapping[str, Any], name: str) -> float | Unread:
    return finite(_number(control.get(name), name), 1.0, MOST_POSSIBLE_W)


def _energy_j(environment: Mapping[str, Any] | Unread) -> float | Unread:
    """Joules where there are some, else from kilowatt hours; firmware gives `[]` for unknown."""
    joules = _sensor(environment, "EnergyJoules", 1e15)
    if not isinstance(joules, Unread):
        return joules
    kwh = _sensor(environment, "EnergykWh", 1e9)
    return joules if isinstance(kwh, Unread) else kwh * J_PER_KWH


def _sensor(
    environment: Mapping[str, Any] | Unread, name: str, high: float, low: float = 0.0
) -> float | Unread:
    if isinstance(environment, Unread):
        return environment
    return finite(_number(_inside(environment, name).get("Reading"), name), low, high)


def _number(value: Any, name: str) -> float | Unread:
    """A number; null is a reading that the BMC could not take."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Unread(Why.NOT_SUPPORTED, f"{name} is {value!r}"[:100])
    return float(value)


def _text(resource: Mapping[str, Any], name: str) -> str | Unread:
    value = resource.get(name)
    if not isinstance(value, str) or not value.strip():
        return Unread(Why.NOT_SUPPORTED, f"no {name}")
    return value.strip()


def _vendor(processor: Mapping[str, Any]) -> Vendor:
    said = str(processor.get("Manufacturer", "")).casefold()
    if "nvidia" in said:
        return Vendor.NVIDIA
    return Vendor.AMD if "amd" in said or "advanced micro" in said else Vendor.UNKNOWN


def _link(resource: Mapping[str, Any], name: str) -> str | None:
    path = _inside(resource, name).get("@odata.id")
    return path if isinstance(path, str) and path else None


def _inside(resource: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """An object within; empty where it is missing, null or something else."""
    for name in names:
        value = resource.get(name)
        resource = value if isinstance(value, dict) else {}
    return resource


def _said(answer: Answer) -> str:
    """The BMC's own words for a failure."""
    error = _inside(answer.body, "error")
    message = error.get("message")
    details = error.get("@Message.ExtendedInfo")
    if isinstance(details, list) and details and isinstance(details[0], dict):
        message = details[0].get("Message", message)
    return str(message or "no reason given")[:300]
