"""The tree is that of RFC 6962, and its proofs hold for what they say and for nothing else."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock_guardrails.ledger.merkle import (
    consistency_spans,
    inclusion_spans,
    pack,
    prove,
    root_of,
    unpack,
)
from interlock_guardrails.ledger.verify import (
    CompactRange,
    consistency_holds,
    inclusion_holds,
    leaf_hash,
)

# The entries and roots that Certificate Transparency publishes with its reference implementation.
ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(b"%d" % number) for number in range(140)]


def leaves(start: int, end: int) -> list[bytes]:
    """The leaf hashes that proofs are built from."""
    return LEAVES[start:end]


def recursive_root(entries: list[bytes]) -> bytes:
    """The definition in section 2.1 of RFC 6962, word for word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    cut = max(2**k for k in range(64) if 2**k < len(entries))
    halves = recursive_root(entries[:cut]) + recursive_root(entries[cut:])
    return hashlib.sha256(b"\x01" + halves).digest()


def test_published_roots_come_out() -> None:
    """Another implementation must be able to verify our log."""
    tree = CompactRange()
    roots = [tree.root().hex()]
    for entry in ENTRIES:
        tree.append(leaf_hash(entry))
        roots.append(tree.root().hex())
    assert roots == ROOTS


def test_published_proofs_come_out() -> None:
    """The reference implementation's proofs for leaf 5 of 8 and from 6 to 8 leaves."""
    hashes = [leaf_hash(entry) for entry in ENTRIES]
    inclusion = prove(inclusion_spans(5, 8), lambda start, end: hashes[start:end])
    assert [node.hex() for node in inclusion] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    consistency = prove(consistency_spans(6, 8), lambda start, end: hashes[start:end])
    assert [node.hex() for node in consistency] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_growing_a_tree_gives_the_root_that_the_rfc_defines(entries: list[bytes]) -> None:
    """The frontier is all that is kept; it must lose nothing, however often it is stored."""
    tree = CompactRange()
    for entry in entries:
        tree = unpack(tree.size, pack(tree))
        tree.append(leaf_hash(entry))
    assert tree.root() == recursive_root(entries)


def test_every_record_of_every_small_tree_has_a_proof_that_holds() -> None:
    """All sizes up to 70: the odd edges of the tree are where implementations go wrong."""
    for size in range(1, 71):
        root = root_of(LEAVES[:size])
        for index in range(size):
            proof = prove(inclusion_spans(index, size), leaves)
            assert inclusion_holds(LEAVES[index], index, size, proof, root)
            assert not inclusion_holds(LEAVES[index + 1], index, size, proof, root)
            assert not inclusion_holds(LEAVES[index], index, size, [*proof, root], root)


def test_every_small_tree_has_a_proof_from_every_older_one() -> None:
    """All pairs up to 70."""
    roots = [root_of(LEAVES[:size]) for size in range(71)]
    for new in range(71):
        for old in range(new + 1):
            proof = prove(consistency_spans(old, new), leaves)
            assert consistency_holds(old, roots[old], new, roots[new], proof)
            if 0 < old < new:
                assert not consistency_holds(old, roots[old - 1], new, roots[new], proof)
                assert not consistency_holds(old, roots[old], new, roots[new - 1], proof)
                assert not consistency_holds(old, roots[old], new, roots[new], [*proof, proof[0]])


@given(st.data(), st.integers(2, 140))
def test_an_altered_proof_does_not_hold(data: st.DataObject, size: int) -> None:
    """One flipped bit anywhere in a proof is enough."""
    index = data.draw(st.integers(0, size - 1))
    proof = prove(inclusion_spans(index, size), leaves)
    at = data.draw(st.integers(0, len(proof) - 1))
    byte = data.draw(st.integers(0, 31))
    flipped = bytearray(proof[at])
    flipped[byte] ^= 1 << data.draw(st.integers(0, 7))
    root = root_of(LEAVES[:size])
    assert not inclusion_holds(
        LEAVES[index], index, size, [*proof[:at], bytes(flipped), *proof[at + 1 :]], root
    )
    assert not inclusion_holds(LEAVES[index], index, size, proof[:-1], root)


@given(st.data(), st.integers(1, 140))
def test_a_forked_log_has_no_consistency_proof(data: st.DataObject, size: int) -> None:
    """Whoever kept an old root notices that one of its records is another one now."""
    old = data.draw(st.integers(1, size))
    forked = list(LEAVES)
    forked[data.draw(st.integers(0, old - 1))] = leaf_hash(b"rewritten")
    proof = prove(consistency_spans(old, size), lambda start, end: forked[start:end])
    assert not consistency_holds(old, root_of(LEAVES[:old]), size, root_of(forked[:size]), proof)


@pytest.mark.parametrize(("old", "new"), [(-1, 3), (4, 3)])
def test_proofs_about_trees_that_cannot_be_are_refused(old: int, new: int) -> None:
    """Neither builder nor verifier answers a question that makes no sense."""
    with pytest.raises(ValueError, match="cannot extend"):
        consistency_spans(old, new)
    with pytest.raises(ValueError, match="has no leaf"):
        inclusion_spans(old, new) if old < 0 else inclusion_spans(new, new)
    assert not consistency_holds(old, b"", new, b"", [])
    assert not inclusion_holds(LEAVES[0], old, min(old, new), [], LEAVES[0])


def test_a_frontier_of_another_size_is_refused() -> None:
    """A head row that was half written must not be built upon."""
    with pytest.raises(ValueError, match="complete subtrees"):
        unpack(4, LEAVES[0] + LEAVES[1])
