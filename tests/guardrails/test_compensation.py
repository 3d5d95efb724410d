"""Bringing back: what did not hold is undone once, and its target is held meanwhile."""

from typing import Any

import anyio

from interlock_tools.change import Change, ChangeState
from interlock_tools.fact import FactSet
from tests.guardrails.conftest import House, person
from tests.guardrails.test_when_something_breaks import held, seconds
from tests.guardrails.valve import MoveValve, MoveValveArguments

OPERATOR = person("person:operator-1", "operator")


async def test_lock_and_reservation_are_held_until_it_is_brought_back(house: House) -> None:
    """Bringing back is an act on the plant too: nobody else may begin on it meanwhile."""
    seen: list[int] = []

    class Watched(MoveValve):
        async def compensate(
            self, arguments: MoveValveArguments, before: FactSet
        ) -> dict[str, Any]:
            seen.append(len(await held(house)))
            return await super().compensate(arguments, before)

    house.guard.operations = {MoveValve.name: Watched(house.valve)}
    house.valve.mishap = "ignores"
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.COMPENSATED
    assert seen == [1]
    assert await held(house) == []


class Slow(MoveValve):
    """A move that is brought back and never says so."""

    def __init__(self, house: House, *, repeats: bool) -> None:
        super().__init__(house.valve)
        self.compensation_repeats = repeats  # type: ignore[misc]  # each test has its own
        self.times = 0

    async def compensate(self, arguments: MoveValveArguments, before: FactSet) -> dict[str, Any]:
        """Hang in the middle of it."""
        self.times += 1
        await anyio.sleep_forever()
        return {}


async def cut_short(house: House, slow: Slow) -> Change:
    """A change whose process ended while it was being brought back."""
    house.guard.operations = {MoveValve.name: slow}
    house.valve.mishap = "ignores"
    change = await house.propose(50)
    await house.approve(change, OPERATOR)

    async def has_begun() -> bool:
        return slow.times > 0

    async with house.working():
        await house.until(has_begun)
        async with house.working():
            await seconds(house)
    return change


async def test_two_workers_on_one_store_bring_back_once(house: House) -> None:
    """Another process on the same store stands by; it takes over when the first has gone."""
    slow = Slow(house, repeats=True)
    change = await cut_short(house, slow)
    assert slow.times == 1

    house.guard.operations = {MoveValve.name: MoveValve(house.valve)}
    async with house.working():
        assert (await house.end_of(change)).state is ChangeState.COMPENSATED


async def test_what_may_not_be_brought_back_twice_is_left_to_a_person(house: House) -> None:
    """Nobody knows whether it was brought back."""
    slow = Slow(house, repeats=False)
    change = await cut_short(house, slow)

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.STUCK
    assert slow.times == 1
    assert [paged.change_id for paged in house.paged] == [change.change_id]
