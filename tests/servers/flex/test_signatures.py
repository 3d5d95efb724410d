"""Nobody sets a target who was not trusted with it, and nobody sets one twice."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from interlock_servers.flex.keys import public_keys
from interlock_servers.flex.models import Reason, RejectedError
from interlock_servers.flex.settings import FlexSettings
from interlock_servers.flex.signatures import (
    P256_ORDER,
    Keyring,
    fingerprint,
)
from interlock_servers.flex.twin import TwinKey, jwks, make_key
from interlock_servers.flex.twin_wire import forge, sign
from interlock_tools.errors import InvalidRequestError
from tests.servers.flex.conftest import AGENT, ISV, OTHER_ISV, MakeSettings

PAYLOAD = b'{"targets": []}'
Spoil = Callable[[TwinKey, TwinKey], str]


@pytest.fixture(scope="session")
def rsa_key() -> TwinKey:
    """The other algorithm of the contract."""
    return make_key("rsa-1", "RS256")


@pytest.fixture
def keyring(isv_key: TwinKey, other_key: TwinKey, rsa_key: TwinKey) -> Keyring:
    """Two ISVs and an agent that signs with RSA."""
    published = json.dumps(jwks((isv_key, other_key, rsa_key))).encode()
    trusted = {ISV: [isv_key.kid], OTHER_ISV: [other_key.kid], AGENT: [rsa_key.kid]}
    return Keyring(public_keys(published, "of a test"), trusted)


def test_both_algorithms_of_the_contract_are_verified(
    keyring: Keyring, isv_key: TwinKey, rsa_key: TwinKey
) -> None:
    """ES256 and RS256."""
    assert keyring.verify(sign(PAYLOAD, isv_key), ISV) == {"targets": []}
    assert keyring.verify(sign(PAYLOAD, rsa_key), AGENT) == {"targets": []}


SPOILT: dict[str, tuple[Spoil, Reason]] = {
    "no algorithm": (
        lambda key, _: forge(PAYLOAD, {"alg": "none", "kid": key.kid}),
        Reason.ALGORITHM_REFUSED,
    ),
    "no algorithm, shouted": (
        lambda key, _: forge(PAYLOAD, {"alg": "NONE", "kid": key.kid}),
        Reason.ALGORITHM_REFUSED,
    ),
    "public key as a shared secret": (
        lambda key, _: forge(
            PAYLOAD, {"alg": "HS256", "kid": key.kid}, key.key.as_pem(private=False)
        ),
        Reason.ALGORITHM_REFUSED,
    ),
    "an algorithm of another kind of key": (
        lambda key, _: forge(PAYLOAD, {"alg": "RS256", "kid": key.kid}, b"x"),
        Reason.ALGORITHM_REFUSED,
    ),
    "no signature": (
        lambda key, _: forge(PAYLOAD, {"alg": "ES256", "kid": key.kid}),
        Reason.BAD_SIGNATURE,
    ),
    "a signature of the wrong length": (
        lambda key, _: forge(PAYLOAD, {"alg": "ES256", "kid": key.kid}, b"x"),
        Reason.BAD_SIGNATURE,
    ),
    "another key under the kid": (
        lambda key, _: sign(PAYLOAD, make_key(key.kid)),
        Reason.BAD_SIGNATURE,
    ),
    "another source's key under the kid": (
        lambda key, other: sign(PAYLOAD, other, kid=key.kid),
        Reason.BAD_SIGNATURE,
    ),
    "another source's key": (lambda _, other: sign(PAYLOAD, other), Reason.KEY_OF_ANOTHER_SOURCE),
    "an unknown kid": (lambda key, _: sign(PAYLOAD, key, kid="nobody"), Reason.UNKNOWN_KEY),
    "no kid": (lambda _, __: forge(PAYLOAD, {"alg": "ES256"}, b"x"), Reason.NO_KID),
    "a kid that is no text": (
        lambda _, __: forge(PAYLOAD, {"alg": "ES256", "kid": 7}, b"x"),
        Reason.NO_KID,
    ),
    "an extension": (
        lambda key, _: forge(
            PAYLOAD, {"alg": "ES256", "kid": key.kid, "crit": ["b64"], "b64": False}, b"x"
        ),
        Reason.BAD_JWS,
    ),
    "no jws": (lambda _, __: "not a jws", Reason.BAD_JWS),
    "two parts": (lambda _, __: "e30.e30", Reason.BAD_JWS),
    "a header that is no JSON": (lambda _, __: "AAAA.e30.AAAA", Reason.BAD_JWS),
    "a header of a length that base64 has not": (lambda _, __: "AAAAA.e30.AAAA", Reason.BAD_JWS),
    "a payload that is a list": (lambda key, _: sign(b"[]", key), Reason.NOT_AN_OBJECT),
    "a payload that is no JSON": (lambda key, _: sign(b"{", key), Reason.NOT_JSON),
}


@pytest.mark.parametrize(("spoil", "reason"), SPOILT.values(), ids=SPOILT)
def test_a_signature_that_proves_nothing_is_refused_by_name(
    keyring: Keyring, isv_key: TwinKey, other_key: TwinKey, spoil: Spoil, reason: Reason
) -> None:
    """Among them no algorithm, and the public key used as a shared secret."""
    with pytest.raises(RejectedError) as caught:
        keyring.verify(spoil(isv_key, other_key), ISV)
    assert caught.value.reason is reason


def test_a_payload_changed_after_signing_is_refused(keyring: Keyring, isv_key: TwinKey) -> None:
    """One byte is enough."""
    header, _, signature = sign(PAYLOAD, isv_key).split(".")
    other = base64.urlsafe_b64encode(b'{"targets": [1]}').rstrip(b"=").decode()
    with pytest.raises(RejectedError) as caught:
        keyring.verify(f"{header}.{other}.{signature}", ISV)
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_a_source_that_nobody_listed_is_refused(keyring: Keyring, isv_key: TwinKey) -> None:
    """Whatever key it uses."""
    with pytest.raises(RejectedError) as caught:
        keyring.verify(sign(PAYLOAD, isv_key), "//grid/v1/isv/stranger")
    assert caught.value.reason is Reason.UNTRUSTED_SOURCE


@pytest.mark.trap("FX-R02")
def test_one_key_stands_for_one_source(settings: MakeSettings, isv_key: TwinKey) -> None:
    """Else a key's holder could speak as another."""
    good = settings("mqtt://127.0.0.1:1883").model_dump()
    with pytest.raises(ValueError, match="one key, one source"):
        FlexSettings.model_validate(
            good | {"trusted": {ISV: (isv_key.kid,), OTHER_ISV: (isv_key.kid,)}}
        )


def test_keys_that_are_not_fit_to_verify_with_are_refused_with_all_others(
    isv_key: TwinKey,
) -> None:
    """A shared secret, a private key, a weak curve, a key without a name, a key twice."""
    public = isv_key.public_jwk()
    for keys in (
        [{"kty": "oct", "k": "c2VjcmV0", "kid": "s"}],
        [isv_key.key.as_dict(private=True) | {"kid": "p"}],
        [public | {"crv": "secp256k1"}],
        [{name: public[name] for name in public if name != "kid"}],
        [public, public],
        [public | {"use": "enc"}],
        [public | {"alg": "ES384"}],
        ["key"],
    ):
        with pytest.raises(InvalidRequestError):
            public_keys(json.dumps({"keys": keys}).encode(), "of a test")
    for nonsense in (b"", b"[]", b"{}", b'{"keys": 3}', b"[" * 100_000):
        with pytest.raises(InvalidRequestError, match="cannot be read"):
            public_keys(nonsense, "of a test")


def test_a_respelt_signature_verifies_and_is_still_the_same(
    keyring: Keyring, isv_key: TwinKey
) -> None:
    """For every ECDSA signature anyone can compute a second one."""
    compact = sign(PAYLOAD, isv_key)
    assert respelt(compact) != compact
    assert keyring.verify(respelt(compact), ISV) == {"targets": []}
    assert fingerprint(respelt(compact)) == fingerprint(compact)


def respelt(compact: str) -> str:
    """The same ECDSA signature as (r, n - s)."""
    signed, _, encoded = compact.rpartition(".")
    raw = base64.urlsafe_b64decode(encoded + "==")
    twin = raw[:32] + (P256_ORDER - int.from_bytes(raw[32:])).to_bytes(32)
    return f"{signed}.{base64.urlsafe_b64encode(twin).rstrip(b'=').decode()}"


def test_settings_name_sources_and_feeds_that_can_be(
    settings: MakeSettings,
) -> None:
    """A source is written as it stands on the wire."""
    good = settings("mqtt://127.0.0.1:1883").model_dump()
    wrongs: list[dict[str, Any]] = [
        {"trusted": {"acme-energy": ("acme-1",)}},
        {"trusted": {ISV: ()}},
        {"trusted": {}},
        {"feeds": ("main-a", "main-a")},
        {"feeds": ()},
        {"replay_window_s": 0.0},
        {"cpc_id": "a/b"},
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="validation error"):
            FlexSettings.model_validate(good | wrong)
