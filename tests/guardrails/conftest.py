"""A guard over one valve, with people, on a clock that stands still."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from sqlalchemy import Engine

from interlock_evals.chaos.postgres import Postgres
from interlock_guardrails.approvals import Approvals
from interlock_guardrails.autonomy import Autonomy
from interlock_guardrails.break_glass import BreakGlass
from interlock_guardrails.clearing import Clearing
from interlock_guardrails.delegations import Delegations
from interlock_guardrails.engine import create_store_engine, create_tables
from interlock_guardrails.facts import FactRegistry
from interlock_guardrails.guard import Guard
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.plans import effects, offer_plans
from interlock_guardrails.rules import SiteRules
from interlock_guardrails.store import Store
from interlock_guardrails.worker import Worker
from interlock_policies.bundles import load_bundle
from interlock_tools.change import Change
from interlock_tools.clock import ManualClock
from interlock_tools.identity import Principal, PrincipalKind
from tests.guardrails.stores import start_postgres
from tests.guardrails.valve import MoveValve, Valve

START = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
PATIENCE_S = 20.0


def person(name: str, *roles: str, channel: str = "console:local") -> Principal:
    """A person who is logged in at a console."""
    return Principal(
        id=name, kind=PrincipalKind.PERSON, authenticated_by=channel, roles=frozenset(roles)
    )


AGENT = Principal(
    id="agent:power",
    kind=PrincipalKind.AGENT,
    authenticated_by="token:local",
    scopes=frozenset({"interlock:read", "interlock:propose"}),
    owner="person:owner",
)


class NotingPager:
    """Keeps the changes that a person was paged for."""

    def __init__(self, paged: list[Change]) -> None:
        self._paged = paged

    def page(self, change: Change, why: str) -> None:
        """Note it."""
        self._paged.append(change)


@dataclass
class House:
    """Everything of one guard that a test touches."""

    clock: ManualClock
    valve: Valve
    guard: Guard
    approvals: Approvals
    ledger: Ledger
    paged: list[Change]
    delegations: Delegations
    break_glass: BreakGlass
    autonomy: Autonomy
    clearing: Clearing

    async def propose(self, position_pct: int = 50, **more: Any) -> Change:
        """Propose a move of the valve as the agent."""
        arguments = {"position_pct": position_pct, **more.pop("arguments", {})}
        return await self.guard.propose(
            more.pop("requester", AGENT),
            "valve.move_valve",
            arguments,
            reason=more.pop("reason", "less flow is enough"),
            dry_run=more.pop("dry_run", False),
        )

    async def approve(self, change: Change, voter: Principal, **more: Any) -> Change:
        """Vote yes on what the change shows."""
        return await self.approvals.vote(
            voter,
            change.change_id,
            approve=more.pop("approve", True),
            shown_digest=more.pop("shown_digest", change.binding_digest),
            **more,
        )

    async def until(self, ready: Callable[[], Awaitable[bool]]) -> None:
        """Let the clock run in seconds until `ready`, bounded in real time."""
        with anyio.fail_after(PATIENCE_S):
            while not await ready():
                self.clock.advance(1.0)
                await anyio.sleep(0.002)

    async def end_of(self, change: Change) -> Change:
        """The change at its end."""

        async def ended() -> bool:
            return (await self.guard.get(change.change_id)).ended

        await self.until(ended)
        return await self.guard.get(change.change_id)

    def records(self, change: Change) -> list[str]:
        """The kinds of ledger record about this change, in order."""
        return [
            record["kind"]
            for record in self.ledger.read(0, 10_000)
            if record["body"].get("change_id") == change.change_id
        ]

    def working(self) -> AbstractAsyncContextManager[None]:
        """A worker that runs while the block does."""

        @asynccontextmanager
        async def run() -> Any:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Worker(self.guard).run)
                yield
                tasks.cancel_scope.cancel()

        return run()


class Keys(NamedTuple):
    """The private keys of one site; replicas of a store share them."""

    ledger: Signer
    votes: Signer

    @classmethod
    def generate(cls) -> "Keys":
        """New ones."""
        return cls(Signer.generate("test.example/ledger"), Signer.generate("votes"))


@contextmanager
def house_on(
    engine: Engine, *, valve: Valve | None = None, keys: Keys | None = None
) -> Iterator[House]:
    """A house under the supervised bundle on this store, which has its tables.

    Replicas of one store share the valve, its clock and the keys.
    """
    valve = valve or Valve(ManualClock(START))
    clock = valve.clock
    assert isinstance(clock, ManualClock)
    operation = MoveValve(valve)
    key, votes = keys or Keys.generate()
    paged: list[Change] = []
    rules = SiteRules(
        site_id="lab", gpus=512, hosts=64, approval_expires_s=300, autonomy_evidence_changes=2
    )
    with Ledger(engine, key, origin="test.example/ledger", clock=clock) as ledger:
        store = Store(engine)
        guard = Guard(
            store=store,
            ledger=ledger,
            gate=load_bundle("supervised", effects([operation])),
            facts=FactRegistry([valve]),
            clock=clock,
            rules=rules,
            operations=[operation],
            vote_keys=[votes.vkey],
            pager=NotingPager(paged),
        )
        offer_plans(guard)
        yield House(
            clock=clock,
            valve=valve,
            guard=guard,
            approvals=Approvals(store, ledger, clock, votes),
            ledger=ledger,
            paged=paged,
            delegations=Delegations(store, ledger, clock, votes, rules),
            break_glass=BreakGlass(store, ledger, clock, votes, rules, NotingPager(paged)),
            autonomy=Autonomy(store, ledger, clock, votes, rules),
            clearing=Clearing(store, ledger, clock),
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of our own; skipped with the reason where none can be started."""
    with start_postgres() as server:
        yield server


@contextmanager
def house_in(folder: Path) -> Iterator[House]:
    """A house on a store of its own."""
    engine = create_store_engine(f"sqlite:///{folder / 'store.db'}")
    create_tables(engine)
    with house_on(engine) as built:
        yield built
    engine.dispose()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house on a store of its own."""
    with house_in(tmp_path) as built:
        yield built
