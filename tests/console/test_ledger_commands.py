"""What an operator does to the ledger at the command line, and what the verifier says after."""

import getpass
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from interlock_console import ledger_commands
from interlock_console.settings import InterlockSettings, parse
from interlock_guardrails.engine import create_store_engine
from interlock_guardrails.ledger.keys import keyring_of
from interlock_guardrails.ledger.verify import main
from interlock_servers.checkpoint_sink import SinkSettings, open_ledger
from interlock_tools.clock import SystemClock
from interlock_tools.errors import ConflictError, InvalidRequestError


@pytest.fixture
def settings(tmp_path: Path) -> InterlockSettings:
    """A site without components, whose user is an operator."""
    document = {
        "data_dir": str(tmp_path / "data"),
        "site": {"site_id": "lab", "gpus": 512, "hosts": 64},
        "people": {getpass.getuser(): ["operator"]},
    }
    return parse(document, "test")


@pytest.fixture
def keyring(settings: InterlockSettings) -> str:
    """Where the public keys of the site are."""
    return str(keyring_of(settings.data_dir / "ledger-key.pem"))


@pytest.fixture
def console() -> Console:
    """A console whose words are kept."""
    return Console(file=io.StringIO(), width=500, highlight=False)


def said(console: Console) -> str:
    """What was printed so far."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def keys_in(keyring: str) -> list[str]:
    """The public keys in the file, oldest first."""
    return Path(keyring).read_text("utf-8").split()


async def export(settings: InterlockSettings, path: Path) -> None:
    """The log as an outsider gets it."""
    engine = create_store_engine(f"sqlite:///{settings.data_dir / 'interlock.db'}")
    opening = open_ledger(
        engine, SinkSettings(), site_id="lab", data_dir=settings.data_dir, clock=SystemClock()
    )
    async with opening as ledger:
        ledger.export(path)
    engine.dispose()


async def test_a_changed_key_is_printed_and_the_log_verifies_with_the_keyring(
    console: Console, settings: InterlockSettings, keyring: str, tmp_path: Path
) -> None:
    """Twice, by whoever runs the machine, and on record."""
    for _ in range(2):
        assert await ledger_commands.rotate(console, settings) == 0
    await export(settings, tmp_path / "log")
    assert main([str(tmp_path / "log"), "--key", keyring]) == 0
    first, second, third = keys_in(keyring)
    assert main([str(tmp_path / "log"), "--key", first]) == 0
    assert second in said(console)
    assert third in said(console)
    assert f"person:{getpass.getuser()}" in (tmp_path / "log").read_text("utf-8")
    await ledger_commands.show_keys(console, settings)
    assert said(console).split()[-3:] == [first, second, third]


async def test_there_are_no_keys_before_there_is_a_ledger(
    console: Console, settings: InterlockSettings
) -> None:
    """One sentence, not a traceback."""
    with pytest.raises(InvalidRequestError, match="has not begun a ledger"):
        await ledger_commands.show_keys(console, settings)


async def test_a_proof_is_a_file_that_is_checked_alone(
    console: Console, settings: InterlockSettings, keyring: str, tmp_path: Path
) -> None:
    """One record, or the growth since a checkpoint that somebody kept."""
    await ledger_commands.rotate(console, settings)
    proof, growth = tmp_path / "proof.json", tmp_path / "growth.json"
    await ledger_commands.prove(console, settings, 0, proof)
    assert main(["--proof", str(proof), "--key", keyring]) == 0
    assert json.loads(proof.read_text("utf-8"))["seq"] == 0
    kept = settings.data_dir / "checkpoints.jsonl"
    await ledger_commands.prove_since(console, settings, kept, growth)
    assert main(["--proof", str(growth), "--key", keyring]) == 0
    with pytest.raises(InvalidRequestError, match="no record 99"):
        await ledger_commands.prove(console, settings, 99, tmp_path / "none.json")
    with pytest.raises(InvalidRequestError, match="holds no checkpoints"):
        await ledger_commands.prove_since(console, settings, tmp_path / "missing", growth)
    (tmp_path / "empty").touch()
    with pytest.raises(InvalidRequestError, match="is empty"):
        await ledger_commands.prove_since(console, settings, tmp_path / "empty", growth)


async def test_every_record_is_an_event_in_the_ocsf_export(
    console: Console, settings: InterlockSettings, tmp_path: Path
) -> None:
    """The count is printed."""
    await ledger_commands.rotate(console, settings)
    await ledger_commands.export_ocsf(console, settings, tmp_path / "events")
    (event,) = map(json.loads, (tmp_path / "events").read_text("utf-8").splitlines())
    assert event["class_uid"] == 3004
    assert "1 events in" in said(console)


async def test_a_backup_comes_back_and_an_old_one_only_by_a_persons_word(
    console: Console, settings: InterlockSettings, tmp_path: Path
) -> None:
    """After which the site starts as if nothing had been lost, but for the record of it."""
    await ledger_commands.rotate(console, settings)
    backup, store = tmp_path / "backup", settings.data_dir / "interlock.db"
    await ledger_commands.back_up(console, settings, backup)
    with pytest.raises(ConflictError, match="move it away"):
        await ledger_commands.restore(console, settings, backup)
    await ledger_commands.rotate(console, settings)
    for path in settings.data_dir.glob("interlock.db*"):
        path.unlink()
    with pytest.raises(ConflictError, match="is not the newest"):
        await ledger_commands.restore(console, settings, backup)
    assert not store.exists()
    await ledger_commands.restore(console, settings, backup, accept_older=True)
    await export(settings, tmp_path / "log")
    log = (tmp_path / "log").read_text("utf-8")
    assert "outside_checkpoint_overruled" in log
    assert "1 records restored" in said(console)


async def test_a_person_can_say_that_a_store_is_the_right_one(
    console: Console, settings: InterlockSettings
) -> None:
    """Where the outside file and the key are gone, and nothing else can help."""
    await ledger_commands.rotate(console, settings)
    (settings.data_dir / "ledger-key.pem").unlink()
    with pytest.raises(ConflictError, match="is not there"):
        await ledger_commands.rotate(console, settings)
    await ledger_commands.overrule(console, settings)
    assert "this is on record" in said(console)
    await ledger_commands.rotate(console, settings)
