"""What the twin says, held against the published AsyncAPI of the BMS topics."""

import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import anyio
import jsonschema
import pytest
import yaml

from interlock_plant.faults import Fault, FaultKind
from interlock_servers.exchange.grammar import OBJECT_TYPES
from interlock_servers.exchange.twin import ExchangeTwin, FaultName
from interlock_servers.transports.broker import local_broker
from interlock_servers.transports.mqtt import Message, MqttBus, MqttSettings
from interlock_tools.clock import ManualClock
from tests.servers.exchange.conftest import START, lab_plant
from tests.servers.waiting import until

CONTRACTS = os.environ.get("INTERLOCK_CONTRACTS")
SPECIFICATION = Path(CONTRACTS or "") / "dsx-exchange/asyncapi/bms/bms.yaml"

pytestmark = pytest.mark.skipif(
    not CONTRACTS, reason="INTERLOCK_CONTRACTS does not name the upstream schemas"
)


@cache
def specification() -> dict[str, Any]:
    """The AsyncAPI document."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: dict[str, Any] = yaml.load(SPECIFICATION.read_bytes(), Loader=loader)  # noqa: S506
    return document


def schemas_for(topic: str) -> Iterator[dict[str, Any]]:
    """The schemas that upstream allows on a topic."""
    document = specification()
    for channel in document["channels"].values():
        pattern = re.sub(r"\{tagPath\}", "(?P<tagPath>.+)", channel["address"])
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern), topic)
        rules = channel.get("parameters", {})
        if found is None or any(
            found[name] not in rule["enum"] for name, rule in rules.items() if "enum" in rule
        ):
            continue
        for message in channel["messages"].values():
            name = message["$ref"].rpartition("/")[2]
            payload = document["components"]["messages"][name]["payload"]
            yield {**payload, "components": {"schemas": document["components"]["schemas"]}}


def accepting(topic: str, payload: bytes) -> int:
    """How many of the schemas of its topic accept a message."""
    content = json.loads(payload, parse_constant=_no_json)
    return sum(
        jsonschema.Draft202012Validator(schema).is_valid(content) for schema in schemas_for(topic)
    )


def _no_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON, although Python reads it")


async def said_by_the_twin(*faults: FaultName, integration: str | None = None) -> list[Message]:
    """One round of everything, with one rack leaking."""
    heard: list[Message] = []
    plant, clock = lab_plant(), ManualClock(START)
    plant.inject(Fault(FaultKind.LEAK, "rack-02"))
    with anyio.fail_after(30):
        async with local_broker() as broker:
            settings = MqttSettings(brokers=(broker,), client_id="listener")
            everything = [("#", 1)]
            async with (
                MqttBus(settings, clock, heard.append, subscriptions=everything) as bus,
                ExchangeTwin(plant, broker, clock, integration=integration) as twin,
            ):
                await bus.wait_connected(15)
                for fault in faults:
                    twin.fault(fault)
                said = await twin.publish_once()
                await until(lambda: len(heard) == said)
    return heard


async def test_every_message_of_the_twin_is_one_that_upstream_publishes() -> None:
    """Metadata and value, topic and payload, each accepted by exactly one schema of its topic."""
    heard = await said_by_the_twin()
    assert len(heard) > 100
    seen: set[tuple[str, ...]] = set()
    for message in heard:
        kind = tuple(message.topic.split("/")[3:6])
        if kind not in seen or "rack-02" in message.topic:
            assert accepting(message.topic, message.payload) == 1, message
        seen.add(kind)
    assert {kind[1] for kind in seen} == {"PowerMeter", "Rack", "CDU", "System"}


async def test_a_facility_that_can_be_asked_has_every_object_type_of_upstream() -> None:
    """All 23, the points that an integration writes among them: those are described, not said."""
    heard = await said_by_the_twin(integration="NICO")
    kinds = {tuple(m.topic.split("/")[3:6]) for m in heard}
    for message in heard:
        if "rack-01" in message.topic or "/Rack/" not in message.topic:
            assert accepting(message.topic, message.payload) == 1, message
    assert {kind[1] for kind in kinds} == OBJECT_TYPES
    written = {k[2] for k in kinds if k[0] == "Metadata"} - {k[2] for k in kinds if k[0] == "Value"}
    assert written >= {
        "LiquidTemperatureSpRequest",
        "RackLiquidIsolationRequest",
        "RackElectricalIsolationRequest",
        "RackLeakDetectTray",
        "HeartbeatTimestampIntegration",
    }


@pytest.mark.parametrize("fault", ["string_quality", "malformed"])
async def test_the_schemas_catch_a_twin_that_departs_from_them(fault: FaultName) -> None:
    """So that the promise above can fail."""
    heard = await said_by_the_twin(fault)
    values = [m for m in heard if "/Value/Rack/RackPower/" in m.topic]
    assert values
    for message in values:
        try:
            assert accepting(message.topic, message.payload) == 0
        except ValueError:
            assert fault == "malformed"
