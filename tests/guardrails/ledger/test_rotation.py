"""A key can be changed: whoever trusted the old one can follow, and the old one ends there."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete

from interlock_guardrails.ledger.keys import keyring_of, load_keys, rotate_key
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.rows import export_lines
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.tables import checkpoints
from interlock_guardrails.ledger.verify import (
    CompactRange,
    Verification,
    checkpoint_line,
    leaf_hash,
    main,
    parse_key,
    record_line,
    verify_lines,
)
from interlock_tools.clock import ManualClock
from interlock_tools.errors import ConflictError

ORIGIN = "example.com/ledger"
Write = Callable[[int], None]


def verified(store: Engine, vkeys: Sequence[str], outside: Sequence[str] = ()) -> Verification:
    """What an outsider with these keys finds."""
    with store.connect() as connection:
        keys = [parse_key(vkey) for vkey in vkeys]
        return verify_lines(export_lines(connection), keys, outside=outside)


@pytest.fixture
def new(ledger: Ledger, write: Write) -> Signer:
    """The key that signs after record 3; there is more under each of both."""
    key = Signer.generate(ORIGIN)
    write(3)
    ledger.checkpoint()
    ledger.rotate(key, by="person:operator")
    write(2)
    ledger.checkpoint()
    return key


def test_the_old_key_vouches_for_the_new_one(store: Engine, signer: Signer, new: Signer) -> None:
    """Who holds only the old one needs to be told nothing."""
    result = verified(store, [signer.vkey])
    assert (result.ok, result.records, result.covered) == (True, 6, 6)
    (change,) = result.changes
    assert (change.size, change.announced) == (4, True)
    assert (change.old.text, change.new.text) == (signer.vkey, new.vkey)
    assert "at 4 records the key changed from example.com/ledger+" in result.sentence


def test_the_record_names_both_keys_and_the_person(ledger: Ledger, new: Signer) -> None:
    """It is the last thing that the old key signs."""
    record = ledger.read(first=3, limit=1)[0]
    assert record["kind"] == "config_changed"
    assert record["body"]["new_vkey"] == new.vkey
    assert record["body"]["by"] == "person:operator"


def test_the_ledger_verifies_itself_after_the_change(
    ledger: Ledger, store: Engine, clock: ManualClock, new: Signer
) -> None:
    """In the same process and in the next one, which knows the former keys."""
    assert ledger.verify_self().ok
    with Ledger(store, new, origin=ORIGIN, clock=clock, former_keys=ledger.vkeys[:-1]) as reopened:
        assert reopened.verify_self().ok
        assert reopened.vkeys == ledger.vkeys


def test_the_new_key_alone_is_not_enough_for_what_came_before(store: Engine, new: Signer) -> None:
    """It cannot speak for the time when it was not there."""
    assert not verified(store, [new.vkey]).ok


def test_the_old_key_ends_with_the_change(
    store: Engine, ledger: Ledger, signer: Signer, new: Signer
) -> None:
    """Who stole it afterwards cannot go on with the log, nor name another successor."""
    with store.connect() as connection:
        lines = list(export_lines(connection))
    forged = signer.sign_checkpoint(ORIGIN, *ledger.size_and_root())
    result = verify_lines([*lines[:-1], checkpoint_line(forged)], [parse_key(signer.vkey)])
    assert (result.ok, result.first_bad) == (False, 4)
    assert "was retired at 4" in result.sentence
    assert not verified(store, [signer.vkey], outside=[forged]).ok


def change_record(seq: int, old: Signer, new: Signer) -> bytes:
    """A record that names a new key."""
    return (
        b'{"at":"x","body":{"new_vkey":"%s","old_vkey":"%s","what":"ledger_key"},'
        b'"kind":"config_changed","seq":%d,"v":1}' % (new.vkey.encode(), old.vkey.encode(), seq)
    )


def forged_change(old: Signer, new: Signer, *, both: bool) -> list[bytes]:
    """A log whose only record names a new key."""
    record = change_record(0, old, new)
    tree = CompactRange()
    tree.append(leaf_hash(record))
    note = old.sign_checkpoint(ORIGIN, 1, tree.root())
    return [
        record_line(leaf_hash(record), record),
        checkpoint_line(new.sign_too(note) if both else note),
        checkpoint_line(new.sign_checkpoint(ORIGIN, 1, tree.root())),
    ]


def test_a_retired_key_names_no_successor(signer: Signer) -> None:
    """Who stole it could otherwise put a key of their own in the place of ours."""
    true, forged = Signer.generate(ORIGIN), Signer.generate(ORIGIN)
    tree, lines = CompactRange(), []
    for seq, new in enumerate((true, forged)):
        record = change_record(seq, signer, new)
        tree.append(leaf_hash(record))
        note = new.sign_too(signer.sign_checkpoint(ORIGIN, seq + 1, tree.root()))
        lines += [record_line(leaf_hash(record), record), checkpoint_line(note)]
    keys = [parse_key(signer.vkey)]
    assert verify_lines(lines[:2], keys).ok
    result = verify_lines(lines, keys)
    assert (result.ok, result.first_bad) == (False, 1)


def test_a_log_whose_last_checkpoint_is_not_by_the_key_in_force_does_not_verify_itself(
    store: Engine, ledger: Ledger, new: Signer
) -> None:
    """Its end was taken away, down to where the old key still counted."""
    with store.begin() as connection:
        connection.execute(delete(checkpoints).where(checkpoints.c.size > 3))
    result = ledger.verify_self()
    assert (result.ok, result.first_bad) == (False, 3)
    assert "the key in force" in result.sentence


def test_a_change_counts_only_under_a_checkpoint_that_both_keys_signed(signer: Signer) -> None:
    """A record alone is what anybody may have asked the log to hold."""
    other, keys = Signer.generate(ORIGIN), [parse_key(signer.vkey)]
    assert verify_lines(forged_change(signer, other, both=True), keys).ok
    result = verify_lines(forged_change(signer, other, both=False), keys)
    assert not result.ok
    assert "nothing vouches for" in result.sentence


def test_a_change_that_a_strange_key_announces_is_none(signer: Signer) -> None:
    """Only a key that counts can name its successor."""
    stranger, other = Signer.generate(ORIGIN), Signer.generate(ORIGIN)
    lines = forged_change(stranger, other, both=True)
    assert not verify_lines(lines, [parse_key(signer.vkey)]).ok


def test_outside_checkpoints_of_both_keys_are_understood(
    store: Engine, signer: Signer, ledger: Ledger, write: Write
) -> None:
    """They were kept before and after, by somebody who was told of one key."""
    write(2)
    kept = [ledger.checkpoint()]
    kept.append(ledger.rotate(Signer.generate(ORIGIN), by="person:operator"))
    write(2)
    kept.append(ledger.checkpoint())
    assert verified(store, [signer.vkey], outside=kept).ok
    with store.begin() as connection:
        connection.execute(delete(checkpoints).where(checkpoints.c.size > 2))
    assert verified(store, [signer.vkey], outside=kept).ok  # the kept ones show the change
    assert not verified(store, [signer.vkey], outside=kept[2:]).ok


def test_a_key_that_only_the_callers_word_makes_good_is_told_apart(
    store: Engine, ledger: Ledger, write: Write, signer: Signer, clock: ManualClock
) -> None:
    """As after a lost key: a person said so, the old key could not."""
    write(1)
    ledger.checkpoint()
    found = Signer.generate(ORIGIN)
    with pytest.raises(ConflictError, match="the log is signed by"):
        Ledger(store, found, origin=ORIGIN, clock=clock)
    with Ledger(
        store,
        found,
        origin=ORIGIN,
        clock=clock,
        former_keys=[signer.vkey],
        overruled_by="person:operator",
    ) as replaced:
        replaced.checkpoint()
        assert replaced.verify_self().ok
        assert replaced.read(first=1)[0]["body"]["what"] == "ledger_key_replaced"
    result = verified(store, [signer.vkey, found.vkey])
    assert (result.ok, result.changes[0].announced) == (True, False)
    assert "did not announce" in result.sentence
    assert not verified(store, [signer.vkey]).ok


def test_another_process_takes_the_new_key_up(
    store: Engine, ledger: Ledger, clock: ManualClock, signer: Signer, new: Signer
) -> None:
    """Where it knows how to get it; otherwise it signs nothing more, and says so."""
    ledger.append_read(RecordKind.READ, {})
    ledger.flush()
    other = Signer.generate(ORIGIN)
    stale = Ledger(store, new, origin=ORIGIN, clock=clock, checkpoint_after_s=float("inf"))
    renewing = Ledger(
        store,
        new,
        origin=ORIGIN,
        clock=clock,
        checkpoint_after_s=float("inf"),
        former_keys=[signer.vkey],
        renew=lambda: other,
    )
    with stale, renewing:
        ledger.rotate(other, by="person:operator")
        with pytest.raises(ConflictError, match="and our key is"):
            stale.checkpoint()
        with pytest.raises(ConflictError, match="and our key is"):
            stale.rotate(Signer.generate(ORIGIN), by="person:operator")
        renewing.checkpoint()
        assert renewing.vkeys == ledger.vkeys


def test_the_files_follow_the_key(
    store: Engine, clock: ManualClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One private key, and a keyring that a verifier takes as it is."""
    path = tmp_path / "ledger-key.pem"
    first = load_keys(ORIGIN, path, store)
    assert load_keys(ORIGIN, path, store).signer.vkey == first.signer.vkey
    with Ledger(store, first.signer, origin=ORIGIN, clock=clock) as ledger:
        ledger.checkpoint()
        second = rotate_key(ledger, ORIGIN, path, "person:operator")
        ledger.checkpoint()
        ledger.export(tmp_path / "log")
    again = load_keys(ORIGIN, path, store)
    assert (again.signer.vkey, again.former) == (second.vkey, (first.signer.vkey,))
    assert keyring_of(path).read_text().split() == [first.signer.vkey, second.vkey]
    assert sorted(file.name for file in tmp_path.glob("*.pem")) == ["ledger-key.pem"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert main([str(tmp_path / "log"), "--key", str(keyring_of(path))]) == 0
    assert main([str(tmp_path / "log"), "--key", first.signer.vkey, "--key", second.vkey]) == 0
    assert "the key changed" in capsys.readouterr().out


def test_a_crash_between_the_log_and_the_file_is_made_up_for(
    store: Engine, clock: ManualClock, tmp_path: Path
) -> None:
    """The log has changed its key, the file has not: the next start finishes it."""
    path = tmp_path / "ledger-key.pem"
    first = load_keys(ORIGIN, path, store)
    new = Signer.generate(ORIGIN)
    new.save(tmp_path / f"ledger-key.{parse_key(new.vkey).key_id.hex()}.pem")
    with Ledger(store, first.signer, origin=ORIGIN, clock=clock) as ledger:
        assert load_keys(ORIGIN, path, store).signer.vkey == first.signer.vkey  # not yet
        ledger.rotate(new, by="person:operator")
    finished = load_keys(ORIGIN, path, store)
    assert (finished.signer.vkey, finished.former) == (new.vkey, (first.signer.vkey,))
    assert Signer.load(ORIGIN, path).vkey == new.vkey


def test_a_lost_key_is_not_replaced_without_a_word(
    store: Engine, clock: ManualClock, tmp_path: Path
) -> None:
    """A new one made in silence is what somebody who rewrote the log would want."""
    path = tmp_path / "ledger-key.pem"
    first = load_keys(ORIGIN, path, store)
    Ledger(store, first.signer, origin=ORIGIN, clock=clock).close()
    path.unlink()
    with pytest.raises(ConflictError, match="is not there"):
        load_keys(ORIGIN, path, store)
    assert load_keys(ORIGIN, path, store, replace_lost=True).former == (first.signer.vkey,)
