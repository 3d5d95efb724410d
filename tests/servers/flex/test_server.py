"""The MCP face of the grid's limits, through a client."""

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from interlock_servers.flex.twin import IsvFault, TwinKey
from interlock_servers.flex.twin_wire import event, sign
from interlock_servers.transports.mqtt import MqttBus, MqttSettings
from tests.servers.flex.raw import BREACH, ENFORCEMENT
from tests.servers.sites import AGENT_KEY, FEEDS, INFRA, INFRA_KEY, Lab, open_lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The lab; the grid has asked for nothing yet."""
    async with open_lab(tmp_path) as opened:
        yield opened


def moment(text: str) -> datetime:
    """A moment in an answer."""
    return datetime.fromisoformat(text)


async def grid_when(lab: Lab, key: str) -> Any:
    """What the grid asks, once it names `key`."""
    return await lab.until("flex", "grid_limit", lambda grid: grid.get(key) is not None)


async def test_no_limit_that_is_known_is_not_the_same_as_unknown(lab: Lab) -> None:
    """The agent has spoken and there is none: absent, and `known`."""
    grid = await lab.call("flex", "grid_limit")

    assert grid["known"] is True
    assert "limit_w" not in grid
    assert "next" not in grid
    assert grid["feed_limits_w"] == {}


async def test_an_announced_limit_is_next_and_then_in_force_and_then_over(lab: Lab) -> None:
    """The whole event, with its correlation id, in the order in which it happens."""
    start = lab.clock.now() + timedelta(seconds=10)
    end = start + timedelta(seconds=20)
    name = await lab.grid.set_target(400_000.0, start=start, end=end)

    announced = await grid_when(lab, "next")
    assert "limit_w" not in announced
    assert announced["next"]["limit_w"] == 400_000.0
    assert moment(announced["next"]["starts_at"]) == start
    assert announced["next"]["correlation_id"] == name
    listed = await lab.call("flex", "list_load_targets")
    assert [target["in_force_on"] for target in listed["targets"]] == [[]]

    for _ in range(10):
        await lab.second()
    held = await lab.call("flex", "grid_limit")
    assert held["limit_w"] == 400_000.0
    assert moment(held["until"]) == end
    assert held["correlation_id"] == name
    assert held["source"] == lab.grid.source
    targets = await lab.call("flex", "list_load_targets")
    assert [set(target["in_force_on"]) for target in targets["targets"]] == [set(FEEDS)]
    assert targets["targets"][0]["correlation_id"] == name

    for _ in range(20):
        await lab.second()
    over = await lab.call("flex", "grid_limit")
    assert over["known"] is True
    assert "limit_w" not in over


async def test_a_limit_on_one_feed_is_no_limit_on_the_site(lab: Lab) -> None:
    """Tagged feeds are limited, the others are not, and the sum is nobody's wish."""
    await lab.grid.set_target(200_000.0, feed_tags=["feed-a"])
    grid = await lab.until("flex", "grid_limit", lambda grid: bool(grid["feed_limits_w"]))

    assert grid["feed_limits_w"] == {"feed-a": 200_000.0}
    assert "limit_w" not in grid


@pytest.mark.parametrize(
    "fault", [IsvFault.WRONG_KEY, IsvFault.ALG_NONE, IsvFault.UNSIGNED, IsvFault.PAST_TIME]
)
async def test_a_target_that_cannot_be_believed_limits_nothing_and_is_shown(
    lab: Lab, fault: IsvFault
) -> None:
    """Whoever can write to the bus cannot dim the site; that somebody tried is there to read."""
    await lab.grid.set_target(100_000.0, fault=fault)
    refused = await lab.until("flex", "list_refused_messages", lambda page: bool(page["refused"]))

    grid = await lab.call("flex", "grid_limit")
    assert "limit_w" not in grid
    assert refused["refused"][0]["count"] == 1
    assert refused["refused"][0]["last_source"] == lab.grid.source


async def test_feeds_say_what_the_agent_calculates(lab: Lab) -> None:
    """Load, range and compliance per feed, with the moment of the snapshot."""
    feeds = await lab.call("flex", "list_feeds")

    by_tag = {feed["feed_tag"]: feed for feed in feeds["feeds"]}
    assert set(by_tag) == set(FEEDS)
    for tag, metered_w in zip(FEEDS, lab.plant.feed_power_w, strict=True):
        assert by_tag[tag]["calculated_load_w"] == pytest.approx(metered_w, rel=0.01)
        assert by_tag[tag]["compliant"] is True
        assert "limit_w" not in by_tag[tag]


async def test_a_breach_is_listed_while_the_site_draws_more_than_it_may(lab: Lab) -> None:
    """Measured above the target: its status, and the watts on both sides."""
    await lab.limit(300_000.0)
    await lab.second()
    await lab.second()
    breaches = await lab.until("flex", "list_breaches", lambda page: bool(page["breaches"]))

    breach = breaches["breaches"][0]
    assert breach["status"] in {"active", "escalated"}
    assert breach["limit_w"] == 300_000.0
    assert breach["measured_load_w"] > 300_000.0


async def test_what_is_advised_and_what_was_enforced_is_told_and_is_no_tool(lab: Lab) -> None:
    """Hints by priority, and actions that others take: nothing here carries them out."""
    assert lab.site.settings.flex is not None
    assert lab.site.settings.flex.mqtt is not None
    bus = MqttBus(
        MqttSettings(brokers=lab.site.settings.flex.mqtt.brokers, client_id="ima"),
        lab.clock,
        lambda _: None,
        subscriptions=(),
    )
    agent = Told(f"{lab.agent.source}/powerbreach", "grid.powerbreach.alert.v1", AGENT_KEY)
    infra = Told(f"{INFRA}/powerbreach/enforcement", "grid.powerbreach.enforcement.v1", INFRA_KEY)
    hints = [
        {"resource_id": "node-2", "resource_type": "node", "action": "suspend", "priority": 2},
        {
            "resource_id": "gpu-1",
            "resource_type": "gpu",
            "action": "power_cap",
            "priority": 1,
            "target_power": {"value": 300, "unit": "watt"},
        },
    ]
    async with bus:
        await bus.wait_connected(10.0)
        breach = BREACH | {
            "feed_tag": FEEDS[0],
            "shed_hints": hints,
            "infrastructure_actions": ["CUT_DATA_FEEDS"],
        }
        await agent.say(bus, lab, breach)
        await infra.say(bus, lab, ENFORCEMENT | {"feed_tag": FEEDS[0]})
        breaches = await lab.until("flex", "list_breaches", lambda page: bool(page["breaches"]))
        done = await lab.until("flex", "list_enforcements", lambda page: bool(page["enforcements"]))
    (seen,) = breaches["breaches"]
    assert seen["shed_hints"] == ["1: power_cap gpu gpu-1 to 300 W", "2: suspend node node-2"]
    assert seen["infrastructure_actions"] == ["CUT_DATA_FEEDS"]
    (enforced,) = done["enforcements"]
    assert (enforced["breach_id"], enforced["code"]) == (seen["breach_id"], ENFORCEMENT["code"])
    assert len(enforced["results"]) == len(ENFORCEMENT["results"])
    assert lab.writes() == 0


class Told(NamedTuple):
    """What a source says on one of its topics."""

    topic: str
    kind: str
    key: TwinKey

    async def say(self, bus: MqttBus, lab: Lab, payload: dict[str, Any]) -> None:
        """Say it, signed."""
        source = "/".join(self.topic.split("/")[:6])
        data = sign(json.dumps(payload).encode(), self.key)
        message = event(self.kind, source, "powerbreach", lab.clock.now(), data, None)
        await bus.publish(self.topic.removeprefix("//"), json.dumps(message).encode(), qos=2)


async def test_without_the_bus_the_wish_is_unknown_and_not_absent(lab: Lab) -> None:
    """A target may have come that we did not hear: conclude nothing from silence."""
    await lab.limit(400_000.0)
    heard = lab.clock.now()
    await lab.end_broker()
    grid = await lab.until("flex", "grid_limit", lambda grid: not grid["known"])
    await lab.silence(60)

    later = await lab.call("flex", "grid_limit")
    assert "disconnected" in grid["why"]
    assert grid["limit_w"] == later["limit_w"] == 400_000.0  # what held is still told
    assert moment(later["stale_since"]) == heard
    assert moment(later["observed_at"]) == heard


async def test_the_schedule_shows_what_is_announced_step_by_step(lab: Lab) -> None:
    """From now to the end of all that is announced, with the events behind each limit."""
    start = lab.clock.now() + timedelta(seconds=600)
    await lab.grid.set_target(400_000.0, start=start, end=start + timedelta(seconds=60))
    await grid_when(lab, "next")
    schedule = await lab.call("flex", "grid_schedule")

    assert schedule["known"] is True
    assert [(step.get("limit_w"), step["kind"]) for step in schedule["steps"]] == [
        (None, "hold"),
        (400_000.0, "hold"),
        (None, "hold"),
    ]
    assert moment(schedule["steps"][1]["starts_at"]) == start
    assert "ends_at" not in schedule["steps"][2]
    assert len(schedule["steps"][1]["event_ids"]) == 1
    assert schedule["remarks"] == []
