"""What a falsification test is: a public number, what the plant says, and a diagnosis."""

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from interlock_tools.errors import InvalidRequestError
from interlock_tools.svg import Picture

VARIABLE = "INTERLOCK_DATA"
START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Finding:
    """What the plant says, in words with numbers, and whether that is inside the bounds."""

    got: str
    held: bool
    figures: dict[str, float] = field(default_factory=dict)
    picture: Picture | None = None


class Data:
    """The folder of public data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def rows(self, name: str) -> list[dict[str, str]]:
        """The rows of one file.

        Raises:
            InvalidRequestError: there is no such file.
        """
        path = self._folder / "power" / name
        try:
            with path.open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except OSError as error:
            raise InvalidRequestError(f"{VARIABLE} has no power/{name}: {error}") from error

    def text(self, name: str) -> str:
        """The text of one file.

        Raises:
            InvalidRequestError: there is no such file.
        """
        path = self._folder / "power" / name
        try:
            return path.read_text("utf-8")
        except OSError as error:
            raise InvalidRequestError(f"{VARIABLE} has no power/{name}: {error}") from error


@dataclass(frozen=True)
class Check:
    """One falsification test.

    Attributes:
        key: begins with its number in the list of the power model.
        expected: the public number and its bounds.
        why_not: the diagnosis where it is known to fail; None where it must hold.
        is_long: takes more than some seconds, and runs in `make twin` only.
        needs_data: reads public data, and cannot run without.
    """

    key: str
    what: str
    expected: str
    run: Callable[[Data], Finding]
    why_not: str | None = None
    is_long: bool = False
    needs_data: bool = True


def data_from_environment() -> Data | None:
    """The folder that the environment names; None where it names none."""
    folder = os.environ.get(VARIABLE)
    return Data(Path(folder)) if folder else None
