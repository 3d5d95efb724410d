"""The processes of a run: one that proposes and is killed, and those that come after it.

Each is forked from a process that has everything imported and no thread, and ends by `os._exit`:
nothing of the parent runs twice.
"""

import os
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
from sqlalchemy import URL, Connection, Engine, event

from interlock_evals.chaos.plant import MoveValve, ValveFacts, Valves
from interlock_evals.chaos.scenario import Ask, Kill, Scenario
from interlock_guardrails import changes
from interlock_guardrails.approvals import Approvals
from interlock_guardrails.engine import create_store_engine
from interlock_guardrails.facts import FactRegistry
from interlock_guardrails.guard import Guard
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.signing import Signer
from interlock_guardrails.plans import effects, offer_plans, propose_plan
from interlock_guardrails.rules import SiteRules
from interlock_guardrails.sole_worker import always
from interlock_guardrails.store import Store
from interlock_guardrails.worker import Worker
from interlock_policies.bundles import load_bundle
from interlock_policies.gate import PolicyGate
from interlock_tools.change import Change, ChangeState
from interlock_tools.clock import ScaledClock
from interlock_tools.errors import ConflictError
from interlock_tools.identity import Principal, PrincipalKind

ORIGIN = "chaos.example/ledger"
EPOCH = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
RATE = 200.0  # seconds of the site in one of the machine
LOOK_EVERY_S = 4.0  # of the site
WITHIN_S = 30.0  # of the machine, for every change to come to its end
RULES = SiteRules(site_id="lab", gpus=51_200, hosts=6_400, approval_expires_s=7 * 86_400.0)
AGENT = Principal(
    id="agent:chaos",
    kind=PrincipalKind.AGENT,
    authenticated_by="token:local",
    scopes=frozenset({"interlock:read", "interlock:propose"}),
    owner="person:owner",
)
OPERATOR = Principal(
    id="person:operator-1",
    kind=PrincipalKind.PERSON,
    authenticated_by="console:local",
    roles=frozenset({"operator"}),
)


def ignore(_point: str) -> None:
    """Nobody waits for this point."""


@dataclass(frozen=True)
class House:
    """What the processes of all runs share: keys, policy, and the plant of this run."""

    url: URL | str
    valves: Valves
    clock: ScaledClock
    ledger_key: Signer
    vote_key: Signer
    gate: PolicyGate

    @classmethod
    def build(
        cls, url: URL | str, acts: Path, mishaps: Any, like: "House | None" = None
    ) -> "House":
        """A house over this store and this plant, with the keys and the policy of another."""
        valves = Valves(acts, mishaps)
        clock = ScaledClock.starting_now(EPOCH, RATE)
        if like is not None:
            return cls(url, valves, clock, like.ledger_key, like.vote_key, like.gate)
        gate = load_bundle("supervised", effects([MoveValve(valves, ignore)]))
        return cls(url, valves, clock, Signer.generate(ORIGIN), Signer.generate("votes"), gate)

    @contextmanager
    def opened(
        self, engine: Engine, reached: Callable[[str], None] = ignore
    ) -> Iterator[tuple[Guard, Approvals]]:
        """Guard and votes over this engine, for as long as the block runs."""
        operation = MoveValve(self.valves, reached)
        with Ledger(engine, self.ledger_key, origin=ORIGIN, clock=self.clock) as ledger:
            store = Store(engine)
            guard = Guard(
                store=store,
                ledger=ledger,
                gate=self.gate,
                facts=FactRegistry([ValveFacts(self.valves, self.clock)]),
                clock=self.clock,
                rules=RULES,
                operations=[operation],
                vote_keys=[self.vote_key.vkey],
            )
            offer_plans(guard)
            yield guard, Approvals(store, ledger, self.clock, self.vote_key)


class Killer:
    """Counts the points that this process reaches, and ends it at the one that was chosen."""

    def __init__(self, kill: Kill | None) -> None:
        self._kill = kill
        self._armed = False
        self._reached: Counter[str] = Counter()
        self._lock = threading.Lock()

    def watch(self, engine: Engine) -> None:
        """Count the commits of this engine, just before and just after each."""

        def before(connection: Connection) -> None:
            self.reached("before_commit")
            connection.info["committed"] = True

        def after(_dbapi: Any, entry: Any, _state: Any) -> None:
            if entry.info.pop("committed", False):
                self.reached("after_commit")

        event.listen(engine, "commit", before)
        event.listen(engine, "reset", after)

    def arm(self) -> None:
        """From here on it counts."""
        self._armed = True

    def reached(self, point: str) -> None:
        """A point was reached; returns only if it is not the one."""
        if not self._armed or self._kill is None:
            return
        with self._lock:
            self._reached[point] += 1
            if point == self._kill.point and self._reached[point] == self._kill.number:
                os.kill(os.getpid(), signal.SIGKILL)


class Telling(Worker):
    """A worker that says when it has become the one that works."""

    def __init__(self, guard: Guard, tell: Callable[[], object]) -> None:
        super().__init__(guard)
        self._tell = tell
        self.works = anyio.Event()

    async def _work(self) -> None:
        self._tell()
        self.works.set()
        await super()._work()


def fork(work: Callable[[], None]) -> int:
    """Run the work in a process of its own, which ends with it: 0, or 1 where it raised."""
    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208 - only counted
        raise RuntimeError("a process with threads is not forked")
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def propose_and_work(house: House, scenario: Scenario, kill: Kill, ready: int) -> None:
    """The first process: proposes, lets people approve, works.

    A byte to `ready` says that it is the one that works, and whoever starts now stands by.
    """

    def works() -> None:
        killer.arm()
        os.write(ready, b".")

    async def drive(guard: Guard, approvals: Approvals) -> None:
        if scenario.voted_first:
            await _ask_all(guard, approvals, scenario.asks)
        async with anyio.create_task_group() as tasks:
            worker = Telling(guard, works)
            tasks.start_soon(worker.run)
            await worker.works.wait()
            if not scenario.voted_first:
                await _ask_all(guard, approvals, scenario.asks)
            await until_settled(guard)
            tasks.cancel_scope.cancel()

    killer = Killer(kill)
    _open_and(drive, house, killer)


def propose_only(house: House, scenario: Scenario, ready: int) -> None:
    """Propose and let people approve; nobody works."""

    async def drive(guard: Guard, approvals: Approvals) -> None:
        await _ask_all(guard, approvals, scenario.asks)
        os.write(ready, b".")

    _open_and(drive, house, Killer(None))


def reach_for_it(house: House, executors: int, ready: int, go: int) -> None:
    """That many tasks that begin the same change, past the lock that lets one worker work."""

    async def reach(guard: Guard, change: Change) -> None:
        with suppress(ConflictError):  # another was first
            await Worker(guard, always)._begin_and_act(change)

    async def drive(guard: Guard, _approvals: Approvals) -> None:
        (change,) = await guard.store.read(changes.unfinished)
        os.write(ready, b".")
        await anyio.wait_readable(go)
        async with anyio.create_task_group() as tasks:
            for _ in range(executors):
                tasks.start_soon(reach, guard, change)

    _open_and(drive, house, Killer(None))


def work_on(house: House, kill: Kill | None, ready: int, go: int) -> None:
    """A process that comes after: works until all is settled, once a byte from `go` says so."""

    async def drive(guard: Guard, _approvals: Approvals) -> None:
        async with anyio.create_task_group() as tasks:
            killer.arm()
            os.write(ready, b".")
            tasks.start_soon(Worker(guard).run)
            await anyio.wait_readable(go)
            await until_settled(guard)
            tasks.cancel_scope.cancel()
        guard.ledger.checkpoint()

    killer = Killer(kill)
    _open_and(drive, house, killer)


async def until_settled(guard: Guard) -> None:
    """Return once every change has ended, or waits for people or for its time."""
    with anyio.fail_after(WITHIN_S):
        while not all(is_waiting(c, guard) for c in await guard.store.read(changes.unfinished)):
            await guard.clock.sleep(LOOK_EVERY_S)


def is_waiting(change: Change, guard: Guard) -> bool:
    """Whether nobody but people, or time, can move it on."""
    if change.state is ChangeState.AWAITING_APPROVAL:
        return change.open_at(guard.clock.now())
    return (
        change.state is ChangeState.AUTHORISED
        and change.not_before is not None
        and change.not_before > guard.clock.now()
    )


def _open_and(
    drive: Callable[[Guard, Approvals], Awaitable[None]], house: House, killer: Killer
) -> None:
    engine = create_store_engine(house.url)
    killer.watch(engine)
    with house.opened(engine, killer.reached) as (guard, approvals):
        anyio.run(drive, guard, approvals)
    engine.dispose()


async def _ask_all(guard: Guard, approvals: Approvals, asks: Iterable[Ask]) -> None:
    for ask in asks:
        change = await _propose(guard, ask)
        if ask.approved and change.state is ChangeState.AWAITING_APPROVAL:
            shown = change.binding_digest or ""
            await approvals.vote(OPERATOR, change.change_id, approve=True, shown_digest=shown)


async def _propose(guard: Guard, ask: Ask) -> Change:
    reason = "chaos: what is killed must not act twice"
    wanted = [
        {
            "valve_id": move.valve_id,
            "position_pct": move.position_pct,
            "expires_in_s": move.expires_in_s,
        }
        for move in ask.moves
    ]
    if len(wanted) == 1:
        return await guard.propose(AGENT, MoveValve.name, wanted[0], reason=reason, dry_run=False)
    steps = [(MoveValve.name, arguments) for arguments in wanted]
    return await propose_plan(guard, AGENT, steps, reason=reason, dry_run=False)
