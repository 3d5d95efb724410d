"""Small changes of raw Kubernetes objects: annotations, labels, conditions."""

from collections.abc import Iterable, Mapping
from typing import Any

Json = dict[str, Any]


def note(raw: Json, notes: Mapping[str, str]) -> None:
    """Set annotations."""
    raw["metadata"].setdefault("annotations", {}).update(notes)


def unnote(raw: Json, keys: Iterable[str]) -> None:
    """Take annotations away."""
    for key in keys:
        (raw["metadata"].get("annotations") or {}).pop(key, None)


def label(raw: Json, labels: Mapping[str, str]) -> None:
    """Set labels."""
    raw["metadata"].setdefault("labels", {}).update(labels)


def unlabel(raw: Json, keys: Iterable[str]) -> None:
    """Take labels away."""
    for key in keys:
        (raw["metadata"].get("labels") or {}).pop(key, None)


def new_condition(kind: str, status: str | bool, reason: str, now: str, message: str = "") -> Json:
    """A condition whose message is, where none is given, its type and reason."""
    return {
        "type": kind,
        "status": str(status),
        "reason": reason,
        "message": message or f"{kind}: {reason}",
        "lastTransitionTime": now,
    }


def set_condition(conditions: list[Json], new: Json) -> None:
    """Put a condition in its place; the moment of its last change stays where nothing changed."""
    for place, old in enumerate(conditions):
        if old["type"] == new["type"]:
            if old["status"] == new["status"] and "lastTransitionTime" in old:
                new = {**new, "lastTransitionTime": old["lastTransitionTime"]}
            conditions[place] = new
            return
    conditions.append(new)


def condition(conditions: Iterable[Json] | None, kind: str) -> Json | None:
    """The condition of a type, or None."""
    return next((each for each in conditions or () if each["type"] == kind), None)
