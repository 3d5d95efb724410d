"""The plant against public numbers: what must come out, what does, and why where it does not.

A failing test is a bug or a wrong parameter. It is reported with its numbers and a diagnosis;
nothing is tuned until it passes.
"""

from interlock_evals.twin import grid, nodes, parts, pilot, row
from interlock_evals.twin.check import Check, Data, Finding, data_from_environment

CHECKS: tuple[Check, ...] = tuple(
    sorted(
        (*parts.CHECKS, *nodes.CHECKS, *row.CHECKS, *grid.CHECKS, *pilot.CHECKS),
        key=lambda check: check.key,
    )
)

__all__ = ["CHECKS", "Check", "Data", "Finding", "data_from_environment"]
