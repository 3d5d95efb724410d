"""The main story, whole: real broker, gRPC, HTTP, guard and ledger, in a part of its time."""

from pathlib import Path

import anyio

from interlock_evals.scenarios.grid_cut import Frame, Times, run_grid_cut
from interlock_tools.change import ChangeState

FASTER = 8.0
SHORT = Times(warm_up_s=12.0, notice_s=50.0, hold_s=30.0, approval_expires_s=30.0)


async def test_a_grid_cut_is_met_under_the_guard_and_proved_from_the_ledger(tmp_path: Path) -> None:
    """Every promise that the demo prints: in time, no floor, no budget, each end, verified."""
    frames: list[Frame] = []
    with anyio.fail_after(90):
        outcome = await run_grid_cut(tmp_path, rate=FASTER, times=SHORT, watch=frames.append)

    assert outcome.reached_s is not None
    assert outcome.reached_s <= SHORT.notice_s
    assert outcome.floor_breaks == {}
    assert outcome.over_budget_s == {}
    assert outcome.restored
    assert 0.6 < outcome.work_kept < 1.0
    assert outcome.proof.verified, outcome.proof.says
    ends = {(change.requester.id, change.operation, change.state) for change in outcome.changes}
    assert ends == {
        ("agent:power", "maxlps.set_caps", ChangeState.SUCCEEDED),
        ("agent:power", "maxlps.release_caps", ChangeState.SUCCEEDED),
        ("agent:tuner", "maxlps.set_caps", ChangeState.REFUSED),
        ("agent:tuner", "maxlps.set_caps", ChangeState.EXPIRED),
    }
    assert {frame.phase for frame in frames} == {"steady", "notice", "hold", "restore"}
