"""The twins against upstream's own schema: what we read must not only be what we write."""

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from interlock_servers.flex.twin import TwinKey
from interlock_servers.flex.twin import jwks as public_jwks
from interlock_servers.flex.twin_wire import public_keys, verified
from interlock_servers.transports.mqtt import Message, MqttBus, MqttSettings
from tests.servers.flex.conftest import FEEDS, PATIENCE_S, START, OpenBench

A, B = FEEDS


@pytest.fixture(scope="module")
def specification() -> dict[str, Any]:
    """Upstream's own AsyncAPI file, where it is at hand."""
    folder = os.environ.get("INTERLOCK_CONTRACTS")
    if not folder:
        pytest.skip("INTERLOCK_CONTRACTS does not name a folder with upstream's dsx-flex.yaml")
    path = Path(folder) / "dsx-exchange" / "asyncapi" / "dsx-flex" / "dsx-flex.yaml"
    if not path.exists():
        pytest.skip("INTERLOCK_CONTRACTS holds no dsx-exchange/asyncapi/dsx-flex/dsx-flex.yaml")
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


async def test_what_the_twins_publish_is_what_upstream_specifies(
    bench: OpenBench, specification: dict[str, Any], isv_key: TwinKey, agent_key: TwinKey
) -> None:
    """Envelope and signed payload, over the whole life of a target and of a breach."""

    def check(schema: str, document: Any) -> None:
        jsonschema.Draft202012Validator(
            {"$ref": f"#/components/schemas/{schema}", "components": specification["components"]},
            format_checker=jsonschema.FormatChecker(),
        ).validate(document)

    keys = public_keys(public_jwks([isv_key, agent_key]))
    heard: list[Message] = []
    async with bench() as site:
        bus = MqttBus(
            MqttSettings(brokers=(site.broker,), client_id="witness"),
            site.clock,
            heard.append,
            subscriptions=[("grid/#", 2)],
        )
        async with bus:
            await bus.wait_connected(PATIENCE_S)
            start, end = START + timedelta(seconds=3), START + timedelta(seconds=30)
            await site.tell_agent(site.isv.set_target(6_000.0, start=start, end=end))
            await site.tell_agent(site.isv.set_target(4_500.0, feed_tags=[A], start=start))
            await site.seconds(5)
            site.cap_all(200.0)
            await site.seconds(5)
            await site.tell_agent(site.isv.set_target(None, feed_tags=[A]))
            await site.seconds(20)
            await site.until(lambda: site.client.feed_states()[A].snapshot_at >= end)
    names = {
        "grid.loadtarget.set.v1": ("LoadTargetSetEvent", "SetLoadTargetData"),
        "grid.powerstate.status.v1": ("PowerStateStatusEvent", "PowerStateStatusData"),
        "grid.powerbreach.alert.v1": ("PowerBreachAlertEvent", "PowerBreachAlertData"),
    }
    kinds = set()
    for message in heard:
        envelope = json.loads(message.payload)
        kinds.add(envelope["type"])
        of_envelope, of_payload = names[envelope["type"]]
        check(of_envelope, envelope)
        check(of_payload, verified(envelope["data"], keys))
    assert kinds == set(names)
    with pytest.raises(jsonschema.ValidationError):
        check("LoadTargetSetEvent", json.loads(heard[0].payload) | {"specversion": "1.0"})
