"""A checkpoint is kept where it was said to be kept, or it is known that it was not."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from interlock_guardrails.ledger import sinks
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.ledger.sinks import FileSink, GitSink
from interlock_guardrails.ledger.verify import main
from interlock_tools.errors import InvalidRequestError

OpenLedger = Callable[..., Ledger]
Write = Callable[[int], None]


def git(folder: Path, *words: str) -> str:
    """What git prints in this folder."""
    done = subprocess.run(  # noqa: S603  (our own words)
        ["git", "-C", str(folder), *words],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An empty work tree with a remote by the name of origin."""
    tree, remote = tmp_path / "tree", tmp_path / "remote.git"
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(remote))
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(tree))
    git(tree, "remote", "add", "origin", str(remote))
    return tree


def note(signer: Signer, size: int) -> str:
    """A checkpoint of so many records."""
    return signer.sign_checkpoint("example.com/ledger", size, bytes(32))


def test_each_checkpoint_is_a_commit_and_the_newest_is_the_file(tree: Path, signer: Signer) -> None:
    """The history keeps what the file no longer says."""
    sink = GitSink(tree)
    assert sink.kept() == []
    for size in (1, 2):
        sink.publish(note(signer, size))
    sink.publish(note(signer, 2))  # it may come again
    assert git(tree, "log", "--format=%s").splitlines() == ["Checkpoint at 2", "Checkpoint at 1"]
    assert sink.kept() == [note(signer, 2)]
    assert git(tree, "show", "HEAD~1:checkpoint") == note(signer, 1)
    assert git(tree, "status", "--porcelain") == ""


def test_the_remote_gets_each_commit_and_is_asked_what_it_holds(
    tree: Path, signer: Signer, tmp_path: Path
) -> None:
    """Who rewrites this host does not rewrite that one."""
    sink = GitSink(tree, "origin")
    assert sink.kept() == []
    sink.publish(note(signer, 1))
    assert git(tmp_path / "remote.git", "show", "main:checkpoint") == note(signer, 1)
    sink.publish(note(signer, 2))
    git(tree, "reset", "--quiet", "--hard", "HEAD~1")  # this host was rolled back
    assert sink.kept() == [note(signer, 1), note(signer, 2)]


def test_a_failing_push_is_told_and_made_up_for(tree: Path, signer: Signer, tmp_path: Path) -> None:
    """The commit is here already; the next push brings both."""
    remote, gone = tmp_path / "remote.git", tmp_path / "gone.git"
    sink = GitSink(tree, "origin")
    remote.rename(gone)
    with pytest.raises(OSError, match="git push failed: fatal"):
        sink.publish(note(signer, 1))
    with pytest.raises(OSError, match="git fetch failed"):
        sink.kept()
    gone.rename(remote)
    sink.publish(note(signer, 1))
    assert git(remote, "log", "--format=%s", "main").splitlines() == ["Checkpoint at 1"]


def test_a_history_of_somebody_else_at_the_remote_is_not_overwritten(
    tree: Path, signer: Signer, tmp_path: Path
) -> None:
    """Two logs that share a branch by mistake must notice."""
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(tmp_path / "remote.git"), str(other))
    GitSink(other, "origin").publish(note(signer, 7))
    with pytest.raises(OSError, match="git push failed"):
        GitSink(tree, "origin").publish(note(signer, 1))
    assert git(tmp_path / "remote.git", "show", "main:checkpoint") == note(signer, 7)


def test_a_folder_that_is_no_work_tree_is_a_failing_sink(tmp_path: Path, signer: Signer) -> None:
    """It may be a disk that is not mounted: nothing is created there."""
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(OSError, match="git rev-parse failed"):
            GitSink(path).publish(note(signer, 1))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_git_is_a_failing_sink(
    tree: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not a crash of the thread that publishes."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="git"):
        GitSink(tree).publish(note(signer, 1))


def test_nothing_of_the_work_tree_is_run(tree: Path, signer: Signer, tmp_path: Path) -> None:
    """Who can write a hook there could otherwise act as us."""
    hook = tree / ".git" / "hooks" / "post-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    hook.chmod(0o755)
    GitSink(tree).publish(note(signer, 1))
    assert not (tmp_path / "ran").exists()


def test_credentials_in_an_address_are_not_repeated(tree: Path, signer: Signer) -> None:
    """The reason goes into the log and into the ledger."""
    git(tree, "remote", "set-url", "origin", "https://user:hunter2@127.0.0.1:1/x.git")
    with pytest.raises(OSError, match="git push failed") as failure:
        GitSink(tree, "origin").publish(note(signer, 1))
    assert "hunter2" not in str(failure.value)


def test_a_git_that_hangs_is_a_failing_sink(
    tree: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next sink must get its checkpoint."""
    monkeypatch.setattr(sinks, "GIT_TIMEOUT_S", 0.0)
    with pytest.raises(OSError, match="took longer than 0 s"):
        GitSink(tree).publish(note(signer, 1))


@pytest.mark.parametrize("name", ["--upload-pack=x", "https://h/x.git", "a b", "..", "a..b"])
def test_what_is_no_plain_name_is_no_remote(tmp_path: Path, name: str) -> None:
    """It would be an option, or an address with credentials in the settings."""
    with pytest.raises(InvalidRequestError):
        GitSink(tmp_path, name)
    with pytest.raises(InvalidRequestError):
        GitSink(tmp_path, "origin", name)


def test_the_file_in_git_serves_the_verifier(
    open_ledger: OpenLedger, write: Write, tree: Path, signer: Signer, tmp_path: Path
) -> None:
    """As it is, without being turned into anything else first."""
    write(3)
    ledger = open_ledger(sinks=[GitSink(tree)], checkpoint_after_s=float("inf"))
    ledger.checkpoint()
    ledger.export(tmp_path / "log")
    kept = str(tree / "checkpoint")
    assert main([str(tmp_path / "log"), "--key", signer.vkey, "--checkpoints", kept]) == 0


def test_a_line_that_a_crash_cut_short_spoils_no_other(signer: Signer, tmp_path: Path) -> None:
    """It was never said to be safe, so it may go."""
    path = tmp_path / "checkpoints.jsonl"
    sink = FileSink(path)
    assert sink.kept() == []
    sink.publish(note(signer, 1))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    assert sink.kept() == [note(signer, 1)]
    sink.publish(note(signer, 2))
    assert path.read_bytes().startswith(whole)
    assert sink.kept() == [note(signer, 2)]
    assert len(path.read_bytes().splitlines()) == 2
