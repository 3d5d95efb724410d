"""What is wrong with a case file, as one kind of error."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from interlock_tools.errors import FactoryError


class CaseError(FactoryError):
    """A file of the bench cannot be used as it is written; nothing was tried."""


def in_words(name: str | Path, error: ValidationError, document: dict[str, Any]) -> CaseError:
    """The faults of a document, each with the case or the key in which it stands."""
    faults = error.errors(include_url=False, include_input=False)
    said = (f"{_place(item['loc'], document)}: {item['msg']}" for item in faults)
    return CaseError(f"{name}: " + "; ".join(said))


def _place(loc: tuple[int | str, ...], document: dict[str, Any]) -> str:
    """Where it stands, with a case by its name instead of its number."""
    table, *rest = loc or ("the file",)
    if rest and isinstance(rest[0], int):
        entry = document[str(table)][rest[0]]
        named = entry.get("name") or entry.get("rule") if isinstance(entry, dict) else None
        shown = f'"{named}"' if named else f"number {rest[0] + 1}"
        return " ".join([f"{table} {shown}", *(str(part) for part in rest[1:])])
    return ".".join(str(part) for part in (table, *rest))
