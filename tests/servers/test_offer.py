"""What every offered tool keeps to, in both eras of the protocol, whoever calls it."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import pytest
from mcp import Client
from mcp.types import CallToolResult, Tool
from pydantic import Field

from interlock_servers.identity import SCOPE_READ
from interlock_servers.offer import Face, annotations_of
from interlock_servers.page import Page
from interlock_tools.change import ChangeState
from interlock_tools.errors import InvalidRequestError, NotFoundError
from interlock_tools.identity import Principal
from interlock_tools.operation import Effect
from tests.guardrails import conftest as guardrails
from tests.guardrails.conftest import AGENT, House, person
from tests.guardrails.valve import MoveValve
from tests.servers.sites import open_lab

house = guardrails.house  # the guard over one valve
SECRET = "hunter2 at 10.0.0.1"  # noqa: S105 (what a crash must not tell)
READER = AGENT.model_copy(update={"id": "agent:reader", "scopes": frozenset({SCOPE_READ})})
NOBODY = AGENT.model_copy(update={"id": "agent:nobody", "scopes": frozenset()})
NAME = re.compile(r"^[a-z][a-z0-9_]{1,40}$")
VOTING = re.compile(r"\b(approve|vote|reject|authori[sz]e|resume|unstop)", re.IGNORECASE)
NO_TOOL_VOTES = ("no tool approves", "people who approve")  # said of people, not of a tool


class Flow(Page):
    """What flows."""

    flow_pct: int
    note: str | None = None


@dataclass
class Offered:
    """The valve's face behind a client; `caller` is who the requests come from."""

    house: House
    client: Client
    caller: Principal

    async def call(self, tool: str, **arguments: Any) -> CallToolResult:
        """One call, as it comes back."""
        return await self.client.call_tool(tool, arguments)

    async def tools(self) -> dict[str, Tool]:
        """What a model sees, by name."""
        return {tool.name: tool for tool in (await self.client.list_tools()).tools}

    def reads(self) -> list[dict[str, Any]]:
        """The reads on the ledger."""
        self.house.ledger.flush()
        records = self.house.ledger.read(0, 1000)
        return [record["body"] for record in records if record["kind"] == "read"]


def valve_face(house: House, offered: list[Offered]) -> Face:
    """One reading tool with three ways to go wrong, and one operation."""
    face = Face("valve", guard=house.guard, who=lambda: offered[0].caller, instructions="A valve.")

    @face.read
    async def read_flow(
        line: Annotated[int, Field(ge=1, le=9)] = 1,
        mood: str = "calm",
        only: str | None = None,
        since: list[int] | None = None,
    ) -> Flow:
        """What flows through the valve now, in percent."""
        if mood == "lost":
            raise NotFoundError(f"there is no line {line}; lines are 1 to 3")
        if mood == "broken":
            raise RuntimeError(SECRET)
        return Flow(
            observed_at=house.clock.now(), origin="meter", flow_pct=house.valve.flow_pct, note=only
        )

    face.propose(MoveValve(house.valve))
    return face


@pytest.fixture(params=["auto", "legacy"])
async def offered(request: pytest.FixtureRequest, house: House) -> AsyncIterator[Offered]:
    """The valve, met through an in-memory client of each era."""
    met: list[Offered] = []
    server = valve_face(house, met).server()
    async with Client(server, mode=request.param) as client:
        met.append(Offered(house, client, AGENT))
        yield met[0]


def text_of(result: CallToolResult) -> str:
    """All text of an answer."""
    return " ".join(getattr(part, "text", "") for part in result.content)


async def test_what_a_model_sees_is_strict_and_says_what_it_takes(offered: Offered) -> None:
    """Names that every client takes, closed schemas, `reason` required and `dry_run` optional."""
    tools = await offered.tools()

    assert set(tools) == {"read_flow", "move_valve", "get_change", "list_changes"}
    for tool in tools.values():
        assert NAME.fullmatch(tool.name)
        assert tool.description
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema is not None
    mutating = tools["move_valve"].input_schema
    own = {"position_pct", "host", "expires_in_s"}
    assert set(mutating["properties"]) == own | {"reason", "dry_run"}
    assert set(mutating["required"]) == {"position_pct", "reason"}
    assert mutating["properties"]["dry_run"]["default"] is False
    assert "reason" not in tools["read_flow"].input_schema["properties"]


async def test_hints_follow_the_effect(offered: Offered) -> None:
    """A client that shows a warning shows it for what is hard to take back."""
    tools = await offered.tools()
    read, move = tools["read_flow"].annotations, tools["move_valve"].annotations

    assert read is not None
    assert move is not None
    assert read.read_only_hint is True
    assert (move.read_only_hint, move.destructive_hint) == (False, False)
    assert move.open_world_hint is False


@pytest.mark.parametrize(
    ("effect", "reads", "destroys", "repeatable"),
    [
        (Effect.READ, True, False, True),
        (Effect.REVERSIBLE, False, False, True),
        (Effect.DISRUPTIVE, False, True, True),
        (Effect.IRREVERSIBLE, False, True, False),
    ],
)
def test_every_effect_has_its_hints(
    effect: Effect, reads: bool, destroys: bool, repeatable: bool
) -> None:
    """The defaults of the protocol are the opposite of safe, so all four are always said."""
    hints = annotations_of(effect)

    assert hints.read_only_hint is reads
    assert hints.destructive_hint is destroys
    assert hints.idempotent_hint is repeatable


@pytest.mark.parametrize(
    ("tool", "arguments", "names"),
    [
        ("read_flow", {"lines": 1}, "lines"),
        ("read_flow", {"line": "5"}, "line"),
        ("read_flow", {"line": 5.0}, "line"),
        ("read_flow", {"line": True}, "line"),
        ("read_flow", {"line": 10}, "line"),
        ("read_flow", {"line": "null"}, "line"),
        ("read_flow", {"since": "null"}, "since"),
        ("move_valve", {"position_pct": 50, "reason": "less", "dryrun": True}, "dryrun"),
        ("move_valve", {"position_pct": "50", "reason": "less"}, "position_pct"),
        ("move_valve", {"position_pct": 50, "reason": "less", "dry_run": "true"}, "dry_run"),
        ("move_valve", {"position_pct": 50, "reason": "less", "dry_run": 1}, "dry_run"),
        ("move_valve", {"position_pct": 50}, "reason"),
        ("move_valve", {"position_pct": 50, "reason": ""}, "reason"),
        ("move_valve", {"position_pct": 50, "reason": "   "}, "reason"),
        ("move_valve", {"position_pct": 50, "reason": "x" * 501}, "reason"),
        ("move_valve", {"reason": "less"}, "position_pct"),
    ],
)
async def test_an_argument_that_is_wrong_is_refused_and_named(
    offered: Offered, tool: str, arguments: dict[str, Any], names: str
) -> None:
    """A dropped `dryrun` would act, and "5" is not 5: nothing is guessed, nothing is done."""
    result = await offered.call(tool, **arguments)

    assert result.is_error
    assert names in text_of(result)
    assert await offered.house.guard.latest() == []


@pytest.mark.parametrize("text", ["null", "true", "[1]", '{"any": 1}', '"quoted"'])
async def test_text_is_not_read_as_json(offered: Offered, text: str) -> None:
    """A filter for the word `null` is no absent filter: an absent one means everything."""
    result = await offered.call("read_flow", only=text)

    assert result.structured_content is not None
    assert result.structured_content["note"] == text


async def test_a_proposal_is_a_change_that_waits_for_people(offered: Offered) -> None:
    """The tool answers at once with where the change stands; the plant has not moved."""
    result = await offered.call("move_valve", position_pct=50, reason="less is enough")

    assert not result.is_error
    change = result.structured_content
    assert change is not None
    assert change["state"] == "awaiting_approval"
    assert (change["needs_people"], change["of_role"]) == (1, "operator")
    assert change["uri"] == f"change://{change['change_id']}"
    assert "get_change" in change["next"]
    assert offered.house.valve.acts == []
    followed = await offered.call("get_change", change_id=change["change_id"])
    assert followed.structured_content is not None
    assert followed.structured_content["state"] == "awaiting_approval"
    assert followed.structured_content["reason"] == "less is enough"


async def test_a_dry_run_decides_and_leaves_nothing_behind(offered: Offered) -> None:
    """No row that a worker could take up, no act; who would have to approve is told."""
    async with offered.house.working():
        result = await offered.call("move_valve", position_pct=50, reason="what if", dry_run=True)
        offered.house.clock.advance(5.0)

    change = result.structured_content
    assert change is not None
    assert "uri" not in change
    assert change["needs_people"] == 1
    assert "nothing was done" in change["why"]
    assert await offered.house.guard.latest() == []
    assert offered.house.valve.acts == []
    assert offered.house.valve.position_pct == 100


async def test_a_refusal_is_a_change_and_not_an_error(offered: Offered) -> None:
    """A model that is refused learns the rule, and does not try the call in another spelling."""
    result = await offered.call("move_valve", position_pct=5, reason="as low as it goes")

    assert not result.is_error
    change = result.structured_content
    assert change is not None
    assert change["state"] == "refused"
    assert "[slo-floor-broken]" in change["why"]
    assert change["next"].startswith("why names the rule")
    followed = (await offered.call("get_change", change_id=change["change_id"])).structured_content
    assert followed is not None
    assert followed["ended"] is True
    assert [rule["rule_id"] for rule in followed["rules"]] == ["slo-floor-broken"]


async def test_our_errors_reach_the_model_and_a_crash_tells_nothing(offered: Offered) -> None:
    """What we raise on purpose helps the caller on; what breaks may hold anything."""
    ours = await offered.call("read_flow", line=4, mood="lost")
    crash = await offered.call("read_flow", mood="broken")

    assert ours.is_error
    assert "there is no line 4; lines are 1 to 3" in text_of(ours)
    assert crash.is_error
    assert SECRET not in crash.model_dump_json()
    assert "RuntimeError" not in crash.model_dump_json()


async def test_a_read_is_on_the_ledger_with_who_and_what(offered: Offered) -> None:
    """Who looked at what is part of the record."""
    await offered.call("read_flow", line=2)

    assert offered.reads() == [
        {
            "tool": "valve.read_flow",
            "arguments": {"line": 2, "mood": "calm", "only": None, "since": None},
            "caller": "agent:power",
        }
    ]


@pytest.mark.parametrize(
    ("caller", "tool", "arguments", "lacks"),
    [
        (READER, "move_valve", {"position_pct": 50, "reason": "I may"}, "interlock:propose"),
        (READER, "move_valve", {"position_pct": 5, "reason": "I may"}, "interlock:propose"),
        (NOBODY, "read_flow", {}, "interlock:read"),
        (NOBODY, "list_changes", {}, "interlock:read"),
    ],
)
async def test_a_caller_without_the_scope_is_refused_at_the_call(
    offered: Offered, caller: Principal, tool: str, arguments: dict[str, Any], lacks: str
) -> None:
    """A name can be guessed; a scope cannot. Not even a decision is made."""
    offered.caller = caller

    result = await offered.call(tool, **arguments)

    assert result.is_error
    assert "insufficient_scope" in text_of(result)
    assert lacks in text_of(result)
    assert offered.house.ledger.read(0, 10) == []


async def test_answers_fit_the_schema_that_was_announced(offered: Offered) -> None:
    """The structured half of every answer, refused and dry ones too, validates."""
    schemas = {name: tool.output_schema for name, tool in (await offered.tools()).items()}
    answers = [
        ("read_flow", await offered.call("read_flow")),
        ("move_valve", await offered.call("move_valve", position_pct=50, reason="less")),
        ("move_valve", await offered.call("move_valve", position_pct=5, reason="less")),
        ("list_changes", await offered.call("list_changes")),
        ("list_changes", await offered.call("list_changes", fields=["why"])),
    ]
    for name, answer in answers:
        schema = schemas[name]
        assert schema is not None
        assert not answer.is_error
        jsonschema.validate(answer.structured_content, schema)


async def test_the_text_and_the_structure_say_the_same(offered: Offered) -> None:
    """A client that shows only text shows the same answer; unknown fields are absent in both."""
    answer = await offered.call("read_flow")

    assert answer.structured_content is not None
    assert "note" not in answer.structured_content
    assert Flow.model_validate_json(text_of(answer)) == Flow.model_validate(
        answer.structured_content
    )


async def test_no_tool_of_any_server_votes(tmp_path: Path) -> None:
    """Every face of a real site: no name, description or argument that approves or resumes."""
    nodes = ("node-001",)
    async with open_lab(tmp_path, requests=True, sends=True, beside_dps=nodes) as lab:
        assert set(lab.clients) == {
            "exchange",
            "dsx_exchange",
            "bms",
            "isolation",
            "maxlps",
            "devices",
            "dps",
            "dps_groups",
            "flex",
            "grid_isv",
        }
        for client in lab.clients.values():
            for tool in (await client.list_tools()).tools:
                assert NAME.fullmatch(tool.name)
                assert tool.input_schema["additionalProperties"] is False
                said = f"{tool.name} {tool.description} {tool.input_schema}"
                for harmless in NO_TOOL_VOTES:
                    said = said.replace(harmless, "")
                assert not VOTING.search(said), tool.name


async def test_no_call_moves_a_change_out_of_waiting(tmp_path: Path) -> None:
    """Every tool of every server is called while a change waits; it waits on, and nothing acts."""
    async with open_lab(tmp_path, requests=True, newer_dps=True, beside_dps=("node-001",)) as lab:
        lab.spare_groups()
        change = await lab.propose("set_caps", gpu_cap_w_by_node={"node-001": 500})
        assert change["state"] == "awaiting_approval"
        cdu, rack, why = {"cdu_id": "cdu-1"}, {"rack_id": "rack-01"}, {"reason": "a test"}
        arguments: dict[str, dict[str, Any]] = {
            "get_change": {"change_id": change["change_id"]},
            "get_rack": {"rack_id": "rack-01"},
            "trace_path": {"id": "lab"},
            "point_history": {"key": "Rack/RackPower/lab/rack-01/RackPower"},
            "dsx_exchange_describe_topic": {"topic_filter": "BMS/v1/#"},
            "dsx_exchange_read_retained": {"topic_filter": "BMS/v1/#", "max_messages": 2},
            "dsx_exchange_subscribe": {"topic_filter": "BMS/v1/#", "max_duration_s": 0.1},
            "set_caps": {"gpu_cap_w_by_node": {"node-001": 500}, "reason": "a test of limits"},
            "release_caps": {"node_ids": ["node-001"], "reason": "a test of limits"},
            "request_supply_temperature": {**cdu, **why, "supply_c": 27.0, "expires_in_s": 60.0},
            "withdraw_supply_temperature": {**cdu, **why},
            "request_liquid_isolation": {**rack, **why},
            "withdraw_liquid_isolation": {**rack, **why},
            "request_electrical_isolation": {**rack, **why},
            "withdraw_electrical_isolation": {**rack, **why},
            "announce_readiness": {
                "point": "Status",
                "state": "AI ready",
                "expires_in_s": 60.0,
                **why,
            },
            "withdraw_readiness": {"point": "Status", **why},
            "what_if": {"lose": ["pdu-2"]},
            "get_gpu": {"node_id": "node-001", "gpu": 0},
            "why_slow": {"node_id": "node-001"},
            "group_nodes": {"group": "speech"},
            "validate_allocation": {"node_ids": ["node-064"], "policy": "MaxQ"},
            "create_group": {"group": "fresh", "policy": "MaxQ", **why},
            "add_nodes": {"group": "sandbox", "node_ids": ["node-064"], **why},
            "activate_group": {"group": "evaluate-nightly", **why},
            "remove_nodes": {"group": "notebooks", "node_ids": ["node-043"], **why},
            "delete_group": {"group": "notebooks", **why},
            "set_group_policy": {"group": "notebooks", "policy": "MaxQ", **why},
            "set_node_policies": {
                "group": "notebooks",
                "policy_by_node": {"node-043": "MaxQ"},
                **why,
            },
            "set_group_priority": {"group": "notebooks", "priority": 9, **why},
        }
        called = 0
        for component, client in lab.clients.items():
            for tool in (await client.list_tools()).tools:
                await lab.call(component, tool.name, **arguments.get(tool.name, {}))
                called += 1
                await lab.second()
        row = await lab.site.guard.get(change["change_id"])
        assert called > 10
        assert row.state is ChangeState.AWAITING_APPROVAL
        assert row.votes == ()
        assert lab.writes() == 0
        assert lab.bms.requests.heard == 0


async def test_a_tokenless_caller_and_an_agent_cannot_vote_even_in_process(house: House) -> None:
    """The one way to vote takes people of a console: a principal of a server is turned away."""
    change = await house.propose(50)
    for voter in (AGENT, person("person:operator-1", "operator", channel="token:local")):
        with pytest.raises(InvalidRequestError, match="only a person"):
            await house.approve(change, voter)
    assert (await house.guard.get(change.change_id)).state is ChangeState.AWAITING_APPROVAL
