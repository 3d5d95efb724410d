"""What both twins put on the wire: keys, signatures and envelopes, as raw JSON.

It shares nothing with the reading side, so that a contract misread there is not misread here too.
"""

import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

Json = dict[str, Any]


class TwinKey(NamedTuple):
    """A key pair and the `kid` under which its public half is published."""

    kid: str
    key: ECKey | RSAKey
    algorithm: str

    def public_jwk(self) -> Json:
        """The public half as a JWK."""
        return {**self.key.as_dict(private=False), "kid": self.kid, "use": "sig"}


def make_key(kid: str, algorithm: Literal["ES256", "RS256"] = "ES256") -> TwinKey:
    """A fresh key pair."""
    if algorithm == "ES256":
        return TwinKey(kid, ECKey.generate_key("P-256"), algorithm)
    return TwinKey(kid, RSAKey.generate_key(2048), algorithm)


def jwks(keys: Iterable[TwinKey]) -> Json:
    """The public halves as a JWKS."""
    return {"keys": [key.public_jwk() for key in keys]}


def write_jwks(path: Path, keys: Iterable[TwinKey]) -> Path:
    """Write the public halves to a file and give its path."""
    path.write_text(json.dumps(jwks(keys)))
    return path


def sign(payload: bytes, key: TwinKey, *, kid: str | None = None) -> str:
    """The payload as a JWS compact string, under another `kid` where one is given."""
    header = {"alg": key.algorithm, "kid": kid or key.kid}
    return jws.serialize_compact(header, payload, key.key, algorithms=[key.algorithm])


def forge(payload: bytes, header: Mapping[str, Any], secret: bytes | None = None) -> str:
    """A JWS that the library would not make: any header; an HMAC by `secret`, or no signature."""
    signed = f"{_encoded(json.dumps(header).encode())}.{_encoded(payload)}"
    if secret is None:
        return f"{signed}."
    return f"{signed}.{_encoded(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def verified(compact: str, keys: Mapping[str, ECKey | RSAKey]) -> Json | None:
    """The payload, where one of `keys` signed it, else None."""
    try:
        encoded = compact.split(".")[0]
        header = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        answer = jws.deserialize_compact(
            compact, keys[header["kid"]], algorithms=["ES256", "RS256"]
        )
        payload = json.loads(answer.payload)
    except Exception:  # a stranger's text can fail in many ways, and every one means no
        return None
    return payload if isinstance(payload, dict) else None


def public_keys(published: Mapping[str, Any]) -> dict[str, ECKey | RSAKey]:
    """The keys of a JWKS by their `kid`."""
    kinds: dict[str, type[ECKey] | type[RSAKey]] = {"EC": ECKey, "RSA": RSAKey}
    return {entry["kid"]: kinds[entry["kty"]].import_key(entry) for entry in published["keys"]}


def event(
    kind: str, source: str, subject: str, sent_at: datetime, data: Any, correlation_id: str | None
) -> Json:
    """A CloudEvents envelope of the specification's own version."""
    envelope = {
        "specversion": "1.0.2",
        "id": str(uuid.uuid4()),
        "source": source,
        "type": kind,
        "time": iso(sent_at),
        "datacontenttype": "application/json",
        "subject": subject,
        "traceparent": f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01",
        "data": data,
    }
    if correlation_id is not None:
        envelope["correlationid"] = correlation_id
    return envelope


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC, with the Z that the exemplars use."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def power(power_w: float, unit: str = "kilowatt") -> Json:
    """Watts as the wire's value and unit."""
    return {"value": power_w / WATTS_PER[unit], "unit": unit}


WATTS_PER = {"watt": 1, "kilowatt": 1_000, "megawatt": 1_000_000}


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
