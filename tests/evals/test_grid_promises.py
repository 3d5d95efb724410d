"""What the grid may rely on, in short: in time, floors kept, and honest where it cannot be."""

import json
from functools import partial
from pathlib import Path

import anyio
import pytest

from interlock_evals.scenarios.grid_promises import (
    CASES,
    CONTRADICTION,
    LONDON,
    SETTLED,
    Case,
    outcome_of,
    run_case,
    steady_w,
)
from interlock_evals.scenarios.grid_settlement import keep_site
from tests.console.test_cli import interlock

SHORT_S = 150


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_cut_is_reached_or_honestly_not_and_no_floor_breaks(
    case: Case, tmp_path: Path
) -> None:
    """A third less in half a minute; a quarter less by caps, by caps and pauses, or not at all."""
    with anyio.fail_after(90):
        day = await run_case(case, tmp_path, hold_s=SHORT_S)
    figures, promises = outcome_of(case, day)

    assert {key: promise.held for key, promise in promises.items()} == dict.fromkeys(promises, True)
    if case is LONDON:
        assert figures["london_over_s"].value == 0
    if case is CONTRADICTION:  # the stricter counts while both hold, then the other one again
        ((_, other),) = day.story.others
        event, _ = day.sent[0]
        between_w = day.record.site_w[other.ends_s + 30 : event.ends_s]
        assert other.target_w < event.target_w
        assert between_w.max() > other.target_w
    if not case.feasible:
        assert any("partial" in change.reason for change in day.changes)
    # down, and once the event is over up; never to and fro within an event
    assert day.record.turns.max() <= 1
    if case.name == SETTLED:
        kept = keep_site(day, tmp_path / "site", steady_w(case), tmp_path / "kept", interval_s=60)
        out = tmp_path / "out"
        status, said = await anyio.to_thread.run_sync(
            partial(interlock, "settlement", "--config", kept, "--method", "10-of-10", "--out", out)
        )
        assert status == 0, said
        whole = json.loads((out / "settlement.json").read_text())
        assert whole["event_id"] == day.sent[0][1]
        assert whole["method"] == "10-of-10"
        assert len(whole["baseline_days"]) == 10
        assert whole["totals"]["intervals_settled"] == whole["totals"]["intervals"] >= 1
        drawn_w = day.record.site_w[120:180].mean()  # its first whole minute
        first = (out / "settlement.csv").read_text().splitlines()[1].split(",")
        assert float(first[1]) == pytest.approx(steady_w(case), rel=0.001)
        assert float(first[3]) == pytest.approx(drawn_w, abs=0.1)
        assert (out / "settlement.svg").read_text().startswith("<svg")
