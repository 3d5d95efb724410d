"""What the worker writes down: which record a state makes, and evidence that a record can hold."""

from typing import Any

from interlock_guardrails.ledger.records import RecordKind
from interlock_tools.canonical import canonical
from interlock_tools.change import ChangeState
from interlock_tools.errors import InvalidRequestError

SHOWN_CHARS = 2000

S = ChangeState

# How a change that has acted, and whose operation is gone, comes to a person.
GIVEN_UP: dict[ChangeState, tuple[ChangeState, ...]] = {
    S.UNKNOWN: (S.STUCK,),
    S.VERIFYING: (S.FAILED, S.COMPENSATING, S.STUCK),
    S.COMPENSATING: (S.STUCK,),
}

RECORD_OF: dict[ChangeState, RecordKind] = {
    S.REFUSED: RecordKind.REFUSED,
    S.EXPIRED: RecordKind.REFUSED,
    S.SUPERSEDED: RecordKind.REFUSED,
    S.VERIFYING: RecordKind.OUTCOME,
    S.UNKNOWN: RecordKind.OUTCOME,
    S.FAILED: RecordKind.OUTCOME,
    S.STUCK: RecordKind.OUTCOME,
    S.SUCCEEDED: RecordKind.VERIFIED,
    S.COMPENSATING: RecordKind.COMPENSATED,
    S.COMPENSATED: RecordKind.COMPENSATED,
}


def writable(evidence: dict[str, Any]) -> dict[str, Any]:
    """The evidence as the ledger takes it; what JSON cannot hold stands there as text.

    Otherwise an odd answer would keep a change from its end.
    """
    out: dict[str, Any] = {}
    for key, value in evidence.items():
        try:
            canonical({key: value})
            out[key] = value
        except InvalidRequestError:
            out[key] = {"not_json": repr(value)[:SHOWN_CHARS]}
    return out
