"""What the guard must know before a load target is sent: the feeds, who limits them, our key."""

from datetime import datetime
from typing import Any

from interlock_servers.flex import COMPONENT
from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.models import LoadTarget
from interlock_servers.flex.publishing import TargetPublisher
from interlock_servers.flex.sent import Sent
from interlock_tools.canonical import digest
from interlock_tools.clock import Clock
from interlock_tools.fact import Fact, FactNeed, Nature, Unknown
from interlock_tools.identity import Target

GRID_FEEDS = "grid.feeds"  # of the site
GRID_PUBLISHER = "grid.publisher"  # of the site


class SendingFacts:
    """A source of facts beside `FlexFacts`; there only where we are an ISV."""

    def __init__(
        self, client: FlexClient, publisher: TargetPublisher, sent: Sent, clock: Clock
    ) -> None:
        self._client = client
        self._publisher = publisher
        self._sent = sent
        self._clock = clock
        self._site = Target(kind="site", id=client.settings.site_id)

    @property
    def kinds(self) -> frozenset[str]:
        """The feeds with the targets on them, and whether what we sign would be believed."""
        return frozenset({GRID_FEEDS, GRID_PUBLISHER})

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """As of the agent's oldest word on a feed; unknown where it has not spoken of every one."""
        if need.subject != self._site:
            return _unknown(need, f"flex knows the feeds of {self._site} only")
        if need.kind == GRID_PUBLISHER:
            return self._key(need)
        health = self._client.health()
        if health.why_not is not None or health.certain_at is None:
            return _unknown(need, health.why_not or "nothing was heard yet")
        states = self._client.feed_states()
        if lacking := [feed for feed in self._client.settings.feeds if feed not in states]:
            return _unknown(need, f"the Flex Agent has not spoken of {', '.join(lacking)}")
        now = self._clock.now()
        ours = await self._sent.correlation_ids()
        value = {
            "feeds": {
                feed: {
                    "minimum_w": state.power_minimum_w,
                    "maximum_w": state.power_maximum_w,
                    "default_w": state.default_limit_w,
                }
                for feed, state in states.items()
            },
            "targets": [
                self._target(target, feeds, target.correlation_id in ours)
                for target, feeds in self._standing(now)
            ],
        }
        oldest = min(state.received_at for state in states.values())
        return _fact(need, value, oldest, Nature.MEASUREMENT)

    def _standing(self, now: datetime) -> list[tuple[LoadTarget, list[str]]]:
        """Each request with its feeds; what the agent's state told of one comes feed by feed."""
        found: dict[tuple[str | None, ...], tuple[LoadTarget, set[str]]] = {}
        for target in self._client.standing(now):
            if target.limit_w is None:
                continue
            name = target.correlation_id or target.event_id
            key = (name, str(target.limit_w), str(target.start), str(target.end))
            _, feeds = found.setdefault(key, (target, set()))
            feeds.update(feed for feed in self._client.settings.feeds if target.covers(feed))
        return [(target, sorted(feeds)) for target, feeds in found.values()]

    def _target(self, target: LoadTarget, feeds: list[str], sent_by_us: bool) -> dict[str, Any]:
        return {
            "correlation_id": target.correlation_id,
            "source": target.source,
            "ours": target.source == self._publisher.settings.source or sent_by_us,
            "limit_w": target.limit_w,
            "start": target.start.isoformat(),
            "end": None if target.end is None else target.end.isoformat(),
            "all_feeds": target.all_feeds,
            "feeds": feeds,
        }

    def _key(self, need: FactNeed) -> Fact | Unknown:
        if (why := self._publisher.why_not()) is not None:
            return _unknown(need, f"what we sign would not be believed: {why}")
        settings = self._publisher.settings
        value = {"source": settings.source, "kid": settings.kid}
        return _fact(need, value, self._clock.now(), Nature.IDENTITY)


def _fact(need: FactNeed, value: Any, observed_at: datetime, nature: Nature) -> Fact:
    return Fact(
        kind=need.kind,
        subject=need.subject,
        value=value,
        origin=COMPONENT,
        version=digest(value),
        observed_at=observed_at,
        nature=nature,
    )


def _unknown(need: FactNeed, why: str) -> Unknown:
    return Unknown(kind=need.kind, subject=need.subject, why=why)
