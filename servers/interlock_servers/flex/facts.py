"""What flex tells the guard: the limit that the grid has set, and which grid events are open."""

from datetime import timedelta
from typing import Any, Final

from interlock_servers.flex import COMPONENT
from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.models import SiteLimit
from interlock_tools.canonical import digest
from interlock_tools.clock import Clock
from interlock_tools.fact import Fact, FactNeed, Nature, Unknown
from interlock_tools.identity import Target

GRID_LIMIT: Final = "grid.limit"
GRID_EVENT: Final = "grid.event"
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
        """`grid.limit` of the site, and `grid.event` of one request of the grid."""
        return frozenset({GRID_LIMIT, GRID_EVENT})

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """What the grid has said; as old as our hearing, and unknown once that failed for 30 s.

        An event is `open` from when it was heard until it has ended or another replaced it; any
        other, also one that was never heard of, is `not_open`.
        """
        limit = need.kind == GRID_LIMIT and need.subject == self._site
        if not limit and (need.kind != GRID_EVENT or need.subject.kind != GRID_EVENT_KIND):
            why = f"flex tells {GRID_LIMIT} of {self._site} and {GRID_EVENT} of a {GRID_EVENT_KIND}"
            return _unknown(need, why)
        health = self._client.health()
        now = self._clock.now()
        if health.certain_at is None:
            return _unknown(need, health.why_not or "nothing was heard yet")
        if now - health.certain_at > timedelta(seconds=DEAF_AFTER_S):
            deaf_s = (now - health.certain_at).total_seconds()
            return _unknown(need, f"not known for {deaf_s:.0f} s: {health.why_not}")
        if limit:
            value: Any = fact_value(self._client.site_limit(now))
        else:
            value = OPEN if self._client.is_open(need.subject.id, now) else NOT_OPEN
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


def _unknown(need: FactNeed, why: str) -> Unknown:
    return Unknown(kind=need.kind, subject=need.subject, why=why)
