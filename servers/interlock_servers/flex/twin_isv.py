"""A grid ISV on the wire: it sends load targets, well formed or broken in every way we know."""

import json
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from interlock_servers.flex.twin_wire import Json, TwinKey, event, forge, iso, make_key, power, sign
from interlock_servers.transports.mqtt import Message, MqttBus, MqttSettings
from interlock_tools.clock import Clock


class IsvFault(StrEnum):
    """A way for a load target to be wrong."""

    WRONG_KEY = "wrong_key"  # another key than the one that its kid stands for
    UNKNOWN_KID = "unknown_kid"
    NO_KID = "no_kid"
    ALG_NONE = "alg_none"
    HS256_WITH_PUBLIC_KEY = "hs256_with_public_key"
    UNSIGNED = "unsigned"  # the plain object, which the schema also lists
    WRONG_SOURCE = "wrong_source"  # the envelope names another than the topic
    NOT_A_SOURCE = "not_a_source"
    PAST_TIME = "past_time"
    FUTURE_TIME = "future_time"
    ZERO = "zero"
    NEGATIVE = "negative"
    NOT_A_NUMBER = "not_a_number"
    BROKEN_JSON = "broken_json"
    MISSPELT_FEED_TAGS = "misspelt_feed_tags"
    INTERVAL_PAST = "interval_past"


class GridIsvTwin:
    """An ISV that the site trusts, or believes to be one."""

    def __init__(
        self,
        broker: str,
        key: TwinKey,
        clock: Clock,
        *,
        identifier: str = "acme-energy",
        topic_prefix: str = "",
    ) -> None:
        """Describe the ISV; `topic_prefix` is `cpc/{id}/` on the common bus."""
        self.key = key
        self.source = f"//grid/v1/isv/{identifier}"
        self.last_payload = b""
        self._identifier = identifier
        self._topic = f"{topic_prefix}grid/v1/isv/{identifier}/loadtarget/set"
        self._clock = clock
        self._last_data: Any = None
        self._bus = MqttBus(
            MqttSettings(brokers=(broker,), client_id=f"twin-isv-{uuid.uuid4().hex[:8]}"),
            clock,
            _ignore,
            subscriptions=[],
        )

    async def __aenter__(self) -> Self:
        """Connect."""
        await self._bus.enter_connected(10.0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Leave."""
        await self._bus.__aexit__(kind, error, tb)

    async def set_target(
        self,
        limit_w: float | None,
        *,
        feed_tags: Sequence[str] | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        best_effort: bool = False,
        unit: str = "kilowatt",
        fault: IsvFault | None = None,
    ) -> str:
        """Send one target and give its correlation id.

        Args:
            limit_w: the limit, or None to remove one.
            feed_tags: the feeds; None leaves them out, which is every feed of the site.
            start: None leaves it out, which is now.
            end: None leaves it out, which is until replaced.
            best_effort: do not disrupt work for it.
            unit: watt, kilowatt or megawatt.
            fault: how it is to be wrong.
        """
        now = self._clock.now()
        interval = {}
        if start is not None:
            interval["start_time"] = iso(start)
        if end is not None:
            interval["end_time"] = iso(end)
        target: Json = {
            "interval": interval,
            "load_constraint": None if limit_w is None else power(limit_w, unit),
            "strategy": {"best_effort": best_effort},
        }
        if feed_tags is not None:
            target["feed_tags"] = list(feed_tags)
        return await self.send([target], now, fault)

    async def send(
        self, targets: list[Json], now: datetime | None = None, fault: IsvFault | None = None
    ) -> str:
        """Send targets as they stand and give their correlation id."""
        now = now or self._clock.now()
        correlation_id = str(uuid.uuid4())
        payload = json.dumps({"targets": _spoilt(targets, fault, now)}).encode()
        self._last_data = (
            json.loads(payload) if fault is IsvFault.UNSIGNED else self._jws(payload, fault)
        )
        message = self._event(now, correlation_id)
        match fault:
            case IsvFault.WRONG_SOURCE:
                message["source"] = f"{self.source}-2"
            case IsvFault.NOT_A_SOURCE:
                message["source"] = f"grid/v1/isv/{self._identifier}"
            case IsvFault.PAST_TIME:
                message["time"] = iso(now - timedelta(hours=1))
            case IsvFault.FUTURE_TIME:
                message["time"] = iso(now + timedelta(hours=1))
        text = json.dumps(message).encode()
        await self.publish(text[:-20] if fault is IsvFault.BROKEN_JSON else text)
        return correlation_id

    async def replay(self) -> None:
        """Send the last message again, byte for byte."""
        await self.publish(self.last_payload)

    async def rewrap(self) -> None:
        """Put the last signature into a new envelope: nothing in an envelope is signed."""
        message = self._event(self._clock.now(), str(uuid.uuid4()))
        await self.publish(json.dumps(message).encode())

    async def publish(self, payload: bytes) -> None:
        """Send any bytes on the topic of load targets."""
        self.last_payload = payload
        await self._bus.publish(self._topic, payload, qos=1)

    def _event(self, now: datetime, correlation_id: str) -> Json:
        return event(
            "grid.loadtarget.set.v1",
            self.source,
            "loadtarget",
            now,
            self._last_data,
            correlation_id,
        )

    def _jws(self, payload: bytes, fault: IsvFault | None) -> str:
        kid, algorithm = self.key.kid, self.key.algorithm
        match fault:
            case IsvFault.WRONG_KEY:
                return sign(payload, make_key(kid))
            case IsvFault.UNKNOWN_KID:
                return sign(payload, self.key, kid=f"{kid}-2")
            case IsvFault.NO_KID:
                return forge(payload, {"alg": algorithm}, b"any")
            case IsvFault.ALG_NONE:
                return forge(payload, {"alg": "none", "kid": kid})
            case IsvFault.HS256_WITH_PUBLIC_KEY:
                return forge(
                    payload, {"alg": "HS256", "kid": kid}, self.key.key.as_pem(private=False)
                )
        return sign(payload, self.key)


def _spoilt(targets: list[Json], fault: IsvFault | None, now: datetime) -> list[Json]:
    spoilt = [dict(target) for target in targets]
    for target in spoilt:
        match fault:
            case IsvFault.ZERO:
                target["load_constraint"] = {"value": 0, "unit": "kilowatt"}
            case IsvFault.NEGATIVE:
                target["load_constraint"] = {"value": -5.0, "unit": "kilowatt"}
            case IsvFault.NOT_A_NUMBER:
                target["load_constraint"] = {"value": float("nan"), "unit": "kilowatt"}
            case IsvFault.MISSPELT_FEED_TAGS:
                target["feedTags"] = target.pop("feed_tags", [])
            case IsvFault.INTERVAL_PAST:
                target["interval"] = {
                    "start_time": iso(now - timedelta(hours=2)),
                    "end_time": iso(now - timedelta(hours=1)),
                }
    return spoilt


def _ignore(_: Message) -> None:
    """An ISV of this kind listens to nothing."""
