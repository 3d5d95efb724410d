"""The targets that were taken, kept for the settlement of an event: a JSON line each."""

import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from interlock_servers.flex.models import LoadTarget
from interlock_tools.errors import InvalidRequestError

FILE_NAME: Final = "grid-targets.jsonl"
MAX_BYTES: Final = 16 * 1024 * 1024  # then the file goes aside, and the one aside before it goes

log = logging.getLogger(__name__)


class TargetRecord:
    """A file that grows by what was taken; safe between threads. It is no evidence: the ledger is.

    A disk that is full costs the record and nothing else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def add(self, targets: Iterable[LoadTarget]) -> None:
        """Write them down."""
        lines = "".join(f"{target.model_dump_json()}\n" for target in targets)
        try:
            with self._lock:
                if self._path.exists() and self._path.stat().st_size > MAX_BYTES:
                    self._path.replace(_aside(self._path))
                with self._path.open("a", encoding="utf-8") as out:
                    out.write(lines)
        except OSError as error:
            log.error("the grid's targets cannot be recorded", extra={"why": str(error)})


def recorded_targets(path: Path) -> tuple[LoadTarget, ...]:
    """What was written down, oldest first; a last line that was cut off is left out.

    Raises:
        InvalidRequestError: there is no such file, or it is not one of ours.
    """
    found: list[LoadTarget] = []
    for each in (_aside(path), path):
        try:
            text = each.read_text("utf-8") if each == path or each.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"the targets in {each} cannot be read: {error}") from error
        whole = text[: text.rfind("\n") + 1].splitlines()
        for number, line in enumerate(whole, start=1):
            try:
                found.append(LoadTarget.model_validate_json(line))
            except ValidationError as error:
                raise InvalidRequestError(
                    f"line {number} of {each} is no target: {error.errors()[0]['msg']}"
                ) from None
    return tuple(found)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")
