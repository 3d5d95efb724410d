"""The second story, whole: embedded API server, NVSentinel's twin, HTTP, guard and ledger."""

from pathlib import Path

import anyio

from interlock_evals.scenarios.xid_storm import (
    BY_HAND,
    CRIES_WOLF,
    GIVES_ORDERS,
    OFFENDER,
    Frame,
    run_xid_storm,
)

FASTER = 14.0


async def test_what_is_ill_comes_back_and_nothing_else_is_touched(tmp_path: Path) -> None:
    """Each promise that the demo prints, and which node each change was about."""
    frames: list[Frame] = []
    with anyio.fail_after(120):
        storm = await run_xid_storm(tmp_path, rate=FASTER, watch=frames.append)

    assert set(storm.in_service) == set(storm.fell_ill)
    assert storm.first_proposal_s is not None
    assert storm.unauthorised == []
    assert storm.floors_broken == set()
    assert storm.gangs_broken == set()
    assert storm.most_out <= storm.allowed_out
    assert storm.proof.verified, storm.proof.says

    about = {change.target.id for change in storm.changes}
    assert about == {*storm.fell_ill, OFFENDER}
    assert about.isdisjoint(storm.hot_nodes | {BY_HAND, CRIES_WOLF, GIVES_ORDERS})
    assert len(storm.hot_nodes) == 16
    assert storm.incidents == 1
    assert storm.offender_repairs == 2
    assert storm.tickets == 1
    assert storm.left_cordoned

    acts = [(change.target.id, change.operation.split(".")[1]) for change in storm.changes]
    for node in storm.fell_ill:
        assert acts.count((node, "terminate_node")) == 0
    done = [
        (change.operation.split(".")[1], change.created_at)
        for change in storm.changes
        if change.target.id == "node-002" and change.state == "succeeded"
    ]
    assert [name for name, _ in sorted(done, key=lambda each: each[1])] == [
        "request_maintenance",
        "reset_gpus",
        "end_maintenance",
    ]
    assert any(frame.out for frame in frames)
    assert frames[-1].out == (OFFENDER,)
