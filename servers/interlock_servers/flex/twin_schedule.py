"""The targets that the agent twin has taken, and which of them governs a feed at a moment."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from interlock_servers.flex.twin_wire import WATTS_PER, Json, iso, public_keys, verified

UNLIMITED: Final = float("inf")


@dataclass(frozen=True)
class TakenTarget:
    """A target that was taken; `feeds` empty is all of them, held against their sum."""

    target_id: str
    limit_w: float  # infinite: the limit was removed
    constraint: Json | None
    start: datetime
    end: datetime | None
    feeds: tuple[str, ...]
    best_effort: bool

    def holds(self, feed: str, moment: datetime) -> bool:
        """Whether it speaks of `feed` at `moment`."""
        there = not self.feeds or feed in self.feeds
        return there and self.start <= moment and (self.end is None or moment < self.end)


class Schedule:
    """Targets in the order in which they came: of two for one moment the later one wins."""

    def __init__(self, isv_jwks: Mapping[str, Any]) -> None:
        self._keys = public_keys(isv_jwks)
        self._seen: set[str] = set()
        self._targets: list[TakenTarget] = []

    def take(self, payload: bytes, now: datetime) -> Sequence[TakenTarget]:
        """The targets of one message, taken; none where it is not signed, not new or not right."""
        try:
            message = json.loads(payload)
            event_id, body = message["id"], verified(message["data"], self._keys)
            if body is None or event_id in self._seen:
                return ()
            target_id = message.get("correlationid") or event_id
            targets = [_taken(entry, target_id, now) for entry in body["targets"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            return ()
        if any(not target.limit_w > 0 for target in targets):
            return ()
        self._seen.add(event_id)
        self._targets.extend(targets)
        return targets

    def forget_ended(self, now: datetime) -> None:
        """Let go of what is over."""
        self._targets = [t for t in self._targets if t.end is None or t.end > now]

    def at(self, feed: str, moment: datetime) -> TakenTarget | None:
        """The target that limits `feed` at `moment`."""
        for target in reversed(self._targets):
            if target.holds(feed, moment):
                return None if target.constraint is None else target
        return None

    def listed(self, feed: str, now: datetime) -> list[Json]:
        """The active and the scheduled targets of a feed, as its state reports them."""
        active = self.at(feed, now)
        listed = []
        for target in self._targets:
            waits = target.start > now and self.at(feed, target.start) is target
            if target is active or waits:
                interval = {"start_time": iso(target.start)}
                if target.end is not None:
                    interval["end_time"] = iso(target.end)
                listed.append(
                    {
                        "active": target is active,
                        "load_constraint": target.constraint,
                        "interval": interval,
                        "strategy": {"best_effort": target.best_effort},
                        "correlation_id": target.target_id,
                    }
                )
        return listed


def _taken(entry: Json, target_id: str, now: datetime) -> TakenTarget:
    constraint, interval = entry["load_constraint"], entry["interval"]
    start, end = interval.get("start_time"), interval.get("end_time")
    return TakenTarget(
        target_id=target_id,
        limit_w=UNLIMITED
        if constraint is None
        else constraint["value"] * WATTS_PER[constraint["unit"]],
        constraint=constraint,
        start=now if start is None else datetime.fromisoformat(start),
        end=None if end is None else datetime.fromisoformat(end),
        feeds=tuple(entry.get("feed_tags") or ()),
        best_effort=bool((entry.get("strategy") or {}).get("best_effort", False)),
    )
