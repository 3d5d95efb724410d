"""The rows of the ledger: begin, extend, read; each function works in its caller's transaction."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from sqlalchemy import Connection, Engine, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from interlock_guardrails.ledger import merkle
from interlock_guardrails.ledger.records import Draft
from interlock_guardrails.ledger.tables import checkpoints, head, keys, records
from interlock_guardrails.ledger.verify import (
    CompactRange,
    checkpoint_line,
    leaf_hash,
    record_line,
)
from interlock_tools.errors import ConflictError

PAGE = 1_000  # records that are held in memory while the log is read
READ_HEAD = select(head.c.size, head.c.frontier)
LOCK_HEAD = READ_HEAD.with_for_update()  # says nothing to SQLite, where BEGIN IMMEDIATE locks
SET_HEAD = update(head)


def begin(engine: Engine, origin: str) -> None:
    """Begin the log where there is none.

    Raises:
        ConflictError: the store holds the log of another origin, or its records and tree differ.
    """
    try:
        with engine.begin() as connection:
            if connection.execute(READ_HEAD).first() is None:
                connection.execute(insert(head).values(id=1, origin=origin, size=0, frontier=b""))
    except IntegrityError:
        pass  # another replica began it in the same moment
    with engine.begin() as connection:
        row = connection.execute(select(head.c.origin, head.c.size).with_for_update()).one()
        last = connection.scalar(select(func.max(records.c.seq)))
    if row.origin != origin:
        raise ConflictError(f"the store holds the log of {row.origin!r}")
    if row.size != (0 if last is None else last + 1):
        raise ConflictError(f"the tree counts {row.size} records, the last row is {last}")


def tree_of(connection: Connection) -> CompactRange:
    """The tree over all records, as far as this transaction sees."""
    row = connection.execute(READ_HEAD).one()
    return merkle.unpack(row.size, row.frontier)


def locked_tree_of(connection: Connection) -> CompactRange:
    """The same tree, which nobody else can extend until this transaction ends."""
    row = connection.execute(LOCK_HEAD).one()
    return merkle.unpack(row.size, row.frontier)


def key_in_force(connection: Connection) -> str | None:
    """The public key that signs now; None in a store that never heard of one."""
    vkey: str | None = connection.scalar(select(keys.c.vkey).order_by(keys.c.size.desc()).limit(1))
    return vkey


def put_in_force(connection: Connection, vkey: str, size: int) -> None:
    """Let this key sign from `size` records on; call it with the head locked."""
    connection.execute(delete(keys).where(keys.c.size == size))
    connection.execute(insert(keys).values(size=size, vkey=vkey))


def newest_note(connection: Connection, covers: int = 0) -> str | None:
    """The note of the largest checkpoint, if it covers record `covers`."""
    query = select(checkpoints.c.note).where(checkpoints.c.size > covers)
    note: str | None = connection.scalar(query.order_by(checkpoints.c.size.desc()).limit(1))
    return note


def extend(connection: Connection, drafts: Sequence[Draft]) -> int:
    """Append records and the tree over them; returns the number of the first."""
    tree = locked_tree_of(connection)
    first = tree.size
    rows: list[tuple[int, bytes, bytes]] = []
    for seq, unnumbered in enumerate(drafts, first):
        record = unnumbered.numbered(seq)
        leaf = leaf_hash(record)
        tree.append(leaf)
        rows.append((seq, record, leaf))
    connection.exec_driver_sql(_insert_sql(connection.dialect.paramstyle), rows)
    connection.execute(SET_HEAD, {"size": tree.size, "frontier": merkle.pack(tree)})
    return first


@lru_cache
def _insert_sql(paramstyle: str) -> str:
    """One statement per driver: what a Core insert makes of a batch costs more than the batch."""
    marks = "?, ?, ?" if paramstyle == "qmark" else "%s, %s, %s"
    return f"INSERT INTO {records.name} (seq, canonical, leaf_hash) VALUES ({marks})"  # noqa: S608


def leaves(connection: Connection, start: int, end: int) -> Iterator[bytes]:
    """The leaf hashes of records `start` to `end` - 1."""
    query = select(records.c.leaf_hash).order_by(records.c.seq)
    for first in range(start, end, PAGE):
        last = min(first + PAGE, end)
        yield from connection.scalars(query.where(records.c.seq >= first, records.c.seq < last))


def export_lines(connection: Connection) -> Iterator[bytes]:
    """The log as lines for `verify`, page by page; rows are shown as they are, none is trusted."""
    row_query = select(records).order_by(records.c.seq).limit(PAGE)
    note_query = select(checkpoints).order_by(checkpoints.c.size)
    first, covered = 0, -1
    while rows := connection.execute(row_query.where(records.c.seq >= first)).all():
        first = rows[-1].seq + 1
        page = note_query.where(checkpoints.c.size > covered, checkpoints.c.size < first)
        notes = {note.size: note for note in connection.execute(page)}
        for row in rows:
            if note := notes.pop(row.seq, None):  # covers the records up to this one
                yield checkpoint_line(note.note)
            yield record_line(_bytes(row.leaf_hash), _bytes(row.canonical))
        covered = first - 1
    for note in connection.execute(note_query.where(checkpoints.c.size > covered)):
        yield checkpoint_line(note.note)


def _bytes(value: object) -> bytes:
    """A column as bytes; SQLite would also keep text there, put in by other hands than ours."""
    if isinstance(value, bytes):
        return value
    return value.encode(errors="replace") if isinstance(value, str) else b""
