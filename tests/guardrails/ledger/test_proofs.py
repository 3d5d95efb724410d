"""A proof is one file that somebody who may not see the whole log checks alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.proofs import prove_growth, prove_record
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.verify import BadNoteError, main, parse_key, verify_proof
from interlock_tools.errors import ConflictError, InvalidRequestError

Write = Callable[[int], None]


def proven(proof: dict[str, Any], signer: Signer) -> str:
    """What the verifier makes of it."""
    return verify_proof(json.dumps(proof).encode(), [parse_key(signer.vkey)])


def test_every_record_can_be_shown_alone(ledger: Ledger, write: Write, signer: Signer) -> None:
    """Under the newest checkpoint that covers it; one is signed where none does yet."""
    write(7)
    ledger.checkpoint()
    write(2)
    for seq in range(9):
        proof = prove_record(ledger, seq)
        size = 7 if seq < 7 else 9
        assert proven(proof, signer) == (
            f"record {seq} is among the {size} records of example.com/ledger that were signed"
        )
        assert json.loads(proof["record"])["seq"] == seq
    with pytest.raises(InvalidRequestError, match="no record 9"):
        prove_record(ledger, 9)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seq", 4),
        ("seq", "3"),
        ("hashes", []),
        ("hashes", ["00" * 32]),
        ("hashes", "zz"),
        ("proof", "nonsense"),
        ("checkpoint", "nonsense"),
        ("record", 7),
    ],
)
def test_an_altered_proof_shows_nothing(
    ledger: Ledger, write: Write, signer: Signer, key: str, value: object
) -> None:
    """Every member of it counts."""
    write(6)
    with pytest.raises(BadNoteError):
        proven(prove_record(ledger, 3) | {key: value}, signer)


def test_an_altered_record_is_not_proven(ledger: Ledger, write: Write, signer: Signer) -> None:
    """The record in the proof is what was hashed, byte for byte."""
    write(6)
    proof = prove_record(ledger, 3)
    proof["record"] = proof["record"].replace('"n":3', '"n":4')
    with pytest.raises(BadNoteError, match="not among the 6 that were signed"):
        proven(proof, signer)


def test_a_proof_under_another_key_shows_nothing(ledger: Ledger, write: Write) -> None:
    """Anybody can build a tree."""
    write(1)
    with pytest.raises(BadNoteError, match="no key that we were given"):
        proven(prove_record(ledger, 0), Signer.generate("example.com/ledger"))


def test_growth_from_a_kept_checkpoint_can_be_shown(
    ledger: Ledger, write: Write, signer: Signer
) -> None:
    """Without a single record: what was signed then is still there, in its place."""
    write(5)
    kept = ledger.checkpoint()
    write(6)
    proof = prove_growth(ledger, kept)
    assert proven(proof, signer) == (
        "the 11 records of example.com/ledger continue the 5 that were signed before"
    )
    other = signer.sign_checkpoint("example.com/ledger", 5, bytes(32))
    with pytest.raises(BadNoteError, match="do not continue the 5"):
        proven(proof | {"old_checkpoint": other}, signer)
    elsewhere = signer.sign_checkpoint("example.com/other", 5, bytes(32))
    with pytest.raises(BadNoteError, match=r"example\.com/other"):
        proven(proof | {"old_checkpoint": elsewhere}, signer)


def test_growth_from_what_we_never_signed_is_not_claimed(
    ledger: Ledger, write: Write, signer: Signer
) -> None:
    """The caller learns which of the two is wrong."""
    write(2)
    stranger = Signer.generate("example.com/ledger")
    with pytest.raises(InvalidRequestError, match="no checkpoint of the log"):
        prove_growth(ledger, stranger.sign_checkpoint("example.com/ledger", 1, bytes(32)))
    with pytest.raises(ConflictError, match="has 2 records, and 3 were signed"):
        prove_growth(ledger, signer.sign_checkpoint("example.com/ledger", 3, bytes(32)))


def test_the_command_checks_a_proof_alone(
    ledger: Ledger,
    write: Write,
    signer: Signer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With no export beside it, or together with one."""
    write(3)
    good, bad, log = tmp_path / "good", tmp_path / "bad", tmp_path / "log"
    good.write_text(json.dumps(prove_record(ledger, 1)))
    bad.write_text(json.dumps(prove_record(ledger, 1) | {"seq": 2}))
    ledger.export(log)
    assert main(["--proof", str(good), "--key", signer.vkey]) == 0
    assert main([str(log), "--proof", str(good), "--key", signer.vkey]) == 0
    assert main(["--proof", str(good), "--proof", str(bad), "--key", signer.vkey]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("verified: record 1 is among the 3 records")
    assert said[2].startswith("NOT VERIFIED: what the proof holds is not record 2")
    with pytest.raises(SystemExit, match="2"):
        main(["--key", signer.vkey])
