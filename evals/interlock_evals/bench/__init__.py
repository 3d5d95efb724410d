"""Speeds and ratios, measured one after the other.

To add a measure: write a module in this folder with `measure() -> Measured`, and name it in
`MEASURES`. Keep it under half a minute; two hundred thousand points take `ingest` a whole one, and
5,000 nodes with their pods `sentinel` too.
"""

MEASURES = (
    "allocator",
    "plant",
    "ledger",
    "reads",
    "ingest",
    "decision",
    "signal",
    "nodes",
    "sentinel",
)
