"""From what a node shows to what it calls for, with the evidence."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from interlock_agents.remediation.catalogue import (
    CHECKS,
    UNKNOWN_CHECK,
    UNKNOWN_XID,
    XID_CHECK,
    XIDS,
    Call,
    Remedy,
)

# A condition's message is entries with `;` between them, and an entry begins with its codes.
_ENTRY: Final = re.compile(r"(?:^|;)\s*ErrorCode:(\d{1,3})\s")
_UUID: Final = re.compile(r"\bGPU_UUID:(GPU-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})")
MOST_GPUS: Final = 16
CUT: Final = "…"


@dataclass(frozen=True)
class Diagnosis:
    """What a node calls for.

    Attributes:
        evidence: why, in our words, codes and checks only.
        kinds: the codes and checks, to compare nodes by.
        gpu_ids: UUIDs that the faults name; empty where not all could be read.
        is_hot: whether one of them is heat.
    """

    node_id: str
    remedy: Remedy
    evidence: str
    kinds: frozenset[str]
    gpu_ids: tuple[str, ...]
    is_hot: bool


def diagnose(story: Mapping[str, Any]) -> Diagnosis | None:
    """What `explain_node` shows, judged; None where no fault shows."""
    faults = story.get("faults") or []
    if not faults:
        return None
    calls = [found for fault in faults for found in _calls(fault)]
    remedy = max(call.remedy for _, call in calls)
    told = dict.fromkeys(f"{kind} ({call.means})" for kind, call in calls)
    texts = [fault.get("message") or "" for fault in faults if _wants_reset(fault)]
    named = sorted({one for text in texts for one in _UUID.findall(text)})
    known = set(story.get("known_gpus") or [])
    whole = named and all(not text.endswith(CUT) for text in texts) and set(named) <= known
    return Diagnosis(
        node_id=story["node_id"],
        remedy=remedy,
        evidence=", ".join(told),
        kinds=frozenset(kind for kind, _ in calls),
        gpu_ids=tuple(named[:MOST_GPUS]) if whole else (),
        is_hot=any(call.remedy is Remedy.COOLING for _, call in calls),
    )


def _calls(fault: Mapping[str, Any]) -> Iterable[tuple[str, Call]]:
    check = fault["check"]
    if check != XID_CHECK:
        return [(check if check in CHECKS else "another check", CHECKS.get(check, UNKNOWN_CHECK))]
    codes = sorted({int(code) for code in _ENTRY.findall(fault.get("message") or "")})
    if not codes:
        return [("XID unknown", UNKNOWN_XID)]
    return [(f"XID {code}", XIDS.get(code, UNKNOWN_XID)) for code in codes]


def _wants_reset(fault: Mapping[str, Any]) -> bool:
    return any(call.remedy is Remedy.RESET for _, call in _calls(fault))
