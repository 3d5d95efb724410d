"""Readings and caps to and from the messages of `interlock.node.v1`."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from interlock_servers.devices.models import (
    Ecc,
    EventReason,
    GpuIdentity,
    GpuReading,
    LimitOutcome,
    MigMode,
    Outcome,
    PowerLimits,
    RemappedRows,
    Unread,
    Vendor,
    Violation,
    Why,
    WorkloadProfiles,
    Xid,
)
from interlock_servers.devices.node_models import Cap, CapState, HeldCap, NodeAnswer
from interlock_servers.devices.schema import message

MOST_GPUS = 64
MOST_TEXT = 1024
_MOST_EVENTS: Final = 2**63

# name on the wire: where it stands in a reading
_LIMITS: Final = ("now_w", "default_w", "min_w", "max_w", "enforced_w", "requested_w")
_NUMBERS: Final = (
    "power_average_w",
    "power_instant_w",
    "energy_j",
    "temperature_c",
    "memory_temperature_c",
)
_TEXTS: Final = ("uuid", "serial", "model", "bus_id")
_ECC: Final = ("is_on", "corrected", "uncorrected", "corrected_ever", "uncorrected_ever")


def write_gpu(reading: GpuReading, now: datetime) -> Any:
    """One GPU as a message; what is not known goes under `unread` by name."""
    sent = message("Gpu", index=reading.identity.index, vendor=reading.identity.vendor.value)

    def put(name: str, value: Any) -> None:
        if isinstance(value, Unread):
            sent.unread[name].why, sent.unread[name].detail = value.why.value, value.detail
        else:
            setattr(sent, name, value)

    for name in _TEXTS:
        put(name, getattr(reading.identity, name))
    for name in _LIMITS:
        put(f"limit_{name}", getattr(reading.limits, name))
    for name in _NUMBERS:
        put(name, getattr(reading, name))
    for name in _ECC:
        put(f"ecc_{name}", getattr(reading.ecc, name))
    put("events", reading.events if isinstance(reading.events, Unread) else int(reading.events))
    for kind, held_s in reading.violations_s.items():
        if isinstance(held_s, Unread):
            unread = message("Unread", why=held_s.why.value, detail=held_s.detail)
            sent.violations.add(kind=kind.value, unread=unread)
        else:
            sent.violations.add(kind=kind.value, held_s=held_s)
    if isinstance(reading.xids, Unread):
        put("xids", reading.xids)
    else:
        for xid in reading.xids:
            sent.xids.add(code=xid.code, age_s=(now - xid.seen_at).total_seconds())
    if isinstance(reading.links_up, Unread):
        put("links_up", reading.links_up)
    else:
        sent.links_up.extend(reading.links_up)
    rows, mig = reading.remapped_rows, reading.mig
    if isinstance(rows, Unread):
        put("remapped_rows", rows)
    else:
        sent.remapped_rows.SetInParent()
        sent.remapped_rows.corrected, sent.remapped_rows.uncorrected = (
            rows.corrected,
            rows.uncorrected,
        )
        sent.remapped_rows.is_pending, sent.remapped_rows.has_failed = (
            rows.is_pending,
            rows.has_failed,
        )
    if isinstance(mig, Unread):
        put("mig", mig)
    else:
        sent.mig.SetInParent()
        sent.mig.is_on, sent.mig.will_be_on = mig.is_on, mig.will_be_on
    if isinstance(reading.profiles, Unread):
        put("profiles", reading.profiles)
    else:
        sent.profiles.SetInParent()
        sent.profiles.requested.extend(sorted(reading.profiles.requested))
        sent.profiles.enforced.extend(sorted(reading.profiles.enforced))
    return sent


class _Received:
    """One GPU's message; a value and a reason for having none exclude each other."""

    def __init__(self, sent: Any) -> None:
        self._sent = sent
        self._unread = sent.unread

    def value(self, name: str, *, is_there: bool | None = None) -> Any:
        """The value, or why it is not there.

        Raises:
            ValueError: it is neither or both, or no finite number.
        """
        there = self._sent.HasField(name) if is_there is None else is_there
        if name in self._unread:
            if there:
                raise ValueError(f"{name} has a value and a reason for having none")
            return _unread(self._unread[name])
        if not there:
            raise ValueError(f"{name} is not there, without a reason")
        value = getattr(self._sent, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
        return _text(value) if isinstance(value, str) else value


def read_gpu(sent: Any, observed_at: datetime, now: datetime) -> GpuReading:
    """One GPU of an answer.

    Raises:
        ValueError: it contradicts itself, or holds what cannot be.
    """
    got = _Received(sent)
    events = got.value("events")
    if not isinstance(events, Unread):
        if events >= _MOST_EVENTS:
            raise ValueError(f"events is {events}")
        events = EventReason(events)
    violations: dict[Violation, float | Unread] = {}
    for each in sent.violations:
        kind = Violation(each.kind)
        if kind in violations or each.HasField("held_s") == each.HasField("unread"):
            raise ValueError(f"violation {kind} is said twice, or not at all")
        violations[kind] = _held(each)
    xids = got.value("xids", is_there="xids" not in sent.unread)
    links = got.value("links_up", is_there="links_up" not in sent.unread)
    if ("xids" in sent.unread and sent.xids) or ("links_up" in sent.unread and sent.links_up):
        raise ValueError("a list has entries and a reason for having none")
    rows, mig, profiles = got.value("remapped_rows"), got.value("mig"), got.value("profiles")
    numbers = {name: got.value(name) for name in _NUMBERS}
    return GpuReading(
        identity=GpuIdentity(
            index=sent.index,
            vendor=Vendor(sent.vendor),
            **{name: got.value(name) for name in _TEXTS},
        ),
        observed_at=observed_at,
        limits=PowerLimits(**{name: got.value(f"limit_{name}") for name in _LIMITS}),
        events=events,
        violations_s=MappingProxyType(violations),
        xids=xids
        if isinstance(xids, Unread)
        else tuple(Xid(each.code, now - _span(each.age_s)) for each in xids),
        ecc=Ecc(**{name: got.value(f"ecc_{name}") for name in _ECC}),
        remapped_rows=rows
        if isinstance(rows, Unread)
        else RemappedRows(rows.corrected, rows.uncorrected, rows.is_pending, rows.has_failed),
        links_up=links if isinstance(links, Unread) else tuple(links),
        mig=mig if isinstance(mig, Unread) else MigMode(mig.is_on, mig.will_be_on),
        profiles=profiles
        if isinstance(profiles, Unread)
        else WorkloadProfiles(frozenset(profiles.requested), frozenset(profiles.enforced)),
        **numbers,
    )


def read_node(sent: Any, now: datetime) -> NodeAnswer:
    """An agent's answer, its ages counted back from `now`.

    Raises:
        ValueError: it contradicts itself, or holds what cannot be.
    """
    age_s = sent.age_s if sent.HasField("age_s") else None
    if len(sent.gpus) > MOST_GPUS or len(sent.held) > MOST_GPUS:
        raise ValueError(f"{len(sent.gpus)} GPUs and {len(sent.held)} caps of one node")
    if age_s is None and sent.gpus:
        raise ValueError("it has readings and never looked")
    observed_at = now - _span(0.0 if age_s is None else age_s)
    return NodeAnswer(
        node_id=_text(sent.node_id),
        boot_id=_text(sent.boot_id),
        sequence=sent.sequence,
        age_s=age_s,
        says=_text(sent.says),
        takes_writes=sent.takes_writes,
        failure=_text(sent.failure),
        gpus=tuple(read_gpu(gpu, observed_at, now) for gpu in sent.gpus),
        held=tuple(read_held(cap) for cap in sent.held),
    )


def write_held(cap: HeldCap) -> Any:
    """A cap that is held, as a message."""
    return message(
        "HeldCap",
        key=cap.key,
        limit_w=cap.limit_w,
        safe_w=cap.safe_w,
        left_s=cap.left_s,
        state=cap.state.value,
        controller_id=cap.controller_id,
        change_id=cap.change_id,
    )


def read_held(sent: Any) -> HeldCap:
    """A cap that an agent says that it holds.

    Raises:
        ValueError: it holds what cannot be.
    """
    for watts in (sent.limit_w, sent.safe_w, sent.left_s):
        if not math.isfinite(watts):
            raise ValueError(f"a cap of {watts}")
    return HeldCap(
        key=_text(sent.key),
        limit_w=sent.limit_w,
        safe_w=sent.safe_w,
        left_s=sent.left_s,
        state=CapState(sent.state),
        controller_id=_text(sent.controller_id),
        change_id=_text(sent.change_id),
    )


def write_cap(cap: Cap) -> Any:
    """A cap that is asked for, as a message."""
    return message(
        "Cap",
        key=cap.key,
        limit_w=cap.limit_w,
        safe_w=cap.safe_w,
        expires_in_s=cap.expires_in_s,
    )


def read_cap(sent: Any) -> Cap:
    """A cap that somebody asks for; whether it may be is for the agent to say."""
    return Cap(_text(sent.key), sent.limit_w, sent.safe_w, sent.expires_in_s)


def write_result(outcome: LimitOutcome) -> Any:
    """What became of a limit, as a message."""
    known: Mapping[str, float] = {
        name: value
        for name, value in (("before_w", outcome.before_w), ("after_w", outcome.after_w))
        if value is not None
    }
    return message(
        "Result",
        key=outcome.key,
        asked_w=outcome.asked_w,
        outcome=outcome.outcome.value,
        why=outcome.why[:MOST_TEXT],
        **known,
    )


def read_result(sent: Any) -> LimitOutcome:
    """What an agent says became of a limit.

    Raises:
        ValueError: it holds what cannot be.
    """
    return LimitOutcome(
        key=_text(sent.key),
        asked_w=sent.asked_w,
        outcome=Outcome(sent.outcome),
        before_w=sent.before_w if sent.HasField("before_w") else None,
        after_w=sent.after_w if sent.HasField("after_w") else None,
        why=_text(sent.why),
    )


def _held(sent: Any) -> float | Unread:
    if sent.HasField("unread"):
        return _unread(sent.unread)
    if not (math.isfinite(sent.held_s) and sent.held_s >= 0):
        raise ValueError(f"violation {sent.kind} for {sent.held_s} s")
    return float(sent.held_s)


def _unread(sent: Any) -> Unread:
    return Unread(Why(sent.why), _text(sent.detail))


def _text(value: str) -> str:
    """A text of bounded length; the words are another machine's."""
    return value[:MOST_TEXT]


def _span(seconds: float) -> timedelta:
    if not (math.isfinite(seconds) and abs(seconds) < 1e9):
        raise ValueError(f"an age of {seconds} s")
    return timedelta(seconds=seconds)
