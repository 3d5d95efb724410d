"""The settings of the way in, and the options that leave less of the tools."""

import re
import sys
import tomllib
from pathlib import Path

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from typer.testing import CliRunner

from interlock_console.cli import app, narrowed
from interlock_console.settings import parse
from interlock_servers.surface.toolsets import EVERYTHING, Narrow
from interlock_tools.errors import InvalidRequestError

RUNNER = CliRunner()
DOCS = Path(__file__).parents[2] / "docs" / "how-to"
SITE = '[site]\nsite_id = "lab"\ngpus = 8\nhosts = 1\n'
MAIN = "from interlock_console.cli import main; main()"
PATIENCE_S = 60.0


@pytest.mark.parametrize("page", ["attach.md", "gateway.md"])
def test_the_settings_in_the_documents_are_settings(page: str) -> None:
    """What somebody copies from there starts."""
    blocks = re.findall(r"```toml\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    ways_in = [block for block in blocks if "[http" in block]
    assert ways_in
    for block in ways_in:
        http = parse(tomllib.loads(SITE + block), page).http
        assert http.authorization is not None
        assert http.public_url is not None
        assert http.security.allowed_hosts[2] == http.public_url.removeprefix("https://")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('[http]\npublic_url = "https://hall-1.example.com/mcp"', "scheme and host"),
        ('[http]\npublic_url = "hall-1.example.com"', "scheme and host"),
        ("[http]\ntoolsets = []", "toolsets"),
        ('[http]\ntoolset = ["maxlps"]', "toolset"),
        ('[http.authorization]\nissuer = "https://idp.example.com"', "jwks_url or jwks_file"),
        ("[http.limits]\nconnections = 0", "connections"),
    ],
)
def test_a_way_in_that_cannot_be_meant_is_refused(table: str, says: str) -> None:
    """A door that stands open by a misspelt word is found when somebody comes through it."""
    with pytest.raises(InvalidRequestError, match=says):
        parse(tomllib.loads(SITE + table), "test")


def test_the_options_leave_less() -> None:
    """And without them nothing is taken away."""
    assert narrowed(None, False, False) == EVERYTHING
    assert narrowed("maxlps, flex", True, True) == Narrow(
        toolsets=frozenset({"maxlps", "flex"}), read_only=True, no_destructive=True
    )


@pytest.mark.parametrize("command", [["up"], ["serve", "--stdio"]])
def test_a_toolset_that_there_is_not_is_one_sentence(tmp_path: Path, command: list[str]) -> None:
    """Exit status 2, and what there is instead."""
    config = tmp_path / "interlock.toml"
    config.write_text(f'data_dir = "{tmp_path / "data"}"\n{SITE}', "utf-8")
    result = RUNNER.invoke(app, [*command, "--config", str(config), "--toolsets", "maxlsp"])

    assert result.exit_code == 2
    assert "no toolset maxlsp; there is: none" in result.output


async def test_a_whole_factory_is_served_over_stdio_less_what_was_taken_away() -> None:
    """As a desktop client starts it: all components, these toolsets, nothing that changes."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-c", MAIN, "serve", "--stdio", "--toolsets", "maxlps,flex", "--read-only"],
    )
    with anyio.fail_after(PATIENCE_S):
        async with Client(server) as client:
            tools = (await client.list_tools()).tools
            refused = await client.call_tool("maxlps_set_caps", {})

    assert {tool.name.split("_", 1)[0] for tool in tools} == {"maxlps", "flex", "get", "list"}
    assert all(tool.annotations is not None and tool.annotations.read_only_hint for tool in tools)
    assert refused.is_error
