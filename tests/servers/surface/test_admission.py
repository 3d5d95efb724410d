"""Bad input over a real socket: each kind is answered with its own status, and nothing is done."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from interlock_servers.surface.limits import HttpLimits
from tests.guardrails import conftest as guardrails
from tests.guardrails.conftest import AGENT, House
from tests.servers.surface.doors import (
    ACCEPT,
    READER,
    Door,
    heard,
    modern_call,
    modern_headers,
    open_door,
    raw_post,
)

house = guardrails.house  # the guard over one valve
LIMITS = HttpLimits(
    body_bytes=4096, body_within_s=0.3, head_within_s=0.3, idle_s=0.3, head_bytes=4096
)
MOVE = {"position_pct": 50, "reason": "less is enough"}
HEADER_MISMATCH = -32020
PLACES = ["", "/valve"]


@pytest.fixture
async def door(house: House) -> AsyncIterator[Door]:
    """Both components behind small limits."""
    async with open_door(house, limits=LIMITS) as opened:
        yield opened


def move(place: str) -> str:
    """The name of the tool that moves the valve."""
    return "move_valve" if place else "valve_move_valve"


def encoded(name: str) -> str:
    """The other spelling in which a header may name a tool."""
    return f"=?base64?{base64.b64encode(name.encode()).decode()}?="


# ── scopes ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("spelled", [str, encoded])
async def test_who_lacks_a_scope_is_told_which(
    house: House, door: Door, place: str, spelled: Any
) -> None:
    """403 with the scope to ask for and where: a client can step up and try again."""
    tool = move(place)
    refused = await door.call(tool, MOVE, READER, place, {"Mcp-Name": spelled(tool)})

    metadata = f"{door.base_url}/.well-known/oauth-protected-resource{place}/mcp"
    assert refused.status_code == 403
    assert refused.headers["WWW-Authenticate"] == (
        'Bearer error="insufficient_scope", scope="interlock:propose interlock:read", '
        f'resource_metadata="{metadata}"'
    )
    assert "agent:reader lacks interlock:propose" in refused.json()["error"]["message"]
    assert (await door.http.get(metadata)).json()["resource"] == f"{door.base_url}{place}/mcp"
    stepped_up = await door.call(tool, MOVE, AGENT, place)
    assert stepped_up.json()["result"]["structuredContent"]["state"] == "awaiting_approval"
    assert len(await house.guard.latest()) == 1


@pytest.mark.parametrize("method", ["tasks/cancel", "tasks/update"])
async def test_a_method_that_changes_needs_the_scope_too(door: Door, method: str) -> None:
    """Taking a change back is not reading."""
    headers = {**door.bearer(READER), **modern_headers(method, "chg-000000000000")}
    answer = await door.http.post(f"{door.base_url}/mcp", content=b"{}", headers=headers)
    assert answer.status_code == 403


async def test_who_may_not_read_is_told_so(door: Door) -> None:
    """The one scope that everything needs."""
    nobody = AGENT.model_copy(update={"scopes": frozenset({"interlock:propose"})})
    answer = await door.call("valve_read_flow", {}, nobody)

    assert answer.status_code == 403
    assert 'scope="interlock:read"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_that_sends_no_such_headers_is_refused_by_the_tool(
    house: House, door: Door, mode: str
) -> None:
    """What the header says is for the status; the scope is looked at when the tool is called."""
    if mode == "legacy":
        async with door.client("legacy", who=READER) as client:
            result = await client.call_tool("valve_move_valve", MOVE)
        assert result.is_error
        assert "insufficient_scope" in result.model_dump_json()
    else:
        missing = {"Mcp-Method": "", "Mcp-Name": ""}
        answer = await door.call("valve_move_valve", MOVE, READER, headers=missing)
        assert answer.json()["error"]["code"] == HEADER_MISMATCH
    assert await house.guard.latest() == []


@pytest.mark.parametrize(
    "spoofed",
    [
        {"Mcp-Name": "valve_read_flow"},
        {"Mcp-Name": "meter_read_flow"},
        {"Mcp-Name": "VALVE_MOVE_VALVE"},
        {"Mcp-Name": ""},
        {"Mcp-Name": "=?base64?!!?="},
        {"Mcp-Method": "tools/list"},
        {"Mcp-Method": "resources/read"},
        {"Mcp-Method": "TOOLS/CALL"},
    ],
    ids=str,
)
async def test_headers_that_say_something_else_than_the_body_are_refused(
    house: House, door: Door, spoofed: dict[str, str]
) -> None:
    """They pass the scope check, and the request is not served for it."""
    for who in (READER, AGENT):
        answer = await door.call("valve_move_valve", MOVE, who, headers=spoofed)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, HEADER_MISMATCH)
    assert await house.guard.latest() == []


@pytest.mark.parametrize(
    "value", ['"\\ud800"', "9007199254740993", "1e400", "[" * 900 + "]" * 900], ids=range(4)
)
async def test_what_could_not_be_put_on_record_is_refused_in_words(
    house: House, door: Door, value: str
) -> None:
    """Broken text, a number that is another one in JSON, infinity, a nest without end."""
    body = modern_call("valve_move_valve", {"reason": "less", "position_pct": "HERE"})
    headers = {**door.bearer(), **modern_headers("tools/call", "valve_move_valve")}
    answer = await door.http.post(
        f"{door.base_url}/mcp", content=body.replace(b'"HERE"', value.encode()), headers=headers
    )

    assert answer.json()["result"]["isError"] is True
    assert answer.json()["result"]["content"][0]["text"].startswith("valve_move_valve: ")
    assert await house.guard.latest() == []


async def test_an_older_client_gains_nothing_by_spoofed_headers(house: House, door: Door) -> None:
    """In its era nobody compares them with the body: the tool asks for the scope itself."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    body |= {"params": {"name": "valve_move_valve", "arguments": MOVE}}
    said = {**modern_headers("tools/list", ""), "MCP-Protocol-Version": "2025-11-25"}
    answer = await door.http.post(
        f"{door.base_url}/mcp", json=body, headers={**door.bearer(READER), **said}
    )

    assert answer.json()["result"]["isError"] is True
    assert "insufficient_scope" in answer.text
    assert await house.guard.latest() == []


async def test_headers_of_a_tenant_or_a_proxy_change_nothing(house: House, door: Door) -> None:
    """Who calls is who the token says, whatever stands beside it."""
    said = {
        "X-Tenant-Id": "other",
        "X-DSX-Tenant": "other",
        "X-Forwarded-User": "person:admin",
        "X-Forwarded-For": "10.0.0.1",
        "X-Remote-User": "person:admin",
        "X-Interlock-Principal": "person:admin",
    }
    answer = await door.call("valve_move_valve", MOVE, headers=said)
    change = answer.json()["result"]["structuredContent"]["change_id"]
    asked = (await house.guard.get(change)).requester

    assert (asked.id, asked.owner, asked.on_behalf_of) == (AGENT.id, AGENT.owner, None)


async def test_the_record_says_who_acted_and_for_whom(house: House, door: Door) -> None:
    """Of reads and of requests: the agent that asked, and the person it asked for."""
    acting = AGENT.model_copy(update={"on_behalf_of": "person:alice"})
    await door.call("valve_read_flow", {}, acting)
    await door.call("valve_move_valve", MOVE, acting)
    house.ledger.flush()
    records = {record["kind"]: record["body"] for record in house.ledger.read(0, 1000)}

    read, asked = records["read"], records["requested"]["requester"]
    assert (read["caller"], read["on_behalf_of"]) == (AGENT.id, "person:alice")
    assert (asked["id"], asked["on_behalf_of"]) == (AGENT.id, "person:alice")


# ── tokens, hosts, methods ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["access_token", "token", "id_token"])
@pytest.mark.parametrize("with_header", [True, False])
async def test_a_token_in_the_address_is_refused(
    house: House, door: Door, name: str, with_header: bool
) -> None:
    """It stands in logs and histories from then on; even beside a right one it is no good."""
    headers = modern_headers("tools/call", "valve_move_valve")
    if with_header:
        headers |= door.bearer()
    url = f"{door.base_url}/mcp?{name}={door.issuer.token(AGENT)}"
    answer = await door.http.post(
        url, content=modern_call("valve_move_valve", MOVE), headers=headers
    )

    assert answer.status_code == 400
    assert 'error="invalid_request"' in answer.headers["WWW-Authenticate"]
    assert await house.guard.latest() == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:80"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
    ids=str,
)
async def test_another_host_and_another_origin_are_turned_away(
    house: House, door: Door, place: str, header: dict[str, str], status: int
) -> None:
    """On the server of the whole site as on each component's, with a right token."""
    answer = await door.call(move(place), MOVE, AGENT, place, header)

    assert answer.status_code == status
    assert await house.guard.latest() == []


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "HEAD"])
@pytest.mark.parametrize("era", ["2026-07-28", "2025-11-25"])
async def test_only_post_is_served(door: Door, method: str, era: str) -> None:
    """No stream that stays open for nothing, no session to end."""
    headers = {**door.bearer(), "Accept": ACCEPT, "MCP-Protocol-Version": era}
    answer = await door.http.request(method, f"{door.base_url}/mcp", headers=headers)

    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_who_has_no_token_learns_where_to_get_one_first(door: Door, method: str) -> None:
    """Whatever else is wrong with the request."""
    answer = await door.http.request(method, f"{door.base_url}/mcp", content=b"x" * 5000)

    assert answer.status_code == 401
    assert "/.well-known/oauth-protected-resource/mcp" in answer.headers["WWW-Authenticate"]


# ── bodies ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_body_that_is_too_large_is_refused_unread(door: Door) -> None:
    """By the length that it claims, and by what comes where it claims none."""
    headers = {**door.bearer(), **modern_headers("tools/call", "valve_move_valve")}
    url = f"{door.base_url}/mcp"
    claimed = await door.http.post(url, content=b" " * 4097, headers=headers)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 1000

    chunked = await door.http.post(url, content=chunks(), headers=headers)
    assert (claimed.status_code, chunked.status_code) == (413, 413)


async def test_a_body_that_does_not_come_is_not_waited_for(door: Door) -> None:
    """The request ends with 408, and the connection with it."""
    headers = {**door.bearer(), **modern_headers("tools/call", "valve_move_valve")}
    async with await door.connect() as stream:
        await stream.send(raw_post("/mcp", headers, b'{"json', declared=2000))
        said = await heard(stream)

    assert said.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in said.lower()


async def test_who_goes_away_before_the_body_came_is_forgotten(
    house: House, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """No request, no error of ours, nothing in the log but silence."""
    headers = {**door.bearer(), **modern_headers("tools/call", "valve_move_valve")}
    async with await door.connect() as stream:
        await stream.send(raw_post("/mcp", headers, b'{"json', declared=2000))
    assert (await door.call("valve_read_flow", {})).status_code == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert await house.guard.latest() == []


@pytest.mark.parametrize(
    "sent", [b"", b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "], ids=["nothing", "half"]
)
async def test_a_connection_that_says_nothing_whole_is_closed(door: Door, sent: bytes) -> None:
    """However slowly it goes on talking."""
    async with await door.connect() as stream:
        if sent:
            await stream.send(sent)
        assert await heard(stream) == b""


async def test_a_second_request_has_to_come_whole_as_well(door: Door) -> None:
    """A connection that was once good gets no more time than another one."""
    async with await door.connect() as stream:
        await stream.send(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        with anyio.fail_after(5):
            assert b"200 OK" in await stream.receive()
        await stream.send(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        await heard(stream)


async def test_a_refused_body_that_goes_on_is_cut_off(door: Door) -> None:
    """Without a token nothing of it is read, and the connection does not stay for it."""
    async with await door.connect() as stream:
        headers = modern_headers("tools/call", "x")
        await stream.send(raw_post("/mcp", headers, b"{", declared=3000))
        said = await heard(stream)
    assert said.startswith(b"HTTP/1.1 401")


async def test_headers_without_end_are_refused(door: Door) -> None:
    """They have a size, and then the connection ends."""
    async with await door.connect() as stream:
        await stream.send(b"POST /mcp HTTP/1.1\r\nX-Long: " + b"x" * 5000)
        said = await heard(stream)
    assert said.startswith(b"HTTP/1.1 4")


NONSENSE: list[Any] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"jsonrpc": "2.0"}',
    b"\xff\xfe",
    b"[" * 4000,
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}',
    b'{"jsonrpc":"2.0","id":{},"method":"tools/list"}',
    json.dumps({"jsonrpc": "2.0", "id": 1, "method": "x" * 3000}).encode(),
]


@pytest.mark.parametrize("era", ["2026-07-28", "2025-11-25", "1999-01-01", "é"])
async def test_nonsense_is_answered_and_breaks_nothing(house: House, door: Door, era: str) -> None:
    """A status of the client's own, no word of ours about it, and the next request is served."""
    headers = {**door.bearer(), **modern_headers("tools/call", "valve_move_valve")}
    headers |= {"MCP-Protocol-Version": era}
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    for body in NONSENSE:
        answer = await door.http.post(f"{door.base_url}/mcp", content=body, headers=sent)

        assert answer.status_code in {200, 202, 400, 404}, body
        assert "Traceback" not in answer.text
        assert "Error executing" not in answer.text
        assert (await door.call("valve_read_flow", {})).status_code == 200
    assert await house.guard.latest() == []
