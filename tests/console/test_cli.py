"""The command line as an operator meets it."""

import getpass
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from interlock_console.cli import app

RUNNER = CliRunner()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings of a site without components, whose user is an operator."""
    path = tmp_path / "interlock.toml"
    path.write_text(
        f"""
data_dir = "{tmp_path / "data"}"
[site]
site_id = "lab"
gpus = 512
hosts = 64
[people]
{json.dumps(getpass.getuser())} = ["operator"]
""",
        "utf-8",
    )
    return path


def interlock(*words: str | Path) -> tuple[int, str]:
    """Exit status and everything that was printed."""
    result = RUNNER.invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


def test_a_missing_settings_file_is_one_sentence_and_exit_status_2(tmp_path: Path) -> None:
    """Scripts can tell a mistake of the caller from a broken promise."""
    status, said = interlock("up", "--config", tmp_path / "no.toml")

    assert status == 2
    assert "there is no such settings file" in said
    assert "Traceback" not in said


def test_nothing_waits_on_a_new_site(config: Path) -> None:
    """The queue of a site that has just begun is empty, and says so."""
    assert interlock("approvals", "list", "--config", config) == (0, "nothing waits for people\n")


def test_a_vote_on_what_does_not_wait_is_refused(config: Path) -> None:
    """A vote finds an open change or it is no vote."""
    status, said = interlock(
        "approvals", "approve", "chg-0123456789ab", "--digest", "0" * 12, "--config", config
    )

    assert status == 2
    assert "does not wait for people" in said


def test_stop_and_resume_are_on_the_ledger(config: Path, tmp_path: Path) -> None:
    """Whoever stops the site is known afterwards, by an outsider too."""
    assert interlock("stop", "--why", "smoke in row 3", "--config", config)[0] == 0
    assert interlock("resume", "--why", "false alarm", "--config", config)[0] == 0
    export = tmp_path / "ledger.jsonl"
    status, said = interlock("ledger", "export", export, "--config", config)

    assert status == 0
    assert "2 records" in said
    key = said.replace("\n", "").split("--key ")[1]
    assert interlock("ledger", "verify", export, "--key", key)[0] == 0


def test_an_export_that_was_touched_does_not_verify(config: Path, tmp_path: Path) -> None:
    """One changed letter is named."""
    interlock("stop", "--why", "smoke in row 3", "--config", config)
    export = tmp_path / "ledger.jsonl"
    said = interlock("ledger", "export", export, "--config", config)[1]
    key = said.replace("\n", "").split("--key ")[1]
    export.write_bytes(export.read_bytes().replace(b"row 3", b"row 4"))

    assert interlock("ledger", "verify", export, "--key", key)[0] == 1


def test_serving_one_component_over_http_is_pointed_to_up() -> None:
    """One way to do a thing."""
    status, said = interlock("serve", "maxlps")

    assert status == 2
    assert "interlock up" in said


def test_joining_a_factory_that_is_not_there_says_how_to_start_one(tmp_path: Path) -> None:
    """The error names the command that writes the file."""
    status, said = interlock("serve", "maxlps", "--stdio", "--factory", tmp_path / "f.json")

    assert status == 2
    assert "interlock plant" in said.replace("\n", " ")


def test_a_trace_with_a_bad_line_is_named_before_anything_starts(tmp_path: Path) -> None:
    """File, line and what is wrong with it."""
    trace = tmp_path / "trace.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,many\n", "utf-8"
    )
    status, said = interlock("demo", "--trace", trace)

    assert status == 2
    assert "line 2" in said.replace("\n", " ")
