"""What a change's life promises holds on either store: SQLite alone, PostgreSQL with replicas."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from sqlalchemy import URL, Engine

from interlock_guardrails import changes, reservations
from interlock_guardrails.ledger import rows
from interlock_guardrails.migrations import migrate
from interlock_guardrails.plans import propose_plan
from interlock_guardrails.rules import SiteRules
from interlock_guardrails.sole_worker import LockLostError, always, sole_worker
from interlock_guardrails.stop import record_stop
from interlock_guardrails.worker import Worker
from interlock_servers.site import SiteSettings, open_authority
from interlock_tools.change import Change, ChangeState
from interlock_tools.clock import ManualClock
from interlock_tools.errors import ConflictError
from tests.guardrails.conftest import AGENT, PATIENCE_S, START, House, Keys, house_on, person
from tests.guardrails.stores import NAMES, end_lock_sessions, new_url, opened, until_one_waits
from tests.guardrails.valve import MoveValve, MoveValveArguments, Valve

OPERATOR = person("person:operator-1", "operator")
POSTGRES = pytest.mark.parametrize("kind", ["postgresql"])


@pytest.fixture(params=NAMES)
def kind(request: pytest.FixtureRequest) -> str:
    """Which store."""
    return str(request.param)


@pytest.fixture
def url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> URL | str:
    """Where the store is."""
    return new_url(kind, tmp_path, request)


@pytest.fixture
def engine(url: URL | str) -> Iterator[Engine]:
    """The store, with its tables."""
    with opened(url) as engine:
        migrate(engine)
        yield engine


@pytest.fixture
def house(engine: Engine) -> Iterator[House]:
    """One house over it."""
    with house_on(engine) as built:
        yield built


@pytest.fixture
def replicas(url: URL | str, engine: Engine) -> Iterator[list[House]]:
    """Two houses over one store and one valve, each with connections of its own."""
    valve, keys = Valve(ManualClock(START)), Keys.generate()
    with ExitStack() as stack:
        engines = [engine, stack.enter_context(opened(url))]
        yield [stack.enter_context(house_on(e, valve=valve, keys=keys)) for e in engines]


def assert_gapless(house: House) -> None:
    """Every record has the next number, and the tree is that of the records."""
    house.ledger.checkpoint()
    found = house.ledger.read(0, 10_000)
    assert [record["seq"] for record in found] == list(range(len(found)))
    assert house.ledger.verify_self().ok


async def test_what_was_approved_is_done_once_and_stands_on_one_gapless_ledger(
    house: House,
) -> None:
    """From the proposal to the meter."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED
    assert house.valve.acts == [50]
    assert house.records(change) == [
        "requested",
        "decided",
        "vote",
        "intent",
        "outcome",
        "verified",
    ]
    assert await house.guard.store.read(reservations.held_by_others) == []
    assert_gapless(house)


async def test_a_second_vote_of_one_person_changes_nothing(house: House) -> None:
    """The vote is single use, whatever the store says of the row meanwhile."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    with pytest.raises(ConflictError):
        await house.approve(change, OPERATOR)

    assert house.records(change).count("vote") == 1


async def test_a_lost_answer_is_read_back_and_not_sent_again(house: House) -> None:
    """The component acted and nobody heard of it."""
    house.valve.mishap = "answer_lost"
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED
    assert house.valve.acts == [50]


async def test_silence_is_a_no(house: House) -> None:
    """Nobody voted in time."""
    change = await house.propose(50)
    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.EXPIRED
    assert house.valve.acts == []


async def test_the_stop_holds_what_has_not_begun_until_a_person_resumes(house: House) -> None:
    """Also where its reason is longer, or odder, than a column takes."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    await house.guard.stop(AGENT, "smoke\x00\ud800 " * 200)
    async with house.working():
        for _ in range(5):
            house.clock.advance(1.0)
            await house.guard.latest()
        assert house.valve.acts == []
        await house.guard.resume(OPERATOR, "a kettle")
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED


async def test_a_plan_is_done_in_order_under_one_vote(house: House) -> None:
    """Each step is a change of its own."""
    steps = [("valve.move_valve", {"position_pct": position}) for position in (80, 60)]
    plan = await propose_plan(house.guard, AGENT, steps, reason="in steps", dry_run=False)
    await house.approve(plan, OPERATOR)
    async with house.working():
        ended = await house.end_of(plan)

    assert ended.state is ChangeState.SUCCEEDED
    assert house.valve.acts == [80, 60]
    assert_gapless(house)


async def test_an_effect_with_an_end_comes_back(house: House) -> None:
    """The change that brings it back is written with the success of the first."""
    house.valve.position_pct = house.valve.flow_pct = 40
    change = await house.propose(90, arguments={"expires_in_s": 30.0})
    await house.approve(change, OPERATOR)

    async def back() -> bool:
        return house.valve.position_pct == 40 and not await unfinished(house)

    async with house.working():
        await house.end_of(change)
        await house.until(back)

    assert house.valve.acts == [90, 40]


async def unfinished(house: House) -> list[Change]:
    """What is not at its end."""
    return await house.guard.store.read(changes.unfinished)


async def test_two_replicas_carry_out_each_change_once(replicas: list[House]) -> None:
    """Either takes proposals and votes; one of them works, and nobody can tell which."""
    first, second = replicas
    asked: list[Change] = []
    async with first.working(), second.working():
        for number, position in enumerate((90, 80, 70, 60)):
            change = await replicas[number % 2].propose(position)
            await replicas[(number + 1) % 2].approve(change, OPERATOR)
            asked.append(await first.end_of(change))

    assert {change.state for change in asked} == {ChangeState.SUCCEEDED}
    assert first.valve.acts == [90, 80, 70, 60]
    assert_gapless(second)


async def test_two_workers_that_begin_one_change_act_once(replicas: list[House]) -> None:
    """Even without the lock that keeps one of them out: the row decides who has begun it."""
    first, second = replicas
    change = await first.propose(50)
    change = await second.approve(change, OPERATOR)
    lost: list[ConflictError] = []

    async def begin(house: House) -> None:
        try:
            await Worker(house.guard, always)._begin_and_act(change)
        except ConflictError as error:
            lost.append(error)

    async with anyio.create_task_group() as tasks:
        for number in range(64):
            tasks.start_soon(begin, replicas[number % 2])

    assert first.valve.acts == [50]
    assert first.records(change).count("intent") == 1
    assert len(lost) == 63


async def test_two_replicas_append_to_one_sequence(replicas: list[House]) -> None:
    """Every proposal is three records or two; none has the number of another."""
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(replicas[number % 2].propose, 20 + number)

    assert_gapless(replicas[0])
    assert replicas[0].ledger.size_and_root() == replicas[1].ledger.size_and_root()


async def test_two_replicas_that_get_one_proposal_put_it_on_its_way_once(
    replicas: list[House],
) -> None:
    """The second sees the change of the first, although both asked at the same time."""
    found: list[Change] = []

    async def ask(house: House) -> None:
        found.append(await house.propose(50))

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(ask, replicas[number % 2])

    assert len({change.change_id for change in found}) == 1


@POSTGRES
async def test_a_writer_looks_only_once_nobody_else_can_write(
    replicas: list[House], engine: Engine, kind: str
) -> None:
    """What it read would otherwise be old, or two writers would wait for each other in a circle."""
    first, second = replicas
    change = await first.propose(50)
    seen: list[ChangeState] = []

    def reject_slowly() -> None:
        with engine.begin() as connection:
            rows.locked_tree_of(connection)
            holding.set()
            anyio.from_thread.run(waited.wait)
            changes.move(
                connection,
                change.change_id,
                ChangeState.REJECTED,
                at=START,
                why="no",
                came_from=ChangeState.AWAITING_APPROVAL,
            )

    async def look() -> None:
        seen.append(
            await second.guard.store.write(lambda c: changes.get(c, change.change_id).state)
        )

    holding, waited = ThreadEvent(), anyio.Event()
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, reject_slowly)
            await holding.wait()
            tasks.start_soon(look)
            await anyio.to_thread.run_sync(until_one_waits, engine)
            assert seen == []
            waited.set()

    assert seen == [ChangeState.REJECTED]


class ThreadEvent:
    """An event that a thread sets and the loop waits for."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """From a thread."""
        anyio.from_thread.run_sync(self._event.set)

    async def wait(self) -> None:
        """In the loop."""
        await self._event.wait()


@POSTGRES
async def test_a_worker_whose_lock_was_lost_stands_by_and_goes_on(
    house: House, engine: Engine, kind: str
) -> None:
    """The server ended its session in the middle of an act: it asks the plant, never acts again."""
    begun = anyio.Event()

    class Hangs(MoveValve):
        async def execute(self, arguments: MoveValveArguments, key: str) -> dict[str, Any]:
            """Act, and never answer."""
            await super().execute(arguments, key)
            begun.set()
            await anyio.sleep_forever()
            return {}

    house.guard.operations[MoveValve.name] = Hangs(house.valve)
    change = await house.propose(50)
    await house.approve(change, OPERATOR)

    async def has_begun() -> bool:
        return begun.is_set()

    async with house.working():
        await house.until(has_begun)
        assert end_lock_sessions(engine) == 1
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED
    assert house.valve.acts == [50]
    assert "unknown" in {step.state for step in ended.history}


@POSTGRES
async def test_an_intent_is_not_written_once_the_lock_is_lost(
    house: House, engine: Engine, kind: str
) -> None:
    """The process lives and does not know yet; the database does, in the same transaction."""
    change = await house.approve(await house.propose(50), OPERATOR)

    async def begin_late() -> None:
        async with sole_worker(engine, house.clock) as holds:
            assert end_lock_sessions(engine) == 1
            left = await Worker(house.guard, holds)._begin_and_act(change)
            assert left.state is ChangeState.AUTHORISED
            await anyio.sleep_forever()

    with pytest.raises(LockLostError):
        await begin_late()
    assert house.valve.acts == []
    assert "intent" not in house.records(change)


@POSTGRES
async def test_a_replica_takes_over_when_the_lock_of_the_other_is_lost(
    replicas: list[House], engine: Engine, kind: str
) -> None:
    """Whoever gets the lock finds the rest of the work in the store."""
    async with replicas[0].working(), replicas[1].working():
        change = await replicas[0].propose(50)
        await replicas[1].approve(change, OPERATOR)
        await replicas[0].end_of(change)
        assert end_lock_sessions(engine) == 1
        other = await replicas[0].propose(40)
        await replicas[1].approve(other, OPERATOR)
        ended = await replicas[1].end_of(other)

    assert ended.state is ChangeState.SUCCEEDED
    assert replicas[0].valve.acts == [50, 40]


async def test_a_site_keeps_its_store_where_its_settings_say(
    kind: str, url: URL | str, tmp_path: Path
) -> None:
    """Opened again it is the same store, and the same log."""
    rules = SiteRules(site_id="lab", gpus=512, hosts=64)
    settings = SiteSettings(rules=rules, data_dir=tmp_path / "keys", store_url=str(url))
    for size in (0, 1):
        async with open_authority(settings, ManualClock(START)) as authority:
            assert authority.store.engine.dialect.name == kind
            assert authority.ledger.size_and_root()[0] == size
            await record_stop(
                authority.store,
                authority.ledger,
                ManualClock(START),
                OPERATOR,
                stopped=True,
                why="a drill",
            )
