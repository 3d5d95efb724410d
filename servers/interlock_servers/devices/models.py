"""What one GPU says of itself, as frozen types with units in their names; no I/O.

A value that could not be read is an `Unread` with its reason. It is never 0, never healthy.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import IntFlag, StrEnum
from types import MappingProxyType
from typing import Final, TypeVar

SAME_W: Final = 0.5  # devices take whole watts

T = TypeVar("T")


class Why(StrEnum):
    """Why a value is not there."""

    NOT_SUPPORTED = "not_supported"  # the device, its driver or its mode has no such value
    NO_PERMISSION = "no_permission"  # we may not read it
    FAILED = "failed"  # the library or the BMC said that it failed
    LOST = "lost"  # the GPU has fallen off the bus
    IMPLAUSIBLE = "implausible"  # it answered with what cannot be
    NOT_ASKED = "not_asked"  # this way to the device does not carry it


@dataclass(frozen=True, slots=True)
class Unread:
    """A value that is not known. `detail` is what the library said, or what was wrong with it."""

    why: Why
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.why.value}: {self.detail}" if self.detail else self.why.value


NOT_ASKED: Final = Unread(Why.NOT_ASKED)


def known(value: T | Unread) -> T | None:
    """The value, or None where it was not read."""
    return None if isinstance(value, Unread) else value


class Vendor(StrEnum):
    """Whose GPU it is."""

    NVIDIA = "nvidia"
    AMD = "amd"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """Which GPU this is. `index` is its place on this host, and may change at a restart."""

    index: int
    vendor: Vendor
    uuid: str | Unread
    serial: str | Unread
    model: str | Unread
    bus_id: str | Unread

    @property
    def key(self) -> str:
        """What a cap is bound to: the uuid, since an index names another GPU after a restart.

        Where a device has no uuid it is the serial, then the place on the bus.
        """
        for value in (self.uuid, self.serial, self.bus_id):
            if isinstance(value, str) and value:
                return value
        return f"index-{self.index}"


@dataclass(frozen=True, slots=True)
class PowerLimits:
    """Limits of one GPU, in watts.

    Attributes:
        now_w: the limit set by this way to the device.
        enforced_w: the lowest of all limits in force, whoever set them.
        requested_w: what was asked for in band, where the device keeps it apart.
    """

    now_w: float | Unread = NOT_ASKED
    default_w: float | Unread = NOT_ASKED
    min_w: float | Unread = NOT_ASKED
    max_w: float | Unread = NOT_ASKED
    enforced_w: float | Unread = NOT_ASKED
    requested_w: float | Unread = NOT_ASKED

    @property
    def is_held_lower_by_another(self) -> bool | None:
        """Whether somebody else limits it below what is set here; None where not known.

        A cap set in band and one set by the BMC are different requests on the same GPU.
        """
        now_w, enforced_w = known(self.now_w), known(self.enforced_w)
        if now_w is None or enforced_w is None:
            return None
        return enforced_w < now_w - SAME_W


class EventReason(IntFlag):
    """Why clocks are below what they could be; the bits are NVML's clocks event reasons."""

    IDLE = 0x1
    APPLICATION_CLOCKS = 0x2
    SW_POWER_CAP = 0x4
    HW_SLOWDOWN = 0x8  # thermal, power brake or both: bits 0x40 and 0x80 say which
    SYNC_BOOST = 0x10
    SW_THERMAL = 0x20
    HW_THERMAL = 0x40
    HW_POWER_BRAKE = 0x80
    DISPLAY = 0x100


class Violation(StrEnum):
    """What held clocks down, as time counters of the driver: only differences say anything.

    NVML's clocks event counters for the software cap and sync boost are aliases of `POWER` and
    `SYNC_BOOST`, so they are not read twice.
    """

    POWER = "power"
    THERMAL = "thermal"
    SYNC_BOOST = "sync_boost"
    BOARD_LIMIT = "board_limit"
    LOW_UTILIZATION = "low_utilization"
    RELIABILITY = "reliability"
    BELOW_APPLICATION_CLOCKS = "below_application_clocks"
    BELOW_BASE_CLOCKS = "below_base_clocks"
    SW_THERMAL = "sw_thermal"
    HW_THERMAL = "hw_thermal"
    HW_POWER_BRAKE = "hw_power_brake"


@dataclass(frozen=True, slots=True)
class Xid:
    """One error that the driver reported, by its number."""

    code: int
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Ecc:
    """Error correction: whether it is on, and errors since the driver was loaded and ever."""

    is_on: bool | Unread = NOT_ASKED
    corrected: int | Unread = NOT_ASKED
    uncorrected: int | Unread = NOT_ASKED
    corrected_ever: int | Unread = NOT_ASKED
    uncorrected_ever: int | Unread = NOT_ASKED


@dataclass(frozen=True, slots=True)
class RemappedRows:
    """Rows of memory that were replaced; `is_pending` wants a reset, `has_failed` a repair."""

    corrected: int
    uncorrected: int
    is_pending: bool
    has_failed: bool


@dataclass(frozen=True, slots=True)
class MigMode:
    """Whether it is cut into instances now, and will be after the next reset. Read only."""

    is_on: bool
    will_be_on: bool


@dataclass(frozen=True, slots=True)
class WorkloadProfiles:
    """Workload power profiles by NVML's number; those in force need not be those asked for."""

    requested: frozenset[int]
    enforced: frozenset[int]


@dataclass(frozen=True, slots=True)
class GpuReading:
    """Everything that one GPU said at one moment.

    Attributes:
        observed_at: when it was read, by the clock of whoever read it.
        energy_j: since the driver was loaded; it goes back to 0 when that happens again.
        violations_s: seconds since the driver was loaded, one of each kind that can be told.
        links_up: state of each link to other GPUs, in order.
        xids: the last ones that were seen; without an answer it is not known whether there are any.
    """

    identity: GpuIdentity
    observed_at: datetime
    limits: PowerLimits = PowerLimits()
    power_average_w: float | Unread = NOT_ASKED
    power_instant_w: float | Unread = NOT_ASKED
    energy_j: float | Unread = NOT_ASKED
    events: EventReason | Unread = NOT_ASKED
    violations_s: Mapping[Violation, float | Unread] = field(
        default_factory=lambda: MappingProxyType({})
    )
    temperature_c: float | Unread = NOT_ASKED
    memory_temperature_c: float | Unread = NOT_ASKED
    xids: tuple[Xid, ...] | Unread = NOT_ASKED
    ecc: Ecc = Ecc()
    remapped_rows: RemappedRows | Unread = NOT_ASKED
    links_up: tuple[bool, ...] | Unread = NOT_ASKED
    mig: MigMode | Unread = NOT_ASKED
    profiles: WorkloadProfiles | Unread = NOT_ASKED

    @property
    def power_w(self) -> float | Unread:
        """The average where there is one: an instant misses what swings between two samples."""
        return (
            self.power_instant_w
            if isinstance(self.power_average_w, Unread)
            else self.power_average_w
        )

    def unread(self) -> dict[str, Unread]:
        """Every value that is not known, by its name with dots, such as `limits.max_w`."""
        found: dict[str, Unread] = {}
        for where, part in (("", self), ("limits.", self.limits), ("ecc.", self.ecc)):
            for each in fields(part):
                value = getattr(part, each.name)
                if isinstance(value, Unread):
                    found[where + each.name] = value
        found |= {
            f"violations_s.{kind.value}": value
            for kind, value in self.violations_s.items()
            if isinstance(value, Unread)
        }
        return found


class Outcome(StrEnum):
    """What became of a limit that was asked for, by what the device says afterwards."""

    APPLIED = "applied"  # it says what was asked
    CLAMPED = "clamped"  # it moved, to something else
    REFUSED = "refused"  # it, or we, said no; nothing was changed
    IGNORED = "ignored"  # it said yes and says what it said before
    REVERTED = "reverted"  # it said what was asked, and a while later something else
    UNKNOWN = "unknown"  # it cannot be read back: it may or may not have been set


@dataclass(frozen=True, slots=True)
class LimitOutcome:
    """One limit: what was asked, what the device said before and after, and what that means."""

    key: str
    asked_w: float
    outcome: Outcome
    before_w: float | None
    after_w: float | None
    why: str = ""

    @property
    def holds(self) -> bool:
        """Whether the device says what was asked. What it follows is for a meter to say."""
        return self.outcome is Outcome.APPLIED


def finite(value: float | Unread, low: float, high: float) -> float | Unread:
    """The value, or why it cannot be believed: not a number, or outside low to high."""
    if isinstance(value, Unread):
        return value
    if not math.isfinite(value) or not low <= value <= high:
        return Unread(Why.IMPLAUSIBLE, f"{value:g} is not in {low:g} to {high:g}")
    return value
