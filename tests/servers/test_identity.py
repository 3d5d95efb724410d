"""Tokens: one that is not wholly right is no token, whatever is wrong with it."""

from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from interlock_servers.identity import ALGORITHMS, AUDIENCE, TokenVerifier
from interlock_tools.clock import ManualClock
from tests.guardrails.conftest import START

ISSUER = "http://127.0.0.1:8470"
KEY = ECKey.generate_key("P-256", auto_kid=True)


def token(**other: Any) -> str:
    """A token of the issuer, right but for the claims given."""
    now = int(START.timestamp())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "agent:power",
        "scope": "interlock:read",
        "kind": "agent",
        "owner": "person:owner",
        "act_for": None,
        "iat": now,
        "exp": now + 60,
    }
    return jwt.encode({"alg": ALGORITHMS[0], "kid": KEY.kid}, claims | other, KEY)


def verifier(after_s: float = 0.0) -> TokenVerifier:
    """The verifier, some seconds after the token was made."""
    clock = ManualClock(START)
    clock.advance(after_s)
    return TokenVerifier(KeySet([KEY]), ISSUER, clock)


async def test_a_token_that_is_right_names_its_principal() -> None:
    """And it is the baseline of those below."""
    access = await verifier().verify_token(token())

    assert access is not None
    assert (access.subject, access.scopes) == ("agent:power", ["interlock:read"])
    assert await verifier(after_s=60).verify_token(token()) is None


@pytest.mark.parametrize(
    "other",
    [
        {"iss": "http://elsewhere"},
        {"aud": "interlock-console"},
        {"aud": [AUDIENCE]},
        {"exp": None},
        {"exp": True},
        {"exp": "9999999999"},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 201},
        {"scope": ["interlock:read"]},
        {"kind": "root"},
        {"kind": []},
        {"owner": 5},
        {"owner": ""},
        {"act_for": ["person:owner"]},
    ],
    ids=str,
)
async def test_a_claim_that_is_not_right_makes_it_no_token(other: dict[str, Any]) -> None:
    """No error of ours, and no caller without a name."""
    assert await verifier().verify_token(token(**other)) is None
