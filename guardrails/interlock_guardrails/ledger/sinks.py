"""Where checkpoints go outside the database, so that who can rewrite it cannot rewrite them too."""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from interlock_guardrails.ledger.verify import BadNoteError, checkpoint_line, read_notes
from interlock_tools.errors import InvalidRequestError

GIT_TIMEOUT_S = 20.0  # for each command; a push crosses a network
ELSEWHERE = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"}
ABSENT = 2  # exit status of `git ls-remote --exit-code` where there is no such branch


class Sink(Protocol):
    """A place for checkpoints. It may be called again with one that it already has."""

    @property
    def name(self) -> str:
        """What people call this place, such as `file checkpoints.jsonl`."""
        ...

    def publish(self, note: str) -> None:
        """Keep a checkpoint; return only once it is safe there, and within seconds in any case.

        Raises:
            OSError: it could not be kept. A sink with another failure turns it into this one.
        """
        ...


@runtime_checkable
class Readable(Protocol):
    """A place that can also be asked what it holds, so that a store can be compared with it."""

    def kept(self) -> Sequence[str]:
        """The newest checkpoints there, as notes; none where none was published yet.

        Raises:
            OSError: it cannot be read now.
        """
        ...


class FileSink:
    """A file that only grows, one JSON line for each checkpoint; `verify --checkpoints` reads it.

    The folder must exist: one that is missing may be a disk that is not mounted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = f"file {path.name}"

    def publish(self, note: str) -> None:
        """Append the checkpoint and wait for the disk."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        with os.fdopen(os.open(self._path, flags, 0o644), "r+b", buffering=0) as file:
            _drop_torn_line(file.fileno())
            line = checkpoint_line(note)
            if file.write(line) != len(line):
                raise OSError(f"{self._path.name} took only a part of a checkpoint")
            os.fsync(file.fileno())

    def kept(self) -> Sequence[str]:
        """The last whole line; a line cut short by a crash was never said to be safe."""
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        whole = [line for line in lines[-2:] if line.endswith(b"\n")]
        try:
            return list(read_notes(whole[-1])) if whole else []
        except BadNoteError:
            return [whole[-1].decode(errors="replace")]  # for the one who asks to find it bad


def _drop_torn_line(descriptor: int) -> None:
    """Cut off what a crash left of a line; otherwise the next one would be unreadable too."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, 65_536, max(0, size - 65_536))
    if not tail.endswith(b"\n"):
        os.ftruncate(descriptor, size - len(tail) + tail.rfind(b"\n") + 1)


class GitSink:
    """A git work tree that gets a commit for each checkpoint, and a remote that gets each commit.

    The file `checkpoint` holds the newest one, as C2SP tlog-tiles has it; the history holds the
    others. The work tree must exist, with a branch of its own and nobody else who commits to it.
    How to reach the remote, with which credentials, is git's own configuration.

    Args:
        path: the work tree, or a folder in it.
        remote: the name of a configured remote to push to, such as `origin`; not its address.
        branch: the branch of the remote.

    Raises:
        InvalidRequestError: `remote` or `branch` is no plain name.
    """

    def __init__(self, path: Path, remote: str | None = None, branch: str = "main") -> None:
        for name in filter(None, (remote, branch)):
            if re.fullmatch(r"[A-Za-z0-9][\w./-]*", name, re.ASCII) is None or ".." in name:
                raise InvalidRequestError(f"{name!r} is no name of a git remote or branch")
        self._path, self._remote, self._branch = path, remote, branch
        self.name = f"git {path.name}" + (f" and remote {remote}" if remote else "")

    def publish(self, note: str) -> None:
        """Commit the checkpoint; push it, and with it whatever an earlier push did not bring."""
        if self._committed() != note:
            _write_durably(self._path / "checkpoint", note)
            self._git("add", "--", "checkpoint")
            _, size, *_ = note.split("\n")
            self._git("commit", "--no-verify", "-m", f"Checkpoint at {size}", "--", "checkpoint")
        if self._remote is not None:
            self._git("push", self._remote, f"HEAD:refs/heads/{self._branch}")

    def kept(self) -> Sequence[str]:
        """What is committed here, and what the remote holds, which is the stronger witness."""
        here, there = self._committed(), None
        if self._remote is not None:
            there = self._fetched(self._remote)
        return list(dict.fromkeys(note for note in (here, there) if note is not None))

    def _committed(self) -> str | None:
        self._git("rev-parse", "--git-dir")  # a folder that is no work tree is a failure
        return self._shown("HEAD")

    def _fetched(self, remote: str) -> str | None:
        branch = f"refs/heads/{self._branch}"
        if self._run("ls-remote", "--exit-code", remote, branch).returncode == ABSENT:
            return None
        self._git("fetch", remote, branch)
        return self._shown("FETCH_HEAD")

    def _shown(self, commit: str) -> str | None:
        listed = self._run("ls-tree", "--name-only", commit, "--", "checkpoint")
        if listed.returncode != 0 or not listed.stdout:
            return None  # no commit yet, or none with a checkpoint
        return self._git("show", f"{commit}:./checkpoint")

    def _git(self, command: str, *arguments: str) -> str:
        done = self._run(command, *arguments)
        if done.returncode != 0:
            raise OSError(f"git {command} failed: {_first_line(done.stderr)}")
        return done.stdout

    def _run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        settings = {
            "user.name": "Interlock",
            "user.email": "interlock@localhost",
            "commit.gpgSign": "false",
            "core.hooksPath": os.devnull,  # nothing of the work tree is run
            "core.fsync": "committed",
            "gc.auto": "0",
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        environment = {key: value for key, value in os.environ.items() if key not in ELSEWHERE}
        try:
            return subprocess.run(  # noqa: S603  (fixed arguments, no shell)
                ["git", "-C", str(self._path), *options, command, *arguments],  # noqa: S607
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=GIT_TIMEOUT_S,
                env=environment | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"git {command} took longer than {GIT_TIMEOUT_S:g} s") from None


def _write_durably(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _first_line(stderr: str) -> str:
    """What git complains of, without the credentials that an address may hold."""
    lines = [line for line in stderr.splitlines() if line.strip()] or ["no reason was given"]
    told = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[0])
    return re.sub(r"//[^/@\s]*@", "//", told)[:300]
