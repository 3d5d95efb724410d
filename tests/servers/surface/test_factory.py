"""The one factory: what a server is made of it has, in both eras, and nothing else."""

from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.server import MCPServer
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.resources import FunctionResource
from mcp.server.mcpserver.tools import Tool
from mcp.server.request_state import RequestStateSecurity
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated
from mcp.types import (
    Completion,
    InputRequiredResult,
    PromptReference,
    ResourceUpdatedNotification,
)
from pydantic import AnyHttpUrl

from interlock_servers.surface.factory import Template, build_server
from interlock_servers.surface.middleware import Durations, to_histogram
from tests.servers.surface.tasking import followed

PATIENCE_S = 10.0
ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])
OLD_METHODS = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
KEY = b"a key of thirty-two bytes, shared"


async def flow(line: int) -> str:
    """What flows through a line."""
    if line == 0:
        raise ToolError("there is no line 0")
    return f"line {line}: 40 %"


async def ask(ctx: Context[Any]) -> str | InputRequiredResult:
    """Have the caller carry a secret."""
    if ctx.request_state is None:
        return InputRequiredResult(request_state="the secret")
    return ctx.request_state


def explain() -> str:
    """Explain a valve."""
    return "Explain the valve."


def read_line(line: str) -> str:
    """One line."""
    return f'{{"line": "{line}"}}'


async def complete(*_: Any) -> Completion:
    """Always the same."""
    return Completion(values=["valve-1"])


def made(**more: Any) -> MCPServer[Any]:
    """A server with one part of each kind."""
    hall = FunctionResource.from_function(lambda: "a hall", uri="test://hall", name="hall")
    parts: dict[str, Any] = {
        "version": "1",
        "instructions": "A test.",
        "tools": [Tool.from_function(flow), Tool.from_function(ask, structured_output=False)],
        "resources": [hall],
        "templates": [Template(uri="test://lines/{line}", read=read_line, description="A line.")],
        "prompts": [Prompt.from_function(explain)],
        "complete": complete,
    }
    return build_server("test", **parts | more)


@ERAS
async def test_a_server_offers_every_part_in_both_eras(mode: str) -> None:
    """Tools, resources, families of them, prompts and completions."""
    async with Client(made(), mode=mode) as client:
        tools = await client.list_tools()
        answer = await client.call_tool("flow", {"line": 1})
        hall = await client.read_resource("test://hall")
        line = await client.read_resource("test://lines/7")
        prompt = await client.get_prompt("explain")
        said = await client.complete(PromptReference(name="explain"), {"name": "n", "value": "v"})

    assert [tool.name for tool in tools.tools] == ["flow", "ask"]
    assert answer.structured_content == {"result": "line 1: 40 %"}
    assert hall.contents[0].model_dump()["text"] == "a hall"
    assert line.contents[0].model_dump()["text"] == '{"line": "7"}'
    assert prompt.messages[0].content.model_dump()["text"] == "Explain the valve."
    assert said.completion.values == ["valve-1"]


async def test_a_list_of_tools_may_be_kept_for_a_minute() -> None:
    """By this caller only: what is offered can depend on who asks."""
    async with Client(made()) as client:
        tools = await client.list_tools()

    assert (tools.ttl_ms, tools.cache_scope) == (60_000, "private")


@pytest.mark.parametrize(
    ("part", "twice"),
    [
        ("tool", {"tools": [Tool.from_function(flow)] * 2}),
        ("prompt", {"prompts": [Prompt.from_function(explain)] * 2}),
        (
            "template",
            {"templates": [Template(uri="test://{n}", read=read_line, description="")] * 2},
        ),
    ],
)
def test_two_parts_of_one_name_are_no_server(part: str, twice: Mapping[str, Any]) -> None:
    """One would hide the other, and which is nobody's choice."""
    with pytest.raises(ValueError, match=f"are the {part}"):
        made(**twice)


def test_authorization_without_a_verifier_is_no_server() -> None:
    """It would let everybody in, or nobody."""
    url = AnyHttpUrl("http://127.0.0.1:1")
    with pytest.raises(ValueError, match="come together"):
        made(
            auth=AuthSettings(issuer_url=url, resource_server_url=url, validate_token_resource=True)
        )


async def test_a_client_of_today_hears_of_changes_on_its_stream() -> None:
    """One bus for both eras; what was not asked for is not sent."""
    bus = InMemorySubscriptionBus()
    async with Client(made(bus=bus)) as client:
        with anyio.fail_after(PATIENCE_S):
            async with client.listen(resource_subscriptions=["test://hall"]) as stream:
                await bus.publish(ResourceUpdated(uri="test://other"))
                await bus.publish(ResourceUpdated(uri="test://hall"))
                event = await anext(aiter(stream))

    assert event == ResourceUpdated(uri="test://hall")


@OLD_METHODS
async def test_a_client_of_2025_hears_of_what_it_subscribed_to() -> None:
    """Where connections last: until it takes the subscription back, and nothing else."""
    bus = InMemorySubscriptionBus()
    heard: list[str] = []
    arrived = anyio.Event()

    async def listen(message: object) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            heard.append(str(message.params.uri))
            arrived.set()

    async with Client(made(bus=bus, lasting=True), mode="legacy", message_handler=listen) as client:
        assert client.server_capabilities.resources is not None
        assert client.server_capabilities.resources.subscribe is True
        await client.session.subscribe_resource("test://lines/1")
        await client.session.subscribe_resource("test://hall")
        await client.session.unsubscribe_resource("test://lines/1")
        await bus.publish(ResourceUpdated(uri="test://lines/1"))
        await bus.publish(ResourceUpdated(uri="test://hall"))
        with anyio.fail_after(PATIENCE_S):
            await arrived.wait()
        await client.session.set_logging_level("warning")

    assert heard == ["test://hall"]
    await bus.publish(ResourceUpdated(uri="test://hall"))  # nobody is there any more: no error


@OLD_METHODS
async def test_where_no_connection_lasts_no_subscription_is_promised() -> None:
    """A client of 2025-11-25 is told so by the capabilities, and by the method not being there."""
    async with Client(made(), mode="legacy") as client:
        capabilities = client.server_capabilities
        assert capabilities.logging is None
        assert capabilities.resources is not None
        assert capabilities.resources.subscribe is False
        with pytest.raises(MCPError, match="Method not found"):
            await client.session.subscribe_resource("test://hall")


async def sealed_by(server: MCPServer[Any]) -> str:
    """What this server has its caller carry."""
    async with Client(server) as client:
        asked = await client.session.call_tool("ask", {}, allow_input_required=True)
    assert isinstance(asked, InputRequiredResult)
    assert asked.request_state is not None
    return asked.request_state


async def test_replicas_share_what_their_callers_carry_by_sharing_keys() -> None:
    """Sealed: the caller cannot read or change it, and no other server takes it."""
    carried = await sealed_by(made(request_state=RequestStateSecurity(keys=[KEY])))
    async with Client(made(request_state=RequestStateSecurity(keys=[KEY]))) as replica:
        answer = await replica.session.call_tool("ask", {}, request_state=carried)
    async with Client(made()) as another:
        with pytest.raises(MCPError, match="requestState"):
            await another.session.call_tool("ask", {}, request_state=carried)

    assert "secret" not in carried
    assert answer.content[0].model_dump()["text"] == "the secret"


@ERAS
async def test_how_long_a_request_took_is_recorded_by_what_there_is(mode: str) -> None:
    """Names of ours and kinds of error; a name that a caller made up opens no time series."""
    recorded: list[dict[str, str]] = []
    ticks = iter(range(1000))
    middleware = Durations(
        frozenset({"flow"}),
        lambda seconds, attributes: recorded.append({**attributes, "s": f"{seconds:g}"}),
        now_s=lambda: float(next(ticks)),
    )
    async with Client(made(middleware=[middleware]), mode=mode) as client:
        recorded.clear()
        await client.call_tool("flow", {"line": 1})
        await client.call_tool("flow", {"line": 0})
        await client.call_tool("a name of the caller's", {})
        with pytest.raises(MCPError):
            await client.get_prompt("nothing")
        with pytest.raises(MCPError):
            await followed(client.session, "made/up")

    calls = [record for record in recorded if record["mcp.method.name"] != "tools/list"]
    told = [(r["mcp.method.name"], r.get("gen_ai.tool.name"), r.get("error.type")) for r in calls]
    assert told[:3] == [
        ("tools/call", "flow", None),
        ("tools/call", "flow", "tool_error"),
        ("tools/call", None, "tool_error"),
    ]
    assert (told[3][0], told[3][2] is None) == ("prompts/get", False)
    assert told[4] == ("other", None, "-32601")
    assert {record["s"] for record in recorded} == {"1"}
    assert {record["network.transport"] for record in recorded} == {"pipe"}


def test_without_an_exporter_nothing_is_recorded_and_nothing_breaks() -> None:
    """Telemetry is never in the way."""
    to_histogram()(0.5, {"mcp.method.name": "tools/list"})
