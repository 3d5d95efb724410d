"""The whole grammar of the bus, held against the published AsyncAPI, and the older one."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from interlock_servers.exchange import grammar
from interlock_servers.exchange.models import (
    Compatibility,
    Deviation,
    Reason,
    RejectedError,
    parse_metadata,
    parse_topic,
)
from interlock_servers.exchange.readings import reading
from interlock_servers.exchange.store import FRESH_S, PointState, PointStore
from interlock_servers.exchange.topics import matches, parse_other
from tests.servers.exchange.test_reading import METADATA, METER, NOW, VALUE, value

CONTRACTS = os.environ.get("INTERLOCK_CONTRACTS")
OLDER = Compatibility(old_topics=True, old_rack_names=True)


def described(tail: str, **fields: Any) -> tuple[str, bytes]:
    """The metadata message of the point with this tail."""
    object_type, point_type = tail.split("/")[:2]
    said = {"objectType": object_type, "pointType": point_type, **fields}
    return f"BMS/v1/PUB/Metadata/{tail}", json.dumps(said).encode()


@pytest.mark.skipif(not CONTRACTS, reason="INTERLOCK_CONTRACTS does not name the upstream schemas")
def test_the_tables_are_those_of_the_specification() -> None:
    """69 channels: of each of 23 object types its values, its metadata, and what others write."""
    path = Path(CONTRACTS or "") / "dsx-exchange/asyncapi/bms/bms.yaml"
    document = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    channels = {
        (channel["address"].replace(".", "/")): frozenset(
            channel["parameters"]["pointType"]["enum"]
        )
        for channel in document["channels"].values()
    }
    ours = {
        space.pattern: frozenset(space.point_types)
        for space in grammar.spaces()
        if space.domain == "bms"
    }
    assert len(channels) == 69
    assert ours == channels
    fixed = {
        name.removesuffix("Fields"): schema["properties"]["engUnit"]["enum"]
        for name, schema in document["components"]["schemas"].items()
        if "enum" in schema.get("properties", {}).get("engUnit", {})
        and not name.startswith("GenericObject")
    }
    assert {name: [unit] for name, unit in grammar.FIXED_UNITS.items()} == fixed


@pytest.mark.trap("EX-R15")
def test_a_point_that_the_specification_does_not_have_is_taken_with_a_remark() -> None:
    """Upstream may add point types; a misspelt heartbeat is one of these and no life sign."""
    store = PointStore()
    tail = "System/HearbeatTimestampIntegration/a"
    store.ingest(
        *described(tail, objectName="M", objectId="M", integration="M"), NOW, retained=True
    )
    assert "unknown_point_type" in store.deviations
    assert store.catalogue().heartbeats == ()


@pytest.mark.trap("EX-R20")
@pytest.mark.parametrize(
    ("tail", "unit", "shown"),
    [
        ("Rack/RackPower/a", "kW", "kW"),
        ("Rack/RackPower/a", "W", None),
        ("Rack/RackPower/a", "kw", None),
        ("Rack/RackLiquidSupplyTemperature/a", "F", None),
        ("Rack/RackLiquidSupplyTemperature/a", "°C", "C"),
        ("CDU/LiquidTemperature/a", "K", None),
        ("CDU/LiquidFlow/a", "gpm", "gpm"),
        ("Rack/RackLiquidFlow/a", "l/min", "LPM"),
    ],
)
def test_a_unit_that_the_specification_fixes_is_that_one_or_the_number_is_not_used(
    tail: str, unit: str, shown: str | None
) -> None:
    """Where it fixes none, `engUnit` is free text and is shown as it is."""
    store = PointStore()
    store.ingest(
        *described(tail, engUnit=unit, rackLocationId="r", objectId="o"), NOW, retained=True
    )
    store.ingest(f"BMS/v1/PUB/Value/{tail}", value(40), NOW, retained=False)
    point = store.point(tail)
    assert point is not None
    seen = reading(point, NOW, FRESH_S)
    if shown is None:
        assert (seen.value, seen.last_good_value) == (None, None)
        assert seen.state is PointState.CONTRADICTED
        assert repr(unit) in (seen.why or "")
        assert "contradicts_spec" in store.deviations
    else:
        assert (seen.value, seen.unit) == (40.0, shown)


@pytest.mark.trap("EX-R21")
@pytest.mark.parametrize(
    "texts",
    [
        [(0, "Leak"), (1, "No Leak")],
        [(0, "leak")],
        [(1, "no-leak")],
        [(0, "Dry"), (1, "Wet"), (0, "Wet")],
    ],
)
def test_states_of_a_rack_that_are_swapped_or_double_are_not_believed(
    texts: list[tuple[int, str]],
) -> None:
    """Else a leak would read as none; other words for the same states are fine."""
    tail = "Rack/RackLeakDetect/a"
    states = [{"value": number, "text": text} for number, text in texts]
    store = PointStore()
    store.ingest(*described(tail, stateText=states, rackLocationId="r"), NOW, retained=True)
    store.ingest(f"BMS/v1/PUB/Value/{tail}", value(0), NOW, retained=False)
    point = store.point(tail)
    assert point is not None
    assert point.state(NOW) is PointState.CONTRADICTED


@pytest.mark.parametrize(
    ("tail", "fields", "deviation"),
    [
        (
            "Rack/RackLiquidIsolationRequest/a",
            {"stateText": [{"value": 0, "text": "No"}], "rackLocationId": "r"},
            Deviation.MISSING_REQUIRED,
        ),
        (
            "PowerMeter/PhaseCurrent/a",
            {"engUnit": "A", "objectId": "m"},
            Deviation.MISSING_REQUIRED,
        ),
        ("UPS/GenericPoint/a", {"engUnit": "s", "objectId": "u"}, Deviation.MISSING_REQUIRED),
        (
            "UPS/Status/a",
            {
                "stateText": [{"value": 0, "text": "Off"}],
                "objectId": "u",
                "associateId": "m",
            },
            Deviation.ASSOCIATE_AND_NAMED,
        ),
    ],
)
def test_what_the_specification_requires_of_a_point_and_is_not_there_is_said(
    tail: str, fields: dict[str, Any], deviation: Deviation
) -> None:
    """It is used for what it says."""
    topic, payload = described(tail, **fields)
    assert parse_metadata(payload, parse_topic(topic)).deviations == (deviation,)


# Older clients


@pytest.mark.trap("EX-R42")
def test_the_older_grammar_is_read_only_where_the_settings_allow_it_and_each_use_is_said() -> None:
    """`BMS/v1/{path}/Metadata`, other names of points, `rackID`, seconds, quality as text."""
    topic = "BMS/v1/hall/row1/r1/leak"
    said = {
        "pointType": "LeakDetectRack",
        "rackID": "r1",
        "stateText": [{"value": 0, "text": "NoLeak"}, {"value": 1, "text": "Leak"}],
    }
    now_s = int(NOW.timestamp())
    messages = (
        (f"{topic}/Metadata", json.dumps(said).encode()),
        (f"{topic}/Value", value(1, now_s, "1")),
    )
    strict, tolerant = PointStore(), PointStore(OLDER)
    for name, payload in messages:
        assert not strict.ingest(name, payload, NOW, retained=False)
        assert tolerant.ingest(name, payload, NOW, retained=False)
    assert set(strict.rejected) == {"topic_grammar"}
    (key,) = tolerant.catalogue().by_rack["r1"]
    point = tolerant.point(key)
    assert point is not None
    seen = reading(point, NOW, FRESH_S)
    assert (seen.object_type, seen.point_type) == ("Rack", "RackLeakDetect")
    assert (seen.value, seen.label) == (1.0, "Leak")
    assert {"old_topic", "old_point_name", "old_rack_name"} < set(tolerant.deviations)


def test_a_topic_of_today_is_never_read_as_an_older_one() -> None:
    """`Value` may be the last level of a tag path too."""
    topic = parse_topic("BMS/v1/PUB/Value/Rack/RackPower/a/Value", OLDER)
    assert (topic.object_type, topic.older) == ("Rack", False)
    with pytest.raises(RejectedError) as rejection:
        parse_metadata(
            json.dumps({"objectType": "Toaster", "pointType": "x"}).encode(),
            parse_topic("BMS/v1/a/b/Metadata", OLDER),
            OLDER,
        )
    assert rejection.value.reason is Reason.UNKNOWN_OBJECT_TYPE


# What else is on the bus


@pytest.mark.trap("EX-R12")
@pytest.mark.parametrize("prefix", ["", "cpc/east/"])
@pytest.mark.parametrize(
    ("topic", "space", "subject", "older"),
    [
        ("NICO/v1/machine/m-1/state", "nico", "m-1", False),
        ("grid/v1/isv/acme/loadtarget/set", "grid", "acme", False),
        ("grid/v1/dsx-flex-agent/a1/powerstate/status", "grid", "a1", False),
        ("grid/v1/poweragent/a1/powerstate/status", "grid", "a1", True),
        ("grid/v1/dsx-flex-agent/a1/powerbreach", "grid", "a1", False),
        ("grid/v1/infra/i1/powerbreach/enforcement", "grid", "i1", False),
    ],
)
def test_topics_of_nico_and_flex_are_read_with_and_without_prefix(
    prefix: str, topic: str, space: str, subject: str, older: bool
) -> None:
    """The role `poweragent` is what `dsx-flex-agent` was called before."""
    found = parse_other(prefix + topic)
    assert found is not None
    assert (found.space, found.subject, found.older) == (space, subject, older)
    assert found.cpc == ("east" if prefix else None)


@pytest.mark.trap("EX-R11")
@pytest.mark.parametrize(
    "topic",
    ["nico/v1/machine/m/state", "Grid/v1/isv/a/loadtarget/set", "NICO/v1/machine//state", "a"],
)
def test_case_counts_in_a_topic(topic: str) -> None:
    """`BMS`, `PUB`, `NICO` and `Value` as they are written, and `grid` in small letters."""
    assert parse_other(topic) is None


@pytest.mark.parametrize(
    ("topic_filter", "topic", "taken"),
    [
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/+/c", "a/b/c", True),
        ("a/+", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("#", "a", True),
    ],
)
def test_a_filter_takes_what_a_broker_would_give_for_it(
    topic_filter: str, topic: str, taken: bool
) -> None:
    """By the rules of MQTT 3.1.1, section 4.7."""
    assert matches(topic_filter, topic) is taken


# What a point means may change


@pytest.mark.trap("EX-R14")
@pytest.mark.parametrize(
    "change",
    [{"engUnit": "W"}, {"isSetpoint": True}, {"objectId": "m2"}, {"processArea": ["Reserve"]}],
)
@pytest.mark.parametrize("taken_back_between", [False, True])
def test_a_reading_that_came_under_another_meaning_no_longer_counts(
    change: dict[str, Any], taken_back_between: bool
) -> None:
    """47 kW is not 47 W because the metadata says so afterwards."""
    store = PointStore()
    store.ingest(METADATA, json.dumps(METER).encode(), NOW, retained=False)
    store.ingest(VALUE, value(47), NOW, retained=False)
    if taken_back_between:
        store.ingest(METADATA, b"", NOW, retained=False)
    store.ingest(METADATA, json.dumps(METER | change).encode(), NOW, retained=False)
    key = "PowerMeter/ActivePower/site/m1/power"
    point = store.point(key)
    assert point is not None
    seen = reading(point, NOW, FRESH_S)
    assert (seen.state, seen.value, seen.last_good_value) == (
        PointState.MEANING_CHANGED,
        None,
        None,
    )
    assert store.samples(key) == []
    assert "meaning_changed" in store.deviations
    assert [event.kind for event in store.events.newest_first()] == ["meaning"]
    store.ingest(VALUE, value(48), NOW, retained=False)
    point = store.point(key)
    assert point is not None
    assert point.state(NOW) is PointState.GOOD


@pytest.mark.trap("EX-R06")
def test_what_was_said_outweighs_what_a_broker_kept() -> None:
    """After a failover another broker may replay metadata of another time."""
    said = json.dumps(METER | {"engUnit": "W"}).encode()
    kept = json.dumps(METER).encode()
    store = PointStore()
    store.ingest(METADATA, said, NOW, retained=False)
    assert not store.ingest(METADATA, kept, NOW, retained=True)
    assert "retained_conflict" in store.rejected
    point = store.point("PowerMeter/ActivePower/site/m1/power")
    assert point is not None
    assert point.metadata is not None
    assert point.metadata.eng_unit == "W"
    assert store.ingest(METADATA, kept, NOW, retained=False)
