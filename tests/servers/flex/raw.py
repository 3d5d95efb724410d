"""Well-formed messages as raw JSON, for tests that then break them."""

import copy
import json
import uuid
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CORRELATION_ID = "5f1b7c1e-38a4-4f6e-9d8e-0c2f6d6a4b11"
BREACH_ID = "0d6f0a4e-6f2b-4f43-8b67-5f6a5be0f0aa"
NOON = "2026-11-01T12:00:00Z"

_POWER = {"value": 4.0, "unit": "kilowatt"}
_CONSTRAINT = {"value": 6.5, "unit": "kilowatt"}


def envelope(topic_of: str = "loadtarget", data: Any = "e30.e30.c2ln") -> Json:
    """An envelope for one of `loadtarget`, `powerstate`, `powerbreach`, `enforcement`."""
    role, kind, subject = {
        "loadtarget": ("isv/acme-energy", "grid.loadtarget.set.v1", "loadtarget"),
        "powerstate": ("dsx-flex-agent/maxlps", "grid.powerstate.status.v1", "powerstate"),
        "powerbreach": ("dsx-flex-agent/maxlps", "grid.powerbreach.alert.v1", "powerbreach"),
        "enforcement": ("infra/ima-prod", "grid.powerbreach.enforcement.v1", "powerbreach"),
    }[topic_of]
    return {
        "specversion": "1.0.2",
        "id": str(uuid.uuid4()),
        "source": f"//grid/v1/{role}",
        "type": kind,
        "time": NOON,
        "datacontenttype": "application/json",
        "subject": subject,
        "traceparent": TRACEPARENT,
        "correlationid": CORRELATION_ID,
        "data": data,
    }


LOAD_TARGETS: Json = {
    "targets": [
        {
            "interval": {"start_time": "2026-11-01T12:10:00Z", "end_time": "2026-11-01T13:10:00Z"},
            "feed_tags": ["main-a"],
            "load_constraint": _CONSTRAINT,
            "strategy": {"best_effort": True},
        }
    ]
}

POWER_STATE: Json = {
    "snapshot_time": NOON,
    "feeds": {
        "main-a": {
            "metadata": {
                "power_minimum": _POWER,
                "power_maximum": {"value": 0.012, "unit": "megawatt"},
                "default_constraint": {"value": 12_000, "unit": "watt"},
            },
            "targets": [
                {
                    "active": True,
                    "load_constraint": _CONSTRAINT,
                    "interval": {"start_time": "2026-11-01T11:00:00Z"},
                    "strategy": {"best_effort": False},
                    "correlation_id": CORRELATION_ID,
                }
            ],
            "calculated_load": _POWER,
            "in_flight": False,
            "event": "periodic",
            "power_event_start_time": None,
            "compliant": True,
        }
    },
}

BREACH: Json = {
    "feed_tag": "main-a",
    "status": "active",
    "severity": "warning",
    "breach": {"breach_id": BREACH_ID, "detected_at": NOON},
    "target": {"correlation_id": CORRELATION_ID, "load_constraint": _CONSTRAINT},
    "measured_load": {"value": 7.0, "unit": "kilowatt"},
    "shed_hints": [
        {
            "resource_id": "node-1",
            "resource_type": "node",
            "action": "power_cap",
            "priority": 1,
            "target_power": _POWER,
        }
    ],
    "infrastructure_actions": ["SHUTDOWN_NODES"],
}

ENFORCEMENT: Json = {
    "breach_id": BREACH_ID,
    "feed_tag": "main-a",
    "action": "applied",
    "code": "partial",
    "diag_msg": "one BMC did not answer",
    "results": [
        {
            "resource_id": "node-1",
            "resource_type": "node",
            "requested_action": "power_cap",
            "code": "applied",
            "applied_power": _POWER,
        }
    ],
    "timestamp": NOON,
}

ABSENT = object()


def changed(document: Json, path: Sequence[str | int], value: Any) -> Json:
    """A copy in which the member at `path` is `value`, or is not there for `ABSENT`."""
    copied = copy.deepcopy(document)
    place: Any = copied
    for step in path[:-1]:
        place = place[step]
    if value is ABSENT:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copied


def text(document: Json) -> bytes:
    """The document as it travels."""
    return json.dumps(document).encode()
