"""Proofs as documents that `verify --proof` checks alone: for whoever may not see the whole log."""

from typing import Any

from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.verify import (
    BadNoteError,
    Checkpoint,
    open_note,
    parse_checkpoint,
    parse_key,
)
from interlock_tools.errors import ConflictError, InvalidRequestError


def prove_record(ledger: Ledger, seq: int) -> dict[str, Any]:
    """That record `seq` is under a signed checkpoint; signs one where none covers it yet.

    Raises:
        InvalidRequestError: there is no such record.
    """
    record = ledger.canonical(seq)
    note = ledger.newest_checkpoint(covers=seq) or ledger.checkpoint()
    proof = ledger.inclusion_proof(seq, _read(ledger, note).size)
    return {
        "proof": "inclusion",
        "seq": seq,
        "record": record.decode(),
        "hashes": [sibling.hex() for sibling in proof.hashes],
        "checkpoint": note,
    }


def prove_growth(ledger: Ledger, old_note: str) -> dict[str, Any]:
    """That the log as it is now only continues a checkpoint that somebody kept.

    Raises:
        InvalidRequestError: it is no checkpoint of this log.
        ConflictError: the log is shorter than what was signed.
    """
    try:
        old = _read(ledger, old_note)
    except BadNoteError as error:
        raise InvalidRequestError(f"this is no checkpoint of the log: {error}") from error
    note = ledger.checkpoint()
    new = _read(ledger, note)
    if new.size < old.size:
        raise ConflictError(f"the log has {new.size} records, and {old.size} were signed")
    proof = ledger.consistency_proof(old.size, new.size)
    return {
        "proof": "consistency",
        "old_checkpoint": old_note,
        "hashes": [sibling.hex() for sibling in proof.hashes],
        "checkpoint": note,
    }


def _read(ledger: Ledger, note: str) -> Checkpoint:
    return parse_checkpoint(open_note(note, [parse_key(vkey) for vkey in ledger.vkeys]))
