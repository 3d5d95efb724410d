"""What the store keeps of what it was told, and what it shows of that."""

import json
from datetime import timedelta
from typing import Any

import pytest

from interlock_servers.exchange import store as store_of_points
from interlock_servers.exchange.models import Compatibility
from interlock_servers.exchange.readings import power, reading
from interlock_servers.exchange.store import FRESH_S, Point, PointState, PointStore
from tests.servers.exchange.test_reading import METADATA, METER, NOW, NOW_MS, TAIL, VALUE, value


def store_with(*messages: tuple[str, bytes], **options: Any) -> PointStore:
    """A store that has taken these in."""
    store = PointStore(**options)
    for topic, payload in messages:
        store.ingest(topic, payload, NOW, retained=False)
    return store


def the_point(store: PointStore, key: str = TAIL) -> Point:
    """A point that must be there."""
    point = store.point(key)
    assert point is not None
    return point


@pytest.mark.trap("EX-R18")
@pytest.mark.trap("EX-R17")
@pytest.mark.trap("EX-R16")
@pytest.mark.parametrize(
    ("payload", "later_s", "state"),
    [
        (value(), 0, PointState.GOOD),
        (value(), FRESH_S, PointState.GOOD),
        (value(), FRESH_S + 1, PointState.STALE),
        (value(), -5, PointState.GOOD),
        (value(), -6, PointState.CLOCK_AHEAD),
        (value(None), 0, PointState.NO_VALUE),
        (value(quality=0), 0, PointState.BAD_QUALITY),
        (value(quality=2), 0, PointState.BAD_QUALITY),
        (value(quality=-1), 0, PointState.BAD_QUALITY),
    ],
)
def test_only_a_good_and_fresh_value_is_shown(
    payload: bytes, later_s: float, state: PointState
) -> None:
    """Quality 1, a value, and an age that the cadence of the bus allows."""
    store = store_with((METADATA, json.dumps(METER).encode()), (VALUE, payload))
    now = NOW + timedelta(seconds=later_s)
    seen = reading(the_point(store), now, FRESH_S)
    assert seen.state is state
    assert (seen.value is not None) is (state is PointState.GOOD)
    assert (seen.why is None) is (state is PointState.GOOD)


@pytest.mark.trap("EX-R14")
def test_a_value_means_nothing_until_its_metadata_is_there() -> None:
    """It may come first; once described it is used, and no longer when that is taken back."""
    store = store_with((VALUE, value()))
    assert the_point(store).state(NOW) is PointState.NO_METADATA
    store.ingest(METADATA, json.dumps(METER).encode(), NOW, retained=True)
    assert the_point(store).state(NOW) is PointState.GOOD
    store.ingest(METADATA, b"", NOW, retained=False)
    assert the_point(store).state(NOW) is PointState.NO_METADATA
    assert store.catalogue().by_object == {}


@pytest.mark.trap("EX-R20")
@pytest.mark.parametrize(
    ("unit", "number", "power_w"),
    [
        ("W", 1500.0, 1500.0),
        ("kW", 1.5, 1500.0),
        ("MW", 0.0015, 1500.0),
        ("mW", 1500.0, None),
        ("kVA", 1.5, None),
        ("kw", 1.5, None),
        (None, 1.5, None),
    ],
)
def test_watts_come_from_units_that_are_known_and_from_no_other(
    unit: str | None, number: float, power_w: float | None
) -> None:
    """A factor of a thousand is not guessed."""
    metadata = {name: text for name, text in (METER | {"engUnit": unit}).items() if text}
    store = store_with((METADATA, json.dumps(metadata).encode()), (VALUE, value(number)))
    found = power("feed", "m1", [the_point(store)], NOW, FRESH_S)
    assert found.power_w == (None if power_w is None else pytest.approx(power_w))
    assert found.state is (PointState.UNKNOWN_UNIT if power_w is None else PointState.GOOD)


def test_two_points_that_claim_to_be_one_meter_are_no_answer() -> None:
    """Two clusters may use the same id; neither is preferred."""
    messages = [
        (f"{prefix}{topic}", payload)
        for prefix in ("", "cpc/east/")
        for topic, payload in ((METADATA, json.dumps(METER).encode()), (VALUE, value()))
    ]
    store = store_with(*messages)
    found = store.points(store.catalogue().by_object["m1"])
    answer = power("feed", "m1", found, NOW, FRESH_S)
    assert (answer.power_w, answer.state) == (None, PointState.AMBIGUOUS)
    assert "cpc/east" in (answer.why or "")


def test_a_state_that_is_not_listed_is_not_shown() -> None:
    """A leak sensor that says 7 says nothing."""
    tail = "Rack/RackLeakDetect/a"
    states = [{"value": 0, "text": "NoLeak"}, {"value": 1, "text": "Leak"}]
    metadata = {"objectType": "Rack", "pointType": "RackLeakDetect", "stateText": states}
    store = store_with((f"BMS/v1/PUB/Metadata/{tail}", json.dumps(metadata).encode()))
    for number, state, label in (
        (1, PointState.GOOD, "Leak"),
        (7, PointState.UNLISTED_STATE, None),
        (0.5, PointState.UNLISTED_STATE, None),
    ):
        store.ingest(f"BMS/v1/PUB/Value/{tail}", value(number), NOW, retained=False)
        seen = reading(the_point(store, tail), NOW, FRESH_S)
        assert (seen.state, seen.label) == (state, label)


@pytest.mark.trap("EX-R27")
def test_only_the_owner_of_a_point_is_believed() -> None:
    """An integration that writes a meter of the BMS is shown as foreign, not as the meter."""
    foreign = VALUE.replace("PUB", "MEPAI")
    store = store_with(
        (METADATA, json.dumps(METER).encode()), (VALUE, value(10)), (foreign, value(99))
    )
    seen = reading(the_point(store), NOW, FRESH_S)
    assert (seen.value, seen.foreign_publishers) == (10.0, ("MEPAI",))
    assert "foreign_value" in store.deviations
    owned = METER | {"integration": "MEPAI"}
    store.ingest(METADATA, json.dumps(owned).encode(), NOW, retained=False)
    seen = reading(the_point(store), NOW, FRESH_S)
    assert (seen.value, seen.publisher, seen.foreign_publishers) == (99.0, "MEPAI", ("PUB",))


def test_an_older_reading_never_replaces_a_newer_one_unless_that_was_of_the_future() -> None:
    """After a failover old messages may come again; a clock that was wrong must not rule on."""
    store = store_with((METADATA, json.dumps(METER).encode()), (VALUE, value(2)))
    store.ingest(VALUE, value(1, NOW_MS - 1000), NOW, retained=False)
    assert reading(the_point(store), NOW, FRESH_S).value == 2
    assert store.rejected["out_of_order"].times == 1
    store.ingest(VALUE, value(3, NOW_MS + 3_600_000), NOW, retained=False)
    assert the_point(store).state(NOW) is PointState.CLOCK_AHEAD
    store.ingest(VALUE, value(4), NOW, retained=False)
    assert reading(the_point(store), NOW, FRESH_S).value == 4


def test_a_full_store_goes_on_with_what_it_knows() -> None:
    """Nothing that was seen is thrown away for something new."""
    store = store_with((METADATA, json.dumps(METER).encode()), (VALUE, value(1)), max_points=1)
    other = VALUE.replace("/m1/", "/m2/")
    assert not store.ingest(other, value(5), NOW, retained=False)
    assert store.ingest(VALUE, value(2, NOW_MS + 1), NOW, retained=False)
    assert (len(store), store.rejected["store_full"].times) == (1, 1)
    for number in range(20):
        store.ingest(VALUE.replace("PUB", f"i{number}"), value(9), NOW, retained=False)
    assert the_point(store).foreign == tuple(sorted(f"i{number}" for number in range(7)))


def test_rejected_messages_are_counted_with_a_short_last_example() -> None:
    """Enough to find the sender, never enough to fill a log."""
    store = PointStore()
    for topic in ("BMS/v1/PUB/Value/Toaster/x/a", "BMS/v1/PUB/Value/Toaster/x/" + "b" * 900):
        assert not store.ingest(topic, value(), NOW, retained=False)
    example = store.rejected["unknown_object_type"]
    assert (example.times, example.last_at) == (2, NOW)
    assert example.last_topic.endswith("bbb")
    assert len(example.last_topic) == 200
    assert (len(store), store.accepted, store.last_message_at) == (0, 0, None)


@pytest.mark.trap("EX-R19")
def test_a_retained_value_is_judged_by_its_own_timestamp() -> None:
    """Values should not be retained; one that is may be hours old."""
    store = store_with((METADATA, json.dumps(METER).encode()))
    store.ingest(VALUE, value(1, NOW_MS - 3_600_000), NOW, retained=True)
    assert the_point(store).state(NOW) is PointState.STALE
    assert "value_retained" in store.deviations


# What lies and floods may not do


def test_a_reading_that_is_older_than_what_its_point_means_now_is_not_taken_for_one_of_it() -> None:
    """In kW it was said and as MW it would be read, when a broker says again what it kept."""
    store = store_with((METADATA, json.dumps(METER).encode()), (VALUE, value(5)))
    later = NOW + timedelta(seconds=10)
    other = json.dumps(METER | {"engUnit": "MW"}).encode()
    store.ingest(METADATA, other, later, retained=False)
    assert not store.ingest(VALUE, value(5), later, retained=False)
    assert the_point(store).state(later) is PointState.MEANING_CHANGED
    assert store.ingest(VALUE, value(0.005, NOW_MS + 10_000), later, retained=False)
    assert the_point(store).state(later) is PointState.GOOD


def test_a_crowd_of_strangers_does_not_keep_the_owner_out() -> None:
    """Neither the one who owns the point now nor the one who will, once it is described."""
    store = store_with(*((VALUE.replace("PUB", f"i{number}"), value(9)) for number in range(20)))
    assert store.rejected["store_full"].times == 13
    assert store.ingest(VALUE, value(1), NOW, retained=False)
    owned = METER | {"integration": "MEPAI"}
    store.ingest(METADATA, json.dumps(owned).encode(), NOW, retained=False)
    assert store.ingest(VALUE.replace("PUB", "MEPAI"), value(2), NOW, retained=False)
    assert reading(the_point(store), NOW, FRESH_S).value == 2.0


def test_two_points_whose_names_meet_in_two_grammars_are_not_made_one() -> None:
    """The one that was there first stays what it is."""
    store = store_with((VALUE, value(1)), compatibility=Compatibility(old_topics=True))
    assert not store.ingest(f"BMS/v1/{TAIL}/Value", value(2), NOW, retained=False)
    assert set(store.rejected) == {"topic_grammar"}
    point = the_point(store)
    assert point.latest is not None
    assert point.latest.value == 1.0


def test_metadata_has_one_bound_for_all_points_and_known_ones_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A point may say much and there may be many points, but not both."""
    payload = json.dumps(METER).encode()
    monkeypatch.setattr(store_of_points, "MAX_METADATA_BYTES", 2 * len(payload))
    store = store_with((METADATA, payload), (METADATA.replace("/m1/", "/m2/"), payload))
    assert not store.ingest(METADATA.replace("/m1/", "/m3/"), payload, NOW, retained=False)
    assert set(store.rejected) == {"store_full"}
    assert store.ingest(METADATA, payload.replace(b"kW", b"W "), NOW, retained=False)
    store.ingest(METADATA, b"", NOW, retained=False)
    assert store.ingest(METADATA.replace("/m1/", "/m3/"), payload, NOW, retained=False)
