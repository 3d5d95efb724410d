"""The public keys of those whom we believe, from a file or an address, as they are now.

Whose key a `kid` is stays in our settings: whoever publishes keys cannot make one speak as another.
"""

import json
import logging
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import anyio
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from interlock_servers.flex.models import Reason, RejectedError
from interlock_servers.flex.settings import FlexSettings, any_kid
from interlock_servers.flex.signatures import (
    ALGORITHMS,
    Keyring,
    SignatureKey,
    algorithm_of,
    check_strength,
)
from interlock_servers.flex.strict_json import JsonObject
from interlock_servers.transports.rest import RestClient
from interlock_tools.clock import Clock
from interlock_tools.errors import ComponentError, FactoryError, InvalidRequestError

MAX_BYTES: Final = 262_144
FETCH_TIMEOUT_S: Final = 5.0

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=(\d{1,9})(?:$|[\s,])")

log = logging.getLogger(__name__)


class KeySource:
    """Keys that are looked at again before they are old, and when a new one is needed.

    A document that cannot be had, or that is not fit, changes nothing: what was known is believed
    for `jwks_kept_s` after it was last confirmed, and then nothing is. Safe between threads, but
    for `look_if_due`, which is for the event loop.
    """

    def __init__(self, settings: FlexSettings, clock: Clock) -> None:
        """Bind kids to sources, and read the keys where they are in a file.

        Raises:
            InvalidRequestError: the file cannot be read, holds a key that is not fit, or none for
                one of the sources.
        """
        self._settings = settings
        self._clock = clock
        self._ring = Keyring({}, settings.trusted)
        self._learnt_at: datetime | None = None
        self._looked_at: datetime | None = None
        self._due_at: datetime | None = None
        self._wanted = False
        self._failure = "they were not asked for yet"
        if settings.jwks_file is not None:
            try:
                document = settings.jwks_file.read_bytes()
            except OSError as error:
                raise InvalidRequestError(
                    f"the JWKS {settings.jwks_file} cannot be read: {error}"
                ) from error
            keys = public_keys(document, str(settings.jwks_file))
            self._all_have_one(keys)
            self._learn(keys, None)

    def verify(self, compact: str, source: str) -> JsonObject:
        """The payload that `source` signed; an unknown kid that is bound to it makes us look.

        Raises:
            RejectedError: as `Keyring.verify` does; `KEYS_UNKNOWN`, none is known, or none of late.
        """
        if (why := self.why_not()) is not None:
            raise RejectedError(Reason.KEYS_UNKNOWN, why)
        try:
            return self._ring.verify(compact, source)
        except RejectedError as error:
            if error.reason is Reason.KEY_NOT_PUBLISHED:
                self._wanted = True
            raise

    def why_not(self) -> str | None:
        """Why nothing can be verified now; None while it can."""
        learnt = self._learnt_at
        if learnt is None:
            return f"the signers' keys are not known: {self._failure}"
        age_s = (self._clock.now() - learnt).total_seconds()
        if age_s > self._settings.jwks_kept_s:
            return f"the signers' keys were last confirmed {age_s:.0f} s ago: {self._failure}"
        return None

    @property
    def learnt_at(self) -> datetime | None:
        """When the keys were last confirmed."""
        return self._learnt_at

    async def look_if_due(self) -> bool:
        """Look where it is time to, or a key is missed; whether we looked.

        A missed key makes us look at most once in `jwks_look_again_s`, however often it is named.
        """
        now = self._clock.now()
        if not (self._due(now) or (self._wanted and self._may_look(now))):
            return False
        self._wanted, self._looked_at = False, now
        try:
            document, good_for_s = await self._fetch()
            keys = public_keys(document, self._where)
        except (FactoryError, OSError) as error:
            self._failure = str(error)
            self._due_at = now + timedelta(seconds=self._settings.jwks_look_again_s)
            log.warning("the signers' keys could not be learnt", extra={"why": self._failure})
            return True
        self._learn(keys, good_for_s)
        return True

    @property
    def _where(self) -> str:
        return self._settings.jwks_url or str(self._settings.jwks_file)

    def _due(self, now: datetime) -> bool:
        return self._due_at is None or now >= self._due_at

    def _may_look(self, now: datetime) -> bool:
        least = timedelta(seconds=self._settings.jwks_look_again_s)
        return self._looked_at is None or now - self._looked_at >= least

    def _learn(self, keys: Mapping[str, SignatureKey], good_for_s: float | None) -> None:
        settings, now = self._settings, self._clock.now()
        self._ring = Keyring(keys, settings.trusted)
        self._learnt_at = now
        wait_s = settings.jwks_refresh_s
        if good_for_s is not None:
            wait_s = min(wait_s, max(good_for_s, settings.jwks_look_again_s))
        self._due_at = now + timedelta(seconds=wait_s)

    def _all_have_one(self, keys: Mapping[str, SignatureKey]) -> None:
        for source, kids in self._settings.trusted.items():
            if not any(any_kid(kids, kid) for kid in keys):
                raise InvalidRequestError(
                    f"{source} names key {', '.join(kids)!r}, which the JWKS {self._where} lacks"
                )

    async def _fetch(self) -> tuple[bytes, float | None]:
        settings = self._settings
        if settings.jwks_file is not None:
            return await anyio.Path(settings.jwks_file).read_bytes(), None
        client = RestClient(
            settings.jwks_url or "",
            component="flex",
            ca_file=settings.jwks_ca_file,
            timeout_s=FETCH_TIMEOUT_S,
            max_bytes=MAX_BYTES,
        )
        async with client:
            answer = await client.ask("GET")
        if answer.status != 200:
            raise ComponentError("flex", str(answer.status), f"{self._where} gives no keys")
        stated = _MAX_AGE.search(answer.headers.get("cache-control", ""))
        return answer.body, None if stated is None else float(stated[1])


def public_keys(document: bytes, where: str) -> dict[str, SignatureKey]:
    """The keys of a JWKS document by `kid`; `where` is what errors call it.

    Raises:
        InvalidRequestError: it is no JWKS, or a key in it is not fit to verify with.
    """
    if len(document) > MAX_BYTES:
        raise InvalidRequestError(f"the JWKS {where} is larger than {MAX_BYTES} bytes")
    try:
        entries = list(json.loads(document)["keys"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidRequestError(f"the JWKS {where} cannot be read: {error}") from error
    keys: dict[str, SignatureKey] = {}
    for entry in entries:
        kid, key = _public_key(entry, where)
        if kid in keys:
            raise InvalidRequestError(f"the JWKS {where} holds key {kid!r} twice")
        keys[kid] = key
    return keys


def _public_key(entry: object, where: str) -> tuple[str, SignatureKey]:
    kid = entry.get("kid") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(kid, str) or not kid:
        raise InvalidRequestError(f"every key of the JWKS {where} must have a kid")
    try:
        key = _imported(entry)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise InvalidRequestError(
            f"key {kid!r} of the JWKS {where} cannot be used: {type(error).__name__}"
        ) from None
    if key.is_private:
        raise InvalidRequestError(f"key {kid!r} of the JWKS {where} is private; publish less")
    if entry.get("use", "sig") != "sig" or entry.get("alg", algorithm_of(key)) != algorithm_of(key):
        raise InvalidRequestError(f"key {kid!r} of the JWKS {where} is not for {ALGORITHMS}")
    check_strength(key, kid)
    return kid, key


def _imported(entry: Mapping[str, Any]) -> SignatureKey:
    plain = {name: entry[name] for name in entry if name not in {"use", "key_ops", "alg"}}
    if entry.get("kty") == "EC":
        return ECKey.import_key(plain)
    if entry.get("kty") == "RSA":
        return RSAKey.import_key(plain)
    raise ValueError("kty is not EC or RSA")
