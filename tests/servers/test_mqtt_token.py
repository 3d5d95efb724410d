"""Who we are on the bus: tokens that end, issuers that are asked, certificates of our own."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio
import pytest
from pydantic import ValidationError

from interlock_servers.transports.mqtt import MqttBus, MqttSettings
from interlock_servers.transports.mqtt_token import OAuthSettings, Token, renew_at_s
from interlock_tools.clock import ManualClock
from interlock_tools.errors import InvalidRequestError, UnavailableError
from tests.servers.certificates import self_signed
from tests.servers.scripted_broker import ScriptedBroker, scripted
from tests.servers.waiting import until

START = datetime(2026, 9, 1, tzinfo=UTC)


def jwt(lives_s: float, mark: str = "") -> str:
    """What looks like an access token that ends so many seconds after the start."""
    claims = {"exp": START.timestamp() + lives_s, "mark": mark}
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.c2ln"


@asynccontextmanager
async def bus(broker: str, clock: ManualClock, **settings: Any) -> AsyncIterator[MqttBus]:
    """A connection under test."""
    described = MqttSettings.model_validate(
        {"brokers": (broker,), "client_id": "steady", "username": "oauthtoken", **settings}
    )
    async with MqttBus(described, clock, lambda _: None, subscriptions=[("a/#", 0)]) as it:
        yield it


# Tokens that end


@pytest.mark.trap("EX-R07")
@pytest.mark.trap("EX-R04")
async def test_a_token_is_renewed_before_it_ends_by_connecting_again(tmp_path: Path) -> None:
    """The broker looks at it at connect and never again; our name there stays the same."""
    clock, file = ManualClock(START), tmp_path / "token"
    file.write_text(jwt(600, "old"))
    with anyio.fail_after(20):
        async with (
            scripted(ScriptedBroker()) as broker,
            bus(broker.url, clock, password_file=file) as it,
        ):
            await it.wait_connected(10)
            clock.advance(545)  # within the last minute, and no fresher one is there
            await until(lambda: "no fresher" in (it.last_error or ""))
            assert (it.connected, len(broker.connects)) == (True, 1)
            file.write_text(jwt(1200, "new"))
            await until(lambda: len(broker.connects) == 2)
            await it.wait_connected(10)
            assert it.last_error is None
    old, new = broker.connects
    assert old.endswith(jwt(600, "old").encode())
    assert new.endswith(jwt(1200, "new").encode())
    assert b"\x00\x06steady" in old
    assert b"\x00\x06steady" in new


async def test_a_token_that_has_ended_is_not_sent_and_says_so(tmp_path: Path) -> None:
    """A broker would say `not authorised`, and nobody would know why."""
    file = tmp_path / "token"
    file.write_text(jwt(-1))
    with anyio.fail_after(20):
        async with (
            scripted(ScriptedBroker()) as broker,
            bus(broker.url, ManualClock(START), password_file=file) as it,
        ):
            with pytest.raises(UnavailableError, match="the token ended at 2026-08-31T23:59:59"):
                await it.wait_connected(1)
            assert broker.connects == []
            file.write_text(jwt(600))
            await it.wait_connected(10)


@pytest.mark.parametrize(
    "secret", ["hunter2", "a.b", "a.b.c", "a.e30.c", "a.bnVsbA.c", "..", "a." + "W" * 4000 + ".c"]
)
def test_a_secret_that_is_no_token_never_ends(secret: str) -> None:
    """A plain password is a password."""
    assert Token.of(secret) == (secret, None)
    assert renew_at_s(Token.of(secret), START, 60) is None


@pytest.mark.parametrize(("lives_s", "at_s"), [(600, 540), (100, 50), (0, 0)])
def test_a_short_token_is_renewed_at_half_of_its_life(lives_s: float, at_s: float) -> None:
    """Else one that lives less than the margin would be renewed without end."""
    token = Token.of(jwt(lives_s))
    assert renew_at_s(token, START, 60) == START.timestamp() + at_s


# Issuers


class Issuer:
    """Gives a token to whoever asks rightly; one that is `mute` gives none."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        self.lives_s = 600.0
        self.mute = False
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        length = next(int(v) for k, v in fields.items() if k.lower() == "content-length")
        form = parse_qs((await reader.readexactly(length)).decode())
        basic = next(v for k, v in fields.items() if k.lower() == "authorization")
        self.asked.append((basic, form))
        said = {"access_token": jwt(self.lives_s, str(len(self.asked))), "token_type": "Bearer"}
        body = b"{}" if self.mute else json.dumps(said).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def issuing() -> AsyncIterator[Issuer]:
    """An issuer on loopback."""
    issuer = Issuer()
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"
    async with server:
        yield issuer


async def test_an_issuer_is_asked_for_a_token_and_again_before_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Client credentials, with the scope that the bus asks for."""
    monkeypatch.setenv("TEST_SECRET", "hunter2")
    clock = ManualClock(START)
    with anyio.fail_after(20):
        async with issuing() as issuer, scripted(ScriptedBroker()) as broker:
            oauth = {
                "token_url": issuer.url,
                "client_id": "reader",
                "client_secret_env": "TEST_SECRET",
                "audience": "dsx-exchange",
            }
            async with bus(broker.url, clock, oauth=oauth) as it:
                await it.wait_connected(10)
                issuer.lives_s = 1200
                clock.advance(541)
                await until(lambda: len(broker.connects) == 2)
                await it.wait_connected(10)
    basic, form = issuer.asked[0]
    assert basic == "Basic " + base64.b64encode(b"reader:hunter2").decode()
    assert form["grant_type"] == ["client_credentials"]
    assert (form["scope"], form["audience"]) == (["mqtt"], ["dsx-exchange"])
    assert broker.connects[0].endswith(jwt(600, "1").encode())
    assert broker.connects[1].endswith(jwt(1200, "2").encode())


async def test_an_issuer_that_gives_none_is_named_and_no_secret_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And it is asked again."""
    monkeypatch.setenv("TEST_SECRET", "hunter2")
    with anyio.fail_after(20):
        async with issuing() as issuer, scripted(ScriptedBroker()) as broker:
            issuer.mute = True
            oauth = {
                "token_url": issuer.url,
                "client_id": "reader",
                "client_secret_env": "TEST_SECRET",
            }
            async with bus(broker.url, ManualClock(START), oauth=oauth) as it:
                with pytest.raises(UnavailableError, match="issuer gives no token"):
                    await it.wait_connected(1)
                issuer.mute = False
                await it.wait_connected(10)
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"token_url": "http://issuer.example/token"}, "https"),
        ({"token_url": "https://u:hunter2@issuer.example/token"}, "no credentials"),
        ({"client_secret_file": "f"}, "one of them"),
        ({"client_secret_env": None}, "one of them"),
    ],
)
def test_an_issuer_that_cannot_be_meant_is_refused(change: dict[str, Any], why: str) -> None:
    """A client's secret is worth more than one token."""
    said = {"token_url": "https://i/t", "client_id": "c", "client_secret_env": "S", **change}
    with pytest.raises(ValidationError, match=why) as refusal:
        OAuthSettings.model_validate(said)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.trap("EX-R02")
def test_a_token_of_an_issuer_is_never_sent_in_the_clear_either() -> None:
    """The same rule as for a secret in a file."""
    oauth = {"token_url": "https://i/t", "client_id": "c", "client_secret_env": "S"}
    said = {"brokers": ("mqtt://h:1883",), "client_id": "x", "username": "u", "oauth": oauth}
    with pytest.raises(ValidationError, match="never sent in the clear"):
        MqttSettings.model_validate(said)


async def test_a_missing_secret_of_ours_is_said_before_the_first_connection() -> None:
    """It is no fault of the issuer."""
    oauth = {"token_url": "https://i/t", "client_id": "c", "client_secret_env": "INTERLOCK_NONE"}
    with pytest.raises(InvalidRequestError, match="INTERLOCK_NONE"):
        async with bus("mqtts://127.0.0.1:1", ManualClock(START), oauth=oauth):
            pass


# Certificates and encryption


@pytest.mark.trap("EX-R01")
@pytest.mark.parametrize(
    ("url", "tls"), [("mqtts://h:1883", True), ("mqtt://h:8883", False), ("mqtts://h:1", True)]
)
def test_whether_it_is_encrypted_is_said_and_not_read_out_of_the_port(url: str, tls: bool) -> None:
    """1883 is TLS at a gateway, and plain on a bench."""
    (address,) = MqttSettings(brokers=(url,), client_id="x").addresses
    assert address.tls is tls


async def test_a_certificate_of_our_own_is_shown_and_without_it_nobody_listens(
    tmp_path: Path,
) -> None:
    """The way of devices and building systems: no password at all."""
    (tmp_path / "server").mkdir()
    (tmp_path / "client").mkdir()
    server, trusted = self_signed(tmp_path / "server")
    _, mine = self_signed(tmp_path / "client", name="interlock-reader")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(mine)
    ours = {
        "username": None,
        "ca_file": trusted,
        "cert_file": mine,
        "key_file": mine.with_name("key.pem"),
    }
    with anyio.fail_after(20):
        async with scripted(ScriptedBroker(tls=server)) as broker:
            async with bus(broker.url, ManualClock(START), **ours) as it:
                await it.wait_connected(10)
                assert broker.connects[0][7] & 0xC0 == 0  # neither name nor password
            strange = {"username": None, "ca_file": trusted}
            async with bus(broker.url, ManualClock(START), **strange) as it:
                with pytest.raises(UnavailableError):
                    await it.wait_connected(1)
            assert len(broker.connects) == 1


@pytest.mark.parametrize("seconds", [0, 1, 59])
async def test_what_ends_is_known_to_the_second(seconds: int) -> None:
    """One that has not ended is let through."""
    Token.of(jwt(60)).check(START + timedelta(seconds=seconds))
    with pytest.raises(InvalidRequestError, match="ended"):
        Token.of(jwt(60)).check(START + timedelta(seconds=60))
