"""What has the shape of a secret is masked wherever it stands; what has not stays evidence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock_guardrails.ledger.records import encode
from interlock_guardrails.ledger.redaction import MASK, masked, redact
from interlock_guardrails.ledger.signing import Signer

# None was ever valid; they are put together so that no scanner takes them for one.
BODY = "A1b2C3d4E5f6G7h8J9k0" * 2
SECRETS = {
    "jwt": "eyJhbGciOiJFZERTQSJ9." + "eyJzdWIiOiJhIn0." + BODY,
    "bearer": BODY,
    "pem": "-----BEGIN " + "PRIVATE KEY-----\nMC4CAQ\n-----END " + "PRIVATE KEY-----",
    "pem_cut": "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE",
    "aws": "AKIA" + "ABCDEFGHIJKLMNOP",
    "ngc": "nvapi-" + BODY,
    "model": "sk-ant-" + BODY,
    "github": "ghp_" + BODY,
    "slack": "xoxb-" + BODY,
}


def text_with(name: str) -> str:
    """A line of a log that holds the secret."""
    before = "Authorization: Bearer " if name == "bearer" else "sent "
    return f"{before}{SECRETS[name]} to the host"


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_in_a_text_is_masked_and_the_rest_stays(name: str) -> None:
    """Log lines and error texts of components end up in reasons and evidence."""
    told = masked(text_with(name))
    assert SECRETS[name].splitlines()[-1][:12] not in told.replace("the host", "")
    assert MASK in told
    assert told.startswith(("sent ", "Authorization: Bearer "))


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("before", ["", "\n", "\t", '"', "\\", "=", "ü "])
def test_the_short_way_misses_no_secret(name: str, before: str) -> None:
    """It looks at JSON, where letters before a secret may be written differently."""
    secret = before + text_with(name).removeprefix("sent ")
    encoded = encode({"evidence": [{"line": secret}], secret: 1})
    assert SECRETS[name].splitlines()[0][-12:] not in encoded.decode()
    assert json.loads(encoded) == redact({"evidence": [{"line": secret}], secret: 1})


def test_a_password_in_an_address_is_masked_and_the_address_stays() -> None:
    """Which host it was is evidence."""
    told = masked("cannot reach mqtts://user:hunter2hunter2@bus.example:8883/x")
    assert told == f"cannot reach mqtts://{MASK}@bus.example:8883/x"


@pytest.mark.parametrize(
    "text",
    [
        "https://bus.example:8883/a@b",
        "task-17 on disk-0 of risk-3",
        "Bearer of bad news",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----",
        "ASIA-PACIFIC region",
        "eyJ",
        "sha256:" + "5f" * 32,
        "chg-0123456789ab",
    ],
)
def test_what_only_resembles_a_secret_stays(text: str) -> None:
    """A mask over evidence is a loss, too."""
    assert masked(text) == text


def test_what_we_sign_with_in_public_stays() -> None:
    """Public keys, signatures and digests are what a verifier needs."""
    signer = Signer.generate("example.com/ledger")
    for text in (signer.vkey, signer.sign_note("a\n")):
        assert masked(text) == text


@given(st.text(max_size=60))
def test_masking_twice_changes_nothing_more(text: str) -> None:
    """A record that is written again, as in an export, has the same bytes."""
    assert masked(masked(text)) == masked(text)
