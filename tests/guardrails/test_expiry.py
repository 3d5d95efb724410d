"""An effect with an end is brought back to its safe value, also when we were away."""

from interlock_guardrails.plans import propose_plan
from interlock_tools.change import Change, ChangeState
from tests.guardrails.conftest import AGENT, House, person

OPERATOR = person("person:operator-1", "operator")


async def opened(house: House, for_s: float) -> Change:
    """The valve opened from 40 to 90 % for a time, verified."""
    house.valve.position_pct = house.valve.flow_pct = 40
    change = await house.propose(90, arguments={"expires_in_s": for_s})
    await house.approve(change, OPERATOR)
    async with house.working():
        ended = await house.end_of(change)
    assert ended.state is ChangeState.SUCCEEDED
    return ended


async def expiry_of(house: House, change: Change) -> Change:
    """The change that brings it back."""
    return next(c for c in await house.guard.latest(9) if c.parent_id == change.change_id)


async def test_what_was_raised_for_a_time_comes_back_when_it_is_over(house: House) -> None:
    """The vote on the raise covers the way back; nobody has to be there."""
    change = await opened(house, for_s=60)
    back = await expiry_of(house, change)
    assert back.state is ChangeState.AUTHORISED

    async with house.working():
        ended = await house.end_of(back)

    assert ended.state is ChangeState.SUCCEEDED
    assert house.valve.acts == [90, 40]
    assert back.not_before is not None
    assert ended.history[-1].at >= back.not_before


async def test_what_a_step_of_a_plan_raised_comes_back_under_the_vote_on_the_plan(
    house: House,
) -> None:
    """People voted on the plan, not on its step; the way back is covered all the same."""
    house.valve.position_pct = house.valve.flow_pct = 40
    steps = [("valve.move_valve", {"position_pct": 90, "expires_in_s": 60.0})]
    plan = await propose_plan(house.guard, AGENT, steps, reason="more flow", dry_run=False)
    await house.approve(plan, OPERATOR)
    async with house.working():
        await house.end_of(plan)
        step = await expiry_of(house, plan)
        back = await house.end_of(await expiry_of(house, step))

    assert back.state is ChangeState.SUCCEEDED
    assert house.valve.acts == [90, 40]


async def test_nothing_comes_back_before_its_time(house: House) -> None:
    """An expiry that is not due is no work."""
    change = await opened(house, for_s=10_000)
    back = await expiry_of(house, change)

    async with house.working():
        other = await house.propose(95)
        await house.approve(other, OPERATOR)
        await house.end_of(other)

    assert (await house.guard.get(back.change_id)).state is ChangeState.AUTHORISED


async def test_after_an_absence_what_is_overdue_comes_first(house: House) -> None:
    """We died, the time went by: the first thing that a new worker does is to make it safe."""
    change = await opened(house, for_s=60)
    waiting = await house.propose(95)
    await house.approve(waiting, OPERATOR)
    house.clock.advance(120)

    async with house.working():
        await house.end_of(waiting)

    assert house.valve.acts[:2] == [90, 40]
    assert (await expiry_of(house, change)).state is ChangeState.SUCCEEDED


async def test_the_stop_does_not_keep_a_safe_value_from_coming_back(house: House) -> None:
    """What makes it safer goes on; everything else is held."""
    change = await opened(house, for_s=60)
    await house.guard.stop(AGENT, "something smells")

    async with house.working():
        ended = await house.end_of(await expiry_of(house, change))

    assert ended.state is ChangeState.SUCCEEDED
    assert house.valve.position_pct == 40


async def test_a_plant_that_is_not_seen_is_tried_again_and_not_given_up(house: House) -> None:
    """A missing fact ends a change; it only delays what must come back."""
    change = await opened(house, for_s=60)
    back = await expiry_of(house, change)
    house.valve.missing.add("valve.position")
    async with house.working():
        for _ in range(120):
            house.clock.advance(1.0)
        house.valve.missing.clear()
        ended = await house.end_of(back)

    assert ended.state is ChangeState.SUCCEEDED


async def test_what_cannot_be_made_safe_in_a_day_pages_a_person(house: House) -> None:
    """Stuck, not forgotten."""
    change = await opened(house, for_s=60)
    back = await expiry_of(house, change)
    house.valve.missing.add("valve.position")
    house.clock.advance(100_000)

    async with house.working():
        ended = await house.end_of(back)

    assert ended.state is ChangeState.STUCK
    assert [paged.change_id for paged in house.paged] == [back.change_id]


async def test_what_was_lowered_has_nothing_to_bring_back(house: House) -> None:
    """The lower value is the safe one."""
    change = await house.propose(50, arguments={"expires_in_s": 60.0})
    await house.approve(change, OPERATOR)
    async with house.working():
        await house.end_of(change)

    assert [c for c in await house.guard.latest(9) if c.parent_id] == []
