"""Checkpoints are C2SP signed notes that other implementations read, and keys stay private."""

import base64
import hashlib
import itertools
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.sinks import FileSink
from interlock_guardrails.ledger.verify import (
    BadNoteError,
    open_note,
    parse_checkpoint,
    parse_key,
    read_checkpoints,
)
from interlock_tools.errors import InvalidRequestError

# The example key and note of Go's golang.org/x/mod/sumdb/note, where the format comes from.
GO_NAME = "PeterNeumann"
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_SIGNATURE = (
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdng"
    "otpRZb6KE6RyyBwJnAM=\n"
)
GO_NOTE = f"{GO_TEXT}\n{GO_SIGNATURE}"


def test_a_note_comes_out_as_the_reference_implementation_signs_it() -> None:
    """Ed25519 is deterministic: the bytes must be the same."""
    signer = Signer(GO_NAME, Ed25519PrivateKey.from_private_bytes(GO_SEED))
    assert signer.vkey == GO_VKEY
    assert signer.sign_note(GO_TEXT) == GO_NOTE
    assert open_note(GO_NOTE, [parse_key(GO_VKEY)]) == GO_TEXT


def test_the_key_id_is_the_one_of_the_specification(signer: Signer) -> None:
    """First four bytes of SHA-256 over name, newline, 0x01 and the public key."""
    name, stated, encoded = signer.vkey.split("+", 2)
    hashed = hashlib.sha256(name.encode() + b"\n" + base64.b64decode(encoded)).digest()[:4]
    assert stated == hashed.hex()
    signature = signer.sign_note("a\n").split(" ")[-1]
    assert base64.b64decode(signature)[:4] == hashed


def test_a_checkpoint_says_origin_size_and_root(signer: Signer) -> None:
    """The three lines of C2SP tlog-checkpoint."""
    note = signer.sign_checkpoint("example.com/ledger", 256, b"r" * 32)
    text = open_note(note, [parse_key(signer.vkey)])
    assert text.split("\n") == [
        "example.com/ledger",
        "256",
        base64.b64encode(b"r" * 32).decode(),
        "",
    ]
    assert parse_checkpoint(text) == ("example.com/ledger", 256, b"r" * 32)


def test_signatures_of_witnesses_are_passed_over(signer: Signer) -> None:
    """A note may carry signatures that we know nothing about; ours must still be there."""
    note = signer.sign_note("a\n")
    cosigned = note + Signer.generate("witness.example").sign_note("a\n").split("\n\n")[1]
    assert open_note(cosigned, [parse_key(signer.vkey)]) == "a\n"
    with pytest.raises(BadNoteError, match="no key that we were given"):
        open_note(cosigned, [parse_key(Signer.generate(signer.name).vkey)])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("answer", "cause"),
        ("\n\n", "\n"),
        ("\u2014", "-"),
        ("problem is", "problem\tis"),
        ("your", "\ud800"),
        ("=\n", "="),
        ("AM=", "AM!"),
        ("AM=", "AN="),
        (GO_NOTE, ""),
        (GO_SIGNATURE, GO_SIGNATURE * 65),
    ],
    ids=itertools.count(),
)
def test_an_altered_note_is_refused(old: str, new: str) -> None:
    """The text, the layout, the signature: each byte counts."""
    assert old in GO_NOTE
    with pytest.raises(BadNoteError):
        open_note(GO_NOTE.replace(old, new), [parse_key(GO_VKEY)])


@pytest.mark.parametrize(
    "key",
    [
        "",
        "PeterNeumann",
        GO_VKEY.replace("c74f20a3", "c74f20a4"),
        GO_VKEY.replace("PeterNeumann", "Peter"),
        GO_VKEY.replace("+ARpc", "+Ahpc"),
        GO_VKEY[:-4],
    ],
)
def test_a_malformed_key_is_refused(key: str) -> None:
    """A typing error in a key must not read as a log that does not verify."""
    with pytest.raises(BadNoteError):
        parse_key(key)


@pytest.mark.parametrize(
    "text",
    [
        "o\n1\n",
        "o\n01\n" + "A" * 43 + "=\n",
        "o\n-1\n" + "A" * 43 + "=\n",
        "o\n1\nAAAA\n",
        "\n1\n" + "A" * 43 + "=\n",
        "o\n1\n" + "A" * 43 + "=",
    ],
)
def test_a_malformed_checkpoint_is_refused(text: str) -> None:
    """Signed or not."""
    with pytest.raises(BadNoteError):
        parse_checkpoint(text)


def test_a_key_is_kept_where_only_its_owner_reads_it(signer: Signer, tmp_path: Path) -> None:
    """It comes back as it was, and is never overwritten."""
    path = tmp_path / "key.pem"
    signer.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Signer.load(signer.name, path).vkey == signer.vkey
    with pytest.raises(FileExistsError):
        signer.save(path)


def test_a_key_that_others_may_read_is_refused(signer: Signer, tmp_path: Path) -> None:
    """Whoever reads it can rewrite the log unseen."""
    path = tmp_path / "key.pem"
    signer.save(path)
    path.chmod(0o640)
    with pytest.raises(InvalidRequestError, match="others may read"):
        Signer.load(signer.name, path)


def test_what_is_no_ed25519_key_is_refused(tmp_path: Path) -> None:
    """Neither another algorithm nor another file."""
    other = tmp_path / "other.pem"
    other.touch(0o600)
    with pytest.raises(InvalidRequestError, match="no plain PEM"):
        Signer.load("name", other)
    key = generate_private_key(SECP256R1())
    other.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(InvalidRequestError, match="not Ed25519"):
        Signer.load("name", other)


@pytest.mark.parametrize("name", ["", "two words", "a+b", "a\nb"])
def test_a_name_that_the_format_cannot_hold_is_refused(name: str) -> None:
    """It would make notes that nobody can read."""
    with pytest.raises(InvalidRequestError, match="cannot name a key"):
        Signer.generate(name)


@pytest.mark.parametrize("text", ["no newline", "a\ttab\n"])
def test_a_text_that_the_format_cannot_hold_is_not_signed(signer: Signer, text: str) -> None:
    """The same."""
    with pytest.raises(InvalidRequestError, match="ends in a newline"):
        signer.sign_note(text)


def test_a_file_of_checkpoints_only_grows(signer: Signer, tmp_path: Path) -> None:
    """What was published stays, and the verifier reads it."""
    path = tmp_path / "checkpoints.jsonl"
    for size in (1, 2):
        FileSink(path).publish(signer.sign_checkpoint("o", size, bytes(32)))
    read = read_checkpoints(path.read_bytes().splitlines(), [parse_key(signer.vkey)])
    assert [checkpoint.size for checkpoint in read] == [1, 2]
