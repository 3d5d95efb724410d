"""What is read from the grid's messages, and every way in which one is refused by name."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from interlock_servers.flex.envelope import Envelope, Kind, parse_envelope, parse_topic
from interlock_servers.flex.models import BreachStatus, Deviation, Reason, RejectedError, Severity
from interlock_servers.flex.payloads import (
    parse_breach,
    parse_enforcement,
    parse_load_targets,
    parse_power_state,
)
from interlock_servers.flex.strict_json import parse_object
from tests.servers.flex.conftest import START
from tests.servers.flex.raw import (
    ABSENT,
    BREACH,
    BREACH_ID,
    CORRELATION_ID,
    ENFORCEMENT,
    LOAD_TARGETS,
    POWER_STATE,
    Json,
    changed,
    envelope,
    text,
)

TOPIC = "grid/v1/isv/acme-energy/loadtarget/set"
TARGET = ("targets", 0)
CONSTRAINT = (*TARGET, "load_constraint")
FEED = ("feeds", "main-a")


def read(document: Json, topic: str = TOPIC) -> Envelope:
    """The envelope of a document that came on a topic."""
    return parse_envelope(parse_topic(topic), text(document))


def test_a_target_is_read_in_watts_and_utc() -> None:
    """Whatever unit and offset the sender likes."""
    payload = changed(
        LOAD_TARGETS, (*TARGET, "interval", "start_time"), "2026-11-01T14:10:00+02:00"
    )
    (target,) = parse_load_targets(read(envelope()), payload, START)
    assert target.limit_w == 6_500.0
    assert target.start == datetime(2026, 11, 1, 12, 10, tzinfo=UTC)
    assert target.start.utcoffset() == timedelta(0)
    assert target.end == datetime(2026, 11, 1, 13, 10, tzinfo=UTC)
    assert (target.feed_tags, target.all_feeds, target.best_effort) == (("main-a",), False, True)
    assert (target.source, target.correlation_id) == ("//grid/v1/isv/acme-energy", CORRELATION_ID)
    assert target.received_at == START


@pytest.mark.parametrize(
    ("value", "unit", "limit_w"),
    [(6_500, "watt", 6_500.0), (6.5, "kilowatt", 6_500.0), (0.0065, "megawatt", 6_500.0)],
)
def test_every_unit_becomes_watts(value: float, unit: str, limit_w: float) -> None:
    """A number without its unit is how a site gets a thousandfold limit."""
    payload = changed(LOAD_TARGETS, CONSTRAINT, {"value": value, "unit": unit})
    (target,) = parse_load_targets(read(envelope()), payload, START)
    assert target.limit_w == pytest.approx(limit_w)


@pytest.mark.parametrize("feed_tags", [ABSENT, []])
def test_no_feed_tags_is_every_feed_and_says_so(feed_tags: Any) -> None:
    """The danger of the contract in one line; it is a flag of its own, never an empty list."""
    payload = changed(LOAD_TARGETS, (*TARGET, "feed_tags"), feed_tags)
    (target,) = parse_load_targets(read(envelope()), payload, START)
    assert target.all_feeds
    assert target.feed_tags == ()


def test_an_absent_start_is_now_and_an_absent_end_is_until_replaced() -> None:
    """Both defaults are the specification's."""
    payload = changed(LOAD_TARGETS, (*TARGET, "interval"), {})
    (target,) = parse_load_targets(read(envelope()), payload, START)
    assert (target.start, target.end) == (START, None)
    assert target.holds_at(START + timedelta(days=400))


def test_null_removes_a_limit_and_is_not_zero() -> None:
    """Only an explicit null does."""
    payload = changed(LOAD_TARGETS, CONSTRAINT, None)
    (target,) = parse_load_targets(read(envelope()), payload, START)
    assert target.limit_w is None


def test_the_agents_state_is_read() -> None:
    """All three units in one state."""
    topic = "grid/v1/dsx-flex-agent/maxlps/powerstate/status"
    (state,) = parse_power_state(read(envelope("powerstate"), topic), POWER_STATE, START)
    assert (state.feed_tag, state.power_maximum_w, state.default_limit_w) == (
        "main-a",
        12_000.0,
        12_000.0,
    )
    assert state.targets[0].limit_w == 6_500.0
    assert state.targets[0].active
    assert state.compliant


def test_a_breach_and_its_enforcement_are_read() -> None:
    """The two halves of a breach share its id."""
    topic = "grid/v1/dsx-flex-agent/maxlps/powerbreach"
    breach = parse_breach(read(envelope("powerbreach"), topic), BREACH, START)
    assert (breach.breach_id, breach.status, breach.severity) == (
        BREACH_ID,
        BreachStatus.ACTIVE,
        Severity.WARNING,
    )
    assert (breach.limit_w, breach.measured_load_w) == (6_500.0, 7_000.0)
    topic = "grid/v1/infra/ima-prod/powerbreach/enforcement"
    enforced = parse_enforcement(read(envelope("enforcement"), topic), ENFORCEMENT, START)
    assert (enforced.breach_id, enforced.code) == (BREACH_ID, "partial")
    assert enforced.results[0].applied_power_w == 4_000.0


@pytest.mark.trap("FX-E04")
def test_the_stock_specversion_is_accepted_and_said() -> None:
    """CloudEvents libraries emit 1.0 only; the specification wants 1.0.2."""
    assert read(envelope()).deviations == ()
    stock = read(envelope() | {"specversion": "1.0"})
    assert stock.deviations == (Deviation.SPECVERSION_1_0,)


def test_the_older_role_is_accepted_and_said() -> None:
    """Before July 2026 the agent's role was poweragent."""
    topic = "grid/v1/poweragent/maxlps/powerstate/status"
    old = read(envelope("powerstate") | {"source": "//grid/v1/poweragent/maxlps"}, topic)
    assert old.deviations == (Deviation.OLD_ROLE_POWERAGENT,)


def test_a_topic_may_carry_its_cluster() -> None:
    """On the common bus the cluster stands in front."""
    assert parse_topic(TOPIC).cpc_id is None
    topic = parse_topic(f"cpc/cpc-1/{TOPIC}")
    assert (topic.kind, topic.identifier, topic.cpc_id) == (
        Kind.LOAD_TARGET,
        "acme-energy",
        "cpc-1",
    )


@pytest.mark.parametrize(
    "topic",
    [
        "grid/v1/isv/acme-energy/powerstate/status",
        "grid/v1/infra/ima-prod/powerbreach",
        "grid/v1/dsx-flex-agent/maxlps/loadtarget/set",
        "grid/v2/isv/acme-energy/loadtarget/set",
        "Grid/v1/isv/acme-energy/loadtarget/set",
        "cpc/grid/v1/isv/acme-energy/loadtarget/set",
        "grid/v1/isv/acme-energy/loadtarget/set/more",
    ],
)
def test_a_role_may_speak_on_its_own_topics_only(topic: str) -> None:
    """An ISV cannot report a state, an agent cannot set a target."""
    with pytest.raises(RejectedError) as caught:
        parse_topic(topic)
    assert caught.value.reason is Reason.UNKNOWN_TOPIC


@pytest.mark.parametrize(
    ("member", "value", "reason"),
    [
        ("specversion", "0.3", Reason.BAD_SPECVERSION),
        ("specversion", ABSENT, Reason.BAD_SPECVERSION),
        ("id", "1", Reason.BAD_ID),
        ("id", "a3bb189e-8bf9-1888-9912-ace4e6543002", Reason.BAD_ID),
        ("id", 7, Reason.BAD_ID),
        ("source", "grid/v1/isv/acme-energy", Reason.BAD_SOURCE),
        ("source", "//grid/v1/isv/acme-energy/more", Reason.BAD_SOURCE),
        ("source", "//grid/v1/utility/acme-energy", Reason.BAD_SOURCE),
        ("source", "//grid/v1/isv/", Reason.BAD_SOURCE),
        ("source", "//grid/v1/isv/other-grid", Reason.SOURCE_MISMATCH),
        ("source", "//grid/v1/infra/acme-energy", Reason.SOURCE_MISMATCH),
        ("type", "grid.powerstate.status.v1", Reason.BAD_TYPE),
        ("type", "grid.loadtarget.set.v2", Reason.BAD_TYPE),
        ("subject", "powerstate", Reason.BAD_SUBJECT),
        ("time", "yesterday", Reason.BAD_TIME),
        ("time", "2026-11-01T12:00:00", Reason.BAD_TIME),
        ("time", "0001-01-01T00:00:00+14:00", Reason.BAD_TIME),
        ("time", 1_793_000_000, Reason.BAD_TIME),
        ("datacontenttype", "text/plain", Reason.BAD_CONTENT_TYPE),
        ("traceparent", ABSENT, Reason.BAD_TRACEPARENT),
        ("traceparent", "00-xyz", Reason.BAD_TRACEPARENT),
        ("correlationid", "42", Reason.BAD_CORRELATION_ID),
        ("data", ABSENT, Reason.NO_DATA),
        ("data", 12, Reason.NO_DATA),
        ("data", LOAD_TARGETS, Reason.UNSIGNED),
    ],
)
def test_a_broken_envelope_is_refused_by_name(member: str, value: Any, reason: Reason) -> None:
    """The first rule that it breaks is its reason."""
    with pytest.raises(RejectedError) as caught:
        read(changed(envelope(), (member,), value))
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Reason.NOT_JSON),
        (b"{", Reason.NOT_JSON),
        (b"\xff\xfe", Reason.NOT_JSON),
        (b"[" * 100_000, Reason.NOT_JSON),
        (b"[]", Reason.NOT_AN_OBJECT),
        (b"null", Reason.NOT_AN_OBJECT),
        (b'{"id": 1, "id": 2}', Reason.DUPLICATE_MEMBER),
        (b'{"value": NaN}', Reason.POWER_NOT_FINITE),
        (b" " * 300_000, Reason.TOO_LARGE),
    ],
)
def test_what_is_no_single_json_object_is_refused(payload: bytes, reason: Reason) -> None:
    """Two readers must not be able to see two messages in one."""
    with pytest.raises(RejectedError) as caught:
        parse_envelope(parse_topic(TOPIC), payload)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("targets",), ABSENT, Reason.BAD_PAYLOAD),
        (("targets",), [], Reason.BAD_PAYLOAD),
        (("targets",), [1], Reason.BAD_PAYLOAD),
        (CONSTRAINT, ABSENT, Reason.BAD_PAYLOAD),
        (CONSTRAINT, 5_000, Reason.BAD_PAYLOAD),
        ((*CONSTRAINT, "value"), 0, Reason.POWER_NOT_POSITIVE),
        ((*CONSTRAINT, "value"), -0.0, Reason.POWER_NOT_POSITIVE),
        ((*CONSTRAINT, "value"), -5, Reason.POWER_NEGATIVE),
        ((*CONSTRAINT, "value"), True, Reason.BAD_PAYLOAD),
        ((*CONSTRAINT, "value"), "6.5", Reason.BAD_PAYLOAD),
        ((*CONSTRAINT, "value"), 10**400, Reason.POWER_NOT_FINITE),
        ((*CONSTRAINT, "value"), 1e308, Reason.POWER_NOT_FINITE),
        ((*CONSTRAINT, "unit"), "kW", Reason.UNKNOWN_UNIT),
        ((*CONSTRAINT, "unit"), ABSENT, Reason.UNKNOWN_UNIT),
        ((*TARGET, "interval"), ABSENT, Reason.BAD_INTERVAL),
        ((*TARGET, "interval", "start_time"), "noon", Reason.BAD_INTERVAL),
        ((*TARGET, "interval", "end_time"), "2026-11-01T12:10:00Z", Reason.BAD_INTERVAL),
        (
            (*TARGET, "interval"),
            {"start_time": "2026-11-01T10:00:00Z", "end_time": "2026-11-01T11:00:00Z"},
            Reason.INTERVAL_PAST,
        ),
        ((*TARGET, "interval"), {"end_time": "2026-11-01T11:00:00Z"}, Reason.INTERVAL_PAST),
        ((*TARGET, "feed_tags"), None, Reason.BAD_FEED_TAGS),
        ((*TARGET, "feed_tags"), "main-a", Reason.BAD_FEED_TAGS),
        ((*TARGET, "feed_tags"), [1], Reason.BAD_FEED_TAGS),
        ((*TARGET, "feed_tags"), [" "], Reason.BAD_FEED_TAGS),
        ((*TARGET, "feedTags"), ["main-a"], Reason.BAD_FEED_TAGS),
        ((*TARGET, "feed_tag"), "main-a", Reason.BAD_FEED_TAGS),
        ((*TARGET, "strategy", "best_effort"), "yes", Reason.BAD_PAYLOAD),
        ((*TARGET, "strategy"), "best_effort", Reason.BAD_PAYLOAD),
    ],
)
def test_a_broken_target_is_refused_by_name(
    path: tuple[str | int, ...], value: Any, reason: Reason
) -> None:
    """A target that is half understood is not applied in half."""
    with pytest.raises(RejectedError) as caught:
        parse_load_targets(read(envelope()), changed(LOAD_TARGETS, path, value), START)
    assert caught.value.reason is reason


@pytest.mark.parametrize("text_value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused_in_a_signed_payload(text_value: str) -> None:
    """Python's parser would take all four."""
    broken = json.dumps(LOAD_TARGETS).replace("6.5", text_value).encode()
    with pytest.raises(RejectedError) as caught:
        parse_load_targets(read(envelope()), parse_object(broken, what="payload"), START)
    assert caught.value.reason is Reason.POWER_NOT_FINITE


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("snapshot_time",), ABSENT, Reason.BAD_PAYLOAD),
        (("feeds",), [], Reason.BAD_PAYLOAD),
        ((*FEED, "compliant"), "true", Reason.BAD_PAYLOAD),
        ((*FEED, "event"), "idle", Reason.BAD_PAYLOAD),
        ((*FEED, "calculated_load", "value"), -1, Reason.POWER_NEGATIVE),
        ((*FEED, "calculated_load"), ABSENT, Reason.BAD_PAYLOAD),
        ((*FEED, "metadata", "power_minimum", "unit"), "W", Reason.UNKNOWN_UNIT),
        ((*FEED, "targets", 0, "correlation_id"), "7", Reason.BAD_PAYLOAD),
        ((*FEED, "targets", 0, "load_constraint", "value"), 0, Reason.POWER_NOT_POSITIVE),
    ],
)
def test_a_broken_state_is_refused_by_name(
    path: tuple[str | int, ...], value: Any, reason: Reason
) -> None:
    """A state with one bad feed tells nothing of the others either."""
    topic = "grid/v1/dsx-flex-agent/maxlps/powerstate/status"
    read_as = read(envelope("powerstate"), topic)
    with pytest.raises(RejectedError) as caught:
        parse_power_state(read_as, changed(POWER_STATE, path, value), START)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("status",), "over", Reason.BAD_PAYLOAD),
        (("severity",), "fatal", Reason.BAD_PAYLOAD),
        (("breach", "breach_id"), "1", Reason.BAD_PAYLOAD),
        (("measured_load", "value"), -1, Reason.POWER_NEGATIVE),
        (("infrastructure_actions",), ["REBOOT"], Reason.BAD_PAYLOAD),
        (("infrastructure_actions",), [["SHUTDOWN_NODES"]], Reason.BAD_PAYLOAD),
        (("shed_hints", 0, "priority"), 0, Reason.BAD_PAYLOAD),
        (("shed_hints", 0, "action"), "unplug", Reason.BAD_PAYLOAD),
    ],
)
def test_a_broken_breach_is_refused_by_name(
    path: tuple[str | int, ...], value: Any, reason: Reason
) -> None:
    """An alert that cannot be read is counted, not guessed."""
    topic = "grid/v1/dsx-flex-agent/maxlps/powerbreach"
    read_as = read(envelope("powerbreach"), topic)
    with pytest.raises(RejectedError) as caught:
        parse_breach(read_as, changed(BREACH, path, value), START)
    assert caught.value.reason is reason
