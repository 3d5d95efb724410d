"""The tables of the ledger: records, the head of the tree, checkpoints, the key in force."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, LargeBinary, Table, Text

from interlock_guardrails.metadata import metadata

_Number = BigInteger().with_variant(Integer, "sqlite")  # in SQLite, the row id itself

records = Table(
    "ledger_record",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=False),
    Column("canonical", LargeBinary, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
)

# One row. Whoever appends holds it to the end of the transaction: that makes one sequencer.
head = Table(
    "ledger_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("origin", Text, nullable=False),
    Column("size", _Number, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="ledger_head_is_one_row"),
)

checkpoints = Table(
    "ledger_checkpoint",
    metadata,
    Column("size", _Number, primary_key=True, autoincrement=False),
    Column("note", Text, nullable=False),
)

# Which key signs from how many records on, so that every process notices a change. Nothing rests
# on it: what a verifier trusts is kept outside the store.
keys = Table(
    "ledger_key",
    metadata,
    Column("size", _Number, primary_key=True, autoincrement=False),
    Column("vkey", Text, nullable=False),
)
