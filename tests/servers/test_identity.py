"""Tokens: one that is not wholly right is no token, and a right one names actor and person."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey
from pydantic import ValidationError

from interlock_servers.identity import (
    ALGORITHMS,
    IssuerSettings,
    LocalIssuer,
    TokenVerifier,
    recorded,
)
from interlock_servers.surface.claims import Expected
from interlock_servers.surface.jwks import FixedKeys
from interlock_tools.clock import ManualClock
from interlock_tools.identity import Principal, PrincipalKind
from tests.guardrails.conftest import AGENT, START
from tests.servers.tokens import FLEX, ISSUER, KEY, MAXLPS, SITE, claims, part, signed

LOCAL = "http://127.0.0.1:8470"
NOW_S = START.timestamp()
RSA = RSAKey.generate_key(2048, auto_kid=True)


def own_token(**other: Any) -> str:
    """A token of the local issuer, right but for the claims given."""
    said = {
        "iss": LOCAL,
        "aud": f"{LOCAL}/mcp",
        "sub": "agent:power",
        "scope": "interlock:read",
        "kind": "agent",
        "owner": "person:owner",
        "iat": int(NOW_S),
        "exp": int(NOW_S) + 60,
    }
    return jwt.encode({"alg": ALGORITHMS[0], "kid": KEY.kid}, said | other, KEY)


def own_verifier(after_s: float = 0.0) -> TokenVerifier:
    """The local verifier, some seconds after the token was made."""
    clock = ManualClock(START)
    clock.advance(after_s)
    return TokenVerifier(KeySet([KEY]), LOCAL, clock)


def verifier(
    *, after_s: float = 0.0, audiences: frozenset[str] = frozenset({SITE}), **more: Any
) -> TokenVerifier:
    """The verifier of another issuer's tokens."""
    clock = ManualClock(START)
    clock.advance(after_s)
    expected = Expected(
        issuer=ISSUER,
        audiences=audiences,
        leeway_s=30.0,
        owners={"agent:power": "person:power-team"},
        **more,
    )
    keys = FixedKeys(KeySet([KEY, RSA]))
    return TokenVerifier(keys, ISSUER, clock, algorithms=("ES256", "RS256"), expected=expected)


async def principal(token: str, by: TokenVerifier | None = None) -> Principal | None:
    """Whose the token is, if it is one."""
    access = await (by or verifier()).verify_token(token)
    return None if access is None else access.principal


async def test_a_token_that_is_right_names_its_principal() -> None:
    """And it is the baseline of those below."""
    access = await own_verifier().verify_token(own_token())

    assert access is not None
    assert (access.subject, access.scopes) == ("agent:power", ["interlock:read"])
    assert access.principal.owner == "person:owner"
    assert await own_verifier(after_s=60).verify_token(own_token()) is None


@pytest.mark.parametrize(
    "other",
    [
        {"iss": "http://elsewhere"},
        {"aud": "interlock-console"},
        {"aud": []},
        {"aud": None},
        {"aud": [f"{LOCAL}/mcp", 5]},
        {"aud": f"{LOCAL}/mcp/"},
        {"exp": None},
        {"exp": True},
        {"exp": "9999999999"},
        {"exp": float("nan")},
        {"nbf": int(NOW_S) + 60},
        {"nbf": "soon"},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 201},
        {"sub": "agent:power\n"},
        {"scope": ["interlock:read"]},
        {"scope": " ".join(f"s{n}" for n in range(65))},
        {"kind": "root"},
        {"kind": []},
        {"owner": 5},
        {"owner": ""},
        {"act": "person:owner"},
        {"act": {}},
        {"act": {"sub": ["agent:x"]}},
        {"act": {"sub": "agent:x", "iss": "https://elsewhere"}},
    ],
    ids=str,
)
async def test_a_claim_that_is_not_right_makes_it_no_token(other: dict[str, Any]) -> None:
    """No error of ours, and no caller without a name."""
    assert await own_verifier().verify_token(own_token(**other)) is None


async def test_the_local_issuer_names_the_agent_and_the_person_it_acts_for() -> None:
    """As RFC 8693 has it: the subject is the person, `act` is who does it."""
    issuer = LocalIssuer(LOCAL, ManualClock(START))
    acting = AGENT.model_copy(update={"on_behalf_of": "person:alice"})
    by = TokenVerifier(issuer.key_set(), LOCAL, ManualClock(START))
    access = await by.verify_token(issuer.token(acting))

    assert access is not None
    assert access.subject == "person:alice"
    assert access.claims is not None
    assert access.claims["act"] == {"sub": AGENT.id}
    assert (access.principal.id, access.principal.owner) == (AGENT.id, AGENT.owner)
    assert recorded(access.principal) == {"caller": AGENT.id, "on_behalf_of": "person:alice"}


async def test_another_issuer_says_who_acts_and_for_whom() -> None:
    """The actor of the token is the agent; the person is kept from approving what it asks for."""
    said = claims(NOW_S, sub="alice", act={"sub": "power", "act": {"sub": "gateway"}})
    who = await principal(signed(said))

    assert who is not None
    assert (who.id, who.kind) == ("agent:power", PrincipalKind.AGENT)
    assert who.on_behalf_of == "person:alice"
    assert who.owner == "person:power-team"
    assert who.authenticated_by == f"token:{ISSUER}"


@pytest.mark.parametrize("client", [{"client_id": "desktop"}, {"azp": "desktop"}])
async def test_a_person_who_logged_in_with_a_client_is_acted_for_by_it(
    client: dict[str, str],
) -> None:
    """What speaks MCP is software: it may do what an agent may, and the person answers for it."""
    who = await principal(signed(claims(NOW_S, sub="alice", **client)))

    assert who is not None
    assert (who.id, who.kind) == ("agent:desktop", PrincipalKind.AGENT)
    assert (who.on_behalf_of, who.owner) == ("person:alice", "person:alice")


async def test_an_agent_of_its_own_is_answered_for_by_whom_the_settings_name() -> None:
    """One that no person answers for has no owner, and the policy refuses its changes."""
    known = await principal(signed(claims(NOW_S, client_id="power")))
    stranger = await principal(signed(claims(NOW_S, sub="stranger", client_id="stranger")))

    assert known is not None
    assert stranger is not None
    assert (known.id, known.owner) == ("agent:power", "person:power-team")
    assert (stranger.id, stranger.owner) == ("agent:stranger", None)


async def test_another_issuer_cannot_say_who_answers_or_that_it_is_a_person() -> None:
    """`kind` and `owner` are believed of our own issuer only."""
    said = claims(NOW_S, sub="stranger", kind="person", owner="person:accomplice")
    who = await principal(signed(said))

    assert who is not None
    assert (who.kind, who.owner) == (PrincipalKind.AGENT, None)


async def test_a_person_goes_by_the_name_that_the_console_knows() -> None:
    """Else who is kept from a vote would be somebody whom nobody here knows by that name."""
    by = verifier(person_claim="preferred_username")
    said = claims(NOW_S, sub="00u1", act={"sub": "power"}, preferred_username="alice")
    who = await principal(signed(said), by)

    assert who is not None
    assert who.on_behalf_of == "person:alice"
    assert await principal(signed(claims(NOW_S, act={"sub": "power"})), by) is None


async def test_scopes_are_read_as_either_kind_of_issuer_writes_them() -> None:
    """`scope` in one string, or `scp` as a list or a string."""
    for scp in (["interlock:read"], "interlock:read"):
        access = await verifier().verify_token(signed(claims(NOW_S, scope=None, scp=scp)))
        assert access is not None
        assert access.scopes == ["interlock:read"]


async def test_a_clock_that_differs_a_little_is_forgiven_and_no_more() -> None:
    """Two machines never agree to the second."""
    late = signed(claims(NOW_S))
    early = signed(claims(NOW_S, nbf=int(NOW_S) + 20))

    assert await principal(late, verifier(after_s=329)) is not None
    assert await principal(late, verifier(after_s=330)) is None
    assert await principal(early) is not None
    assert await principal(signed(claims(NOW_S, nbf=int(NOW_S) + 31))) is None


async def test_a_token_for_one_server_opens_that_one_and_no_other() -> None:
    """The audience is the address of the resource (RFC 8707), to the letter."""
    base = verifier(audiences=frozenset())
    flex, maxlps = base.for_resource(FLEX, SITE), base.for_resource(MAXLPS, SITE)
    whole = base.for_resource(SITE)
    for_flex, for_site = signed(claims(NOW_S, aud=FLEX)), signed(claims(NOW_S, aud=[SITE, "x"]))

    assert await principal(for_flex, flex) is not None
    assert await principal(for_flex, maxlps) is None
    assert await principal(for_flex, whole) is None
    for server in (flex, maxlps, whole):
        assert await principal(for_site, server) is not None
    assert await principal(for_site, base) is None


def hs256_with_the_public_key() -> str:
    """The public key, as it is published, taken for a shared secret."""
    head = part({"alg": "HS256", "kid": RSA.kid, "typ": "JWT"})
    body = f"{head}.{part(claims(NOW_S))}"
    mac = hmac.new(RSA.as_pem(private=False), body.encode(), hashlib.sha256).digest()
    return f"{body}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def unsigned(alg: str) -> str:
    """No signature at all."""
    return f"{part({'alg': alg, 'kid': KEY.kid})}.{part(claims(NOW_S))}."


@pytest.mark.parametrize(
    "token",
    [
        unsigned("none"),
        unsigned("None"),
        unsigned("ES256"),
        hs256_with_the_public_key(),
        signed(claims(NOW_S), ECKey.generate_key("P-256", auto_kid=True)),
        signed(claims(NOW_S), ECKey.generate_key("P-256"), kid=KEY.kid),
        signed(claims(NOW_S), kid=None),
        signed(claims(NOW_S), RSA, alg="PS256"),
        signed(claims(NOW_S), RSA, alg="RS256", kid=KEY.kid),
        signed(claims(NOW_S, extra="x" * 8192)),
        "not.a.token",
        "....",
        "",
        "é.é.é",
    ],
    ids=[
        "alg none",
        "alg None",
        "no signature",
        "HS256 with the public key",
        "unknown kid",
        "another key under our kid",
        "no kid",
        "an algorithm that is not pinned",
        "the key of another algorithm",
        "too long",
        "rubbish",
        "dots",
        "empty",
        "not ASCII",
    ],
)
async def test_what_is_not_signed_with_a_key_of_the_issuer_is_no_token(token: str) -> None:
    """Only the pinned algorithms, only with the key that the token names."""
    assert await principal(token) is None


async def test_a_right_rsa_token_is_taken() -> None:
    """Otherwise the refusals above would prove nothing of RSA keys."""
    assert await principal(signed(claims(NOW_S), RSA, alg="RS256")) is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"jwks_url": "https://idp.example.com/jwks", "jwks_file": "jwks.json"},
        {"jwks_url": "http://idp.example.com/jwks"},
        {"jwks_file": "jwks.json", "algorithms": ["none"]},
        {"jwks_file": "jwks.json", "algorithms": ["HS256"]},
        {"jwks_file": "jwks.json", "algorithms": []},
        {"jwks_file": "jwks.json", "issuer": "http://idp.example.com"},
        {"jwks_file": "jwks.json", "leeway_s": 3600},
    ],
    ids=str,
)
def test_settings_that_would_believe_anybody_are_refused(wrong: dict[str, Any]) -> None:
    """A shared secret, keys in clear over the network, a token for ever."""
    with pytest.raises(ValidationError):
        IssuerSettings.model_validate({"issuer": ISSUER, **wrong})
