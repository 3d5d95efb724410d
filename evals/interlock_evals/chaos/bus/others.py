"""Topics that are none, and what NICo says of its machines, rightly and wrongly; from one seed."""

import json
import random
from datetime import UTC, datetime
from typing import Any

from interlock_evals.chaos.bus.facility import Facility
from interlock_evals.chaos.bus.shots import Machine, Refused, Shot, refused

STATES = ("ready", "assigned", "failed", "hostinit", "measuring")
MACHINES = 50
NO_TOPICS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("BMS/v1/PUB/Value/Rack/RackPower", ("topic_grammar",)),
    ("BMS/v1/PUB/Value/Rack/RackPower/", ("topic_grammar",)),
    ("BMS/v1/PUB/Value/Rack//a", ("topic_grammar",)),
    ("BMS/v1//Value/Rack/RackPower/a", ("topic_grammar",)),
    ("BMS/v1/PUB/value/Rack/RackPower/a", ("topic_grammar",)),
    ("BMS/v1/PUB/Values/Rack/RackPower/a", ("topic_grammar",)),
    ("BMS/v1/PUB/Value/Rack/RackPower/a/+", ("topic_grammar",)),
    ("BMS/v1/PUB/Value/Rack/RackPower/#", ("topic_grammar",)),
    ("BMS/v1/PUB/Value/Rack/RackPower/a\x00", ("topic_grammar",)),
    ("BMS/v1/PUB/Value/Rack/RackPower/a\n", ("topic_grammar",)),
    ("BMS/v1/rack/power/Value", ("topic_grammar",)),
    ("cpc/a/BMS/v1/PUB/Value/Rack", ("topic_grammar",)),
    ("BMS/v1/PUB/Value/rack/RackPower/a", ("unknown_object_type",)),
    ("BMS/v1/PUB/Value/Toaster/RackPower/a", ("unknown_object_type",)),
    ("BMS/v1/PUB/Value/Rack/RackPower/" + "a" * 1100, ("too_large",)),
    ("bms/v1/PUB/Value/Rack/RackPower/a", ("not_bms",)),
    ("BMS/v2/PUB/Value/Rack/RackPower/a", ("not_bms",)),
    ("cpc//BMS/v1/PUB/Value/Rack/RackPower/a", ("not_bms",)),
    ("cpc/a/b/BMS/v1/PUB/Value/Rack/RackPower/a", ("not_bms",)),
    ("x/BMS/v1/PUB/Value/Rack/RackPower/a", ("not_bms",)),
    ("/BMS/v1/PUB/Value/Rack/RackPower/a", ("not_bms",)),
    ("NICO/v1/machine/m/states", ("not_bms",)),
    ("NICO/v1/machine//state", ("not_bms",)),
    ("nico/v1/machine/m/state", ("not_bms",)),
    ("grid/v1/isv/a/b/loadtarget/set", ("not_bms",)),
    ("spiffe-exchange/v1/pub-keysets/tenant/a/kid/b", ("not_bms",)),
    ("", ("not_bms",)),
    ("/", ("not_bms",)),
    ("\u202eBMS", ("not_bms",)),
)
NO_MACHINES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"managed_host_state": None}, "missing_field"),
    ({"managed_host_state": {"state": ""}}, "missing_field"),
    ({"managed_host_state": {"state": 1}}, "missing_field"),
    ({"managed_host_state": "ready"}, "missing_field"),
    ({"machine_id": "another"}, "foreign_subject"),
    ({"machine_id": None}, "foreign_subject"),
    ({"timestamp": None}, "bad_timestamp"),
    ({"timestamp": 1788220800}, "bad_timestamp"),
    ({"timestamp": "2026-09-01T00:00:00"}, "bad_timestamp"),
    ({"timestamp": "yesterday"}, "bad_timestamp"),
    ({"timestamp": "0001-01-01T00:00:00+14:00"}, "bad_timestamp"),
)


class Others:
    """Everything on a bus that is no point of its facility."""

    def __init__(self, chance: random.Random, facility: Facility) -> None:
        self._chance = chance
        self._facility = facility

    def topic(self, now_ms: int) -> Shot:
        """A good value on a topic that is none."""
        topic, reasons = self._chance.choice(NO_TOPICS)
        said = {"value": 1, "timestamp": now_ms, "quality": 1}
        return Shot("topic", topic, json.dumps(said).encode(), False, refused(*reasons))

    def noise(self, _: int) -> Shot:
        """Any bytes on any topic that is none of ours."""
        levels = [chr(self._chance.randrange(0x21, 0x2500)) for _ in range(6)]
        topic = "/".join(("~noise", *levels))
        payload = self._chance.randbytes(self._chance.randrange(200))
        return Shot("noise", topic, payload, self._chance.random() < 0.5, refused("not_bms"))

    def machine(self, now_ms: int) -> Shot:
        """A machine's state, in time or late, or something that is none."""
        machine_id = f"m-{self._chance.randrange(MACHINES)}"
        at_ms = now_ms - self._chance.randrange(30_000)
        at = datetime.fromtimestamp(at_ms // 1000, UTC)
        known = self._chance.random() < 0.9
        says = self._chance.choice(STATES) if known else "meditating"
        document: dict[str, Any] = {
            "machine_id": machine_id,
            "managed_host_state": {"state": says},
            "timestamp": at.isoformat(),
        }
        meant: Machine | Refused = Machine(
            machine_id, says if known else None, at_ms // 1000 * 1000
        )
        name = "machine"
        if self._chance.random() < 0.3:
            parts, reason = self._chance.choice(NO_MACHINES)
            document |= parts
            meant, name = refused(reason), "machine_wrong"
        payload = json.dumps(document).encode()
        return Shot(name, f"NICO/v1/machine/{machine_id}/state", payload, False, meant)
