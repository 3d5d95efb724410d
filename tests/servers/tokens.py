"""Tokens of an issuer that is not ours, right or wrong in one thing."""

import base64
import json
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

ISSUER = "https://idp.example.com/realms/hall"
SITE = "https://hall-1.example.com/mcp"
FLEX = "https://hall-1.example.com/flex/mcp"
MAXLPS = "https://hall-1.example.com/maxlps/mcp"
KEY = ECKey.generate_key("P-256", auto_kid=True)


def claims(now_s: float, **other: Any) -> dict[str, Any]:
    """The claims of an agent's client, right but for those given; None takes a claim away."""
    right: dict[str, Any] = {
        "iss": ISSUER,
        "aud": SITE,
        "sub": "power",
        "scope": "interlock:read interlock:propose",
        "iat": int(now_s),
        "exp": int(now_s) + 300,
    }
    return {name: value for name, value in {**right, **other}.items() if value is not None}


def signed(
    said: dict[str, Any],
    key: ECKey | RSAKey | OKPKey = KEY,
    *,
    alg: str = "ES256",
    **header: Any,
) -> str:
    """A token that says this, signed with this key."""
    named = {"alg": alg, "kid": key.kid, **header}
    head = {name: value for name, value in named.items() if value is not None}
    return jwt.encode(head, said, key, algorithms=[alg])


def jwks(*keys: ECKey | RSAKey | OKPKey) -> bytes:
    """The document in which an issuer publishes its keys."""
    public = KeySet([*keys]).as_dict(private=False)
    return json.dumps(public).encode()


def part(document: dict[str, Any]) -> str:
    """One part of a token, unsigned."""
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()
