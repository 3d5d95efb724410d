"""A site whose tokens come from another issuer: over a real socket, right and wrong ones."""

import hashlib
import hmac
import socket
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from joserfc.jwk import ECKey, RSAKey

from interlock_guardrails.rules import SiteRules
from interlock_servers.entrance import EntranceSettings
from interlock_servers.identity import IssuerSettings
from interlock_servers.serving import Served, agent_principal, serve_http
from interlock_servers.site import SiteSettings
from interlock_servers.surface.toolsets import Narrow
from interlock_tools.clock import SystemClock
from interlock_tools.errors import InvalidRequestError
from tests.servers.tokens import ISSUER, KEY, claims, jwks, part, signed

PUBLIC = "https://hall-1.example.com"
RSA = RSAKey.generate_key(2048, auto_kid=True)
HELLO = {
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
    """The served site and where it listens, which is not where clients think."""

    served: Served
    port: int
    http: httpx2.AsyncClient

    async def knock(self, token: str, **headers: str) -> httpx2.Response:
        """One request with this token, as the proxy in front of us passes it on."""
        sent = {
            "Accept": "application/json, text/event-stream",
            "Host": "hall-1.example.com",
            "Authorization": f"Bearer {token}",
            **headers,
        }
        return await self.http.post(f"http://127.0.0.1:{self.port}/mcp", json=HELLO, headers=sent)


def site(folder: Path) -> SiteSettings:
    """A site without components: what is tested here is the door."""
    rules = SiteRules(site_id="lab", gpus=8, hosts=1)
    return SiteSettings(rules=rules, data_dir=folder / "data")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """A site at a public address, that believes one issuer."""
    keys = tmp_path / "jwks.json"
    await anyio.Path(keys).write_bytes(jwks(KEY, RSA))
    entrance = EntranceSettings(
        public_url=PUBLIC,
        authorization=IssuerSettings(issuer=ISSUER, jwks_file=keys, leeway_s=0.0),
    )
    port = free_port()
    async with (
        serve_http(
            site(tmp_path), SystemClock(), host="127.0.0.1", port=port, entrance=entrance
        ) as served,
        httpx2.AsyncClient(timeout=20.0) as http,
    ):
        yield Door(served, port, http)


def now_s() -> float:
    """Tokens are timed by the machine's clock."""
    return time.time()


def hs256() -> str:
    """Signed with the public key as if it were a secret."""
    body = f"{part({'alg': 'HS256', 'kid': RSA.kid})}.{part(right())}"
    mac = hmac.new(RSA.as_pem(private=False), body.encode(), hashlib.sha256).digest()
    return f"{body}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def right(**other: Any) -> dict[str, Any]:
    """The claims of a right token, but for these."""
    return claims(now_s(), **other)


async def test_a_right_token_opens_and_the_metadata_names_its_issuer(door: Door) -> None:
    """Otherwise the refusals below would prove nothing."""
    answer = await door.knock(signed(right()))
    path = "/.well-known/oauth-protected-resource/mcp"
    metadata = (await door.http.get(f"http://127.0.0.1:{door.port}{path}")).json()

    assert answer.status_code == 200
    assert metadata["resource"] == f"{PUBLIC}/mcp"
    assert metadata["authorization_servers"] == [ISSUER]
    assert door.served.url == f"{PUBLIC}/mcp"
    with pytest.raises(InvalidRequestError, match="issuer that the settings name"):
        door.served.token(agent_principal("power", owner="person:owner"))


async def test_wrong_tokens_are_refused_and_what_is_wrong_is_not_told(door: Door) -> None:
    """401 and one answer for all, with the address where a right one can be had."""
    stranger = ECKey.generate_key("P-256", auto_kid=True)
    wrong = {
        "expired": signed(right(exp=int(now_s()) - 1)),
        "not yet": signed(right(nbf=int(now_s()) + 60)),
        "wrong audience": signed(right(aud="https://hall-2.example.com/mcp")),
        "another server": signed(right(aud=f"{PUBLIC}/flex/mcp")),
        "no audience": signed(right(aud=None)),
        "wrong issuer": signed(right(iss="https://idp.example.com/realms/other")),
        "unknown kid": signed(right(), stranger),
        "alg none": f"{part({'alg': 'none', 'kid': KEY.kid})}.{part(right())}.",
        "HS256 with the public key": hs256(),
    }
    answers = {name: await door.knock(token) for name, token in wrong.items()}

    assert {answer.status_code for answer in answers.values()} == {401}, answers
    assert len({answer.text for answer in answers.values()}) == 1
    for answer in answers.values():
        challenge = answer.headers["WWW-Authenticate"]
        assert 'error="invalid_token"' in challenge
        assert f'"{PUBLIC}/.well-known/oauth-protected-resource/mcp"' in challenge


async def test_a_request_that_comes_by_another_name_is_misdirected(door: Door) -> None:
    """Only the public address, the names in the settings, and this machine."""
    assert (await door.knock(signed(right()), Host="hall-2.example.com")).status_code == 421
    assert (await door.knock(signed(right()), Host="127.0.0.1:8470")).status_code == 200


async def test_a_toolset_that_there_is_not_stops_the_start(tmp_path: Path) -> None:
    """Else a misspelt name would leave nothing, and nobody would know why."""
    narrow = Narrow(toolsets=frozenset({"maxlsp"}))
    refused = pytest.RaisesExc(InvalidRequestError, match="no toolset maxlsp; there is: none")
    with pytest.RaisesGroup(refused, flatten_subgroups=True):
        async with serve_http(
            site(tmp_path), SystemClock(), host="127.0.0.1", port=0, narrow=narrow
        ):
            pass
