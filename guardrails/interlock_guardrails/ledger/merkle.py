"""Proofs over stored leaf hashes: which ranges of leaves a proof is made of, by RFC 6962.

A proof is a list of roots of ranges that do not overlap, so one pass over the leaf hashes builds it
and nothing but the leaves is stored. It does not know where they are stored.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from interlock_guardrails.ledger.verify import CompactRange

HASH_BYTES = 32

Span: TypeAlias = tuple[int, int]  # [start, end) in leaves
Leaves: TypeAlias = Callable[[int, int], Iterable[bytes]]  # leaf hashes of [start, end), in order


def pack(tree: CompactRange) -> bytes:
    """The frontier of a tree as bytes; with its size it is all that appending needs."""
    return b"".join(tree.nodes)


def unpack(size: int, frontier: bytes) -> CompactRange:
    """The tree of `size` leaves whose frontier was packed.

    Raises:
        ValueError: the frontier does not belong to a tree of that size.
    """
    starts = range(0, len(frontier), HASH_BYTES)
    return CompactRange(size, (frontier[start : start + HASH_BYTES] for start in starts))


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root of the tree over these leaf hashes."""
    tree = CompactRange()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


def inclusion_spans(index: int, size: int) -> list[Span]:
    """The ranges whose roots prove that leaf `index` is in the tree of `size` leaves.

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    start, end = 0, size
    spans: list[Span] = []
    while end - start > 1:
        middle = _split(start, end)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    return spans[::-1]


def consistency_spans(old_size: int, new_size: int) -> list[Span]:
    """The ranges whose roots prove that the tree of `new_size` extends that of `old_size`.

    Raises:
        ValueError: the old tree is larger than the new one.
    """
    if not 0 <= old_size <= new_size:
        raise ValueError(f"a tree of {new_size} leaves cannot extend one of {old_size}")
    if old_size == 0:
        return []
    start, end = 0, new_size
    spans: list[Span] = []
    while end != old_size:
        middle = _split(start, end)
        if old_size <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    if start > 0:  # otherwise the old root itself is the last part, and the verifier has it
        spans.append((start, end))
    return spans[::-1]


def prove(spans: Iterable[Span], leaves: Leaves) -> list[bytes]:
    """The proof: the root of each range."""
    return [root_of(leaves(start, end)) for start, end in spans]


def _split(start: int, end: int) -> int:
    """Where RFC 6962 cuts a range: after the largest power of two that leaves something over."""
    return start + (1 << (end - start - 1).bit_length() - 1)
