"""What every operation of the house keeps to; a new one is held to it by being registered."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from interlock_guardrails.action import parse
from interlock_guardrails.facts import FactRegistry
from interlock_guardrails.plans import PLANS
from interlock_plant.faults import Fault, FaultKind
from interlock_servers.exchange.requests import Writable
from interlock_servers.maxlps.twin import TwinFault
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import UnavailableError
from interlock_tools.fact import Fact, FactNeed, Unknown
from interlock_tools.operation import Arguments, Effect, Operation
from tests.servers.sites import AGENT, OPERATOR, Lab, open_lab
from tests.servers.waiting import until

# One call of each that would go its way in the lab, where node-001 is limited to 400 W, a tray of
# rack-03 leaks, rack-05 is isolated, cdu-2 is warmer than by default, one group of DPS is not
# active and node-064 is in none.
WET, SHUT = {"rack_id": "rack-03"}, {"rack_id": "rack-05"}
EXAMPLES: dict[str, dict[str, Any]] = {
    "maxlps.set_caps": {"gpu_cap_w_by_node": {"node-002": 400}},
    "maxlps.release_caps": {"node_ids": ["node-001"]},
    "maxlps.create_group": {"group": "fresh", "policy": "MaxQ"},
    "maxlps.add_nodes": {"group": "adapt-mini", "node_ids": ["node-064"], "policy": "MaxQ"},
    "maxlps.activate_group": {"group": "evaluate-nightly"},
    "maxlps.remove_nodes": {"group": "notebooks", "node_ids": ["node-043"]},
    "maxlps.delete_group": {"group": "notebooks"},
    "maxlps.set_group_policy": {"group": "label-images", "policy": "MaxLPS"},
    "maxlps.set_node_policies": {
        "group": "finetune-lyra",
        "policy_by_node": {"node-031": "MaxQ"},
    },
    "maxlps.set_group_priority": {"group": "notebooks", "priority": 9},
    "exchange.request_supply_temperature": {
        "cdu_id": "cdu-1",
        "supply_c": 28.0,
        "expires_in_s": 3600.0,
    },
    "exchange.withdraw_supply_temperature": {"cdu_id": "cdu-2"},
    "exchange.request_liquid_isolation": WET,
    "exchange.withdraw_liquid_isolation": SHUT,
    "exchange.request_electrical_isolation": WET,
    "exchange.withdraw_electrical_isolation": SHUT,
    "exchange.announce_readiness": {
        "point": "Status",
        "state": "AI ready",
        "expires_in_s": 3600.0,
    },
    "exchange.withdraw_readiness": {"point": "Status"},
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
async def lab(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    """The lab where there is something to release, to isolate and to take back."""
    async with open_lab(tmp_path, requests=True, newer_dps=True) as opened:
        opened.spare_groups()
        plant = opened.plant
        plant.command_caps(plant.site.gpus_of_node("node-001"), 400.0)
        plant.inject(Fault(FaultKind.LEAK, "node-017"))
        plant.isolate_liquid("rack-05")
        if "exchange.withdraw_electrical_isolation" in request.node.name:
            plant.isolate_power("rack-05")  # DPS does not know the limits of nodes that are dark
        plant.set_cdu_target_c("cdu-2", 29.0)
        await opened.second()
        await opened.second()
        yield opened


def operation_and_arguments(lab: Lab, name: str) -> tuple[Operation[Any], Arguments]:
    """A registered operation, and its example as it is parsed."""
    operation = lab.site.guard.operation(name)
    return operation, parse(operation, EXAMPLES[name])


async def propose(lab: Lab, name: str) -> Change:
    """Propose the example."""
    return await lab.site.guard.propose(
        AGENT, name, EXAMPLES[name], reason="the house looks at it", dry_run=False
    )


async def approved(lab: Lab, name: str) -> dict[str, Any]:
    """The example, with the votes of as many people as the policy asks for."""
    change = await propose(lab, name)
    await approve(lab, change)
    return {"change_id": change.change_id}


async def approve(lab: Lab, change: Change) -> None:
    """As many operators as it takes say yes."""
    assert change.decision is not None
    assert change.decision.quorum is not None, change.sentence()
    for number in range(change.decision.quorum.people):
        voter = OPERATOR.model_copy(update={"id": f"person:operator-{number + 1}"})
        await lab.site.approvals.vote(
            voter, change.change_id, approve=True, shown_digest=change.binding_digest or ""
        )


def acts(lab: Lab) -> int:
    """How often a component was told something new: DPS, or the BMS by a value of ours."""
    return lab.writes() + lab.bms.requests.turns


class Line:
    """What is between us and the broker: it may lose a word, or the answer to one."""

    def __init__(self, lab: Lab) -> None:
        asks = lab.site.requesting
        assert asks is not None
        self._publish = asks.publisher.publish
        self.loses_words = False
        self.loses_answers = 0
        asks.publisher.publish = self.publish  # type: ignore[method-assign]

    async def publish(self, point: Writable, value: float, *, qos: int = 0) -> None:
        """As the publisher does, or as an ACL does that lets nothing through: without a word."""
        beats = "/Heartbeat" in point.topic
        if self.loses_words and not beats:
            return
        await self._publish(point, value, qos=qos)
        if self.loses_answers and not beats:
            self.loses_answers -= 1
            raise UnavailableError("no acknowledgement; it may have been sent")


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
        assert change.decision is not None
        assert [rule.rule_id for rule in change.decision.rules] == ["facts-unknown"]
    assert acts(lab) == 0


@pytest.mark.parametrize("name", EXAMPLES)
async def test_each_fact_taken_away_after_the_vote_stops_it(lab: Lab, name: str) -> None:
    """The facts are gathered again in the moment of the act; an approval does not stand in."""
    guard = lab.site.guard
    operation, arguments = operation_and_arguments(lab, name)
    whole = guard.facts
    for need in operation.facts(arguments):
        guard.facts = whole
        change = await approved(lab, name)
        guard.facts = Without(whole, need.kind)
        ended = await lab.end_of(change)
        assert ended.state is ChangeState.REFUSED, need.kind
        assert need.kind in ended.history[-1].why
    assert acts(lab) == 0


@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_effect_that_silently_does_not_happen_is_failed(lab: Lab, name: str) -> None:
    """The component says ok and nothing follows: failed and seen to, never succeeded."""
    lab.dps.inject(TwinFault.IGNORE_CAPS)
    lab.bms.fault("ignore_requests")
    Line(lab).loses_words = name in {
        "exchange.announce_readiness",
        "exchange.withdraw_readiness",
    }
    change = await approved(lab, name)

    ended = await lab.end_of(change, within_s=400)

    states = [step.state for step in ended.history]
    assert ChangeState.FAILED in states
    assert ChangeState.SUCCEEDED not in states
    assert acts(lab) <= (2 if lab.site.guard.operation(name).compensates else 1)


@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_act_whose_answer_is_lost_is_not_repeated(lab: Lab, name: str) -> None:
    """Neither DPS nor the bus knows a key: the plant is asked, once and again, and never told."""
    loses = partial(lab.dps.inject, TwinFault.HANG, times=1)
    lab.plant.when_commanded = lab.dps.of_groups.when_written = loses
    Line(lab).loses_answers = 1
    change = await approved(lab, name)

    ended = await lab.end_of(change)

    assert ChangeState.UNKNOWN in [step.state for step in ended.history]
    assert ended.state is ChangeState.SUCCEEDED
    await until(lambda: acts(lab) > 0)  # the bus may tell us before the BMS
    assert acts(lab) == 1


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
