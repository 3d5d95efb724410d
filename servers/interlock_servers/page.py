"""What every answer of a server carries: how old it is, where it came from, and its two forms.

The structured form is the whole answer as JSON. The text says the same for clients that show only
text: JSON for one thing, and for a listing a table whose header stands once.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

_BARE = re.compile(r"[\w.:/@+-]+", re.ASCII)
_TAKEN = frozenset({"true", "false", "null"})


class Page(BaseModel):
    """Base of every tool's answer; a field that is absent is unknown, never zero, never healthy."""

    model_config = ConfigDict(frozen=True)

    observed_at: datetime
    origin: str

    def text(self) -> str:
        """The answer as compact JSON."""
        return self.model_dump_json(exclude_none=True)


class Heard(Page):
    """Base of an answer from what a bus has told us; while it is silent we go on with old words."""

    stale_since: datetime | None = Field(
        default=None, description="bus out of reach since then: old values"
    )


class Row(BaseModel):
    """Base of a listing's rows: `identity` names the fields that stay whatever was asked for.

    All others may be absent: unknown, or not asked for.
    """

    model_config = ConfigDict(frozen=True)

    identity: ClassVar[tuple[str, ...]]


class Listing(Page):
    """Base of an answer that lists: `listed` names the field that holds the rows."""

    listed: ClassVar[str]

    next_cursor: str | None = None

    def text(self) -> str:
        """What is said of the whole, a line each, then a table of comma-separated rows.

        An empty cell is a field that is absent; text that is not one plain word is a JSON string.
        """
        whole = self.model_dump(mode="json", exclude_none=True)
        rows = whole.pop(self.listed)
        said = [f"{name}: {cell(value)}" for name, value in whole.items()]
        return "\n".join([*said, f"{self.listed}: {len(rows)} rows", *table(rows)])


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A header of the fields that any row has, and a line for each row."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        return []
    lines = [",".join(cell(row.get(name)) for name in names) for row in rows]
    return [",".join(names), *lines]


def cell(value: Any) -> str:
    """One value of a table, which cannot be mistaken for another one or leave its cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str) and _is_word(value):
        return value
    if isinstance(value, list) and value and all(_is_word_or_number(item) for item in value):
        return " ".join("null" if item is None else cell(item) for item in value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _is_word_or_number(value: Any) -> bool:
    return value is None or type(value) in {int, float} or _is_word(value)


def _is_word(value: Any) -> bool:
    """Whether it may stand without quotes: plain characters, and neither a number nor a truth."""
    if not isinstance(value, str) or not _BARE.fullmatch(value) or value in _TAKEN:
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False
