"""The power benchmark: what it reports, and that it sees a policy that breaks what it must keep."""

import json
from pathlib import Path

import numpy as np
import pytest

from interlock_evals.powerbench.__main__ import main
from interlock_evals.powerbench.cases import Variant, draw
from interlock_evals.powerbench.policies import BASELINES
from interlock_evals.powerbench.score import compete
from interlock_evals.powerbench.verdict import CLAIMS, gain_key

SIZE = 512
BUDGETS_PCT = (95, 90, 85, 80, 75, 70)


def test_a_quick_run_reports_every_gain_and_every_promise(tmp_path: Path) -> None:
    """One small size, one seed: the whole way from sites to the file that others read."""
    assert main(["--quick", "--sizes", str(SIZE), "--seeds", "1", "--out", str(tmp_path)]) == 0

    written = json.loads((tmp_path / "powerbench-quick.json").read_text("utf-8"))
    figures, promises = written["figures"], written["promises"]
    expected = {f"gain_{name}_pct_at_{b}" for name in BASELINES for b in BUDGETS_PCT}
    assert expected <= set(figures)
    for claim in CLAIMS:
        key = gain_key(claim.variant, claim.policy, claim.budget_ratio)
        for curves in ("prior", "h200"):
            promise = promises[f"{key}_{curves}"]
            assert promise["limit"] == claim.least_pct
            assert promise["held"] or promise["why_not"], key
    assert promises["violations"] == {
        "value": 0,
        "limit": 0,
        "unit": "nodes",
        "held": True,
        "why_not": None,
    }
    assert promises["floor_breaks"]["held"]
    assert promises["gap"]["held"]
    for curves in ("prior", "h200"):  # between caps that exist and what no caps exceed
        end = f"gain_uniform_pct_at_80_{curves}_{SIZE}"
        exact, most = figures[f"exact_{end}"]["value"], figures[f"most_{end}"]["value"]
        assert exact <= figures[end]["value"] <= most < exact + 0.01
    assert {"oscillation_ours_w_per_gpu_h200", f"time_ours_{SIZE}_ms"} <= set(figures)
    assert (tmp_path / "powerbench-quick" / "rows.csv").exists()


def test_a_policy_that_caps_nobody_is_seen_above_budgets() -> None:
    """Else a count of zero would say nothing."""
    case = draw("plain", SIZE, 0, "h200", 0.80)

    ours, broken = compete(case, {"no_caps": lambda case: case.bare.hi_w})

    assert ours.over_nodes == 0
    assert broken.over_nodes > 0
    assert broken.utility == pytest.approx(1.0)


@pytest.mark.parametrize("variant", ["floors", "tenants"])
def test_a_policy_that_gives_everybody_the_least_is_seen_below_floors(variant: Variant) -> None:
    """To GPUs and to tenants alike; it keeps every budget."""
    case = draw(variant, SIZE, 0, "h200", 0.90)

    ours, broken = compete(case, {"least": lambda case: case.bare.lo_w})

    assert (ours.over_nodes, ours.missed) == (0, 0)
    assert broken.over_nodes == 0
    assert broken.missed == broken.promises > 0


def test_a_policy_that_forgets_a_weak_cooling_loop_is_seen_above_it() -> None:
    """A loop is no node of the tree and is counted like one."""
    case = draw("loops", SIZE, 0, "h200", 0.95)
    part = case.parts[0]
    weak = part.spread((part.most_w < 0.9 * part.sums(case.seen.leaves.natural_w)).astype(float))

    rows = compete(case, {"forgets": lambda case: np.where(weak > 0, case.bare.hi_w, 0.0)})

    assert [row.over_nodes > 0 for row in rows] == [False, True]


def test_floors_that_cannot_fit_are_declared_and_not_broken() -> None:
    """Prefill and decode at .95 of their work do not fit in racks that have nothing else."""
    case = draw("floors", SIZE, 0, "h200", 0.70)

    row = next(iter(compete(case, {})))

    assert row.is_declared
    assert (row.missed, row.over_nodes) == (0, 0)
    assert row.unfit_nodes > 0
