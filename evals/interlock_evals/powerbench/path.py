"""How much the caps move while the site's budget goes down and up again, one percent at a time."""

from collections.abc import Mapping

import numpy as np

from interlock_evals.instances import CurveSet, Floats
from interlock_evals.powerbench.cases import CURVES, draw
from interlock_evals.powerbench.policies import BASELINES, BOUND, OURS, Policy, planned_w
from interlock_evals.reports import Figure

DOWN = np.linspace(0.95, 0.70, 26)
BUDGET_PATH = np.concatenate((DOWN, DOWN[-2::-1]))


def oscillation(gpus: int, policies: Mapping[str, Policy] = BASELINES) -> dict[str, Figure]:
    """Mean over the steps of sum |dc| / N, watts a GPU, by policy and curve set; n is the steps.

    `least` is what the site's budget itself moves: no policy that fills it can move less.
    """
    return {
        f"oscillation_{name}_w_per_gpu_{curves}": figure
        for curves in CURVES
        for name, figure in _along(gpus, curves, policies).items()
    }


def _along(gpus: int, curves: CurveSet, policies: Mapping[str, Policy]) -> dict[str, Figure]:
    """Watts a GPU and step of each policy."""
    caps: dict[str, list[Floats]] = {}
    for ratio in BUDGET_PATH.tolist():
        case = draw("plain", gpus, 0, curves, ratio)
        caps.setdefault(OURS, []).append(planned_w(case))
        for name, policy in policies.items():
            if name != BOUND:
                caps.setdefault(name, []).append(policy(case))
        budget_w = case.seen.budget_w[case.seen.tree.root]
        caps.setdefault("least", []).append(np.array([budget_w / gpus]))
    moved = {name: np.abs(np.diff(steps, axis=0)).mean(axis=1) for name, steps in caps.items()}
    return {
        name: Figure(float(w.mean()), "W", len(w), float(np.ptp(w))) for name, w in moved.items()
    }
