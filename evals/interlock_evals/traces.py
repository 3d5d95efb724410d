"""Request traces from files: the serving load of a run, as somebody recorded it."""

from pathlib import Path

from interlock_plant.trace import RequestTrace, parse_trace
from interlock_tools.errors import InvalidRequestError


def load_trace(path: Path) -> RequestTrace:
    """The trace in a CSV file with `TIMESTAMP,ContextTokens,GeneratedTokens`.

    The form is that of the Azure LLM inference traces (Microsoft, CC-BY-4.0).

    Raises:
        InvalidRequestError: it cannot be read, or a line is malformed; names the line.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            return parse_trace(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} cannot be read: {error}") from error
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{path}: {error}") from error
