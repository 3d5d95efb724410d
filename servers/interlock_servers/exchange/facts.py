"""What the bus can tell the guard: the power of a meter, and whether its BMS is alive."""

from typing import Any, get_args

from interlock_servers.exchange import COMPONENT
from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.readings import MeterKind
from interlock_tools.fact import Fact, FactNeed, Nature, Unknown

METER_POWER = "meter.power"
BMS_ALIVE = "bus.bms_alive"


class ExchangeFacts:
    """A source of facts; what may not be used is `Unknown` with the reason, never a number."""

    def __init__(self, client: ExchangeClient) -> None:
        self._client = client

    @property
    def kinds(self) -> frozenset[str]:
        """`meter.power` and `bus.bms_alive`."""
        return frozenset({METER_POWER, BMS_ALIVE})

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """The last reading with its own moment; the guard holds that against the need's age."""
        if need.kind == METER_POWER:
            return self._meter_power(need)
        if need.kind == BMS_ALIVE:
            return self._bms_alive(need)
        return _unknown(need, "the exchange does not answer this kind")

    def _meter_power(self, need: FactNeed) -> Fact | Unknown:
        kind, subject_id = need.subject.kind, need.subject.id
        kinds: dict[str, MeterKind] = {name: name for name in get_args(MeterKind)}
        if kind not in kinds or (kind == "site" and subject_id != self._client.site_id):
            return _unknown(need, f"the bus has no meter for {need.subject}")
        beats = self._client.heartbeats()
        if beats.bms_alive is not True:  # an old value and an unchanged one look the same
            return _unknown(need, f"the BMS is not known to be alive: {beats.why}")
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


def _unknown(need: FactNeed, why: str) -> Unknown:
    return Unknown(kind=need.kind, subject=need.subject, why=why)
