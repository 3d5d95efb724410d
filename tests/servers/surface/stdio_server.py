"""The factory's server at the other end of stdin and stdout: run as a process by a test."""

import anyio

from interlock_servers.surface.factory import build_server
from tests.conformance import fixture_content

if __name__ == "__main__":
    anyio.run(
        build_server(
            "stdio",
            version="1",
            instructions="A test.",
            tools=fixture_content.tools(),
            resources=fixture_content.resources(),
            prompts=fixture_content.prompts(),
            lasting=True,
        ).run_stdio_async
    )
