"""What every operation of the house keeps to; a new one is held to it by being registered."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from interlock_guardrails.action import parse
from interlock_guardrails.facts import FactRegistry
from interlock_guardrails.plans import PLANS
from interlock_servers.maxlps.twin import TwinFault
from interlock_tools.change import ChangeState
from interlock_tools.fact import Fact, FactNeed, Unknown
from interlock_tools.operation import Arguments, Effect, Operation
from tests.servers.sites import AGENT, Lab, open_lab

# One call of each that would go its way in the lab, where node-001 is limited to 400 W.
EXAMPLES: dict[str, dict[str, Any]] = {
    "maxlps.set_caps": {"gpu_cap_w_by_node": {"node-002": 400}},
    "maxlps.release_caps": {"node_ids": ["node-001"]},
}


class Without(FactRegistry):
    """The facts of a site without one of them."""

    def __init__(self, whole: FactRegistry, kind: str) -> None:
        super().__init__()
        self._whole = whole
        self._kind = kind

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """Nothing of the kind that was taken away, the rest as it is."""
        if need.kind == self._kind:
            return Unknown(kind=need.kind, subject=need.subject, why="it was taken away")
        return await self._whole.fact(need)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The lab with one node limited, so that there is something to release."""
    async with open_lab(tmp_path) as opened:
        gpus = opened.plant.site.gpus_of_node("node-001")
        opened.plant.command_caps(gpus, 400.0)
        await opened.second()
        await opened.second()
        yield opened


def operation_and_arguments(lab: Lab, name: str) -> tuple[Operation[Any], Arguments]:
    """A registered operation, and its example as it is parsed."""
    operation = lab.site.guard.operation(name)
    return operation, parse(operation, EXAMPLES[name])


async def propose(lab: Lab, name: str) -> Any:
    """Propose the example."""
    return await lab.site.guard.propose(
        AGENT, name, EXAMPLES[name], reason="the house looks at it", dry_run=False
    )


async def test_every_operation_of_a_site_is_held_to_this_page(lab: Lab) -> None:
    """An operation without an example here is one that nobody has held to anything.

    A plan acts through its steps alone: tests/guardrails/test_plans.py holds it.
    """
    plans = {plan.name for plan in PLANS}
    assert set(lab.site.guard.operations) - plans == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
async def test_its_example_is_on_its_way_when_nothing_is_missing(lab: Lab, name: str) -> None:
    """Otherwise the refusals below would prove nothing."""
    change = await propose(lab, name)

    assert change.state is ChangeState.AWAITING_APPROVAL


@pytest.mark.parametrize("name", EXAMPLES)
async def test_each_fact_taken_away_is_a_refusal_that_names_it(lab: Lab, name: str) -> None:
    """Unknown is never read as harmless, whichever fact it is."""
    guard = lab.site.guard
    operation, arguments = operation_and_arguments(lab, name)
    needs = operation.facts(arguments)
    assert needs
    whole = guard.facts
    for need in needs:
        guard.facts = Without(whole, need.kind)
        change = await propose(lab, name)
        assert change.state is ChangeState.REFUSED, need.kind
        assert f"{need} is unknown: it was taken away" in change.history[-1].why
        assert [rule.rule_id for rule in change.decision.rules] == ["facts-unknown"]
    assert lab.writes() == 0


@pytest.mark.parametrize("name", EXAMPLES)
async def test_each_fact_taken_away_after_the_vote_stops_it(lab: Lab, name: str) -> None:
    """The facts are gathered again in the moment of the act; an approval does not stand in."""
    guard = lab.site.guard
    operation, arguments = operation_and_arguments(lab, name)
    whole = guard.facts
    for need in operation.facts(arguments):
        guard.facts = whole
        change = await lab.propose(name.partition(".")[2], **EXAMPLES[name])
        guard.facts = Without(whole, need.kind)
        await lab.approve(change)
        ended = await lab.end_of(change)
        assert ended.state is ChangeState.REFUSED, need.kind
        assert need.kind in ended.history[-1].why
    assert lab.writes() == 0


@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_effect_that_silently_does_not_happen_is_failed(lab: Lab, name: str) -> None:
    """The component says ok and nothing follows: failed and seen to, never succeeded."""
    lab.dps.inject(TwinFault.IGNORE_CAPS)
    change = await lab.propose(name.partition(".")[2], **EXAMPLES[name])
    await lab.approve(change)

    ended = await lab.end_of(change)

    states = [step.state for step in ended.history]
    assert ChangeState.FAILED in states
    assert ChangeState.SUCCEEDED not in states
    assert lab.writes() == 1


@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_act_whose_answer_is_lost_is_not_repeated(lab: Lab, name: str) -> None:
    """No idempotency key is known to DPS: the plant is asked, once and again, and never told."""
    lab.plant.when_commanded = lambda: lab.dps.inject(TwinFault.HANG, times=1)
    change = await lab.propose(name.partition(".")[2], **EXAMPLES[name])
    await lab.approve(change)

    ended = await lab.end_of(change)

    assert ChangeState.UNKNOWN in [step.state for step in ended.history]
    assert ended.state is ChangeState.SUCCEEDED
    assert lab.writes() == 1


@pytest.mark.parametrize("name", EXAMPLES)
async def test_it_says_what_it_is(lab: Lab, name: str) -> None:
    """Name, effect, deadline and a docstring: what approvers and models read."""
    operation, arguments = operation_and_arguments(lab, name)

    assert operation.name == name
    assert operation.effect is not Effect.READ
    assert operation.deadline_s > 0
    assert operation.__doc__
    assert operation.target(arguments).kind
    assert operation.arguments.model_config["extra"] == "forbid"
    assert operation.arguments.model_config["strict"] is True
