"""What a record is: its kind and its canonical bytes, in which no secret is left in clear."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from opentelemetry import trace

from interlock_guardrails.ledger.redaction import hides, is_suspect, may_hold_secret, redact
from interlock_tools.canonical import canonical, plain
from interlock_tools.errors import InvalidRequestError

VERSION = 1


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
    BREAK_GLASS = "break_glass"
    BREAK_GLASS_REVIEW = "break_glass_review"
    STOP = "stop"
    CONFIG_CHANGED = "config_changed"
    CHECKPOINT = "checkpoint"  # a place for checkpoints began to fail, or works again
    READ = "read"
    READS_DROPPED = "reads_dropped"


def encode(document: Mapping[str, Any]) -> bytes:
    """The RFC 8785 form of a JSON object with its secrets masked.

    It takes a shorter way where that gives the same bytes, which is nearly always.

    Raises:
        InvalidRequestError: it holds what JSON cannot.
    """
    text = plain(document, _hides)
    if text is not None and not may_hold_secret(text):
        return text.encode()
    try:
        return canonical(redact(document))
    except UnicodeEncodeError as error:
        raise InvalidRequestError("this cannot be written as UTF-8: a lone surrogate") from error


def _hides(key: str, member: object) -> bool:
    return is_suspect(key) and hides(key, member)


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
    ids = ""
    if span.is_valid:
        ids = f',"span_id":"{span.span_id:016x}","trace_id":"{span.trace_id:032x}"'
    return Draft(
        before=b'{"at":"%s","body":%s,"kind":"%s","seq":'
        % (moment.encode(), encode(body), kind.encode()),
        after=f'{ids},"v":{VERSION}}}'.encode(),
    )
