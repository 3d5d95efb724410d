"""Whether what a node says can be so: against itself, against what it said before, and physics.

Pure functions. A node that contradicts itself is named with the contradiction; nothing is repaired.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from interlock_servers.devices.models import GpuReading, known
from interlock_servers.devices.node_models import NodeAnswer

MOST_DRAW = 1.6  # of the greatest limit; transients pass it by some tenths, for milliseconds
POWER_RATIO = 2.0  # between the mean from the energy counter and the power that is shown
POWER_SLACK_W = 100.0
LEAST_SPAN_S = 0.5  # between two readings, for a mean from energy
STRIKES: Final = 2  # looks in a row: one swing between two samples is no lie


@dataclass(frozen=True, slots=True)
class Seen:
    """What is remembered of a node between two answers: the last, and odd means of power."""

    answer: NodeAnswer
    strikes: Mapping[str, int]


def contradiction(answer: NodeAnswer, node_id: str) -> str | None:
    """What is wrong within one answer, or None."""
    if answer.node_id != node_id:
        return f"it says that it is {answer.node_id!r}"
    if answer.age_s is not None and answer.age_s < 0:
        return f"its readings are from {-answer.age_s:.1f} s ahead"
    keys = [gpu.identity.key for gpu in answer.gpus]
    if len(set(keys)) != len(keys):
        return "two of its GPUs have one identity"
    for gpu in answer.gpus:
        if (why := _impossible(gpu)) is not None:
            return f"GPU {gpu.identity.index}: {why}"
    return None


def contradiction_with_before(answer: NodeAnswer, seen: Seen) -> str | None:
    """What is wrong against an earlier answer of the same start of the agent, or None."""
    before = seen.answer
    if answer.boot_id != before.boot_id:
        return None
    if answer.sequence < before.sequence:
        return f"look {answer.sequence} came after look {before.sequence}: an old answer again"
    if answer.sequence == before.sequence and answer.gpus and before.gpus:
        moved = [gpu.identity.index for gpu, was in _pairs(answer, before) if _moved(gpu, was)]
        if moved:
            return f"GPU {moved[0]} changed without a new look"
    return None


def strikes_against(answer: NodeAnswer, seen: Seen | None) -> dict[str, int]:
    """For how many looks in a row each GPU's energy counter has told another power than it shows.

    An energy counter is the other witness within one device: whoever shows a quarter of the draw
    mostly forgets to count a quarter of the joules.
    """
    if seen is None or answer.boot_id != seen.answer.boot_id:
        return {}
    if answer.sequence == seen.answer.sequence:
        return dict(seen.strikes)
    found = {}
    for gpu, was in _pairs(answer, seen.answer):
        if disagreement(gpu, was) is not None:
            found[gpu.identity.key] = seen.strikes.get(gpu.identity.key, 0) + 1
    return found


def disagreement(now: GpuReading, was: GpuReading) -> str | None:
    """How the energy counter contradicts the power shown between two readings, or None."""
    span_s = (now.observed_at - was.observed_at).total_seconds()
    joules, before_j = known(now.energy_j), known(was.energy_j)
    shown = [w for r in (now, was) if (w := known(r.power_w)) is not None]
    if joules is None or before_j is None or len(shown) < 2 or span_s < LEAST_SPAN_S:
        return None
    if joules < before_j:
        return None  # the driver was loaded anew
    mean_w = (joules - before_j) / span_s
    too_much = mean_w > POWER_RATIO * max(shown) + POWER_SLACK_W
    too_little = min(shown) > POWER_RATIO * mean_w + POWER_SLACK_W
    if not (too_much or too_little):
        return None
    return (
        f"its energy counter says {mean_w:.0f} W over {span_s:.1f} s, its power "
        f"{min(shown):.0f} to {max(shown):.0f} W"
    )


def _impossible(gpu: GpuReading) -> str | None:
    least_w, most_w = known(gpu.limits.min_w), known(gpu.limits.max_w)
    if least_w is not None and most_w is not None and not 0 < least_w <= most_w:
        return f"its limits go from {least_w:g} to {most_w:g} W"
    for name in ("now_w", "default_w", "enforced_w", "requested_w"):
        watts = known(getattr(gpu.limits, name))
        if watts is None:
            continue
        if watts <= 0 or (most_w is not None and name != "requested_w" and watts > most_w + 1):
            return f"its limit {name} is {watts:g} W"
    for watts in (known(gpu.power_average_w), known(gpu.power_instant_w)):
        if watts is None:
            continue
        if watts < 0 or (most_w is not None and watts > MOST_DRAW * most_w):
            return f"it draws {watts:g} W"
    joules = known(gpu.energy_j)
    if joules is not None and joules < 0:
        return f"it has used {joules:g} J"
    return None


def _pairs(answer: NodeAnswer, before: NodeAnswer) -> list[tuple[GpuReading, GpuReading]]:
    was = {gpu.identity.key: gpu for gpu in before.gpus}
    return [(gpu, was[gpu.identity.key]) for gpu in answer.gpus if gpu.identity.key in was]


def _moved(now: GpuReading, was: GpuReading) -> bool:
    return (now.energy_j, now.power_average_w, now.limits) != (
        was.energy_j,
        was.power_average_w,
        was.limits,
    )
