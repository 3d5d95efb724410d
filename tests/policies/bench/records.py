"""Records of the ledger as the guard writes them, with the situation that was decided on."""

import json
from datetime import UTC, datetime
from typing import Any

from interlock_guardrails.ledger.records import RecordKind, draft
from interlock_policies.decide import decide
from interlock_policies.gate import PolicyGate
from interlock_policies.situation import Situation
from interlock_tools.decision import Answer, Decision, RuleHit

AT = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
CHANGE_ID = "chg-0123456789ab"


def decided_body(situation: Situation, decision: Decision) -> dict[str, Any]:
    """What the guard says of a decision."""
    return {
        "change_id": CHANGE_ID,
        "binding_digest": "0" * 64,
        "decision": decision.model_dump(mode="json"),
        "facts": [],
        "blast_radius": situation.blast_radius.model_dump(mode="json"),
        "situation": situation.model_dump(mode="json"),
    }


def recorded(body: dict[str, Any], kind: RecordKind = RecordKind.DECIDED) -> dict[str, Any]:
    """The record after it has been through the ledger's own encoding and masking."""
    found = json.loads(draft(kind, body, AT).numbered(7))
    assert isinstance(found, dict)
    return found


def decided(gate: PolicyGate, situation: Situation) -> dict[str, Any]:
    """The record of what this gate decides."""
    return recorded(decided_body(situation, decide(gate, situation)))


def refused_by_guard(rule_id: str) -> Decision:
    """A refusal of the guard itself."""
    hit = RuleHit(rule_id=rule_id, reason="health of node/node-001 is unknown: no answer")
    return Decision(answer=Answer.REFUSE, rules=(hit,), policy_version="0" * 64)
