"""Signatures as a signer and a forger make them, by another library than the one that verifies."""

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256, SEC 2
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Key:
    """A key pair and its name."""

    def __init__(self, kid: str, secret: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
        self.kid = kid
        self._secret = secret
        self.algorithm = "ES256" if isinstance(secret, ec.EllipticCurvePrivateKey) else "RS256"

    @classmethod
    def on_p256(cls, kid: str, number: int) -> "Key":
        """The key with this secret number."""
        return cls(kid, ec.derive_private_key(number % (ORDER - 1) + 1, ec.SECP256R1()))

    @classmethod
    def rsa(cls, kid: str) -> "Key":
        """A fresh one of RSA, which no number gives."""
        return cls(kid, rsa.generate_private_key(65537, 2048))

    @property
    def public_jwk(self) -> dict[str, str]:
        """The public half."""
        if isinstance(self._secret, ec.EllipticCurvePrivateKey):
            point = self._secret.public_key().public_numbers()
            x, y = (_base64(number.to_bytes(32)) for number in (point.x, point.y))
            return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.kid}
        numbers = self._secret.public_key().public_numbers()
        n, e = (_base64(k.to_bytes((k.bit_length() + 7) // 8)) for k in (numbers.n, numbers.e))
        return {"kty": "RSA", "n": n, "e": e, "kid": self.kid}

    def signature(self, signed: bytes) -> bytes:
        """Over these bytes, as JWS has it."""
        if isinstance(self._secret, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self._secret.sign(signed, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32) + s.to_bytes(32)
        return self._secret.sign(signed, padding.PKCS1v15(), hashes.SHA256())


def compact(payload: bytes, key: Key, **header: Any) -> str:
    """A JWS; `header` says otherwise than the key has it, and None leaves a member out."""
    members = {"alg": key.algorithm, "kid": key.kid} | header
    return _signed({k: v for k, v in members.items() if v is not None}, payload, key.signature)


def unsigned(payload: bytes, kid: str, algorithm: str = "none") -> str:
    """A JWS that says it needs no signature."""
    return _signed({"alg": algorithm, "kid": kid}, payload, lambda _: b"")


def by_hmac(payload: bytes, kid: str, secret: bytes) -> str:
    """A JWS under a secret that everybody knows, such as a public key."""
    return _signed(
        {"alg": "HS256", "kid": kid},
        payload,
        lambda signed: hmac.new(secret, signed, hashlib.sha256).digest(),
    )


def twin(jws: str) -> str:
    """The other signature (r, n - s) that fits where this one does."""
    signed, _, encoded = jws.rpartition(".")
    raw = base64.urlsafe_b64decode(encoded + "==")
    s = ORDER - int.from_bytes(raw[32:])
    return f"{signed}.{_base64(raw[:32] + s.to_bytes(32))}"


def respelt(jws: str) -> str:
    """The same signature with other spare bits: 64 bytes leave four of them in the last letter."""
    return jws[:-1] + _ALPHABET[_ALPHABET.index(jws[-1]) ^ 1]


def tampered(jws: str, payload: bytes) -> str:
    """Another payload under the same signature."""
    header, _, signature = jws.split(".")
    return f"{header}.{_base64(payload)}.{signature}"


def _signed(header: dict[str, Any], payload: bytes, sign: Any) -> str:
    first = f"{_base64(json.dumps(header).encode())}.{_base64(payload)}"
    return f"{first}.{_base64(sign(first.encode()))}"


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
