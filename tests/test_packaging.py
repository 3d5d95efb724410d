"""What is published agrees with itself, and what the documents tell people to paste works."""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

ROOT = Path(__file__).parents[1]
CLIENTS = ROOT / "docs" / "how-to" / "clients.md"
PACKAGING = ROOT / "packaging"
PLACE = "/path/to/interlock/.venv/bin/interlock"
INTERLOCK = str(Path(sys.executable).with_name("interlock"))


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())


def project() -> Any:
    """What `pyproject.toml` says of the package."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def forms() -> list[Any]:
    """One server of each JSON form on the page, by its place there."""
    blocks = re.findall(r"```json\n(.*?)```", CLIENTS.read_text(), re.DOTALL)
    found = []
    for number, block in enumerate(blocks):
        document = json.loads(block)
        for name, server in (document.get("mcpServers") or document["servers"]).items():
            found.append(pytest.param(server, id=f"{number}-{name}"))
    return found


def test_every_published_version_is_that_of_the_package() -> None:
    """Four files name it."""
    name, version = project()["name"], project()["version"]
    entry = read(ROOT / "server.json")
    bundle = read(PACKAGING / "claude-desktop" / "manifest.json")
    plugin = read(PACKAGING / "claude-code" / ".claude-plugin" / "plugin.json")
    started = read(PACKAGING / "claude-code" / ".mcp.json")["mcpServers"]["interlock"]

    assert {entry["version"], bundle["version"], plugin["version"]} == {version}
    assert [(each["identifier"], each["version"]) for each in entry["packages"]] == [
        (name, version)
    ]
    assert f"{name}=={version}" in started["args"]
    assert bundle["server"]["mcp_config"]["args"] == started["args"]


def test_readme_and_image_carry_the_name_by_which_the_registry_knows_the_server() -> None:
    """That is how it checks who publishes."""
    name = read(ROOT / "server.json")["name"]

    assert f"mcp-name: {name}" in (ROOT / "README.md").read_text()
    assert (
        f'io.modelcontextprotocol.server.name="{name}"' in (PACKAGING / "Containerfile").read_text()
    )


def test_the_image_is_made_from_every_folder_of_the_package() -> None:
    """A new room that it did not copy would be missing at start."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    rooms = {path.split("/")[0] for path in wheel["targets"]["wheel"]["packages"]}
    copied = set(
        re.findall(r"^COPY (\w+) \1$", (PACKAGING / "Containerfile").read_text(), re.MULTILINE)
    )

    assert copied == rooms


@pytest.mark.parametrize("server", forms())
async def test_a_form_of_the_page_starts_a_server_that_lists_tools(
    server: dict[str, Any], tmp_path: Path
) -> None:
    """As a client starts it: by its command and arguments, somewhere else."""
    assert server["command"] == PLACE
    parameters = StdioServerParameters(command=INTERLOCK, args=server["args"], cwd=tmp_path)
    async with Client(parameters) as client:
        tools = (await client.list_tools()).tools

    assert tools
    if "--read-only" in server["args"]:
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
