"""The ledger in the store: records under a Merkle tree that grows in the caller's transaction."""

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from sqlalchemy import Connection, Engine, func, insert, select

from interlock_guardrails.engine import read_only
from interlock_guardrails.ledger import merkle, reads, rows
from interlock_guardrails.ledger.records import Draft, RecordKind, draft
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.sinks import Sink
from interlock_guardrails.ledger.tables import checkpoints, records
from interlock_guardrails.ledger.verify import Verification, parse_key, verify_lines
from interlock_tools.clock import Clock
from interlock_tools.errors import InvalidRequestError

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0  # for a checkpoint that is due


class Proof(NamedTuple):
    """The hashes that join a record, or an older tree, to the tree of `size` records."""

    size: int
    hashes: list[bytes]


class Ledger:
    """The log of one origin; close it, or use it as a context.

    Args:
        engine: the store, with its tables.
        signer: the key that signs checkpoints.
        origin: the name of this log in its checkpoints, such as `example.com/ledger`.
        clock: gives the moment of each record.
        sinks: where checkpoints go outside the store.
        checkpoint_every: records after which a checkpoint is signed, at most a second late.
        checkpoint_after_s: seconds after which a record is covered by one in any case.
        read_capacity: read records that may wait for the disk before further ones are dropped.

    Raises:
        ConflictError: the store holds the log of another origin, or its records and tree differ.
    """

    def __init__(
        self,
        engine: Engine,
        signer: Signer,
        *,
        origin: str,
        clock: Clock,
        sinks: Sequence[Sink] = (),
        checkpoint_every: int = 256,
        checkpoint_after_s: float = 60.0,
        read_capacity: int = reads.CAPACITY,
    ) -> None:
        self._engine, self._readers = engine, read_only(engine)
        self._signer, self._origin, self._clock = signer, origin, clock
        self._sinks = tuple(sinks)
        self._checkpoint_every, self._checkpoint_after_s = checkpoint_every, checkpoint_after_s
        self._publishing = threading.Lock()
        self._published: dict[str, int] = {}  # by sink, the size of its newest checkpoint
        self._failing: set[str] = set()
        rows.begin(engine, origin)
        self._reads = reads.GroupCommit(self._write_reads, capacity=read_capacity)
        self._closing = threading.Event()
        self._watch = threading.Thread(target=self._look, name="ledger-checkpoints", daemon=True)
        self._watch.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, connection: Connection, kind: RecordKind, body: Mapping[str, Any]) -> int:
        """Append a record inside the caller's transaction and return its number, from 0 on.

        The head of the log stays locked to the end of that transaction: append last, commit soon,
        and call no other method of the ledger before.

        Raises:
            InvalidRequestError: the body cannot be written as canonical JSON; nothing was done.
        """
        return rows.extend(connection, [draft(kind, body, self._clock.now())])

    def append_read(self, kind: RecordKind, body: Mapping[str, Any]) -> bool:
        """Record without waiting for the disk, at most a second later.

        False when too many wait already: then only the number of those is recorded.

        Raises:
            InvalidRequestError: the body cannot be written as canonical JSON.
        """
        return self._reads.offer(draft(kind, body, self._clock.now()))

    def append_and_wait(self, kind: RecordKind, body: Mapping[str, Any]) -> None:
        """Record on its own and return once it is on the disk, in one commit with others' records.

        Raises:
            InvalidRequestError: the body cannot be written as canonical JSON; nothing was done.
            UnavailableError: too many wait already and it was not taken, or the store failed and
                it is tried again every second.
        """
        self._reads.commit(draft(kind, body, self._clock.now()))

    def flush(self) -> None:
        """Wait until what `append_read` took is committed.

        Raises:
            UnavailableError: the store did not take it; it is tried again every second.
        """
        self._reads.flush()

    def close(self) -> None:
        """Write what waits and stop.

        Raises:
            UnavailableError: the store did not take it; it is lost.
        """
        self._closing.set()
        self._watch.join()
        self._reads.close()

    def checkpoint(self) -> str:
        """Sign what is committed now, keep the signed note in the store and publish it.

        A sink that fails is logged and recorded, and gets the next checkpoint, which covers more.
        """
        with self._publishing:
            with self._engine.begin() as connection:
                tree = rows.locked_tree_of(connection)
                known = select(checkpoints.c.note).where(checkpoints.c.size == tree.size)
                note: str | None = connection.scalar(known)
                if note is None:
                    note = self._signer.sign_checkpoint(self._origin, tree.size, tree.root())
                    connection.execute(insert(checkpoints).values(size=tree.size, note=note))
            self._publish(tree.size, note)  # only now: what is published cannot be rolled back
        return note

    def checkpoint_if_due(self) -> None:
        """Sign a checkpoint if enough records, or an old one, are uncovered; runs every second."""
        with self._readers.connect() as connection:
            size = rows.tree_of(connection).size
            covered = connection.scalar(select(func.max(checkpoints.c.size))) or 0
            oldest = connection.scalar(select(records.c.canonical).where(records.c.seq == covered))
        if oldest is None:  # every record is covered
            return
        waited = self._clock.now() - datetime.fromisoformat(json.loads(oldest)["at"])
        full = size - covered >= self._checkpoint_every
        if full or waited.total_seconds() >= self._checkpoint_after_s:
            self.checkpoint()

    def size_and_root(self) -> tuple[int, bytes]:
        """How many records are committed, and the root over them."""
        with self._readers.connect() as connection:
            tree = rows.tree_of(connection)
        return tree.size, tree.root()

    def read(self, first: int = 0, limit: int = 100) -> list[dict[str, Any]]:
        """At most `limit` records from number `first` on, oldest first."""
        query = select(records.c.canonical).where(records.c.seq >= first).order_by(records.c.seq)
        with self._readers.connect() as connection:
            return [json.loads(canonical) for canonical in connection.scalars(query.limit(limit))]

    def inclusion_proof(self, seq: int, size: int | None = None) -> Proof:
        """That record `seq` is in the tree of `size` records, by default of all.

        Raises:
            InvalidRequestError: there is no such record, or no such tree.
        """
        return self._prove(lambda chosen: merkle.inclusion_spans(seq, chosen), size)

    def consistency_proof(self, old_size: int, size: int | None = None) -> Proof:
        """That the tree of `size` records, by default of all, only appends to that of `old_size`.

        Raises:
            InvalidRequestError: there is no such tree.
        """
        return self._prove(lambda chosen: merkle.consistency_spans(old_size, chosen), size)

    def export(self, path: Path) -> int:
        """Write the log and its checkpoints for `verify`; returns the number of records.

        The export is of one moment. What no checkpoint covers yet rests on no signature: call
        `checkpoint` before.
        """
        with path.open("wb") as file, self._readers.connect() as connection:
            file.writelines(rows.export_lines(connection))
            return rows.tree_of(connection).size

    def verify_self(self) -> Verification:
        """Verify the store's own rows and head as an outsider would verify an export of them."""
        key = parse_key(self._signer.vkey)
        with self._readers.connect() as connection:
            result = verify_lines(rows.export_lines(connection), [key], origin=self._origin)
            tree = rows.tree_of(connection)
        if result.ok and (tree.size, tree.root()) != (result.records, result.root):
            return result._replace(
                ok=False,
                sentence=f"the head of the tree says {tree.size} records and is not theirs",
                first_bad=min(tree.size, result.records),
            )
        return result

    def _look(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            try:
                self.checkpoint_if_due()
            except Exception:  # a dead thread would never sign again; the next look is in a second
                logger.exception("a checkpoint that was due could not be signed")

    def _write_reads(self, drafts: Sequence[Draft], dropped: int) -> None:
        batch = list(drafts)
        if dropped:
            body = {"dropped": dropped}
            batch.append(draft(RecordKind.READS_DROPPED, body, self._clock.now()))
        with self._engine.begin() as connection:
            rows.extend(connection, batch)

    def _publish(self, size: int, note: str) -> None:
        for sink in self._sinks:
            if self._published.get(sink.name) == size:
                continue
            body: dict[str, Any] = {"sink": sink.name, "size": size}
            try:
                sink.publish(note)
            except Exception as error:  # the other places must get theirs, whatever this one does
                logger.warning("a checkpoint was not published", exc_info=error, extra=body)
                if sink.name not in self._failing:
                    self._failing.add(sink.name)
                    self._note(body | {"published": False, "why": str(error)})
                continue
            self._published[sink.name] = size
            if sink.name in self._failing:
                self._failing.remove(sink.name)
                self._note(body | {"published": True})

    def _note(self, body: Mapping[str, Any]) -> None:
        with self._engine.begin() as connection:
            self.append(connection, RecordKind.CHECKPOINT, body)

    def _prove(self, spans: Callable[[int], list[merkle.Span]], size: int | None) -> Proof:
        with self._readers.connect() as connection:
            committed = rows.tree_of(connection).size
            chosen = committed if size is None else size
            if chosen > committed:
                raise InvalidRequestError(f"the log has {committed} records, not {chosen}")
            try:
                hashes = merkle.prove(spans(chosen), partial(rows.leaves, connection))
            except ValueError as error:
                raise InvalidRequestError(str(error)) from error
        return Proof(chosen, hashes)
