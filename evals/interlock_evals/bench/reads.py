"""A guarded read against the same read on the bare SDK, in pairs: time, server CPU, calls a second.

Guarded: a verified token, the scope, strict arguments, the deadline and the record of the read.
Each server is a process of its own and both are asked in turns, over HTTP and over stdio.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from interlock_evals.bench.measured import Measured, median
from interlock_evals.reports import Figure, Promise

ROUNDS, PAIRS, WARM_UP = 9, 60, 30
IN_FLIGHT, FLIGHT_CALLS, FLIGHT_ROUNDS = 16, 160, 21
STARTS = 5
FLOW = "interlock_evals.bench.flow"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
READ_LIMIT, CPU_LIMIT, CALLS_LIMIT, STDIO_LIMIT, START_LIMIT_S = 1.15, 1.3, 0.8, 1.35, 1.5
Ask = Callable[[], Awaitable[object]]


class Server(NamedTuple):
    """One of the two servers: how it is asked, by an MCP client and by bare HTTP."""

    pid: int
    by_client: Ask
    by_http: Ask


def measure() -> Measured:
    """Medians of the ratios of the rounds; each limit is that of the issue it came from."""
    figures = anyio.run(_measure)
    value = {key: figure.value for key, figure in figures.items()}
    promises = {
        "guarded_read_ratio_p50": Promise.at_most(value["guarded_read_ratio_p50"], READ_LIMIT, ""),
        "guarded_read_cpu_ratio": Promise.at_most(value["guarded_read_cpu_ratio"], CPU_LIMIT, ""),
        "guarded_read_calls_ratio": Promise.at_least(
            value["guarded_read_calls_ratio"], CALLS_LIMIT, ""
        ),
        "guarded_read_ratio_p50_stdio": Promise.at_most(
            value["guarded_read_ratio_p50_stdio"], STDIO_LIMIT, ""
        ),
        "stdio_start_s": Promise.at_most(value["stdio_start_s"], START_LIMIT_S, "s"),
    }
    return Measured(figures, promises)


async def _measure() -> dict[str, Figure]:
    async with AsyncExitStack() as stack:
        guarded = await stack.enter_async_context(_over_http("guarded"))
        bare = await stack.enter_async_context(_over_http("bare"))
        whole = await _in_turns(guarded.by_client, bare.by_client)
        began_s = _used_s(guarded.pid), _used_s(bare.pid)
        wire = await _in_turns(guarded.by_http, bare.by_http)
        alone_s = _used_s(guarded.pid), _used_s(bare.pid)
        calls = [await _both_calls_per_s(guarded, bare, turn) for turn in range(FLIGHT_ROUNDS)]
        ended_s = _used_s(guarded.pid), _used_s(bare.pid)
    in_turns, in_flight = ROUNDS * PAIRS + WARM_UP, FLIGHT_ROUNDS * FLIGHT_CALLS
    async with AsyncExitStack() as stack:
        piped = [await stack.enter_async_context(_over_stdio(w)) for w in ("guarded", "bare")]
        stdio = await _in_turns(*piped)
    starts = [await _start_s() for _ in range(STARTS)]
    return {
        **_figures("", *whole),
        **_figures("_on_the_wire", *wire),
        **_figures("_stdio", *stdio),
        **_cpu("", began_s, alone_s, in_turns),
        **_cpu("_in_flight", alone_s, ended_s, in_flight),
        "guarded_read_calls_per_s": median([ours for ours, _ in calls], "calls/s"),
        "bare_read_calls_per_s": median([theirs for _, theirs in calls], "calls/s"),
        "guarded_read_calls_ratio": median([ours / theirs for ours, theirs in calls], ""),
        "stdio_start_s": median(starts, "s"),
    }


def _figures(suffix: str, guarded: list[list[float]], bare: list[list[float]]) -> dict[str, Figure]:
    """Medians over everything, and the ratio of medians of each round."""
    ratios = [
        statistics.median(ours) / statistics.median(theirs)
        for ours, theirs in zip(guarded, bare, strict=True)
    ]
    return {
        f"guarded_read_ratio_p50{suffix}": median(ratios, ""),
        f"guarded_read_p50_ms{suffix}": median([s for turn in guarded for s in turn], "ms", 1e3),
        f"bare_read_p50_ms{suffix}": median([s for turn in bare for s in turn], "ms", 1e3),
    }


def _cpu(
    suffix: str, before_s: tuple[float, float], after_s: tuple[float, float], calls: int
) -> dict[str, Figure]:
    """What a call cost the guarded server's process and the bare one's."""
    ours_s, theirs_s = (after - before for before, after in zip(before_s, after_s, strict=True))
    return {
        f"guarded_read_cpu_ms{suffix}": Figure(ours_s / calls * 1e3, "ms", calls),
        f"bare_read_cpu_ms{suffix}": Figure(theirs_s / calls * 1e3, "ms", calls),
        f"guarded_read_cpu_ratio{suffix}": Figure(ours_s / theirs_s, "", calls),
    }


async def _in_turns(guarded: Ask, bare: Ask) -> tuple[list[list[float]], list[list[float]]]:
    """Seconds of each call by round; within a pair, who is first changes from pair to pair."""
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    for _ in range(WARM_UP):
        await guarded()
        await bare()
    for _ in range(ROUNDS):
        ours.append([])
        theirs.append([])
        for pair in range(PAIRS):
            order = [(guarded, ours[-1]), (bare, theirs[-1])]
            for ask, took in order if pair % 2 else reversed(order):
                before = time.perf_counter()
                await ask()
                took.append(time.perf_counter() - before)
    return ours, theirs


def _used_s(pid: int) -> float:
    """What a process has used so far, user and system together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


async def _both_calls_per_s(guarded: Server, bare: Server, turn: int) -> tuple[float, float]:
    """Of the guarded and the bare one; who is first changes from round to round."""
    order = (guarded, bare) if turn % 2 else (bare, guarded)
    took = {server.pid: await _calls_per_s(server) for server in order}
    return took[guarded.pid], took[bare.pid]


async def _calls_per_s(server: Server) -> float:
    """With sixteen calls always under way, by bare HTTP."""
    left = FLIGHT_CALLS

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await server.by_http()

    before = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.start_soon(caller)
    return FLIGHT_CALLS / (time.perf_counter() - before)


async def _start_s() -> float:
    """From the start of `interlock serve maxlps --stdio` to the answer to its first call."""
    command = str(Path(sys.executable).with_name("interlock"))
    parameters = StdioServerParameters(command=command, args=["serve", "maxlps", "--stdio"])
    before = time.perf_counter()
    async with Client(parameters) as client:
        result = await client.call_tool("list_groups", {})
        if result.is_error:
            raise RuntimeError(str(result.content))
        return time.perf_counter() - before


# ── how they are asked ────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def _over_http(which: str) -> AsyncIterator[Server]:
    process = await anyio.to_thread.run_sync(_started, which)
    try:
        said = json.loads(await anyio.to_thread.run_sync(_first_line, process))
        headers = {} if said["token"] is None else {"Authorization": f"Bearer {said['token']}"}
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(said["url"], http_client=http)) as client,
        ):
            await client.list_tools()
            yield Server(process.pid, _by_client(client), _by_http(http, said["url"]))
    finally:
        process.communicate()  # its input closes: it ends


def _started(which: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", FLOW, which, "http"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _first_line(process: "subprocess.Popen[str]") -> str:
    return "" if process.stdout is None else process.stdout.readline()


@asynccontextmanager
async def _over_stdio(which: str) -> AsyncIterator[Ask]:
    parameters = StdioServerParameters(command=sys.executable, args=["-m", FLOW, which, "stdio"])
    async with Client(parameters) as client:
        await client.list_tools()
        yield _by_client(client)


def _by_client(client: Client) -> Ask:
    async def ask() -> None:
        result = await client.call_tool("read_flow", {"line": 3})
        if result.is_error:
            raise RuntimeError(str(result.content))

    return ask


def _by_http(http: httpx2.AsyncClient, url: str) -> Ask:
    """The same request as bytes: next to nothing of the client's work is in it."""
    version = "2026-07-28"
    body = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {
                "name": "read_flow",
                "arguments": {"line": 3},
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": version,
                    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
            },
        }
    )
    headers = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": version,
        "Mcp-Method": "tools/call",
        "Mcp-Name": "read_flow",
    }

    async def ask() -> None:
        response = await http.post(url, content=body, headers=headers)
        if response.status_code != 200 or b'"flow_pct":30' not in response.content:
            raise RuntimeError(response.text)

    return ask
