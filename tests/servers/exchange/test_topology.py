"""What hangs on what, and what goes dark: by `servesId` and `associateId` and nothing else."""

import pytest

from interlock_tools.errors import NotFoundError
from tests.servers.exchange.hall import Hall, two_feeds


def lost(hall: Hall, start: str) -> set[str]:
    """What is lost with this."""
    return {node.id for node in hall.client.topology(start).nodes if node.lost}


@pytest.mark.trap("EX-R25")
def test_what_two_feeds_serve_is_not_lost_with_one_of_them() -> None:
    """`servesId` names meters, equipment and racks alike; power and coolant are both needed."""
    hall = two_feeds()
    assert lost(hall, "feed-a") == {"feed-a", "r2"}
    assert lost(hall, "cdu-1") == {"cdu-1", "r1", "r2"}
    # feed-b feeds the pump of the only coolant: everything stands.
    assert lost(hall, "feed-b") == {"feed-b", "cdu-1", "r1", "r2"}
    assert lost(hall, "lab") == {"lab", "feed-a", "feed-b", "cdu-1", "r1", "r2"}
    up = hall.client.topology("r1", "up")
    assert {node.id for node in up.nodes} == {"r1", "feed-a", "feed-b", "cdu-1", "lab"}
    assert {node.lost for node in up.nodes} == {None}


@pytest.mark.trap("EX-R26")
def test_a_breaker_is_asked_by_its_point_and_stands_where_its_meter_stands() -> None:
    """In associate mode it has no id of its own, and no path beside that of the meter."""
    hall = two_feeds()
    opened = hall.client.topology("Breaker/Status/x/q1")
    assert opened.id == "feed-a"
    assert {node.id for node in opened.nodes if node.lost} == {"feed-a", "r2"}
    page = hall.client.points(object_id="feed-a")
    assert {point.object_type for point in page.points} == {"PowerMeter", "Breaker"}
    with pytest.raises(NotFoundError):
        hall.client.topology("Breaker/Status/x/q2")


@pytest.mark.trap("EX-R15")
def test_nothing_is_read_out_of_a_tag_path() -> None:
    """It is an opaque id: what looks like a rack in it is none."""
    hall = Hall()
    hall.describe("PowerMeter/ActivePower/site/r7/leak", engUnit="kW", objectId="m", servesId=[])
    assert hall.client.store.catalogue().by_rack == {}
    with pytest.raises(NotFoundError):
        hall.client.rack("r7")


def test_metadata_that_leads_in_a_circle_is_walked_once_and_said() -> None:
    """A circle with no source feeds nobody: what hangs on it is not called fed."""
    hall = Hall()
    hall.meter("a", ["b"])
    hall.meter("b", ["c", "r1"])
    hall.meter("c", ["a"])
    found = hall.client.topology("b")
    assert {node.id for node in found.nodes} == {"a", "b", "c", "r1"}
    assert "circle" in found.warnings[0]
    assert lost(hall, "b") == {"a", "b", "c", "r1"}
    hall.meter("d", ["d"])
    assert "circle" in hall.client.topology("d").warnings[0]


def test_an_id_that_two_things_claim_is_said_where_it_matters() -> None:
    """Two meters of one name, or a meter named as a rack: neither is preferred in silence."""
    hall = two_feeds()
    hall.describe("UPS/Status/y/1", stateText=[{"value": 0, "text": "Off"}], objectId="feed-a")
    warnings = hall.client.topology("feed-a").warnings
    assert any("feed-a" in one and "UPS" in one for one in warnings)
    hall.meter("r1", [])
    assert "r1" in hall.store.catalogue().conflicts


def test_a_path_of_any_length_ends() -> None:
    """Ten thousand meters in a chain are an answer with `truncated`, not a hang."""
    hall = Hall()
    for number in range(300):
        hall.meter(f"m{number}", [f"m{number + 1}"])
    found = hall.client.topology("m0")
    assert found.truncated
    assert len(found.nodes) == 33
