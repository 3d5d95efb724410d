"""Resources are reads: bounded, scoped, dated and recorded, and alike in both eras."""

import json
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.types import PromptReference, ResourceTemplateReference

from interlock_servers.page import Page
from interlock_servers.surface.offering import MAX_BYTES
from interlock_servers.surface.together import together
from tests.guardrails import conftest as guardrails
from tests.guardrails.conftest import AGENT, House, person
from tests.servers.surface.doors import open_door
from tests.servers.surface.watchers import valve_face

house = guardrails.house  # the guard over one valve
ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])
PATIENCE_S = 20.0
INVALID_PARAMS, INVALID_REQUEST = -32602, -32600
NOBODY = AGENT.model_copy(update={"id": "agent:nobody", "scopes": frozenset()})
OPERATOR = person("person:operator-1", "operator")
CHANGE = ResourceTemplateReference(uri="change://{change_id}")


async def read(client: Client, uri: str) -> dict[str, Any]:
    """A resource as JSON."""
    (contents,) = (await client.read_resource(uri)).contents
    assert contents.mime_type == "application/json"
    shown: dict[str, Any] = json.loads(contents.model_dump()["text"])
    return shown


def reads(house: House) -> list[dict[str, Any]]:
    """What is on the ledger of reads."""
    house.ledger.flush()
    return [r["body"] for r in house.ledger.read(0, 10_000) if r["kind"] == "read"]


@ERAS
async def test_a_change_reads_as_the_tool_shows_it(house: House, mode: Any) -> None:
    """One view, under the address that the proposal's handle names."""
    async with Client(valve_face(house, AGENT).server(), mode=mode) as client:
        handle = await client.call_tool("move_valve", {"position_pct": 50, "reason": "less"})
        uri = (handle.structured_content or {})["uri"]
        shown = await read(client, uri)
        tool = await client.call_tool("get_change", {"change_id": shown["change_id"]})

    assert uri == f"change://{shown['change_id']}"
    assert shown == tool.structured_content
    assert (shown["state"], shown["needs_people"]) == ("awaiting_approval", 1)


@ERAS
async def test_the_open_changes_are_listed_until_they_end(house: House, mode: Any) -> None:
    """Newest first; one that was rejected is open no more."""
    first = await house.propose(50)
    house.clock.advance(1.0)
    second = await house.propose(60)
    async with Client(valve_face(house, AGENT).server(), mode=mode) as client:
        both = await read(client, "changes://open")
        await house.approve(second, OPERATOR, approve=False)
        one = await read(client, "changes://open")

    assert [row["change_id"] for row in both["changes"]] == [second.change_id, first.change_id]
    assert [row["change_id"] for row in one["changes"]] == [first.change_id]
    assert (both["more"], one["more"]) == (False, False)


@ERAS
async def test_the_policy_in_force_is_told_rule_by_rule(house: House, mode: Any) -> None:
    """Effect, sentence and whom it asks; one rule has its runbook too."""
    async with Client(valve_face(house, AGENT).server(), mode=mode) as client:
        shown = await read(client, "policy://rules")
        one = await read(client, "policy://rule/reversible-needs-operator")

    rules = {rule["rule_id"]: rule for rule in shown["rules"]}
    assert set(rules) == {rule.rule_id for rule in house.guard.gate.rules}
    assert shown["policy_version"] == house.guard.gate.version
    asks = rules["reversible-needs-operator"]
    assert (asks["effect"], asks["people"], asks["of_role"]) == ("permit", 1, "operator")
    assert rules["freeze-in-force"]["effect"] == "forbid"
    assert "people" not in rules["freeze-in-force"]
    assert one["what_to_do"].startswith("Read what changes")


@ERAS
@pytest.mark.parametrize(
    "uri",
    [
        "change://chg-000000000000",
        "change://nonsense",
        "policy://rule/no-such-rule",
        "policy://rule/..%2F..%2Fetc",
        "nothing://at/all",
    ],
)
async def test_what_there_is_not_is_an_error_of_the_caller(
    house: House, mode: Any, uri: str
) -> None:
    """-32602 with the address, as the protocol has it; never an empty answer."""
    async with Client(valve_face(house, AGENT).server(), mode=mode) as client:
        with pytest.raises(MCPError) as error:
            await client.read_resource(uri)

    assert error.value.error.code == INVALID_PARAMS
    assert error.value.error.data == {"uri": uri}


@ERAS
async def test_who_may_not_read_reads_nothing(house: House, mode: Any) -> None:
    """Asked at the call, in both eras: resources, prompts and completions alike."""
    change = await house.propose()
    async with Client(valve_face(house, NOBODY).server(), mode=mode) as client:
        for attempt in (
            lambda: client.read_resource(f"change://{change.change_id}"),
            lambda: client.read_resource("policy://rules"),
            lambda: client.get_prompt("review_change", {"change_id": change.change_id}),
            lambda: client.complete(CHANGE, {"name": "change_id", "value": "chg"}),
        ):
            with pytest.raises(MCPError, match="insufficient_scope") as error:
                await attempt()
            assert error.value.error.code == INVALID_REQUEST

    assert reads(house) == []


@ERAS
async def test_every_read_is_on_the_ledger_with_who_asked(house: House, mode: Any) -> None:
    """Also one that found nothing, with what was said."""
    change = await house.propose()
    uri = f"change://{change.change_id}"
    async with Client(valve_face(house, AGENT).server(), mode=mode) as client:
        await client.read_resource(uri)
        await client.complete(CHANGE, {"name": "change_id", "value": "chg-"})
        with pytest.raises(MCPError):
            await client.read_resource("change://chg-000000000000")

    done, asked, failed = reads(house)
    assert done == {"tool": "resources/read", "arguments": {"uri": uri}, "caller": AGENT.id}
    assert asked["tool"] == "completion/complete"
    assert failed["arguments"] == {"uri": "change://chg-000000000000"}
    assert "chg-000000000000" in failed["failed"]


class Heap(Page):
    """More than anybody wants."""

    stones: str


@ERAS
async def test_a_resource_that_grew_too_large_is_not_sent(house: House, mode: Any) -> None:
    """Whoever asks for one address does not ask for a megabyte; a tool pages."""
    face = valve_face(house, AGENT)

    @face.resource("valve://heap")
    async def heap() -> Heap:
        """A heap."""
        return Heap(observed_at=house.clock.now(), origin="valve", stones="x" * MAX_BYTES)

    async with Client(face.server(), mode=mode) as client:
        with pytest.raises(MCPError, match="in pages"):
            await client.read_resource("valve://heap")


@ERAS
async def test_arguments_are_completed_by_their_beginning(house: House, mode: Any) -> None:
    """A hundred at most, and how many more there are."""
    rules = sorted(rule.rule_id for rule in house.guard.gate.rules)
    template = ResourceTemplateReference(uri="policy://rule/{rule_id}")
    face = valve_face(house, AGENT)

    async def numbers(prefix: str) -> list[str]:
        return [name for name in (f"{n:04d}" for n in range(1000)) if name.startswith(prefix)]

    @face.resource("valve://turn/{turn}", complete={"turn": numbers})
    async def turn(turn: str) -> Heap:
        """A turn."""
        return Heap(observed_at=house.clock.now(), origin="valve", stones=turn)

    change = await house.propose()
    async with Client(face.server(), mode=mode) as client:

        async def of(ref: Any, name: str, value: str) -> Any:
            return (await client.complete(ref, {"name": name, "value": value})).completion

        every = await of(template, "rule_id", "")
        agent = await of(PromptReference(name="runbook_refused"), "rule_id", "agent-")
        ids = await of(CHANGE, "change_id", "chg-")
        none = await of(CHANGE, "change_id", "%")
        many = await of(ResourceTemplateReference(uri="valve://turn/{turn}"), "turn", "0")
        unknown = await of(PromptReference(name="nothing"), "rule_id", "")

    assert every.values == rules
    assert agent.values == [rule for rule in rules if rule.startswith("agent-")]
    assert ids.values == [change.change_id]
    assert (len(many.values), many.total, many.has_more) == (100, 1000, True)
    assert none.values == unknown.values == []


async def test_the_server_of_a_whole_site_has_what_all_have_once(house: House) -> None:
    """Two components, one `change://`; what a component alone has keeps its own address."""
    valve, meter = valve_face(house, AGENT), valve_face(house, AGENT)
    meter.component = "meter"

    @meter.resource("meter://heap")
    async def heap() -> Heap:
        """A heap."""
        return Heap(observed_at=house.clock.now(), origin="meter", stones="one")

    server = together([valve.parts(), meter.parts()], version="1").server
    async with Client(server) as client:
        resources = [r.uri for r in (await client.list_resources()).resources]
        templates = [
            t.uri_template for t in (await client.list_resource_templates()).resource_templates
        ]
        shown = await read(client, "meter://heap")

    assert sorted(resources) == ["changes://open", "meter://heap", "policy://rules"]
    assert sorted(templates) == ["change://{change_id}", "policy://rule/{rule_id}"]
    assert shown["stones"] == "one"


def test_one_address_for_two_things_is_no_server(house: House) -> None:
    """One would hide the other, and which is nobody's choice."""
    valve, meter = valve_face(house, AGENT), valve_face(house, AGENT)
    meter.component = "meter"

    async def heap() -> Heap:
        """A heap."""
        return Heap(observed_at=house.clock.now(), origin="meter", stones="one")

    valve.resource("plant://heap")(heap)
    meter.resource("plant://heap")(heap)
    with pytest.raises(ValueError, match="plant://heap"):
        together([valve.parts(), meter.parts()], version="1")


@ERAS
async def test_what_a_request_did_not_ask_for_is_not_served(house: House, mode: Any) -> None:
    """By its headers, at the call: no resource, prompt or completion of a toolset it left out."""
    change = await house.propose()
    uri = f"change://{change.change_id}"
    value = {"name": "change_id", "value": ""}
    async with open_door(house) as door:
        for toolset, served in (("valve", True), ("other", False)):
            headers = {"X-MCP-Toolsets": toolset}
            async with door.client(mode, headers=headers) as client:
                for attempt in (
                    lambda c: c.read_resource(uri),
                    lambda c: c.get_prompt("review_change", {"change_id": change.change_id}),
                    lambda c: c.complete(CHANGE, value),
                    lambda c: c.complete(PromptReference(name="review_change"), value),
                    lambda c: listens(c, uri, mode),
                ):
                    if served:
                        await attempt(client)
                        continue
                    with pytest.raises(MCPError) as error:
                        await attempt(client)
                    assert error.value.error.code == INVALID_PARAMS


async def listens(client: Client, uri: str, mode: str) -> None:
    """Begin to wait and leave again; a client of 2025 cannot over HTTP, so it reads."""
    if mode == "legacy":
        await client.read_resource(uri)
        return
    with anyio.fail_after(PATIENCE_S):
        async with client.listen(resource_subscriptions=[uri]):
            return
