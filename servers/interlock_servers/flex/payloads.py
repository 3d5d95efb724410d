"""The four payloads of DSX Flex 1.7.0, read after their signature was verified."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeVar

from interlock_servers.flex.envelope import Envelope, parse_moment, parse_uuid
from interlock_servers.flex.models import (
    BreachStatus,
    Enforcement,
    EnforcementResult,
    FeedEvent,
    FeedState,
    FeedTarget,
    LoadTarget,
    PowerBreach,
    Reason,
    RejectedError,
    Severity,
    ShedHint,
)
from interlock_servers.flex.strict_json import (
    JsonObject,
    flag_member,
    list_member,
    number_member,
    object_member,
    optional_text,
    text_member,
)

WATTS: Final = {"watt": 1.0, "kilowatt": 1e3, "megawatt": 1e6}
MAX_TARGETS: Final = 288  # a day in steps of five minutes
MAX_FEEDS: Final = 1_000
MAX_LISTED: Final = 2_000
MAX_TAG_CHARS: Final = 200

_BAD: Final = Reason.BAD_PAYLOAD
_RESOURCES: Final = frozenset({"node", "gpu", "chassis"})
_SHEDDING: Final = frozenset({"power_cap", "throttle", "suspend"})
_INFRASTRUCTURE: Final = frozenset(
    {"SHUTDOWN_NODES", "SHUTDOWN_RACKS", "CUT_DATA_FEEDS", "TRIP_BREAKERS"}
)
_NOT_A_LETTER = re.compile(r"[^a-z]")
_LOOKS_LIKE_FEED_TAGS = frozenset({"feedtags", "feedtag", "feeds", "feed", "tags"})


class _Span(NamedTuple):
    start: datetime | None
    end: datetime | None


def parse_load_targets(
    envelope: Envelope, payload: JsonObject, received_at: datetime
) -> tuple[LoadTarget, ...]:
    """The targets of one message, in its order: a later one wins over an earlier one.

    Raises:
        RejectedError: one of them cannot be used, so none is.
    """
    entries = list_member(payload, "targets", _BAD, most=MAX_TARGETS)
    if not entries:
        raise RejectedError(_BAD, "targets must hold at least one")
    return tuple(_load_target(envelope, _entry(entry), received_at) for entry in entries)


def _load_target(envelope: Envelope, entry: JsonObject, received_at: datetime) -> LoadTarget:
    feed_tags = _feed_tags(entry)
    span = _span(object_member(entry, "interval", Reason.BAD_INTERVAL))
    start = span.start or received_at
    if span.end is not None and span.end <= start and span.start is not None:
        raise RejectedError(Reason.BAD_INTERVAL, "the interval ends before it begins")
    if span.end is not None and span.end <= received_at:
        raise RejectedError(
            Reason.INTERVAL_PAST, f"the interval ended at {span.end.isoformat()}, before it came"
        )
    if "load_constraint" not in entry:
        raise RejectedError(_BAD, "load_constraint is absent; only null removes a limit")
    constraint = entry["load_constraint"]
    return LoadTarget(
        limit_w=None if constraint is None else _limit_w(entry, "load_constraint"),
        start=start,
        end=span.end,
        feed_tags=feed_tags,
        all_feeds=not feed_tags,
        best_effort=_best_effort(entry),
        correlation_id=envelope.correlation_id,
        source=envelope.source,
        event_id=envelope.event_id,
        sent_at=envelope.sent_at,
        received_at=received_at,
    )


def _feed_tags(entry: JsonObject) -> tuple[str, ...]:
    """The feeds named; empty means all of them, so a near miss of the name is refused."""
    for name in entry:
        plain = _NOT_A_LETTER.sub("", name.lower())
        if name != "feed_tags" and plain in _LOOKS_LIKE_FEED_TAGS:
            raise RejectedError(
                Reason.BAD_FEED_TAGS,
                f"{name!r} is not feed_tags; without feed_tags the target is for every feed",
            )
    if "feed_tags" not in entry:
        return ()
    tags = list_member(entry, "feed_tags", Reason.BAD_FEED_TAGS, most=MAX_FEEDS)
    for tag in tags:
        if not isinstance(tag, str) or not tag.strip() or len(tag) > MAX_TAG_CHARS:
            raise RejectedError(Reason.BAD_FEED_TAGS, f"{tag!r:.60} is not the name of a feed")
    return tuple(dict.fromkeys(tags))


def parse_power_state(
    envelope: Envelope, payload: JsonObject, received_at: datetime
) -> tuple[FeedState, ...]:
    """The state of every feed in one snapshot.

    Raises:
        RejectedError: a feed's state cannot be used, so none is.
    """
    snapshot_at = _moment(payload, "snapshot_time")
    feeds = object_member(payload, "feeds", _BAD)
    if len(feeds) > MAX_FEEDS:
        raise RejectedError(_BAD, f"{len(feeds)} feeds; {MAX_FEEDS} is the most")
    return tuple(
        _feed_state(tag, _entry(state), snapshot_at, envelope.source, received_at)
        for tag, state in feeds.items()
    )


def _feed_state(
    tag: str, state: JsonObject, snapshot_at: datetime, source: str, received_at: datetime
) -> FeedState:
    if not tag.strip() or len(tag) > MAX_TAG_CHARS:
        raise RejectedError(Reason.BAD_FEED_TAGS, f"{tag!r:.60} is not the name of a feed")
    metadata = object_member(state, "metadata", _BAD)
    return FeedState(
        feed_tag=tag,
        power_minimum_w=_power_w(metadata, "power_minimum"),
        power_maximum_w=_power_w(metadata, "power_maximum"),
        default_limit_w=_power_w(metadata, "default_constraint"),
        targets=tuple(
            _feed_target(_entry(target))
            for target in list_member(state, "targets", _BAD, most=MAX_TARGETS)
        ),
        calculated_load_w=_power_w(state, "calculated_load"),
        in_flight=flag_member(state, "in_flight", _BAD),
        event=_one_of(FeedEvent, state, "event"),
        power_event_start=_optional_moment(state, "power_event_start_time"),
        compliant=flag_member(state, "compliant", _BAD),
        source=source,
        snapshot_at=snapshot_at,
        received_at=received_at,
    )


def _feed_target(target: JsonObject) -> FeedTarget:
    span = _span(object_member(target, "interval", Reason.BAD_INTERVAL))
    return FeedTarget(
        active=flag_member(target, "active", _BAD),
        limit_w=_limit_w(target, "load_constraint"),
        start=span.start,
        end=span.end,
        best_effort=_best_effort(target),
        correlation_id=_uuid(target, "correlation_id"),
    )


def parse_breach(envelope: Envelope, payload: JsonObject, received_at: datetime) -> PowerBreach:
    """A breach alert.

    Raises:
        RejectedError: it cannot be used.
    """
    breach = object_member(payload, "breach", _BAD)
    target = object_member(payload, "target", _BAD)
    hints = (
        list_member(payload, "shed_hints", _BAD, most=MAX_LISTED) if "shed_hints" in payload else []
    )
    actions = list_member(payload, "infrastructure_actions", _BAD, most=10)
    for action in actions:
        if not isinstance(action, str) or action not in _INFRASTRUCTURE:
            raise RejectedError(_BAD, f"unknown infrastructure action {action!r:.60}")
    return PowerBreach(
        breach_id=_uuid(breach, "breach_id"),
        feed_tag=text_member(payload, "feed_tag", Reason.BAD_FEED_TAGS),
        status=_one_of(BreachStatus, payload, "status"),
        severity=_one_of(Severity, payload, "severity"),
        detected_at=_moment(breach, "detected_at"),
        resolved_at=_optional_moment(breach, "resolved_at"),
        limit_w=_limit_w(target, "load_constraint"),
        measured_load_w=_power_w(payload, "measured_load"),
        correlation_id=_uuid(target, "correlation_id"),
        shed_hints=tuple(_shed_hint(_entry(hint)) for hint in hints),
        infrastructure_actions=tuple(actions),
        source=envelope.source,
        received_at=received_at,
    )


def _shed_hint(hint: JsonObject) -> ShedHint:
    priority = number_member(hint, "priority", _BAD)
    if priority < 1 or not priority.is_integer():
        raise RejectedError(_BAD, f"priority must be a whole number from 1, not {priority:g}")
    return ShedHint(
        resource_id=text_member(hint, "resource_id", _BAD),
        resource_type=_listed(hint, "resource_type", _RESOURCES),
        action=_listed(hint, "action", _SHEDDING),
        priority=int(priority),
        target_power_w=_optional_power_w(hint, "target_power"),
    )


def parse_enforcement(
    envelope: Envelope, payload: JsonObject, received_at: datetime
) -> Enforcement:
    """What was enforced after a breach.

    Raises:
        RejectedError: it cannot be used.
    """
    results = list_member(payload, "results", _BAD, most=MAX_LISTED)
    return Enforcement(
        breach_id=_uuid(payload, "breach_id"),
        feed_tag=text_member(payload, "feed_tag", Reason.BAD_FEED_TAGS),
        action=_listed(payload, "action", frozenset({"applied", "reverted"})),
        code=_listed(payload, "code", frozenset({"success", "partial", "error"})),
        diag_msg=optional_text(payload, "diag_msg", _BAD),
        results=tuple(_enforcement_result(_entry(result)) for result in results),
        enforced_at=_moment(payload, "timestamp"),
        source=envelope.source,
        received_at=received_at,
    )


def _enforcement_result(result: JsonObject) -> EnforcementResult:
    return EnforcementResult(
        resource_id=text_member(result, "resource_id", _BAD),
        resource_type=_listed(result, "resource_type", _RESOURCES),
        requested_action=_listed(result, "requested_action", _SHEDDING),
        code=_listed(result, "code", frozenset({"applied", "failed", "skipped"})),
        message=optional_text(result, "message", _BAD),
        applied_power_w=_optional_power_w(result, "applied_power"),
    )


# --- the primitives ---


def _power_w(members: JsonObject, name: str) -> float:
    power = object_member(members, name, _BAD)
    unit = power.get("unit")
    if not isinstance(unit, str) or unit not in WATTS:
        raise RejectedError(
            Reason.UNKNOWN_UNIT, f"{name} must be in watt, kilowatt or megawatt, not {unit!r:.40}"
        )
    power_w = number_member(power, "value", _BAD) * WATTS[unit]
    if power_w == float("inf"):
        raise RejectedError(Reason.POWER_NOT_FINITE, f"{name} is not a finite number of watts")
    if power_w < 0:
        raise RejectedError(Reason.POWER_NEGATIVE, f"{name} is {power_w:g} W")
    return power_w


def _optional_power_w(members: JsonObject, name: str) -> float | None:
    return None if members.get(name) is None else _power_w(members, name)


def _limit_w(members: JsonObject, name: str) -> float:
    limit_w = _power_w(members, name)
    if limit_w == 0:
        raise RejectedError(Reason.POWER_NOT_POSITIVE, f"{name} must be above 0 W")
    return limit_w


def _span(interval: JsonObject) -> _Span:
    return _Span(
        _optional_moment(interval, "start_time", Reason.BAD_INTERVAL),
        _optional_moment(interval, "end_time", Reason.BAD_INTERVAL),
    )


def _best_effort(members: JsonObject) -> bool:
    if members.get("strategy") is None:
        return False
    return flag_member(object_member(members, "strategy", _BAD), "best_effort", _BAD, False)


def _moment(members: JsonObject, name: str, reason: Reason = _BAD) -> datetime:
    return parse_moment(text_member(members, name, reason), name, reason)


def _optional_moment(members: JsonObject, name: str, reason: Reason = _BAD) -> datetime | None:
    return None if members.get(name) is None else _moment(members, name, reason)


def _uuid(members: JsonObject, name: str) -> str:
    return parse_uuid(text_member(members, name, _BAD), name, _BAD)


def _entry(value: Any) -> JsonObject:
    if not isinstance(value, dict):
        raise RejectedError(_BAD, f"{value!r:.60} stands where an object should")
    return value


def _listed(members: JsonObject, name: str, known: frozenset[str]) -> str:
    value = text_member(members, name, _BAD)
    if value not in known:
        raise RejectedError(_BAD, f"{name} is none of {', '.join(sorted(known))}: {value[:40]!r}")
    return value


Choice = TypeVar("Choice", bound=StrEnum)


def _one_of(choices: type[Choice], members: JsonObject, name: str) -> Choice:
    return choices(_listed(members, name, frozenset(choices)))
