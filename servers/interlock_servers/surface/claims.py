"""What a token has to say, and who its caller is: the actor, and whom it acts for (RFC 8693).

With an `act` claim the actor asks on behalf of the subject. Without one a client that a person
logged in with acts for that person: what speaks MCP is software, so it is an agent in either case.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeGuard

from interlock_tools.identity import Principal, PrincipalKind

NAME_MAX_CHARS = 200
MAX_SCOPES = 64
CLAIM_OF_KIND = "kind"  # these two are believed of our own issuer only
CLAIM_OF_OWNER = "owner"

Claims = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a token must say to open a resource.

    `audiences` are the addresses of which the token must be for one. `owners` names who answers
    for an agent; None: the issuer is our own, and its tokens say so themselves. `person_claim`
    holds the name by which a person is known here too.
    """

    issuer: str
    audiences: frozenset[str]
    leeway_s: float = 0.0
    owners: Mapping[str, str] | None = None
    person_claim: str = "sub"
    scopes: frozenset[str] = field(default_factory=frozenset)  # all there are; others mean nothing


def principal_of(claims: Claims, expected: Expected, now: datetime) -> Principal | None:
    """Who calls, or None for any doubt: issuer, audience, time, subject, actor, scopes."""
    if not (
        claims.get("iss") == expected.issuer
        and _is_for(claims.get("aud"), expected.audiences)
        and is_in_time(claims, now.timestamp(), expected.leeway_s)
    ):
        return None
    scopes = _scopes(claims)
    who = _own(claims) if expected.owners is None else _foreign(claims, expected)
    if scopes is None or who is None:
        return None
    return who.model_copy(
        update={
            "authenticated_by": f"token:{expected.issuer}",
            "scopes": scopes & expected.scopes if expected.scopes else scopes,
        }
    )


def _is_for(aud: object, audiences: frozenset[str]) -> bool:
    """Whether the token is for one of these; nothing but the exact address counts."""
    listed = [aud] if isinstance(aud, str) else aud
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        return False
    return not audiences.isdisjoint(listed)


def is_in_time(claims: Claims, now_s: float, leeway_s: float) -> bool:
    """Whether the token has begun and not ended; without an end it is never in time."""
    expires, begins = claims.get("exp"), claims.get("nbf")
    if not _is_moment(expires) or now_s >= expires + leeway_s:
        return False
    return begins is None or (_is_moment(begins) and now_s >= begins - leeway_s)


def _is_moment(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def _scopes(claims: Claims) -> frozenset[str] | None:
    """`scope` as OAuth has it, or `scp` as some issuers write it."""
    said = claims.get("scope")
    if said is None and isinstance(claims.get("scp"), str | list):
        listed = claims["scp"]
        said = " ".join(map(str, listed)) if isinstance(listed, list) else listed
    if not isinstance(said, str):
        return None
    words = said.split()
    return frozenset(words) if len(words) <= MAX_SCOPES else None


def _own(claims: Claims) -> Principal | None:
    """A caller as our own issuer names it."""
    actor = _actor(claims)
    subject, kind, owner = claims.get("sub"), claims.get("kind"), claims.get("owner")
    if actor is _WRONG or not _is_name(subject) or not (owner is None or _is_name(owner)):
        return None
    if kind not in [known.value for known in PrincipalKind]:
        return None
    return Principal(
        id=subject if actor is None else str(actor),
        kind=PrincipalKind(kind),
        authenticated_by="token",
        owner=owner,
        on_behalf_of=None if actor is None else subject,
    )


def _foreign(claims: Claims, expected: Expected) -> Principal | None:
    """A caller as another issuer names it: an agent, and the person it acts for."""
    actor = _actor(claims)
    if actor is _WRONG or not _is_name(claims.get("sub")):
        return None
    client = claims.get("client_id", claims.get("azp"))
    if actor is None and _is_name(client) and client != claims["sub"]:
        actor = client
    if actor is None:
        agent = _named("agent", claims["sub"])
        owner, person = (expected.owners or {}).get(agent), None
    else:
        said = claims.get(expected.person_claim)
        if not _is_name(said):
            return None
        agent, person = _named("agent", str(actor)), _named("person", str(said))
        owner = (expected.owners or {}).get(agent, person)
    if not (_is_name(agent) and (person is None or _is_name(person))):
        return None
    return Principal(
        id=agent,
        kind=PrincipalKind.AGENT,
        authenticated_by="token",
        owner=owner,
        on_behalf_of=person,
    )


_WRONG = object()


def _actor(claims: Claims) -> object:
    """The present actor; None where there is none, `_WRONG` where the claim is not usable.

    Earlier actors, nested in it, are told for information and decide nothing.
    """
    act = claims.get("act")
    if act is None:
        return None
    if not isinstance(act, dict) or not _is_name(act.get("sub")):
        return _WRONG
    if act.get("iss", claims.get("iss")) != claims.get("iss"):
        return _WRONG  # a name of another house may be anybody's here
    return act["sub"]


def _named(kind: str, name: str) -> str:
    return name if name.startswith(f"{kind}:") else f"{kind}:{name}"


def _is_name(claim: object) -> TypeGuard[str]:
    return isinstance(claim, str) and 0 < len(claim) <= NAME_MAX_CHARS and claim.isprintable()
