"""The same server over stdin and stdout, where a connection lasts, in both eras."""

import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

PATIENCE_S = 30.0
ROOT = Path(__file__).parents[3]
SERVER = StdioServerParameters(
    command=sys.executable, args=["-m", "tests.servers.surface.stdio_server"], cwd=ROOT
)


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
@pytest.mark.parametrize(("mode", "era"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
async def test_a_local_client_of_either_era_is_served(mode: Any, era: str) -> None:
    """Tools, resources and prompts; and for the older one what only it has."""
    with anyio.fail_after(PATIENCE_S):
        async with Client(SERVER, mode=mode) as client:
            said = await client.call_tool("test_simple_text", {})
            text = await client.read_resource("test://static-text")
            prompts = await client.list_prompts()
            if mode == "legacy":
                await client.session.subscribe_resource("test://watched-resource")
                await client.session.set_logging_level("info")
            spoken = client.protocol_version

    assert spoken == era
    assert said.content[0].model_dump()["text"].startswith("This is a simple text")
    assert "static text" in text.contents[0].model_dump()["text"]
    assert len(prompts.prompts) == 4
