"""Canonical form and digest: RFC 8785 JSON and SHA-256, so that a hash means one action only."""

import hashlib
from typing import TYPE_CHECKING, Any

import rfc8785

from interlock_tools.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping


def canonical(document: "Mapping[str, Any]") -> bytes:
    """The RFC 8785 form of a JSON document.

    Raises:
        InvalidRequestError: it holds what JSON cannot (NaN, infinity, integers beyond 2**53, text
            that is no Unicode).
    """
    try:
        return rfc8785.dumps(dict(document))
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise InvalidRequestError(f"this cannot be written as canonical JSON: {error}") from error


def digest(document: "Mapping[str, Any]") -> str:
    """SHA-256 of the canonical form, in lower-case hex."""
    return hashlib.sha256(canonical(document)).hexdigest()
