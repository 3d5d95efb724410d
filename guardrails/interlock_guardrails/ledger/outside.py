"""Whether a store continues what was published of it: a rolled back or forked one does not."""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection

from interlock_guardrails.ledger import merkle, rows
from interlock_guardrails.ledger.sinks import Readable, Sink
from interlock_guardrails.ledger.verify import (
    BadNoteError,
    VerifyKey,
    consistency_holds,
    open_note,
    parse_checkpoint,
)

logger = logging.getLogger(__name__)


class Compared(NamedTuple):
    """What the comparison found, a sentence each."""

    contradictions: list[str]
    unread: dict[str, str]  # by place, why it could not be read


def compare(
    connection: Connection, sinks: Iterable[Sink], keys: Sequence[VerifyKey], origin: str
) -> Compared:
    """Compare the store with the newest checkpoints of each place that can be read.

    It reads the hash of every record that a checkpoint covers, about a second for a million.
    """
    contradictions: list[str] = []
    unread: dict[str, str] = {}
    for sink in sinks:
        if not isinstance(sink, Readable):
            continue
        try:
            notes = sink.kept()
        except Exception as error:  # whatever it is, this place can say nothing now
            logger.warning("checkpoints could not be read", exc_info=error, extra={"at": sink.name})
            unread[sink.name] = str(error)
            continue
        found = (contradiction(connection, note, keys, origin) for note in notes)
        contradictions += [f"{sink.name}: {sentence}" for sentence in found if sentence is not None]
    return Compared(contradictions, unread)


def contradiction(
    connection: Connection, note: str, keys: Sequence[VerifyKey], origin: str
) -> str | None:
    """What is wrong between the store and this checkpoint; None where the store continues it."""
    try:
        kept = parse_checkpoint(open_note(note, keys))
    except BadNoteError as error:
        return f"what it holds is no checkpoint of ours: {error}"
    if kept.origin != origin:
        return f"it holds a checkpoint of {kept.origin!r}, and this is the log of {origin!r}"
    tree = rows.tree_of(connection)
    if kept.size > tree.size:
        return (
            f"the store is older: it has {tree.size} records, and {kept.size} were signed and "
            "published"
        )
    spans = merkle.consistency_spans(kept.size, tree.size)
    proof = merkle.prove(spans, partial(rows.leaves, connection))
    if consistency_holds(kept.size, kept.root, tree.size, tree.root(), proof):
        return None
    return f"the first {kept.size} records of the store are not those that were signed: a fork"
