"""A SIEM that knows OCSF 1.9 takes every record, and finds the way back to its proof."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from opentelemetry import trace
from sqlalchemy import Engine

from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.ocsf import PLACES, event_of
from interlock_guardrails.ledger.records import RecordKind, draft
from interlock_guardrails.ledger.verify import leaf_hash
from interlock_tools.clock import ManualClock

# OCSF 1.9.0: what every class requires, and what each of ours requires beside it.
BASE = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
REQUIRED = {6003: {"actor", "api", "src_endpoint"}, 3004: {"entity"}, 1008: {"log_name"}}
ACTIVITIES = {6003: {0, 1, 2, 3, 4, 99}, 3004: {0, *range(1, 14), 99}, 1008: {0, *range(1, 11), 99}}
CATEGORY = {6003: 6, 3004: 3, 1008: 1}
CHANGE = {"change_id": "chg-0123456789ab"}
AGENT = {"id": "agent:power", "kind": "agent", "owner": "person:owner"}
BODIES: dict[RecordKind, dict[str, Any]] = {
    RecordKind.REQUESTED: CHANGE
    | {"operation": "maxlps.set_cap", "target": "domain/7", "arguments": {"w": 1.5e20}}
    | {"requester": AGENT, "reason": "less is enough"},
    RecordKind.DECIDED: CHANGE | {"decision": {"answer": "refuse", "rules": ["freeze"]}},
    RecordKind.VOTE: CHANGE | {"voter": "person:operator", "approve": True},
    RecordKind.INTENT: CHANGE | {"operation": "maxlps.set_cap"},
    RecordKind.OUTCOME: CHANGE | {"state": "unknown", "why": "no answer in time"},
    RecordKind.VERIFIED: CHANGE | {"state": "succeeded", "why": "the meter shows it"},
    RecordKind.COMPENSATED: CHANGE | {"state": "compensated", "why": "put back"},
    RecordKind.CHANGE_STATE: CHANGE | {"state": "verifying"},
    RecordKind.REFUSED: {"change_id": None, "requester": "agent:power", "operation": "a.b"}
    | {"why": "no such operation"},
    RecordKind.BREAK_GLASS: CHANGE | {"by": "person:operator", "why": "smoke"},
    RecordKind.BREAK_GLASS_REVIEW: CHANGE | {"by": "person:reviewer", "why": "right"},
    RecordKind.STOP: {"stopped": True, "by": "person:operator", "why": "smoke"},
    RecordKind.CONFIG_CHANGED: {"what": "ledger_key", "by": "person:operator"},
    RecordKind.CHECKPOINT: {"sink": "git ledger", "size": 7, "published": False, "why": "no space"},
    RecordKind.READ: {"tool": "maxlps.read_headroom", "arguments": {}, "caller": "agent:power"},
    RecordKind.READS_DROPPED: {"dropped": 12},
}


def event(clock: ManualClock, kind: RecordKind, body: dict[str, Any]) -> dict[str, Any]:
    """The event of one record."""
    return event_of(draft(kind, body, clock.now()).numbered(3), "example.com/ledger")


@pytest.mark.parametrize("kind", RecordKind)
def test_every_kind_of_record_becomes_an_event_with_what_its_class_requires(
    clock: ManualClock, kind: RecordKind
) -> None:
    """A new kind without a place in the table fails here."""
    for body in (BODIES[kind], {}):
        made = event(clock, kind, body)
        uid = made["class_uid"]
        assert made.keys() >= BASE | REQUIRED[uid]
        assert made["type_uid"] == uid * 100 + made["activity_id"]
        assert made["activity_id"] in ACTIVITIES[uid]
        assert made["category_uid"] == CATEGORY[uid]
        assert made["time"] == 1_772_366_400_000
        assert made["metadata"]["version"] == "1.9.0"
        assert made["metadata"]["product"].keys() >= {"name", "vendor_name", "version"}
        assert made["metadata"]["event_code"] == kind.value
        assert made["metadata"]["uid"] == "example.com/ledger/3"
        assert uid != 6003 or made["api"].keys() >= {"operation", "request"}
        assert "actor" not in made or made["actor"].keys() & {"user", "application"}
    assert set(PLACES) == set(RecordKind)


def test_who_asked_and_for_what_is_where_a_siem_looks(clock: ManualClock) -> None:
    """Actor, operation, resource, request, and the change that joins the events."""
    made = event(clock, RecordKind.REQUESTED, BODIES[RecordKind.REQUESTED])
    assert made["actor"] == {"user": {"uid": "agent:power", "type_id": 4, "type": "Service"}}
    assert made["api"]["operation"] == "maxlps.set_cap"
    assert made["api"]["service"] == {"name": "maxlps"}
    assert made["api"]["request"] == {"uid": "chg-0123456789ab", "data": {"w": 1.5e20}}
    assert made["resources"] == [{"name": "domain/7"}]
    assert made["metadata"]["correlation_uid"] == "chg-0123456789ab"
    assert made["message"] == "less is enough"


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (RecordKind.DECIDED, {"decision": {"answer": "allow"}}, ("Decide", "Success")),
        (RecordKind.DECIDED, {"decision": {"answer": "refuse"}}, ("Decide", "Failure")),
        (RecordKind.OUTCOME, {"state": "failed"}, ("Update", "Failure")),
        (RecordKind.OUTCOME, {"state": "unknown"}, ("Update", "Unknown")),
        (RecordKind.INTENT, {}, ("Update", "Unknown")),
        (RecordKind.STOP, {"stopped": True}, ("Suspend", "Success")),
        (RecordKind.STOP, {"stopped": False}, ("Resume", "Success")),
        (RecordKind.CHECKPOINT, {"published": True}, ("Enable", "Success")),
        (RecordKind.CHECKPOINT, {"read": False}, ("Disable", "Failure")),
    ],
)
def test_the_body_says_how_it_ended(
    clock: ManualClock, kind: RecordKind, body: dict[str, Any], expected: tuple[str, str]
) -> None:
    """What is unknown is never called a success."""
    made = event(clock, kind, body)
    assert (made["activity_name"], made["status"]) == expected


def test_the_trace_goes_along(clock: ManualClock) -> None:
    """In the class that has a place for it; beside it in the others."""
    context = trace.SpanContext(0xABC, 0x123, is_remote=False)
    with trace.use_span(trace.NonRecordingSpan(context)):
        made, other = event(clock, RecordKind.READ, {}), event(clock, RecordKind.STOP, {})
    assert "trace" not in other
    assert other["unmapped"]["trace_id"] == "00000000000000000000000000000abc"
    assert made["trace"] == {"uid": "00000000000000000000000000000abc"}
    assert "trace" in made["metadata"]["profiles"]


def test_an_export_is_a_chain_that_leads_back_to_the_tree(
    store: Engine, ledger: Ledger, write: Callable[[int], None], tmp_path: Path
) -> None:
    """Each event fingerprints itself and the one before; the record's own hash is ours."""
    write(3)
    ledger.checkpoint()
    assert ledger.export_ocsf(tmp_path / "log.ocsf.jsonl") == 3
    events = [json.loads(line) for line in (tmp_path / "log.ocsf.jsonl").read_text().splitlines()]
    assert [one["metadata"]["sequence"] for one in events] == [0, 1, 2]
    for before, one in zip([None, *events], events, strict=False):
        attestation = one["attestation"]
        assert one["unmapped"]["leaf_hash"] == leaf_hash(one["raw_data"].encode()).hex()
        assert attestation["chain_uid"] == "example.com/ledger"
        fingerprint = attestation.pop("fingerprint")
        assert fingerprint["value"] == hashlib.sha256(rfc8785.dumps(one)).hexdigest()
        attestation["fingerprint"] = fingerprint
        if before is None:
            assert "prev_event" not in attestation
            continue
        assert attestation["prev_event"]["fingerprint"] == before["attestation"]["fingerprint"]
        assert attestation["prev_event"]["uid"] == before["metadata"]["uid"]
        assert one["unmapped"]["prev_leaf_hash"] == before["unmapped"]["leaf_hash"]
