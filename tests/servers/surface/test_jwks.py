"""Keys of an issuer that rotates, fails or publishes nonsense; nobody can make us ask often."""

import json
from pathlib import Path

import anyio
import httpx2
import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey

from interlock_servers.identity import TokenVerifier
from interlock_servers.surface.claims import Expected
from interlock_servers.surface.jwks import (
    LOOK_AGAIN_S,
    OLD_AFTER_S,
    FetchedKeys,
    keys_at,
    keys_in,
    public_keys,
)
from interlock_tools.clock import ManualClock
from tests.guardrails.conftest import START
from tests.servers.tokens import ISSUER, SITE, claims, jwks, signed

FIRST = ECKey.generate_key("P-256", auto_kid=True)
SECOND = ECKey.generate_key("P-256", auto_kid=True)


class Publisher:
    """What an issuer publishes at the moment, and how often it was asked."""

    def __init__(self, document: bytes) -> None:
        self.document = document
        self.asked = 0
        self.fails: Exception | None = None

    async def __call__(self) -> bytes:
        """Its answer."""
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        return self.document


async def test_an_unknown_key_is_looked_for_at_most_once_a_minute() -> None:
    """Anybody can send tokens with key ids that never were."""
    clock, issuer = ManualClock(START), Publisher(jwks(FIRST))
    keys = FetchedKeys(issuer, clock)
    for guess in range(100):
        assert await keys.key(f"guess-{guess}") is None
    assert await keys.key(str(FIRST.kid)) is not None
    assert issuer.asked == 1

    issuer.document = jwks(FIRST, SECOND)
    assert await keys.key(str(SECOND.kid)) is None
    clock.advance(LOOK_AGAIN_S)
    assert await keys.key(str(SECOND.kid)) is not None
    assert issuer.asked == 2


async def test_many_requests_at_once_look_once() -> None:
    """The first one asks and the others wait for the same answer."""
    issuer = Publisher(jwks(FIRST))
    keys = FetchedKeys(issuer, ManualClock(START))
    found = []

    async def ask() -> None:
        found.append(await keys.key(str(FIRST.kid)))

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(ask)
    assert issuer.asked == 1
    assert None not in found


@pytest.mark.parametrize(
    "fails", [OSError("no route"), httpx2.ConnectError("refused"), ValueError("HTTP status 500")]
)
async def test_while_the_issuer_does_not_answer_the_keys_that_were_known_stay(
    fails: Exception,
) -> None:
    """Its outage is none of ours; an issuer that never answered lets nobody in."""
    clock, issuer = ManualClock(START), Publisher(jwks(FIRST))
    keys = FetchedKeys(issuer, clock)
    assert await keys.key(str(FIRST.kid)) is not None
    issuer.fails = fails
    clock.advance(OLD_AFTER_S + 1)
    assert await keys.key(str(FIRST.kid)) is not None
    assert await keys.key(str(FIRST.kid)) is not None
    assert issuer.asked == 2

    never = FetchedKeys(issuer, clock)
    assert await never.key(str(FIRST.kid)) is None


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": []}', b"<html>", b"\xff"])
async def test_nonsense_takes_no_key_away(document: bytes) -> None:
    """A captive portal or an empty answer is not a rotation."""
    clock, issuer = ManualClock(START), Publisher(jwks(FIRST))
    keys = FetchedKeys(issuer, clock)
    await keys.key(str(FIRST.kid))
    issuer.document = document
    clock.advance(OLD_AFTER_S)
    assert await keys.key(str(FIRST.kid)) is not None


@pytest.mark.parametrize("under", ["its own id", "the old id"])
async def test_a_key_that_was_taken_back_verifies_nothing_any_more(under: str) -> None:
    """Not even a token that was found right before, under whichever id another key has come."""
    clock, issuer = ManualClock(START), Publisher(jwks(FIRST))
    expected = Expected(issuer=ISSUER, audiences=frozenset({SITE}), owners={})
    verifier = TokenVerifier(FetchedKeys(issuer, clock), ISSUER, clock, expected=expected)
    token = signed(claims(START.timestamp(), exp=START.timestamp() + 2 * OLD_AFTER_S), FIRST)
    assert await verifier.verify_token(token) is not None

    public = SECOND.as_dict(private=False)
    renamed = {**public, "kid": FIRST.kid if under == "the old id" else SECOND.kid}
    issuer.document = json.dumps({"keys": [renamed]}).encode()
    assert await verifier.verify_token(token) is not None
    clock.advance(OLD_AFTER_S)
    assert await verifier.verify_token(token) is None


def test_only_public_signature_keys_are_taken() -> None:
    """A shared secret in a key set would let whoever reads it sign; a short key is soon broken."""
    strong = RSAKey.generate_key(2048, auto_kid=True)
    weak = {**strong.as_dict(private=False), "kid": "weak", "n": "q" * 171}
    secret = OctKey.generate_key(256, auto_kid=True).as_dict(private=True)
    listed = json.loads(jwks(FIRST, strong))["keys"]
    encrypts = {**SECOND.as_dict(private=False), "use": "enc"}
    nameless = {name: it for name, it in SECOND.as_dict(private=False).items() if name != "kid"}
    broken = {**SECOND.as_dict(private=False), "kid": "broken", "x": "!"}
    strange = [5, None, {"kty": "XX", "kid": "x"}, {"kty": 5, "kid": "y"}]
    keys = [*listed, weak, secret, encrypts, nameless, broken, *strange]

    assert set(public_keys(json.dumps({"keys": keys}).encode())) == {FIRST.kid, strong.kid}


def test_two_keys_of_one_name_are_none() -> None:
    """Which of them signed would be a matter of order."""
    twin = {**SECOND.as_dict(private=False), "kid": FIRST.kid}
    with pytest.raises(ValueError, match="no usable key"):
        public_keys(json.dumps({"keys": [FIRST.as_dict(private=False), twin]}).encode())


async def test_keys_in_a_file_are_read_anew(tmp_path: Path) -> None:
    """Whoever rotates them writes the file, and nothing has to be restarted."""
    clock, file = ManualClock(START), tmp_path / "jwks.json"
    keys = keys_in(file, clock)
    assert await keys.key(str(FIRST.kid)) is None
    await anyio.Path(file).write_bytes(jwks(FIRST))
    clock.advance(LOOK_AGAIN_S)
    found = await keys.key(str(FIRST.kid))
    assert found is not None
    assert not found.is_private


@pytest.mark.parametrize("answer", ["keys", "redirect", "huge"])
async def test_keys_at_an_address_are_fetched_within_bounds(answer: str) -> None:
    """From where the settings say and from nowhere else, and not more than fits."""
    body = {"keys": jwks(FIRST), "redirect": b"", "huge": b" " * 300_000}[answer]
    status = b"302 Found\r\nLocation: http://127.0.0.1:1/" if answer == "redirect" else b"200 OK"
    head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body))

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            try:
                await stream.send(head + body)
            except anyio.BrokenResourceError:
                return  # it has read enough

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 (no Django here)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, serve)
            found = await keys_at(f"http://127.0.0.1:{port}/jwks", ManualClock(START)).key(
                str(FIRST.kid)
            )
            tasks.cancel_scope.cancel()
    assert (found is not None) is (answer == "keys")
