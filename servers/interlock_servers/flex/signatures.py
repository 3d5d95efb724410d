"""Who signed a payload: JWS of two algorithms, each key bound to one source."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from interlock_servers.flex.models import Reason, RejectedError
from interlock_servers.flex.settings import any_kid
from interlock_servers.flex.strict_json import JsonObject, parse_object
from interlock_tools.errors import InvalidRequestError

ALGORITHMS: Final = ("ES256", "RS256")
MIN_RSA_BITS: Final = 2048
P256_SIGNATURE_BYTES: Final = 64
P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")

SignatureKey = ECKey | RSAKey


class _Registry(jws.JWSRegistry):
    """Signers may add header members; a message as large as we take must still be read."""

    max_header_length = 4096
    max_payload_length = 262_144

    def __init__(self) -> None:
        super().__init__(algorithms=ALGORITHMS, strict_check_header=False)


class Keyring:
    """The public keys that we know, and which source each of them may sign for."""

    def __init__(
        self, keys: Mapping[str, SignatureKey], trusted: Mapping[str, Sequence[str]]
    ) -> None:
        """Keys by their `kid`; `trusted` says whose each kid is, whether its key is here or not."""
        self._keys = dict(keys)
        self._kids = dict(trusted)

    def verify(self, compact: str, source: str) -> JsonObject:
        """The payload that `source` signed.

        Raises:
            RejectedError: `BAD_JWS`, `ALGORITHM_REFUSED`, `NO_KID`, `UNTRUSTED_SOURCE`,
                `UNKNOWN_KEY`, `KEY_OF_ANOTHER_SOURCE`, `KEY_NOT_PUBLISHED` where it is the
                source's kid and only its key is not there, `BAD_SIGNATURE`, or what the payload
                lacks to be a JSON object.
        """
        header = _header(compact)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise RejectedError(
                Reason.ALGORITHM_REFUSED, f"alg {algorithm!r:.40} is not ES256 or RS256"
            )
        if not isinstance(kid, str) or not kid:
            raise RejectedError(Reason.NO_KID, "the JWS header names no kid")
        if source not in self._kids:
            raise RejectedError(Reason.UNTRUSTED_SOURCE, f"{source[:120]} is not a trusted source")
        key = self._keys.get(kid)
        if not any_kid(self._kids[source], kid):
            if key is None:
                raise RejectedError(Reason.UNKNOWN_KEY, f"no key {kid[:80]!r} in the JWKS")
            raise RejectedError(
                Reason.KEY_OF_ANOTHER_SOURCE, f"key {kid[:80]!r} may not sign for {source[:120]}"
            )
        if key is None:
            raise RejectedError(
                Reason.KEY_NOT_PUBLISHED, f"key {kid[:80]!r} of {source[:120]} is not in the JWKS"
            )
        if algorithm != algorithm_of(key):
            raise RejectedError(
                Reason.ALGORITHM_REFUSED, f"key {kid[:80]!r} signs {algorithm_of(key)} only"
            )
        try:
            signed = jws.deserialize_compact(compact, key, registry=_Registry())
        except (JoseError, ValueError) as error:
            raise RejectedError(Reason.BAD_SIGNATURE, "the signature does not fit") from error
        return parse_object(signed.payload, what="the signed payload")


def fingerprint(compact: str) -> bytes:
    """What tells one verified signature from another, however it is spelt.

    Base64 has spare bits and ECDSA a twin (r, n - s) for every (r, s): anyone can respell a
    signature and it still verifies.
    """
    signed, _, encoded = compact.rpartition(".")
    signature = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    if len(signature) == P256_SIGNATURE_BYTES:
        s = int.from_bytes(signature[32:])
        signature = signature[:32] + min(s, P256_ORDER - s).to_bytes(32)
    return hashlib.sha256(signed.encode() + b"." + signature).digest()


def algorithm_of(key: SignatureKey) -> str:
    """The one algorithm that a key is used with."""
    return "ES256" if isinstance(key, ECKey) else "RS256"


def _header(compact: str) -> JsonObject:
    if not _COMPACT.fullmatch(compact):
        raise RejectedError(Reason.BAD_JWS, "data is not a JWS compact string")
    encoded = compact.partition(".")[0]
    try:
        text = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except (binascii.Error, ValueError) as error:
        raise RejectedError(Reason.BAD_JWS, "the JWS header is not base64url") from error
    header = parse_object(text, what="the JWS header", syntax=Reason.BAD_JWS)
    if "crit" in header or "b64" in header:
        raise RejectedError(Reason.BAD_JWS, "the JWS header asks for extensions; none is known")
    return header


def check_strength(key: SignatureKey, kid: str) -> None:
    """Refuse a key that is too weak, or on a curve that the contract does not sign with.

    Raises:
        InvalidRequestError: it is.
    """
    if isinstance(key, ECKey):
        if key.curve_name != "P-256":
            raise InvalidRequestError(f"key {kid!r} is on {key.curve_name}; ES256 needs P-256")
    elif key.public_key.key_size < MIN_RSA_BITS:
        raise InvalidRequestError(f"key {kid!r} is shorter than {MIN_RSA_BITS} bits")
