"""What became of a request, read from what the BMS shows: five classes, and no acknowledgement.

A BMS does not answer. It applies what was asked, clamps it, ignores it, or falls back to a default
of its own; and where nothing fresh is shown, nobody knows.
"""

from enum import StrEnum
from typing import NamedTuple

SAME_C = 0.05  # a BMS may round
IGNORED_AFTER = 3  # publications without any movement


class Outcome(StrEnum):
    """What a request has come to; `PENDING` while it may still be on its way."""

    APPLIED = "applied"
    CLAMPED = "clamped"
    IGNORED = "ignored"
    FALLBACK = "fallback"
    UNKNOWN = "unknown"
    PENDING = "pending"


class Setpoint(NamedTuple):
    """What was asked of a setpoint: its target before, now, and by how many publications.

    `default_c` is what the site says that the BMS falls back to; None in `before_c` and `now_c` is
    unknown.
    """

    asked_c: float
    before_c: float | None
    now_c: float | None
    default_c: float
    publications: int


def of_setpoint(seen: Setpoint) -> Outcome:
    """What became of a setpoint.

    Target = request: applied. Moved to the default: fallback. Moved elsewhere: clamped. Not moved
    after `IGNORED_AFTER` publications: ignored.
    """
    if seen.now_c is None:
        return Outcome.UNKNOWN
    if _same(seen.now_c, seen.asked_c):
        return Outcome.APPLIED
    moved = seen.before_c is not None and not _same(seen.now_c, seen.before_c)
    if moved and _same(seen.now_c, seen.default_c):
        return Outcome.FALLBACK
    if moved:
        return Outcome.CLAMPED
    return Outcome.IGNORED if seen.publications >= IGNORED_AFTER else Outcome.PENDING


def of_state(asked: float, now: float | None, publications: int) -> Outcome:
    """What became of an isolation request: its status is a state and cannot be clamped."""
    if now is None:
        return Outcome.UNKNOWN
    if now == asked:
        return Outcome.APPLIED
    return Outcome.IGNORED if publications >= IGNORED_AFTER else Outcome.PENDING


def _same(one_c: float, other_c: float) -> bool:
    return abs(one_c - other_c) <= SAME_C
