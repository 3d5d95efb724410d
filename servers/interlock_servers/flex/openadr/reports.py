"""A settlement as the report of OpenADR 3 that an event asked for.

A gap is a gap here too: the interval is there, with the data quality MISSING and no value.
"""

from datetime import UTC
from typing import Any, Final

from interlock_servers.flex.openadr.settings import OpenAdrSettings
from interlock_servers.flex.settlement import Row, Settlement
from interlock_servers.flex.strict_json import JsonObject

DEMAND, BASELINE, USAGE, QUALITY = "DEMAND", "BASELINE", "USAGE", "DATA_QUALITY"
STATE: Final = "OPERATING_STATE"
NORMAL, CURTAILED = "RUNNING_NORMAL", "RUNNING_CURTAILED"
ALWAYS: Final = (DEMAND, BASELINE)
_UNITS: Final = {DEMAND: "KW", BASELINE: "KW", USAGE: "KWH"}
_KINDS: Final = (*_UNITS, STATE)


def settlement_report(
    settlement: Settlement, event: JsonObject, settings: OpenAdrSettings, *, resource_name: str
) -> JsonObject:
    """The report of a settlement: mean demand and baseline, or what else the event asked for.

    Args:
        settlement: what the event came to.
        event: as the VTN gave it; its report descriptors choose among DEMAND, BASELINE, USAGE and
            OPERATING_STATE, which is of the meter and never of what an agent calculates.
        settings: who we are, and for which version of the standard the report is.
        resource_name: what the VTN knows the site as.
    """
    kinds = _asked_for(event) or ALWAYS
    report: JsonObject = {
        "eventID": str(event["id"]),
        "clientName": settings.ven_name,
        "reportName": f"settlement {settlement.event_id} {settlement.method}"[:128],
        "payloadDescriptors": [
            {"payloadType": kind, "units": _UNITS[kind], "readingType": "MEAN"}
            if kind in _UNITS
            else {"payloadType": kind}
            for kind in kinds
        ],
        "resources": [
            {
                "resourceName": resource_name,
                "intervals": [
                    _interval(row, settlement, kinds, number)
                    for number, row in enumerate(settlement.rows)
                ],
            }
        ],
    }
    if settings.version == "3.0":
        report["programID"] = str(event["programID"])
    return report


def _asked_for(event: JsonObject) -> tuple[str, ...]:
    asked = [
        descriptor.get("payloadType")
        for descriptor in event.get("reportDescriptors") or ()
        if isinstance(descriptor, dict)
    ]
    return tuple(kind for kind in _KINDS if kind in asked)


def _interval(
    row: Row, settlement: Settlement, kinds: tuple[str, ...], number: int
) -> dict[str, Any]:
    """One interval of the meter, under the id of the event's interval in which it lies."""
    hours = settlement.interval.total_seconds() / 3600
    kw = {
        DEMAND: None if row.metered_w is None else row.metered_w / 1e3,
        BASELINE: None if row.baseline_w is None else row.baseline_w / 1e3,
        USAGE: None if row.metered_w is None else row.metered_w / 1e3 * hours,
    }
    payloads: list[dict[str, Any]] = [
        {"type": kind, "values": [round(value, 6)]}
        for kind in kinds
        if (value := kw.get(kind)) is not None
    ]
    if STATE in kinds and (state := _state(row)) is not None:
        payloads.append({"type": STATE, "values": [state]})
    quality = "OK" if row.metered_w is not None else "BAD" if row.note == "doubted" else "MISSING"
    named = row.event_ids[0].rpartition("#")[2] if row.event_ids else ""
    return {
        "id": int(named) if named.lstrip("-").isdigit() else number,
        "intervalPeriod": {
            "start": row.start.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "duration": f"PT{settlement.interval.total_seconds():.0f}S",
        },
        "payloads": [*payloads, {"type": QUALITY, "values": [quality]}],
    }


def _state(row: Row) -> str | None:
    """Curtailed where it kept below a target that asked for less than it would have drawn."""
    if row.metered_w is None or row.asked_w is None:
        return None
    return CURTAILED if row.asked_w > 0 and row.within_target else NORMAL
