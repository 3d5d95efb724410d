"""What an OpenADR event asks of the site, in the words of DSX Flex: load targets.

Only what is a limit in watts becomes one. An alert is for people and sheds nothing by itself; a
price, a relative setpoint or a level that nobody has given watts is refused by name.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from interlock_servers.flex.models import LoadTarget, Reason, RejectedError
from interlock_servers.flex.openadr.periods import Span, parse_moment, spans_of
from interlock_servers.flex.openadr.settings import OpenAdrSettings
from interlock_servers.flex.strict_json import (
    JsonObject,
    list_member,
    number_member,
    optional_text,
    text_member,
)

WATTS: Final[Mapping[str, float]] = {"KW": 1e3}  # the one unit of real power in the standard's list
LIMITS: Final = frozenset({"IMPORT_CAPACITY_LIMIT", "DISPATCH_SETPOINT"})
SIMPLE: Final = "SIMPLE"
MAX_LISTED: Final = 100
LEAST_PRIORITY: Final = math.inf  # of an event that states none


class Asked(NamedTuple):
    """What one event asks for; a lower `priority` outranks a higher one."""

    event_id: str
    priority: float
    targets: tuple[LoadTarget, ...]


def asked_by(
    event: JsonObject,
    program: JsonObject,
    settings: OpenAdrSettings,
    *,
    source: str,
    seen_at: datetime,
    now: datetime,
) -> Asked | None:
    """What an event asks of the site; None where it is meant for others.

    Args:
        event: as the VTN gave it.
        program: its program, whose descriptors count where the event has none.
        settings: what levels and targets mean here.
        source: who asks.
        seen_at: when we first saw it.
        now: the present.

    Raises:
        RejectedError: it cannot be followed, or is not for a machine to follow.
    """
    event_id = text_member(event, "id", Reason.BAD_ID)
    feeds = _feeds(event, settings)
    if feeds is None:
        return None
    made_at = _made_at(event) or seen_at
    spans = spans_of(event, seen_at=made_at, now=now, who=settings.ven_name)
    targets = []
    for span in spans:
        limit_w = _limit_w(span, event, program, settings)
        if limit_w is not None and (span.end is None or span.end > max(now, span.start)):
            targets.append(
                LoadTarget(
                    limit_w=limit_w,
                    start=span.start,
                    end=span.end,
                    feed_tags=feeds,
                    all_feeds=not feeds,
                    best_effort=False,
                    correlation_id=event_id,
                    source=source,
                    event_id=f"{event_id}#{_number(span)}",
                    sent_at=made_at,
                    received_at=seen_at,
                )
            )
    return Asked(event_id, _priority(event), tuple(targets))


def by_priority(asked: Iterable[Asked]) -> tuple[LoadTarget, ...]:
    """The targets of all events; where two are for the same feeds and time, the higher priority's.

    Of equal priority both stay, and then the stricter counts: the standard leaves it open.
    """
    given: list[LoadTarget] = []
    above: list[tuple[float, LoadTarget]] = []
    for one in sorted(asked, key=lambda each: (each.priority, each.event_id)):
        higher = [target for priority, target in above if priority < one.priority]
        for target in one.targets:
            given += _without(target, [each for each in higher if _covers(each, target)])
        above += [(one.priority, target) for target in one.targets]
    return tuple(given)


def _covers(higher: LoadTarget, target: LoadTarget) -> bool:
    if higher.all_feeds or target.all_feeds:
        return higher.all_feeds
    return set(target.feed_tags) <= set(higher.feed_tags)


def _without(target: LoadTarget, higher: Sequence[LoadTarget]) -> list[LoadTarget]:
    """What is left of a target's time."""
    left = [target]
    for each in higher:
        left = [piece for one in left for piece in _cut_out(one, each)]
    return left


def _cut_out(target: LoadTarget, hole: LoadTarget) -> list[LoadTarget]:
    if not _overlap(target, hole):
        return [target]
    pieces = []
    if target.start < hole.start:
        pieces.append(target.model_copy(update={"end": hole.start}))
    if hole.end is not None and (target.end is None or hole.end < target.end):
        pieces.append(target.model_copy(update={"start": hole.end}))
    return pieces


def _overlap(one: LoadTarget, other: LoadTarget) -> bool:
    begins_in_time = other.end is None or one.start < other.end
    return begins_in_time and (one.end is None or other.start < one.end)


def _number(span: Span) -> int:
    """The id of an interval, which is no sequence number."""
    number = span.interval.get("id")
    if type(number) is not int:
        raise RejectedError(Reason.BAD_PAYLOAD, f"an interval's id is {number!r:.40}, no integer")
    return number


def _feeds(event: JsonObject, settings: OpenAdrSettings) -> tuple[str, ...] | None:
    """The feeds that an event means; empty is all of them, None is none of ours.

    In 3.0 a target is a type with values, in 3.1 a name.
    """
    if event.get("targets") is None:
        return ()
    named: list[str] = []
    for target in list_member(event, "targets", Reason.BAD_FEED_TAGS, most=MAX_LISTED):
        values = target.get("values") if isinstance(target, dict) else [target]
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise RejectedError(Reason.BAD_FEED_TAGS, f"{target!r:.60} is no target")
        named += values
    if not named:
        return ()
    feeds = [feed for name in named for feed in settings.feeds_of.get(name, ())]
    return tuple(dict.fromkeys(feeds)) or None


def _made_at(event: JsonObject) -> datetime | None:
    for name in ("modificationDateTime", "createdDateTime"):
        text = optional_text(event, name, Reason.BAD_TIME)
        if text is not None:
            return parse_moment(text, name)
    return None


def _priority(event: JsonObject) -> float:
    if event.get("priority") is None:
        return LEAST_PRIORITY
    return number_member(event, "priority", Reason.BAD_PAYLOAD)


def _limit_w(
    span: Span, event: JsonObject, program: JsonObject, settings: OpenAdrSettings
) -> float | None:
    """The strictest limit of an interval; None where it says that all is normal."""
    limits: list[float] = []
    normal = False
    others: list[str] = []
    for payload in list_member(span.interval, "payloads", Reason.BAD_PAYLOAD, most=MAX_LISTED):
        if not isinstance(payload, dict):
            raise RejectedError(Reason.BAD_PAYLOAD, "a payload is not an object")
        kind = text_member(payload, "type", Reason.BAD_PAYLOAD)
        if kind in LIMITS:
            limits.append(_watts(payload, kind, event, program))
        elif kind == SIMPLE:
            level = _one_value(payload, kind)
            if level == 0:
                normal = True
            else:
                limits.append(_at_level(level, settings))
        elif kind.startswith("ALERT_"):
            values = list_member(payload, "values", Reason.BAD_PAYLOAD, most=MAX_LISTED)
            said = " ".join(str(value) for value in values[:3])
            raise RejectedError(Reason.ALERT_FOR_PEOPLE, f"{kind}: {said or 'no more was said'}")
        else:
            others.append(kind)
    if not limits and not normal:
        raise RejectedError(
            Reason.NOT_A_LIMIT, f"{', '.join(others) or 'an empty interval'} is no limit in watts"
        )
    return min(limits, default=None)


def _at_level(level: Any, settings: OpenAdrSettings) -> float:
    watts = settings.simple_levels_w.get(level) if type(level) is int else None
    if watts is None:
        raise RejectedError(
            Reason.SIMPLE_LEVEL_UNMAPPED, f"SIMPLE {level!r:.20} is given no watts in the settings"
        )
    return watts


def _watts(payload: JsonObject, kind: str, event: JsonObject, program: JsonObject) -> float:
    unit = _unit(kind, event) or _unit(kind, program)
    if unit is None or unit not in WATTS:
        raise RejectedError(Reason.UNKNOWN_UNIT, f"{kind} in {unit or 'no unit'} is not in watts")
    watts = number_member({kind: _one_value(payload, kind)}, kind, Reason.BAD_PAYLOAD)
    if watts < 0:
        raise RejectedError(Reason.POWER_NEGATIVE, f"{kind} of {watts:g} {unit}")
    if watts == 0:
        raise RejectedError(
            Reason.POWER_NOT_POSITIVE, f"{kind} of 0 would switch the site off: people decide that"
        )
    return watts * WATTS[unit]


def _one_value(payload: JsonObject, kind: str) -> Any:
    values = list_member(payload, "values", Reason.BAD_PAYLOAD, most=MAX_LISTED)
    if len(values) != 1:
        raise RejectedError(Reason.BAD_PAYLOAD, f"{kind} holds {len(values)} values, not one")
    return values[0]


def _unit(kind: str, of: JsonObject) -> str | None:
    if of.get("payloadDescriptors") is None:
        return None
    for descriptor in list_member(of, "payloadDescriptors", Reason.UNKNOWN_UNIT, most=MAX_LISTED):
        if isinstance(descriptor, dict) and descriptor.get("payloadType") == kind:
            return optional_text(descriptor, "units", Reason.UNKNOWN_UNIT)
    return None
