"""The CloudEvents envelope of a grid message and the topic that it came on.

Nothing in it is signed, only `data` is: what it claims counts once the signature agrees with it.
"""

import re
import uuid
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from interlock_servers.flex.models import Deviation, Reason, RejectedError
from interlock_servers.flex.strict_json import (
    JsonObject,
    optional_text,
    parse_object,
    text_member,
)
from interlock_servers.plant_text import plant_text

SPECVERSION: Final = "1.0.2"
OLD_SPECVERSION: Final = "1.0"
OLD_AGENT_ROLE: Final = "poweragent"
MAX_MESSAGE_BYTES: Final = 262_144

_AGENT = frozenset({"dsx-flex-agent", OLD_AGENT_ROLE})
_TOPIC = re.compile(
    r"(?:cpc/(?P<cpc>[^/]+)/)?grid/v1/(?P<role>[^/]+)/(?P<identifier>[^/]+)/(?P<tail>.+)"
)
_SOURCE = re.compile(r"//grid/v1/(?P<role>isv|dsx-flex-agent|poweragent|infra)/(?P<name>[^/]+)")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Kind(StrEnum):
    """The four messages; the value is the CloudEvents type."""

    LOAD_TARGET = "grid.loadtarget.set.v1"
    POWER_STATE = "grid.powerstate.status.v1"
    BREACH = "grid.powerbreach.alert.v1"
    ENFORCEMENT = "grid.powerbreach.enforcement.v1"


class _Shape(NamedTuple):
    tail: str
    roles: frozenset[str]
    subject: str


_SHAPES: Final = {
    Kind.LOAD_TARGET: _Shape("loadtarget/set", frozenset({"isv"}), "loadtarget"),
    Kind.POWER_STATE: _Shape("powerstate/status", _AGENT, "powerstate"),
    Kind.BREACH: _Shape("powerbreach", _AGENT, "powerbreach"),
    Kind.ENFORCEMENT: _Shape("powerbreach/enforcement", frozenset({"infra"}), "powerbreach"),
}


class Topic(NamedTuple):
    """Where a message came from, as far as its topic tells."""

    kind: Kind
    role: str
    identifier: str
    cpc_id: str | None


class Envelope(NamedTuple):
    """An envelope that agrees with its topic; `data` is the JWS, still to be verified."""

    kind: Kind
    event_id: str
    source: str
    sent_at: datetime
    correlation_id: str | None
    traceparent: str
    data: str
    deviations: tuple[Deviation, ...]


def parse_topic(topic: str) -> Topic:
    """The topic's parts, with or without its `cpc/{id}/` prefix.

    Raises:
        RejectedError: `UNKNOWN_TOPIC`.
    """
    match = _TOPIC.fullmatch(topic)
    if match:
        for kind, shape in _SHAPES.items():
            if match["tail"] == shape.tail and match["role"] in shape.roles:
                return Topic(kind, match["role"], match["identifier"], match["cpc"])
    raise RejectedError(Reason.UNKNOWN_TOPIC, f"{topic[:120]!r} is no topic of DSX Flex")


def parse_envelope(topic: Topic, payload: bytes) -> Envelope:
    """The envelope in `payload`, checked against the topic that it came on.

    Raises:
        RejectedError: with the name of the first rule that it breaks; a plain object as `data` is
            `UNSIGNED`.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise RejectedError(
            Reason.TOO_LARGE, f"{len(payload)} bytes; {MAX_MESSAGE_BYTES} is the most"
        )
    members = parse_object(payload, what="the message")
    deviations: list[Deviation] = []
    version = members.get("specversion")
    if version == OLD_SPECVERSION:
        deviations.append(Deviation.SPECVERSION_1_0)
    elif version != SPECVERSION:
        raise RejectedError(
            Reason.BAD_SPECVERSION, f"specversion must be {SPECVERSION}, not {version!r}"
        )
    event_id = parse_uuid(text_member(members, "id", Reason.BAD_ID), "id", Reason.BAD_ID)
    source = _source(members, topic)
    if topic.role == OLD_AGENT_ROLE or f"/{OLD_AGENT_ROLE}/" in source:
        deviations.append(Deviation.OLD_ROLE_POWERAGENT)
    if members.get("type") != topic.kind:
        raise RejectedError(
            Reason.BAD_TYPE, f"type must be {topic.kind} here, not {members.get('type')!r}"
        )
    subject = _SHAPES[topic.kind].subject
    if members.get("subject") != subject:
        raise RejectedError(
            Reason.BAD_SUBJECT, f"subject must be {subject}, not {members.get('subject')!r}"
        )
    sent_at = parse_moment(text_member(members, "time", Reason.BAD_TIME), "time", Reason.BAD_TIME)
    if members.get("datacontenttype") != "application/json":
        raise RejectedError(Reason.BAD_CONTENT_TYPE, "datacontenttype must be application/json")
    traceparent = text_member(members, "traceparent", Reason.BAD_TRACEPARENT)
    if not _TRACEPARENT.fullmatch(traceparent):
        raise RejectedError(Reason.BAD_TRACEPARENT, f"traceparent {traceparent!r} is malformed")
    correlation = optional_text(members, "correlationid", Reason.BAD_CORRELATION_ID)
    if correlation is not None:
        correlation = parse_uuid(correlation, "correlationid", Reason.BAD_CORRELATION_ID)
    elif topic.kind is Kind.LOAD_TARGET:
        deviations.append(Deviation.NO_CORRELATION_ID)
    data = members.get("data")
    if isinstance(data, dict):
        raise RejectedError(Reason.UNSIGNED, "data is a plain object; it must be a signed JWS")
    if not isinstance(data, str):
        raise RejectedError(Reason.NO_DATA, "data must be a JWS compact string")
    return Envelope(
        topic.kind, event_id, source, sent_at, correlation, traceparent, data, tuple(deviations)
    )


def _source(members: JsonObject, topic: Topic) -> str:
    source = text_member(members, "source", Reason.BAD_SOURCE)
    match = _SOURCE.fullmatch(source)
    if not match:
        raise RejectedError(
            Reason.BAD_SOURCE, f"source {source[:120]!r} is not //grid/v1/<role>/<identifier>"
        )
    same_role = match["role"] == topic.role or {match["role"], topic.role} == _AGENT
    if not same_role or match["name"] != topic.identifier:
        raise RejectedError(
            Reason.SOURCE_MISMATCH,
            f"source {source[:120]!r} came on the topic of {topic.role}/{topic.identifier[:60]}",
        )
    return source


def peek(payload: bytes) -> tuple[str | None, str | None]:
    """Source and event id of a message that may be rejected, bounded, for the record only."""
    if len(payload) > MAX_MESSAGE_BYTES:
        return None, None
    try:
        members = parse_object(payload, what="the message")
    except RejectedError:
        return None, None
    source, event_id = members.get("source"), members.get("id")
    return (
        plant_text(source, 120) if isinstance(source, str) else None,
        plant_text(event_id, 64) if isinstance(event_id, str) else None,
    )


def parse_uuid(text: str, name: str, reason: Reason) -> str:
    """A UUIDv4 in its one canonical spelling, so that no other spelling passes for a new one."""
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        parsed = None
    if parsed is None or parsed.version != 4:
        raise RejectedError(reason, f"{name} must be a UUIDv4, not {text[:60]!r}")
    return str(parsed)


def parse_moment(text: str, name: str, reason: Reason) -> datetime:
    """An ISO 8601 moment with its offset, in UTC."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.utcoffset() is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise RejectedError(reason, f"{name} must be an ISO 8601 moment with an offset: {text[:60]!r}")
