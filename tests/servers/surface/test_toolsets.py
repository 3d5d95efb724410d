"""Toolsets: names that survive a gateway, narrowing that only takes away, and holds at the call."""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.resources import FunctionResource
from starlette.datastructures import Headers

from interlock_servers.identity import local_caller
from interlock_servers.offer import VERSION
from interlock_servers.surface.factory import Template
from interlock_servers.surface.together import NAME, Parts, alone, together
from interlock_servers.surface.toolsets import EVERYTHING, Narrow, asked_by, named_in
from tests import golden
from tests.guardrails import conftest as guardrails
from tests.guardrails.conftest import AGENT, House
from tests.servers.surface.doors import Door, faces, open_door

house = guardrails.house  # the guard over one valve
CATALOGUE_TOKENS = 12_000
FOLLOWING = {"get_change", "list_changes"}
READS = {"valve_read_flow", "meter_read_flow", *FOLLOWING}
HARMLESS = {*READS, "valve_move_valve"}
ALL = {*HARMLESS, "valve_burst_valve"}
MOVE = {"position_pct": 50, "reason": "less is enough"}


@pytest.fixture
async def door(house: House) -> AsyncIterator[Door]:
    """Both components, served."""
    async with open_door(house) as opened:
        yield opened


async def names(client: Client) -> set[str]:
    """The tools that are offered."""
    return {tool.name for tool in (await client.list_tools()).tools}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_all_tools_of_a_site_are_on_one_server(house: House, door: Door, mode: Any) -> None:
    """Each name begins with its component; what all share is there once; a call goes through."""
    async with door.client(mode) as client:
        assert await names(client) == ALL
        answer = await client.call_tool("meter_read_flow", {})
        change = await client.call_tool("valve_move_valve", MOVE)
        made = (change.structured_content or {})["change_id"]
        seen = await client.call_tool("get_change", {"change_id": made})

    assert (answer.structured_content or {})["flow_pct"] == 100
    assert (seen.structured_content or {})["state"] == "awaiting_approval"
    assert house.valve.acts == []


async def test_names_leave_room_for_the_prefix_of_a_gateway(house: House) -> None:
    """`<service>-<port>_` goes before them, and what is split at the first `_` is whole again."""
    parts = [face.parts() for face in faces(house, local_caller(AGENT)).values()]
    prefix = "interlock-mcp_"
    for name in together(parts, version=VERSION).tools:
        assert NAME.fullmatch(name)
        assert len(prefix + name) <= 64
        assert (prefix + name).split("_", 1)[1] == name


@pytest.mark.parametrize(
    ("toolset", "wrong"), [("x" * 40, "no name"), ("Valve", "no name"), ("a-b", "no name")]
)
async def test_a_name_that_a_client_would_not_take_stops_the_start(
    house: House, toolset: str, wrong: str
) -> None:
    """One bad name hides a whole server from some clients."""
    parts = faces(house, local_caller(AGENT))["meter"].parts()
    named = Parts(toolset=toolset, instructions="", tools=parts.tools)
    with pytest.raises(ValueError, match=wrong):
        together([named], version=VERSION)


async def test_two_tools_of_one_name_stop_the_start(house: House) -> None:
    """One would hide the other."""
    parts = faces(house, local_caller(AGENT))["meter"].parts()
    with pytest.raises(ValueError, match="two parts of one server"):
        together([parts, parts], version=VERSION)


@pytest.mark.parametrize(
    ("narrow", "left"),
    [
        (EVERYTHING, ALL),
        (Narrow(toolsets=frozenset({"meter"})), {"meter_read_flow"}),
        (Narrow(toolsets=frozenset({"valve"})), ALL - {"meter_read_flow"}),
        (Narrow(toolsets=frozenset()), set()),
        (Narrow(read_only=True), READS),
        (Narrow(no_destructive=True), HARMLESS),
    ],
    ids=["all", "meter", "valve", "none", "read-only", "no-destructive"],
)
async def test_a_server_is_built_with_what_is_left(
    house: House, narrow: Narrow, left: set[str]
) -> None:
    """What its settings took away is not there to be called."""
    parts = [face.parts() for face in faces(house, local_caller(AGENT)).values()]
    composed = together(parts, version=VERSION, narrow=narrow)
    async with Client(composed.server) as client:
        assert await names(client) == left
        for name in ALL - left:
            refused = await client.call_tool(name, MOVE if name.startswith("valve_") else {})
            assert refused.is_error
    assert await house.guard.latest() == []


ASKED: list[tuple[dict[str, str], set[str]]] = [
    ({"X-MCP-Readonly": "true"}, READS),
    ({"X-MCP-Readonly": "1"}, READS),
    ({"X-MCP-Readonly": "anything"}, READS),
    ({"X-MCP-Readonly": "Off"}, ALL),
    ({"X-MCP-Readonly": ""}, ALL),
    ({"X-MCP-Toolsets": "meter"}, {"meter_read_flow"}),
    ({"X-MCP-Toolsets": "Meter , bogus"}, {"meter_read_flow"}),
    ({"X-MCP-Toolsets": "bogus"}, set()),
    ({"X-MCP-Toolsets": ""}, ALL),
    ({"X-MCP-Toolsets": "all"}, ALL),
    ({"X-MCP-Toolsets": "valve", "X-MCP-Readonly": "yes"}, READS - {"meter_read_flow"}),
]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_request_asks_for_less_by_headers(door: Door, mode: Any) -> None:
    """As with GitHub's server, in both eras, and what is not listed is not served either."""
    for headers, left in ASKED:
        async with door.client(mode, headers=headers) as client:
            assert await names(client) == left, headers
            for name in ("meter_read_flow", "valve_read_flow"):
                if name in left:
                    assert not (await client.call_tool(name, {})).is_error
                else:
                    with pytest.raises(MCPError, match="Unknown tool"):
                        await client.call_tool(name, {})


async def test_a_hidden_tool_cannot_be_called_by_its_name(house: House, door: Door) -> None:
    """The list is for the model; the refusal is at the call."""
    for headers in ({"X-MCP-Readonly": "true"}, {"X-MCP-Toolsets": "meter"}):
        response = await door.call("valve_move_valve", MOVE, headers=headers)
        assert response.json()["error"]["message"] == "Unknown tool: valve_move_valve"
    assert await house.guard.latest() == []


async def test_the_server_of_a_component_can_be_narrowed_too(door: Door) -> None:
    """The same headers, wherever a client connects."""
    async with door.client("auto", "/valve", headers={"X-MCP-Readonly": "true"}) as client:
        assert await names(client) == {"read_flow", *FOLLOWING}


async def test_headers_never_widen_what_the_settings_left(house: House) -> None:
    """`all` is all that is left, and `false` gives nothing back."""
    narrow = Narrow(toolsets=frozenset({"valve"}), read_only=True)
    asked = {"X-MCP-Toolsets": "all,meter,valve", "X-MCP-Readonly": "false"}
    async with open_door(house, narrow=narrow) as door:
        async with door.client("auto", headers=asked) as client:
            assert await names(client) == {"valve_read_flow", *FOLLOWING}
        response = await door.call("valve_move_valve", MOVE, headers=asked)
        assert response.json()["result"]["isError"] is True
        elsewhere = await door.call("read_flow", {}, place="/meter", headers=asked)
        assert elsewhere.status_code == 404
    assert await house.guard.latest() == []


async def test_the_catalogue_of_a_site_fits_and_toolsets_make_it_less(tmp_path: Path) -> None:
    """At most 12,000 tokens for everything together, by the byte rule of `docs/tools.md`."""
    with ExitStack() as stack:
        every = golden.faces(stack, tmp_path)
        costs = {}
        for chosen in (None, *every):
            narrow = Narrow(toolsets=None if chosen is None else frozenset({chosen}))
            parts = [face.parts() for face in every.values()]
            server = together(parts, version=VERSION, narrow=narrow).server
            async with Client(server) as client:
                listed = await client.list_tools()
            answer = listed.model_dump(mode="json", by_alias=True, exclude_none=True)
            costs[chosen] = golden.cost(answer)
    whole = costs.pop(None)

    assert whole <= CATALOGUE_TOKENS
    assert all(cost < whole for cost in costs.values())


def test_a_header_that_comes_twice_takes_away_twice() -> None:
    """A second header in front of a proxy's own does not undo it."""
    raw = [(b"x-mcp-toolsets", b"valve"), (b"x-mcp-toolsets", b"valve,meter")]
    assert asked_by(Headers(raw=raw)) == Narrow(toolsets=frozenset({"valve"}))
    raw = [(b"x-mcp-readonly", b"true"), (b"x-mcp-readonly", b"false")]
    assert asked_by(Headers(raw=raw)).read_only


@pytest.mark.parametrize("first", [EVERYTHING, Narrow(toolsets=frozenset({"a", "b"}))])
@pytest.mark.parametrize(
    "second",
    [EVERYTHING, Narrow(toolsets=frozenset({"b", "c"}), read_only=True), Narrow(read_only=True)],
)
def test_narrowing_twice_leaves_what_both_leave(first: Narrow, second: Narrow) -> None:
    """In either order, and never more than one of them."""
    both = first.and_also(second)

    assert both == second.and_also(first)
    for toolset in "abc":
        assert both.leaves([toolset]) is (first.leaves([toolset]) and second.leaves([toolset]))


def test_toolsets_are_named_with_commas() -> None:
    """None names all: an empty list is nobody's wish for nothing."""
    assert named_in("maxlps, flex,") == frozenset({"maxlps", "flex"})
    assert named_in(" , ") is None
    assert named_in("flex,ALL") is None


async def _read(**_: Any) -> str:
    return "{}"


def _parts(toolset: str, *, shared: bool = True) -> Parts:
    async def explain(what: str) -> str:
        """Explain it."""
        return what

    async def change(change_id: str) -> str:
        return change_id

    async def thing(thing_id: str) -> str:
        return thing_id

    uris = frozenset({"change://{change_id}"} if shared else ())
    return Parts(
        toolset=toolset,
        instructions="",
        resources=[FunctionResource(uri=f"{toolset}://all", name=toolset, fn=lambda: "all")],
        templates=[
            Template(uri=f"{toolset}://{{thing_id}}", read=thing, description="One thing."),
            Template(uri="change://{change_id}", read=change, description="One change."),
        ],
        prompts=[Prompt.from_function(explain)],
        shared=uris,
    )


async def test_resources_templates_and_prompts_of_all_come_together() -> None:
    """Addresses stay as they are, prompts are named as tools are, what is shared is there once."""
    server = together([_parts("one"), _parts("two")], version=VERSION).server
    async with Client(server) as client:
        resources = {str(r.uri) for r in (await client.list_resources()).resources}
        listed = (await client.list_resource_templates()).resource_templates
        prompts = {prompt.name for prompt in (await client.list_prompts()).prompts}
    assert resources == {"one://all", "two://all"}
    assert sorted(t.uri_template for t in listed) == [
        "change://{change_id}",
        "one://{thing_id}",
        "two://{thing_id}",
    ]
    assert prompts == {"one_explain", "two_explain"}
    async with Client(alone(_parts("one"), version=VERSION).server) as client:
        assert [p.name for p in (await client.list_prompts()).prompts] == ["explain"]
    with pytest.raises(ValueError, match="change://"):
        together([_parts("one", shared=False), _parts("two", shared=False)], version=VERSION)
