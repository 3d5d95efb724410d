"""What the bus carries besides points: machine states of NICo and the traffic of DSX Flex.

A machine's state is taken as NICo says it. Of a Flex message only the envelope is read, which
nobody signed: it says that something was sent, never what holds. The flex component verifies.
"""

import threading
from datetime import UTC, datetime
from typing import Any, NamedTuple

from interlock_servers.exchange.events import EventKind, EventRing
from interlock_servers.exchange.models import read_object
from interlock_servers.exchange.reasons import Deviation, Reason, RejectedError
from interlock_servers.exchange.topics import OtherTopic
from interlock_servers.plant_text import plant_text

MAX_MACHINES = 50_000
MAX_PAYLOAD_BYTES = 262_144
# `managed_host_state.state` of nico.yaml 1.0.0; any other is unknown, and no error.
MACHINE_STATES = frozenset(
    {
        "dpudiscoveringstate",
        "dpuinit",
        "hostinit",
        "validation",
        "ready",
        "assigned",
        "waitingforcleanup",
        "forcedeletion",
        "created",
        "failed",
        "dpureprovision",
        "hostreprovision",
        "measuring",
        "postassignedmeasuring",
        "bomvalidating",
    }
)
_GRID_TYPES = frozenset(
    {
        "grid.loadtarget.set.v1",
        "grid.powerstate.status.v1",
        "grid.powerbreach.alert.v1",
        "grid.powerbreach.enforcement.v1",
    }
)


class Machine(NamedTuple):
    """What NICo said last of a machine; `state` is None where it is none of those that we know."""

    machine_id: str
    state: str | None
    says: str
    measured_at: datetime
    received_at: datetime


class Machines:
    """The last state of every machine; bounded, safe between threads."""

    def __init__(self, ring: EventRing, max_machines: int = MAX_MACHINES) -> None:
        self._lock = threading.Lock()
        self._ring = ring
        self._max_machines = max_machines
        self._machines: dict[str, Machine] = {}

    def __len__(self) -> int:
        return len(self._machines)

    def machine(self, machine_id: str) -> Machine | None:
        """What is known of one, by its id with the prefix of its cluster."""
        return self._machines.get(machine_id)

    def take(
        self, topic: OtherTopic, payload: bytes, received_at: datetime
    ) -> tuple[Deviation, ...]:
        """Take one message in; the liberties that were taken with it.

        Raises:
            RejectedError: it says nothing that may be used.
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise RejectedError(Reason.TOO_LARGE, f"{len(payload)} bytes")
        fields = read_object(payload)
        if topic.space == "grid":
            return self._take_grid(topic, fields, received_at)
        return self._take_machine(topic, fields, received_at)

    def _take_machine(
        self, topic: OtherTopic, fields: dict[str, Any], received_at: datetime
    ) -> tuple[Deviation, ...]:
        said = fields.get("managed_host_state")
        says = said.get("state") if isinstance(said, dict) else None
        if not isinstance(says, str) or not says:
            raise RejectedError(Reason.MISSING_FIELD, "no managed_host_state.state")
        if fields.get("machine_id") != topic.subject:
            raise RejectedError(Reason.FOREIGN_SUBJECT, "machine_id is not that of the topic")
        measured_at = _moment(fields.get("timestamp"))
        machine_id = f"{topic.cpc}/{topic.subject}" if topic.cpc else topic.subject
        known = says in MACHINE_STATES
        machine = Machine(
            machine_id, says if known else None, plant_text(says, 100), measured_at, received_at
        )
        with self._lock:
            before = self._machines.get(machine_id)
            if before is None and len(self._machines) >= self._max_machines:
                raise RejectedError(Reason.STORE_FULL, f"{self._max_machines} machines are known")
            if before is not None and measured_at < before.measured_at:
                raise RejectedError(Reason.OUT_OF_ORDER, "older than what is known")
            self._machines[machine_id] = machine
        if before is not None and before.says != machine.says:
            self._ring.add(EventKind.MACHINE, machine_id, before.says, machine.says, received_at)
        return () if known else (Deviation.UNKNOWN_STATE,)

    def _take_grid(
        self, topic: OtherTopic, fields: dict[str, Any], received_at: datetime
    ) -> tuple[Deviation, ...]:
        kind, source = fields.get("type"), fields.get("source")
        if not isinstance(kind, str) or kind not in _GRID_TYPES:
            raise RejectedError(Reason.MISSING_FIELD, "no type of the Flex specification")
        if not isinstance(source, str) or source.rsplit("/", 1)[-1] != topic.subject:
            raise RejectedError(Reason.FOREIGN_SUBJECT, "source is not that of the topic")
        if kind != "grid.powerstate.status.v1":  # that one is a heartbeat too
            said = f"{kind}, unverified"
            self._ring.add(EventKind.GRID, plant_text(source), None, said, received_at)
        return (Deviation.OLD_ROLE,) if topic.older else ()


def _moment(text: object) -> datetime:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise RejectedError(Reason.BAD_TIMESTAMP, "no moment of ISO 8601 with an offset")
    try:
        return found.astimezone(UTC)
    except OverflowError:
        raise RejectedError(Reason.BAD_TIMESTAMP, "no plausible moment") from None
