"""A store that is full or gone, and a clock that jumps: nothing begins, nothing is lost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from interlock_evals.chaos.postgres import Postgres
from interlock_guardrails import reservations
from interlock_guardrails.engine import create_store_engine, create_tables
from interlock_guardrails.ledger.ledger import Ledger
from interlock_guardrails.ledger.records import RecordKind
from interlock_tools.change import ChangeState
from interlock_tools.errors import ConflictError
from tests.guardrails.conftest import House, house_on, person
from tests.guardrails.stores import NAMES, new_url, opened, start_postgres

OPERATOR = person("person:operator-1", "operator")
NO_LIMIT_PAGES = 2**32 - 2
LOOKS = 5


@pytest.fixture(params=NAMES)
def house(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[House]:
    """A house over either store."""
    with opened(new_url(request.param, tmp_path, request)) as engine:
        create_tables(engine)
        with house_on(engine) as built:
            yield built


class Disk:
    """The disk under a SQLite store, which is full when it is told to be."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limit_pages = NO_LIMIT_PAGES
        event.listen(engine, "begin", self._limit)

    def fill(self, ledger: Ledger) -> None:
        """Give it no page more, and use up what is left in those that there are."""
        with self._engine.begin() as connection:
            self._limit_pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        for size in (3_000, 100):
            self._until_full(partial(_pad, size))
        self._until_full(lambda connection: ledger.append(connection, RecordKind.READ, {}))

    def _until_full(self, write: Callable[[Connection], object]) -> None:
        with suppress(OperationalError):
            for _ in range(10_000):
                with self._engine.begin() as connection:
                    write(connection)

    def make_room(self) -> None:
        """Give it all that it wants."""
        self._limit_pages = NO_LIMIT_PAGES

    def _limit(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {self._limit_pages}")


def _pad(size: int, connection: Connection) -> None:
    connection.exec_driver_sql("INSERT INTO filler VALUES (zeroblob(?))", (size,))


@contextmanager
def on_a_small_disk(folder: Path) -> Iterator[tuple[House, Disk]]:
    """A house on SQLite, and its disk."""
    engine = create_store_engine(f"sqlite:///{folder / 'store.db'}")
    create_tables(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE filler (bytes BLOB)")
    disk = Disk(engine)
    with house_on(engine) as house:
        yield house, disk
        disk.make_room()
    engine.dispose()


async def seconds(house: House, number: int = LOOKS) -> None:
    """Let the worker look a few times, and finish what it begins of that."""
    for _ in range(number):
        house.clock.advance(1.0)
        await anyio.wait_all_tasks_blocked()
        await anyio.to_thread.run_sync(lambda: None, limiter=house.guard.store._writers)
        await anyio.wait_all_tasks_blocked()


async def test_on_a_full_disk_nothing_begins_and_it_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    """An intent that could not be written is no intent, and without one nothing is done."""
    with on_a_small_disk(tmp_path) as (house, disk):
        change = await house.propose(50)
        await house.approve(change, OPERATOR)
        disk.fill(house.ledger)
        async with house.working():
            await seconds(house)
            assert house.valve.acts == []
            assert house.records(change) == ["requested", "decided", "vote"]
            disk.make_room()
            ended = await house.end_of(change)

        assert ended.state is ChangeState.SUCCEEDED
        assert house.valve.acts == [50]
        house.ledger.checkpoint()
        assert house.ledger.verify_self().ok


async def test_on_a_full_disk_whoever_asks_or_votes_is_told_and_nothing_is_half_written(
    tmp_path: Path,
) -> None:
    """The transaction stands or falls together: no change without its record, no vote either."""
    with on_a_small_disk(tmp_path) as (house, disk):
        change = await house.propose(50)
        disk.fill(house.ledger)
        size = house.ledger.size_and_root()
        with pytest.raises(OperationalError, match="full"):
            await house.propose(60)
        with pytest.raises(OperationalError, match="full"):
            await house.approve(change, OPERATOR)

        assert house.ledger.size_and_root() == size
        assert [found.change_id for found in await house.guard.latest()] == [change.change_id]
        assert (await house.guard.get(change.change_id)).votes == ()
        disk.make_room()
        assert (await house.approve(change, OPERATOR)).state is ChangeState.AUTHORISED


async def test_a_disk_that_fills_during_the_act_loses_the_answer_and_not_the_act(
    tmp_path: Path,
) -> None:
    """The outcome could not be written: the plant is asked once there is room, not acted on."""
    with on_a_small_disk(tmp_path) as (house, disk):
        change = await house.propose(50)
        await house.approve(change, OPERATOR)
        house.valve.after_act = partial(disk.fill, house.ledger)
        async with house.working():
            await seconds(house, 2 * LOOKS)
            assert house.valve.acts == [50]
            assert (await house.guard.get(change.change_id)).state is ChangeState.EXECUTING
            disk.make_room()
            ended = await house.end_of(change)

        assert ended.state is ChangeState.SUCCEEDED
        assert house.valve.acts == [50]
        assert await house.guard.store.read(reservations.held_by_others) == []


async def test_a_database_that_is_gone_holds_everything_until_it_is_back() -> None:
    """Its server was stopped with a change authorised, and in the middle of another's check."""
    with start_postgres() as server, opened(server.url(server.create())) as engine:
        create_tables(engine)
        with house_on(engine) as house:
            await gone_and_back(house, server)


async def gone_and_back(house: House, server: Postgres) -> None:
    """Two changes, the server away in between."""
    house.valve.mishap = "ignores"
    under_way, waiting = await house.propose(50), await house.propose(40)
    await house.approve(under_way, OPERATOR)

    async def verifying() -> bool:
        return (await house.guard.get(under_way.change_id)).state is ChangeState.VERIFYING

    async with house.working():
        await house.until(verifying)
        await house.approve(waiting, OPERATOR)
        await anyio.to_thread.run_sync(server.stop)
        with pytest.raises(SQLAlchemyError):
            await house.propose(30)
        await seconds(house)
        assert house.valve.acts == [50]
        house.valve.mishap, house.valve.flow_pct = "none", 50
        await anyio.to_thread.run_sync(server.start)
        ended = [await house.end_of(change) for change in (under_way, waiting)]

    assert [change.state for change in ended] == [ChangeState.SUCCEEDED] * 2
    assert house.valve.acts == [50, 40]
    house.ledger.checkpoint()
    assert house.ledger.verify_self().ok


async def test_a_clock_that_jumps_ahead_closes_the_vote(house: House) -> None:
    """Past the end of it: no vote counts any more, and the change ends undone."""
    change = await house.propose(50)
    house.clock.advance(10_000)
    with pytest.raises(ConflictError, match="expired"):
        await house.approve(change, OPERATOR)
    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.EXPIRED
    assert house.valve.acts == []


async def test_a_clock_that_jumps_back_lengthens_no_vote(house: House) -> None:
    """Before the proposal no vote is open; where the clock is right again, it is."""
    change = await house.propose(50)
    house.clock.advance(-3600)
    with pytest.raises(ConflictError, match="open from"):
        await house.approve(change, OPERATOR)
    house.clock.advance(3600)
    await house.approve(change, OPERATOR)
    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED


async def test_what_was_approved_is_not_begun_at_a_moment_before_it_was_asked_for(
    house: House,
) -> None:
    """The clock went back between vote and act."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    house.clock.advance(-3600)
    async with house.working():
        await seconds(house)
        assert house.valve.acts == []
        ended = await house.end_of(change)

    assert ended.state is ChangeState.EXPIRED


@pytest.mark.parametrize(("mishap", "ends"), [("none", "succeeded"), ("ignores", "compensated")])
@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
async def test_a_clock_that_jumps_during_the_act_changes_no_verdict(
    house: House, jump_s: float, mishap: str, ends: str
) -> None:
    """Ahead, the meter is still asked once; back, the looks are counted."""
    house.valve.mishap = "ignores" if mishap == "ignores" else "none"
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    house.valve.after_act = lambda: house.clock.advance(jump_s)
    async with house.working():
        ended = await house.end_of(change)

    assert str(ended.state) == ends
    assert house.valve.acts == [50]
    assert house.records(change).count(RecordKind.INTENT.value) == 1
