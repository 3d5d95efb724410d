"""What the guard costs: one evaluation, one decision, and the way from a proposal to the intent."""

import tempfile
import time
from contextlib import ExitStack
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import anyio
from sqlalchemy import text

from interlock_evals.bench.measured import Measured, median, seconds
from interlock_evals.reports import Figure, Promise
from interlock_guardrails.approvals import Approvals
from interlock_guardrails.autonomy import Autonomy
from interlock_guardrails.engine import create_store_engine, create_tables
from interlock_guardrails.facts import FactRegistry
from interlock_guardrails.guard import Guard
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.rules import SiteRules
from interlock_guardrails.store import Store
from interlock_guardrails.worker import Worker
from interlock_policies.bundles import load_bundle
from interlock_policies.decide import decide
from interlock_policies.situation import Situation
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.change import ChangeState
from interlock_tools.clock import SystemClock
from interlock_tools.fact import Fact, FactNeed, FactSet, Nature
from interlock_tools.identity import Principal, PrincipalKind, Target
from interlock_tools.operation import (
    Arguments,
    Effect,
    Happened,
    Held,
    Operation,
    ReadBack,
    Verdict,
)

EVALUATIONS = 3_000
CHANGES, WARM_UP = 120, 10
COMMITS = 100
PATIENCE_S = 20.0
EVALUATION_LIMIT_US, DECISION_LIMIT_US, INTENT_LIMIT_MS = 250.0, 800.0, 5.0
WHY_NOT_INTENT = (
    "some twenty statements go through SQLAlchemy, the policy is asked twice, and the work changes "
    "between event loop and thread four times; with a slow or busy disk its two commits are most"
)
ORIGIN = "bench.example/ledger"
VALVE = Target(kind="valve", id="valve-1")
OPERATOR = Principal(
    id="person:operator-1",
    kind=PrincipalKind.PERSON,
    authenticated_by="console:bench",
    roles=frozenset({"operator"}),
)
LEAD = OPERATOR.model_copy(update={"id": "person:lead-1", "roles": frozenset({"site_lead"})})
RULES = SiteRules(site_id="lab", gpus=512, hosts=64)


def measure() -> Measured:
    """Evaluations and decisions on a reversible change of power, and whole changes of a valve."""
    figures = {**_policy(), **anyio.run(_changes)}
    limits = {
        "policy_evaluation_p50_us": (EVALUATION_LIMIT_US, "us", None),
        "decision_p50_us": (DECISION_LIMIT_US, "us", None),
        "propose_to_intent_p50_ms": (INTENT_LIMIT_MS, "ms", WHY_NOT_INTENT),
    }
    promises = {
        key: Promise.at_most(figures[key].value, limit, unit, why_not)
        for key, (limit, unit, why_not) in limits.items()
    }
    return Measured(figures, promises)


def _agent(number: int = 0) -> Principal:
    """Each change by another agent: one that asks thirty times within the hour is refused."""
    return Principal(
        id=f"agent:power-{number}",
        kind=PrincipalKind.AGENT,
        authenticated_by="token:bench",
        scopes=frozenset({"interlock:read", "interlock:propose"}),
        owner="person:owner",
    )


# ── the policy alone ──────────────────────────────────────────────────────────────────────────────


def _policy() -> dict[str, Figure]:
    """A decision that needs people takes both questions; that is the case measured."""
    gate = load_bundle("supervised", {"maxlps.set_caps": Effect.REVERSIBLE})
    nodes = [f"node-{number:03d}" for number in range(1, 65)]
    situation = Situation(
        principal=_agent(),
        operation="maxlps.set_caps",
        effect=Effect.REVERSIBLE,
        target=Target(kind="site", id="lab"),
        site="lab",
        blast_radius=BlastRadius(
            gpus=512,
            hosts=frozenset(nodes),
            racks=frozenset(f"rack-{number:02d}" for number in range(1, 9)),
            power_domains=frozenset({"pdu-1", "pdu-2"}),
            jobs=frozenset(f"job-{number}" for number in range(14)),
            tenants=frozenset({"aurora", "borealis", "cirrus", "delta"}),
            watts_moved=138_488,
        ),
        open_reach=BlastRadius(),
        site_gpus=512,
        site_hosts=64,
        overlaps_open=False,
        frozen=False,
        in_window=True,
        changes_last_hour=3,
    )
    decided = decide(gate, situation)
    if decided.quorum is None:
        raise RuntimeError(f"the measure needs a decision that asks people: {decided.sentence()}")
    for _ in range(100):
        decide(gate, situation)
    once = seconds(lambda: gate.evaluate(situation, quorum_voted=False), EVALUATIONS)
    twice = seconds(lambda: decide(gate, situation), EVALUATIONS)
    return {
        "policy_evaluation_p50_us": median(once, "us", 1e6),
        "policy_evaluation_p99_us": _p99(once),
        "decision_p50_us": median(twice, "us", 1e6),
        "decision_p99_us": _p99(twice),
    }


def _p99(took_s: list[float]) -> Figure:
    return Figure(sorted(took_s)[int(0.99 * len(took_s))] * 1e6, "us", len(took_s))


# ── a whole change, up to its intent ──────────────────────────────────────────────────────────────


class MoveArguments(Arguments):
    """Where to, and which host notices."""

    position_pct: int
    host: str


class MoveValve(Operation[MoveArguments]):
    """A change with two facts and no plant: it notes the moment at which it would act."""

    name = "valve.move_valve"
    effect = Effect.REVERSIBLE
    arguments = MoveArguments
    deadline_s = 20.0

    def __init__(self) -> None:
        self.acted_at_s = 0.0
        self.acted = anyio.Event()

    @property
    def kinds(self) -> frozenset[str]:
        """It is its own source of facts."""
        return frozenset({"valve.serial", "valve.position"})

    async def fact(self, need: FactNeed) -> Fact:
        """Always known, always of now."""
        return Fact(
            kind=need.kind,
            subject=need.subject,
            value=100,
            origin="valve",
            version="1",
            observed_at=SystemClock().now(),
            nature=Nature.IDENTITY if need.kind == "valve.serial" else Nature.MEASUREMENT,
        )

    def target(self, arguments: MoveArguments) -> Target:
        """The one valve."""
        return VALVE

    def facts(self, arguments: MoveArguments) -> tuple[FactNeed, ...]:
        """Serial and position."""
        return tuple(
            FactNeed(kind=kind, subject=VALVE, max_age_s=60) for kind in sorted(self.kinds)
        )

    def blast_radius(self, arguments: MoveArguments, facts: FactSet) -> BlastRadius:
        """One host of eight GPUs, on one PDU."""
        return BlastRadius(
            gpus=8,
            hosts=frozenset({arguments.host}),
            power_domains=frozenset({"pdu-1"}),
            watts_moved=50,
        )

    async def execute(self, arguments: MoveArguments, key: str) -> dict[str, Any]:
        """The intent is on the ledger: the clock stops here."""
        self.acted_at_s = time.perf_counter()
        self.acted.set()
        return {}

    async def read_back(self, arguments: MoveArguments) -> ReadBack:
        """It happened."""
        return ReadBack(happened=Happened.YES)

    async def verify(self, arguments: MoveArguments, before: FactSet, since: datetime) -> Verdict:
        """It shows."""
        return Verdict(held=Held.YES, source="the flow meter")


async def _changes() -> dict[str, Figure]:
    """Propose, one vote or none, and the worker up to the act; SQLite, full sync, this disk."""
    with ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="interlock-bench-", dir=Path.cwd())
        )
        return await _on_store(Path(folder) / "store.db", stack)


async def _on_store(path: Path, stack: ExitStack) -> dict[str, Figure]:
    engine = create_store_engine(f"sqlite:///{path}")
    stack.callback(engine.dispose)
    create_tables(engine)
    clock, operation = SystemClock(), MoveValve()
    ledger = stack.enter_context(
        Ledger(engine, Signer.generate(ORIGIN), origin=ORIGIN, clock=clock)
    )
    store, votes = Store(engine), Signer.generate("votes")
    guard = Guard(
        store=store,
        ledger=ledger,
        gate=load_bundle("autonomous", {operation.name: operation.effect}),
        facts=FactRegistry([operation]),
        clock=clock,
        rules=RULES,
        operations=[operation],
        vote_keys=[votes.vkey],
    )
    approvals = Approvals(store, ledger, clock, votes)
    numbers = count()

    async def change() -> tuple[float, float, float]:
        return await _change(guard, approvals, operation, next(numbers))

    async def unattended() -> float:
        return (await _change(guard, None, operation, next(numbers)))[0]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Worker(guard).run)
        voted_on = [await change() for _ in range(WARM_UP + CHANGES)]
        await _grant(Autonomy(store, ledger, clock, votes, RULES), operation)
        alone = [await unattended() for _ in range(WARM_UP + CHANGES)]
        tasks.cancel_scope.cancel()
    whole, proposed, voted = zip(*voted_on[WARM_UP:], strict=True)

    def commit() -> None:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS bench (at REAL)"))
            connection.execute(text("INSERT INTO bench VALUES (1.0)"))

    return {
        "propose_to_intent_p50_ms": median(alone[WARM_UP:], "ms", 1e3),
        "intent_with_vote_p50_ms": median(list(whole), "ms", 1e3),
        "propose_p50_ms": median(list(proposed), "ms", 1e3),
        "vote_p50_ms": median(list(voted), "ms", 1e3),
        "bare_commit_p50_ms": median(seconds(commit, COMMITS), "ms", 1e3),
    }


async def _grant(autonomy: Autonomy, operation: MoveValve) -> None:
    """From here on policy lets agents do it without a vote."""
    evidence = (await autonomy.evidence(operation.name))[: RULES.autonomy_evidence_changes]
    await autonomy.grant(LEAD, operation.name, evidence=evidence, valid_s=3600, why="a bench")


async def _change(
    guard: Guard, approvals: Approvals | None, operation: MoveValve, number: int
) -> tuple[float, float, float]:
    """Seconds to the intent, and of these in the proposal and in the vote, where one is needed."""
    operation.acted = anyio.Event()
    begun = time.perf_counter()
    change = await guard.propose(
        _agent(number),
        operation.name,
        {"position_pct": 50, "host": f"node-{number:03d}"},
        reason="less flow is enough",
        dry_run=False,
    )
    proposed = time.perf_counter()
    if approvals is not None:
        await approvals.vote(
            OPERATOR, change.change_id, approve=True, shown_digest=change.binding_digest or ""
        )
    elif change.state is not ChangeState.AUTHORISED:
        raise RuntimeError(f"the measure needs a change without a vote: {change.sentence()}")
    voted = time.perf_counter()
    with anyio.fail_after(PATIENCE_S):
        await operation.acted.wait()
        while True:  # the next one needs its lock
            if (await guard.get(change.change_id)).ended:
                break
            await anyio.sleep(0.001)
    return operation.acted_at_s - begun, proposed - begun, voted - proposed
