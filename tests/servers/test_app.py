"""The servers over real HTTP: who gets in, who does not, and what is told to whom."""

import base64
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from interlock_agents.connection import connect
from interlock_evals.factory import running_factory
from interlock_guardrails.rules import SiteRules
from interlock_servers.identity import SCOPE_READ, SCOPES, LocalIssuer
from interlock_servers.serving import Served, agent_principal, serve_http
from interlock_servers.site import SiteSettings
from interlock_tools.clock import ScaledClock, SystemClock
from interlock_tools.errors import ComponentError
from interlock_tools.identity import Principal

EPOCH = datetime(2026, 9, 1, 6, 0, tzinfo=UTC)
AGENT = agent_principal("power", owner="person:owner")
READER = AGENT.model_copy(update={"id": "agent:reader", "scopes": frozenset({SCOPE_READ})})
UNREAD = AGENT.model_copy(update={"id": "agent:none", "scopes": frozenset({"interlock:propose"})})
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "a test", "version": "1"},
    },
}


@dataclass
class Door:
    """The served site, and one way to knock at it."""

    served: Served
    http: httpx2.AsyncClient

    async def knock(
        self, token: str | None, component: str = "maxlps", **headers: str
    ) -> httpx2.Response:
        """One MCP request with this bearer token."""
        sent = {"Accept": "application/json, text/event-stream", **headers}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        return await self.http.post(
            f"{self.served.base_url}/{component}/mcp", json=CALL, headers=sent
        )


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop for the module, which shares one factory."""
    return "asyncio"


@pytest.fixture(scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Door]:
    """A running factory, served on a port that the system chooses."""
    folder: Path = tmp_path_factory.mktemp("site")
    clock = ScaledClock.starting_now(EPOCH, 1.0)
    async with running_factory(clock) as factory:
        addresses = factory.addresses
        settings = SiteSettings(
            rules=SiteRules(site_id=addresses.site_id, gpus=addresses.gpus, hosts=addresses.hosts),
            bundle="supervised",
            data_dir=folder,
            exchange=addresses.exchange("interlock"),
            maxlps=addresses.maxlps(),
            flex=addresses.flex("interlock"),
        )
        async with (
            serve_http(settings, clock, host="127.0.0.1", port=0) as served,
            httpx2.AsyncClient(timeout=20.0) as http,
        ):
            yield Door(served, http)


def forged(door: Door) -> str:
    """Right in every claim, signed by a key of somebody else's."""
    return LocalIssuer(door.served.base_url, SystemClock()).token(AGENT)


def expired(door: Door) -> str:
    """Good until a second ago."""
    return door.served.issuer.token(AGENT, valid_s=-1.0)


def of_another_issuer(door: Door) -> str:
    """Signed by our key in the name of another issuer."""
    issuer = door.served.issuer
    own, issuer.issuer_url = issuer.issuer_url, "https://idp.example.com"
    try:
        return issuer.token(AGENT)
    finally:
        issuer.issuer_url = own


def for_the_console(door: Door) -> str:
    """Signed by our key for another audience than the MCP servers."""
    return door.served.issuer.token(AGENT, audience=f"{door.served.base_url}/console")


def for_another_server(door: Door) -> str:
    """Signed by our key for one server, and sent to another one."""
    return door.served.issuer.token(AGENT, audience=door.served.urls()["flex"])


def segments(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token, unverified."""
    head, claims, _ = token.split(".")
    return _decoded(head), _decoded(claims)


def _decoded(segment: str) -> dict[str, Any]:
    raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    document: dict[str, Any] = json.loads(raw)
    return document


def _encoded(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def unsigned(door: Door) -> str:
    """`alg: none`, and no signature."""
    head, claims = segments(door.served.token(AGENT))
    return f"{_encoded({**head, 'alg': 'none'})}.{_encoded(claims)}."


def with_more_scope(door: Door) -> str:
    """A reader's token with the claims of somebody who may propose."""
    head, claims, signature = door.served.token(READER).split(".")
    more = _encoded({**_decoded(claims), "scope": "interlock:propose interlock:read"})
    return f"{head}.{more}.{signature}"


def rubbish(_: Door) -> str:
    """No token at all."""
    return "not.a.token"


async def test_a_request_without_a_token_is_told_where_to_get_one(door: Door) -> None:
    """401, with the address of the metadata that names the issuer."""
    response = await door.knock(None)

    challenge = response.headers["WWW-Authenticate"]
    found = re.search(r'resource_metadata="([^"]+)"', challenge)
    assert response.status_code == 401
    assert challenge.startswith("Bearer")
    assert found is not None
    metadata = (await door.http.get(found[1])).json()
    assert metadata["resource"] == f"{door.served.base_url}/maxlps/mcp"
    assert metadata["authorization_servers"] == [door.served.base_url]
    assert metadata["scopes_supported"] == list(SCOPES)


async def test_the_metadata_of_every_server_is_at_the_root_of_the_host(door: Door) -> None:
    """Where the specification looks for it, and not below the mount."""
    every = [door.served.url, *door.served.urls().values()]
    assert len(every) == 9
    for url in every:
        place = url.removeprefix(door.served.base_url)
        address = f"/.well-known/oauth-protected-resource{place}"
        response = await door.http.get(door.served.base_url + address)
        assert response.status_code == 200
        assert response.json()["resource"] == url


@pytest.mark.parametrize(
    "make",
    [
        forged,
        expired,
        of_another_issuer,
        for_the_console,
        for_another_server,
        unsigned,
        with_more_scope,
        rubbish,
    ],
)
async def test_a_token_that_is_not_wholly_right_is_no_token(
    door: Door, make: Callable[[Door], str]
) -> None:
    """Any doubt is 401; what was wrong is not told."""
    response = await door.knock(make(door))

    assert response.status_code == 401
    assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]
    assert "Traceback" not in response.text


async def test_a_right_token_opens_every_server(door: Door) -> None:
    """Otherwise the refusals on this page would prove nothing."""
    for component in ("exchange", "maxlps", "flex"):
        response = await door.knock(door.served.token(AGENT), component)
        assert response.status_code == 200
        assert response.json()["result"]["serverInfo"]["name"] == f"interlock-{component}"


async def test_a_token_that_may_not_read_is_forbidden(door: Door) -> None:
    """To propose one must be able to look."""
    response = await door.knock(door.served.token(UNREAD))

    assert response.status_code == 403
    assert "insufficient_scope" in response.headers["WWW-Authenticate"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", ""])
async def test_another_host_is_misdirected(door: Door, host: str) -> None:
    """A name that was bound to our address by somebody else leads nowhere."""
    response = await door.knock(door.served.token(AGENT), Host=host)

    assert response.status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1.evil"])
async def test_another_origin_is_forbidden(door: Door, origin: str) -> None:
    """A page in somebody's browser does not speak for them."""
    response = await door.knock(door.served.token(AGENT), Origin=origin)

    assert response.status_code == 403


async def test_a_token_for_reading_reads_and_does_not_change(door: Door) -> None:
    """The scope is looked at when the tool is called, by the server, over the wire."""
    async with connect(door.served.urls(), door.served.token(READER)) as reader:
        tree = await reader.call("maxlps", "power_tree")
        assert tree["domains"][0]["id"] == "lab"
        for dry_run in (True, False):
            with pytest.raises(ComponentError, match="insufficient_scope"):
                await reader.call(
                    "maxlps",
                    "set_caps",
                    gpu_cap_w_by_node={"node-001": 500},
                    reason="I only read",
                    dry_run=dry_run,
                )
    assert await door.served.site.guard.latest() == []


async def test_who_asks_is_who_the_token_says_and_no_argument(door: Door) -> None:
    """The requester and the owner, who may not approve it, come from the verified claims."""
    async with connect(door.served.urls(), door.served.token(AGENT)) as agent:
        for claim in ("requester", "caller", "owner"):
            with pytest.raises(ComponentError, match=claim):
                await agent.call(
                    "maxlps", "release_caps", node_ids=[], reason="let me", **{claim: "person:x"}
                )
        change = await agent.call(
            "maxlps", "release_caps", node_ids=["node-001"], reason="a test of names"
        )
    row = await door.served.site.guard.get(change["change_id"])

    assert row.requester.id == AGENT.id
    assert row.requester.owner == "person:owner"
    assert row.requester.authenticated_by == f"token:{door.served.base_url}"


async def test_two_callers_at_once_are_not_mixed_up(door: Door) -> None:
    """One process serves everybody: the principal belongs to the request."""
    second = Principal(**{**AGENT.model_dump(), "id": "agent:second", "owner": "person:other"})
    async with (
        connect(door.served.urls(), door.served.token(READER)) as reader,
        connect(door.served.urls(), door.served.token(second)) as proposer,
    ):
        change = await proposer.call(
            "maxlps", "release_caps", node_ids=["node-002"], reason="a test of names"
        )
        with pytest.raises(ComponentError, match="agent:reader lacks interlock:propose"):
            await reader.call("maxlps", "release_caps", node_ids=[], reason="me too")
    row = await door.served.site.guard.get(change["change_id"])

    assert (row.requester.id, row.requester.owner) == ("agent:second", "person:other")


async def test_the_process_says_that_it_answers_without_a_token(door: Door) -> None:
    """For a load balancer: nothing of the plant is told there."""
    response = await door.http.get(f"{door.served.base_url}/healthz")

    assert response.status_code == 200
    assert response.json()["interlock"] == "answers"


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/redoc", "/vote", "/maxlps/vote"])
async def test_nothing_else_is_served(door: Door, path: str) -> None:
    """No pages about the process, and nowhere to vote."""
    response = await door.http.get(door.served.base_url + path)

    assert response.status_code == 404
