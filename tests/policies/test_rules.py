"""Every rule of every bundle: at its boundary it decides, and one step before it does not."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from interlock_policies.decide import decide, still_allowed
from interlock_policies.gate import PolicyGate
from interlock_policies.situation import Situation
from interlock_tools.decision import Answer
from interlock_tools.identity import PrincipalKind
from interlock_tools.operation import Effect

Make = Callable[..., Situation]
Gates = Mapping[str, PolicyGate]

README = Path(__file__).parents[2] / "policies" / "README.md"
MUTATING = ("supervised", "autonomous")
NO_PROPOSE = frozenset({"interlock:read"})


class Edge(NamedTuple):
    """What makes a rule apply, and the nearest thing that does not."""

    applies: dict[str, Any]
    just_not: dict[str, Any]


def others(count: int) -> dict[str, Any]:
    """A reach of other changes over so many hosts."""
    return {"hosts": {f"other-{number}" for number in range(count)}}


FORBIDS = {
    "slo-floor-broken": Edge({"reach": {"slo_floors_broken": {"job-1"}}}, {}),
    "budget-broken": Edge({"reach": {"budgets_broken": {"feed-1"}}}, {}),
    "freeze-in-force": Edge({"frozen": True}, {"frozen": False}),
    "protected-target": Edge({"protected": {"node-001"}}, {"protected": {"node-0011"}}),
    "overlaps-open-reservation": Edge({"overlaps_open": True}, {"open_reach": others(1)}),
    "too-many-hosts-at-once": Edge(
        {"open_reach": others(250), "site_hosts": 1000},
        {"open_reach": others(249), "site_hosts": 1000},
    ),
    "agent-too-busy": Edge({"changes_last_hour": 30}, {"changes_last_hour": 29}),
    "agent-over-budget": Edge(
        {"agent_budget_spent_permille": 1001}, {"agent_budget_spent_permille": 1000}
    ),
    "claim-unconfirmed": Edge({"claims_unconfirmed": {"grid.event of grid_event/gc-1"}}, {}),
    "agent-without-owner": Edge({"owner": None}, {"owner": "person:owner-1"}),
    "may-not-propose": Edge({"scopes": NO_PROPOSE}, {}),
}

PERMITS = {
    "reversible-needs-operator": Edge({"in_window": False}, {"reach": {"power_rise_w": 1}}),
    "power-rise-needs-operator": Edge({"reach": {"power_rise_w": 1}}, {"in_window": False}),
    "power-taken-needs-two-operators": Edge(
        {"reach": {"power_taken_from": {"job-2"}}},
        {"reach": {"power_rise_w": 1}},
    ),
    "all-feeds-needs-two-operators": Edge(
        {"reach": {"all_feeds": True}}, {"reach": {"all_feeds": True, "open_ended": True}}
    ),
    "no-end-needs-two-operators": Edge(
        {"reach": {"open_ended": True}}, {"reach": {"all_feeds": True, "open_ended": True}}
    ),
    "all-feeds-without-end-needs-three-operators": Edge(
        {"reach": {"all_feeds": True, "open_ended": True}}, {"reach": {"all_feeds": True}}
    ),
    "disruptive-needs-two-operators": Edge(
        {"effect": Effect.DISRUPTIVE}, {"effect": Effect.REVERSIBLE}
    ),
    "irreversible-needs-two-site-leads": Edge(
        {"effect": Effect.IRREVERSIBLE}, {"effect": Effect.DISRUPTIVE}
    ),
}


def fired(gate: PolicyGate, situation: Situation) -> set[str]:
    """The ids of the rules that decided, with the votes given."""
    return {rule.rule_id for rule in still_allowed(gate, situation).rules}


@pytest.mark.parametrize("bundle", MUTATING)
@pytest.mark.parametrize("rule_id", FORBIDS)
def test_a_limit_stops_a_change_from_its_boundary_on(
    situation: Make, gates: Gates, bundle: str, rule_id: str
) -> None:
    """With every vote given, at the boundary it is this rule alone, and before it nothing."""
    gate, edge = gates[bundle], FORBIDS[rule_id]
    changed = {"effect": Effect.DISRUPTIVE}
    over = still_allowed(gate, situation(**changed | edge.applies))
    assert over.answer is Answer.REFUSE
    assert [rule.rule_id for rule in over.rules] == [rule_id]
    within = still_allowed(gate, situation(**changed | edge.just_not))
    assert within.answer is Answer.ALLOW


@pytest.mark.parametrize("bundle", MUTATING)
@pytest.mark.parametrize("rule_id", PERMITS)
def test_a_permit_that_needs_people_applies_to_its_own_changes_only(
    situation: Make, gates: Gates, bundle: str, rule_id: str
) -> None:
    """Each kind of change is opened by one rule, under votes, and by no other."""
    gate, edge = gates[bundle], PERMITS[rule_id]
    assert fired(gate, situation(**edge.applies)) == {rule_id}
    assert decide(gate, situation(**edge.applies)).answer is Answer.REQUIRE_APPROVAL
    assert rule_id not in fired(gate, situation(**edge.just_not))
    unvoted = still_allowed(gate, situation(**edge.applies), quorum_voted=False)
    assert unvoted.answer is Answer.REFUSE


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"autonomy_granted": False}, "nobody has granted it"),
        ({"in_window": False}, "outside a change window"),
        ({"reach": {"power_rise_w": 1}}, "it raises power"),
        ({"reach": {"watts_moved": 0}}, "it lowers no power"),
        ({"reach": {"gpus": 6}}, "6 of 100 GPUs are more than 5 %"),
        ({"reach": {"gpus": 5}, "site_gpus": 99}, "5 of 99 GPUs are more than 5 %"),
        ({"reach": {"gpus": 0}}, "no GPUs were measured"),
        ({"reach": {"power_domains": {"feed-1", "feed-2"}}}, "it is in two power domains"),
        ({"reach": {"power_domains": ()}}, "no power domain was measured"),
        ({"site_gpus": 0}, "nobody knows the size of the site"),
        ({"kind": PrincipalKind.PERSON}, "it is a person"),
        ({"kind": PrincipalKind.SERVICE}, "it is a service"),
        ({"effect": Effect.DISRUPTIVE}, "it is disruptive"),
    ],
)
def test_an_agent_acts_unattended_only_within_every_boundary(
    situation: Make, gates: Gates, changed: dict[str, Any], why: str
) -> None:
    """The ordinary situation lies on each boundary and passes; one step further needs people."""
    gate = gates["autonomous"]
    assert decide(gate, situation()).answer is Answer.ALLOW
    beside_others = situation(open_reach={"gpus": 90})  # each change is measured by itself
    assert decide(gate, beside_others).answer is Answer.ALLOW
    assert decide(gate, situation(**changed)).answer is Answer.REQUIRE_APPROVAL, why


@pytest.mark.parametrize("effect", [Effect.REVERSIBLE, Effect.DISRUPTIVE, Effect.IRREVERSIBLE])
def test_observe_changes_nothing(situation: Make, gates: Gates, effect: Effect) -> None:
    """No effect, no window and no vote opens it."""
    gate = gates["observe"]
    assert fired(gate, situation(effect)) == {"observe-only"}
    assert decide(gate, situation(effect)).answer is Answer.REFUSE


def test_reversible_changes_may_reach_many_hosts_at_once(situation: Make, gates: Gates) -> None:
    """The limit on interrupted hosts is not for what interrupts none."""
    wide = situation(open_reach=others(90))
    assert still_allowed(gates["supervised"], wide).answer is Answer.ALLOW


@pytest.mark.parametrize("protected", ["node-001", "node/node-001", "rack-1", "job-1"])
def test_what_is_protected_is_protected_under_each_of_its_names(
    situation: Make, gates: Gates, protected: str
) -> None:
    """As target, as host, or as anything else that the change reaches."""
    reached = situation(reach={"racks": {"rack-1"}, "jobs": {"job-1"}}, protected={protected})
    assert fired(gates["autonomous"], reached) == {"protected-target"}
    cdu = situation(target={"kind": "cdu", "id": "cdu-1"}, protected={"cdu-1"})
    assert fired(gates["autonomous"], cdu) == {"protected-target"}


def pairs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each forbid on top of each permit that could meet it."""
    unattended = {"small-power-cut-by-agent": Edge({}, {})}
    for forbid, edge in FORBIDS.items():
        for permit, opening in (PERMITS | unattended).items():
            reversible = "effect" not in opening.applies
            if forbid == "too-many-hosts-at-once" and reversible:
                continue
            reach = opening.applies.get("reach", {}) | edge.applies.get("reach", {})
            yield forbid, permit, opening.applies | edge.applies | {"reach": reach}


@pytest.mark.parametrize(("forbid", "permit", "changed"), list(pairs()))
def test_every_forbid_beats_every_permit(
    situation: Make, gates: Gates, forbid: str, permit: str, changed: dict[str, Any]
) -> None:
    """Neither a vote nor an agent's own licence buys what is forbidden."""
    del permit
    for bundle in MUTATING:
        assert decide(gates[bundle], situation(**changed)).answer is Answer.REFUSE
        assert fired(gates[bundle], situation(**changed)) == {forbid}


def test_every_rule_is_tried_here_and_explained_in_the_runbook(gates: Gates) -> None:
    """A rule without a boundary test or without a page to read is not finished."""
    tried = {*FORBIDS, *PERMITS, "small-power-cut-by-agent", "observe-only", "read-in-scope"}
    rules = {rule.rule_id: rule for gate in gates.values() for rule in gate.rules}
    assert rules.keys() == tried
    headings = README.read_text("utf-8").splitlines()
    for rule in rules.values():
        assert rule.runbook == f"policies/README.md#{rule.rule_id}"
        assert f"### {rule.rule_id}" in headings
        assert rule.reason.endswith(".")
