"""Why a GPU is slower than it could be, from its readings alone: causes in words and numbers.

A pure function. The event reasons say what holds it now, bit by bit; the violation counters say how
long something held it between two readings. Where neither can be read it says so: no cause found is
not the same as none there.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from interlock_servers.devices.models import (
    NOT_ASKED,
    SAME_W,
    EventReason,
    GpuReading,
    Unread,
    Violation,
    known,
)
from interlock_servers.devices.profiles import names_of

NEAR_LIMIT = 0.97  # of the limit: a cap loop holds a little below it
LEAST_SHARE = 0.01  # of the time between two readings; less is noise of a counter
MEMORY_HOT_C = 95.0
_MAX_P = 0  # the profile that trades nothing
XIDS_OF_HARDWARE: Final = {
    48: "an uncorrectable memory error",
    63: "a row of memory was remapped",
    64: "a row of memory could not be remapped",
    74: "an NVLink error",
    79: "it fell off the bus",
    94: "a contained memory error",
    95: "an uncontained memory error",
    119: "its system processor does not answer",
    120: "its system processor failed",
}


class Cause(StrEnum):
    """What holds a GPU."""

    POWER_CAP = "power_cap"
    POWER_CAP_BY_ANOTHER = "power_cap_by_another"
    THERMAL = "thermal"
    POWER_BRAKE = "power_brake"
    HARDWARE_SLOWDOWN = "hardware_slowdown"  # which of the two is not told
    RELIABILITY = "reliability"
    BOARD_LIMIT = "board_limit"
    SYNC_BOOST = "sync_boost"
    CLOCKS_SET = "clocks_set"
    POWER_PROFILE = "power_profile"
    FAULT = "fault"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause with its evidence. `share` of the time between two readings, where counted."""

    cause: Cause
    says: str
    is_now: bool
    share: float | None = None


@dataclass(frozen=True, slots=True)
class WhySlow:
    """The causes, what counts most first, and what could not be told."""

    findings: tuple[Finding, ...]
    unknown: tuple[str, ...]

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The causes alone."""
        return tuple(finding.cause for finding in self.findings)

    @property
    def text(self) -> str:
        """A sentence for each, and one for what is not known."""
        lines = [finding.says for finding in self.findings]
        if not lines:
            lines = [
                "Nothing that was read holds it." if not self.unknown else "No cause was read."
            ]
        return " ".join([*lines, *(f"Not known: {each}." for each in self.unknown)])


# What each bit says, worst first. HW_SLOWDOWN alone does not tell heat from the brake.
_BITS: Final = (
    (EventReason.HW_POWER_BRAKE, Cause.POWER_BRAKE, "the power brake from outside is pulled"),
    (EventReason.HW_THERMAL, Cause.THERMAL, "the hardware slows it for heat"),
    (EventReason.SW_THERMAL, Cause.THERMAL, "the driver slows it for heat"),
    (EventReason.SYNC_BOOST, Cause.SYNC_BOOST, "it waits for the slowest of its sync boost group"),
    (EventReason.APPLICATION_CLOCKS, Cause.CLOCKS_SET, "its clocks are set lower by somebody"),
    (EventReason.DISPLAY, Cause.CLOCKS_SET, "its clocks are held by a display"),
    (EventReason.IDLE, Cause.IDLE, "nothing runs on it"),
)
_COUNTERS: Final = (
    (Violation.HW_POWER_BRAKE, Cause.POWER_BRAKE, "the power brake from outside"),
    (Violation.HW_THERMAL, Cause.THERMAL, "heat, by hardware"),
    (Violation.SW_THERMAL, Cause.THERMAL, "heat, by the driver"),
    (Violation.THERMAL, Cause.THERMAL, "heat"),
    (Violation.POWER, Cause.POWER_CAP, "its power limit"),
    (Violation.RELIABILITY, Cause.RELIABILITY, "its reliability limit of voltage"),
    (Violation.BOARD_LIMIT, Cause.BOARD_LIMIT, "a limit of its board"),
    (Violation.SYNC_BOOST, Cause.SYNC_BOOST, "sync boost"),
)


def why_slow(now: GpuReading, earlier: GpuReading | None = None) -> WhySlow:
    """What holds this GPU, from one reading, or better from two of the same GPU.

    Args:
        now: the later reading.
        earlier: one before it; without it, only what is active at this moment is told.

    Returns:
        Findings in order: faults, then what holds it now, then what held it in between.
    """
    unknown: list[str] = []
    found = _faults(now)
    if isinstance(now.events, Unread):
        unknown.append(f"what holds its clocks now ({now.events})")
    else:
        found += _from_bits(now, now.events)
    found += _profile(now)
    counted, why_not = _from_counters(now, earlier)
    if why_not:
        unknown.append(why_not)
    found += [each for each in counted if not _told(each, found)]
    found = [_with_share(finding, counted) for finding in found]
    found.sort(key=lambda f: (f.cause is not Cause.FAULT, not f.is_now, -(f.share or 0.0)))
    if any(f.cause is not Cause.IDLE and f.is_now for f in found):
        found = [f for f in found if f.cause is not Cause.IDLE]
    return WhySlow(tuple(found), tuple(unknown))


def _from_bits(now: GpuReading, events: EventReason) -> list[Finding]:
    found = [
        Finding(cause, f"{says[0].upper()}{says[1:]} (event reason 0x{bit.value:x}).", True)
        for bit, cause, says in _BITS
        if bit in events
    ]
    found = [_warmed(now, f) if f.cause is Cause.THERMAL else f for f in found]
    if EventReason.SW_POWER_CAP in events:
        found.append(_capped(now))
    told = EventReason.HW_THERMAL | EventReason.HW_POWER_BRAKE
    if EventReason.HW_SLOWDOWN in events and not events & told:
        says = (
            "The hardware slows it (event reason 0x8); whether heat or power brake it does not say."
        )
        found.append(Finding(Cause.HARDWARE_SLOWDOWN, says, True))
    return found


def _capped(now: GpuReading) -> Finding:
    """By a limit: whose it is, and what the GPU draws of it."""
    limits, drawn_w = now.limits, known(now.power_w)
    enforced_w, now_w = known(limits.enforced_w), known(limits.now_w)
    draws = "" if drawn_w is None else f", it draws {drawn_w:.0f} W"
    default_w = known(limits.default_w)
    if enforced_w is not None and now_w is not None and enforced_w < now_w - SAME_W:
        says = (
            f"A limit of {enforced_w:.0f} W set by another (BMC or module) holds it, below the "
            f"{now_w:.0f} W set here{draws} (event reason 0x4)."
        )
        return Finding(Cause.POWER_CAP_BY_ANOTHER, says, True)
    limit_w = enforced_w if enforced_w is not None else now_w
    of = "Its power limit" if limit_w is None else f"Its power limit of {limit_w:.0f} W"
    if limit_w is not None and default_w is not None and limit_w < default_w - SAME_W:
        of += f" (default {default_w:.0f} W)"
    says = f"{of} holds it{draws} (event reason 0x4)."
    if drawn_w is not None and limit_w is not None and drawn_w < NEAR_LIMIT * limit_w:
        says += (
            f" That is {drawn_w / limit_w:.0%} of it: on average it is below, at peaks it is not."
        )
    return Finding(Cause.POWER_CAP, says, True)


def _warmed(now: GpuReading, finding: Finding) -> Finding:
    parts = []
    if (core_c := known(now.temperature_c)) is not None:
        parts.append(f"core {core_c:.0f} C")
    if (memory_c := known(now.memory_temperature_c)) is not None:
        hot = ", which is hot" if memory_c >= MEMORY_HOT_C else ""
        parts.append(f"memory {memory_c:.0f} C{hot}")
    if not parts:
        return finding
    return Finding(finding.cause, f"{finding.says[:-1]}; {', '.join(parts)}.", True)


def _profile(now: GpuReading) -> list[Finding]:
    """A workload power profile in force trades speed for power, whoever asked for it."""
    if isinstance(now.profiles, Unread) or not now.profiles.enforced - {_MAX_P}:
        return []
    says = f"Power profile {names_of(now.profiles.enforced)} is in force"
    if now.profiles.requested != now.profiles.enforced:
        says += f", and {names_of(now.profiles.requested)} was asked for"
    return [Finding(Cause.POWER_PROFILE, f"{says}.", True)]


def _from_counters(now: GpuReading, earlier: GpuReading | None) -> tuple[list[Finding], str]:
    """What held it between two readings, and why that is not known."""
    if earlier is None:
        return [], ""
    if earlier.identity.key != now.identity.key:
        return [], "what held it before (the earlier reading is of another GPU)"
    passed_s = (now.observed_at - earlier.observed_at).total_seconds()
    if passed_s <= 0:
        return [], "what held it before (the readings are not in order)"
    found: list[Finding] = []
    went_back, readable = False, 0
    for kind, cause, by in _COUNTERS:
        was_s = known(earlier.violations_s.get(kind, NOT_ASKED))
        is_s = known(now.violations_s.get(kind, NOT_ASKED))
        if was_s is None or is_s is None:
            continue
        readable += 1
        if is_s < was_s:
            went_back = True
            continue
        share = min((is_s - was_s) / passed_s, 1.0)
        if share >= LEAST_SHARE and not any(f.cause is cause for f in found):
            says = f"Held by {by} for {is_s - was_s:.1f} of {passed_s:.1f} s ({share:.0%})."
            found.append(Finding(cause, says, False, share))
    if went_back:
        return [], "what held it before (its counters began anew: driver loaded or GPU reset)"
    if not readable:
        return [], "what held it before (it has no violation counters)"
    return found, ""


def _told(counted: Finding, found: list[Finding]) -> bool:
    """Whether what was counted is active now too, and is told already."""
    same = {counted.cause}
    if counted.cause is Cause.POWER_CAP:
        same.add(Cause.POWER_CAP_BY_ANOTHER)
    return any(finding.cause in same for finding in found)


def _with_share(finding: Finding, counted: list[Finding]) -> Finding:
    """What is active now, with how long it has been."""
    if not finding.is_now:
        return finding
    for each in counted:
        if _told(each, [finding]):
            return Finding(finding.cause, f"{finding.says} {each.says}", True, each.share)
    return finding


def _faults(now: GpuReading) -> list[Finding]:
    """What is broken: work is lost before any limit counts."""
    said: list[str] = []
    if not isinstance(now.xids, Unread):
        codes = sorted({xid.code for xid in now.xids if xid.code in XIDS_OF_HARDWARE})
        said += [f"XID {code}: {XIDS_OF_HARDWARE[code]}." for code in codes]
    if not isinstance(now.remapped_rows, Unread):
        if now.remapped_rows.has_failed:
            said.append("A row of memory could not be remapped: it needs a repair.")
        elif now.remapped_rows.is_pending:
            said.append("A row of memory waits to be remapped: it needs a reset.")
    if (uncorrected := known(now.ecc.uncorrected)) is not None and uncorrected:
        said.append(f"{uncorrected} uncorrected memory errors since the driver was loaded.")
    if not isinstance(now.links_up, Unread) and not all(now.links_up):
        down = [str(link) for link, is_up in enumerate(now.links_up) if not is_up]
        said.append(f"Links {', '.join(down)} of {len(now.links_up)} to other GPUs are down.")
    return [Finding(Cause.FAULT, says, True) for says in said]
