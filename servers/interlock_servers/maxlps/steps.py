"""Raising caps in steps: whole jobs at a time, so much that a breaker bears an error of the step.

Lowering needs no steps; it is always the safe direction.
"""

import math
from typing import Final

from interlock_servers.maxlps.picture import Caps, Picture

# Of a domain's budget. On a full domain whose estimates are all wrong a step then makes 1.20 of the
# rating, where a breaker opens after 170 s (power model, section 6): a raise that its meters do not
# confirm is taken back after 130 s.
RISE: Final = 0.20


def first_step(picture: Picture, caps: Caps) -> tuple[dict[str, int], int]:
    """The caps of the first step, and how many steps are left after it.

    Work with a promise comes first. One job alone may rise by more than a step: half of a job that
    runs in step would gain nothing.
    """
    budget_w = {domain.name: domain.budget_w for domain in picture.domains}
    jobs: dict[str, list[str]] = {}
    for node_id in caps:
        group = picture.nodes[node_id].group
        jobs.setdefault(node_id if group is None else group.name, []).append(node_id)

    def urgency(name: str) -> tuple[float, str]:
        group = picture.nodes[jobs[name][0]].group
        return (0.0 if group is None else -(group.slo_floor or 0.0), name)

    steps: list[list[str]] = []
    used_w: dict[str, float] = {}
    for name in sorted(jobs, key=urgency):
        rise_w = _rise_w(picture, caps, jobs[name])
        fits = all(
            used_w.get(domain, 0.0) + watts <= RISE * budget_w[domain]
            for domain, watts in rise_w.items()
            if math.isfinite(budget_w[domain])
        )
        if not steps or not fits:
            steps.append([])
            used_w = {}
        steps[-1] += jobs[name]
        for domain, watts in rise_w.items():
            used_w[domain] = used_w.get(domain, 0.0) + watts
    if not steps:
        return {}, 0
    return {node_id: caps[node_id] for node_id in steps[0]}, len(steps) - 1


def _rise_w(picture: Picture, caps: Caps, node_ids: list[str]) -> dict[str, float]:
    """By how much each domain above these nodes may rise at the meter."""
    rise_w: dict[str, float] = {}
    for node_id in node_ids:
        view = picture.nodes[node_id]
        watts = view.meter_w(caps[node_id]) - view.meter_now_w(view.limits[0])
        for domain in view.path:
            rise_w[domain] = rise_w.get(domain, 0.0) + max(watts, 0.0)
    return rise_w
