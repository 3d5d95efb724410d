"""What the tools of flex answer: pages and their rows."""

from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel, Field

from interlock_servers.page import Heard, Listing, Row
from interlock_servers.plant_text import PlantName, PlantWords


class NextLimit(BaseModel):
    """The next announced limit that differs from the one in force."""

    limit_w: float
    starts_at: datetime
    correlation_id: PlantName | None = None


class GridLimit(Heard):
    """The limit on the whole site now, and the next one."""

    known: bool = Field(description="false: a target may have been missed; keep to what held")
    why: PlantWords | None = None
    limit_w: float | None = Field(default=None, description="absent: no limit, if known")
    until: datetime | None = None
    source: PlantName | None = None
    correlation_id: PlantName | None = None
    next: NextLimit | None = None
    feed_limits_w: dict[PlantName, float]


class TargetView(Row):
    """One verified load target."""

    identity: ClassVar[tuple[str, ...]] = ("event_id", "starts_at", "limit_w")

    event_id: PlantName
    starts_at: datetime
    limit_w: float | None = Field(default=None, description="absent: it removes the limit")
    ends_at: datetime | None = Field(default=None, description="absent: until replaced")
    in_force_on: list[PlantName] | None = Field(default=None, description="feeds; none: announced")
    feed_tags: list[PlantName] | None = None
    all_feeds: bool | None = None
    best_effort: bool | None = None
    source: PlantName | None = None
    correlation_id: PlantName | None = None


class LoadTargets(Heard, Listing):
    """Targets in force, then those that are announced."""

    listed: ClassVar[str] = "targets"

    targets: list[TargetView]


class StepView(Row):
    """The site's limit from one moment to the next, in a straight line."""

    identity: ClassVar[tuple[str, ...]] = ("starts_at", "limit_w")

    starts_at: datetime
    limit_w: float | None = Field(default=None, description="absent: no limit")
    end_limit_w: float | None = None
    ends_at: datetime | None = None
    kind: str | None = None
    feed_limits_w: dict[PlantName, float] | None = None
    event_ids: list[PlantName] | None = None


class GridSchedule(Heard, Listing):
    """The site's limit over time, and what is odd about it."""

    listed: ClassVar[str] = "steps"

    known: bool
    remarks: list[PlantWords]
    steps: list[StepView]


class FeedView(Row):
    """What the Flex Agent says of one feed; calculated, not metered."""

    identity: ClassVar[tuple[str, ...]] = ("feed_tag",)

    feed_tag: PlantName
    calculated_load_w: float | None = None
    limit_w: float | None = None
    power_minimum_w: float | None = None
    power_maximum_w: float | None = None
    default_limit_w: float | None = None
    event: str | None = None
    in_flight: bool | None = None
    compliant: bool | None = None
    snapshot_at: datetime | None = None


class Feeds(Heard, Listing):
    """Feeds that the agent has spoken of."""

    listed: ClassVar[str] = "feeds"

    feeds: list[FeedView]


class BreachView(Row):
    """A feed measured above its target."""

    identity: ClassVar[tuple[str, ...]] = ("breach_id",)

    breach_id: PlantName
    feed_tag: PlantName | None = None
    status: str | None = None
    severity: str | None = None
    detected_at: datetime | None = None
    resolved_at: datetime | None = None
    correlation_id: PlantName | None = None
    limit_w: float | None = None
    measured_load_w: float | None = None
    shed_hints: list[PlantWords] | None = Field(default=None, description="advice, first first")
    infrastructure_actions: list[PlantName] | None = Field(
        default=None, description="what others may do; no tool does it"
    )


class Breaches(Heard, Listing):
    """The last word on each breach, newest first."""

    listed: ClassVar[str] = "breaches"

    breaches: list[BreachView]


class RefusedMessage(Row):
    """Messages that were refused for one reason, and the last of them."""

    identity: ClassVar[tuple[str, ...]] = ("reason",)

    reason: str
    count: int | None = None
    last_why: PlantWords | None = None
    last_source: PlantName | None = None
    last_at: datetime | None = None


class Refused(Heard, Listing):
    """What came on the grid topics and was not believed."""

    listed: ClassVar[str] = "refused"

    refused: list[RefusedMessage]


class EnforcementView(Row):
    """What the infrastructure agent did about a breach."""

    identity: ClassVar[tuple[str, ...]] = ("breach_id",)

    breach_id: PlantName
    feed_tag: PlantName | None = None
    action: str | None = None
    code: str | None = None
    why: PlantWords | None = None
    enforced_at: datetime | None = None
    results: list[PlantWords] | None = None


class Enforcements(Heard, Listing):
    """The last word on each breach that was acted on, newest first."""

    listed: ClassVar[str] = "enforcements"

    enforcements: list[EnforcementView]
