"""What flex tells the guard: the grid's limit, which of its events are open, and on what terms."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from interlock_servers.flex import COMPONENT
from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.models import LoadTarget, SiteLimit
from interlock_tools.canonical import digest
from interlock_tools.clock import Clock
from interlock_tools.fact import Fact, FactNeed, Nature, Unknown
from interlock_tools.identity import Target

GRID_LIMIT: Final = "grid.limit"
GRID_EVENT: Final = "grid.event"
GRID_SCHEDULE: Final = "grid.schedule"  # of the site
GRID_TERMS: Final = "grid.terms"  # of the same target
GRID_EVENT_KIND: Final = "grid_event"  # of its target; the id is the correlation id of the request
OPEN, NOT_OPEN = "open", "not_open"
DEAF_AFTER_S: Final = 30.0  # a limit sent while we cannot hear would be missed


class FlexFacts:
    """The fact source of flex."""

    def __init__(self, client: FlexClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._site = Target(kind="site", id=client.settings.site_id)

    @property
    def kinds(self) -> frozenset[str]:
        """Limit and schedule of the site, state and terms of one request of the grid."""
        return frozenset({GRID_LIMIT, GRID_SCHEDULE, GRID_EVENT, GRID_TERMS})

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """What the grid has said; as old as our hearing, and unknown once that failed for 30 s.

        An event is `open` from when it was heard until it has ended or another replaced it; any
        other, also one that was never heard of, is `not_open`. Its terms say what a person may
        want to decide apart from its watts: whether it is for all feeds because it names none, and
        whether it has no end; they are null of an event that is not open.
        """
        of_site = need.kind in {GRID_LIMIT, GRID_SCHEDULE} and need.subject == self._site
        of_event = need.kind in {GRID_EVENT, GRID_TERMS} and need.subject.kind == GRID_EVENT_KIND
        if not of_site and not of_event:
            why = f"flex tells of {self._site} {GRID_LIMIT}, {GRID_SCHEDULE}; of a "
            return _unknown(need, f"{why}{GRID_EVENT_KIND} {GRID_EVENT}, {GRID_TERMS}")
        health = self._client.health()
        now = self._clock.now()
        if health.certain_at is None:
            return _unknown(need, health.why_not or "nothing was heard yet")
        if now - health.certain_at > timedelta(seconds=DEAF_AFTER_S):
            deaf_s = (now - health.certain_at).total_seconds()
            return _unknown(need, f"not known for {deaf_s:.0f} s: {health.why_not}")
        if need.kind == GRID_LIMIT:
            value: Any = fact_value(self._client.site_limit(now))
        elif need.kind == GRID_SCHEDULE:
            value = self._client.schedule(now).model_dump(mode="json")
        else:
            targets = self._client.open_targets(need.subject.id, now)
            if need.kind == GRID_EVENT:
                value = OPEN if targets else NOT_OPEN
            else:
                value = terms_of(targets) if targets else None
        return Fact(
            kind=need.kind,
            subject=need.subject,
            value=value,
            origin=COMPONENT,
            version=digest({"value": value}),
            observed_at=health.certain_at,
            nature=Nature.MEASUREMENT,
        )


def fact_value(limit: SiteLimit) -> dict[str, Any]:
    """A site limit as the value of a fact: `next` is the next announced limit that differs."""
    upcoming = limit.upcoming
    return {
        "limit_w": limit.limit_w,
        "until": None if limit.until is None else limit.until.isoformat(),
        "source": limit.source,
        "correlation_id": limit.correlation_id,
        "next": None
        if upcoming is None
        else {"limit_w": upcoming.limit_w, "start": upcoming.start.isoformat()},
        "feed_limits_w": dict(limit.feed_limits_w),
    }


def terms_of(targets: Sequence[LoadTarget]) -> dict[str, bool]:
    """What a request asks for beyond its watts; false where it names its feeds and its ends."""
    return {
        "all_feeds": any(target.all_feeds for target in targets),
        "open_ended": any(target.end is None for target in targets),
    }


def _unknown(need: FactNeed, why: str) -> Unknown:
    return Unknown(kind=need.kind, subject=need.subject, why=why)
