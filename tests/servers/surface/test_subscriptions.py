"""Who waits for a resource is told when it moves, whoever moved it, at most once a second."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import Client, MCPError
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated, ServerEvent

from interlock_servers.page import Page
from interlock_servers.surface.watching import (
    MAX_WATCHED,
    MAX_WATCHED_OF_ONE,
    Variables,
    Watch,
    Watchable,
    Watching,
)
from interlock_tools.clock import ManualClock
from tests.guardrails import conftest as guardrails
from tests.guardrails.conftest import AGENT, START, House, person
from tests.servers.surface.doors import READER, open_door
from tests.servers.surface.watchers import two_replicas, valve_face, waiting

house = guardrails.house  # the guard over one valve
PATIENCE_S = 20.0
ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])
OPERATOR = person("person:operator-1", "operator")
NOBODY = AGENT.model_copy(update={"id": "agent:nobody", "scopes": frozenset()})
pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")


async def wait_for(client: Client, uri: str, mode: str) -> None:
    """Begin to wait for it, and leave again."""
    with anyio.fail_after(PATIENCE_S):
        if mode == "legacy":
            await client.session.subscribe_resource(uri)
            return
        async with client.listen(resource_subscriptions=[uri]):
            return


@ERAS
async def test_a_vote_and_each_step_of_the_worker_are_told(house: House, mode: Any) -> None:
    """From waiting for people to its verified end, without asking over and over."""
    change = await house.propose()
    uri = f"change://{change.change_id}"
    server = valve_face(house, AGENT).server()
    async with waiting(server, house, mode, [uri, "changes://open"]) as (client, heard):
        await house.approve(change, OPERATOR)
        voted = list(await heard.until(2))
        async with house.working():
            await house.end_of(change)
            await heard.until(4)
        (contents,) = (await client.read_resource(uri)).contents

    assert sorted(voted) == [uri, "changes://open"]
    assert set(heard.uris[2:]) == {uri, "changes://open"}
    assert '"state":"succeeded"' in contents.model_dump()["text"]


@ERAS
async def test_what_another_process_moved_is_told(tmp_path: Path, mode: Any) -> None:
    """Its own engine on the same store; nothing of it is announced in this process."""
    with two_replicas(tmp_path) as (ours, theirs):
        change = await ours.propose()
        uri = f"change://{change.change_id}"
        server = valve_face(ours, AGENT).server()
        async with waiting(server, ours, mode, [uri]) as (_, heard):
            await theirs.approve(change, OPERATOR, approve=False)
            assert await heard.until(1) == [uri]


@ERAS
async def test_a_new_change_is_told_to_who_waits_for_the_open_ones(house: House, mode: Any) -> None:
    """And nothing is told of a single change that nobody waits for."""
    server = valve_face(house, AGENT).server()
    async with waiting(server, house, mode, ["changes://open"]) as (_, heard):
        await house.propose()
        assert await heard.until(1) == ["changes://open"]
        await heard.seconds(3)

    assert heard.uris == ["changes://open"]


class Dial(Page):
    """A number."""

    at: int


class Turning:
    """A dial that can be waited for, and how often it was looked at."""

    def __init__(self, house: House) -> None:
        self.at = 0
        self.looks = 0
        self.broken = False
        self.face = valve_face(house, AGENT)

        @self.face.resource("valve://dial", marks=self.marks)
        async def dial() -> Dial:
            """A dial."""
            return Dial(observed_at=house.clock.now(), origin="valve", at=self.at)

    async def marks(self, wanted: Sequence[Variables]) -> Sequence[object]:
        """Where it stands."""
        self.looks += 1
        if self.broken:
            raise OSError
        return [self.at] * len(wanted)


@ERAS
async def test_many_moves_within_a_second_are_told_once(house: House, mode: Any) -> None:
    """However fast a meter runs, a reader is asked to read once a second at most."""
    turning = Turning(house)
    async with waiting(turning.face.server(), house, mode, ["valve://dial"]) as (_, heard):
        for _ in range(50):
            turning.at += 1
            house.clock.advance(0.01)
            await anyio.lowlevel.checkpoint()
        assert heard.uris == []
        await heard.seconds(1)
        assert heard.uris == ["valve://dial"]
        await heard.seconds(5)

    assert heard.uris == ["valve://dial"]


@ERAS
async def test_nobody_waits_and_nothing_is_looked_at(house: House, mode: Any) -> None:
    """Before the first waits and after the last has gone there is no work, and no task."""
    turning = Turning(house)
    before = len(house.clock._sleepers)
    async with waiting(turning.face.server(), house, mode, ["valve://dial"]) as (_, heard):
        await heard.seconds(2)
        assert turning.looks >= 2
    looks = turning.looks
    for _ in range(5):
        house.clock.advance(1.0)
        await anyio.lowlevel.checkpoint()

    assert turning.looks == looks
    assert len(house.clock._sleepers) == before


async def test_a_source_that_fails_is_asked_again(house: House) -> None:
    """What moved meanwhile is told when it can be seen again; the others are told as ever."""
    turning = Turning(house)
    change = await house.propose()
    uri = f"change://{change.change_id}"
    uris = ["valve://dial", uri]
    async with waiting(turning.face.server(), house, "auto", uris) as (_, heard):
        turning.broken = True
        turning.at += 1
        await house.approve(change, OPERATOR)
        assert await heard.until(1) == [uri]
        turning.broken = False
        assert await heard.until(2) == [uri, "valve://dial"]


@ERAS
async def test_who_may_not_read_is_told_nothing(house: House, mode: Any) -> None:
    """That a thing moves is a thing to know too."""
    server = valve_face(house, NOBODY).server()
    async with Client(server, mode=mode) as client:
        with pytest.raises(MCPError, match="insufficient_scope"):
            await wait_for(client, "changes://open", mode)


@ERAS
async def test_one_caller_cannot_have_everything_watched(house: House, mode: Any) -> None:
    """The next one is refused and told why; what was taken before goes on."""
    uris = [f"change://chg-{n:012x}" for n in range(MAX_WATCHED_OF_ONE + 1)]
    server = valve_face(house, AGENT).server()
    async with waiting(server, house, mode, uris[:-1]) as (client, _):
        with pytest.raises(MCPError, match="more than 256"):
            await wait_for(client, uris[-1], mode)


async def test_a_thousand_resources_are_watched_and_no_more() -> None:
    """Whoever they are for: one look a second for all of them, and each that moved told once."""
    clock, bus = ManualClock(START), InMemorySubscriptionBus()
    moved: set[str] = set()
    looks: list[int] = []
    told: list[str] = []
    callers = iter(f"agent:{n}" for n in range(100))

    async def marks(wanted: Sequence[Variables]) -> Sequence[object]:
        looks.append(len(wanted))
        return [one["name"] in moved for one in wanted]

    def listen(event: ServerEvent) -> None:
        assert isinstance(event, ResourceUpdated)
        told.append(event.uri)

    bus.subscribe(listen)
    watchables = [Watchable(uri="test://{name}", marks=marks)]
    watching = Watching(
        bus, Watch(watchables=watchables, clock=clock, caller=lambda: next(callers))
    )
    ends = [
        await watching.begin(f"test://{first + n}" for n in range(200))
        for first in range(0, MAX_WATCHED, 200)
    ]
    assert len(watching.watched) == MAX_WATCHED
    with pytest.raises(MCPError, match="too many"):
        await watching.begin(["test://more"])
    ends.append(await watching.begin(["test://1", "other://1"]))  # watched already; nothing of ours

    looks.clear()
    moved |= {"1", "2"}
    with anyio.fail_after(PATIENCE_S):
        while len(told) < 2:
            clock.advance(1.0)
            await anyio.lowlevel.checkpoint()
    assert (set(looks), sorted(told)) == ({MAX_WATCHED}, ["test://1", "test://2"])

    for end in [*ends, *ends]:
        end()
    assert watching.watched == frozenset()


@pytest.mark.parametrize("place", ["", "/meter"], ids=["whole site", "one component"])
async def test_over_http_a_stream_tells(house: House, place: str) -> None:
    """With a token, through the application that serves a site."""
    change = await house.propose()
    uri = f"change://{change.change_id}"
    async with open_door(house) as door, door.client("auto", place) as client:
        with anyio.fail_after(PATIENCE_S):
            async with client.listen(resource_subscriptions=[uri]) as stream:
                await house.approve(change, OPERATOR)
                house.clock.advance(1.0)
                assert await anext(aiter(stream)) == ResourceUpdated(uri=uri)


async def test_over_http_a_client_of_2025_reads_and_does_not_subscribe(house: House) -> None:
    """No connection lasts there: it is told that the method is not there, and asks again itself."""
    change = await house.propose()
    uri = f"change://{change.change_id}"
    async with open_door(house) as door, door.client("legacy", who=READER) as client:
        (contents,) = (await client.read_resource(uri)).contents
        with pytest.raises(MCPError, match="Method not found"):
            await client.session.subscribe_resource(uri)

    assert change.change_id in contents.model_dump()["text"]
