"""A hall in words: messages of a facility with two feeds, breakers, CDUs and racks, no broker."""

import json
from datetime import UTC, datetime
from typing import Any

from interlock_servers.exchange.client import ExchangeClient
from interlock_servers.exchange.grammar import FIXED_UNITS, RACK_STATES
from interlock_servers.exchange.settings import ExchangeSettings
from interlock_servers.transports.mqtt import MqttSettings
from interlock_tools.clock import ManualClock

START = datetime(2026, 9, 1, tzinfo=UTC)


class Hall:
    """A client that never connects, told what a test wants it to have heard."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock(START)
        mqtt = MqttSettings(brokers=("mqtt://127.0.0.1:1",), client_id="hall")
        described = ExchangeSettings.model_validate({"mqtt": mqtt, "site_id": "lab", **settings})
        self.client = ExchangeClient(described, self.clock)
        self.store = self.client.store

    @property
    def now_ms(self) -> int:
        """This moment as the bus writes it."""
        return int(self.clock.now().timestamp() * 1000)

    def hear(self, topic: str, said: object, *, retained: bool = False) -> bool:
        """One message; bytes as they are, anything else as JSON."""
        payload = said if isinstance(said, bytes) else json.dumps(said).encode()
        return self.store.ingest(topic, payload, self.clock.now(), retained=retained)

    def describe(self, tail: str, **fields: Any) -> str:
        """A point's metadata, with the unit or the states that the specification fixes."""
        object_type, point_type = tail.split("/")[:2]
        if point_type in RACK_STATES:
            texts = enumerate(RACK_STATES[point_type])
            fields.setdefault("stateText", [{"value": n, "text": text} for n, text in texts])
        elif point_type in FIXED_UNITS:
            fields.setdefault("engUnit", FIXED_UNITS[point_type])
        said = {"objectType": object_type, "pointType": point_type, **fields}
        assert self.hear(f"BMS/v1/PUB/Metadata/{tail}", said), self.store.rejected
        return tail

    def describe_or_not(self, tail: str) -> bool:
        """The same, which may be refused."""
        object_type, point_type = tail.split("/")[:2]
        said = {"objectType": object_type, "pointType": point_type, "engUnit": "kW"}
        return self.hear(f"BMS/v1/PUB/Metadata/{tail}", said)

    def say(self, tail: str, number: object, *, quality: object = 1, by: str = "PUB") -> bool:
        """A point's value of this moment."""
        said = {"value": number, "timestamp": self.now_ms, "quality": quality}
        return self.hear(f"BMS/v1/{by}/Value/{tail}", said)

    def meter(self, name: str, serves: list[str], power_kw: float = 100.0) -> None:
        """A power meter with what it serves."""
        tail = f"PowerMeter/ActivePower/x/{name}"
        self.describe(tail, engUnit="kW", objectName=name, objectId=name, servesId=serves)
        self.say(tail, power_kw)

    def rack(self, name: str, point_type: str, number: object, **said: Any) -> str:
        """A point of a rack with its value."""
        tail = f"Rack/{point_type}/x/{name}"
        self.describe(tail, rackLocationId=name, rackLocationName=name)
        self.say(tail, number, **said)
        return tail

    def beat(self) -> None:
        """The life sign of the BMS."""
        tail = "System/HeartbeatTimestampBms/x/bms"
        self.describe(tail, objectName="BMS", objectId="BMS")
        self.say(tail, self.now_ms)


def two_feeds() -> Hall:
    """Site → feed-a, feed-b; r1 on both feeds, r2 on a alone; cdu-1 on feed-b cools both."""
    hall = Hall()
    hall.meter("lab", ["feed-a", "feed-b"])
    hall.meter("feed-a", ["r1", "r2"])
    hall.meter("feed-b", ["r1", "cdu-1"])
    cdu = {"objectName": "CDU 1", "objectId": "cdu-1", "servesId": ["r1", "r2"]}
    for side in ("Supply", "Return"):
        area = ["Secondary", side]
        hall.describe(f"CDU/LiquidTemperature/x/{side}", processArea=area, **cdu)
    states = [{"value": 0, "text": "Open"}, {"value": 1, "text": "Closed"}]
    hall.describe("Breaker/Status/x/q1", stateText=states, associateId="feed-a")
    for rack in ("r1", "r2"):
        hall.rack(rack, "RackPower", 90.0)
    hall.beat()
    return hall
