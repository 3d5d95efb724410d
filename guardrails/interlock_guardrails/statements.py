"""Signed statements: what a person said at a console, as a note that no row can imitate.

Each says in one word what it is, so that the note of one kind never passes for another.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.verify import BadNoteError, VerifyKey, open_note, parse_key
from interlock_tools.canonical import canonical

KNOWN_NOTES = 1024


def sign(signer: Signer, kind: str, said: Mapping[str, Any]) -> str:
    """The signed note that says this."""
    return signer.sign_note(_text(kind, said))


def says(note: str, keys: Iterable[VerifyKey], kind: str, said: Mapping[str, Any]) -> bool:
    """Whether one of the keys signed the note, and it says exactly this."""
    try:
        return _opened(note, tuple(key.text for key in keys)) == _text(kind, said)
    except BadNoteError:
        return False


def moment(at: datetime) -> str:
    """A moment as statements write it, whatever the store made of its zone."""
    return at.astimezone(UTC).isoformat()


@lru_cache(KNOWN_NOTES)
def _opened(note: str, vkeys: tuple[str, ...]) -> str:
    """What a genuine note says; a grant that stands is asked for with every change."""
    return open_note(note, [parse_key(vkey) for vkey in vkeys])


def _text(kind: str, said: Mapping[str, Any]) -> str:
    return canonical({"statement": kind, **said}).decode() + "\n"
