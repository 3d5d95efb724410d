"""The public keys that tokens are verified with: of our own issuer, from a file or from an address.

An unknown key id makes us look again, at most once a minute, so that nobody's tokens make us ask
an identity provider without end. Where it does not answer, the keys that were known stay.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import anyio
import httpx2
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from interlock_tools.clock import Clock

LOOK_AGAIN_S = 60.0  # between two looks, whatever is asked for
OLD_AFTER_S = 3600.0  # a key that was taken back is no longer ours after this
FETCH_WITHIN_S = 5.0
MAX_BYTES = 256 * 1024
LEAST_RSA_BITS = 2048
log = logging.getLogger(__name__)

PublicKey = ECKey | RSAKey | OKPKey
_KINDS: Mapping[str, type[ECKey] | type[RSAKey] | type[OKPKey]] = {
    "EC": ECKey,
    "RSA": RSAKey,
    "OKP": OKPKey,
}


class Keys(Protocol):
    """Public keys by their id."""

    generation: int  # another number: a key that was there may be gone

    async def key(self, kid: str) -> PublicKey | None:
        """The key of this id, or None where there is none that we know of."""
        ...


class FixedKeys:
    """Keys that do not change while the process lives."""

    generation = 0

    def __init__(self, keys: KeySet) -> None:
        self._keys = {str(key.kid): key for key in keys if isinstance(key, PublicKey)}

    async def key(self, kid: str) -> PublicKey | None:
        """The key of this id."""
        return self._keys.get(kid)


class FetchedKeys:
    """Keys that somebody else publishes; `fetch` gives their JWKS document."""

    def __init__(self, fetch: Callable[[], Awaitable[bytes]], clock: Clock) -> None:
        self.generation = 0
        self._fetch = fetch
        self._clock = clock
        self._keys: Mapping[str, PublicKey] = {}
        self._looked_at: datetime | None = None
        self._learnt_at: datetime | None = None
        self._looking = anyio.Lock()

    async def key(self, kid: str) -> PublicKey | None:
        """The key of this id; looked for again where it is unknown or what we know is old."""
        found = self._keys.get(kid)
        if found is not None and (self._looking.locked() or not self._older(OLD_AFTER_S)):
            return found
        async with self._looking:
            if self._keys.get(kid) is None or self._older(OLD_AFTER_S):
                await self._look()
        return self._keys.get(kid)

    def _older(self, seconds: float) -> bool:
        learnt = self._learnt_at
        return learnt is None or self._clock.now() - learnt >= timedelta(seconds=seconds)

    async def _look(self) -> None:
        now = self._clock.now()
        if self._looked_at is not None and now - self._looked_at < timedelta(seconds=LOOK_AGAIN_S):
            return
        self._looked_at = now
        try:
            with anyio.fail_after(FETCH_WITHIN_S):
                keys = public_keys(await self._fetch())
        except (OSError, ValueError, TimeoutError, httpx2.HTTPError) as error:
            log.warning(
                "the keys of the token issuer could not be learnt; those known stay",
                extra={"known": len(self._keys), "why": type(error).__name__},
            )
            return
        if any(self._keys[kid] != keys.get(kid) for kid in self._keys):
            self.generation += 1
        self._keys, self._learnt_at = keys, now


def keys_at(url: str, clock: Clock) -> FetchedKeys:
    """The keys that are published at this address; redirects are not followed."""

    async def fetch() -> bytes:
        async with (
            httpx2.AsyncClient(timeout=FETCH_WITHIN_S, follow_redirects=False) as http,
            http.stream("GET", url, headers={"Accept": "application/json"}) as answer,
        ):
            if answer.status_code != 200:
                raise ValueError(f"HTTP status {answer.status_code}")
            document = bytearray()
            async for chunk in answer.aiter_bytes():
                document += chunk
                if len(document) > MAX_BYTES:
                    raise ValueError("the key set is too large")
            return bytes(document)

    return FetchedKeys(fetch, clock)


def keys_in(path: Path, clock: Clock) -> FetchedKeys:
    """The keys in this file, which may be written anew while we run."""

    async def fetch() -> bytes:
        return await anyio.Path(path).read_bytes()

    return FetchedKeys(fetch, clock)


def public_keys(document: bytes) -> dict[str, PublicKey]:
    """The signature keys in a JWKS document, by id; what is no such key is left out.

    A shared secret is none, a key for encryption is none, a short RSA key is none, and of two keys
    with one id neither is.

    Raises:
        ValueError: it is no JWKS document, or holds no key that could be used.
    """
    try:
        listed = json.loads(document)["keys"]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("this is no key set") from error
    found: dict[str, PublicKey] = {}
    twice: set[str] = set()
    for entry in listed if isinstance(listed, list) else []:
        key = _public_key(entry)
        if key is None:
            continue
        kid = str(entry["kid"])
        if kid in found:
            twice.add(kid)
        found[kid] = key
    usable = {kid: key for kid, key in found.items() if kid not in twice}
    if not usable:
        raise ValueError("there is no usable key in it")
    return usable


def _public_key(entry: Any) -> PublicKey | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
        return None
    kind = _KINDS.get(entry["kty"]) if isinstance(entry.get("kty"), str) else None
    if kind is None or entry.get("use", "sig") != "sig":
        return None
    if kind is RSAKey and len(str(entry.get("n"))) * 6 < LEAST_RSA_BITS:
        return None  # base64: six bits a character
    private = {"d", "p", "q", "dp", "dq", "qi", "oth"}
    try:
        return kind.import_key({name: part for name, part in entry.items() if name not in private})
    except (JoseError, ValueError, TypeError, KeyError):
        return None
