"""Verify an export of the ledger, or one proof, with nothing but the file and a public key.

It imports nothing of ours, so that it can be copied to a machine that trusts none of our code:
the standard library, `cryptography`, and `rfc8785` for `--strict`. Hashing and proofs follow
RFC 6962 and RFC 9162; checkpoints follow C2SP `signed-note` and `tlog-checkpoint`.

An export is JSON Lines, in the order of the log. A record is
`{"leaf":"<SHA-256, hex>","record":<canonical JSON>}`; a checkpoint, `{"checkpoint":"<note>"}`,
stands right after the records that it covers. What is hashed is the canonical JSON byte for byte.

A key is changed by a record that names the old and the new one, under a checkpoint that both of
them signed: whoever trusts the old key needs no other to go on, and from there on the old one
counts no more.

A proof is one JSON object: `{"proof":"inclusion","seq","record","hashes","checkpoint"}` or
`{"proof":"consistency","old_checkpoint","hashes","checkpoint"}`, hashes in hex.
"""

import argparse
import base64
import binascii
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ED25519 = b"\x01"  # signature type of C2SP signed-note
MAX_SIGNATURES = 64  # of one note; the specification asks for at least 16
EMPTY_ROOT = hashlib.sha256().digest()

_RECORD_START = re.compile(rb'\{"leaf":"([0-9a-f]{64})","record":(?=\{"at":")')
_RECORD_END = re.compile(  # canonical JSON sorts its keys: these are always the last ones
    rb',"seq":(0|[1-9][0-9]*)(?:,"span_id":"[0-9a-f]{16}","trace_id":"[0-9a-f]{32}")?,"v":1\}\Z'
)
_LONGEST_END_BYTES = 128
_KEY_CHANGE = b'"what":"ledger_key"'
_RECORD_KEYS = frozenset({"at", "body", "kind", "seq", "v"})
_SPAN_KEYS = frozenset({"span_id", "trace_id"})


class BadNoteError(ValueError):
    """A note, checkpoint or key that is malformed or not signed by a key we know."""


class VerifyKey(NamedTuple):
    """A public key by the name under which it signs notes."""

    name: str
    key_id: bytes
    public_key: Ed25519PublicKey

    @property
    def text(self) -> str:
        """The key as `name+hash+base64`."""
        raw = ED25519 + self.public_key.public_bytes_raw()
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(raw).decode()}"

    @property
    def short(self) -> str:
        """What people call it: the name and the hash."""
        return f"{self.name}+{self.key_id.hex()}"


class Checkpoint(NamedTuple):
    """What a signed checkpoint says of the log."""

    origin: str
    size: int
    root: bytes


class KeyChange(NamedTuple):
    """Where another key began to sign: `size` records were covered before.

    Announced: by a record that the old key signed, together with the new one. Otherwise only the
    caller's word says that both keys are good.
    """

    size: int
    old: VerifyKey
    new: VerifyKey
    announced: bool


class Verification(NamedTuple):
    """The result: one sentence, and where the first bad record is when it does not hold.

    `records` and `root` describe what was read up to the end or the first fault; `covered` is how
    many of the records rest on a signed checkpoint; `signed_by` are the keys that signed the last
    checkpoint.
    """

    ok: bool
    sentence: str
    records: int
    covered: int
    root: bytes
    first_bad: int | None = None
    changes: tuple[KeyChange, ...] = ()
    signed_by: tuple[VerifyKey, ...] = ()


def leaf_hash(record: bytes) -> bytes:
    """RFC 6962 hash of a leaf."""
    return hashlib.sha256(b"\x00" + record).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class CompactRange:
    """A tree that remembers only the roots of its complete subtrees, the largest first."""

    def __init__(self, size: int = 0, nodes: Iterable[bytes] = ()) -> None:
        self.size = size
        self.nodes = list(nodes)
        if len(self.nodes) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} complete subtrees")

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash; O(log n)."""
        size, node = self.size, leaf
        while size & 1:
            node = node_hash(self.nodes.pop(), node)
            size >>= 1
        self.nodes.append(node)
        self.size += 1

    def root(self) -> bytes:
        """The root of the tree so far."""
        if not self.nodes:
            return EMPTY_ROOT
        *rest, root = self.nodes
        for node in reversed(rest):
            root = node_hash(node, root)
        return root


def inclusion_holds(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether `proof` shows that `leaf` is number `index` of the `size` leaves under `root`."""
    if not 0 <= index < size:
        return False
    position, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and node == root


def consistency_holds(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether `proof` shows that the new tree only appended to the old one."""
    if not 0 <= old_size <= new_size:
        return False
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    if old_size == new_size:
        return not proof and old_root == new_root
    path = list(proof)
    if old_size & (old_size - 1) == 0:  # a complete tree is its own first node
        path.insert(0, old_root)
    if not path:
        return False
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old, new = node_hash(node, old), node_hash(node, new)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, node)
        position, last = position >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root


def key_id(name: str, public_key: bytes) -> bytes:
    """The four bytes that stand for an Ed25519 key in a signature line."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public_key).digest()[:4]


def parse_key(text: str) -> VerifyKey:
    """Read a key of the form `name+hash+base64`.

    Raises:
        BadNoteError: it has another form, another algorithm, or its hash does not fit.
    """
    name, _, rest = text.strip().partition("+")
    stated, _, encoded = rest.partition("+")
    raw = _base64(encoded)
    if not name or len(raw) != 33 or raw[:1] != ED25519:
        raise BadNoteError("this is not a C2SP key of the form name+hash+base64 for Ed25519")
    if key_id(name, raw[1:]).hex() != stated:
        raise BadNoteError(f"the hash in the key of {name} does not belong to it")
    return VerifyKey(name, key_id(name, raw[1:]), Ed25519PublicKey.from_public_bytes(raw[1:]))


def open_note(note: str, keys: Iterable[VerifyKey]) -> str:
    """The text of a signed note, once a known key has been found to have signed it.

    Raises:
        BadNoteError: it is malformed, no known key signed it, or a known key's signature is wrong.
    """
    return signed_text(note, keys)[0]


def signed_text(note: str, keys: Iterable[VerifyKey]) -> tuple[str, tuple[VerifyKey, ...]]:
    """The text of a signed note and which of the keys signed it, at least one.

    Raises:
        BadNoteError: it is malformed, no known key signed it, or a known key's signature is wrong.
    """
    text, blank, tail = note.rpartition("\n\n")
    lines = tail.removesuffix("\n").split("\n")
    if not blank or not tail.endswith("\n") or len(lines) > MAX_SIGNATURES:
        raise BadNoteError("this is not a signed note: text, an empty line, signature lines")
    if re.search("[\x00-\x09\x0b-\x1f\ud800-\udfff]", note):
        raise BadNoteError("the note holds control characters or is no UTF-8")
    text += "\n"
    known = {(key.name, key.key_id): key for key in keys}
    signed: dict[str, VerifyKey] = {}
    for line in lines:
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        signature = _base64(encoded)
        if dash != "\u2014" or not name or len(signature) < 5:
            raise BadNoteError("a signature line of the note is malformed")
        key = known.get((name, signature[:4]))
        if key is None:
            continue
        try:
            key.public_key.verify(signature[4:], text.encode())
        except InvalidSignature:
            raise BadNoteError(f"the signature of {name} does not fit the note") from None
        signed[key.text] = key
    if not signed:
        raise BadNoteError("no key that we were given signed the note")
    return text, tuple(signed.values())


def parse_checkpoint(text: str) -> Checkpoint:
    """Read the text of a checkpoint: origin, size, root; further lines are ignored.

    Raises:
        BadNoteError: it is not the text of a checkpoint.
    """
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < 3 or not text.endswith("\n") or not all(lines):
        raise BadNoteError("a checkpoint has three lines: origin, size, root")
    origin, size, root = lines[:3]
    if re.fullmatch("0|[1-9][0-9]{0,18}", size) is None or len(_base64(root)) != 32:
        raise BadNoteError("the size or the root of the checkpoint is malformed")
    return Checkpoint(origin, int(size), _base64(root))


def _base64(text: str) -> bytes:
    """What the text stands for; nothing where it is not exactly the base64 of something."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return raw if base64.b64encode(raw).decode() == text else b""


def checkpoint_line(note: str) -> bytes:
    """One line of an export, or of a file of checkpoints, that holds a note."""
    return json.dumps({"checkpoint": note}, separators=(",", ":")).encode() + b"\n"


def record_line(leaf: bytes, record: bytes) -> bytes:
    """One line of an export that holds a record and its leaf hash."""
    return b'{"leaf":"%s","record":%s}\n' % (leaf.hex().encode(), record)


def read_notes(content: bytes) -> Iterator[str]:
    """The notes in a file of checkpoints: one as it is, or one JSON line for each.

    Raises:
        BadNoteError: a line holds no checkpoint.
    """
    if content and not content.startswith(b"{"):
        yield content.decode(errors="replace").rstrip("\n") + "\n"
        return
    for line in content.splitlines():
        try:
            note = json.loads(line)["checkpoint"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadNoteError("a line holds no checkpoint") from None
        if not isinstance(note, str):
            raise BadNoteError("a checkpoint is not text")
        yield note


def read_checkpoints(lines: Iterable[bytes], keys: Sequence[VerifyKey]) -> Iterator[Checkpoint]:
    """The checkpoints among `lines`, each with its signature verified.

    Raises:
        BadNoteError: one of them is malformed or not signed by a known key.
    """
    for line in lines:
        for note in read_notes(line):
            yield parse_checkpoint(open_note(note, keys))


class _FaultError(Exception):
    """The log is not what was signed, from record `first_bad` on."""

    def __init__(self, first_bad: int, sentence: str) -> None:
        super().__init__(sentence)
        self.first_bad = first_bad


class _Reader:
    """One pass over an export; holds the tree's frontier and the checkpoints given from outside."""

    def __init__(
        self,
        keys: Sequence[VerifyKey],
        outside: Iterable[Checkpoint | str],
        origin: str | None,
        strict: bool,
    ) -> None:
        self.tree = CompactRange()
        self.covered = -1  # no checkpoint seen
        self.changes: list[KeyChange] = []
        self.signed_by: tuple[VerifyKey, ...] = ()
        self._keys, self._origin, self._strict = list(keys), origin, strict
        self._announced: list[tuple[int, VerifyKey, VerifyKey]] = []
        self._retired: dict[str, int] = {}  # a key, and the size of the last tree that it may sign
        self._outside: dict[int, set[Checkpoint | str]] = {}
        for kept in outside:
            checkpoint = parse_checkpoint(_text_of(kept)) if isinstance(kept, str) else kept
            self._outside.setdefault(checkpoint.size, set()).add(kept)

    def read(self, lines: Iterable[bytes]) -> None:
        self._check_outside()
        for line in lines:
            start = _RECORD_START.match(line)
            if start is not None:
                self._record(start.group(1), start.end(), line)
                self._check_outside()
            elif line.startswith(b'{"checkpoint":'):
                self._checkpoint_line(line)
            else:
                raise _FaultError(
                    self.tree.size,
                    f"record {self.tree.size} is corrupted: its line is neither a record nor a "
                    "checkpoint",
                )
        if self._outside:
            size = max(self._outside)
            for kept in self._outside[size]:
                self._opened(kept, "a checkpoint that was kept outside")
            self._missing(size)

    def _record(self, stated_leaf: bytes, start: int, line: bytes) -> None:
        expected = self.tree.size
        record = line[start:-2]
        leaf = leaf_hash(record)
        if not line.endswith(b"}\n") or leaf.hex().encode() != stated_leaf:
            raise _FaultError(expected, f"record {expected} is corrupted: its hash does not fit")
        end = _RECORD_END.search(record, max(0, len(record) - _LONGEST_END_BYTES))
        if end is None:
            raise _FaultError(expected, f"record {expected} is corrupted: it has no number")
        if int(end.group(1)) != expected:
            raise _FaultError(
                expected,
                f"record {expected} is missing or out of order: record {int(end.group(1))} stands "
                "in its place",
            )
        if self._strict and not _is_canonical(record, expected):
            raise _FaultError(expected, f"record {expected} is not canonical JSON of a record")
        if _KEY_CHANGE in record:
            self._announce(expected, record)
        self.tree.append(leaf)

    def _announce(self, seq: int, record: bytes) -> None:
        try:
            document = json.loads(record)
            body = document["body"]
            if document["kind"] == "config_changed" and body["what"] == "ledger_key":
                old, new = parse_key(body["old_vkey"]), parse_key(body["new_vkey"])
                self._announced.append((seq, old, new))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return  # it announces nothing that a signature could stand for

    def _checkpoint_line(self, line: bytes) -> None:
        where = f"the checkpoint after record {self.tree.size - 1}"
        try:
            (note,) = read_notes(line)
        except (BadNoteError, ValueError) as error:
            raise _FaultError(max(self.covered, 0), f"{where} is bad: {error}") from None
        checkpoint, signed_by = self._opened(note, where)
        if checkpoint.size > self.tree.size:
            self._missing(checkpoint.size)
        if checkpoint.size < self.tree.size:
            raise _FaultError(
                checkpoint.size,
                f"record {checkpoint.size} stands before a checkpoint of {checkpoint.size} "
                "records: lines are out of order",
            )
        self._check(checkpoint, signed_by)

    def _check_outside(self) -> None:
        if self._outside:
            for kept in self._outside.pop(self.tree.size, ()):
                self._check(*self._opened(kept, "a checkpoint that was kept outside"))

    def _opened(
        self, kept: Checkpoint | str, where: str
    ) -> tuple[Checkpoint, tuple[VerifyKey, ...]]:
        """The checkpoint, once a key that counts has signed it."""
        if not isinstance(kept, str):
            return kept, ()
        announced = [new for _, old, new in self._announced if self._may_announce(old)]
        try:
            text, signed_by = signed_text(kept, [*self._keys, *announced])
            if not any(map(self._trusts, signed_by)):
                raise BadNoteError("only a key that nothing vouches for signed it")
            return parse_checkpoint(text), signed_by
        except BadNoteError as error:
            raise _FaultError(max(self.covered, 0), f"{where} is bad: {error}") from None

    def _may_announce(self, key: VerifyKey) -> bool:
        return self._trusts(key) and key.text not in self._retired

    def _trusts(self, key: VerifyKey) -> bool:
        return any(key.text == known.text for known in self._keys)

    def _check(self, checkpoint: Checkpoint, signed_by: tuple[VerifyKey, ...]) -> None:
        first = max(self.covered, 0)
        self._origin = self._origin or checkpoint.origin
        if checkpoint.origin != self._origin:
            raise _FaultError(
                first, f"a checkpoint is of {checkpoint.origin!r}, not of {self._origin!r}"
            )
        if checkpoint.root != self.tree.root():
            raise _FaultError(
                first,
                f"the log was rewritten: records {first} to {checkpoint.size - 1} are not those "
                "that were signed",
            )
        if signed_by:
            self._follow_keys(checkpoint.size, signed_by)
        self.covered = checkpoint.size

    def _follow_keys(self, size: int, signed_by: tuple[VerifyKey, ...]) -> None:
        names = {key.text for key in signed_by}
        for announced in list(self._announced):
            seq, old, new = announced
            if seq < size and {old.text, new.text} <= names and self._may_announce(old):
                self._announced.remove(announced)
                self._retired[old.text] = size
                self._retired.pop(new.text, None)
                self._keys.append(new)
                self.changes.append(KeyChange(size, old, new, announced=True))
        if all(self._retired.get(name, size) < size for name in names):
            raise _FaultError(
                max(self.covered, 0),
                f"the checkpoint of {size} records is signed by {signed_by[0].short} only, which "
                f"was retired at {self._retired[signed_by[0].text]}",
            )
        if self.signed_by and not names & {key.text for key in self.signed_by}:
            before = max(self.covered, 0)
            self.changes.append(KeyChange(before, self.signed_by[-1], signed_by[0], False))
        self.signed_by = signed_by

    def _missing(self, size: int) -> None:
        raise _FaultError(
            self.tree.size,
            f"record {self.tree.size} is missing: the log was truncated, a signed checkpoint "
            f"covers {size} records",
        )


def _text_of(note: str) -> str:
    """What a note says, signed or not."""
    return note.rpartition("\n\n")[0] + "\n"


def _number(digits: str) -> int | float:
    """A JSON number is a double; one beyond its exact integers was written from a float."""
    return int(digits) if abs(float(digits)) < 2**53 else float(digits)


def _is_canonical(record: bytes, seq: int) -> bool:
    import rfc8785

    try:
        document: Any = json.loads(record, parse_int=_number)
        keys = frozenset(document)
        return (
            keys in (_RECORD_KEYS, _RECORD_KEYS | _SPAN_KEYS)
            and (document["v"], document["seq"]) == (1, seq)
            and rfc8785.dumps(document) == record
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def verify_lines(
    lines: Iterable[bytes],
    keys: Sequence[VerifyKey],
    *,
    outside: Iterable[Checkpoint | str] = (),
    origin: str | None = None,
    strict: bool = False,
) -> Verification:
    """Read an export once, in flat memory, up to its end or its first fault.

    Args:
        lines: the export, line by line, each with its newline.
        keys: the public keys that may have signed checkpoints.
        outside: checkpoints that were kept elsewhere, verified or as notes; only they show a tail
            cut off together with the checkpoints that covered it.
        origin: the log that it must be of; without it, whatever the first checkpoint says.
        strict: also parse every record and compare it with its canonical form.

    Raises:
        BadNoteError: a note in `outside` is no checkpoint.
    """
    reader = _Reader(keys, outside, origin, strict)
    try:
        reader.read(lines)
        if reader.covered < 0:
            raise _FaultError(0, "record 0 rests on nothing: no checkpoint signed by a known key")
    except _FaultError as fault:
        covered = max(reader.covered, 0)
        return Verification(
            False,
            str(fault),
            reader.tree.size,
            covered,
            reader.tree.root(),
            fault.first_bad,
            tuple(reader.changes),
            reader.signed_by,
        )
    size, covered = reader.tree.size, reader.covered
    sentence = f"{size} records hold; signed checkpoints cover {covered}"
    if size > covered:
        sentence += f", the last {size - covered} rest on none yet"
    for change in reader.changes:
        how = "" if change.announced else ", which the old key did not announce"
        sentence += (
            f"; at {change.size} records the key changed from {change.old.short} to "
            f"{change.new.short}{how}"
        )
    return Verification(
        True,
        sentence,
        size,
        covered,
        reader.tree.root(),
        changes=tuple(reader.changes),
        signed_by=reader.signed_by,
    )


def verify_proof(document: bytes, keys: Sequence[VerifyKey]) -> str:
    """What a proof shows, as one sentence; it needs nothing but itself and the keys.

    Raises:
        BadNoteError: it is malformed, not signed by a known key, or does not hold.
    """
    try:
        proof: dict[str, Any] = json.loads(document)
        hashes = [bytes.fromhex(sibling) for sibling in proof["hashes"]]
        new = parse_checkpoint(open_note(proof["checkpoint"], keys))
        kind = proof["proof"]
        if kind == "inclusion":
            seq, record = proof["seq"], proof["record"].encode()
        elif kind == "consistency":
            old = parse_checkpoint(open_note(proof["old_checkpoint"], keys))
        else:
            raise BadNoteError(f"{kind!r} is no kind of proof")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, BadNoteError):
            raise
        raise BadNoteError("this is not a proof") from None
    if kind == "inclusion":
        end = _RECORD_END.search(record, max(0, len(record) - _LONGEST_END_BYTES))
        if end is None or int(end.group(1)) != seq:
            raise BadNoteError(f"what the proof holds is not record {seq}")
        if not inclusion_holds(leaf_hash(record), seq, new.size, hashes, new.root):
            raise BadNoteError(f"record {seq} is not among the {new.size} that were signed")
        return f"record {seq} is among the {new.size} records of {new.origin} that were signed"
    if old.origin != new.origin:
        raise BadNoteError(f"the checkpoints are of {old.origin!r} and of {new.origin!r}")
    if not consistency_holds(old.size, old.root, new.size, new.root, hashes):
        raise BadNoteError(
            f"the {new.size} records do not continue the {old.size} that were signed before"
        )
    return f"the {new.size} records of {new.origin} continue the {old.size} that were signed before"


def _keys_of(argument: str) -> list[VerifyKey]:
    """The key, or those in a file: one on each line."""
    path = Path(argument)
    try:
        text = path.read_text() if path.is_file() else argument
        return [parse_key(line) for line in text.split("\n") if line.strip()] or [parse_key("")]
    except (BadNoteError, OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify what the command line names: 0 it holds, 1 it does not, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="verify", description="Verify an export of the ledger.")
    parser.add_argument("export", type=Path, nargs="?")
    parser.add_argument(
        "--key",
        type=_keys_of,
        action="extend",
        required=True,
        help="key, or file with one on each line; may be repeated",
    )
    parser.add_argument("--proof", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--checkpoints", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--origin", help="the log that it must be of")
    parser.add_argument("--strict", action="store_true", help="also check the canonical form")
    chosen = parser.parse_args(arguments)
    if chosen.export is None and not chosen.proof:
        parser.error("name an export, or --proof FILE")
    try:
        sentences = [verify_proof(path.read_bytes(), chosen.key) for path in chosen.proof]
        if chosen.export is not None:
            outside = [
                note for path in chosen.checkpoints for note in read_notes(path.read_bytes())
            ]
            with chosen.export.open("rb") as lines:
                result = verify_lines(
                    lines, chosen.key, outside=outside, origin=chosen.origin, strict=chosen.strict
                )
            if not result.ok:
                raise BadNoteError(result.sentence)
            sentences.append(result.sentence)
    except (OSError, BadNoteError) as error:
        sys.stdout.write(f"NOT VERIFIED: {error}.\n")
        return 1
    sys.stdout.write(f"verified: {'; '.join(sentences)}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
