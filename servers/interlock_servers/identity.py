"""Who calls: bearer tokens of our local issuer, verified by key set, and the local user on stdio.

A token opens MCP servers only: its audience is not the console's, so no token can vote.
"""

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken

from interlock_tools.clock import Clock
from interlock_tools.errors import InvalidRequestError
from interlock_tools.identity import Principal, PrincipalKind

SCOPE_READ = "interlock:read"
SCOPE_PROPOSE = "interlock:propose"
AUDIENCE = "interlock-mcp"
ALGORITHMS = ["ES256"]
KNOWN_TOKENS = 1024  # whose signature need not be checked again
NAME_MAX_CHARS = 200

WhoCalls = Callable[[], Principal]


class LocalIssuer:
    """An issuer for one machine: it signs short-lived tokens with a key that never leaves it."""

    def __init__(self, issuer_url: str, clock: Clock) -> None:
        self.issuer_url = issuer_url
        self._clock = clock
        self._key = ECKey.generate_key("P-256", auto_kid=True)

    def key_set(self) -> KeySet:
        """The public half, as a verifier needs it."""
        return KeySet([ECKey.import_key(self._key.as_dict(private=False))])

    def token(self, principal: Principal, *, valid_s: float = 3600.0) -> str:
        """A signed token for this principal, good for `valid_s` seconds of the clock."""
        now = self._clock.now()
        claims = {
            "iss": self.issuer_url,
            "aud": AUDIENCE,
            "sub": principal.id,
            "scope": " ".join(sorted(principal.scopes)),
            "kind": principal.kind.value,
            "owner": principal.owner,
            "act_for": principal.on_behalf_of,
            "iat": int(now.timestamp()),
            "exp": int((now + timedelta(seconds=valid_s)).timestamp()),
        }
        return jwt.encode({"alg": "ES256", "kid": self._key.kid}, claims, self._key)


class TokenVerifier:
    """Verifies bearer tokens by key set; a token that is not wholly right is no token."""

    def __init__(self, keys: KeySet, issuer_url: str, clock: Clock) -> None:
        self._keys = keys
        self._issuer_url = issuer_url
        self._clock = clock
        self._known: OrderedDict[str, dict[str, Any]] = OrderedDict()

    async def verify_token(self, token: str) -> AccessToken | None:
        """The token's access, or None for any doubt: signature, issuer, audience, time, subject."""
        claims = self._signed_claims(token)
        if claims is None or not _claims_hold(claims, self._issuer_url, self._clock.now()):
            return None
        return AccessToken(
            token=token,
            client_id=claims["sub"],
            subject=claims["sub"],
            scopes=claims["scope"].split(),
            claims=claims,
        )

    def _signed_claims(self, token: str) -> dict[str, Any] | None:
        """The claims that our issuer signed. A signature is checked once: it does not change."""
        if token in self._known:
            self._known.move_to_end(token)
            return self._known[token]
        try:
            claims = jwt.decode(token, self._keys, algorithms=ALGORITHMS).claims
        except (JoseError, ValueError):
            return None
        self._known[token] = claims
        if len(self._known) > KNOWN_TOKENS:
            self._known.popitem(last=False)
        return claims


def _claims_hold(claims: dict[str, Any], issuer_url: str, now: datetime) -> bool:
    expires = claims.get("exp")
    return (
        claims.get("iss") == issuer_url
        and claims.get("aud") == AUDIENCE
        and isinstance(expires, int)
        and now.timestamp() < expires
        and isinstance(claims.get("scope"), str)
        and _is_name(claims.get("sub"))
        and all(claims.get(who) is None or _is_name(claims[who]) for who in ("owner", "act_for"))
        and claims.get("kind") in [kind.value for kind in PrincipalKind]
    )


def _is_name(claim: object) -> bool:
    return isinstance(claim, str) and 0 < len(claim) <= NAME_MAX_CHARS


def caller_by_token() -> Principal:
    """The principal of the request that is being served, from its verified token.

    Raises:
        InvalidRequestError: the request carries no verified token.
    """
    token = get_access_token()
    if token is None or token.subject is None:
        raise InvalidRequestError("no verified bearer token; log in and send one")
    claims = token.claims or {}
    return Principal(
        id=token.subject,
        kind=PrincipalKind(claims.get("kind", PrincipalKind.AGENT.value)),
        authenticated_by=f"token:{claims.get('iss', '')}",
        scopes=frozenset(token.scopes),
        owner=claims.get("owner"),
        on_behalf_of=claims.get("act_for"),
    )


def local_caller(principal: Principal) -> WhoCalls:
    """The same principal for every request: stdio has one user, and tests say who they are."""
    return lambda: principal
