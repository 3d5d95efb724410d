"""Three ways in which the engine, used directly, allows what a rule forbids; the gate does not."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import cedarpy

from interlock_policies.bundles import bundle_texts
from interlock_policies.decide import still_allowed
from interlock_policies.gate import PolicyGate
from interlock_policies.schema import schema_for
from interlock_policies.situation import Situation
from interlock_tools.decision import Answer
from interlock_tools.operation import Effect

Make = Callable[..., Situation]

NOT_THE_SITE = """
@id("any-change") @reason("Anything may be changed.") @runbook("none")
permit (principal, action in Action::"mutate", resource);

@id("not-the-site") @reason("Never the whole site.") @runbook("none")
@canary("target = { kind = 'site', id = 'hall-1' }")
forbid (principal, action in Action::"mutate", resource)
when { resource.kind == "site" };
"""


def test_entities_built_without_the_schema_lose_every_forbid_on_an_action_group(
    situation: Make, gates: Mapping[str, PolicyGate], operations: Mapping[str, Effect]
) -> None:
    """Trap 1: the groups live in the schema; the fast path loses them without any error."""
    frozen = situation(frozen=True)
    schema = cedarpy.Schema.from_str(schema_for(operations))
    text = "\n".join(bundle_texts("supervised").values()) + (
        'permit (principal, action == Action::"maxlps.set_cap", resource);'
    )
    with_schema = cedarpy.Entities.from_json_str(_entities(frozen), schema)
    without = cedarpy.Entities.from_json_str(_entities(frozen))
    policies = cedarpy.PolicySet.from_str(text)

    raw = cedarpy.is_authorized(_request(frozen), policies, without, schema)
    assert raw.decision is cedarpy.Decision.Allow
    assert raw.diagnostics.errors == []
    right = cedarpy.is_authorized(_request(frozen), policies, with_schema, schema)
    assert right.decision is cedarpy.Decision.Deny

    answer = still_allowed(gates["supervised"], frozen)
    assert answer.answer is Answer.REFUSE
    assert [rule.rule_id for rule in answer.rules] == ["freeze-in-force"]


def test_a_forbid_that_cannot_be_evaluated_is_skipped_by_the_engine_and_is_a_no_here(
    situation: Make, gates: Mapping[str, PolicyGate], operations: Mapping[str, Effect]
) -> None:
    """Trap 2: a fact of the wrong type leaves an error in the diagnostics, and Allow."""
    frozen = situation().model_copy(update={"frozen": "true"})
    schema = cedarpy.Schema.from_str(schema_for(operations))
    entities = cedarpy.Entities.from_json_str(_entities(frozen), schema)
    text = "\n".join(bundle_texts("supervised").values())

    raw = cedarpy.is_authorized(_request(frozen), text, entities)
    assert raw.decision is cedarpy.Decision.Allow
    assert len(raw.diagnostics.errors) == 1

    answer = still_allowed(gates["supervised"], frozen)
    assert answer.answer is Answer.REFUSE
    assert answer.rules[0].rule_id == "policy-gave-no-answer"


def test_a_target_outside_the_entity_set_passes_the_engine_and_not_the_gate(
    situation: Make, operations: Mapping[str, Effect]
) -> None:
    """Trap 3: the forbid that reads an unknown target fails, is skipped, and the change passes."""
    whole_site = situation(target={"kind": "site", "id": "hall-1"})
    schema = cedarpy.Schema.from_str(schema_for(operations))
    principal_only = json.dumps(json.loads(_entities(whole_site))[:1])
    entities = cedarpy.Entities.from_json_str(principal_only, schema)

    raw = cedarpy.is_authorized(_request(whole_site), NOT_THE_SITE, entities, schema)
    assert raw.decision is cedarpy.Decision.Allow
    assert len(raw.diagnostics.errors) == 1

    answer = still_allowed(PolicyGate({"site.cedar": NOT_THE_SITE}, operations), whole_site)
    assert answer.answer is Answer.REFUSE
    assert [rule.rule_id for rule in answer.rules] == ["not-the-site"]


def _entities(situation: Situation) -> str:
    principal, target = situation.principal, situation.target
    return json.dumps(
        [
            {
                "uid": {"type": "Agent", "id": principal.id},
                "attrs": {
                    "roles": [],
                    "scopes": sorted(principal.scopes),
                    "owner": principal.owner,
                },
                "parents": [],
            },
            {
                "uid": {"type": "Target", "id": str(target)},
                "attrs": {"kind": target.kind, "id": target.id},
                "parents": [],
            },
        ]
    )


def _request(situation: Situation) -> dict[str, Any]:
    return {
        "principal": {"type": "Agent", "id": situation.principal.id},
        "action": {"type": "Action", "id": situation.operation},
        "resource": {"type": "Target", "id": str(situation.target)},
        "context": situation.facts(quorum_voted=True),
    }
