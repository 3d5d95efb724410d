"""`make conformance`: the official suite in both eras, and the Inspector on every server of ours.

Prints one table, and what failed below it; 1 where anything did that is not known and explained.
"""

import argparse
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import uvicorn
from mcp import MCPDeprecationWarning
from rich import box
from rich.console import Console
from rich.table import Table

from interlock_console.running import twin_site
from interlock_evals.factory import running_factory
from interlock_servers.serving import agent_principal, serve_http
from interlock_servers.transports.embedded import EmbeddedServer
from interlock_tools.clock import ScaledClock
from tests.conformance.fixture_server import fixture_app
from tests.conformance.suite import LEGACY, MODERN, Row, Tools, inspect, run_suite

EPOCH = datetime(2026, 9, 1, 6, 0, tzinfo=UTC)
WITH_SESSIONS, AS_SERVED = "fixture", "fixture as served"

NO_SESSION = "needs a session; over HTTP each request stands alone"
NO_WAY_BACK = "needs a way back to the client; over HTTP each request stands alone"
NO_STREAM = "needs a stream; answers are JSON"
KNOWN_AS_SERVED = {
    MODERN: {"tools-call-with-progress": NO_STREAM},
    LEGACY: {
        "logging-set-level": NO_SESSION,
        "resources-subscribe": NO_SESSION,
        "resources-unsubscribe": NO_SESSION,
        "server-sse-multiple-streams": NO_SESSION,  # a warning only
        "server-sse-polling": NO_SESSION,  # a warning only
        "tools-call-with-logging": NO_SESSION,
        "tools-call-with-progress": NO_STREAM,
        "tools-call-sampling": NO_WAY_BACK,
        "tools-call-elicitation": NO_WAY_BACK,
        "elicitation-sep1034-defaults": NO_WAY_BACK,
        "elicitation-sep1330-enums": NO_WAY_BACK,
    },
}


@asynccontextmanager
async def fixture(*, sessions: bool) -> AsyncIterator[str]:
    """The fixture on a free port of this machine; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with fixture_app(base_url, sessions=sessions) as app, anyio.create_task_group() as tasks:
        config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off")
        server = EmbeddedServer(config)
        tasks.start_soon(server.serve, [listener])
        await server.ready.wait()
        try:
            yield f"{base_url}/mcp"
        finally:
            server.should_exit = True


async def conform(tools: Tools, *, sessions: bool) -> list[Row]:
    """Both eras of the suite against the fixture, one after the other."""
    rows: list[Row] = []
    async with fixture(sessions=sessions) as url:
        for era in (MODERN, LEGACY):
            known = {} if sessions else KNOWN_AS_SERVED[era]
            what = WITH_SESSIONS if sessions else AS_SERVED
            rows += await run_suite(tools, url, era, what, known)
    return rows


async def inspect_all(tools: Tools) -> list[Row]:
    """The Inspector on every server of a site that is served over its twins."""
    clock = ScaledClock.starting_now(EPOCH, 1.0)
    async with running_factory(clock, kubernetes=True) as factory:
        settings = twin_site(factory.addresses, tools.scratch / "site", "inspector")
        async with serve_http(settings, clock, host="127.0.0.1", port=0) as served:
            token = served.token(agent_principal("inspector", owner="person:tester"))
            return [
                await inspect(tools, component, url, token, mode)
                for component, url in sorted({"whole site": served.url, **served.urls()}.items())
                for mode in ("modern", "legacy")
            ]


async def everything(tools: Tools) -> list[Row]:
    """All rows, in the order in which they are shown."""
    found: dict[str, list[Row]] = {}

    async def keep(name: str) -> None:
        if name == "inspector":
            found[name] = await inspect_all(tools)
        else:
            found[name] = await conform(tools, sessions=name == "sessions")

    async with anyio.create_task_group() as tasks:
        for name in ("sessions", "served", "inspector"):
            tasks.start_soon(keep, name)
    return [*found["sessions"], *found["served"], *found["inspector"]]


def show(console: Console, rows: list[Row]) -> None:
    """The table, and under it what failed and what is known to."""
    table = Table(box=box.MARKDOWN)
    for column in ("server", "era", "passed", "of", ""):
        table.add_column(column, justify="right" if column in {"passed", "of"} else "left")
    for row in rows:
        missing = f"{row.of - row.passed} known" if row.known else row.note
        note = missing if row.good else "FAILED"
        table.add_row(row.what, row.era, str(row.passed), str(row.of), note)
    console.print(table)
    for row in rows:
        for name, why in row.known.items():
            console.print(f"{row.what}, {row.era}: {name} {why}", markup=False)
    for row in rows:
        for failure in row.failures:
            console.print(f"FAILED {row.what}, {row.era}: {failure}", markup=False)


def main() -> int:
    """Run it all; 1 where something failed."""
    parser = argparse.ArgumentParser(description="MCP conformance of our servers.")
    parser.add_argument("--modules", type=Path, required=True, help="the node_modules folder")
    wanted = parser.parse_args()
    # The older era's logging and sampling are deprecated, and are what is tested here.
    warnings.filterwarnings("ignore", category=MCPDeprecationWarning)
    scratch = Path(tempfile.mkdtemp(prefix="interlock-conformance-"))
    try:
        rows = anyio.run(everything, Tools(wanted.modules.absolute(), scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    show(Console(width=100, highlight=False), rows)
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
