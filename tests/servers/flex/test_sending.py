"""Interlock as an ISV: what it refuses to send, what it sends once, and what it believes of it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from interlock_servers.flex.sending_facts import GRID_FEEDS, GRID_PUBLISHER
from interlock_servers.flex.twin import AgentFault, GridIsvTwin, make_key, write_jwks
from interlock_servers.transports.mqtt import Message, MqttBus, MqttSettings
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import ComponentError
from interlock_tools.fact import FactNeed, Unknown
from interlock_tools.identity import Target
from tests.servers.sites import FEEDS, ISV, PATIENCE_S, Lab, open_lab
from tests.test_house_operations import Without

A, B = FEEDS
S = ChangeState
LIMIT_W = 120_000.0
TOOL, CLEAR = "set_load_target", "clear_load_target"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The lab, where we are an ISV."""
    async with open_lab(tmp_path, sends=True) as opened:
        yield opened


async def propose(lab: Lab, tool: str = TOOL, **arguments: Any) -> dict[str, Any]:
    """Propose it, as an agent does; a target of an hour for feed-a where nothing else is said."""
    if tool == TOOL:
        feeds: dict[str, Any] = {} if arguments.get("all_feeds") else {"feed_tags": [A]}
        ends: dict[str, Any] = {}
        if not arguments.get("for_ever"):
            ends = {"ends_at": (lab.clock.now() + timedelta(hours=1)).isoformat()}
        arguments = {"limit_w": LIMIT_W, **feeds, **ends, **arguments}
    return await lab.call("grid_isv", tool, reason="a test of targets", **arguments)


async def sent(lab: Lab, change: dict[str, Any], people: int = 1, within_s: int = 200) -> Change:
    """The change at its end, once the agent has heard its message."""
    before = lab.agent.heard
    await lab.approve(change, people)
    with anyio.fail_after(PATIENCE_S):
        await lab.agent.wait_heard(before + 1)
    return await lab.end_of(change, within_s)


async def until_it_is(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait, bounded, for what is asked of the site itself."""
    with anyio.fail_after(PATIENCE_S):
        while not await holds():  # noqa: ASYNC110 (the network's thread sets no event)
            await anyio.sleep(0.01)


def cap(lab: Lab, cap_w: float) -> None:
    """Cap every GPU, so that the site obeys."""
    lab.plant.command_caps(range(lab.plant.site.gpu_count), cap_w)


def broker_of(lab: Lab) -> str:
    """Where the bus of the lab is."""
    flex = lab.site.settings.flex
    assert flex is not None
    assert flex.mqtt is not None
    (broker,) = flex.mqtt.brokers
    return broker


@asynccontextmanager
async def overheard(lab: Lab) -> AsyncIterator[list[dict[str, Any]]]:
    """The envelopes on our own topic, as anybody on the bus hears them."""
    heard: list[Message] = []
    settings = MqttSettings(brokers=(broker_of(lab),), client_id="witness")
    topic = f"{ISV.removeprefix('//')}/loadtarget/set"
    said: list[dict[str, Any]] = []

    def take(message: Message) -> None:
        heard.append(message)
        said.append(json.loads(message.payload))

    async with MqttBus(settings, lab.clock, take, subscriptions=[(topic, 1)]) as bus:
        await bus.wait_connected(PATIENCE_S)
        yield said


# ── the way it goes ───────────────────────────────────────────────────────────────────────────────


async def test_a_target_is_echoed_complied_with_and_metered_before_it_has_succeeded(
    lab: Lab,
) -> None:
    """The echo alone is no success: only once the load is below it, by the meter too."""
    async with overheard(lab) as said:
        change = await propose(lab)
        assert (change["state"], change["needs_people"]) == ("awaiting_approval", 1)
        before = lab.agent.heard
        await lab.approve(change)
        with anyio.fail_after(PATIENCE_S):
            await lab.agent.wait_heard(before + 1)
        for _ in range(5):
            await lab.second()
        row = await lab.site.guard.get(change["change_id"])
        assert row.state is S.VERIFYING
        assert row.evidence["answer"]["echoed"] is True
        cap(lab, 200.0)
        ended = await lab.end_of(change)
    assert ended.state is S.SUCCEEDED, ended.sentence()
    assert "metering" in ended.history[-1].why
    (envelope,) = said
    assert envelope["source"] == ISV
    assert envelope["correlationid"] == row.evidence["answer"]["correlation_id"]
    grid = await lab.call("flex", "list_load_targets")
    (target,) = grid["targets"]
    assert (target["source"], target["feed_tags"], target["limit_w"]) == (ISV, [A], LIMIT_W)


async def test_it_ends_by_itself_although_nobody_of_us_is_there(lab: Lab) -> None:
    """The end stands in the message; the safe value is the feed's own default."""
    cap(lab, 200.0)
    ends = lab.clock.now() + timedelta(seconds=60)
    change = await propose(lab, ends_at=ends.isoformat())
    assert (await sent(lab, change)).state is S.SUCCEEDED
    while lab.clock.now() <= ends:
        await lab.second()
    grid = await lab.until("flex", "grid_limit", lambda limit: not limit["feed_limits_w"])
    assert "limit_w" not in grid


async def test_an_announced_target_is_verified_once_it_has_begun(lab: Lab) -> None:
    """Before that there is nothing that a meter could show."""
    cap(lab, 200.0)
    starts = lab.clock.now() + timedelta(seconds=30)
    change = await propose(lab, starts_at=starts.isoformat())
    ended = await sent(lab, change)
    assert ended.state is S.SUCCEEDED
    assert ended.history[-1].at >= starts


@pytest.mark.trap("FX-P01")
async def test_a_clear_lifts_ours_and_the_rise_is_what_people_are_asked_about(lab: Lab) -> None:
    """By the id of the target; it goes up to the default of the feed, and says by how much."""
    cap(lab, 200.0)
    first = await sent(lab, await propose(lab))
    name = first.evidence["answer"]["correlation_id"]
    change = await propose(lab, CLEAR, correlation_id=name)
    row = await lab.site.guard.get(change["change_id"])
    assert row.blast_radius is not None
    assert row.blast_radius.power_rise_w == 264_000 - LIMIT_W
    assert "power-rise-needs-operator" in change["why"]
    async with overheard(lab) as said:
        ended = await sent(lab, change)
    assert ended.state is S.SUCCEEDED, ended.sentence()
    assert len(said) == 1
    assert ended.evidence["verified"]["evidence"]["metered_w"]


# ── what a target leaves out ──────────────────────────────────────────────────────────────────────


@pytest.mark.trap("FX-P02")
@pytest.mark.parametrize(
    ("left_out", "people", "rule"),
    [
        ({}, 1, "reversible-needs-operator"),
        ({"all_feeds": True}, 2, "all-feeds-needs-two-operators"),
        ({"for_ever": True}, 2, "no-end-needs-two-operators"),
        ({"all_feeds": True, "for_ever": True}, 3, "all-feeds-without-end-needs-three-operators"),
    ],
)
async def test_every_feed_and_for_ever_are_each_a_decision_of_their_own(
    lab: Lab, left_out: dict[str, Any], people: int, rule: str
) -> None:
    """And both at once are two; the message leaves out exactly what people agreed to."""
    cap(lab, 200.0)
    limit_w = 2 * LIMIT_W if left_out.get("all_feeds") else LIMIT_W
    change = await propose(lab, limit_w=limit_w, **left_out)
    assert (change["state"], change["needs_people"]) == ("awaiting_approval", people)
    assert rule in change["why"]
    ended = await sent(lab, change, people)
    assert ended.state is S.SUCCEEDED, ended.sentence()
    (target,) = (await lab.call("flex", "list_load_targets"))["targets"]
    assert target["all_feeds"] is left_out.get("all_feeds", False)
    assert ("ends_at" in target) is not left_out.get("for_ever", False)


@pytest.mark.trap("FX-P02")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"feed_tags": [A], "all_feeds": True}, "not both"),
        ({"for_ever": True, "ends_at": "2026-09-01T08:00:00Z"}, "not both"),
        ({"ends_at": None}, "not neither"),
        ({"limit_w": 0.0}, "limit_w"),
        ({"limit_w": -5.0}, "limit_w"),
    ],
)
async def test_what_could_never_be_meant_is_no_argument(
    lab: Lab, arguments: dict[str, Any], says: str
) -> None:
    """Nothing is left out by accident; and a limit is above 0."""
    with pytest.raises(ComponentError, match=says):
        await propose(lab, **arguments)


# ── what is never sent ────────────────────────────────────────────────────────────────────────────


def past(lab: Lab) -> dict[str, Any]:
    """A minute ago."""
    return {"starts_at": (lab.clock.now() - timedelta(minutes=1)).isoformat()}


@pytest.mark.trap("FX-P03")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (lambda lab: {"limit_w": 1_000.0}, f"below the power_minimum of {A}"),
        (lambda lab: {"limit_w": 264_001.0}, f"above the power_maximum of {A}"),
        (lambda lab: {"limit_w": 528_001.0, "all_feeds": True}, "above the power_maximum of all"),
        (lambda lab: {"feed_tags": ["feed-z"]}, "'feed-z' is no feed of this site"),
        (past, "starts_at: .* is past"),
        (lambda lab: {"ends_at": lab.clock.now().isoformat()}, "ends_at: .* is past"),
        (lambda lab: {"starts_at": "2026-09-01T07:30:00Z"}, "ends before it begins"),
        (lambda lab: {"starts_at": "2026-09-03T07:30:00Z"}, "more than a day ahead"),
        (lambda lab: {"ends_at": "tomorrow"}, "must be an ISO 8601 moment"),
        (lambda lab: {"ends_at": "2026-09-01T08:00:00"}, "ISO 8601 moment with an offset"),
    ],
)
async def test_what_a_feed_cannot_do_is_refused_by_name(
    lab: Lab, arguments: Callable[[Lab], dict[str, Any]], says: str
) -> None:
    """The contract does not say what an agent does with it, so it never gets it."""
    with pytest.raises(ComponentError, match=says):
        await propose(lab, **arguments(lab))
    assert lab.site.sending is not None
    assert lab.site.sending.publisher.sent == 0


@pytest.mark.trap("FX-P04")
async def test_what_another_isv_has_limited_is_not_ours_to_say_again(lab: Lab) -> None:
    """For the agent the later word wins: ours would lift theirs, stricter or not."""
    start = lab.clock.now() + timedelta(minutes=10)
    theirs = await lab.grid.set_target(
        150_000.0, feed_tags=[A], start=start, end=start + timedelta(minutes=5)
    )
    await lab.until("flex", "list_load_targets", lambda listed: bool(listed["targets"]))
    for limit_w in (100_000.0, 150_000.0, 200_000.0):
        with pytest.raises(ComponentError, match=f"contradiction: {lab.grid.source}.*{theirs}"):
            await propose(lab, limit_w=limit_w)
    before = (start - timedelta(minutes=1)).isoformat()
    assert (await propose(lab, ends_at=before))["state"] == "awaiting_approval"
    assert (await propose(lab, feed_tags=[B]))["state"] == "awaiting_approval"
    with pytest.raises(ComponentError, match="not of ours"):
        await propose(lab, CLEAR, correlation_id=theirs)
    with pytest.raises(ComponentError, match="no target"):
        await propose(lab, CLEAR, correlation_id="5f1b7c1e-38a4-4f6e-9d8e-0c2f6d6a4b11")


@pytest.mark.trap("FX-P04")
async def test_another_isv_that_came_after_the_vote_stops_it(lab: Lab) -> None:
    """What people approved is looked at again in the moment of the act."""
    change = await propose(lab)
    await lab.grid.set_target(150_000.0, feed_tags=[A])
    await lab.until("flex", "list_load_targets", lambda listed: bool(listed["targets"]))
    await lab.approve(change)
    ended = await lab.end_of(change)
    assert ended.state is S.REFUSED
    assert "contradiction" in ended.history[-1].why


@pytest.mark.parametrize("kind", [GRID_FEEDS, GRID_PUBLISHER, "meter.power"])
async def test_each_fact_taken_away_is_a_refusal_that_names_it(lab: Lab, kind: str) -> None:
    """Unknown feeds, an unbelieved key, a dead meter: nothing is sent on any of them."""
    whole = lab.site.guard.facts
    approved = await propose(lab)
    lab.site.guard.facts = Without(whole, kind)
    refused = await propose(lab, limit_w=LIMIT_W + 1)
    assert refused["state"] == "refused"
    assert f"{kind} of " in refused["why"]
    await lab.approve(approved)
    ended = await lab.end_of(approved)
    assert (ended.state, kind in ended.history[-1].why) == (S.REFUSED, True)
    assert lab.site.sending is not None
    assert lab.site.sending.publisher.sent == 0


@pytest.mark.trap("FX-P05")
async def test_a_key_that_was_rotated_away_signs_nothing(lab: Lab, tmp_path: Path) -> None:
    """Every reader would refuse it, and the site would believe that it had spoken."""
    keys = lab.site.settings.flex
    assert keys is not None
    assert keys.jwks_file is not None
    document = json.loads(keys.jwks_file.read_text())
    others = [key for key in document["keys"] if key["kid"] != "interlock-1"]
    keys.jwks_file.write_text(json.dumps({"keys": others}))
    need = FactNeed(kind=GRID_PUBLISHER, subject=Target(kind="site", id="lab"), max_age_s=60.0)

    async def refused_as(reason: str) -> bool:
        answer = await lab.site.guard.facts.fact(need)
        return isinstance(answer, Unknown) and reason in answer.why

    lab.clock.advance(keys.jwks_refresh_s + 1)
    await until_it_is(lambda: refused_as("key_not_published"))

    stranger = write_jwks(tmp_path / "strange.json", [make_key("interlock-1")])
    swapped = others + json.loads(stranger.read_text())["keys"]
    keys.jwks_file.write_text(json.dumps({"keys": swapped}))
    lab.clock.advance(keys.jwks_refresh_s + 1)
    await until_it_is(lambda: refused_as("bad_signature"))


# ── what is not believed, and never repeated ──────────────────────────────────────────────────────


async def beside(lab: Lab, change: dict[str, Any], over: Callable[[], Awaitable[bool]]) -> None:
    """Let time pass for everybody while a change acts, until it is over."""
    with anyio.fail_after(PATIENCE_S):
        while not await over():
            lab.plant.step()
            lab.clock.advance(1.0)
            await lab.agent.step()
            await lab.bms.publish_once()
            await anyio.sleep(0.02)


async def at_its_end(lab: Lab, change: dict[str, Any]) -> Change:
    """The change at its end, while time passes."""

    async def over() -> bool:
        return (await lab.site.guard.get(change["change_id"])).ended

    await lab.approve(change)
    await beside(lab, change, over)
    return await lab.site.guard.get(change["change_id"])


@pytest.mark.trap("FX-P06")
async def test_without_an_echo_it_was_not_accepted_and_is_not_sent_again(lab: Lab) -> None:
    """An agent that goes on speaking and never lists it has refused it: it did not happen."""
    lab.agent.faults.add(AgentFault.IGNORES_TARGETS)
    async with overheard(lab) as said:
        ended = await at_its_end(lab, await propose(lab))
    assert [step.state for step in ended.history][-2:] == [S.UNKNOWN, S.FAILED]
    assert "it did not happen" in ended.history[-1].why
    assert len(said) == 1


@pytest.mark.trap("FX-P06")
async def test_an_agent_that_falls_silent_leaves_it_to_a_person(lab: Lab) -> None:
    """It may have taken it; nobody knows, so nobody says no either, and nothing is sent again."""
    change = await propose(lab)
    lab.agent.faults.add(AgentFault.SILENT)
    async with overheard(lab) as said:
        ended = await at_its_end(lab, change)
    assert ended.state is S.STUCK
    assert len(said) == 1


@pytest.mark.trap("FX-P07")
async def test_the_word_of_the_agent_is_no_compliance_without_the_meter(lab: Lab) -> None:
    """Its load is calculated: where it claims to comply and the meter says otherwise, it failed."""
    lab.agent.faults.add(AgentFault.CLAIMS_COMPLIANT)
    ended = await sent(lab, await propose(lab), within_s=1_000)
    assert ended.state is S.FAILED
    assert ended.evidence["verified"]["evidence"]["metered_w"][A] > LIMIT_W


@pytest.mark.trap("FX-P08")
async def test_two_changes_never_share_an_id_and_one_change_has_one(lab: Lab) -> None:
    """The same words again are another request; an old echo cannot speak for it."""
    cap(lab, 200.0)
    ends = {"ends_at": (lab.clock.now() + timedelta(hours=1)).isoformat()}
    async with overheard(lab) as said:
        first = await sent(lab, await propose(lab, **ends))
        lifted = first.evidence["answer"]["correlation_id"]
        await sent(lab, await propose(lab, CLEAR, correlation_id=lifted))
        again = await sent(lab, await propose(lab, **ends))
    assert (first.state, again.state) == (S.SUCCEEDED, S.SUCCEEDED)
    assert len({one["correlationid"] for one in said}) == 3
    assert len({one["id"] for one in said}) == 3
    assert len({one["data"] for one in said}) == 3


@pytest.mark.trap("FX-P09")
async def test_who_speaks_as_us_with_another_key_is_not_heard(lab: Lab) -> None:
    """Neither by us nor as one that may be cleared."""
    thief = GridIsvTwin(broker_of(lab), make_key("interlock-1"), lab.clock, identifier="interlock")
    async with thief:
        name = await thief.set_target(100_000.0, feed_tags=[A])
        await lab.until("flex", "list_refused_messages", lambda listed: bool(listed["refused"]))
    with pytest.raises(ComponentError, match="no target"):
        await propose(lab, CLEAR, correlation_id=name)
