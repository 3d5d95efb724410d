"""What a record is: its kind, its canonical bytes, and the one place where secrets are masked."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum, StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from opentelemetry import trace

from interlock_tools.canonical import canonical
from interlock_tools.errors import InvalidRequestError

VERSION = 1
MASK = "[redacted]"
MAX_INTEGER = 2**53 - 1  # beyond it JSON numbers are not exact (RFC 8785, section 3.2.2.3)

_PLAIN = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class RecordKind(StrEnum):
    """What happened."""

    REQUESTED = "requested"
    DECIDED = "decided"
    VOTE = "vote"
    INTENT = "intent"
    OUTCOME = "outcome"
    VERIFIED = "verified"
    COMPENSATED = "compensated"
    REFUSED = "refused"
    CHANGE_STATE = "change_state"
    STOP = "stop"
    CONFIG_CHANGED = "config_changed"
    CHECKPOINT = "checkpoint"  # a place for checkpoints began to fail, or works again
    READ = "read"
    READS_DROPPED = "reads_dropped"


_SECRET_WORDS = frozenset(
    {"token", "tokens", "password", "passwords", "passwd", "pwd", "passphrase", "authorization"}
    | {"secret", "secrets", "credential", "credentials", "cookie", "cookies", "bearer", "jwt"}
    | {"apikey", "privatekey"}
)
_SECRET_PAIRS = frozenset(
    {("api", "key"), ("private", "key"), ("access", "key"), ("signing", "key"), ("key", "material")}
    | {("session", "key"), ("encryption", "key"), ("shared", "key"), ("session", "id")}
)
_COUNTED = frozenset({"tokens", "cookies", "secrets", "passwords", "credentials"})
_WORD = re.compile("[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


class _Looks(Enum):
    PLAIN = 0
    COUNTED = 1  # secret unless it is a number: `tokens_per_s: 900` is a rate
    SECRET = 2


@lru_cache(maxsize=4096)  # the same keys come again and again
def _looks(key: str) -> _Looks:
    words = [word.lower() for word in _WORD.findall(key)]
    secret = _SECRET_WORDS.intersection(words)
    if any(pair in _SECRET_PAIRS for pair in pairwise(words)) or secret - _COUNTED:
        return _Looks.SECRET
    return _Looks.COUNTED if secret else _Looks.PLAIN


def _hides(key: str, value: object) -> bool:
    looks = _looks(key)
    if looks is _Looks.PLAIN or value is None:
        return False
    return looks is _Looks.SECRET or not isinstance(value, int | float)


def redact(value: Any) -> Any:
    """A copy of a JSON value in which whatever stands under a secret-looking key is masked."""
    if isinstance(value, Mapping):
        return {
            key: MASK if _hides(str(key), member) else redact(member)
            for key, member in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(member) for member in value]
    return value


def encode(document: Mapping[str, Any]) -> bytes:
    """The RFC 8785 form of a JSON object with its secrets masked.

    It takes a shorter way where that gives the same bytes, which is nearly always.

    Raises:
        InvalidRequestError: it holds what JSON cannot.
    """
    if _is_plain(document):
        text = _PLAIN.encode(document)
        if text.isascii():
            return text.encode()
    try:
        return canonical(redact(document))
    except UnicodeEncodeError as error:
        raise InvalidRequestError("this cannot be written as UTF-8: a lone surrogate") from error


def _is_plain(value: object) -> bool:
    """Whether there is nothing to mask and sorted compact JSON is canonical but for its letters.

    That is: no floats, no integers that are not exact, text as keys.
    """
    if value is None or isinstance(value, str):
        return True
    if isinstance(value, int):
        return -MAX_INTEGER <= value <= MAX_INTEGER
    if isinstance(value, dict):
        for key, member in value.items():
            if not isinstance(key, str) or _hides(key, member) or not _is_plain(member):
                return False
        return True
    return isinstance(value, list) and all(map(_is_plain, value))


class Draft(NamedTuple):
    """A record that has no number yet. All that takes time is done before the log is locked."""

    before: bytes
    after: bytes

    def numbered(self, seq: int) -> bytes:
        """The canonical bytes of the record with its number."""
        return b"%s%d%s" % (self.before, seq, self.after)


def draft(kind: RecordKind, body: Mapping[str, Any], at: datetime) -> Draft:
    """Mask, encode and stamp a record with its moment and with the span that is now current.

    The members of a record in their canonical order are at, body, kind, seq, span_id, trace_id, v.

    Raises:
        InvalidRequestError: the body cannot be written as canonical JSON.
    """
    moment = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    span = trace.get_current_span().get_span_context()
    ids = f',"span_id":"{span.span_id:016x}","trace_id":"{span.trace_id:032x}"'
    return Draft(
        before=b'{"at":"%s","body":%s,"kind":"%s","seq":'
        % (moment.encode(), encode(body), RecordKind(kind).value.encode()),
        after=f'{ids if span.is_valid else ""},"v":{VERSION}}}'.encode(),
    )
