"""How messages are read: what is taken, what is taken with a remark, and what is not taken."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from interlock_servers.exchange.models import (
    OBJECT_TYPES,
    Compatibility,
    Deviation,
    Reason,
    RejectedError,
    TopicKind,
    parse_metadata,
    parse_topic,
    parse_value,
)

NOW = datetime(2026, 9, 1, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
TAIL = "PowerMeter/ActivePower/site/m1/power"
VALUE, METADATA = f"BMS/v1/PUB/Value/{TAIL}", f"BMS/v1/PUB/Metadata/{TAIL}"
METER: dict[str, Any] = {
    "objectType": "PowerMeter",
    "pointType": "ActivePower",
    "engUnit": "kW",
    "objectName": "M1",
    "objectId": "m1",
    "servesId": ["r1"],
}


def value(number: object = 47.748, at_ms: object = NOW_MS, quality: object = 1) -> bytes:
    """A value payload."""
    return json.dumps({"value": number, "timestamp": at_ms, "quality": quality}).encode()


# Topics


@pytest.mark.trap("EX-R10")
@pytest.mark.parametrize("object_type", sorted(OBJECT_TYPES))
def test_every_object_type_is_read_with_and_without_the_prefix_of_a_cluster(
    object_type: str,
) -> None:
    """There are 23, and a reader in the common cluster sees them all with a prefix."""
    assert len(OBJECT_TYPES) == 23
    key = f"{object_type}/GenericPoint/a/b/c"
    plain = parse_topic(f"BMS/v1/PUB/Value/{key}")
    assert (plain.cpc, plain.kind, plain.key) == (None, TopicKind.VALUE, key)
    prefixed = parse_topic(f"cpc/east/BMS/v1/MEPAI/Value/{object_type}/GenericPoint/a/b/c")
    assert (prefixed.cpc, prefixed.publisher) == ("east", "MEPAI")
    assert prefixed.key == f"cpc/east/{plain.key}"


@pytest.mark.trap("EX-R31")
@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("", Reason.NOT_BMS),
        ("grid/v1/isv/x/loadtarget/set", Reason.NOT_BMS),
        ("bms/v1/PUB/Value/Rack/RackPower/a", Reason.NOT_BMS),
        ("BMS/v2/PUB/Value/Rack/RackPower/a", Reason.NOT_BMS),
        ("cpc//BMS/v1/PUB/Value/Rack/RackPower/a", Reason.NOT_BMS),
        ("x/BMS/v1/PUB/Value/Rack/RackPower/a", Reason.NOT_BMS),
        ("BMS/v1/PUB/Value/Rack/RackPower", Reason.TOPIC_GRAMMAR),
        ("BMS/v1/PUB/Value/Rack/RackPower/", Reason.TOPIC_GRAMMAR),
        ("BMS/v1/PUB/Value/Rack//a", Reason.TOPIC_GRAMMAR),
        ("BMS/v1/PUB/Value/Rack/RackPower/a//b", Reason.TOPIC_GRAMMAR),
        ("BMS/v1/PUB/value/Rack/RackPower/a", Reason.TOPIC_GRAMMAR),
        ("BMS/v1/PUB/Value/Rack/RackPower/+", Reason.TOPIC_GRAMMAR),
        ("BMS/v1/PUB/Value/Rack/RackPower/a\n", Reason.TOPIC_GRAMMAR),
        ("BMS/v1/site/a/Value", Reason.TOPIC_GRAMMAR),
        ("BMS/v1/PUB/Value/rack/RackPower/a", Reason.UNKNOWN_OBJECT_TYPE),
        ("BMS/v1/PUB/Value/Toaster/GenericPoint/a", Reason.UNKNOWN_OBJECT_TYPE),
        ("BMS/v1/MEPAI/Metadata/Rack/RackPower/a", Reason.FOREIGN_METADATA),
        ("BMS/v1/PUB/Value/Rack/RackPower/" + "a" * 1024, Reason.TOO_LARGE),
    ],
)
def test_a_topic_outside_the_grammar_is_rejected_by_name(topic: str, reason: Reason) -> None:
    """A point that we cannot place must not be placed anywhere."""
    with pytest.raises(RejectedError) as rejection:
        parse_topic(topic)
    assert rejection.value.reason is reason


# Values


@pytest.mark.trap("EX-R43")
@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", Reason.NOT_JSON),
        (b'{"value": 47.7', Reason.NOT_JSON),
        (b"\xff\xfe{}", Reason.NOT_JSON),
        (b"\xef\xbb\xbf{}", Reason.NOT_JSON),
        (b"[" * 4000, Reason.NOT_JSON),
        (b'{"value": ' + b"9" * 4050 + b"}", Reason.MISSING_FIELD),
        (b"[1]", Reason.NOT_AN_OBJECT),
        (b"null", Reason.NOT_AN_OBJECT),
        (b"47.7", Reason.NOT_AN_OBJECT),
        (b"{}", Reason.MISSING_FIELD),
        (b'{"value": 1, "timestamp": 1743620423000}', Reason.MISSING_FIELD),
        (b'{"value": 1, "quality": 1}', Reason.MISSING_FIELD),
        (b'{"timestamp": 1743620423000, "quality": 1}', Reason.MISSING_FIELD),
        (b'{"value":1,"timestamp":1743620423000,"quality":0,"quality":1}', Reason.DUPLICATE_FIELD),
        (b'{"value": NaN, "timestamp": 1743620423000, "quality": 1}', Reason.NOT_FINITE),
        (b'{"value": -Infinity, "timestamp": 1743620423000, "quality": 1}', Reason.NOT_FINITE),
        (b'{"value": 1e999, "timestamp": 1743620423000, "quality": 1}', Reason.NOT_FINITE),
        (value("47.7"), Reason.BAD_VALUE),
        (value(True), Reason.BAD_VALUE),
        (value([1]), Reason.BAD_VALUE),
        (value({}), Reason.BAD_VALUE),
        (value(10**30), Reason.BAD_VALUE),
        (value(at_ms="1743620423000"), Reason.BAD_TIMESTAMP),
        (value(at_ms=None), Reason.BAD_TIMESTAMP),
        (value(at_ms=True), Reason.BAD_TIMESTAMP),
        (value(at_ms=0), Reason.BAD_TIMESTAMP),
        (value(at_ms=-5), Reason.BAD_TIMESTAMP),
        (value(at_ms=NOW_MS + 0.5), Reason.BAD_TIMESTAMP),
        (value(at_ms=1e300), Reason.BAD_TIMESTAMP),
        (value(at_ms=10**15), Reason.BAD_TIMESTAMP),
        (value(quality="good"), Reason.BAD_QUALITY),
        (value(quality=""), Reason.BAD_QUALITY),
        (value(quality="\u0661"), Reason.BAD_QUALITY),
        (value(quality=" 1"), Reason.BAD_QUALITY),
        (value(quality=None), Reason.BAD_QUALITY),
        (value(quality=True), Reason.BAD_QUALITY),
        (value(quality=1.5), Reason.BAD_QUALITY),
        (value(quality=[1]), Reason.BAD_QUALITY),
        (b'{"value": 1, "timestamp": 1743620423000, "quality": 1' + b" " * 5000, Reason.TOO_LARGE),
    ],
)
def test_a_value_that_could_mislead_is_rejected_by_name(payload: bytes, reason: Reason) -> None:
    """Nothing on the bus stops a malformed payload: the reader does."""
    with pytest.raises(RejectedError) as rejection:
        parse_value(payload)
    assert rejection.value.reason is reason


@pytest.mark.trap("EX-R39")
@pytest.mark.parametrize(
    ("payload", "number", "at_ms", "quality", "deviations"),
    [
        (value(), 47.748, NOW_MS, 1, ()),
        (value(0), 0.0, NOW_MS, 1, ()),
        (value(-1), -1.0, NOW_MS, 1, ()),
        (value(None), None, NOW_MS, 1, ()),
        (value(quality=0), 47.748, NOW_MS, 0, ()),
        (value(quality=192), 47.748, NOW_MS, 192, ()),
        (value(quality=1.0), 47.748, NOW_MS, 1, ()),
        (value(at_ms=float(NOW_MS)), 47.748, NOW_MS, 1, ()),
        (value(quality="1"), 47.748, NOW_MS, 1, (Deviation.QUALITY_AS_STRING,)),
        (value(quality="0"), 47.748, NOW_MS, 0, (Deviation.QUALITY_AS_STRING,)),
        (value(at_ms=NOW_MS // 1000), 47.748, NOW_MS, 1, (Deviation.TIMESTAMP_IN_SECONDS,)),
        (value(at_ms=NOW_MS / 1000 + 0.9), 47.748, NOW_MS, 1, (Deviation.TIMESTAMP_IN_SECONDS,)),
        (
            b'{"value":1,"timestamp":1743620423000,"quality":1,"unit":"kW"}',
            1.0,
            1743620423000,
            1,
            (Deviation.EXTRA_FIELD,),
        ),
    ],
)
def test_a_value_is_read_and_each_liberty_is_said(
    payload: bytes,
    number: float | None,
    at_ms: int,
    quality: int,
    deviations: tuple[Deviation, ...],
) -> None:
    """Liberal in reading, and never silently so."""
    assert parse_value(payload) == (number, at_ms, quality, deviations)


@pytest.mark.trap("EX-R40")
@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (value(quality="1"), Reason.BAD_QUALITY),
        (value(at_ms=NOW_MS // 1000), Reason.BAD_TIMESTAMP),
    ],
)
def test_a_liberty_that_the_settings_refuse_is_not_taken(payload: bytes, reason: Reason) -> None:
    """A site whose clients keep to the specification can insist on it."""
    strict = Compatibility(string_quality=False, seconds=False)
    with pytest.raises(RejectedError) as rejection:
        parse_value(payload, strict)
    assert rejection.value.reason is reason


# Metadata


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"objectType": "Rack"}, Reason.TYPE_MISMATCH),
        ({"pointType": "Voltage"}, Reason.TYPE_MISMATCH),
        ({"pointType": None}, Reason.BAD_METADATA),
        ({"engUnit": 5}, Reason.BAD_METADATA),
        ({"engUnit": ""}, Reason.BAD_METADATA),
        ({"objectId": "x" * 257}, Reason.BAD_METADATA),
        ({"servesId": "r1"}, Reason.BAD_METADATA),
        ({"servesId": [1]}, Reason.BAD_METADATA),
        ({"isSetpoint": "true"}, Reason.BAD_METADATA),
        ({"stateText": [{"value": "0", "text": "Off"}]}, Reason.BAD_METADATA),
        ({"stateText": {"0": "Off"}}, Reason.BAD_METADATA),
        ({"processArea": ["x" * 70_000]}, Reason.TOO_LARGE),
    ],
)
def test_metadata_that_cannot_be_meant_is_rejected_by_name(
    change: dict[str, object], reason: Reason
) -> None:
    """Meaning comes from here alone, so a guess would be worse than none."""
    with pytest.raises(RejectedError) as rejection:
        parse_metadata(json.dumps(METER | change).encode(), parse_topic(METADATA))
    assert rejection.value.reason is reason


@pytest.mark.parametrize(
    ("change", "without", "deviation"),
    [
        ({"colour": "red"}, (), Deviation.EXTRA_FIELD),
        ({}, ("objectId",), Deviation.MISSING_IDENTITY),
        ({}, ("engUnit",), Deviation.NO_UNIT),
        ({"stateText": [{"value": 0, "text": "Off"}]}, (), Deviation.UNIT_AND_STATES),
    ],
)
def test_metadata_that_departs_from_the_specification_says_so(
    change: dict[str, object], without: tuple[str, ...], deviation: Deviation
) -> None:
    """It is used for what it says; what it does not say stays unknown."""
    fields = {k: v for k, v in (METER | change).items() if k not in without}
    metadata = parse_metadata(json.dumps(fields).encode(), parse_topic(METADATA))
    assert metadata.deviations == (deviation,)


@pytest.mark.trap("EX-R41")
def test_old_names_of_a_rack_are_read_only_where_the_settings_allow_it() -> None:
    """The rack id is the only join between the plant and IT: it is not guessed by default."""
    topic = parse_topic("BMS/v1/PUB/Metadata/Rack/RackPower/a")
    old = {"objectType": "Rack", "pointType": "RackPower", "engUnit": "kW", "rackId": "r1"}
    payload = json.dumps(old).encode()
    default = parse_metadata(payload, topic)
    assert default.rack_location_id is None
    assert default.deviations == (Deviation.EXTRA_FIELD, Deviation.MISSING_IDENTITY)
    allowed = parse_metadata(payload, topic, Compatibility(old_rack_names=True))
    assert allowed.rack_location_id == "r1"
    assert allowed.deviations == (Deviation.OLD_RACK_NAME,)
