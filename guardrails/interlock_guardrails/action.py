"""The canonical action: what exactly is asked for, strictly typed, and the digest that names it."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from interlock_policies.situation import Situation
from interlock_tools.canonical import canonical, digest
from interlock_tools.change import Change
from interlock_tools.errors import InvalidRequestError
from interlock_tools.identity import Principal, Target
from interlock_tools.operation import Arguments, Operation


def parse(operation: Operation[Any], arguments: Mapping[str, Any]) -> Arguments:
    """The operation's own arguments, strictly typed.

    Raises:
        InvalidRequestError: names every argument that is wrong, unknown or missing, and why.
    """
    try:
        parsed = operation.arguments.model_validate_json(canonical(arguments))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'arguments'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)[:8]
        )
        raise InvalidRequestError(f"{operation.name}: {wrong}") from None
    if not isinstance(parsed, Arguments):
        raise TypeError(f"{operation.name} declares arguments that are not Arguments")
    return parsed


def digest_of_action(
    operation: str, target: Target, arguments: Mapping[str, Any], requester: Principal, reason: str
) -> str:
    """The canonical action: the same words of the same principal give the same digest."""
    return digest(
        {
            "operation": operation,
            "target": str(target),
            "arguments": dict(arguments),
            "requester": requester.id,
            "on_behalf_of": requester.on_behalf_of,
            "reason": reason,
        }
    )


def summary(change: Change) -> dict[str, Any]:
    """What the ledger says of a request: everything but the facts' values."""
    return {
        "change_id": change.change_id,
        "operation": change.operation,
        "effect": change.effect.value,
        "target": str(change.target),
        "arguments": change.arguments,
        "requester": change.requester.model_dump(mode="json"),
        "reason": change.reason,
        "dry_run": change.dry_run,
        "action_digest": change.action_digest,
    }


def decided(change: Change, situation: Situation | None) -> dict[str, Any]:
    """What the ledger says of a decision, so that another policy can be asked the same later."""
    return {
        "change_id": change.change_id,
        "binding_digest": change.binding_digest,
        "decision": None if change.decision is None else change.decision.model_dump(mode="json"),
        "facts": [fact.model_dump(mode="json", exclude={"value"}) for fact in change.facts],
        "blast_radius": None
        if change.blast_radius is None
        else change.blast_radius.model_dump(mode="json"),
        "situation": None if situation is None else situation.model_dump(mode="json"),
    }
