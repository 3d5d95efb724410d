"""What the bus can tell the guard: power, heat, flow, leaks, isolation and feeds, and who lives.

A fact of a rack is of the oldest reading in it. While the BMS gives no life sign there is none: a
value that does not change and a BMS that died look the same.
"""

from datetime import datetime
from typing import Any, get_args

from interlock_servers.exchange import COMPONENT
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.readings import MeterKind
from interlock_tools.fact import Fact, FactNeed, Nature, Unknown

METER_POWER = "meter.power"
BMS_ALIVE = "bus.bms_alive"
RACK_TEMPERATURE = "rack.temperature"
RACK_FLOW = "rack.flow"
RACK_LEAK = "rack.leak"
RACK_ISOLATION = "rack.isolation"
RACK_FEEDS = "rack.feeds"
POINT_AGE = "point.age"
_MEASURES = {
    RACK_TEMPERATURE: {
        "supply_c": "RackLiquidSupplyTemperature",
        "return_c": "RackLiquidReturnTemperature",
    },
    RACK_FLOW: {"flow_lpm": "RackLiquidFlow"},
}


class ExchangeFacts:
    """A source of facts; what may not be used is `Unknown` with the reason, never a number."""

    def __init__(self, client: ExchangeClient) -> None:
        self._client = client

    @property
    def kinds(self) -> frozenset[str]:
        """`meter.power`, `bus.bms_alive`, `point.age`, and five of racks."""
        racks = {*_MEASURES, RACK_LEAK, RACK_ISOLATION, RACK_FEEDS}
        return frozenset({METER_POWER, BMS_ALIVE, POINT_AGE, *racks})

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """The last reading with its own moment; the guard holds that against the need's age."""
        if need.kind == METER_POWER:
            return self._meter_power(need)
        if need.kind == BMS_ALIVE:
            return self._bms_alive(need)
        if need.kind not in self.kinds:
            return _unknown(need, "the exchange does not answer this kind")
        if need.kind == POINT_AGE:
            return self._point_age(need)
        return self._of_rack(need)

    def _point_age(self, need: FactNeed) -> Fact | Unknown:
        """How old the last reading of a point is, whatever its quality; known as of now."""
        point = self._client.store.point(need.subject.id)
        if need.subject.kind != "point" or point is None:
            return _unknown(need, "no such point was ever heard of")
        now = self._client.bus_state().stale_since or self._client.now()
        age_s = point.age_s(now)
        if age_s is None:
            return _unknown(need, "no value was ever seen")
        return _fact(need, {"age_s": round(age_s, 3)}, now)

    def _of_rack(self, need: FactNeed) -> Fact | Unknown:
        rack_id = need.subject.id
        catalogue = self._client.store.catalogue()
        if need.subject.kind != "rack" or rack_id not in catalogue.by_rack:
            return _unknown(need, "no point on the bus belongs to such a rack")
        if rack_id in catalogue.conflicts:
            return _unknown(need, f"two things claim this id: {catalogue.conflicts[rack_id]}")
        beats = self._client.heartbeats()
        if beats.bms_alive is not True:
            return _unknown(need, f"the BMS is not known to be alive: {beats.why}")
        match need.kind:
            case "rack.feeds":
                feeds = [
                    one
                    for one in catalogue.served_by.get(rack_id, ())
                    if catalogue.media.get(one, "power") == "power"
                ]
                if not feeds:
                    return _unknown(need, "no metadata says what feeds it")
                return _fact(need, {"feeds": feeds}, beats.observed_at)
            case "rack.leak" | "rack.isolation":
                return self._safety(need)
            case _:
                return self._measures(need)

    def _measures(self, need: FactNeed) -> Fact | Unknown:
        value: dict[str, Any] = {}
        moments: list[datetime] = []
        readings = self._client.rack(need.subject.id).points
        for name, point_type in _MEASURES[need.kind].items():
            found = [r for r in readings if r.point_type == point_type and not r.is_setpoint]
            if len(found) != 1:
                return _unknown(need, f"{len(found)} points say that they are its {point_type}")
            (one,) = found
            if one.value is None or one.measured_at is None:
                return _unknown(need, f"{point_type}: {one.why}")
            value[name] = one.value
            moments.append(one.measured_at)
        return _fact(need, value, min(moments))

    def _safety(self, need: FactNeed) -> Fact | Unknown:
        (one,) = self._client.safety(need.subject.id)
        if one.measured_at is None:
            return _unknown(need, one.why or "none of its states is known")
        if need.kind == RACK_LEAK:
            if one.leak is None:
                return _unknown(need, one.why or "its leak sensor says nothing")
            value: dict[str, Any] = {"leak": one.leak, "sensor_fault": one.sensor_fault}
        else:
            value = {"liquid": one.liquid_isolated, "electrical": one.electrical_isolated}
            if set(value.values()) == {None}:
                return _unknown(need, "neither of its isolation states is known")
        known = {name: state for name, state in value.items() if state is not None}
        return _fact(need, known, one.measured_at)

    def _meter_power(self, need: FactNeed) -> Fact | Unknown:
        kind, subject_id = need.subject.kind, need.subject.id
        kinds: dict[str, MeterKind] = {name: name for name in get_args(MeterKind)}
        if kind not in kinds or (kind == "site" and subject_id != self._client.site_id):
            return _unknown(need, f"the bus has no meter for {need.subject}")
        beats = self._client.heartbeats()
        if beats.bms_alive is not True:  # an old value and an unchanged one look the same
            return _unknown(need, f"the BMS is not known to be alive: {beats.why}")
        conflict = self._client.store.catalogue().conflicts.get(subject_id)
        if conflict is not None:
            return _unknown(need, f"two things claim this id: {conflict}")
        found = self._client.power(kinds[kind], subject_id).power
        if found.power_w is None or found.measured_at is None:
            return _unknown(need, found.why or str(found.state))
        return Fact(
            kind=need.kind,
            subject=need.subject,
            value={"power_w": found.power_w},
            origin=COMPONENT,
            version=str(found.timestamp_ms),
            observed_at=found.measured_at,
            nature=Nature.MEASUREMENT,
        )

    def _bms_alive(self, need: FactNeed) -> Fact | Unknown:
        if need.subject.kind != "site" or need.subject.id != self._client.site_id:
            return _unknown(need, f"the bus carries site {self._client.site_id} only")
        answer = self._client.heartbeats()
        beats = [beat for beat in answer.beats if beat.kind == "bms"]
        ages_s = [beat.last_beat_age_s for beat in beats if beat.last_beat_age_s is not None]
        moments = [beat.last_beat_at for beat in beats if beat.last_beat_at is not None]
        if answer.bms_alive is None or not ages_s or not moments:
            return _unknown(need, answer.why or "it cannot be told")
        value: dict[str, Any] = {"alive": answer.bms_alive, "last_beat_age_s": max(ages_s)}
        # A beat is of its own moment; silence on a bus that we hear is of now.
        observed_at = min(moments) if answer.bms_alive else answer.observed_at
        return Fact(
            kind=need.kind,
            subject=need.subject,
            value=value,
            origin=COMPONENT,
            version=str(int(min(moments).timestamp() * 1000)),
            observed_at=observed_at,
            nature=Nature.MEASUREMENT,
        )


def _fact(need: FactNeed, value: dict[str, Any], observed_at: datetime) -> Fact:
    return Fact(
        kind=need.kind,
        subject=need.subject,
        value=value,
        origin=COMPONENT,
        version=str(int(observed_at.timestamp() * 1000)),
        observed_at=observed_at,
        nature=Nature.MEASUREMENT,
    )


def _unknown(need: FactNeed, why: str) -> Unknown:
    return Unknown(kind=need.kind, subject=need.subject, why=why)
