"""The MCP face of the facility bus, through a client, held against the plant itself."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from interlock_plant.faults import Fault, FaultKind
from interlock_tools.errors import ComponentError
from tests.servers.sites import Lab, open_lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The lab, every point said once."""
    async with open_lab(tmp_path) as opened:
        yield opened


async def test_the_site_is_in_watts_with_everything_below_it(lab: Lab) -> None:
    """The bus speaks kilowatts; a caller gets watts, the depth of each meter, and its age."""
    power = await lab.call("exchange", "site_power")

    site = lab.plant.site
    below = {meter["id"]: meter for meter in power["below"]}
    assert power["power_w"] == pytest.approx(lab.plant.site_meter_w, abs=1)
    assert set(below) == {*site.feed_ids, *site.pdu_ids, *site.rack_ids}
    for rack_id, metered_w in zip(site.rack_ids, lab.plant.rack_meter_w, strict=True):
        assert below[rack_id]["kind"] == "rack"
        assert below[rack_id]["power_w"] == pytest.approx(metered_w, abs=1)
    assert [below[meter]["depth"] for meter in ("feed-a", "pdu-1", "rack-01")] == [1, 2, 3]
    assert below["feed-a"]["age_s"] == 0.0


async def test_a_meter_of_bad_quality_has_no_watts_and_says_why(lab: Lab) -> None:
    """Absent is unknown: no zero that somebody could add up."""
    lab.bms.fault("bad_quality")
    await lab.second()

    power = await lab.call("exchange", "site_power")

    assert "power_w" not in power
    assert "quality is 0" in power["why"]
    assert all("power_w" not in meter and meter["why"] for meter in power["below"])


async def test_points_are_searched_and_paged(lab: Lab) -> None:
    """Filters meet, the cursor leads through all of them once."""
    racks = await lab.call("exchange", "list_points", point_type="RackPower", limit=5)
    rest = await lab.call(
        "exchange", "list_points", point_type="RackPower", limit=5, cursor=racks["next_cursor"]
    )
    one = await lab.call("exchange", "list_points", point_type="RackPower", rack_id="rack-03")
    none = await lab.call("exchange", "list_points", object_id="null")

    keys = [point["key"] for page in (racks, rest) for point in page["points"]]
    assert len(keys) == len(set(keys)) == len(lab.plant.site.racks)
    assert keys == sorted(keys)
    assert "next_cursor" not in rest
    assert len(one["points"]) == 1
    assert one["points"][0]["unit"] == "kW"
    assert none["points"] == []


async def test_points_can_be_asked_for_by_what_is_wrong_with_them(lab: Lab) -> None:
    """How an operator finds what to mend."""
    good = await lab.call("exchange", "list_points", state="bad_quality")
    lab.bms.fault("bad_quality")
    await lab.second()
    bad = await lab.call("exchange", "list_points", state="bad_quality", limit=200)

    assert good["points"] == []
    assert len(bad["points"]) > 50
    assert all("value" not in point for point in bad["points"])
    assert any("last_good_value" in point for point in bad["points"])


@pytest.mark.parametrize(
    ("tool", "arguments", "names"),
    [
        ("get_rack", {"rack_id": "rack-99"}, "rack-99"),
        ("trace_path", {"id": "pdu-99"}, "pdu-99"),
        ("list_points", {"object_type": "PowerMetre"}, "PowerMetre"),
        ("list_points", {"limit": 0}, "limit"),
        ("list_points", {"state": "fine"}, "state"),
    ],
)
async def test_what_is_not_there_is_named(
    lab: Lab, tool: str, arguments: dict[str, object], names: str
) -> None:
    """No empty answer that reads as `nothing is wrong there`."""
    with pytest.raises(ComponentError, match=names):
        await lab.call("exchange", tool, **arguments)


async def test_a_rack_shows_its_leak_and_what_feeds_it(lab: Lab) -> None:
    """A leak is seen with the text of its own metadata."""
    lab.plant.inject(Fault(FaultKind.LEAK, "rack-02"))
    await lab.second()
    await lab.second()

    rack = await lab.call("exchange", "get_rack", rack_id="rack-02")

    leak = next(p for p in rack["points"] if "RackLeakDetect" in p["key"])
    assert (leak["value"], leak["label"]) == (1.0, "Leak")
    assert "pdu-1" in rack["served_by"]
    assert "cdu-1" in rack["served_by"]


async def test_the_path_leads_down_to_the_racks_and_up_to_the_site(lab: Lab) -> None:
    """What goes dark with a PDU, and what a rack hangs on."""
    down = await lab.call("exchange", "trace_path", id="pdu-1")
    up = await lab.call("exchange", "trace_path", id="rack-01", direction="up")

    below = {row["id"]: row for row in down["reaches"]}
    above = {row["id"]: row for row in up["reaches"]}
    assert set(below) == {f"rack-{n:02d}" for n in range(1, 5)}
    assert all(
        (row["kind"], row["steps"], row["via"]) == ("rack", 1, ["pdu-1"]) for row in below.values()
    )
    assert {"pdu-1", "feed-a", "lab"} <= set(above)
    assert above["lab"]["via"] == ["feed-a"]
    assert down["truncated"] is False


async def test_a_bms_that_lost_its_heartbeat_is_not_alive(lab: Lab) -> None:
    """Thirty seconds of silence on a bus that is heard: dead, and not merely unknown."""
    healthy = await lab.call("exchange", "bus_health")
    lab.bms.fault("no_heartbeat")
    await lab.silence(31)
    await lab.second()
    silent = await lab.call("exchange", "bus_health")

    assert healthy["bms_alive"] is True
    assert silent["bms_alive"] is False
    assert "30 s is the limit" in silent["why"]
    assert silent["connected"] is True


async def test_messages_that_were_refused_are_counted_by_reason(lab: Lab) -> None:
    """A broken sender is seen, and its last good values stay, with their age."""
    before = await lab.call("exchange", "site_power")
    lab.bms.fault("malformed")
    await lab.second()

    health = await lab.call("exchange", "bus_health")
    after = await lab.call("exchange", "site_power")

    assert sum(health["rejected"].values()) > 50
    assert after["power_w"] == before["power_w"]
    assert after["measured_at"] == before["measured_at"]


async def test_without_a_broker_every_read_answers_and_says_since_when(lab: Lab) -> None:
    """Old values under their own age; nobody has to guess whether the bus was there."""
    await lab.end_broker()
    await lab.until("exchange", "bus_health", lambda health: not health["connected"])
    await lab.silence(5)

    calls = {
        "site_power": {},
        "list_points": {},
        "get_rack": {"rack_id": "rack-01"},
        "trace_path": {"id": "lab"},
        "bus_health": {},
    }
    for tool, arguments in calls.items():
        answer = await lab.call("exchange", tool, **arguments)
        assert answer["stale_since"] == answer["observed_at"], tool
