"""What an OpenADR event asks of the site, and what no machine should follow."""

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock_servers.flex.models import LoadTarget, Reason, RejectedError
from interlock_servers.flex.openadr.events import asked_by, by_priority
from interlock_servers.flex.openadr.settings import OpenAdrSettings
from tests.servers.flex.conftest import FEEDS, START
from tests.servers.flex.test_store import at

A, B = FEEDS
NOON = "2026-11-01T12:00:00Z"
SETTINGS = OpenAdrSettings(
    vtn_url="https://vtn.example.com/openadr3",
    programs=("flex",),
    feeds_of={"hall-a": (A,), "campus": (A, B)},
    simple_levels_w={1: 9_000.0, 2: 6_000.0},
)
KW = [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "KW"}]


def event(*payloads: tuple[str, list[Any]], **members: Any) -> dict[str, Any]:
    """An event of one interval, an hour from noon."""
    return {
        "id": "event-1",
        "programID": "program-1",
        "payloadDescriptors": KW,
        "intervalPeriod": {"start": NOON, "duration": "PT1H"},
        "intervals": [
            {"id": 0, "payloads": [{"type": kind, "values": values} for kind, values in payloads]}
        ],
    } | members


def limit(watts: float, **members: Any) -> dict[str, Any]:
    """An event that limits the import."""
    return event(("IMPORT_CAPACITY_LIMIT", [watts / 1e3]), **members)


def asked(
    made: dict[str, Any], program: dict[str, Any] | None = None, now: datetime = START
) -> tuple[LoadTarget, ...]:
    """Its targets; empty too where it is not for us."""
    found = asked_by(made, program or {}, SETTINGS, source="//openadr/x", seen_at=START, now=now)
    return () if found is None else found.targets


def test_an_import_limit_is_a_load_target_in_watts() -> None:
    """With the event as its request, so that a change can name what it follows."""
    (target,) = asked(limit(6_500.0, createdDateTime="2026-11-01T11:00:00Z"))
    assert (target.limit_w, target.start, target.end) == (6_500.0, at(0), at(60))
    assert (target.all_feeds, target.feed_tags) == (True, ())
    assert (target.correlation_id, target.event_id) == ("event-1", "event-1#0")
    assert (target.sent_at, target.received_at) == (at(-60), START)


@pytest.mark.trap("FX-O06")
def test_a_unit_is_taken_from_the_event_then_from_its_program_and_never_guessed() -> None:
    """Kilovolt-amperes are no watts; a number without a unit is none at all."""
    bare = limit(6_500.0, payloadDescriptors=None)
    (target,) = asked(bare, {"payloadDescriptors": KW})
    assert target.limit_w == 6_500.0
    for units in (None, "KVA", "KWH", "kW", "MW", "PERCENT"):
        described = [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": units}]
        with pytest.raises(RejectedError) as caught:
            asked(limit(6_500.0, payloadDescriptors=described))
        assert caught.value.reason is Reason.UNKNOWN_UNIT
    with pytest.raises(RejectedError, match="no unit"):
        asked(bare)
    overruled = [{"payloadType": "IMPORT_CAPACITY_LIMIT", "units": "KVA"}]
    assert asked(limit(6_500.0), {"payloadDescriptors": overruled})[0].limit_w == 6_500.0


@pytest.mark.trap("FX-O07")
@pytest.mark.parametrize(
    ("targets", "feeds"),
    [
        (None, ()),
        ([], ()),
        ([{"type": "GROUP", "values": ["hall-a"]}], (A,)),
        (["campus", "hall-a", "elsewhere"], (A, B)),
        ([{"type": "RESOURCE_NAME", "values": ["elsewhere"]}], None),
        (["elsewhere"], None),
    ],
)
def test_targets_are_feeds_as_the_settings_say_in_either_version(
    targets: Any, feeds: tuple[str, ...] | None
) -> None:
    """None named is all of them; those of others leave us alone."""
    found = asked(limit(5_000.0, targets=targets))
    assert [target.feed_tags for target in found] == ([] if feeds is None else [feeds])
    assert [target.all_feeds for target in found] == ([] if feeds is None else [not feeds])


@pytest.mark.trap("FX-O08")
def test_a_level_is_worth_what_the_settings_say_and_zero_is_normal() -> None:
    """The standard gives SIMPLE no watts; level 3 is nobody's guess."""
    assert asked(event(("SIMPLE", [1])))[0].limit_w == 9_000.0
    assert asked(event(("SIMPLE", [0]))) == ()
    for level in (3, True, 1.0, "1", None, -1):
        with pytest.raises(RejectedError) as caught:
            asked(event(("SIMPLE", [level])))
        assert caught.value.reason is Reason.SIMPLE_LEVEL_UNMAPPED


def test_of_several_limits_in_an_interval_the_strictest_holds_and_prices_do_not() -> None:
    """An interval may carry what is not for us."""
    (target,) = asked(event(("PRICE", [0.17]), ("SIMPLE", [1]), ("IMPORT_CAPACITY_LIMIT", [8.0])))
    assert target.limit_w == 8_000.0


@pytest.mark.trap("FX-O09")
@pytest.mark.parametrize("kind", ["ALERT_GRID_EMERGENCY", "ALERT_BLACK_START", "ALERT_OTHER"])
def test_an_alert_is_for_people_and_sheds_nothing(kind: str) -> None:
    """Not even beside a limit that could be followed."""
    for payloads in ([(kind, ["rolling outages"])], [("SIMPLE", [2]), (kind, ["outages"])]):
        with pytest.raises(RejectedError, match="outages") as caught:
            asked(event(*payloads))
        assert caught.value.reason is Reason.ALERT_FOR_PEOPLE


@pytest.mark.trap("FX-O10")
@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (("DISPATCH_SETPOINT_RELATIVE", [5.0]), Reason.NOT_A_LIMIT),
        (("CONTROL_SETPOINT", [5.0]), Reason.NOT_A_LIMIT),
        (("PRICE", [0.2]), Reason.NOT_A_LIMIT),
        (("EXPORT_CAPACITY_LIMIT", [5.0]), Reason.NOT_A_LIMIT),
        (("IMPORT_CAPACITY_LIMIT", []), Reason.BAD_PAYLOAD),
        (("IMPORT_CAPACITY_LIMIT", [5.0, 6.0]), Reason.BAD_PAYLOAD),
        (("IMPORT_CAPACITY_LIMIT", ["5"]), Reason.BAD_PAYLOAD),
        (("IMPORT_CAPACITY_LIMIT", [True]), Reason.BAD_PAYLOAD),
        (("IMPORT_CAPACITY_LIMIT", [{"x": 1, "y": 2}]), Reason.BAD_PAYLOAD),
        (("IMPORT_CAPACITY_LIMIT", [-1]), Reason.POWER_NEGATIVE),
        (("IMPORT_CAPACITY_LIMIT", [0]), Reason.POWER_NOT_POSITIVE),
        (("IMPORT_CAPACITY_LIMIT", [10**400]), Reason.POWER_NOT_FINITE),
    ],
)
def test_what_is_no_limit_in_watts_is_refused_by_name(
    payload: tuple[str, list[Any]], reason: Reason
) -> None:
    """Relative and private setpoints too: what they are relative to is not ours to say."""
    with pytest.raises(RejectedError) as caught:
        asked(event(payload))
    assert caught.value.reason is reason


def test_what_is_over_asks_for_nothing() -> None:
    """A VTN keeps events long after their time."""
    assert asked(limit(5_000.0), now=at(59)) != ()
    assert asked(limit(5_000.0), now=at(60)) == ()


@pytest.mark.trap("FX-O11")
def test_the_higher_priority_holds_for_its_time_and_the_lower_before_and_after() -> None:
    """A lower number is higher, and none at all is the lowest."""

    def of(name: str, watts: float, minutes: tuple[int, int], priority: int | None) -> Any:
        made = limit(watts, priority=priority, id=name)
        made["intervalPeriod"] = {
            "start": at(minutes[0]).isoformat(),
            "duration": f"PT{minutes[1] - minutes[0]}M",
        }
        return asked_by(made, {}, SETTINGS, source=name, seen_at=START, now=START)

    found = by_priority(
        [of("c", 3_000.0, (0, 90), None), of("b", 9_000.0, (30, 60), 1), of("a", 4.0, (80, 99), 0)]
    )
    assert [(t.limit_w, t.start, t.end) for t in sorted(found, key=lambda t: t.start)] == [
        (3_000.0, at(0), at(30)),
        (9_000.0, at(30), at(60)),
        (3_000.0, at(60), at(80)),
        (4.0, at(80), at(99)),
    ]
    equal = by_priority([of("a", 3_000.0, (0, 60), 2), of("b", 5_000.0, (0, 60), 2)])
    assert {target.limit_w for target in equal} == {3_000.0, 5_000.0}
    assert {target.source for target in equal} == {"a", "b"}  # two sources: the stricter counts


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(
    st.sampled_from(
        [
            "id",
            "targets",
            "priority",
            "intervals",
            "intervalPeriod",
            "payloadDescriptors",
            "duration",
            "createdDateTime",
        ]
    ),
    JSON,
)
def test_whatever_a_member_holds_it_is_followed_or_refused(member: str, value: Any) -> None:
    """Nothing that a VTN writes ends the reading of its other events."""
    try:
        found = asked(limit(5_000.0) | {member: value})
    except RejectedError:
        return
    assert all(target.limit_w == 5_000.0 for target in found)
