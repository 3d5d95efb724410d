"""The ledger in the store: records under a Merkle tree that grows in the caller's transaction."""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from sqlalchemy import Connection, Engine, func, insert, select

from interlock_guardrails.engine import read_only
from interlock_guardrails.ledger import merkle, ocsf, reads, rows
from interlock_guardrails.ledger.outside import compare
from interlock_guardrails.ledger.publishing import Publisher
from interlock_guardrails.ledger.records import Draft, RecordKind, draft
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.sinks import Sink
from interlock_guardrails.ledger.tables import checkpoints, records
from interlock_guardrails.ledger.verify import (
    Verification,
    VerifyKey,
    parse_key,
    verify_lines,
)
from interlock_tools.clock import Clock
from interlock_tools.errors import ConflictError, InvalidRequestError
from interlock_tools.measures import READS_DROPPED

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
        former_keys: the public keys that signed before this one, oldest first.
        renew: gives the key again when another process has changed it.
        overruled_by: the person who says that this store and this key are right although an
            outside checkpoint or the store contradicts them; that goes on record.

    Raises:
        ConflictError: the store holds the log of another origin, its records and tree differ, it
            is older than or different from what was published, or another key signs it.
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
        former_keys: Sequence[str] = (),
        renew: Callable[[], Signer] | None = None,
        overruled_by: str | None = None,
    ) -> None:
        self._engine, self._readers = engine, read_only(engine)
        self._signer, self._origin, self._clock = signer, origin, clock
        self._former, self._renew = tuple(former_keys), renew
        self._checkpoint_every, self._checkpoint_after_s = checkpoint_every, checkpoint_after_s
        self._publishing = threading.Lock()
        self._publisher = Publisher(sinks, partial(self._note, RecordKind.CHECKPOINT))
        rows.begin(engine, origin)
        self._compare(sinks, overruled_by)
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
        return self.append_all(connection, [(kind, body)])

    def append_all(
        self, connection: Connection, drafts: Sequence[tuple[RecordKind, Mapping[str, Any]]]
    ) -> int:
        """Append several records as `append` does one, and return the number of the first."""
        now = self._clock.now()
        return rows.extend(connection, [draft(kind, body, now) for kind, body in drafts])

    def append_read(self, kind: RecordKind, body: Mapping[str, Any]) -> bool:
        """Record without waiting for the disk, at most a second later.

        False when too many wait already: then only the number of those is recorded.

        Raises:
            InvalidRequestError: the body cannot be written as canonical JSON.
        """
        taken = self._reads.offer(draft(kind, body, self._clock.now()))
        if not taken:
            READS_DROPPED.add(1)
        return taken

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
                self._check_key(connection)
                known = select(checkpoints.c.note).where(checkpoints.c.size == tree.size)
                note: str | None = connection.scalar(known)
                if note is None:
                    note = self._signer.sign_checkpoint(self._origin, tree.size, tree.root())
                    connection.execute(insert(checkpoints).values(size=tree.size, note=note))
            self._publisher.publish(tree.size, note)  # only now: it cannot be rolled back any more
        return note

    def rotate(self, new: Signer, *, by: str) -> str:
        """Let another key sign from now on, and return the checkpoint that both keys signed.

        It covers the record that names the new key, so that whoever trusts the old one can follow.

        Raises:
            ConflictError: another key is in force than ours; nothing was done.
        """
        with self._publishing:
            with self._engine.begin() as connection:
                rows.locked_tree_of(connection)
                self._check_key(connection)
                old = self._signer
                body = {"what": "ledger_key", "old_vkey": old.vkey, "new_vkey": new.vkey, "by": by}
                self.append(connection, RecordKind.CONFIG_CHANGED, body)
                tree = rows.tree_of(connection)
                note = old.sign_checkpoint(self._origin, tree.size, tree.root())
                note = new.sign_too(note)
                connection.execute(insert(checkpoints).values(size=tree.size, note=note))
                rows.put_in_force(connection, new.vkey, tree.size)
            self._take(new)
            self._publisher.publish(tree.size, note)
        return note

    @property
    def vkeys(self) -> tuple[str, ...]:
        """The public keys of the log, oldest first: what a verifier needs."""
        return (*self._former, self._signer.vkey)

    @property
    def origin(self) -> str:
        """The name of the log."""
        return self._origin

    def sign(self, text: str) -> str:
        """A text signed by the key of the log, as a C2SP note.

        Raises:
            InvalidRequestError: the text does not end in a newline, or holds control characters.
        """
        return self._signer.sign_note(text)

    def checkpoint_if_due(self) -> None:
        """Sign a checkpoint if enough records, or an old one, are uncovered; runs every second."""
        uncovered, waited_s = self.uncovered()
        full = uncovered >= self._checkpoint_every
        if uncovered and (full or waited_s >= self._checkpoint_after_s):
            self.checkpoint()

    def uncovered(self) -> tuple[int, float]:
        """How many records no checkpoint covers, and for how many seconds the oldest has waited."""
        with self._readers.connect() as connection:
            size = rows.tree_of(connection).size
            covered = connection.scalar(select(func.max(checkpoints.c.size))) or 0
            oldest = connection.scalar(select(records.c.canonical).where(records.c.seq == covered))
        if oldest is None:  # every record is covered
            return 0, 0.0
        waited = self._clock.now() - datetime.fromisoformat(json.loads(oldest)["at"])
        return size - covered, waited.total_seconds()

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

    def canonical(self, seq: int) -> bytes:
        """The bytes of one record, as they were hashed.

        Raises:
            InvalidRequestError: there is no such record.
        """
        with self._readers.connect() as connection:
            record = connection.scalar(select(records.c.canonical).where(records.c.seq == seq))
        if not isinstance(record, bytes):
            raise InvalidRequestError(f"the log has no record {seq}")
        return record

    def newest_checkpoint(self, covers: int = 0) -> str | None:
        """The note of the newest signed checkpoint, if it covers record `covers`."""
        with self._readers.connect() as connection:
            return rows.newest_note(connection, covers)

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
        return self._write(path, rows.export_lines)

    def export_ocsf(self, path: Path) -> int:
        """Write the records as OCSF events, one JSON line each; returns the number of records."""
        return self._write(
            path, lambda connection: ocsf.lines(rows.export_lines(connection), self._origin)
        )

    def verify_self(self) -> Verification:
        """Verify the store's own rows and head as an outsider would verify an export of them."""
        with self._readers.connect() as connection:
            lines = rows.export_lines(connection)
            result = verify_lines(lines, self._keys(), origin=self._origin)
            tree = rows.tree_of(connection)
        if result.ok and (tree.size, tree.root()) != (result.records, result.root):
            return result._replace(
                ok=False,
                sentence=f"the head of the tree says {tree.size} records and is not theirs",
                first_bad=min(tree.size, result.records),
            )
        if result.ok and self._signer.vkey not in {key.text for key in result.signed_by}:
            sentence = "the last checkpoint is not signed by the key in force"
            return result._replace(ok=False, sentence=sentence, first_bad=result.covered)
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

    def _note(self, kind: RecordKind, body: Mapping[str, Any]) -> None:
        with self._engine.begin() as connection:
            self.append(connection, kind, body)

    def _keys(self) -> list[VerifyKey]:
        return [parse_key(vkey) for vkey in self.vkeys]

    def _take(self, signer: Signer) -> None:
        self._former = tuple(key for key in self.vkeys if key != signer.vkey)
        self._signer = signer

    def _check_key(self, connection: Connection) -> None:
        """With the head locked: sign with nothing but the key in force."""
        in_force = rows.key_in_force(connection)
        if in_force is None:  # a store from before keys could change
            rows.put_in_force(connection, self._signer.vkey, 0)
            return
        if in_force != self._signer.vkey and self._renew is not None:
            self._take(self._renew())
        if in_force != self._signer.vkey:
            ours, theirs = parse_key(self._signer.vkey), parse_key(in_force)
            raise ConflictError(f"the log is signed by {theirs.short}, and our key is {ours.short}")

    def _compare(self, sinks: Iterable[Sink], overruled_by: str | None) -> None:
        """Go on only with a store that continues what was published, under the key in force."""
        with self._readers.connect() as connection:
            found = compare(connection, sinks, self._keys(), self._origin)
        if found.contradictions and overruled_by is None:
            raise ConflictError(
                f"{'; '.join(found.contradictions)}. Nothing is written until a person says that "
                "this store is the right one"
            )
        with self._engine.begin() as connection:
            tree = rows.locked_tree_of(connection)
            try:
                self._check_key(connection)
            except ConflictError:
                if overruled_by is None:
                    raise
                old = rows.key_in_force(connection)
                rows.put_in_force(connection, self._signer.vkey, tree.size)
                body = {"what": "ledger_key_replaced", "old_vkey": old}
                body |= {"new_vkey": self._signer.vkey, "by": overruled_by}
                self.append(connection, RecordKind.CONFIG_CHANGED, body)
            if found.contradictions:
                overruled = {"what": "outside_checkpoint_overruled", "by": overruled_by}
                overruled |= {"why": "; ".join(found.contradictions)}
                self.append(connection, RecordKind.CONFIG_CHANGED, overruled)
            for sink, why in found.unread.items():
                unread = {"sink": sink, "read": False, "why": why}
                self.append(connection, RecordKind.CHECKPOINT, unread)
        if found.contradictions:
            self.checkpoint()  # from now on this is what the outside places hold

    def _write(self, path: Path, lines: Callable[[Connection], Iterable[bytes]]) -> int:
        with path.open("wb") as file, self._readers.connect() as connection:
            file.writelines(lines(connection))
            return rows.tree_of(connection).size

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
