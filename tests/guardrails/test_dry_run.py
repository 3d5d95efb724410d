"""A component that rehearses is asked before anything is written, and its no is a no."""

import pytest

from interlock_guardrails.guard import Guard
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import ComponentError
from interlock_tools.operation import DryRun
from tests.guardrails.conftest import House, person
from tests.guardrails.valve import MoveValve, MoveValveArguments, Valve


class RehearsedMove(MoveValve):
    """A valve whose controller works out the move first; it stalls below 30 %."""

    def __init__(self, valve: Valve, guard: Guard) -> None:
        super().__init__(valve)
        self._guard = guard
        self.asked: list[int] = []
        self.on_record: list[Change] = []
        self.silent = False

    async def dry_run(self, arguments: MoveValveArguments) -> DryRun:
        """The controller's answer; what stood in the store meanwhile is kept."""
        self.asked.append(arguments.position_pct)
        self.on_record += await self._guard.latest()
        if self.silent:
            raise ComponentError("valve", "BUSY", "another master talks to it")
        stalls = arguments.position_pct < 30
        return DryRun(would_succeed=not stalls, notes=("it would stall",) if stalls else ())


@pytest.fixture
def move(house: House) -> RehearsedMove:
    """The house's operation, with a dry run of its own."""
    operation = RehearsedMove(house.valve, house.guard)
    house.guard.operations[operation.name] = operation
    return operation


async def test_what_the_component_rehearsed_stands_in_the_change(
    house: House, move: RehearsedMove
) -> None:
    """People see what it said; nothing was on record while it was asked."""
    change = await house.propose(50)

    assert change.state is ChangeState.AWAITING_APPROVAL
    assert change.rehearsal == DryRun(would_succeed=True)
    assert (move.asked, move.on_record) == ([50], [])
    await house.approve(change, person("person:operator-1", "operator"))
    async with house.working():
        assert (await house.end_of(change)).state is ChangeState.SUCCEEDED


async def test_what_the_component_would_not_do_is_refused(
    house: House, move: RehearsedMove
) -> None:
    """Whatever the policy thinks of it."""
    change = await house.propose(20)

    assert change.state is ChangeState.REFUSED
    assert "component-refuses" in change.history[-1].why
    assert "it would stall" in change.history[-1].why


async def test_a_component_that_cannot_rehearse_is_a_no(house: House, move: RehearsedMove) -> None:
    """Silence is not consent."""
    move.silent = True

    change = await house.propose(50)

    assert change.state is ChangeState.REFUSED
    assert "another master talks to it" in change.history[-1].why


async def test_what_policy_refuses_is_not_put_to_the_component(
    house: House, move: RehearsedMove
) -> None:
    """A refused caller reaches no component, not even to rehearse."""
    change = await house.propose(5)

    assert change.state is ChangeState.REFUSED
    assert "slo-floor-broken" in change.history[-1].why
    assert move.asked == []
