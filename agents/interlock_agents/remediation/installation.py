"""What of NVSentinel acts by itself, and when a node is its own to bring back."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

GRACE_S: Final = 10.0  # from a fault to the cordon; 1.8 s on upstream's test cluster
ACTING: Final = frozenset({"remediation", "quarantine_without_remediation"})
# What of `list_stuck` says that NVSentinel goes no further with a node.
STUCK: Final = frozenset(
    {"no_action", "drain_failed", "remediation_failed", "reset_failed", "request_failed"}
)
_FAULTS: Final = "isFatal"  # what every rule about faults asks, and the one about maintenance not


def acts_on_faults(status: Mapping[str, Any], rules: Iterable[Mapping[str, Any]]) -> bool:
    """Whether NVSentinel takes faulty nodes out by itself; with rules for maintenance alone not."""
    if status["mode"] not in ACTING or status.get("dry_run") is True:
        return False
    return any(
        rule.get("enabled") is not False
        and (rule.get("cordons") or rule.get("taint"))
        and any(_FAULTS in text for text in rule.get("match") or [])
        for rule in rules
    )


def why_wait(status: Mapping[str, Any], rows: Mapping[str, Any]) -> str | None:
    """Why nothing may be proposed at all; None where it may."""
    for said in (rows, status):
        if said.get("stale_since"):
            return f"the cluster is not heard since {said['stale_since']}"
        if said.get("unknown"):
            return f"not everything is known: {said['unknown']}"
    if status["breaker"] == "tripped":
        return "the circuit breaker is tripped: no node goes out or comes back; people reset it"
    if status["mode"] in {"unknown", "not_installed"}:
        return f"NVSentinel is {status['mode']}: {status.get('why') or 'no reason is told'}"
    return None


def left_alone(row: Mapping[str, Any]) -> str | None:
    """Whose the node is, where it is somebody else's; None where it is not."""
    if str(row.get("cordoned_by") or "").startswith("somebody_else"):
        return "somebody else has cordoned it: it is left alone"
    if row.get("opted_out"):
        return "a label keeps NVSentinel off it: it is left alone"
    if row["stage"] == "released-to-external-repair":
        return "an external repair has it"
    return None


def is_at_work(row: Mapping[str, Any], story: Mapping[str, Any], seen_for_s: float) -> bool:
    """Whether NVSentinel, which acts by itself here, is still to bring this node back."""
    if any(str(one).partition(":")[0] in STUCK for one in story.get("stuck") or []):
        return False
    return row["stage"] != "faulty" or seen_for_s < GRACE_S
