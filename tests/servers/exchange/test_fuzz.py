"""Whatever comes in: no crash, and no wrong value that is shown as good."""

import json
import math
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from interlock_servers.exchange.models import OBJECT_TYPES, RejectedError, parse_topic
from interlock_servers.exchange.readings import reading
from interlock_servers.exchange.store import AHEAD_S, FRESH_S, PointState, PointStore

NOW = datetime(2026, 9, 1, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
TAIL = "Rack/RackPower/a"
METADATA = b'{"objectType":"Rack","pointType":"RackPower","engUnit":"kW","rackLocationId":"r"}'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
numbers = st.floats() | st.integers(-1000, 1000) | st.none() | json_values
moments = st.integers(-400_000, 400_000).map(lambda ms: NOW_MS + ms)
stamps = moments | moments.map(lambda ms: ms // 1000) | moments.map(float) | json_values
qualities = (
    st.just(1) | st.just("1") | st.sampled_from([0, "0", 1.0, True, None, 192]) | json_values
)
fields = st.fixed_dictionaries(
    {"value": numbers, "timestamp": stamps, "quality": qualities}, optional={"x": json_values}
)
some_fields = fields | st.builds(
    lambda it, name: {key: it[key] for key in it if key != name},
    fields,
    st.sampled_from(["value", "timestamp", "quality"]),
)
payloads = (
    some_fields.map(lambda it: json.dumps(it).encode())
    | json_values.map(lambda it: json.dumps(it).encode())
    | st.binary(max_size=60)
)
levels = st.sampled_from(["BMS", "v1", "PUB", "Value", "Metadata", "cpc", "Rack", "", "+", "#"])
topics = st.lists(levels | st.text(max_size=5), max_size=10).map("/".join) | st.text(max_size=40)


@settings(max_examples=600, deadline=None)
@given(payloads)
def test_a_value_that_is_shown_as_good_is_exactly_what_was_sent(payload: bytes) -> None:
    """Judged by another reading of the same bytes than the one under test."""
    store = PointStore()
    store.ingest(f"BMS/v1/PUB/Metadata/{TAIL}", METADATA, NOW, retained=True)
    taken = store.ingest(f"BMS/v1/PUB/Value/{TAIL}", payload, NOW, retained=False)
    point = store.point(TAIL)
    assert point is not None
    seen = reading(point, NOW, FRESH_S)
    assert taken is bool(point.latest)
    assert taken is not bool(store.rejected)
    if seen.state is not PointState.GOOD:
        assert seen.value is None
        return
    sent: Any = json.loads(payload)
    assert type(sent["value"]) in (int, float)
    assert math.isfinite(sent["value"])
    assert seen.value == float(sent["value"])
    assert type(sent["quality"]) in (int, float, str)
    assert str(sent["quality"]) in ("1", "1.0")
    stamp_s = sent["timestamp"] / (1 if sent["timestamp"] < 10**11 else 1000)
    assert -AHEAD_S <= NOW.timestamp() - math.floor(stamp_s) <= FRESH_S + 1


@settings(max_examples=600, deadline=None)
@given(topics, payloads, st.booleans())
def test_no_message_breaks_the_store(topic: str, payload: bytes, retained: bool) -> None:
    """It runs in the network's thread, where an exception would end the connection."""
    store = PointStore()
    taken = store.ingest(topic, payload, NOW, retained=retained)
    assert (store.accepted, sum(e.times for e in store.rejected.values())) == (taken, not taken)
    for key in store.catalogue().keys:
        point = store.point(key)
        assert point is not None
        assert reading(point, NOW, FRESH_S).value is None  # nothing was described


@settings(max_examples=400, deadline=None)
@given(topics)
def test_a_topic_that_is_read_is_put_together_again_from_its_parts(topic: str) -> None:
    """So that a value and its metadata meet under one key and no other."""
    with suppress(RejectedError):
        parts = parse_topic(topic)
        assert topic == f"{parts.sender}/{parts.kind}/" + parts.key.removeprefix(parts.prefix)
        assert parts.object_type in OBJECT_TYPES


free_fields = ("engUnit", "stateText", "rackLocationId", "servesId", "isSetpoint", "x")
metadata_fields = st.fixed_dictionaries(
    {"objectType": st.just("Rack"), "pointType": st.just("RackPower")},
    optional=dict.fromkeys(free_fields, json_values),
)


@settings(max_examples=400, deadline=None)
@given(metadata_fields)
def test_no_metadata_breaks_the_store_or_gives_a_meaning_it_does_not_have(
    sent: dict[str, Any],
) -> None:
    """A unit is one that was sent as text."""
    store = PointStore()
    store.ingest(f"BMS/v1/PUB/Value/{TAIL}", _good_value(), NOW, retained=False)
    payload = json.dumps(sent).encode()
    store.ingest(f"BMS/v1/PUB/Metadata/{TAIL}", payload, NOW, retained=True)
    point = store.point(TAIL)
    assert point is not None
    if reading(point, NOW, FRESH_S).unit is not None:
        assert reading(point, NOW, FRESH_S).unit == sent["engUnit"]
    store.catalogue()


def _good_value() -> bytes:
    return json.dumps({"value": 1, "timestamp": NOW_MS, "quality": 1}).encode()
