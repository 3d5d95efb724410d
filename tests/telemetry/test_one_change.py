"""One change as telemetry shows it: from an agent's round to the ledger, and back from the act."""

from opentelemetry.sdk.trace import ReadableSpan

from interlock_tools.change import Change, ChangeState
from interlock_tools.telemetry import Contents
from tests.guardrails.conftest import AGENT, House, person
from tests.telemetry.conftest import Told
from tests.telemetry.one_change import SECRET, one_change, records_of


def trace_of(span: ReadableSpan) -> str:
    """Its trace id, as the ledger writes it."""
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def id_of(span: ReadableSpan) -> str:
    """Its own id, as the ledger writes it."""
    assert span.context is not None
    return f"{span.context.span_id:016x}"


def parent_of(span: ReadableSpan) -> str | None:
    """The id of the span that it is below."""
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def links_of(span: ReadableSpan) -> list[tuple[str, str]]:
    """What it links to, as trace and span."""
    return [
        (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for link in span.links
    ]


async def test_an_agents_round_reaches_the_ledger_in_one_trace(house: House, told: Told) -> None:
    """Agent, tool, request, server, guard, record: whoever has one finds the others."""
    change = await one_change(house)

    round_ = told.span("invoke_agent valve")
    use = told.span("execute_tool move_valve")
    sent = told.span("tools/call move_valve", "CLIENT")
    served = told.span("tools/call move_valve", "SERVER")
    proposed = told.span("interlock.propose")
    chain = [round_, use, sent, served, proposed]
    assert {trace_of(span) for span in chain} == {trace_of(round_)}
    assert [parent_of(span) for span in chain[1:]] == [id_of(span) for span in chain[:-1]]
    records = records_of(house, change)
    for kind in ("requested", "decided"):
        assert records[kind]["trace_id"] == trace_of(round_)
        assert records[kind]["span_id"] == id_of(proposed)


async def test_the_act_is_a_trace_of_its_own_that_links_back(house: House, told: Told) -> None:
    """Hours may lie between, and the process that proposed may be gone; the row knows its span."""
    change = await one_change(house)

    proposed, carried = told.span("interlock.propose"), told.span("interlock.carry_out")
    begun, act = told.span("interlock.begin"), told.span("interlock.act")
    verified = told.span("interlock.verify")
    origin = (trace_of(proposed), id_of(proposed))
    assert change.traceparent is not None
    assert tuple(change.traceparent.split("-")[1:3]) == origin
    assert links_of(carried) == links_of(told.span("interlock.vote")) == [origin]
    assert parent_of(carried) is None
    assert trace_of(carried) != trace_of(proposed)
    assert parent_of(act) == id_of(begun)
    assert parent_of(begun) == parent_of(verified) == id_of(carried)
    records = records_of(house, change)
    by_span = {kind: record["span_id"] for kind, record in records.items()}
    assert by_span["intent"] == by_span["outcome"] == id_of(begun)
    assert by_span["verified"] == id_of(verified)
    assert records["vote"]["span_id"] == id_of(told.span("interlock.vote"))
    assert carried.attributes is not None
    assert carried.attributes["interlock.state"] == "succeeded"


async def test_spans_are_described_by_the_conventions(house: House, told: Told) -> None:
    """Names and attributes that any backend knows; ours under our own prefix."""
    change = await one_change(house)

    sent = told.span("tools/call move_valve", "CLIENT").attributes or {}
    served = told.span("tools/call move_valve", "SERVER").attributes or {}
    for attributes in (sent, served):
        assert attributes["mcp.method.name"] == "tools/call"
        assert attributes["gen_ai.operation.name"] == "execute_tool"
        assert attributes["gen_ai.tool.name"] == "move_valve"
        assert attributes["network.transport"] == "pipe"
        assert attributes["jsonrpc.request.id"]
        assert attributes["mcp.protocol.version"]
    assert served["interlock.principal.id"] == AGENT.id
    assert served["interlock.principal.kind"] == "agent"
    assert served["interlock.principal.owner"] == "person:owner"
    assert served["interlock.change_id"] == change.change_id
    assert served["interlock.decision"] == "require_approval"
    assert change.decision is not None
    rule_ids = tuple(rule.rule_id for rule in change.decision.rules)
    assert served["interlock.rule_ids"] == rule_ids
    use = told.span("execute_tool move_valve")
    assert use.kind.name == "INTERNAL"
    assert (use.attributes or {})["gen_ai.tool.type"] == "extension"


async def test_no_span_holds_what_was_said_unless_somebody_asks(house: House, told: Told) -> None:
    """Arguments, reasons and results stay here; on request they are masked as in the ledger."""
    await one_change(house)
    assert told.spans()
    assert SECRET not in " ".join(span.to_json() for span in told.spans())

    told.forget()
    Contents.recorded = True
    try:
        await one_change(house)
    finally:
        Contents.recorded = False
    read = told.span("tools/call read_flow", "SERVER").attributes or {}
    moved = told.span("tools/call move_valve", "SERVER").attributes or {}
    assert "password" in str(read["gen_ai.tool.call.arguments"])
    assert SECRET not in str(read["gen_ai.tool.call.arguments"])
    assert '"position_pct":50' in str(moved["gen_ai.tool.call.arguments"])
    assert "chg-" in str(moved["gen_ai.tool.call.result"])


async def test_what_the_guard_does_is_counted_once_it_is_committed(
    house: House, told: Told
) -> None:
    """States, decisions and rules, and how long each stage took by the site's own clock."""
    move = {"interlock__operation": "valve.move_valve"}
    ends = ("interlock.change.time_to_verified", "interlock.change.time_to_approval")
    before = {name: told.count(name, **move) for name in ends}
    states = ("awaiting_approval", "authorised", "executing", "verifying", "succeeded")

    def counted() -> list[int]:
        name = "interlock.change.transitions"
        return [told.count(name, interlock__state=state, **move) for state in states]

    was = counted()
    asked = told.count("interlock.decisions", interlock__decision="require_approval", **move)
    change = await one_change(house)

    assert change.state is ChangeState.SUCCEEDED
    assert counted() == [number + 1 for number in was]
    assert {name: told.count(name, **move) for name in ends} == {
        name: number + 1 for name, number in before.items()
    }
    now = told.count("interlock.decisions", interlock__decision="require_approval", **move)
    assert now == asked + 1
    assert told.count("interlock.policy.evaluation.duration") > 0
    assert told.count("interlock.decision.rules", interlock__decision="require_approval") > 0


async def test_what_is_undone_is_not_counted(house: House, told: Told) -> None:
    """A transaction that fails leaves no row, and no number."""
    was = told.count("interlock.change.transitions", interlock__state="rejected")
    change = await house.propose()
    await house.approve(change, person("person:operator-1", "operator"), approve=False)
    assert told.count("interlock.change.transitions", interlock__state="rejected") == was + 1
    again = await refused_vote(house, change)

    assert "no vote is open" in again
    assert told.count("interlock.change.transitions", interlock__state="rejected") == was + 1
    assert (told.spans("interlock.vote")[-1].attributes or {})["error.type"] == "ConflictError"


async def refused_vote(house: House, change: Change) -> str:
    """What the second vote meets."""
    try:
        await house.approve(change, person("person:operator-2", "operator"), approve=False)
    except Exception as error:
        return str(error)
    raise AssertionError("it was taken")
