"""Every metric, span and attribute that leaves the house, by name; docs/telemetry.md is made of it.

Names without `interlock.` are those of the OpenTelemetry semantic conventions.
"""

from typing import NamedTuple

from interlock_tools.telemetry import Counter, Histogram, Measure, Observed

# ── attributes of ours ────────────────────────────────────────────────────────────────────────────

BUS = "interlock.bus"
CHANGE_ID = "interlock.change_id"
DECISION = "interlock.decision"
DRY_RUN = "interlock.dry_run"
FEASIBLE = "interlock.feasible"
OPERATION = "interlock.operation"
OUTCOME = "interlock.outcome"
PRINCIPAL_ID = "interlock.principal.id"
PRINCIPAL_KIND = "interlock.principal.kind"
PRINCIPAL_OWNER = "interlock.principal.owner"
RULE_ID = "interlock.rule_id"
RULE_IDS = "interlock.rule_ids"
STATE = "interlock.state"
VOTE = "interlock.vote"

ATTRIBUTES: dict[str, str] = {
    BUS: "the component that listens: `exchange` or `flex`",
    CHANGE_ID: "the change; on the server's span of the call that proposed it too",
    DECISION: "`allow`, `require_approval` or `refuse`",
    DRY_RUN: "whether it was only rehearsed",
    FEASIBLE: "whether there is any plan within every budget",
    OPERATION: "such as `maxlps.set_caps`",
    OUTCOME: "`accepted`, or why a message was not",
    PRINCIPAL_ID: "who called, such as `agent:power`",
    PRINCIPAL_KIND: "`agent`, `person` or `service`",
    PRINCIPAL_OWNER: "the person who answers for the agent",
    RULE_ID: "one rule that spoke",
    RULE_IDS: "the rules that decided",
    STATE: "the state of a change",
    VOTE: "`approve` or `reject`",
}

# ── buckets, in seconds ───────────────────────────────────────────────────────────────────────────

MCP_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
RPC_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
FINE_S = (0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1)
LONG_S = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 4 * 3600.0, 86_400.0)

# ── metrics ───────────────────────────────────────────────────────────────────────────────────────

_CALL = (
    "mcp.method.name",
    "gen_ai.tool.name",
    "gen_ai.prompt.name",
    "gen_ai.operation.name",
    "error.type",
    "rpc.response.status_code",
    "mcp.protocol.version",
    "network.transport",
    "network.protocol.name",
    "network.protocol.version",
)
_SESSION = ("mcp.protocol.version", "network.transport")
_SERVER = ("server.address", "server.port")

SERVER_CALL = Histogram(
    name="mcp.server.operation.duration",
    unit="s",
    buckets=MCP_S,
    attributes=_CALL,
    says="How long a request to one of our MCP servers took.",
)
SERVER_SESSION = Histogram(
    name="mcp.server.session.duration",
    unit="s",
    buckets=MCP_S,
    attributes=_SESSION,
    says="How long a session of a client of 2025-11-25 lasted; the newer protocol has none.",
)
CLIENT_CALL = Histogram(
    name="mcp.client.operation.duration",
    unit="s",
    buckets=MCP_S,
    attributes=(*_CALL, *_SERVER),
    says="How long a request of one of our agents took, to its answer.",
)
CLIENT_SESSION = Histogram(
    name="mcp.client.session.duration",
    unit="s",
    buckets=MCP_S,
    attributes=(*_SESSION, *_SERVER),
    says="How long an agent's session with a server of 2025-11-25 lasted.",
)
RPC_CALL = Histogram(
    name="rpc.client.call.duration",
    unit="s",
    buckets=RPC_S,
    attributes=(
        "rpc.system.name",
        "rpc.method",
        "rpc.response.status_code",
        "error.type",
        *_SERVER,
    ),
    says="How long a call of a component over gRPC took; a retry is a call of its own.",
)
PUBLISHED = Histogram(
    name="messaging.client.operation.duration",
    unit="s",
    buckets=RPC_S,
    attributes=(
        "messaging.system",
        "messaging.operation.name",
        "messaging.operation.type",
        "error.type",
        *_SERVER,
    ),
    says="How long it took until a broker had acknowledged a message.",
)
DECISIONS = Counter(
    name="interlock.decisions",
    unit="{decision}",
    attributes=(DECISION, OPERATION, DRY_RUN),
    says="Decisions on proposed changes.",
)
RULES = Counter(
    name="interlock.decision.rules",
    unit="{rule}",
    attributes=(RULE_ID, DECISION),
    says="Rules that spoke in a decision; several may in one.",
)
TRANSITIONS = Counter(
    name="interlock.change.transitions",
    unit="{transition}",
    attributes=(STATE, OPERATION),
    says="Changes that came into a state, once that was committed.",
)
TO_DECISION = Histogram(
    name="interlock.change.time_to_decision",
    unit="s",
    buckets=MCP_S,
    attributes=(DECISION, OPERATION),
    says="From the proposal to the decision on record: facts, reach, policy, dry run, commit.",
)
TO_APPROVAL = Histogram(
    name="interlock.change.time_to_approval",
    unit="s",
    buckets=LONG_S,
    attributes=(OPERATION,),
    says="From the proposal to the last vote that was needed, by the site's clock.",
)
TO_VERIFIED = Histogram(
    name="interlock.change.time_to_verified",
    unit="s",
    buckets=LONG_S,
    attributes=(OPERATION,),
    says="From the proposal until an independent source showed the effect, by the site's clock.",
)
POLICY = Histogram(
    name="interlock.policy.evaluation.duration",
    unit="s",
    buckets=FINE_S,
    attributes=(DECISION,),
    says="How long the policy took to answer, both of its questions together.",
)
ALLOCATOR = Histogram(
    name="interlock.allocator.solve.duration",
    unit="s",
    buckets=RPC_S,
    attributes=(FEASIBLE,),
    says="How long the allocator took for one plan.",
)
READS_DROPPED = Counter(
    name="interlock.ledger.reads.dropped",
    unit="{record}",
    says="Records of reads that found no room in the queue; the ledger holds their number.",
)
OPEN_CHANGES = Observed(
    name="interlock.changes.open",
    unit="{change}",
    attributes=(STATE,),
    says="Changes that are not at their end.",
)
LEDGER_SIZE = Observed(
    name="interlock.ledger.size",
    unit="{record}",
    says="Records in the ledger.",
)
LEDGER_UNCOVERED = Observed(
    name="interlock.ledger.uncovered",
    unit="{record}",
    says="Records that no signed checkpoint covers yet.",
)
CHECKPOINT_AGE = Observed(
    name="interlock.ledger.checkpoint.age",
    unit="s",
    says="Age of the oldest record that no checkpoint covers; 0 where all are covered.",
)
BUS_MESSAGES = Observed(
    name="interlock.bus.messages",
    unit="{message}",
    attributes=(BUS, OUTCOME),
    says="Messages from the bus, accepted or why not.",
    counts=True,
)
BUS_CONNECTED = Observed(
    name="interlock.bus.connected",
    unit="{connection}",
    attributes=(BUS,),
    says="1 while a broker has accepted us.",
)
BUS_POINTS = Observed(
    name="interlock.bus.points",
    unit="{point}",
    attributes=(BUS,),
    says="Points that the bus has described or given a value of.",
)

MEASURES: tuple[Measure, ...] = tuple(
    found for found in list(globals().values()) if isinstance(found, Measure)
)

# ── spans ─────────────────────────────────────────────────────────────────────────────────────────


class SpanOfOurs(NamedTuple):
    """A span by its name, where `{}` stands for what varies."""

    name: str
    kind: str
    says: str


PROPOSE = "interlock.propose"
VOTING = "interlock.vote"
CARRY_OUT = "interlock.carry_out"
BEGIN = "interlock.begin"
ACT = "interlock.act"
ADOPT = "interlock.adopt"
READ_BACK = "interlock.read_back"
VERIFY = "interlock.verify"
COMPENSATE = "interlock.compensate"
EXPIRE = "interlock.expire"

SPANS = (
    SpanOfOurs("invoke_agent {agent}", "INTERNAL", "one round of an agent: look, plan, ask"),
    SpanOfOurs("execute_tool {tool}", "INTERNAL", "an agent's use of one tool"),
    SpanOfOurs("{method} {tool}", "CLIENT", "its request, whose context goes with it"),
    SpanOfOurs("{method} {tool}", "SERVER", "the request at our server; made by the MCP SDK"),
    SpanOfOurs(PROPOSE, "INTERNAL", "the guard: facts, reach, decision, dry run, record"),
    SpanOfOurs(VOTING, "INTERNAL", "a person's vote; linked to the proposal"),
    SpanOfOurs(CARRY_OUT, "INTERNAL", "the worker, a trace of its own; linked to the proposal"),
    SpanOfOurs(BEGIN, "INTERNAL", "the last look, the decision and the intent, then the act"),
    SpanOfOurs(ACT, "INTERNAL", "the one act; calls of the component are below it"),
    SpanOfOurs(ADOPT, "INTERNAL", "an act that another process left without an outcome"),
    SpanOfOurs(READ_BACK, "INTERNAL", "asking the plant what an act without an answer did"),
    SpanOfOurs(VERIFY, "INTERNAL", "waiting for an independent source to show the effect"),
    SpanOfOurs(COMPENSATE, "INTERNAL", "bringing back what another process had begun to"),
    SpanOfOurs(EXPIRE, "INTERNAL", "a change that nobody decided on in time"),
    SpanOfOurs("{rpc.method}", "CLIENT", "a call of a component over gRPC"),
    SpanOfOurs("publish", "PRODUCER", "a message to the bus; received ones are counted"),
)
