"""Plans: several changes under one approval, and none after the first that fails."""

from collections.abc import Sequence

import pytest

from interlock_guardrails import changes
from interlock_guardrails.plans import child_of, propose_plan
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import InvalidRequestError, NotFoundError
from tests.guardrails.conftest import AGENT, House, person

OPERATOR = person("person:operator-1", "operator")


async def plan_of(house: House, positions_pct: Sequence[int], **more: bool) -> Change:
    """A plan that moves the valve through these positions."""
    steps = [("valve.move_valve", {"position_pct": position}) for position in positions_pct]
    return await propose_plan(
        house.guard,
        AGENT,
        steps,
        reason="close in steps, so that the pipe does not hammer",
        dry_run=more.get("dry_run", False),
    )


async def test_the_steps_of_an_approved_plan_are_done_in_order_under_one_vote(house: House) -> None:
    """Each step is a change of its own, verified before the next begins."""
    plan = await plan_of(house, [80, 60, 40])
    assert plan.state is ChangeState.AWAITING_APPROVAL
    await house.approve(plan, OPERATOR)

    async with house.working():
        ended = await house.end_of(plan)

    assert ended.state is ChangeState.SUCCEEDED
    assert house.valve.acts == [80, 60, 40]
    done = [c for c in await house.guard.latest(10) if c.parent_id == plan.change_id]
    assert [change.state for change in done] == [ChangeState.SUCCEEDED] * 3
    assert house.records(done[0])[0] == "intent"


async def test_a_plan_halts_at_the_first_step_that_fails(house: House) -> None:
    """What was not begun stays undone; what failed is brought back by its own rule."""
    plan = await plan_of(house, [80, 60, 40])
    await house.approve(plan, OPERATOR)
    house.valve.mishap = "ignores"

    async with house.working():
        ended = await house.end_of(plan)

    assert ended.state is ChangeState.FAILED
    assert house.valve.acts == [80]
    assert house.valve.position_pct == 100


async def test_no_step_runs_when_its_facts_moved(house: House) -> None:
    """Another valve stands there now: the plan was approved for the old one."""
    plan = await plan_of(house, [80, 60])
    await house.approve(plan, OPERATOR)
    house.valve.after_act = lambda: setattr(house.valve, "serial", "sn-2")

    async with house.working():
        ended = await house.end_of(plan)

    assert ended.state is ChangeState.FAILED
    assert house.valve.acts == [80]


async def test_a_plan_without_votes_does_nothing(house: House) -> None:
    """One approval covers all steps, and none covers none."""
    plan = await plan_of(house, [80])

    async with house.working():
        ended = await house.end_of(plan)

    assert ended.state is ChangeState.EXPIRED
    assert house.valve.acts == []


async def test_a_step_that_policy_forbids_keeps_the_whole_plan_out(house: House) -> None:
    """The step is named; nothing of the plan is proposed."""
    with pytest.raises(InvalidRequestError, match=r"step 2: .*slo-floor-broken"):
        await plan_of(house, [50, 5])

    assert await house.guard.latest(5) == []


async def test_a_plan_rehearsed_does_nothing(house: House) -> None:
    """The decision and the people it would take, as for a single change."""
    plan = await plan_of(house, [80, 60], dry_run=True)

    assert plan.decision is not None
    assert plan.decision.quorum is not None
    with pytest.raises(NotFoundError):
        await house.guard.get(plan.change_id)


async def test_a_plan_does_not_hold_plans(house: House) -> None:
    """Otherwise one vote could hide any depth."""
    inner = {"plan_id": "p", "steps": []}
    with pytest.raises(InvalidRequestError):
        await propose_plan(
            house.guard, AGENT, [("plan.run_reversible", inner)], reason="x", dry_run=False
        )


async def test_a_row_that_only_names_a_plan_does_not_ride_on_its_votes(house: House) -> None:
    """Whoever can write to the store can name any parent; only its own steps are covered."""
    plan = await plan_of(house, [80, 60])
    await house.approve(plan, OPERATOR)
    forged: list[Change] = []

    def slip_in() -> None:
        step = forged[0].model_copy(update={"created_at": house.clock.now()})
        with house.guard.store.engine.begin() as connection:
            changes.insert_once(connection, step)

    known = await house.propose(20, reason=plan.reason, dry_run=True)
    arguments = {"position_pct": 20}
    forged.append(
        child_of(house.guard, plan, 7, "valve.move_valve", arguments, known.binding_digest)
    )
    house.valve.after_act = slip_in

    async with house.working():
        await house.end_of(plan)
        ended = await house.end_of(forged[0])

    assert ended.state is ChangeState.REFUSED
    assert 20 not in house.valve.acts


async def test_a_plan_goes_on_where_its_process_ended(house: House) -> None:
    """Killed while a step was being verified: that step is not acted again, the rest is done."""
    plan = await plan_of(house, [80, 60, 40])
    await house.approve(plan, OPERATOR)
    house.valve.mishap = "ignores"  # the flow does not follow: the first step waits in vain

    async def first_waits() -> bool:
        found = await house.guard.latest(10)
        return any(c.parent_id and c.state is ChangeState.VERIFYING for c in found)

    async with house.working():
        await house.until(first_waits)
    house.valve.mishap = "none"
    house.valve.flow_pct = house.valve.position_pct
    async with house.working():
        ended = await house.end_of(plan)

    assert ended.state is ChangeState.SUCCEEDED
    assert house.valve.acts == [80, 60, 40]
