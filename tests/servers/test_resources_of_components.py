"""The resources and runbooks of each component, over the lab with every wire real."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.server.subscriptions import ResourceUpdated
from mcp.types import PromptReference, ResourceTemplateReference

from interlock_plant.faults import Fault, FaultKind
from tests.servers.sites import Lab, open_lab

PATIENCE_S = 30.0


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The lab, every point said once."""
    async with open_lab(tmp_path) as opened:
        yield opened


async def read(client: Client, uri: str) -> dict[str, Any]:
    """A resource as JSON."""
    (contents,) = (await client.read_resource(uri)).contents
    shown: dict[str, Any] = json.loads(contents.model_dump()["text"])
    return shown


async def completed(client: Client, template: str, name: str, value: str) -> list[str]:
    """What a variable may become."""
    ref = ResourceTemplateReference(uri=template)
    return (await client.complete(ref, {"name": name, "value": value})).completion.values


async def test_the_catalogue_leads_to_every_point_and_each_is_read(lab: Lab) -> None:
    """Page by page through its own addresses; a point says what it is and how it reads."""
    client = lab.clients["exchange"]
    keys: list[str] = []
    uri: str | None = "exchange://catalogue"
    while uri is not None:
        page = await read(client, uri)
        keys += [point["key"] for point in page["points"]]
        uri = page.get("next_uri")

    assert len(keys) == len(set(keys)) == (await lab.call("exchange", "bus_health"))["points"]
    key = next(key for key in keys if "RackPower" in key)
    point = await read(client, f"exchange://point/{key}")
    assert (point["key"], point["state"], point["unit"]) == (key, "good", "kW")
    assert point["value"] > 0
    with pytest.raises(MCPError, match="no point on the bus") as error:
        await read(client, "exchange://point/Rack/RackPower/nowhere")
    assert error.value.error.code == -32602
    begun = key[: len("Rack/Rack")]
    found = await completed(client, "exchange://point/{+point_id}", "point_id", begun)
    assert key in found
    assert all(name.startswith(begun) for name in found)


async def test_a_rack_tells_when_its_leak_is_seen(lab: Lab) -> None:
    """And the racks that nothing happened to say nothing; it reads as the tool shows it."""
    lab.plant.inject(Fault(FaultKind.LEAK, "rack-02"))
    client = lab.clients["exchange"]
    racks = await completed(client, "exchange://rack/{rack_id}", "rack_id", "rack-0")
    leaks = [
        point["key"]
        for rack in racks
        for point in (await read(client, f"exchange://rack/{rack}"))["points"]
        if "RackLeakDetect" in point["key"]
    ]
    waited_for = [f"exchange://point/{key}" for key in leaks]
    mine = next(uri for uri, rack in zip(waited_for, racks, strict=True) if rack == "rack-02")
    told: list[str] = []
    with anyio.fail_after(PATIENCE_S):
        async with client.listen(
            resource_subscriptions=[*waited_for, "exchange://rack/rack-02"]
        ) as stream:
            await lab.second()
            await lab.second()
            async for event in stream:
                assert isinstance(event, ResourceUpdated)
                told.append(event.uri)
                if mine in told:
                    break
                await lab.second()
    rack = await read(client, "exchange://rack/rack-02")

    assert set(told) <= {mine, "exchange://rack/rack-02"}
    assert [p["label"] for p in rack["points"] if "RackLeakDetect" in p["key"]] == ["Leak"]


async def test_a_target_of_the_grid_is_told_and_has_its_runbook(lab: Lab) -> None:
    """From the moment that it is verified; an event that nobody verified has no runbook."""
    client = lab.clients["flex"]
    with anyio.fail_after(PATIENCE_S):
        async with client.listen(resource_subscriptions=["flex://targets"]) as stream:
            await lab.limit(300_000.0)
            lab.clock.advance(1.0)
            assert await anext(aiter(stream)) == ResourceUpdated(uri="flex://targets")
    targets = (await read(client, "flex://targets"))["targets"]
    event_id = targets[0]["event_id"]
    ref = PromptReference(name="runbook_grid_event")
    offered = (await client.complete(ref, {"name": "event_id", "value": ""})).completion.values
    prompt = await client.get_prompt("runbook_grid_event", {"event_id": event_id})
    with pytest.raises(MCPError, match="no verified target"):
        await client.get_prompt("runbook_grid_event", {"event_id": "evt-of-nobody"})

    assert event_id in offered
    words, *facts = [message.content.model_dump() for message in prompt.messages]
    assert event_id in words["text"]
    assert [fact["resource"]["uri"] for fact in facts] == ["flex://targets", "flex://limit"]
    assert json.loads(facts[1]["resource"]["text"])["limit_w"] == 300_000.0


async def test_the_power_tree_is_one_resource_and_each_node_another(lab: Lab) -> None:
    """Each parent before what hangs on it; a node shows the limits of its GPUs."""
    client = lab.clients["maxlps"]
    tree = await read(client, "maxlps://topology")
    nodes = await completed(client, "maxlps://node/{node_id}", "node_id", "node-00")
    node = await read(client, f"maxlps://node/{nodes[0]}")
    with pytest.raises(MCPError, match="no node 'node-999'"):
        await read(client, "maxlps://node/node-999")
    slow = await client.get_prompt("runbook_slow_node", {"node_id": nodes[0]})

    seen: set[str] = set()
    for place in tree["places"]:
        assert "parent" not in place if not seen else place["parent"] in seen
        seen.add(place["id"])
    site = lab.plant.site
    assert {*site.feed_ids, *site.pdu_ids, *site.rack_ids} < seen
    assert (tree["truncated"], len(tree["version"]) > 0) == (False, True)
    assert nodes == [f"node-00{n}" for n in range(1, 10)]
    assert node["node"]["node_id"] == nodes[0]
    assert len(node["node"]["set_w"]) == 8
    assert nodes[0] in slow.messages[0].content.model_dump()["text"]


async def test_a_silent_bus_has_its_runbook(lab: Lab) -> None:
    """With what the bus says of itself."""
    client = lab.clients["exchange"]
    prompt = await client.get_prompt("runbook_silent_bus")
    health = await read(client, "exchange://health")

    assert health["connected"] is True
    facts = json.loads(prompt.messages[1].content.model_dump()["resource"]["text"])
    assert facts["connected"] is True
