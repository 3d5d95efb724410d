"""What the grid and the site say to each other, once it has been read: frozen, in watts and UTC."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from interlock_servers.plant_text import plant_text

MAX_WHY_CHARS = 240


class Reason(StrEnum):
    """Why a message was rejected."""

    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    DUPLICATE_MEMBER = "duplicate_member"
    NOT_AN_OBJECT = "not_an_object"
    UNKNOWN_TOPIC = "unknown_topic"
    BAD_SPECVERSION = "bad_specversion"
    BAD_ID = "bad_id"
    BAD_SOURCE = "bad_source"
    SOURCE_MISMATCH = "source_mismatch"
    BAD_TYPE = "bad_type"
    BAD_SUBJECT = "bad_subject"
    BAD_TIME = "bad_time"
    BAD_CONTENT_TYPE = "bad_content_type"
    BAD_TRACEPARENT = "bad_traceparent"
    BAD_CORRELATION_ID = "bad_correlation_id"
    NO_DATA = "no_data"
    UNSIGNED = "unsigned"
    BAD_JWS = "bad_jws"
    ALGORITHM_REFUSED = "algorithm_refused"
    NO_KID = "no_kid"
    UNKNOWN_KEY = "unknown_key"
    KEY_NOT_PUBLISHED = "key_not_published"
    KEYS_UNKNOWN = "keys_unknown"
    UNTRUSTED_SOURCE = "untrusted_source"
    KEY_OF_ANOTHER_SOURCE = "key_of_another_source"
    BAD_SIGNATURE = "bad_signature"
    TOO_OLD = "too_old"
    IN_THE_FUTURE = "in_the_future"
    REPLAYED = "replayed"
    MEMORY_LOST = "memory_lost"
    BAD_PAYLOAD = "bad_payload"
    BAD_FEED_TAGS = "bad_feed_tags"
    UNKNOWN_FEED = "unknown_feed"
    BAD_INTERVAL = "bad_interval"
    INTERVAL_PAST = "interval_past"
    POWER_NOT_FINITE = "power_not_finite"
    POWER_NOT_POSITIVE = "power_not_positive"
    POWER_NEGATIVE = "power_negative"
    UNKNOWN_UNIT = "unknown_unit"
    ALERT_FOR_PEOPLE = "alert_for_people"
    NOT_A_LIMIT = "not_a_limit"
    SIMPLE_LEVEL_UNMAPPED = "simple_level_unmapped"
    STORE_FULL = "store_full"
    FAILED = "failed"


class Deviation(StrEnum):
    """A departure from the specification that is accepted, counted and shown."""

    SPECVERSION_1_0 = "specversion_1.0"
    OLD_ROLE_POWERAGENT = "old_role_poweragent"
    NO_CORRELATION_ID = "no_correlation_id"
    UNKNOWN_FEED = "unknown_feed"
    REPLAY_MEMORY_LOST = "replay_memory_lost"


class RejectedError(Exception):
    """A message cannot be used; `reason` is its name and `why` the detail, bounded in length."""

    def __init__(self, reason: Reason, why: str) -> None:
        self.reason = reason
        self.why = plant_text(why, MAX_WHY_CHARS)
        super().__init__(f"{reason}: {self.why}")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FeedEvent(StrEnum):
    """What made the agent publish a feed's state."""

    TARGET_SET = "target_set"
    START_RAMP_DOWN = "start_ramp_down"
    END_RAMP_DOWN = "end_ramp_down"
    START_RAMP_UP = "start_ramp_up"
    END_RAMP_UP = "end_ramp_up"
    PERIODIC = "periodic"


class BreachStatus(StrEnum):
    """Where a breach is in its life."""

    ACTIVE = "active"
    ESCALATED = "escalated"
    RESOLVED = "resolved"


class Severity(StrEnum):
    """How far above its target a feed is: up to 20 %, or more."""

    WARNING = "warning"
    CRITICAL = "critical"


class LoadTarget(_Frozen):
    """A limit on the draw of some feeds, or of all of them together, for a time.

    Attributes:
        limit_w: the limit; None removes whatever limit held before.
        start: when it begins (the moment it came, where the message left it out).
        end: when it ends; None holds until it is replaced.
        feed_tags: the feeds it names, each limited to `limit_w`; empty with `all_feeds`.
        all_feeds: the message named no feed, which is every feed of the site.
        best_effort: the agent may stay above it rather than disrupt work.
        correlation_id: the sender's id for the request, where it gave one.
        source: who sent it, as `//grid/v1/<role>/<identifier>`.
        event_id: the id of the event that carried it.
        sent_at: the `time` of that event.
        received_at: when it came to us.
        from_snapshot: not heard itself but learned from the agent's state: we had missed it.
    """

    limit_w: float | None = Field(gt=0, allow_inf_nan=False)
    start: datetime
    end: datetime | None
    feed_tags: tuple[str, ...]
    all_feeds: bool
    best_effort: bool
    correlation_id: str | None
    source: str
    event_id: str
    sent_at: datetime
    received_at: datetime
    from_snapshot: bool = False

    def covers(self, feed_tag: str) -> bool:
        """Whether it speaks of this feed."""
        return self.all_feeds or feed_tag in self.feed_tags

    def holds_at(self, moment: datetime) -> bool:
        """Whether `moment` lies in its interval; the end is outside."""
        return self.start <= moment and (self.end is None or moment < self.end)

    def ended(self, moment: datetime) -> bool:
        """Whether it is over at `moment`."""
        return self.end is not None and self.end <= moment


class FeedTarget(_Frozen):
    """A target as the agent reports it for one feed."""

    active: bool
    limit_w: float
    start: datetime | None
    end: datetime | None
    best_effort: bool
    correlation_id: str


class FeedState(_Frozen):
    """What the agent says of one feed. `calculated_load_w` and `compliant` are not metered."""

    feed_tag: str
    power_minimum_w: float
    power_maximum_w: float
    default_limit_w: float
    targets: tuple[FeedTarget, ...]
    calculated_load_w: float
    in_flight: bool
    event: FeedEvent
    power_event_start: datetime | None
    compliant: bool
    source: str
    snapshot_at: datetime
    received_at: datetime


class ShedHint(_Frozen):
    """The agent's advice which resource to throttle; nobody is bound by it."""

    resource_id: str
    resource_type: str
    action: str
    priority: int
    target_power_w: float | None


class PowerBreach(_Frozen):
    """A feed measured above its target; the same `breach_id` from `active` to `resolved`."""

    breach_id: str
    feed_tag: str
    status: BreachStatus
    severity: Severity
    detected_at: datetime
    resolved_at: datetime | None
    limit_w: float
    measured_load_w: float
    correlation_id: str
    shed_hints: tuple[ShedHint, ...]
    infrastructure_actions: tuple[str, ...]
    source: str
    received_at: datetime


class EnforcementResult(_Frozen):
    """What became of one shed hint."""

    resource_id: str
    resource_type: str
    requested_action: str
    code: str
    message: str | None
    applied_power_w: float | None


class Enforcement(_Frozen):
    """What the infrastructure agent did about a breach."""

    breach_id: str
    feed_tag: str
    action: str
    code: str
    diag_msg: str | None
    results: tuple[EnforcementResult, ...]
    enforced_at: datetime
    source: str
    received_at: datetime


class Rejected(_Frozen):
    """How often messages were rejected for one reason, and the last one."""

    reason: Reason
    count: int
    last_why: str
    last_topic: str
    last_source: str | None
    last_event_id: str | None
    last_at: datetime


class NextLimit(_Frozen):
    """The next limit that is announced, with the id of the newest target behind it."""

    limit_w: float
    start: datetime
    correlation_id: str | None = None


class SiteLimit(_Frozen):
    """The limit on the whole site at one moment, worked out from the targets of its feeds.

    Attributes:
        limit_w: what the site may draw; None where at least one feed is free.
        until: when `limit_w` changes, as far as is announced; None where nothing is, or no limit.
        source: who sent the newest target behind `limit_w`.
        correlation_id: the id of that target.
        upcoming: the next limit that differs from `limit_w`.
        feed_limits_w: the limit named for each feed alone; None where it has none of its own.
    """

    limit_w: float | None
    until: datetime | None
    source: str | None
    correlation_id: str | None
    upcoming: NextLimit | None
    feed_limits_w: dict[str, float | None]
