"""A file of what was taken, a line each with its checksum; it never fills the disk.

What cannot be read is put aside by another name, and that it was lost is the first line of the new
file: until people have looked, nothing older is believed.
"""

import fcntl
import json
import logging
import os
import zlib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from interlock_tools.errors import InvalidRequestError

FORMAT: Final = "interlock-flex-replays-1"
MAX_LINES: Final = 60_000  # then it is written anew with what is still remembered
MAX_BYTES: Final = 32 * 1024 * 1024

log = logging.getLogger(__name__)


class Taken(NamedTuple):
    """An event that was taken; `lasts` where nothing that is signed says how old it is."""

    event_id: str
    sent_at: datetime
    signature: bytes
    lasts: bool


class Remembered(NamedTuple):
    """What a file holds; `whole` is false where it could not be read and was begun anew."""

    taken: tuple[Taken, ...]
    lost_at: datetime | None
    whole: bool


class _UnreadableError(Exception):
    """The file is not what we wrote."""


class ReplayFile:
    """One file, for one process; not safe between threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = 0
        self._out: IO[bytes] | None = None
        self._lock: IO[bytes] | None = None

    def open(self, now: datetime) -> Remembered:
        """Read it, or begin it.

        Raises:
            InvalidRequestError: another process has it open, or the folder cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = self._path.with_name(self._path.name + ".lock").open("wb")
        except OSError as error:
            raise InvalidRequestError(f"{self._path} cannot be kept: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise InvalidRequestError(
                f"{self._path} is kept by another process; give each its own MQTT client_id"
            ) from None
        self._lock = lock
        try:
            return self._opened(now)
        except OSError as error:
            self.close()
            raise InvalidRequestError(f"{self._path} cannot be kept: {error}") from error

    def _opened(self, now: datetime) -> Remembered:
        remembered = Remembered((), None, whole=True)
        if self._path.exists():
            try:
                remembered = _read(self._path)
            except _UnreadableError as error:
                aside = self._path.with_name(self._path.name + ".unreadable")
                self._path.replace(aside)
                log.error(
                    "what was taken before is lost; nothing older is believed",
                    extra={"why": str(error), "aside": str(aside)},
                )
                remembered = Remembered((), now, whole=False)
        self._write(remembered.taken, remembered.lost_at)
        return remembered

    def add(self, taken: Taken) -> bool:
        """Write one more; false where it should be written anew as a whole."""
        if self._out is None or self._lines >= MAX_LINES:
            return False
        try:
            self._out.write(_line(_entry(taken)))
            self._out.flush()
            if taken.lasts:
                os.fsync(self._out.fileno())
        except OSError as error:
            log.error("what was taken cannot be kept", extra={"why": str(error)})
            self._release()
            return False
        self._lines += 1
        return True

    def rewrite(self, taken: Iterable[Taken], lost_at: datetime | None) -> None:
        """Write it anew; where that fails, the next one is another try."""
        try:
            self._write(taken, lost_at)
        except OSError as error:
            log.error("what was taken cannot be kept", extra={"why": str(error)})

    def close(self) -> None:
        """Let go of it."""
        self._release()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _release(self) -> None:
        out, self._out = self._out, None
        if out is not None:
            try:
                out.close()
            except OSError as error:
                log.error("what was taken cannot be kept", extra={"why": str(error)})

    def _write(self, taken: Iterable[Taken], lost_at: datetime | None) -> None:
        self._release()
        head = {"format": FORMAT, "lost_at": None if lost_at is None else lost_at.isoformat()}
        lines = [_line(head), *(_line(_entry(one)) for one in taken)]
        fresh = self._path.with_name(self._path.name + ".new")
        with fresh.open("wb") as out:
            out.writelines(lines)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(self._path)
        self._out = self._path.open("ab")
        self._lines = len(lines)


def _entry(taken: Taken) -> dict[str, Any]:
    return {
        "id": taken.event_id,
        "at": taken.sent_at.isoformat(),
        "sig": taken.signature.hex(),
        "lasts": taken.lasts,
    }


def _line(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _read(path: Path) -> Remembered:
    """What the file holds; a last line that was cut off while it was written never counted."""
    if path.stat().st_size > MAX_BYTES:
        raise _UnreadableError(f"it has more than {MAX_BYTES} bytes")
    lines = path.read_bytes().split(b"\n")[:-1]
    entries = [_parsed(line, number) for number, line in enumerate(lines, start=1)]
    if not entries or entries[0].get("format") != FORMAT:
        raise _UnreadableError(f"it does not begin as {FORMAT}")
    try:
        lost = entries[0]["lost_at"]
        taken = tuple(
            Taken(
                str(entry["id"]),
                _moment(entry["at"]),
                bytes.fromhex(entry["sig"]),
                entry["lasts"] is True,
            )
            for entry in entries[1:]
        )
        return Remembered(taken, None if lost is None else _moment(lost), whole=True)
    except (KeyError, TypeError, ValueError) as error:
        raise _UnreadableError(f"an entry is not one: {error}") from error


def _parsed(line: bytes, number: int) -> dict[str, Any]:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        raise _UnreadableError(f"line {number} is not what was written")
    try:
        entry = json.loads(text)
    except ValueError as error:
        raise _UnreadableError(f"line {number} is no JSON") from error
    if not isinstance(entry, dict):
        raise _UnreadableError(f"line {number} is no object")
    return entry


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone")
    return moment
