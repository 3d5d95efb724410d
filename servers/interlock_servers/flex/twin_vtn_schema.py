"""What the OpenAPI of OpenADR 3 says of the objects that the VTN twin takes and gives.

Written down again, in the few members that matter here, from `openadr3.yaml` 3.0.1 (OpenADR
Alliance, Apache-2.0) and the change log of 3.1.0: there a target is a name, an event has a
duration, a period may leave out its start, and a report does without `programID`.
"""

from typing import Any, Literal

from jsonschema import Draft202012Validator, FormatChecker

Json = dict[str, Any]
Version = Literal["3.0", "3.1"]

_DURATION = (
    r"^(-?)P(?=\d|T\d)(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)([DW]))?"
    r"(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$"
)
_ID = {"type": "string", "pattern": "^[a-zA-Z0-9_-]*$", "minLength": 1, "maxLength": 128}
_NAME = {"type": "string", "minLength": 1, "maxLength": 128}
_MOMENT = {"type": "string", "format": "date-time"}
_LENGTH = {"type": "string", "pattern": _DURATION}
_TEXT = {"type": ["string", "null"]}
_OBJECT_TYPE = {"enum": ["PROGRAM", "EVENT", "REPORT", "SUBSCRIPTION", "VEN", "RESOURCE"]}
_POINT = {
    "type": "object",
    "required": ["x", "y"],
    "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
}
_VALUES = {
    "type": "object",
    "required": ["type", "values"],
    "properties": {
        "type": _NAME,
        "values": {
            "type": "array",
            "items": {"anyOf": [{"type": ["number", "string", "boolean"]}, _POINT]},
        },
    },
}
_EVENT_DESCRIPTOR = {
    "type": "object",
    "required": ["payloadType"],
    "properties": {"payloadType": _NAME, "units": _TEXT, "currency": _TEXT},
}
_REPORT_DESCRIPTOR = {
    "type": "object",
    "required": ["payloadType"],
    "properties": {
        "payloadType": _NAME,
        "readingType": _TEXT,
        "units": _TEXT,
        "accuracy": {"type": ["number", "null"]},
        "confidence": {"type": ["integer", "null"], "minimum": 0, "maximum": 100},
    },
}
_MADE_BY_THE_VTN: Json = {
    "id": _ID,
    "createdDateTime": _MOMENT,
    "modificationDateTime": _MOMENT,
}


def _list(items: Json) -> Json:
    return {"type": ["array", "null"], "items": items}


def _object(kind: str, required: list[str], properties: Json) -> Json:
    return {
        "type": "object",
        "required": required,
        "properties": {**_MADE_BY_THE_VTN, "objectType": {"enum": [kind]}, **properties},
    }


def schemas(version: Version) -> dict[str, Json]:
    """The schema of each kind of object, by its name in the OpenAPI."""
    newer = version == "3.1"
    period = {
        "type": "object",
        "required": [] if newer else ["start"],
        "properties": {"start": _MOMENT, "duration": _LENGTH, "randomizeStart": _LENGTH},
    }
    interval = {
        "type": "object",
        "required": ["id", "payloads"],
        "properties": {
            "id": {"type": "integer"},
            "intervalPeriod": period,
            "payloads": {"type": "array", "items": _VALUES},
        },
    }
    targets = _list(_NAME if newer else _VALUES)
    resource = {
        "type": "object",
        "required": ["resourceName", "intervals"],
        "properties": {
            "resourceName": _NAME,
            "intervalPeriod": period,
            "intervals": {"type": "array", "items": interval},
        },
    }
    return {
        "program": _object(
            "PROGRAM",
            ["programName"],
            {
                "programName": _NAME,
                "intervalPeriod": period,
                "payloadDescriptors": _list({"anyOf": [_EVENT_DESCRIPTOR, _REPORT_DESCRIPTOR]}),
                "targets": targets,
            },
        ),
        "event": _object(
            "EVENT",
            ["programID", "intervals"],
            {
                "programID": _ID,
                "eventName": _TEXT,
                "duration": _LENGTH,
                "priority": {"type": ["integer", "null"], "minimum": 0},
                "targets": targets,
                "payloadDescriptors": _list(_EVENT_DESCRIPTOR),
                "reportDescriptors": _list(_REPORT_DESCRIPTOR),
                "intervalPeriod": period,
                "intervals": {"type": "array", "items": interval},
            },
        ),
        "report": _object(
            "REPORT",
            ["eventID", "clientName", "resources"] + ([] if newer else ["programID"]),
            {
                "programID": _ID,
                "eventID": _ID,
                "clientName": _NAME,
                "reportName": _TEXT,
                "payloadDescriptors": _list(_REPORT_DESCRIPTOR),
                "resources": {"type": "array", "items": resource},
            },
        ),
        "subscription": _object(
            "SUBSCRIPTION",
            ["clientName", "objectOperations"] + ([] if newer else ["programID"]),
            {
                "clientName": _NAME,
                "programID": _ID,
                "objectOperations": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["objects", "operations", "callbackUrl"],
                        "properties": {
                            "objects": {"type": "array", "items": _OBJECT_TYPE},
                            "operations": {
                                "type": "array",
                                "items": {"enum": ["READ", "CREATE", "UPDATE", "DELETE"]},
                            },
                            "callbackUrl": {"type": "string", "format": "uri"},
                            "bearerToken": _TEXT,
                        },
                    },
                },
            },
        ),
        "notification": {
            "type": "object",
            "required": ["objectType", "operation", "object"],
            "properties": {
                "objectType": _OBJECT_TYPE,
                "operation": {
                    "enum": ["READ", "CREATE", "UPDATE", "DELETE"]
                    if newer
                    else ["GET", "POST", "PUT", "DELETE"]
                },
                "object": {"type": "object"},
            },
        },
        "problem": {
            "type": "object",
            "properties": {
                "title": {"type": "string"},
                "status": {"type": "integer", "minimum": 100, "maximum": 599},
                "detail": {"type": "string"},
            },
        },
        "token_request": {
            "type": "object",
            "required": ["grant_type", "client_id", "client_secret"],
            "properties": {
                "grant_type": {"enum": ["client_credentials"]},
                "client_id": {"type": "string", "minLength": 1, "maxLength": 4096},
                "client_secret": {"type": "string", "minLength": 1, "maxLength": 4096},
                "scope": {"type": "string", "maxLength": 4096},
            },
        },
        "token": {
            "type": "object",
            "required": ["access_token", "token_type"],
            "properties": {
                "access_token": {"type": "string", "minLength": 1, "maxLength": 4096},
                "token_type": {"enum": ["Bearer"]},
                "expires_in": {"type": "integer"},
            },
        },
    }


def what_is_wrong(version: Version, kind: str, document: object) -> str | None:
    """The first thing in which a document departs from its schema; None where it does not."""
    checker = Draft202012Validator(schemas(version)[kind], format_checker=FormatChecker())
    for error in checker.iter_errors(document):
        return f"{'.'.join(str(step) for step in error.absolute_path) or kind}: {error.message}"
    return None
