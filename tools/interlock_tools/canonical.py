"""Canonical form and digest: RFC 8785 JSON and SHA-256, so that a hash means one action only."""

import hashlib
import json
from typing import TYPE_CHECKING, Any

import rfc8785

from interlock_tools.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_INTEGER = 2**53 - 1  # beyond it JSON numbers are not exact (RFC 8785, section 3.2.2.3)

_PLAIN = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical(document: "Mapping[str, Any]") -> bytes:
    """The RFC 8785 form of a JSON document.

    It takes a shorter way where that gives the same bytes, which is nearly always.

    Raises:
        InvalidRequestError: it holds what JSON cannot (NaN, infinity, integers beyond 2**53, text
            that is no Unicode).
    """
    text = plain(document)
    if text is not None:
        return text.encode()
    try:
        return rfc8785.dumps(dict(document))
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise InvalidRequestError(f"this cannot be written as canonical JSON: {error}") from error


def plain(
    document: "Mapping[str, Any]", stops_at: "Callable[[str, Any], bool] | None" = None
) -> str | None:
    """The same form as text where sorted compact JSON is canonical, else None.

    That is: ASCII, no floats, no integers that are not exact, text as keys; and no member of which
    `stops_at`, called with its key and its value, says True.
    """
    if not _is_plain(document, stops_at):
        return None
    text = _PLAIN.encode(document)
    return text if text.isascii() else None


def _is_plain(value: object, stops_at: "Callable[[str, Any], bool] | None") -> bool:
    if isinstance(value, dict):
        for key, member in value.items():
            if not isinstance(key, str) or (stops_at is not None and stops_at(key, member)):
                return False
            if type(member) is not str and not _is_plain(member, stops_at):
                return False
        return True
    if value is None or isinstance(value, str):
        return True
    if isinstance(value, int):
        return -MAX_INTEGER <= value <= MAX_INTEGER
    return isinstance(value, list) and all(_is_plain(member, stops_at) for member in value)


def digest(document: "Mapping[str, Any]") -> str:
    """SHA-256 of the canonical form, in lower-case hex."""
    return hashlib.sha256(canonical(document)).hexdigest()
