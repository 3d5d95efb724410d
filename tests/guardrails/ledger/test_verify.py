"""Whoever holds an export and a public key finds the first record that is not what it was."""

import ast
import json
import sys
import tracemalloc
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Engine

from interlock_guardrails.ledger import verify
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.rows import export_lines
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.sinks import FileSink
from interlock_guardrails.ledger.verify import (
    Checkpoint,
    CompactRange,
    Verification,
    checkpoint_line,
    leaf_hash,
    main,
    open_note,
    parse_checkpoint,
    parse_key,
    record_line,
    verify_lines,
)

COUNT, EVERY = 20, 5


@dataclass(frozen=True)
class Export:
    """An export of `COUNT` records, a checkpoint after each `EVERY`, and copies kept outside."""

    records: list[bytes]
    notes: list[str]
    vkey: str

    def lines(
        self, records: list[bytes] | None = None, notes: list[str] | None = None
    ) -> list[bytes]:
        """The lines, with other records or checkpoints in place of the true ones."""
        records = self.records if records is None else records
        places = {
            EVERY * (n + 1): note for n, note in enumerate(self.notes if notes is None else notes)
        }
        lines = []
        for number, line in enumerate(records, 1):
            lines.append(line)
            if number in places:
                lines.append(checkpoint_line(places.pop(number)))
        return lines + [checkpoint_line(note) for note in places.values()]

    def outside(self) -> list[Checkpoint]:
        """The checkpoints as somebody else kept them."""
        return [parse_checkpoint(open_note(note, [parse_key(self.vkey)])) for note in self.notes]

    def verify(self, lines: list[bytes], *, strict: bool = False) -> Verification:
        """Without anything kept outside."""
        return verify_lines(lines, [parse_key(self.vkey)], strict=strict)


@pytest.fixture
def export(store: Engine, ledger: Ledger, signer: Signer) -> Export:
    """A log as the store gives it out."""
    notes = []
    for number in range(COUNT):
        with store.begin() as connection:
            ledger.append(connection, RecordKind.OUTCOME, {"watts": number, "where": "rack-ü"})
        if number % EVERY == EVERY - 1:
            notes.append(ledger.checkpoint())
    with store.connect() as connection:
        with_notes = list(export_lines(connection))
    made = Export([line for line in with_notes if b'"leaf"' in line[:8]], notes, signer.vkey)
    assert made.lines() == with_notes
    return made


def forge(line: bytes, old: bytes, new: bytes) -> bytes:
    """Alter a record and put its new hash beside it, as somebody who knows the format would."""
    start = line.index(b'"record":') + len(b'"record":')
    record = line[start:-2].replace(old, new)
    assert record != line[start:-2]
    return record_line(leaf_hash(record), record)


def test_it_imports_nothing_of_ours() -> None:
    """It must run on a machine that trusts none of our code."""
    tree = ast.parse(Path(verify.__file__).read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    rooms = {name.split(".")[0] for name in imported} - sys.stdlib_module_names
    assert rooms == {"cryptography", "rfc8785"}


@pytest.mark.parametrize("strict", [False, True])
def test_a_true_log_holds(export: Export, strict: bool) -> None:
    """In both modes, and with the checkpoints that others kept."""
    result = verify_lines(
        export.lines(), [parse_key(export.vkey)], outside=export.outside(), strict=strict
    )
    assert result.ok
    assert (result.records, result.covered, result.first_bad) == (COUNT, COUNT, None)
    assert result.sentence == "20 records hold; signed checkpoints cover 20"


def test_records_after_the_last_checkpoint_are_told_apart(export: Export) -> None:
    """They are whole, and rest on no signature yet."""
    result = export.verify(export.lines()[:-1])
    assert result.ok
    assert result.sentence.endswith("cover 15, the last 5 rest on none yet")


@pytest.mark.parametrize("number", [0, 7, COUNT - 1])
def test_any_flipped_byte_is_found_at_its_record(export: Export, number: int) -> None:
    """Every byte of the line: hash, body, number, brackets, newline."""
    line = export.records[number]
    for at in range(len(line)):
        flipped = line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]
        changed = [*export.records[:number], flipped, *export.records[number + 1 :]]
        result = export.verify(export.lines(changed))
        assert (result.ok, result.first_bad) == (False, number)


@pytest.mark.parametrize("number", [0, 7, 14])
def test_a_dropped_record_is_found_at_its_place(export: Export, number: int) -> None:
    """The next one stands where it should be."""
    result = export.verify(export.lines(export.records[:number] + export.records[number + 1 :]))
    assert (result.ok, result.first_bad) == (False, number)
    assert f"record {number} is missing or out of order" in result.sentence


@pytest.mark.parametrize("number", [0, 7, 18])
def test_two_swapped_records_are_found_at_the_first(export: Export, number: int) -> None:
    """What came first is part of what happened."""
    swapped = list(export.records)
    swapped[number], swapped[number + 1] = swapped[number + 1], swapped[number]
    result = export.verify(export.lines(swapped))
    assert (result.ok, result.first_bad) == (False, number)


def test_a_tail_cut_off_below_a_checkpoint_is_found(export: Export) -> None:
    """The checkpoint says how many there were."""
    result = export.verify(export.lines(export.records[:17]))
    assert (result.ok, result.first_bad) == (False, 17)
    assert "truncated, a signed checkpoint covers 20 records" in result.sentence


def test_a_tail_cut_off_with_its_checkpoints_is_found_by_one_kept_outside(export: Export) -> None:
    """Nothing inside can show it: this is what the sinks are for."""
    cut = export.lines(export.records[:10], export.notes[:2])
    assert export.verify(cut).ok
    result = verify_lines(cut, [parse_key(export.vkey)], outside=export.outside())
    assert (result.ok, result.first_bad) == (False, 10)


def test_a_last_line_cut_short_is_found(export: Export) -> None:
    """As a full disk leaves it."""
    lines = export.lines(export.records, export.notes[:3])
    lines[-1] = lines[-1][:-20]
    assert export.verify(lines).first_bad == COUNT - 1


def test_a_rewritten_record_with_a_fitting_hash_is_found_between_two_checkpoints(
    export: Export,
) -> None:
    """The hash beside it is no proof, the signed root is: it says between which records to look."""
    changed = list(export.records)
    changed[12] = forge(changed[12], b'"watts":12', b'"watts":11')
    result = export.verify(export.lines(changed))
    assert (result.ok, result.first_bad, result.covered) == (False, 10, 10)
    assert "records 10 to 14 are not those that were signed" in result.sentence


def test_a_log_rewritten_from_the_start_is_found(export: Export) -> None:
    """Consistent in itself, and not what was signed; without signatures it rests on nothing."""
    forged = [forge(line, b"rack", b"rock") for line in export.records]
    result = export.verify(export.lines(forged))
    assert (result.ok, result.first_bad) == (False, 0)
    assert "rewritten" in result.sentence
    result = export.verify(export.lines(forged, []))
    assert (result.ok, result.first_bad) == (False, 0)
    assert "rests on nothing" in result.sentence


def test_a_log_signed_anew_by_another_key_is_found(export: Export) -> None:
    """Whoever rewrites everything lacks the key."""
    other = Signer.generate("example.com/ledger")
    tree = CompactRange()
    notes = []
    for number, line in enumerate(export.records, 1):
        tree.append(leaf_hash(line[line.index(b'{"at"') : -2]))
        if number % EVERY == 0:
            notes.append(other.sign_checkpoint("example.com/ledger", number, tree.root()))
    result = export.verify(export.lines(notes=notes))
    assert (result.ok, result.first_bad) == (False, 0)
    assert "no key that we were given signed the note" in result.sentence
    assert verify_lines(export.lines(notes=notes), [parse_key(other.vkey)]).ok


def test_checkpoints_of_another_log_do_not_count(export: Export, signer: Signer) -> None:
    """One key may sign for two sites."""
    key = parse_key(signer.vkey)
    result = verify_lines(export.lines(), [key], origin="example.com/other")
    assert (result.ok, result.first_bad) == (False, 0)


def test_a_checkpoint_out_of_place_is_found(export: Export) -> None:
    """It would speak of other records than those before it."""
    lines = export.lines()
    lines.append(checkpoint_line(export.notes[0]))
    result = export.verify(lines)
    assert (result.ok, result.first_bad) == (False, 5)


def test_an_empty_export_proves_nothing(export: Export) -> None:
    """No news is not good news."""
    assert not export.verify([]).ok


def test_strict_mode_finds_what_is_signed_but_not_canonical(signer: Signer) -> None:
    """A record with two meanings is refused even when its hash and signature are right."""
    record = b'{"at":"x","body":{"a":1,"a":2},"kind":"stop","seq":0,"v":1}'
    tree = CompactRange()
    tree.append(leaf_hash(record))
    note = signer.sign_checkpoint("o", 1, tree.root())
    lines = [record_line(leaf_hash(record), record), checkpoint_line(note)]
    keys = [parse_key(signer.vkey)]
    assert verify_lines(lines, keys).ok
    result = verify_lines(lines, keys, strict=True)
    assert (result.ok, result.first_bad) == (False, 0)


def test_the_command_says_one_sentence_and_an_exit_code(
    ledger: Ledger,
    signer: Signer,
    tmp_path: Path,
    export: Export,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For a person and for a script, with keys and outside checkpoints from files."""
    good, cut, key, kept = (tmp_path / name for name in ("good", "cut", "key", "kept"))
    ledger.export(good)
    cut.write_bytes(b"".join(export.lines(export.records[:10], export.notes[:2])))
    key.write_text(signer.vkey + "\n")
    FileSink(kept).publish(export.notes[-1])
    assert main([str(good), "--key", str(key), "--checkpoints", str(kept), "--strict"]) == 0
    assert main([str(cut), "--key", signer.vkey]) == 0
    assert main([str(cut), "--key", signer.vkey, "--checkpoints", str(kept)]) == 1
    assert main([str(tmp_path / "missing"), "--key", str(key)]) == 1
    kept.write_text("{}\n")
    assert main([str(good), "--key", str(key), "--checkpoints", str(kept)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "verified: 20 records hold; signed checkpoints cover 20."
    assert [line.split(":")[0] for line in said[1:]] == ["verified"] + ["NOT VERIFIED"] * 3
    with pytest.raises(SystemExit, match="2"):
        main([str(good), "--key", "nonsense"])


def test_twenty_thousand_records_are_exported_and_verified_in_flat_memory(
    ledger: Ledger, signer: Signer, tmp_path: Path
) -> None:
    """An export of years must be verifiable on a small machine."""
    for number in range(20_000):
        assert ledger.append_read(RecordKind.READ, {"n": number})
        if number % 5_000 == 4_999:
            ledger.flush()
            ledger.checkpoint()
    path = tmp_path / "log.jsonl"
    tracemalloc.start()
    try:
        assert ledger.export(path) == 20_000
        assert main([str(path), "--key", signer.vkey]) == 0
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 3_000_000 < path.stat().st_size
    with path.open() as lines:
        numbers = [json.loads(line)["record"]["seq"] for line in lines if '"leaf"' in line[:8]]
    assert all(after == before + 1 for before, after in pairwise(numbers))
