"""Request traces: rows of arrival, tokens read, tokens generated. Reads text, never a file."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from interlock_plant.arrays import Floats
from interlock_tools.errors import InvalidRequestError

HEADER: Final = "TIMESTAMP,ContextTokens,GeneratedTokens"  # as in the Azure LLM inference traces
LONGEST_S: Final = 31 * 86_400  # a longer span is a wrong year, not a trace


@dataclass(frozen=True)
class RequestTrace:
    """Requests in order of arrival; one entry per request in each array.

    Raises:
        InvalidRequestError: the arrays are empty, differ in length, or hold a negative or
            non-finite number, or arrivals are out of order or span more than 31 days.
    """

    arrival_s: Floats  # since the first request
    context_tokens: Floats
    generated_tokens: Floats

    def __post_init__(self) -> None:
        columns = (self.arrival_s, self.context_tokens, self.generated_tokens)
        if len({len(column) for column in columns}) != 1:
            raise InvalidRequestError("the columns of a trace must be equally long")
        if len(self.arrival_s) == 0:
            raise InvalidRequestError("the trace is empty")
        if not all(np.isfinite(column).all() and (column >= 0).all() for column in columns):
            raise InvalidRequestError("a trace holds no negative or non-finite number")
        if (np.diff(self.arrival_s) < 0).any():
            raise InvalidRequestError("the requests of a trace must be in order of arrival")
        if self.arrival_s[-1] > LONGEST_S:
            raise InvalidRequestError("the trace spans more than 31 days")


def parse_trace(lines: str | Iterable[str]) -> RequestTrace:
    """Read a trace from CSV text or its lines, `TIMESTAMP,ContextTokens,GeneratedTokens`.

    A timestamp reads `2023-11-16 18:15:46.6805900`; without a zone it is taken as UTC.

    Raises:
        InvalidRequestError: empty text, another header, or a malformed row; names the line.
    """
    rows = iter(lines.splitlines() if isinstance(lines, str) else lines)
    header = next(rows, "").strip().removeprefix("\ufeff")
    if not header:
        raise InvalidRequestError("line 1: the trace is empty; expected the header " + HEADER)
    if header != HEADER:
        raise InvalidRequestError(f"line 1: expected the header {HEADER}, found {header[:80]!r}")
    moments: list[datetime] = []
    context: list[int] = []
    generated: list[int] = []
    for number, row in enumerate(rows, start=2):
        fields = row.strip().split(",")
        if len(fields) != 3:
            raise InvalidRequestError(f"line {number}: expected 3 fields, found {len(fields)}")
        moment = _moment(fields[0], number)
        if moments and moment < moments[-1]:
            raise InvalidRequestError(f"line {number}: TIMESTAMP is earlier than the row before")
        moments.append(moment)
        context.append(_tokens(fields[1], "ContextTokens", number))
        generated.append(_tokens(fields[2], "GeneratedTokens", number))
    if not moments:
        raise InvalidRequestError("line 2: the trace has a header and no rows")
    first = moments[0]
    return RequestTrace(
        arrival_s=np.array([(moment - first).total_seconds() for moment in moments]),
        context_tokens=np.array(context, dtype=np.float64),
        generated_tokens=np.array(generated, dtype=np.float64),
    )


def _moment(text: str, number: int) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidRequestError(
            f"line {number}: TIMESTAMP {text[:40]!r} is not a date and time"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _tokens(text: str, column: str, number: int) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 12):
        raise InvalidRequestError(
            f"line {number}: {column} {text[:40]!r} is not a whole number of tokens"
        )
    return int(digits)
