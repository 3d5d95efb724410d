"""A settlement as a report: the VTN takes it, and a gap is told as one."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from interlock_servers.flex.baseline import HIGH_4_OF_5
from interlock_servers.flex.openadr.reports import settlement_report
from interlock_servers.flex.settlement import Settlement, settle
from interlock_servers.flex.twin_vtn_schema import Version, what_is_wrong
from tests.servers.flex.conftest import FEEDS
from tests.servers.flex.test_openadr_client import utility
from tests.servers.flex.test_openadr_events import SETTINGS
from tests.servers.flex.test_settlement import DAY, EVENT, NEW_YORK, event, meter, steady


def with_a_gap() -> Settlement:
    """The event of the day, its second hour not metered, by a target of interval 7."""
    own = event().model_copy(update={"event_id": f"{EVENT}#7"})
    data = meter(lambda day, hour: None if (day, hour) == (DAY, 15) else steady(day, hour))
    return settle(EVENT, [own], data, HIGH_4_OF_5, feeds=FEEDS, zone=NEW_YORK)


@pytest.mark.trap("FX-O17")
@pytest.mark.parametrize("version", ["3.0", "3.1"])
async def test_the_vtn_takes_the_report_of_a_settlement(tmp_path: Path, version: Version) -> None:
    """In kilowatts, under the ids of the event's intervals, its gaps as missing and not as zero."""
    async with utility(tmp_path, version) as grid:
        event_id = grid.put(6_000.0)
        await grid.ven.look()
        told = grid.ven.event(event_id)
        report = settlement_report(with_a_gap(), told, grid.settings, resource_name="lab")
        await grid.ven.send_report(report)
        assert grid.vtn.wrong == []
        (kept,) = grid.vtn.reports
        assert ("programID" in report) == (version == "3.0")
        intervals = kept["resources"][0]["intervals"]
        assert [interval["id"] for interval in intervals] == [7, 7, 7, 7]
        assert values(intervals[0]) == {"DEMAND": 6.0, "BASELINE": 10.0, "DATA_QUALITY": "OK"}
        assert values(intervals[1]) == {"BASELINE": 10.0, "DATA_QUALITY": "MISSING"}
        assert intervals[0]["intervalPeriod"] == {
            "start": "2026-11-18T19:00:00Z",
            "duration": "PT3600S",
        }


def test_a_report_holds_what_the_event_asked_for() -> None:
    """Energy in kilowatt-hours of its interval; what we do not have is left out."""
    asked = {
        "id": "event-1",
        "programID": "program-1",
        "reportDescriptors": [{"payloadType": "USAGE"}, {"payloadType": "STORAGE_CHARGE_LEVEL"}],
    }
    made = with_a_gap()
    halved = made._replace(interval=timedelta(minutes=30))
    report = settlement_report(halved, asked, SETTINGS, resource_name="lab")
    assert what_is_wrong("3.0", "report", report) is None
    assert [one["payloadType"] for one in report["payloadDescriptors"]] == ["USAGE"]
    intervals = report["resources"][0]["intervals"]
    assert values(intervals[0]) == {"USAGE": 3.0, "DATA_QUALITY": "OK"}


def test_the_operating_state_is_of_the_meter_and_unknown_where_that_is() -> None:
    """Curtailed where it kept below the target; above it, it ran as ever."""
    asked = {
        "id": "event-1",
        "programID": "program-1",
        "reportDescriptors": [{"payloadType": "OPERATING_STATE"}],
    }
    made = with_a_gap()
    over = made.rows[2]._replace(metered_w=9_000.0)
    made = made._replace(rows=(*made.rows[:2], over, *made.rows[3:]))
    report = settlement_report(made, asked, SETTINGS, resource_name="lab")
    assert what_is_wrong("3.0", "report", report) is None
    intervals = report["resources"][0]["intervals"]
    assert [values(one).get("OPERATING_STATE") for one in intervals] == [
        "RUNNING_CURTAILED",
        None,
        "RUNNING_NORMAL",
        "RUNNING_CURTAILED",
    ]


def values(interval: dict[str, Any]) -> dict[str, Any]:
    """The one value of each payload."""
    return {payload["type"]: payload["values"][0] for payload in interval["payloads"]}
