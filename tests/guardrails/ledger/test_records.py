"""A record has one form only, carries the trace it belongs to, and holds no secret."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace

from interlock_guardrails.ledger.records import RecordKind, draft, encode
from interlock_guardrails.ledger.redaction import MASK, redact
from interlock_guardrails.ledger.verify import leaf_hash, record_line, verify_lines
from interlock_tools.canonical import canonical
from interlock_tools.errors import InvalidRequestError

AT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)

exact_integers = st.integers(-(2**53) + 1, 2**53 - 1)
scalars = (
    st.none()
    | st.booleans()
    | exact_integers
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.text(st.characters(max_codepoint=0x7F))
)
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.just("token")
documents = st.dictionaries(
    keys,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    ),
    max_size=6,
)


@given(documents)
def test_the_short_way_gives_the_bytes_of_rfc_8785(document: dict[str, Any]) -> None:
    """Speed must never buy another form: the reference library is the judge."""
    assert canonical(document) == rfc8785.dumps(document)
    assert encode(document) == rfc8785.dumps(redact(document))


@given(documents, st.integers(0, 3) | st.integers(0, 2**53 - 1))
def test_a_record_is_canonical_whatever_its_body(body: dict[str, Any], seq: int) -> None:
    """It is put together from parts; the whole must still be the canonical form."""
    record = draft(RecordKind.INTENT, body, AT).numbered(seq)
    whole: dict[str, Any] = {"v": 1, "seq": seq, "kind": "intent", "at": "2026-03-01T12:00:00.123Z"}
    assert record == rfc8785.dumps(whole | {"body": redact(body)})
    lines = [record_line(leaf_hash(record), record)]
    strictly = verify_lines(lines, [], strict=True)
    assert strictly.records == (1 if seq == 0 else 0)  # read, if it is the first one


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**53, "\ud800", {1: "key"}, {"a", "b"}, AT, b"bytes"]
)
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    """Before anything is written; nothing is turned into text by guess."""
    with pytest.raises(InvalidRequestError):
        draft(RecordKind.INTENT, {"value": value}, AT)


def test_a_record_names_the_span_it_was_written_in() -> None:
    """So that a person comes from the trace to the record and back."""
    context = trace.SpanContext(0xABC, 0x123, is_remote=False)
    with trace.use_span(trace.NonRecordingSpan(context)):
        record = draft(RecordKind.READ, {}, AT).numbered(7)
    document = json.loads(record)
    assert document["trace_id"] == "00000000000000000000000000000abc"
    assert document["span_id"] == "0000000000000123"
    assert rfc8785.dumps(document) == record


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "access_token",
        "apiKey",
        "API-KEY",
        "Authorization",
        "client_secret",
        "dbPassword",
        "private_key",
        "signing_key",
        "keyMaterial",
        "aws_credentials",
        "Set-Cookie",
        "JWT",
        "X-Auth-Token",
        "passphrase",
    ],
)
def test_what_stands_under_a_secret_key_is_masked_at_any_depth(key: str) -> None:
    """The log is exported and kept for good: a secret in it can never be taken out again."""
    body = {"arguments": [{"headers": {key: "hunter2"}}, {key: {"deep": ["hunter2"]}}]}
    record = draft(RecordKind.REQUESTED, body, AT).numbered(0)
    assert b"hunter2" not in record
    assert record.count(MASK.encode()) == 2
    assert body["arguments"][0] == {"headers": {key: "hunter2"}}  # the caller's own is untouched


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tokens_per_s", 900),
        ("max_tokens", 4096),
        ("idempotency_key", "change-1"),
        ("key_id", "a"),
        ("signature", "abc"),
        ("public_key", "abc"),
        ("password", None),
        ("tokenizer", "llama"),
    ],
)
def test_what_only_sounds_like_a_secret_stays(key: str, value: object) -> None:
    """A rate of tokens is evidence; so is that a password was not set."""
    assert redact({key: value}) == {key: value}
