"""The ledger as OCSF 1.9.0 events, one JSON line for each record, for a SIEM.

| record | class | activity | status |
|---|---|---|---|
| `requested` | API Activity 6003 | 1 Create | Success |
| `decided` | API Activity 6003 | 99 Decide | Success; Failure where it refuses |
| `vote` | API Activity 6003 | 99 Vote | Success |
| `intent` | API Activity 6003 | 3 Update | Unknown: it has not acted yet |
| `outcome`, `verified` | API Activity 6003 | 3 Update | by the state of the change |
| `compensated`, `change_state` | API Activity 6003 | 3 Update | by the state of the change |
| `break_glass` | API Activity 6003 | 99 Break glass | Success |
| `break_glass_review` | API Activity 6003 | 99 Review | Success |
| `refused` | API Activity 6003 | 99 Refuse | Failure |
| `read` | API Activity 6003 | 2 Read | Success |
| `stop` | Entity Management 3004 | 12 Suspend, 13 Resume | Success |
| `config_changed` | Entity Management 3004 | 3 Update | Success |
| `checkpoint` | Event Log Activity 1008 | 9 Enable, 10 Disable | Success; Failure where it fails |
| `reads_dropped` | Event Log Activity 1008 | 99 Drop | Failure |

Decisions and votes are no Authorize Session events (3003): those speak of privileges that a user
gets for a session, and a vote gives nobody anything beyond one action.

`raw_data` is the canonical record, and `unmapped.leaf_hash` its hash in our tree (SHA-256 over a
zero byte and the record), so that an event leads back to a proof; `unmapped.prev_leaf_hash` is
that of the record before. The profile `record_integrity` speaks of the OCSF event itself: its
fingerprint is over the RFC 8785 form of the event without that fingerprint, and chains the events.
Whoever called is an id and not an address, so `src_endpoint` says that it was not recorded.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from interlock_guardrails.ledger.records import RecordKind
from interlock_guardrails.ledger.verify import leaf_hash
from interlock_tools.canonical import canonical

OCSF_VERSION = "1.9.0"
SHA_256 = 3
OTHER = 99
UNKNOWN, SUCCESS, FAILURE = 0, 1, 2
STATUS = {UNKNOWN: "Unknown", SUCCESS: "Success", FAILURE: "Failure"}
SEVERITY = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical"}
USER_TYPES = {"person": (1, "User"), "agent": (4, "Service"), "service": (4, "Service")}


class EventClass(NamedTuple):
    """A class of OCSF and the category that it is in."""

    uid: int
    name: str
    category_uid: int
    category: str


API = EventClass(6003, "API Activity", 6, "Application Activity")
ENTITY = EventClass(3004, "Entity Management", 3, "Identity & Access Management")
EVENT_LOG = EventClass(1008, "Event Log Activity", 1, "System Activity")


class Place(NamedTuple):
    """What a kind of record becomes, before its body is looked at."""

    event_class: EventClass
    activity_id: int
    activity: str
    severity: int
    status: int


K = RecordKind
PLACES: dict[RecordKind, Place] = {
    K.REQUESTED: Place(API, 1, "Create", 1, SUCCESS),
    K.DECIDED: Place(API, OTHER, "Decide", 1, SUCCESS),
    K.VOTE: Place(API, OTHER, "Vote", 1, SUCCESS),
    K.INTENT: Place(API, 3, "Update", 1, UNKNOWN),
    K.OUTCOME: Place(API, 3, "Update", 1, UNKNOWN),
    K.VERIFIED: Place(API, 3, "Update", 1, SUCCESS),
    K.COMPENSATED: Place(API, 3, "Update", 3, UNKNOWN),
    K.CHANGE_STATE: Place(API, 3, "Update", 1, UNKNOWN),
    K.BREAK_GLASS: Place(API, OTHER, "Break glass", 5, SUCCESS),
    K.BREAK_GLASS_REVIEW: Place(API, OTHER, "Review", 2, SUCCESS),
    K.REFUSED: Place(API, OTHER, "Refuse", 2, FAILURE),
    K.READ: Place(API, 2, "Read", 1, SUCCESS),
    K.STOP: Place(ENTITY, 12, "Suspend", 3, SUCCESS),
    K.CONFIG_CHANGED: Place(ENTITY, 3, "Update", 2, SUCCESS),
    K.CHECKPOINT: Place(EVENT_LOG, 10, "Disable", 4, FAILURE),
    K.READS_DROPPED: Place(EVENT_LOG, OTHER, "Drop", 3, FAILURE),
}
STATES = {  # of a change, where its record says one
    "succeeded": (SUCCESS, 1),
    "compensated": (SUCCESS, 3),
    "failed": (FAILURE, 3),
    "stuck": (FAILURE, 4),
    "unknown": (UNKNOWN, 4),
}


class _Event(NamedTuple):
    """What the next event says of this one."""

    uid: str
    type_uid: int
    fingerprint: dict[str, Any]
    leaf: str


def lines(export: Iterable[bytes], origin: str) -> Iterator[bytes]:
    """The records among the lines of an export as OCSF events, one JSON line each."""
    before: _Event | None = None
    for line in export:
        if not line.startswith(b'{"leaf":'):
            continue  # a checkpoint is about records and is none
        record = line[line.index(b'"record":') + len(b'"record":') : -2]
        event, before = _event(record, origin, before)
        yield json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def event_of(record: bytes, origin: str) -> dict[str, Any]:
    """One canonical record as an OCSF event that is chained to no other."""
    return _event(record, origin, None)[0]


def _event(record: bytes, origin: str, before: _Event | None) -> tuple[dict[str, Any], _Event]:
    document: dict[str, Any] = json.loads(record, parse_int=_number)
    kind, body = RecordKind(document["kind"]), document["body"]
    place = _specific(kind, body)
    what, type_uid = place.event_class, place.event_class.uid * 100 + place.activity_id
    uid, leaf = f"{origin}/{document['seq']}", leaf_hash(record).hex()
    event: dict[str, Any] = {
        "activity_id": place.activity_id,
        "activity_name": place.activity,
        "category_uid": what.category_uid,
        "category_name": what.category,
        "class_uid": what.uid,
        "class_name": what.name,
        "type_uid": type_uid,
        "type_name": f"{what.name}: {place.activity}",
        "severity_id": place.severity,
        "severity": SEVERITY[place.severity],
        "status_id": place.status,
        "status": STATUS[place.status],
        "time": _milliseconds(document["at"]),
        "metadata": _metadata(document, origin, uid),
        "raw_data": record.decode(),
        "unmapped": {
            "leaf_hash": leaf,
            "prev_leaf_hash": None if before is None else before.leaf,
            "record": body,
        },
    }
    event |= _texts(body)
    if "trace_id" in document:
        event["unmapped"] |= {key: document[key] for key in ("trace_id", "span_id")}
        if what is API:  # the profile is of this class only
            event["trace"] = {"uid": document["trace_id"]}
            event["metadata"]["profiles"].append("trace")
    event |= {API: _api, ENTITY: _entity, EVENT_LOG: _event_log}[what](kind, body, origin, uid)
    return event, _attest(event, origin, before, leaf)


def _specific(kind: RecordKind, body: Mapping[str, Any]) -> Place:
    """What the body adds to what the kind says."""
    place = PLACES[kind]
    if kind is K.STOP and not body.get("stopped", True):
        return place._replace(activity_id=13, activity="Resume")
    if kind is K.CHECKPOINT and body.get("published"):
        return place._replace(activity_id=9, activity="Enable", severity=1, status=SUCCESS)
    if kind is K.DECIDED and _at(body, "decision", "answer") == "refuse":
        return place._replace(status=FAILURE)
    if place.event_class is API and body.get("state") in STATES:
        status, severity = STATES[body["state"]]
        return place._replace(status=status, severity=severity)
    return place


def _metadata(document: Mapping[str, Any], origin: str, uid: str) -> dict[str, Any]:
    metadata = {
        "version": OCSF_VERSION,
        "product": {"name": "Interlock", "vendor_name": "Interlock", "version": _our_version()},
        "profiles": ["record_integrity"],
        "uid": uid,
        "sequence": document["seq"],
        "event_code": document["kind"],
        "log_name": origin,
        "log_provider": "Interlock ledger",
        "log_version": str(document["v"]),
        "original_time": document["at"],
    }
    change_id = document["body"].get("change_id")
    return metadata | ({"correlation_uid": change_id} if isinstance(change_id, str) else {})


def _texts(body: Mapping[str, Any]) -> dict[str, str]:
    why = body.get("why") or body.get("reason") or _at(body, "decision", "why")
    told = {"message": why, "status_detail": why, "status_code": body.get("state")}
    return {key: text for key, text in told.items() if isinstance(text, str)}


def _api(kind: RecordKind, body: Mapping[str, Any], origin: str, uid: str) -> dict[str, Any]:
    operation = body.get("operation") or body.get("tool") or f"change.{kind.value}"
    target, change_id = body.get("target"), body.get("change_id")
    return {
        "actor": _actor(body),
        "api": {
            "operation": str(operation),
            "service": {"name": str(operation).partition(".")[0]},
            "request": {"uid": str(change_id or uid), "data": body.get("arguments") or {}},
        },
        "src_endpoint": {"name": "not recorded"},
        "dst_endpoint": {"svc_name": origin},
    } | ({"resources": [{"name": target}]} if isinstance(target, str) else {})


def _entity(kind: RecordKind, body: Mapping[str, Any], origin: str, _: str) -> dict[str, Any]:
    is_stop = kind is K.STOP
    entity = {
        "name": origin if is_stop else str(body.get("what", "configuration")),
        "type": "site" if is_stop else "configuration",
    }
    comment = {"comment": body["why"]} if isinstance(body.get("why"), str) else {}
    return {"actor": _actor(body), "entity": entity} | comment


def _event_log(_: RecordKind, body: Mapping[str, Any], origin: str, __: str) -> dict[str, Any]:
    event = {"actor": _actor({}), "log_name": origin, "log_provider": "Interlock ledger"}
    return event | ({"count": body["dropped"]} if isinstance(body.get("dropped"), int) else {})


def _actor(body: Mapping[str, Any]) -> dict[str, Any]:
    """Who did it; Interlock itself where the record names nobody."""
    who = body.get("requester") or body.get("voter") or body.get("by") or body.get("caller")
    if isinstance(who, str):
        prefix = who.partition(":")[0]
        return {"user": {"uid": who} | _user_type(prefix)}
    if isinstance(who, Mapping) and isinstance(who.get("id"), str):
        return {"user": {"uid": who["id"]} | _user_type(who.get("kind"))}
    return {"application": {"name": "Interlock"}}


def _user_type(kind: object) -> dict[str, Any]:
    type_id, name = USER_TYPES.get(str(kind), (0, "Unknown"))
    return {"type_id": type_id, "type": name}


def _attest(event: dict[str, Any], origin: str, before: _Event | None, leaf: str) -> _Event:
    """Give the event its fingerprint, which holds the one before it in place."""
    attestation: dict[str, Any] = {"authority_uid": origin, "chain_uid": origin}
    if before is not None:
        attestation["prev_event"] = {
            "uid": before.uid,
            "type_uid": before.type_uid,
            "fingerprint": before.fingerprint,
        }
    event["attestation"] = attestation
    attestation["fingerprint"] = {
        "algorithm_id": SHA_256,
        "algorithm": "SHA-256",
        "serialization_id": OTHER,
        "serialization": "JCS (RFC 8785)",
        "value": hashlib.sha256(canonical(event)).hexdigest(),
    }
    uid: str = event["metadata"]["uid"]
    return _Event(uid, event["type_uid"], attestation["fingerprint"], leaf)


def _number(digits: str) -> int | float:
    """A JSON number is a double; one beyond its exact integers was written from a float."""
    return int(digits) if abs(float(digits)) < 2**53 else float(digits)


def _milliseconds(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def _at(body: Mapping[str, Any], *path: str) -> Any:
    value: Any = body
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


@cache
def _our_version() -> str:
    try:
        return version("interlock-dsx")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0"
