"""What the guard must know before anything is asked of the BMS.

That a point is ours to write comes from metadata that was said lately; that our words arrive at
all, from our own heartbeat as the bus gives it back, or from the echo of the BMS: MQTT 3.1.1 has no
way to say that a publish was denied.
"""

from datetime import datetime
from typing import Any

from interlock_servers.exchange import COMPONENT
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.points import HEARTBEAT_S
from interlock_servers.exchange.requests import (
    CDU_SUPPLY,
    Asked,
    Namespace,
    measured_of,
    shown,
    target_of,
)
from interlock_servers.exchange.settings import RequestSettings
from interlock_tools.canonical import digest
from interlock_tools.errors import UnavailableError
from interlock_tools.fact import Fact, FactNeed, Nature, Unknown

REQUEST_HEARTBEAT = "request.heartbeat"
CDU_RACKS = "cdu.racks"
POINT_OF = {f"request.{asked.name.lower()}": asked for asked in Asked}
SUBJECT = {
    Asked.SUPPLY: "cdu",
    Asked.LIQUID: "rack",
    Asked.ELECTRICAL: "rack",
    Asked.STATUS: "readiness",
    Asked.AVAILABLE: "readiness",
}


class RequestFacts:
    """A source of facts beside `ExchangeFacts`; there only where requests are configured."""

    def __init__(
        self, client: ExchangeClient, namespace: Namespace, settings: RequestSettings
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._settings = settings

    @property
    def kinds(self) -> frozenset[str]:
        """`request.*`: what is ours to write and whether we are heard; `cdu.*`: what it touches."""
        return frozenset({REQUEST_HEARTBEAT, CDU_SUPPLY, CDU_RACKS, *POINT_OF})

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """The fact now; `Unknown` while the BMS is not known to be alive."""
        beats = self._client.heartbeats()
        try:
            if beats.bms_alive is not True:
                raise UnavailableError(f"the BMS is not known to be alive: {beats.why}")
            if need.kind == REQUEST_HEARTBEAT:
                return self._heartbeat(need)
            wanted = "cdu" if need.kind in {CDU_SUPPLY, CDU_RACKS} else SUBJECT[POINT_OF[need.kind]]
            if need.subject.kind != wanted:
                raise UnavailableError(f"this is known of a {wanted} only")
            if need.kind == CDU_SUPPLY:
                return self._supply(need)
            if need.kind == CDU_RACKS:
                return self._racks(need)
            return self._point(need)
        except UnavailableError as error:
            return Unknown(kind=need.kind, subject=need.subject, why=str(error))

    def _point(self, need: FactNeed) -> Fact:
        point = self._namespace.writable(POINT_OF[need.kind], need.subject.id)
        labels = point.metadata.state_text or ()
        value = {
            "topic": point.topic,
            "integration": point.metadata.integration,
            "unit": point.metadata.eng_unit,
            "states": {label.text: label.value for label in labels},
            "process_area": list(point.metadata.process_area),
        }
        return _fact(need, value, point.described_at, Nature.IDENTITY)

    def _heartbeat(self, need: FactNeed) -> Fact:
        """Whether our life sign came off the bus lately: as we sent it, or as the BMS echoes it."""
        site_id = self._client.site_id
        if (need.subject.kind, need.subject.id) != ("site", site_id):
            raise UnavailableError(f"the bus carries site {site_id} only")
        heard = heard_at(self._client, self._namespace)
        if heard is None:
            raise UnavailableError(
                "our own heartbeat does not come back from the bus, nor as an echo of the BMS: "
                "perhaps we may not publish; ask for pub and sub on "
                f"BMS/v1/{self._namespace.integration}/Value/#"
            )
        age_s = (self._client.now() - heard).total_seconds()
        if age_s > HEARTBEAT_S:
            raise UnavailableError(f"our own heartbeat was last heard {age_s:.0f} s ago")
        return _fact(need, {"heard": True}, heard, Nature.MEASUREMENT)

    def _supply(self, need: FactNeed) -> Fact:
        """What the BMS controls a CDU to, and from where to where that moved lately."""
        asked = self._namespace.writable(Asked.SUPPLY, need.subject.id).metadata
        targets = target_of(self._client, asked)
        if len(targets) != 1:
            raise UnavailableError(
                f"{len(targets)} points say that they are the target of "
                f"{'/'.join(asked.process_area) or 'it'}: a setpoint could not be verified"
            )
        target_c, at = shown(self._client, targets)
        if target_c is None or at is None:
            raise UnavailableError("its target is not known now")
        limits = self._settings.supply
        window_s = 0.0 if limits is None else limits.step_every_s
        since_ms = (self._client.now().timestamp() - window_s) * 1000
        samples = self._client.history(targets[0].topic.key)
        recent = [
            sample.value
            for sample in samples
            if sample.good and sample.value is not None and sample.timestamp_ms >= since_ms
        ]
        measured_c, _ = shown(self._client, measured_of(self._client, asked))
        value = {
            "target_c": target_c,
            "lowest_c": min([target_c, *recent]),
            "highest_c": max([target_c, *recent]),
            "measured_c": measured_c,
        }
        return _fact(need, value, at, Nature.MEASUREMENT)

    def _racks(self, need: FactNeed) -> Fact:
        catalogue = self._client.store.catalogue()
        if need.subject.id not in catalogue.serves:
            raise UnavailableError("no metadata says which racks it serves")
        if need.subject.id in catalogue.conflicts:
            raise UnavailableError(f"two things claim this id: {need.subject.id}")
        path = self._client.topology(need.subject.id)
        if path.truncated or path.warnings:
            raise UnavailableError(f"what it serves is not clear: {'; '.join(path.warnings)}")
        racks = sorted(node.id for node in path.nodes if node.kind == "rack")
        strange = [node.id for node in path.nodes if node.kind == "unknown"]
        if not racks or strange:
            raise UnavailableError(
                f"it serves {len(racks)} racks and {len(strange)} unknown things"
            )
        return _fact(need, {"racks": racks}, path.observed_at, Nature.IDENTITY)


def heard_at(client: ExchangeClient, namespace: Namespace) -> datetime | None:
    """When our life sign was last seen to have reached the bus; None where it never was."""
    store = client.store
    beats = client.heartbeats().beats
    moments = [
        beat.last_beat_at
        for beat in beats
        if beat.publisher == namespace.integration and beat.last_beat_at is not None
    ]
    for point in store.points(store.catalogue().by_object.get(namespace.integration, ())):
        if point.topic.point_type == "HeartbeatEchoBms" and point.metadata is not None:
            beat_ms, _ = shown(client, [point])
            if beat_ms is not None:
                moments.append(datetime.fromtimestamp(beat_ms / 1000, client.now().tzinfo))
    return max(moments, default=None)


def _fact(need: FactNeed, value: Any, observed_at: datetime, nature: Nature) -> Fact:
    return Fact(
        kind=need.kind,
        subject=need.subject,
        value=value,
        origin=COMPONENT,
        version=digest(value),
        observed_at=observed_at,
        nature=nature,
    )
