"""The other server over streamable HTTP: with a token of ours, or of the caller where told so."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from anyio.abc import Process

from interlock_agents.connection import connect
from interlock_guardrails.rules import SiteRules
from interlock_servers.federation.client import Upstream
from interlock_servers.federation.settings import FederatedSettings
from interlock_servers.serving import serve_http
from interlock_servers.site import SiteSettings, open_authority
from interlock_servers.transports.bounded_http import bounded
from interlock_tools.change import ChangeState
from interlock_tools.clock import SystemClock
from interlock_tools.errors import ComponentError
from tests.servers.federation.elsewhere import AGENT, LEAD, SAID, Elsewhere, meeting, text_of
from tests.servers.federation.upstream import write
from tests.servers.waiting import until

TOKEN = "a-token-of-ours"  # noqa: S105 (of a server that a test starts)
VARIABLE = "ELSEWHERE_TOKEN"
READS = {"get_workload": SAID["get_workload"]}


@asynccontextmanager
async def serving(other: Elsewhere) -> AsyncIterator[tuple[str, Process]]:
    """The other server on HTTP, which takes our token; its URL and its process."""
    write(other.folder / "tokens.json", {"tokens": [TOKEN]})
    command = [sys.executable, "-m", "tests.servers.federation.upstream", str(other.folder)]
    port_file = other.folder / "port.json"
    process = await anyio.open_process(
        [*command, "--http"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await until(port_file.exists)
        yield f"http://127.0.0.1:{json.loads(port_file.read_text('utf-8'))['port']}/mcp", process
    finally:
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


def over_http(url: str, **more: Any) -> FederatedSettings:
    """The settings for that URL."""
    document = {"name": "elsewhere", "url": url, "tools": SAID, "relist_after_s": 0.0, **more}
    return FederatedSettings.model_validate(document)


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that the settings name."""
    monkeypatch.setenv(VARIABLE, TOKEN)


async def test_over_http_it_is_the_same_server(tmp_path: Path, other: Elsewhere) -> None:
    """Pinned, read, changed, poisoned: as over stdio."""
    async with (
        serving(other) as (url, _),
        meeting(tmp_path, other, over_http(url, bearer_env=VARIABLE)) as met,
    ):
        assert "nobody has approved" in text_of(await met.read())
        await met.approve_list()
        assert not (await met.read()).is_error
        change = await met.propose()
        await met.vote(change)
        assert (await met.end_of(change)).state is ChangeState.SUCCEEDED
        assert len(other.calls("suspendWorkload")) == 1

        other.describe("Something else.")

        assert "description changed" in text_of(await met.read())


async def test_ten_megabytes_are_cut_over_http_too(tmp_path: Path, other: Elsewhere) -> None:
    """With the same note."""
    async with (
        serving(other) as (url, _),
        meeting(tmp_path, other, over_http(url, bearer_env=VARIABLE)) as met,
    ):
        await met.approve_list()
        other.behave(get_workload="big")

        answer = await met.read()

        assert answer.structured_content is not None
        assert "has 10000000 characters" in answer.structured_content["cut"]


async def test_a_server_that_went_away_is_said_to_be(tmp_path: Path, other: Elsewhere) -> None:
    """A read says so, a change does not begin."""
    async with serving(other) as (url, process):
        settings = over_http(url, bearer_env=VARIABLE, connect_timeout_s=2.0)
        async with meeting(tmp_path, other, settings) as met:
            await met.approve_list()
            assert not (await met.read()).is_error
            process.kill()
            await process.wait()

            answer, change = await met.read(), await met.propose()

            assert answer.is_error
            assert "gives no answer: the connection closed" in text_of(answer)
            assert (await met.status())["state"] == "unreachable"
            assert change.state is ChangeState.REFUSED
            assert other.calls("suspendWorkload") == []


async def test_a_wrong_token_is_no_connection(
    tmp_path: Path, other: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the token is in no message."""
    monkeypatch.setenv(VARIABLE, "wrong-token")
    async with (
        serving(other) as (url, _),
        meeting(tmp_path, other, over_http(url, bearer_env=VARIABLE)) as met,
    ):
        said = text_of(await met.read())

        assert "cannot be reached" in said
        assert "wrong-token" not in said


@pytest.mark.parametrize("forwards", [False, True])
async def test_the_callers_own_token_is_sent_only_where_the_settings_say_so(
    tmp_path: Path, other: Elsewhere, forwards: bool
) -> None:
    """On a line of the caller's own then; the list is held against the approved one as ever."""
    async with serving(other) as (url, _):
        federated = over_http(url, bearer_env=VARIABLE, forward_caller_token=forwards, tools=READS)
        settings = SiteSettings(
            rules=SiteRules(site_id="lab", gpus=8, hosts=1),
            data_dir=tmp_path / "site",
            federated=(federated,),
        )
        async with serve_http(settings, SystemClock(), host="127.0.0.1", port=0) as served:
            async with open_authority(settings, SystemClock()) as authority:
                upstream = Upstream(federated, SystemClock())
                async with upstream.opened(TOKEN) as line:
                    listed = (await line.listed()).document()
                await authority.lists.approve(LEAD, "elsewhere", listed, why="read it")
            callers = served.token(AGENT)
            write(other.folder / "tokens.json", {"tokens": [callers if forwards else TOKEN]})
            async with connect({**served.urls(), "site": served.url}, callers) as servers:
                answer = await servers.call(
                    "elsewhere", "get_workload", arguments={"workload_id": "wl-1"}
                )
                together = await servers.call(
                    "site", "elsewhere_get_workload", arguments={"workload_id": "wl-1"}
                )

                other.describe("Something else.")
                with pytest.raises(ComponentError, match="description changed"):
                    await servers.call(
                        "elsewhere", "get_workload", arguments={"workload_id": "wl-1"}
                    )

    seen = set((other.folder / "seen.txt").read_text("utf-8").split())
    assert (
        answer["answer"] == together["answer"] == {"workload": {"id": "wl-1", "phase": "Running"}}
    )
    assert (callers in seen) is forwards


class Endless(httpx2.AsyncByteStream):
    """A body that does not end."""

    sent_bytes = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """More."""
        while True:
            self.sent_bytes += 1000
            yield b"x" * 1000


async def test_an_answer_without_end_is_cut_off() -> None:
    """It is not kept in memory to find out how large it is."""
    body = Endless()

    with pytest.raises(httpx2.StreamError, match="larger than it may be"):
        async for _ in bounded(body, 10_000):
            pass

    assert body.sent_bytes <= 11_000
