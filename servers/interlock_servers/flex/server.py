"""The MCP face of DSX Flex: what the grid asks of the site, and how the site is said to comply."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from interlock_guardrails.guard import Guard
from interlock_servers.flex.client import FlexClient
from interlock_servers.flex.models import LoadTarget
from interlock_servers.identity import WhoCalls
from interlock_servers.offer import Face
from interlock_servers.page import Page
from interlock_tools.clock import Clock

INSTRUCTIONS = """\
DSX Flex: the limits that the grid sets on the site's feeds, verified by signature. Read only.
grid_limit is what to plan for; when its `known` is false, conclude nothing from its silence.
Compliance is what the Flex Agent calculates, not a meter; ask exchange for metered watts.
"""


class NextLimit(BaseModel):
    """The next announced limit that differs from the one in force."""

    limit_w: float
    starts_at: datetime
    correlation_id: str | None = None


class GridLimit(Page):
    """The limit on the whole site now, and the next one."""

    known: bool = Field(description="false: we may have missed a target; keep to what held")
    why: str | None = None
    limit_w: float | None = Field(default=None, description="absent: no limit, if known")
    until: datetime | None = None
    source: str | None = None
    correlation_id: str | None = None
    next: NextLimit | None = None
    feed_limits_w: dict[str, float]


class TargetView(BaseModel):
    """One verified load target."""

    limit_w: float | None = Field(default=None, description="absent: it removes the limit")
    starts_at: datetime
    ends_at: datetime | None = Field(default=None, description="absent: until it is replaced")
    feed_tags: list[str]
    all_feeds: bool
    best_effort: bool
    source: str
    correlation_id: str | None = None


class LoadTargets(Page):
    """Targets in force, by feed, and those that are announced."""

    in_force: dict[str, TargetView]
    announced: list[TargetView]


class FeedView(BaseModel):
    """What the Flex Agent says of one feed; calculated, not metered."""

    feed_tag: str
    calculated_load_w: float
    limit_w: float | None = None
    power_minimum_w: float
    power_maximum_w: float
    event: str
    in_flight: bool
    compliant: bool
    snapshot_at: datetime


class Feeds(Page):
    """Every feed that the agent has spoken of."""

    feeds: list[FeedView]


class BreachView(BaseModel):
    """A feed measured above its target."""

    breach_id: str
    feed_tag: str
    status: str
    severity: str
    detected_at: datetime
    limit_w: float
    measured_load_w: float


class Breaches(Page):
    """The last word on each breach, newest first."""

    breaches: list[BreachView]


class RefusedMessage(BaseModel):
    """Messages that were refused for one reason, and the last of them."""

    reason: str
    count: int
    last_why: str
    last_source: str | None = None
    last_at: datetime


class Refused(Page):
    """What came on the grid topics and was not believed."""

    refused: list[RefusedMessage]


def flex_face(client: FlexClient, *, clock: Clock, guard: Guard, who: WhoCalls) -> Face:
    """The tools of grid and flexibility."""
    face = Face("flex", guard=guard, who=who, instructions=INSTRUCTIONS)

    @face.read
    async def grid_limit() -> GridLimit:
        """The limit in watts on the whole site now, until when, and the next one announced."""
        now = clock.now()
        limit, health = client.site_limit(now), client.health()
        coming = limit.upcoming
        return GridLimit(
            observed_at=health.certain_at or now,
            origin="flex",
            stale_since=None if health.why_not is None else health.certain_at,
            known=health.why_not is None,
            why=health.why_not,
            limit_w=limit.limit_w,
            until=limit.until,
            source=limit.source,
            correlation_id=limit.correlation_id,
            next=None
            if coming is None
            else NextLimit(
                limit_w=coming.limit_w,
                starts_at=coming.start,
                correlation_id=coming.correlation_id,
            ),
            feed_limits_w={
                feed: watts for feed, watts in limit.feed_limits_w.items() if watts is not None
            },
        )

    @face.read
    async def list_load_targets() -> LoadTargets:
        """Every verified load target: in force by feed, and announced, in the order they begin."""
        now = clock.now()
        return LoadTargets(
            **_origin(client, now),
            in_force={
                feed: _target(target) for feed, target in client.targets_in_force(now).items()
            },
            announced=[_target(target) for target in client.upcoming(now)[:50]],
        )

    @face.read
    async def list_feeds() -> Feeds:
        """What the Flex Agent says of each feed: load, limits it can take, ramp, compliance."""
        feeds = [
            FeedView(
                feed_tag=state.feed_tag,
                calculated_load_w=state.calculated_load_w,
                limit_w=next((t.limit_w for t in state.targets if t.active), None),
                power_minimum_w=state.power_minimum_w,
                power_maximum_w=state.power_maximum_w,
                event=state.event.value,
                in_flight=state.in_flight,
                compliant=state.compliant,
                snapshot_at=state.snapshot_at,
            )
            for state in client.feed_states().values()
        ]
        return Feeds(**_origin(client, clock.now()), feeds=feeds)

    @face.read
    async def list_breaches(limit: Annotated[int, Field(ge=1, le=100)] = 20) -> Breaches:
        """Feeds that were measured above their target, newest first, with their status."""
        breaches = [
            BreachView(
                breach_id=breach.breach_id,
                feed_tag=breach.feed_tag,
                status=breach.status.value,
                severity=breach.severity.value,
                detected_at=breach.detected_at,
                limit_w=breach.limit_w,
                measured_load_w=breach.measured_load_w,
            )
            for breach in client.breaches()[:limit]
        ]
        return Breaches(**_origin(client, clock.now()), breaches=breaches)

    @face.read
    async def list_refused_messages() -> Refused:
        """Messages on the grid topics that were not believed, by reason, with the last of each."""
        refused = [
            RefusedMessage(
                reason=reason.value,
                count=seen.count,
                last_why=seen.last_why,
                last_source=seen.last_source,
                last_at=seen.last_at,
            )
            for reason, seen in client.rejected().items()
        ]
        return Refused(**_origin(client, clock.now()), refused=refused)

    return face


def _origin(client: FlexClient, now: datetime) -> dict[str, Any]:
    health = client.health()
    return {
        "observed_at": health.certain_at or now,
        "origin": "flex",
        "stale_since": None if health.why_not is None else health.certain_at,
    }


def _target(target: LoadTarget) -> TargetView:
    return TargetView(
        limit_w=target.limit_w,
        starts_at=target.start,
        ends_at=target.end,
        feed_tags=list(target.feed_tags),
        all_feeds=target.all_feeds,
        best_effort=target.best_effort,
        source=target.source,
        correlation_id=target.correlation_id,
    )
