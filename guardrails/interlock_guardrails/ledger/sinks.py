"""Where checkpoints go outside the database, so that who can rewrite it cannot rewrite them too."""

import os
from pathlib import Path
from typing import Protocol

from interlock_guardrails.ledger.verify import checkpoint_line


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


class FileSink:
    """A file that only grows, one JSON line for each checkpoint; `verify --checkpoints` reads it.

    The folder must exist: one that is missing may be a disk that is not mounted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = f"file {path.name}"

    def publish(self, note: str) -> None:
        """Append the checkpoint and wait for the disk."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with os.fdopen(os.open(self._path, flags, 0o644), "ab", buffering=0) as file:
            line = checkpoint_line(note)
            if file.write(line) != len(line):
                raise OSError(f"{self._path.name} took only a part of a checkpoint")
            os.fsync(file.fileno())
