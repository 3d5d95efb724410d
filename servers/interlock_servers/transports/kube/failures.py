"""What a Kubernetes API server says when it refuses, as errors of ours.

Source: the `Status` object of meta/v1 (Kubernetes API conventions, "Response Status Kind").
"""

import json
from typing import Any, Final

from interlock_tools.errors import (
    ComponentError,
    ConflictError,
    FactoryError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)

MOST_CHARS: Final = 400
MOST_CAUSES: Final = 5
NOT_NOW: Final = 429
FORBIDDEN: Final = 403
# The server could not say whether it was done: a proxy, an overload, a hook that did not answer.
UNDECIDED: Final = frozenset({408, 500, 502, 503, 504})


class ExpiredError(ConflictError):
    """The server has forgotten this resource version: list again (410 Gone)."""


def failure(status: int, body: bytes, doing: str, *, component: str, writes: bool) -> FactoryError:
    """The error for an answer that is no success.

    Args:
        status: the HTTP status.
        body: whatever came with it; a `Status` object where the API server itself speaks.
        doing: what was asked, such as `patch nodes/gpu-7`.
        component: whose error it is.
        writes: whether it was a write: then an undecided answer leaves the state unknown.
    """
    says = said(body)
    match status:
        case 400 | 422:
            return InvalidRequestError(f"{doing}: the API server finds it invalid: {says}")
        case 401:
            return ComponentError(component, "UNAUTHENTICATED", f"{doing}: {says}")
        case 403:
            return ComponentError(
                component, "FORBIDDEN", f"{doing}: {says}; `interlock doctor` lists what is missing"
            )
        case 404:
            return NotFoundError(f"{doing}: {says}")
        case 409:
            return ConflictError(f"{doing}: {says}; nothing was done")
        case 410:
            return ExpiredError(f"{doing}: {says}")
        case _ if status == NOT_NOW:
            return ComponentError(component, "NOT_NOW", f"{doing}: {says}; nothing was done")
        case _ if status in UNDECIDED:
            after = "; whether it was done is unknown: read back" if writes else ""
            return UnavailableError(f"{doing}: the API server answered {status}: {says}{after}")
        case _:
            return ComponentError(component, f"HTTP_{status}", f"{doing}: {says}")


def said(body: bytes) -> str:
    """What the server said, in one line: its message, with the causes that it names."""
    status = _status(body)
    if status is None:
        return _line(body[:MOST_CHARS].decode("utf-8", "replace")) or "without a word"
    text = str(status.get("message") or status.get("reason") or "without a word")
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    named = [
        f"{cause.get('field', '?')}: {cause.get('message', '?')}"
        for cause in (causes if isinstance(causes, list) else [])[:MOST_CAUSES]
        if isinstance(cause, dict) and str(cause.get("message", "")) not in text
    ]
    return _line("; ".join([text, *named]))


def _status(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("kind") == "Status" else None


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARS else f"{line[: MOST_CHARS - 1]}…"
