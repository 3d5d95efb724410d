"""The limit of the site over time, from the targets that are known: a pure function.

Neither Flex nor OpenADR says how fast a site may move, so the ramp is the site's own. It is laid
before a limit begins and after it ends, never into it: the schedule is nowhere above a target.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from interlock_servers.flex.in_force import Held, held_at, turns_after
from interlock_servers.flex.models import LoadTarget
from interlock_servers.plant_text import plant_text

MAX_WHY_CHARS = 240


class Ramp(BaseModel):
    """How fast the site goes down and up, and what it draws where nothing limits it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    down_w_per_s: float = Field(gt=0, allow_inf_nan=False)
    up_w_per_s: float = Field(gt=0, allow_inf_nan=False)
    free_w: float = Field(gt=0, allow_inf_nan=False)


class StepKind(StrEnum):
    """What the limit does in a step."""

    HOLD = "hold"
    RAMP_DOWN = "ramp_down"
    RAMP_UP = "ramp_up"


class RemarkKind(StrEnum):
    """What a person should know about a schedule."""

    NO_TARGETS = "no_targets"
    PAST = "past"
    UNKNOWN_FEED = "unknown_feed"
    CONTRADICTION = "contradiction"
    SHORT_NOTICE = "short_notice"
    RAMP_TOO_LATE = "ramp_too_late"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Remark(_Frozen):
    """One thing to know, and the events that it is about."""

    kind: RemarkKind
    why: str
    event_ids: tuple[str, ...]
    sources: tuple[str, ...]


class Step(_Frozen):
    """The limit from `start` to `end`, in a straight line.

    Attributes:
        start: when it begins.
        end: when it ends; None for ever, as far as is announced.
        limit_w: at `start`; None where nothing limits the site.
        end_limit_w: at `end`.
        kind: whether it holds or moves.
        feed_limits_w: the feeds that have a limit of their own, which hold throughout.
        event_ids: the events behind the limit; of a ramp, those that it leads to or comes from.
    """

    start: datetime
    end: datetime | None
    limit_w: float | None
    end_limit_w: float | None
    kind: StepKind
    feed_limits_w: dict[str, float]
    event_ids: tuple[str, ...]


class Schedule(_Frozen):
    """What the site may draw, from a moment on, and what to know about it."""

    steps: tuple[Step, ...]
    remarks: tuple[Remark, ...]

    def limit_w(self, moment: datetime) -> float | None:
        """The limit at `moment`; None where nothing limits the site then."""
        for step in self.steps:
            if step.start <= moment and (step.end is None or moment < step.end):
                if step.limit_w is None or step.end_limit_w is None or step.end is None:
                    return step.limit_w
                share = (moment - step.start) / (step.end - step.start)
                return step.limit_w + share * (step.end_limit_w - step.limit_w)
        return None


class _Base(NamedTuple):
    """A stretch in which the targets do not change; seconds count from the schedule's start."""

    from_s: float
    to_s: float  # infinite for the last
    limit_w: float  # infinite where nothing limits
    held: Held


class _Line(NamedTuple):
    """watts = at_zero_w + slope * seconds, and whose it is."""

    at_zero_w: float
    slope_w_per_s: float
    event_ids: tuple[str, ...]

    def at(self, moment_s: float) -> float:
        return self.at_zero_w + self.slope_w_per_s * moment_s if self.slope_w_per_s else self[0]


def grid_schedule(
    targets: Iterable[LoadTarget],
    *,
    feeds: Sequence[str],
    now: datetime,
    ramp: Ramp | None = None,
    draw_w: float | None = None,
    notice_s: float = 0.0,
) -> Schedule:
    """The schedule from `now` on; the order of `targets` and equal ones among them do not matter.

    Args:
        targets: all that are known; those that are over, or of other feeds, are remarked upon.
        feeds: the feeds of the site, all of them.
        now: where the schedule begins.
        ramp: how the site moves; without it limits begin and end in one step.
        draw_w: what the site draws now, to tell whether a ramp begins too late.
        notice_s: the notice that the site was promised; less is remarked upon.
    """
    remarks: list[Remark] = []
    ranked = _usable(targets, feeds, now, remarks)
    if not ranked:
        remarks.append(_remark(RemarkKind.NO_TARGETS, "no target holds now or later", ()))
    base = list(_stretches(ranked, feeds, now))
    remarks += _contradictions(base)
    remarks += _short_notices(ranked, notice_s)
    pieces = [_hold(one, now) for one in base]
    if ramp is not None:
        pieces, down = _ramped(base, ramp, now)
        remarks += _late(down, ramp, draw_w)
    return Schedule(steps=tuple(_joined(pieces)), remarks=tuple(dict.fromkeys(remarks)))


def rank(target: LoadTarget) -> tuple[datetime, datetime, str, float]:
    """Which of two targets of one source wins: sent later, came later, and else the stricter."""
    strictness = -math.inf if target.limit_w is None else -target.limit_w
    return target.sent_at, target.received_at, target.event_id, strictness


def _usable(
    targets: Iterable[LoadTarget], feeds: Sequence[str], now: datetime, remarks: list[Remark]
) -> list[LoadTarget]:
    distinct = {target.model_dump_json(): target for target in targets}
    usable = []
    for _, target in sorted(distinct.items(), key=lambda item: (rank(item[1]), item[0])):
        unknown = [tag for tag in target.feed_tags if tag not in feeds]
        if unknown:
            why = f"{', '.join(unknown)} is no feed of this site"
            remarks.append(_remark(RemarkKind.UNKNOWN_FEED, why, [target]))
        if target.ended(now):
            remarks.append(_remark(RemarkKind.PAST, f"it ended at {target.end}", [target]))
        elif any(target.covers(feed) for feed in feeds):
            usable.append(target)
    return usable


def _stretches(
    ranked: Sequence[LoadTarget], feeds: Sequence[str], now: datetime
) -> Iterator[_Base]:
    turns = [now, *turns_after(ranked, now)]
    ends = [(turn - now).total_seconds() for turn in turns[1:]] + [math.inf]
    for turn, to_s in zip(turns, ends, strict=True):
        held = held_at(ranked, feeds, turn)
        limit_w = math.inf if held.limit_w is None else held.limit_w
        yield _Base((turn - now).total_seconds(), to_s, limit_w, held)


def _ramped(
    base: Sequence[_Base], ramp: Ramp, now: datetime
) -> tuple[list[Step], list[tuple[_Line, _Base]]]:
    """The highest line below `base` that falls and rises no faster than the ramp.

    Going down towards each later stretch and up from each earlier one are parallel lines, so of
    each family one is the lowest.
    """
    falling: list[_Line | None] = [None] * len(base)
    towards: list[tuple[_Line, _Base]] = []
    for place in range(len(base) - 2, -1, -1):
        coming = base[place + 1]
        line = _Line(
            coming.limit_w + ramp.down_w_per_s * coming.from_s,
            -ramp.down_w_per_s,
            _events(coming.held),
        )
        falling[place] = _lower(line, falling[place + 1])
        towards.append((line, coming))
    rising: list[_Line | None] = [None] * len(base)
    for place in range(1, len(base)):
        gone = base[place - 1]
        line = _Line(
            gone.limit_w - ramp.up_w_per_s * gone.to_s, ramp.up_w_per_s, _events(gone.held)
        )
        rising[place] = _lower(line, rising[place - 1])
    steps: list[Step] = []
    for one, down, up in zip(base, falling, rising, strict=True):
        steps += _lowest(one, [line for line in (down, up) if line is not None], ramp, now)
    return steps, towards


def _lower(line: _Line, other: _Line | None) -> _Line | None:
    lowest = line if other is None or line.at_zero_w < other.at_zero_w else other
    return None if math.isinf(lowest.at_zero_w) else lowest


def _lowest(one: _Base, lines: list[_Line], ramp: Ramp, now: datetime) -> Iterator[Step]:
    """The pieces of a stretch: wherever another line is the lowest, a piece begins."""
    level_w = ramp.free_w if math.isinf(one.limit_w) else one.limit_w
    level = _Line(level_w, 0.0, _events(one.held))
    family = [level, *lines]
    cuts = {one.from_s, one.to_s}
    for place, line in enumerate(family):
        for other in family[:place]:
            cut = (other.at_zero_w - line.at_zero_w) / (line.slope_w_per_s - other.slope_w_per_s)
            if one.from_s < cut < one.to_s:
                cuts.add(cut)
    for from_s, to_s in pairwise(sorted(cuts)):
        if not math.isinf(to_s) and _moment(now, from_s) == _moment(now, to_s):
            continue
        line = _lowest_at(family, from_s + 1.0 if math.isinf(to_s) else (from_s + to_s) / 2)
        if line is level:
            yield _hold(one._replace(from_s=from_s, to_s=to_s), now)
        else:
            yield Step(
                start=_moment(now, from_s),
                end=None if math.isinf(to_s) else _moment(now, to_s),
                limit_w=line.at(from_s),
                end_limit_w=None if math.isinf(to_s) else line.at(to_s),
                kind=StepKind.RAMP_UP if line.slope_w_per_s > 0 else StepKind.RAMP_DOWN,
                feed_limits_w=_feed_limits_w(one.held),
                event_ids=line.event_ids,
            )


def _lowest_at(family: Iterable[_Line], moment_s: float) -> _Line:
    return min(family, key=lambda line: line.at(moment_s))


def _hold(one: _Base, now: datetime) -> Step:
    limit_w = None if math.isinf(one.limit_w) else one.limit_w
    return Step(
        start=_moment(now, one.from_s),
        end=None if math.isinf(one.to_s) else _moment(now, one.to_s),
        limit_w=limit_w,
        end_limit_w=limit_w,
        kind=StepKind.HOLD,
        feed_limits_w=_feed_limits_w(one.held),
        event_ids=_events(one.held),
    )


def _joined(steps: Iterable[Step]) -> Iterator[Step]:
    """Stretches in which nothing differs are one."""
    last: Step | None = None
    for step in steps:
        if last is not None and _says(last) == _says(step) and step.kind is StepKind.HOLD:
            last = last.model_copy(update={"end": step.end})
            continue
        if last is not None:
            yield last
        last = step
    if last is not None:
        yield last


def _says(step: Step) -> tuple[object, ...]:
    return step.kind, step.limit_w, step.feed_limits_w, step.event_ids


def _contradictions(base: Iterable[_Base]) -> Iterator[Remark]:
    for one in base:
        for feed, targets in one.held.by_feed.items():
            if len({target.limit_w for target in targets}) > 1:
                asked = " and ".join(f"{_watts(t)} by {t.source}" for t in targets)
                why = f"for {feed} there is {asked}; the stricter counts"
                yield _remark(RemarkKind.CONTRADICTION, why, targets)


def _short_notices(ranked: Iterable[LoadTarget], notice_s: float) -> Iterator[Remark]:
    for target in ranked:
        given_s = max(0.0, (target.start - target.received_at).total_seconds())
        if target.limit_w is not None and not target.from_snapshot and given_s < notice_s:
            why = f"it came {given_s:.0f} s before it begins; {notice_s:.0f} s were promised"
            yield _remark(RemarkKind.SHORT_NOTICE, why, [target])


def _late(
    towards: Iterable[tuple[_Line, _Base]], ramp: Ramp, draw_w: float | None
) -> Iterator[Remark]:
    if draw_w is None:
        return
    for line, coming in towards:
        over_w = draw_w - line.at_zero_w
        if over_w > 0:
            late_s = over_w / ramp.down_w_per_s
            why = f"from {draw_w:.0f} W the ramp should have begun {late_s:.0f} s ago"
            yield _remark(RemarkKind.RAMP_TOO_LATE, why, coming.held.behind)


def _remark(kind: RemarkKind, why: str, targets: Sequence[LoadTarget]) -> Remark:
    return Remark(
        kind=kind,
        why=plant_text(why, MAX_WHY_CHARS),
        event_ids=tuple(dict.fromkeys(target.event_id for target in targets)),
        sources=tuple(dict.fromkeys(target.source for target in targets)),
    )


def _watts(target: LoadTarget) -> str:
    return "no limit" if target.limit_w is None else f"{target.limit_w:.0f} W"


def _events(held: Held) -> tuple[str, ...]:
    return tuple(dict.fromkeys(target.event_id for target in held.behind))


def _feed_limits_w(held: Held) -> dict[str, float]:
    return {feed: watts for feed, watts in held.feed_limits_w.items() if watts is not None}


def _moment(now: datetime, after_s: float) -> datetime:
    return now + timedelta(seconds=after_s)
