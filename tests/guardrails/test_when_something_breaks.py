"""What the worker does when something around it breaks: nothing is done twice, nothing stops."""

import asyncio
from datetime import datetime
from typing import Any

import anyio
import pytest
from sqlalchemy import text

from interlock_guardrails import asking, changes, reservations
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import UnavailableError
from interlock_tools.fact import FactSet
from interlock_tools.operation import Operation, ReadBack, Verdict
from tests.guardrails.conftest import House, person
from tests.guardrails.valve import MoveValve, MoveValveArguments

OPERATOR = person("person:operator-1", "operator")
LOOKS = 5


class Faulty(MoveValve):
    """A move of the valve with a mistake of ours in one of its methods, for position 40 only."""

    def __init__(self, house: House, place: str) -> None:
        super().__init__(house.valve)
        self.place = place
        self.broken = False
        house.guard.operations = {self.name: self}

    def _break(self, place: str, arguments: MoveValveArguments) -> None:
        if self.broken and place == self.place and arguments.position_pct == 40:
            raise KeyError("position_pct")

    def blast_radius(self, arguments: MoveValveArguments, facts: FactSet) -> BlastRadius:
        """Whom it reaches."""
        self._break("blast_radius", arguments)
        return super().blast_radius(arguments, facts)

    async def read_back(self, arguments: MoveValveArguments) -> ReadBack:
        """What the valve says."""
        self._break("read_back", arguments)
        return await super().read_back(arguments)

    async def verify(
        self, arguments: MoveValveArguments, before: FactSet, since: datetime
    ) -> Verdict:
        """What the meter says."""
        self._break("verify", arguments)
        return await super().verify(arguments, before, since)

    async def compensate(self, arguments: MoveValveArguments, before: FactSet) -> dict[str, Any]:
        """Back."""
        self._break("compensate", arguments)
        return await super().compensate(arguments, before)


async def seconds(house: House) -> None:
    """Let the worker look a few times, and finish what it begins of that."""
    for _ in range(LOOKS):
        house.clock.advance(1.0)
        await anyio.wait_all_tasks_blocked()
        await house.guard.latest()


async def held(house: House) -> list[BlastRadius]:
    """What is reserved now."""
    return await house.guard.store.read(reservations.held_by_others)


def begun_elsewhere(house: House, change: Change) -> Any:
    """Write the intent as another process would."""
    return house.guard.store.write(
        lambda connection: changes.move(
            connection,
            change.change_id,
            ChangeState.EXECUTING,
            at=house.clock.now(),
            why="the intent is on the ledger",
            came_from=ChangeState.AUTHORISED,
        )
    )


@pytest.mark.parametrize(
    ("place", "mishap", "ends"),
    [
        ("blast_radius", "none", ChangeState.EXPIRED),
        ("read_back", "answer_lost", ChangeState.STUCK),
        ("verify", "none", ChangeState.COMPENSATED),
        ("compensate", "ignores", ChangeState.STUCK),
    ],
)
async def test_a_mistake_in_one_operation_ends_its_change_and_stops_no_other(
    house: House, place: str, mishap: Any, ends: ChangeState
) -> None:
    """A KeyError of ours is one change's trouble, not the site's."""
    faulty = Faulty(house, place)
    change = await house.propose(40)
    await house.approve(change, OPERATOR)
    house.valve.mishap = mishap
    faulty.broken = True

    async with house.working():
        ended = await house.end_of(change)
        house.valve.mishap = "none"
        if ends is ChangeState.STUCK:
            await house.clearing.clear(OPERATOR, change.change_id, why="looked: it is at 40")
        other = await house.propose(60)
        await house.approve(other, OPERATOR)
        after = await house.end_of(other)

    assert ended.state is ends
    assert after.state is ChangeState.SUCCEEDED
    assert await held(house) == []


async def test_a_source_that_breaks_is_unknown_and_stops_no_other_change(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in a source is no answer, and no answer is a refusal."""

    async def broken(need: object) -> object:
        raise ValueError("not a number")

    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    monkeypatch.setattr(house.valve, "fact", broken)
    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.REFUSED
    assert house.valve.acts == []


async def test_an_act_begun_elsewhere_is_read_back_and_never_sent_again(house: House) -> None:
    """A running worker that finds an intent that is not its own asks the plant."""
    await house.guard.stop(OPERATOR, "hold")
    change = await house.propose(50)
    await house.approve(change, OPERATOR)

    async with house.working():
        await begun_elsewhere(house, change)
        ended = await house.end_of(change)

    assert ended.state is ChangeState.FAILED
    assert house.valve.acts == []


async def test_a_look_that_is_old_when_it_arrives_does_not_act_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker saw the change under way; when it comes to it the change has ended."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    async with house.working():
        ended = await house.end_of(change)
        old = ended.model_copy(update={"state": ChangeState.EXECUTING})
        monkeypatch.setattr(changes, "unfinished", lambda connection: [old])
        await seconds(house)

    assert house.valve.acts == [50]


async def test_an_answer_that_json_cannot_hold_does_not_keep_a_change_from_its_end(
    house: House,
) -> None:
    """The act happened; a NaN in its answer is no reason to forget that or to do it again."""

    class Answers(MoveValve):
        async def execute(self, arguments: MoveValveArguments, key: str) -> dict[str, Any]:
            return {**await super().execute(arguments, key), "flow": float("nan")}

    house.guard.operations = {MoveValve.name: Answers(house.valve)}
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED
    assert house.valve.acts == [50]


async def test_an_act_that_lands_late_is_not_called_undone(house: House) -> None:
    """The answer was lost and the component is slow: one early no is not believed."""

    class Late(MoveValve):
        due: datetime | None = None

        async def execute(self, arguments: MoveValveArguments, key: str) -> dict[str, Any]:
            self.due = house.clock.now()
            raise UnavailableError("no answer")

        async def read_back(self, arguments: MoveValveArguments) -> ReadBack:
            if self.due and (house.clock.now() - self.due).total_seconds() > 5:
                house.valve.position_pct = house.valve.flow_pct = arguments.position_pct
            return await super().read_back(arguments)

    house.guard.operations = {MoveValve.name: Late(house.valve)}
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED


@pytest.mark.parametrize("place", ["read_back", "verify"])
async def test_a_question_that_hangs_does_not_keep_a_change_from_its_end(
    house: House, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every question to the plant has a deadline."""

    class Hangs(MoveValve):
        async def read_back(self, arguments: MoveValveArguments) -> ReadBack:
            if place == "read_back":
                await anyio.sleep_forever()
            return await super().read_back(arguments)

        async def verify(
            self, arguments: MoveValveArguments, before: FactSet, since: datetime
        ) -> Verdict:
            if place == "verify":
                await anyio.sleep_forever()
            return await super().verify(arguments, before, since)

    monkeypatch.setattr(asking, "ASK_TIMEOUT_S", 0.01)
    house.guard.operations = {MoveValve.name: Hangs(house.valve)}
    house.valve.mishap = "answer_lost" if place == "read_back" else "none"
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    async with house.working():
        ended = await house.end_of(change)

    assert ended.state in {ChangeState.STUCK, ChangeState.COMPENSATED}


async def test_a_clock_that_goes_back_does_not_lengthen_a_verification(house: House) -> None:
    """The deadline is kept by counting looks where the clock cannot be trusted."""
    house.valve.mishap = "ignores"
    change = await house.propose(50)
    await house.approve(change, OPERATOR)

    async def verifying() -> bool:
        return (await house.guard.get(change.change_id)).state is ChangeState.VERIFYING

    async with house.working():
        await house.until(verifying)
        house.clock.advance(-3600)
        back = house.clock.now()
        ended = await house.end_of(change)

    assert ended.state is ChangeState.COMPENSATED
    assert (house.clock.now() - back).total_seconds() < 5 * MoveValve.deadline_s


async def test_a_stop_that_cannot_be_read_holds_everything(house: House) -> None:
    """Without its table nobody knows whether we are stopped, and that is a yes."""
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    await house.guard.store.write(
        lambda connection: connection.execute(text("ALTER TABLE stop_state RENAME TO lost"))
    )

    async with house.working():
        await seconds(house)
        assert house.valve.acts == []
        await house.guard.store.write(
            lambda connection: connection.execute(text("ALTER TABLE lost RENAME TO stop_state"))
        )
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED


async def test_a_row_that_cannot_be_read_stops_no_other_change(house: House) -> None:
    """It may come from a newer version of ours; the others are none the worse."""
    strange = await house.propose(60)
    await house.guard.store.write(
        lambda connection: connection.execute(
            changes.changes.update()
            .where(changes.changes.c.change_id == strange.change_id)
            .values(document='{"newer": true}')
        )
    )
    change = await house.propose(50)
    assert [waiting.change_id for waiting in await house.approvals.waiting()] == [change.change_id]
    await house.approve(change, OPERATOR)
    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED


async def test_an_operation_that_is_no_longer_served_leaves_its_change_to_a_person(
    house: House,
) -> None:
    """Nobody here can tell whether it holds or bring it back, so it ends and keeps others off."""
    house.valve.mishap = "ignores"
    change = await house.propose(50)
    await house.approve(change, OPERATOR)

    async def verifying() -> bool:
        return (await house.guard.get(change.change_id)).state is ChangeState.VERIFYING

    async with house.working():
        await house.until(verifying)
    none: dict[str, Operation[Any]] = {}
    house.guard.operations = none
    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.STUCK
    assert len(await held(house)) == 1


async def test_a_proposal_wakes_the_worker_from_the_event_loop_only(house: House) -> None:
    """An event is not safe across threads; asyncio's debug mode tells."""
    asyncio.get_running_loop().set_debug(True)
    async with house.working():
        await anyio.wait_all_tasks_blocked()
        change = await house.propose(50)

    assert change.state is ChangeState.AWAITING_APPROVAL
