"""An agent's budget: what it moves and reaches within the hour, and what counts as that."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from interlock_guardrails.migrations import migrate
from interlock_guardrails.plans import propose_plan
from interlock_guardrails.rules import AgentBudget
from interlock_tools.change import Change, ChangeState
from tests.guardrails.conftest import AGENT, House, house_on, person
from tests.guardrails.stores import NAMES, new_url, opened

OPERATOR = person("person:operator-1", "operator")
SCOPES = {"scopes": AGENT.scopes}
OTHER_AGENT = AGENT.model_copy(update={"id": "agent:other"})
HOUR_S = 3600.0


@pytest.fixture(params=NAMES)
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """A house on a store of either kind."""
    with opened(new_url(request.param, tmp_path, request)) as engine:
        migrate(engine)
        with house_on(engine) as built:
            yield built


def give(house: House, *budgets: AgentBudget) -> None:
    """Let the site have these budgets."""
    house.guard.rules = house.guard.rules.model_copy(update={"agent_budgets": budgets})


def watts(most: int, agent_id: str = "*") -> AgentBudget:
    """A budget of watts alone; a move of the valve by 1 % is one."""
    return AgentBudget(agent_id=agent_id, watts_moved_per_hour=most)


def refused_by(change: Change) -> list[str]:
    """The rules that refused it."""
    assert change.decision is not None
    refused = change.state is ChangeState.REFUSED
    return [rule.rule_id for rule in change.decision.rules] if refused else []


async def moved(house: House, position_pct: int) -> Change:
    """Propose, approve and carry out a move."""
    change = await house.propose(position_pct)
    await house.approve(change, OPERATOR)
    async with house.working():
        ended = await house.end_of(change)
    assert ended.state is ChangeState.SUCCEEDED
    return ended


async def test_what_would_pass_the_budget_is_refused_until_the_hour_is_over(house: House) -> None:
    """Up to the last watt it goes; what was moved an hour ago is forgotten."""
    give(house, watts(60))
    await moved(house, 50)
    await moved(house, 40)

    over = await house.propose(39)
    assert refused_by(over) == ["agent-over-budget"]
    assert house.valve.acts == [50, 40]

    house.clock.advance(HOUR_S)
    assert (await house.propose(39)).state is ChangeState.AWAITING_APPROVAL


async def test_gpus_are_counted_as_watts_are(house: House) -> None:
    """The larger of the two shares decides; a move reaches 8 GPUs."""
    both = AgentBudget(agent_id="*", watts_moved_per_hour=1000, gpus_reached_per_hour=16)
    give(house, both)
    await house.propose(50)
    await house.propose(60)

    assert refused_by(await house.propose(70)) == ["agent-over-budget"]


async def test_what_is_still_open_counts_however_old_it_is(house: House) -> None:
    """It may still act; once silence has ended it, it is forgotten at once."""
    give(house, watts(60))
    waiting = await house.propose(50)
    house.clock.advance(2 * HOUR_S)
    assert refused_by(await house.propose(80)) == ["agent-over-budget"]

    async with house.working():
        assert (await house.end_of(waiting)).state is ChangeState.EXPIRED
    assert (await house.propose(80)).state is ChangeState.AWAITING_APPROVAL


async def test_what_was_refused_or_rejected_is_not_spent(house: House) -> None:
    """Nothing was moved by it, and nothing will be."""
    give(house, watts(99))
    assert refused_by(await house.propose(5)) == ["slo-floor-broken"]
    rejected = await house.propose(40)
    await house.approve(rejected, OPERATOR, approve=False)

    assert (await house.propose(20)).state is ChangeState.AWAITING_APPROVAL


async def test_the_worker_does_not_count_the_change_that_it_looks_at_again(house: House) -> None:
    """One change may spend the whole budget."""
    give(house, watts(50))

    await moved(house, 50)


async def test_what_grew_past_the_budget_after_the_vote_is_not_begun(house: House) -> None:
    """The reach is measured again in the moment of the act, and so is what it spends."""
    give(house, watts(50))
    change = await house.propose(50)
    await house.approve(change, OPERATOR)
    house.guard.rules = house.guard.rules.model_copy(update={"agent_budgets": (watts(49),)})

    async with house.working():
        ended = await house.end_of(change)

    assert ended.state is ChangeState.REFUSED
    assert "agent-over-budget" in ended.history[-1].why
    assert house.valve.acts == []


async def test_each_agent_has_its_own_hour(house: House) -> None:
    """Under the budget of every agent, one does not spend what the other has."""
    give(house, watts(60))
    await house.propose(50)

    assert refused_by(await house.propose(40)) == ["agent-over-budget"]
    other = await house.propose(40, requester=OTHER_AGENT)
    assert other.state is ChangeState.AWAITING_APPROVAL


async def test_a_budget_of_its_own_replaces_that_of_every_agent(house: House) -> None:
    """Larger or smaller: the site named this agent."""
    give(house, watts(10), watts(60, AGENT.id))

    assert (await house.propose(50)).state is ChangeState.AWAITING_APPROVAL
    other = await house.propose(50, requester=OTHER_AGENT)
    assert refused_by(other) == ["agent-over-budget"]


async def test_people_have_no_budget(house: House) -> None:
    """Nor has a site's agent that no budget names."""
    give(house, watts(10, OTHER_AGENT.id))
    human = person("person:operator-2", "operator").model_copy(update=SCOPES)
    change = await house.propose(50, requester=human)
    assert change.state is ChangeState.AWAITING_APPROVAL
    assert (await house.propose(50)).state is ChangeState.AWAITING_APPROVAL

    give(house, watts(10))
    again = await house.propose(40, requester=human)
    assert again.state is ChangeState.AWAITING_APPROVAL


async def test_a_plan_is_spent_once_and_not_again_by_its_steps(house: House) -> None:
    """It was looked at whole: 20 W and 40 W, although its steps then moved 20 W each."""
    give(house, watts(61))
    steps = [("valve.move_valve", {"position_pct": position}) for position in (80, 60)]
    plan = await propose_plan(house.guard, AGENT, steps, reason="in steps", dry_run=False)
    await house.approve(plan, OPERATOR)
    async with house.working():
        assert (await house.end_of(plan)).state is ChangeState.SUCCEEDED

    assert refused_by(await house.propose(58)) == ["agent-over-budget"]
    assert (await house.propose(59)).state is ChangeState.AWAITING_APPROVAL


async def test_a_budget_that_is_spent_does_not_hold_what_makes_it_safe(house: House) -> None:
    """What was raised for a time comes back: the vote on the raise covers it."""
    house.valve.position_pct = house.valve.flow_pct = 40
    give(house, watts(50))
    change = await house.propose(90, arguments={"expires_in_s": 30.0})
    await house.approve(change, OPERATOR)

    async def back() -> bool:
        return house.valve.position_pct == 40

    async with house.working():
        await house.end_of(change)
        await house.until(back)

    assert house.valve.acts == [90, 40]


async def test_the_share_that_was_found_is_on_the_ledger(house: House) -> None:
    """Rounded up, so that whoever asks another policy later asks the same."""
    give(house, watts(60))
    await house.propose(50)

    found = [r["body"] for r in house.ledger.read(0, 100) if r["kind"] == "decided"]
    assert found[0]["situation"]["agent_budget_spent_permille"] == 834
