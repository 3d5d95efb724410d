"""Every tool of every server, from its own schema and against it: answered, and nothing moves."""

import re
from pathlib import Path
from typing import Any

import anyio
import jsonschema
import pytest
from mcp import Client, MCPError
from mcp.types import CallToolResult, Tool

from interlock_servers.offer import VERSION
from interlock_servers.surface.together import together
from interlock_tools.change import ChangeState
from tests.servers.sites import Lab, open_lab
from tests.servers.surface.schema_values import Values

TOO_LONG_S = 20.0
FITTING, AGAINST = 5, 10  # of each tool, on each server
SEED = 20_260_728
INVALID_PARAMS = -32602
# What a model is told is ours, in one line, and no crash: neither its name nor where it was.
CRASH = re.compile(r"Traceback|\.py\b|, in <|\b[A-Z]\w+(?:Exception|Error)\b|0x[0-9a-f]{6}")
MASKED = re.compile(r"^Error executing tool \w+$")
HARMLESS = frozenset(
    {
        ChangeState.REFUSED,
        ChangeState.AWAITING_APPROVAL,
        ChangeState.SUPERSEDED,
        ChangeState.EXPIRED,
    }
)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_whatever_comes_in_is_answered_and_moves_nothing(tmp_path: Path, mode: Any) -> None:
    """Ours is every word that is told, answers fit their schema, and the plant was not touched."""
    values = Values(SEED)
    async with open_lab(tmp_path) as lab:
        commanded: list[None] = []
        lab.plant.when_commanded = lambda: commanded.append(None)
        parts = [face.parts() for face in lab.site.faces.values()]
        servers = [together(parts, version=VERSION).server]
        servers += [face.server() for face in lab.site.faces.values()]
        asked = 0
        with anyio.fail_after(TOO_LONG_S):
            for server in servers:
                async with Client(server, mode=mode) as client:
                    for tool in (await client.list_tools()).tools:
                        for _ in range(FITTING):
                            await fits(client, tool, values.fitting(tool.input_schema))
                        for _ in range(AGAINST):
                            await answered(client, tool, values.against(tool.input_schema))
                        asked += FITTING + AGAINST
        assert asked > 500
        assert commanded == []
        await untouched(lab)


async def answered(client: Client, tool: Tool, arguments: dict[str, Any]) -> CallToolResult | None:
    """The answer, which tells nothing but what is ours to tell."""
    result: CallToolResult | None = None
    code = INVALID_PARAMS
    try:
        result = await client.call_tool(tool.name, arguments)
    except MCPError as error:
        code = error.code
    assert code == INVALID_PARAMS, (tool.name, arguments)
    if result is None:
        return None
    if result.is_error:
        said = " ".join(getattr(part, "text", "") for part in result.content)
        assert not MASKED.match(said), (tool.name, arguments)
        assert not CRASH.search(said), (tool.name, arguments, said)
        assert len(said) <= 4000
    else:
        jsonschema.validate(result.structured_content, tool.output_schema or {})
    return result


async def fits(client: Client, tool: Tool, arguments: dict[str, Any]) -> None:
    """What the schema takes is not called a wrong argument by the tool."""
    jsonschema.validate(arguments, tool.input_schema)
    await answered(client, tool, arguments)


async def untouched(lab: Lab) -> None:
    """Nothing was written, every change that came of it is on record, and none began."""
    assert lab.writes() == 0
    for change in await lab.site.guard.latest(10_000):
        assert change.state in HARMLESS, change.sentence()
        assert change.votes == ()
