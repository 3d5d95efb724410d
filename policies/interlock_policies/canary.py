"""Canaries: for each forbid a request that it must stop, made from one that nothing stops."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from interlock_policies.rules import BundleError, Rule
from interlock_policies.situation import Situation, merged
from interlock_tools.operation import Effect

# A small site where nothing is wrong: one host of ten, in a window, nothing else open.
_ORDINARY: dict[str, Any] = {
    "principal": {
        "id": "canary",
        "kind": "agent",
        "authenticated_by": "canary",
        "scopes": ["interlock:read", "interlock:propose"],
        "owner": "person:canary",
    },
    "effect": Effect.REVERSIBLE,
    "target": {"kind": "node", "id": "node-1"},
    "site": "canary",
    "blast_radius": {"gpus": 1, "hosts": ["node-1"], "watts_moved": 100},
    "open_reach": {},
    "site_gpus": 100,
    "site_hosts": 10,
    "overlaps_open": False,
    "frozen": False,
    "in_window": True,
    "changes_last_hour": 0,
    "agent_budget_spent_permille": 0,
    "claims_unconfirmed": [],
}


def canary_for(rule: Rule, operations: Mapping[str, Effect]) -> Situation:
    """The ordinary request, changed by what the rule's `@canary` says.

    A canary that names no `operation` uses the reserved one of its `effect`.

    Raises:
        BundleError: the `@canary` describes no situation that could exist.
    """
    request = merged(_ORDINARY, rule.canary or {})
    operation = request.setdefault("operation", f"canary.{request['effect']}")
    request["effect"] = operations.get(operation, request["effect"])
    try:
        return Situation.model_validate(request)
    except ValidationError as error:
        raise BundleError(
            f"{rule.file}: {rule.rule_id}: @canary is no situation: {error}"
        ) from error
