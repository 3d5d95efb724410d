"""Who calls: bearer tokens verified by public keys, and the local user on stdio.

A token opens MCP servers only: it is for their addresses and not for the console's, so no token
can vote.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from pydantic import BaseModel, ConfigDict, Field, model_validator

from interlock_servers.surface.claims import Expected, is_in_time, principal_of
from interlock_servers.surface.jwks import FixedKeys, Keys, keys_at, keys_in
from interlock_tools.clock import Clock
from interlock_tools.errors import InvalidRequestError
from interlock_tools.identity import Principal

SCOPE_READ = "interlock:read"
SCOPE_PROPOSE = "interlock:propose"
SCOPES = (SCOPE_READ, SCOPE_PROPOSE)  # no tool needs more; voting is no scope at all
ALGORITHMS = ("ES256",)  # of the local issuer
KNOWN_TOKENS = 1024  # whose signature need not be checked again
TOKEN_MAX_CHARS = 8192
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})

WhoCalls = Callable[[], Principal]
Algorithm = Literal["ES256", "ES384", "EdDSA", "PS256", "PS384", "RS256", "RS384"]


class IssuerSettings(BaseModel):
    """Whose tokens are believed: an OAuth 2.1 authorization server, and where its keys are.

    `issuer` is `iss` to the letter. A token must be for the address of the server, or for one of
    `audiences`. `person_claim` names the claim that holds a person's name as the console knows it:
    by that name a person is kept from approving what was asked for on their behalf.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(min_length=1)
    jwks_url: str | None = None
    jwks_file: Path | None = None
    algorithms: tuple[Algorithm, ...] = Field(default=("ES256", "RS256"), min_length=1)
    audiences: tuple[str, ...] = ()
    leeway_s: float = Field(default=30.0, ge=0, le=120)
    person_claim: str = "sub"

    @model_validator(mode="after")
    def _keys_are_somewhere_safe(self) -> Self:
        if (self.jwks_url is None) is (self.jwks_file is None):
            raise ValueError("name either jwks_url or jwks_file")
        for name, url in (("issuer", self.issuer), ("jwks_url", self.jwks_url)):
            parts = urlsplit(url or "")
            if url is None or parts.scheme == "https":
                continue
            if parts.scheme != "http" or parts.hostname not in LOOPBACK_HOSTS:
                raise ValueError(f"{name} must begin with https://")
        return self


class VerifiedToken(AccessToken):
    """A token that was wholly right, and whose it is."""

    principal: Principal


class LocalIssuer:
    """An issuer for one machine: it signs short-lived tokens with a key that never leaves it."""

    def __init__(self, issuer_url: str, clock: Clock) -> None:
        self.issuer_url = issuer_url
        self._clock = clock
        self._key = ECKey.generate_key("P-256", auto_kid=True)

    def key_set(self) -> KeySet:
        """The public half, as a verifier needs it."""
        return KeySet([ECKey.import_key(self._key.as_dict(private=False))])

    def token(
        self, principal: Principal, *, valid_s: float = 3600.0, audience: str | None = None
    ) -> str:
        """A signed token for this principal, good for `valid_s` seconds of the clock.

        It is for the whole site, or for the one server whose address is `audience`. Who acts for
        somebody else is the actor of a token whose subject is that person.
        """
        now = self._clock.now()
        acts_for = principal.on_behalf_of
        claims: dict[str, Any] = {
            "iss": self.issuer_url,
            "aud": whole_site(self.issuer_url) if audience is None else audience,
            "sub": principal.id if acts_for is None else acts_for,
            "scope": " ".join(sorted(principal.scopes)),
            "kind": principal.kind.value,
            "owner": principal.owner,
            "iat": int(now.timestamp()),
            "exp": int((now + timedelta(seconds=valid_s)).timestamp()),
        }
        if acts_for is not None:
            claims["act"] = {"sub": principal.id}
        return jwt.encode({"alg": "ES256", "kid": self._key.kid}, claims, self._key)


class TokenVerifier:
    """Verifies bearer tokens by public keys; a token that is not wholly right is no token."""

    def __init__(
        self,
        keys: KeySet | Keys,
        issuer_url: str,
        clock: Clock,
        *,
        algorithms: Collection[str] = ALGORITHMS,
        expected: Expected | None = None,
    ) -> None:
        self._signed = _Signatures(
            FixedKeys(keys) if isinstance(keys, KeySet) else keys, tuple(algorithms)
        )
        self._clock = clock
        self._expected = expected or Expected(
            issuer=issuer_url, audiences=frozenset({whole_site(issuer_url)})
        )
        self._known: OrderedDict[str, VerifiedToken] = OrderedDict()

    @classmethod
    def of(
        cls, settings: IssuerSettings, owners: Mapping[str, str], clock: Clock
    ) -> "TokenVerifier":
        """The verifier of another issuer's tokens; `owners` says who answers for an agent."""
        keys: Keys
        if settings.jwks_file is not None:
            keys = keys_in(settings.jwks_file, clock)
        else:
            keys = keys_at(settings.jwks_url or "", clock)
        expected = Expected(
            issuer=settings.issuer,
            audiences=frozenset(settings.audiences),
            leeway_s=settings.leeway_s,
            owners=owners,
            person_claim=settings.person_claim,
        )
        return cls(keys, settings.issuer, clock, algorithms=settings.algorithms, expected=expected)

    def for_resource(self, *addresses: str) -> "TokenVerifier":
        """The same verifier for a server that has these addresses (RFC 8707).

        The address of the whole site is one of each of its servers: who may use all of them
        together may use one alone, and not the other way round.
        """
        other = object.__new__(TokenVerifier)
        other._signed, other._clock = self._signed, self._clock
        audiences = self._expected.audiences | frozenset(addresses)
        other._expected = Expected(**{**vars(self._expected), "audiences": audiences})
        other._known = OrderedDict()
        return other

    async def verify_token(self, token: str) -> VerifiedToken | None:
        """The token's access, or None for any doubt: signature, issuer, audience, time, subject."""
        claims = await self._signed.claims(token)
        if claims is None:
            return None
        now = self._clock.now()
        known = self._known.get(token)
        if known is not None and known.claims is claims:  # nothing but its time can be over
            in_time = is_in_time(claims, now.timestamp(), self._expected.leeway_s)
            return known if in_time else None
        principal = principal_of(claims, self._expected, now)
        if principal is None:
            return None
        verified = VerifiedToken(
            token=token,
            client_id=principal.id,
            subject=str(claims["sub"]),
            scopes=sorted(principal.scopes),
            principal=principal,
        )
        verified.claims = claims  # the same object: by it the token is known again
        self._known[token] = verified
        if len(self._known) > KNOWN_TOKENS:
            self._known.popitem(last=False)
        return verified


class _Signatures:
    """Whether a token was signed with one of the keys; looked at once, for it does not change."""

    def __init__(self, keys: Keys, algorithms: tuple[str, ...]) -> None:
        self._keys = keys
        self._algorithms = algorithms
        self._known: OrderedDict[str, tuple[str, dict[str, Any]]] = OrderedDict()
        self._generation = keys.generation

    async def claims(self, token: str) -> dict[str, Any] | None:
        """The claims that the issuer signed, or None."""
        known = self._known.get(token)
        kid = self._kid(token) if known is None else known[0]
        key = None if kid is None else await self._keys.key(kid)
        if kid is None or key is None:
            return None
        if self._generation != self._keys.generation:  # a key was taken back
            self._generation = self._keys.generation
            self._known.clear()
        if token in self._known:
            self._known.move_to_end(token)
            return self._known[token][1]
        try:
            claims = dict(jwt.decode(token, key, algorithms=self._algorithms).claims)
        except (JoseError, ValueError, TypeError):
            return None
        self._known[token] = (kid, claims)
        if len(self._known) > KNOWN_TOKENS:
            self._known.popitem(last=False)
        return claims

    def _kid(self, token: str) -> str | None:
        """The key that the token names, if it is signed in a way that we take at all."""
        if len(token) > TOKEN_MAX_CHARS:
            return None
        try:
            head = jws.extract_compact(token.encode()).headers()
        except (JoseError, ValueError, TypeError):
            return None
        kid = head.get("kid")
        known = head.get("alg") in self._algorithms and isinstance(kid, str)
        return str(kid) if known else None


def whole_site(base_url: str) -> str:
    """The address of the server that has all tools of a site."""
    return f"{base_url}/mcp"


def caller_by_token() -> Principal:
    """The principal of the request that is being served, from its verified token.

    Raises:
        InvalidRequestError: the request carries no verified token.
    """
    token = get_access_token()
    if not isinstance(token, VerifiedToken):
        raise InvalidRequestError("no verified bearer token; log in and send one")
    return token.principal


def local_caller(principal: Principal) -> WhoCalls:
    """The same principal for every request: stdio has one user, and tests say who they are."""
    return lambda: principal


def recorded(caller: Principal) -> dict[str, str]:
    """Who asked, as a read on the ledger says it: the actor, and whom it acted for."""
    record = {"caller": caller.id}
    if caller.on_behalf_of is not None:
        record["on_behalf_of"] = caller.on_behalf_of
    return record
