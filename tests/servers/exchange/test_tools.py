"""The tools of the whole bus, the way an agent meets them, and upstream's own four."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from interlock_plant.faults import Fault, FaultKind
from interlock_servers.exchange.grammar import spaces
from interlock_tools.errors import ComponentError
from tests import golden
from tests.servers.sites import Lab, open_lab

POWER = "Rack/RackPower/lab/rack-01/RackPower"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The lab, every point said once."""
    async with open_lab(tmp_path) as opened:
        yield opened


@pytest.mark.trap("EX-R24")
async def test_the_catalogue_says_what_a_point_is(lab: Lab) -> None:
    """Whose it is, where in the process, and in what it counts: by metadata alone."""
    found = await lab.call("exchange", "list_points", object_id="cdu-1")
    supply = next(p for p in found["points"] if p.get("area") == ["Secondary", "Supply"])
    assert (supply["object_id"], supply["unit"]) == ("cdu-1", "C")
    racks = await lab.call("exchange", "list_points", rack_id="rack-01", fields=["rack_id"])
    assert {point["rack_id"] for point in racks["points"]} == {"rack-01"}


async def test_a_path_says_what_is_lost_and_what_is_still_fed(lab: Lab) -> None:
    """Downwards; of what feeds a rack nothing is lost."""
    down = await lab.call("exchange", "trace_path", id="pdu-1")
    up = await lab.call("exchange", "trace_path", id="rack-01", direction="up")
    assert {row["lost"] for row in down["reaches"]} == {True}
    assert all("lost" not in row for row in up["reaches"])
    assert "warnings" not in down


async def test_past_readings_come_newest_first_with_their_age(lab: Lab) -> None:
    """The last is what the point shows now."""
    for _ in range(3):
        lab.bms.repair("stale")  # so that everything is said anew
        await lab.second()
    past = await lab.call("exchange", "point_history", key=POWER)
    now = await lab.call("exchange", "list_points", point_type="RackPower", rack_id="rack-01")
    assert past["unit"] == "kW"
    assert len(past["readings"]) >= 4
    assert past["readings"][0]["value"] == now["points"][0]["value"]
    moments = [reading["at"] for reading in past["readings"]]
    assert moments == sorted(moments, reverse=True)
    with pytest.raises(ComponentError, match="rack-99"):
        await lab.call("exchange", "point_history", key=POWER.replace("rack-01", "rack-99"))


async def test_a_leak_is_listed_and_is_an_event(lab: Lab) -> None:
    """Dry racks are not listed unless asked for."""
    before = await lab.call("exchange", "list_leaks")
    lab.plant.inject(Fault(FaultKind.LEAK, "rack-02"))
    await lab.second()
    await lab.second()
    after = await lab.call("exchange", "list_leaks")
    events = await lab.call("exchange", "list_events", kind="leak")
    assert before["racks"] == []
    (rack,) = after["racks"]
    assert (rack["id"], rack["leak"], rack["sensor_fault"]) == ("rack-02", True, False)
    assert [(e["before"], e["after"]) for e in events["events"]] == [("NoLeak", "Leak")]
    assert "rack-02" in events["events"][0]["subject"]
    everything = await lab.call("exchange", "list_leaks", everything=True, limit=200)
    assert len(everything["racks"]) == len(lab.plant.site.racks)


async def test_that_the_bus_was_lost_is_an_event(lab: Lab) -> None:
    """And since when is in every answer."""
    await lab.end_broker()
    await lab.until("exchange", "bus_health", lambda health: not health["connected"])
    events = await lab.call("exchange", "list_events", kind="bus")
    assert [event["after"] for event in events["events"]] == ["lost", "connected"]
    assert "stale_since" in events


# Upstream's own


@pytest.mark.trap("EX-R47")
async def test_the_tools_of_upstreams_prototype_are_there_with_their_arguments() -> None:
    """Either server can stand in for the other; neither has a tool that writes."""
    tools = {tool["name"]: tool for tool in (await golden.seen_by_a_model())["dsx_exchange"]}
    wanted = {
        "dsx_exchange_find_topics": {
            "query",
            "domain",
            "role",
            "object_type",
            "point_type",
            "operation_action",
            "limit",
        },
        "dsx_exchange_describe_topic": {"topic_filter"},
        "dsx_exchange_read_retained": {"topic_filter", "max_messages"},
        "dsx_exchange_subscribe": {"topic_filter", "max_messages", "max_duration_s"},
    }
    for name, arguments in wanted.items():
        assert set(tools[name]["inputSchema"]["properties"]) == arguments
    properties = tools["dsx_exchange_subscribe"]["inputSchema"]["properties"]
    assert properties["max_messages"]["maximum"] == 1000
    assert properties["max_duration_s"]["maximum"] == 30


@pytest.mark.trap("EX-R13")
async def test_topics_are_found_and_described_and_none_is_invented(lab: Lab) -> None:
    """Five specifications of upstream are empty: there are no topics to be found for them."""
    rack = await lab.call(
        "dsx_exchange", "dsx_exchange_find_topics", object_type="Rack", point_type="RackPower"
    )
    assert {t["topic"] for t in rack["topics"]} == {
        "BMS/v1/PUB/Value/Rack/{pointType}/{tagPath}",
        "BMS/v1/PUB/Metadata/Rack/{pointType}/{tagPath}",
    }
    every = await lab.call("dsx_exchange", "dsx_exchange_find_topics", limit=200)
    assert len(every["topics"]) == len(spaces()) == 74
    for stub in ("leak-response", "break-fix", "node-readiness", "scheduler", "notification"):
        none = await lab.call("dsx_exchange", "dsx_exchange_find_topics", query=stub)
        assert none["topics"] == []
    one = await lab.call(
        "dsx_exchange", "dsx_exchange_describe_topic", topic_filter="cpc/+/NICO/v1/machine/#"
    )
    assert [t["domain"] for t in one["topics"]] == ["nico"]
    with pytest.raises(ComponentError, match="schema_no_match"):
        await lab.call("dsx_exchange", "dsx_exchange_describe_topic", topic_filter="nodes/#")


async def test_retained_messages_are_shown_as_they_came(lab: Lab) -> None:
    """In upstream's shape, bounded by number."""
    read = await lab.call(
        "dsx_exchange",
        "dsx_exchange_read_retained",
        topic_filter="BMS/v1/PUB/Metadata/Rack/RackPower/#",
        max_messages=3,
    )
    assert read["stopped_reason"] == "max_messages"
    assert len(read["messages"]) == 3
    message = read["messages"][0]
    assert set(message) == {
        "topic",
        "payload",
        "payload_encoding",
        "retained",
        "qos",
        "received_at",
    }
    assert json.loads(message["payload"])["pointType"] == "RackPower"
    none = await lab.call("dsx_exchange", "dsx_exchange_read_retained", topic_filter="grid/#")
    assert (none["messages"], none["stopped_reason"]) == ([], "retained_idle")


@pytest.mark.trap("EX-R45")
async def test_listening_ends_with_enough_messages_or_enough_time(lab: Lab) -> None:
    """Never unbounded, and never for topics that this server does not hear."""
    heard: dict[str, object] = {}

    async def listen() -> None:
        heard.update(
            await lab.call(
                "dsx_exchange",
                "dsx_exchange_subscribe",
                topic_filter="BMS/v1/PUB/Value/Rack/RackPower/#",
                max_messages=4,
                max_duration_s=8,
            )
        )

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        while not heard:
            await lab.second()
    assert heard["stopped_reason"] == "max_messages"
    assert isinstance(heard["messages"], list)
    assert len(heard["messages"]) == 4
    idle = await lab.call(
        "dsx_exchange", "dsx_exchange_subscribe", topic_filter="BMS/v1/#", max_duration_s=0.05
    )
    assert (idle["messages"], idle["stopped_reason"]) == ([], "max_duration")
    with pytest.raises(ComponentError, match="topic_acl_denied"):
        await lab.call("dsx_exchange", "dsx_exchange_subscribe", topic_filter="NICO/#")
    for wrong in ("a/#/b", "a+"):
        with pytest.raises(ComponentError, match="filter"):
            await lab.call("dsx_exchange", "dsx_exchange_subscribe", topic_filter=wrong)
