"""Health events, as NVSentinel's modules pass them on, and the store that they share.

Keys and numbers are those of `datamodels.HealthEvent`; an annotation holds what Go's JSON makes of
it: numbers for enums, and nothing where a value is zero.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from interlock_servers.nvsentinel.twin_names import ACTIONS

Json = dict[str, Any]
Entity = tuple[str, str]  # type, value


@dataclass(frozen=True)
class HealthEvent:
    """One observation of a health monitor.

    Attributes:
        entities: what is hit, as type and value; the GPU first, then its other names.
        skip_drain: whether it asks that nothing be drained.
    """

    agent: str
    component: str
    check: str
    node: str
    is_fatal: bool
    is_healthy: bool
    action: str = "NONE"
    message: str = ""
    codes: tuple[str, ...] = ()
    entities: tuple[Entity, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    custom_action: str = ""
    force_quarantine: bool = False
    skip_quarantine: bool = False
    skip_drain: bool = False

    @property
    def uuids(self) -> tuple[str, ...]:
        """The UUIDs of the GPUs that are hit."""
        return tuple(value for kind, value in self.entities if kind == "GPU_UUID")

    def as_cel(self) -> Json:
        """As a rule sees it: every field there, actions by number."""
        return {
            "version": 1,
            "agent": self.agent,
            "componentClass": self.component,
            "checkName": self.check,
            "isFatal": self.is_fatal,
            "isHealthy": self.is_healthy,
            "message": self.message,
            "recommendedAction": ACTIONS[self.action],
            "errorCode": list(self.codes),
            "entitiesImpacted": [{"entityType": k, "entityValue": v} for k, v in self.entities],
            "metadata": dict(self.metadata),
            "nodeName": self.node,
            "customRecommendedAction": self.custom_action,
        }

    def as_json(self, at: datetime, event_id: str) -> Json:
        """As an annotation holds it."""
        whole = {
            **self.as_cel(),
            "generatedTimestamp": {"seconds": int(at.timestamp()), "nanos": at.microsecond * 1000},
            "processingStrategy": 1,
            "id": event_id,
        }
        overrides = {"force": self.force_quarantine, "skip": self.skip_quarantine}
        if any(overrides.values()):
            whole["quarantineOverrides"] = {k: v for k, v in overrides.items() if v}
        if self.skip_drain:
            whole["drainOverrides"] = {"skip": True}
        return {key: value for key, value in whole.items() if value not in (0, "", False, [], {})}

    def told(self) -> str:
        """Its part of a condition's message."""
        codes = "".join(f"ErrorCode:{code} " for code in self.codes)
        hit = "".join(f"{kind}:{value} " for kind, value in self.entities)
        return f"{codes}{hit}{self.message} Recommended Action={self.action};"


def clears(healthy: HealthEvent, stored: Json) -> bool:
    """Whether a healthy event is about the same check, and about something that is stored."""
    same = (healthy.agent, healthy.component, healthy.check, healthy.node)
    keys = ("agent", "componentClass", "checkName", "nodeName")
    return same == tuple(stored.get(key, "") for key in keys)


def without(stored: Json, entities: Iterable[Entity]) -> Json | None:
    """What is left of a stored event once some entities are well; None where nothing is.

    A healthy event that names no entity is about all of them.
    """
    well = set(entities)
    left = [
        each
        for each in stored.get("entitiesImpacted", [])
        if well and (each["entityType"], each["entityValue"]) not in well
    ]
    return {**stored, "entitiesImpacted": left} if left else None


def annotation(events: Iterable[Json]) -> str:
    """The value of `quarantineHealthEvent`."""
    return json.dumps(list(events), separators=(",", ":"))


QUARANTINED: Final = "Quarantined"
ALREADY: Final = "AlreadyQuarantined"
UNQUARANTINED: Final = "UnQuarantined"
CANCELLED: Final = "Cancelled"


@dataclass
class Record:
    """One event in the store, with what the modules have made of it.

    Attributes:
        quarantined: None until fault-quarantine has looked; empty where no rule matched.
        eviction: `NotStarted`, `InProgress`, `Failed`, `Succeeded` or `AlreadyDrained`.
        remediated: whether a maintenance CR was made for it; None while that is open.
    """

    event_id: str
    at: datetime
    event: HealthEvent
    quarantined: str | None = None
    eviction: str = "NotStarted"
    remediated: bool | None = None

    @property
    def is_active(self) -> bool:
        """Whether it keeps its node quarantined."""
        return self.quarantined in (QUARANTINED, ALREADY)


class EventStore:
    """The datastore between the modules: every event in order, never read from outside."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._open: dict[str, Record] = {}
        self._seen = 0

    def add(self, event: HealthEvent, at: datetime) -> Record:
        """Store an event under an id that follows from its place."""
        self._seen += 1
        record = Record(f"{self._seen:024x}", at, event)
        self.records.append(record)
        self._open[record.event_id] = record
        return record

    def unread(self) -> list[Record]:
        """Those that fault-quarantine has not looked at, in order."""
        return [record for record in self._open.values() if record.quarantined is None]

    def active(self, node: str | None = None) -> list[Record]:
        """Those that keep a node quarantined."""
        return [
            record
            for record in self._open.values()
            if record.is_active and node in (None, record.event.node)
        ]

    def opened(self) -> list[Record]:
        """Those that somebody may still have to do something about."""
        return list(self._open.values())

    def close(self, record: Record) -> None:
        """Nobody has to look at it any more."""
        self._open.pop(record.event_id, None)
