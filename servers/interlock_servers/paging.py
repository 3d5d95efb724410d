"""Lists in pages, and only the fields that were asked for: the same for every tool that lists.

A cursor names the last row that was seen and the list that it belongs to. It is not signed: who
changes it reads from another place what could be read anyway.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, NamedTuple, TypeVar

from pydantic import Field

from interlock_servers.page import Row
from interlock_tools.canonical import digest
from interlock_tools.errors import ConflictError, InvalidRequestError

MAX_LIMIT = 200
CURSOR_MAX_CHARS = 4096

Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]
Cursor = Annotated[str | None, Field(description="next_cursor of the page before")]
Fields = Annotated[list[str] | None, Field(description="only these fields of rows")]

R = TypeVar("R", bound=Row)
T = TypeVar("T")


class Place(NamedTuple):
    """Which list a cursor belongs to: a tool and the filters that it was asked with."""

    tool: str
    mark: str

    @classmethod
    def of(cls, tool: str, **filters: str | None) -> "Place":
        """The list that this tool gives under these filters."""
        return cls(tool, digest({"tool": tool, "filters": filters})[-8:])

    def cursor(self, last: str) -> str:
        """The cursor behind the row with this key."""
        said = json.dumps([self.mark, last], ensure_ascii=False, separators=(",", ":"))
        return base64.urlsafe_b64encode(said.encode()).decode().rstrip("=")

    def last(self, cursor: str | None) -> str | None:
        """The key of the last row that was seen; None at the beginning.

        Raises:
            InvalidRequestError: no cursor of this list.
        """
        if cursor is None:
            return None
        try:
            if len(cursor) > CURSOR_MAX_CHARS:
                raise ValueError
            padded = cursor + "=" * (-len(cursor) % 4)
            mark, last = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError, TypeError, RecursionError):
            mark, last = None, None
        if mark != self.mark or not isinstance(last, str):
            raise InvalidRequestError(
                f"cursor: it is no next_cursor of {self.tool} with these filters; pass one "
                "unchanged and with the same filters, or leave it out to begin anew"
            )
        return last


def paged(
    rows: Sequence[T], key: Callable[[T], str], place: Place, *, limit: int, cursor: str | None
) -> tuple[Sequence[T], str | None]:
    """The part of the list behind the cursor, and the cursor behind that part if there is more.

    `key` tells rows apart; the order is that of `rows`.

    Raises:
        InvalidRequestError: no cursor of this list.
        ConflictError: the row at which the last page ended is gone.
    """
    last, begin = place.last(cursor), 0
    if last is not None:
        begin = next((at for at, row in enumerate(rows, 1) if key(row) == last), -1)
        if begin < 0:
            raise ConflictError(
                f"cursor: the list of {place.tool} has changed and its last row is gone; leave "
                "cursor out to begin anew"
            )
    part = rows[begin : begin + limit]
    more = begin + limit < len(rows)
    return part, place.cursor(key(part[-1])) if part and more else None


def only(row: type[R], rows: Iterable[R], fields: Sequence[str] | None) -> list[R]:
    """The rows with their identity and these fields; all of them where `fields` is None.

    Raises:
        InvalidRequestError: the rows have no such field; the fields that they have are told.
    """
    if fields is None:
        return list(rows)
    known = list(row.model_fields)
    for name in fields:
        if name not in known:
            raise InvalidRequestError(
                f"fields: {name!r} is no field of these rows; there are: {', '.join(known)} "
                f"({', '.join(row.identity)} always stay)"
            )
    dropped = dict.fromkeys(name for name in known if name not in {*fields, *row.identity})
    return [one.model_copy(update=dropped) for one in rows]
