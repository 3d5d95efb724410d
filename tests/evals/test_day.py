"""Twenty minutes of a day: one event of each kind, the report, and what must hold in any day."""

import json
from pathlib import Path

import anyio
import numpy as np
import pytest

from interlock_evals.day.report import by_minute, report_of
from interlock_evals.day.run import CONTROL_DELAY_S, run_day
from interlock_evals.day.show import hours_table, promises_table, told, write_pictures
from interlock_evals.day.story import story_of
from interlock_plant.faults import FaultKind
from interlock_tools.change import ENDED
from interlock_tools.errors import InvalidRequestError

PROMISES = {
    "cut_1_reached_s",
    "budget_over_after_a_control_delay_ws",
    "slo_floor_broken_s",
    "breaker_trips",
    "ledger_verified",
    "changes_not_ended",
    "cap_moves_of_one_gpu",
    "cap_reversals_in_an_hour",
    "caps_that_could_rise_at_the_end",
    "caps_left_low_at_the_end",
}
FIGURES = {"work_kept_pct", "cap_moved_w_per_gpu", "ledger_records", "wall_s", "cut_1_drawn_w"}


async def test_a_short_day_runs_by_itself_and_accounts_for_every_event(tmp_path: Path) -> None:
    """Grid cut, pump, leak and breaker, on real wires under the guard, judged by the plant."""
    story = story_of("short")
    kinds = {fault.kind for _, fault in story.scenario.faults}
    assert kinds == {FaultKind.PUMP_LOSS, FaultKind.LEAK}
    assert len(story.scenario.grid) == 1
    assert story.scenario.loads

    with anyio.fail_after(90):
        day = await run_day(story, tmp_path, trace=None)
    report = report_of(day)
    record, event = day.record, story.scenario.grid[0][1]

    # the cut: people said yes, the site was under its limit in time and stayed there
    assert np.nanmax(record.site_w[event.begins_s : event.ends_s]) <= event.target_w
    assert report.promises["cut_1_reached_s"].held
    # afterwards caps go up in steps, as far as the small PDU allows at the hardest load
    assert report.promises["caps_that_could_rise_at_the_end"].held
    spans = {"finetune-lyra"}  # hangs on both PDUs and runs in step: capped on the other one too
    limited = 0
    for job in record.plant.jobs:
        on_small = record.plant.site.pdu_of_rack[
            record.plant.site.rack_of_gpu[list(job.gpu_indices)]
        ]
        caps_w = record.plant.gpu_cap_set_w[list(job.gpu_indices)]
        if not on_small.any() and job.job_id not in spans:
            assert caps_w.min() == 700.0
        limited += bool(on_small.any() and caps_w.min() < 700.0)
    assert limited
    # every change was asked of people, and each held; none was refused, nothing is left open
    assert sum(day.by_people.values()) == day.by_state["succeeded"] == len(day.changes)
    assert all(change.state in ENDED for change in day.changes)
    assert len(day.moved_w) == len(day.changes)
    assert report.promises["cap_moves_of_one_gpu"].held
    assert day.proof.verified, day.proof.says
    assert not day.troubles
    # each excursion was seen and answered, and the breaker that is too small never worked hard
    seen = " ".join(note.text for note in day.excursions)
    for what in ("rack-08 leaks", "pdu-2 draws", "coolant leaves rack-08"):
        assert what in seen
    assert report.promises["budget_over_after_a_control_delay_ws"].held
    assert record.heat[:, 1].max() < 0.05
    # each event left its trace in the plant
    cdu = record.supply_c[:, 0]
    assert cdu[200] > cdu[0]
    assert record.throttled_gpu_s > 0
    # what was over a budget for longer than a control delay is not kept quiet
    late = [spell for spell in record.over if spell.seconds > CONTROL_DELAY_S]
    assert report.promises["budget_over_after_a_control_delay_ws"].held == (not late)

    written = json.loads(report.write(tmp_path).read_text("utf-8"))
    assert set(written["promises"]) == PROMISES
    assert set(written["figures"]) >= FIGURES
    assert all(p["held"] or p["why_not"] for p in written["promises"].values())
    assert any("SYNTHETIC" in line for line in told(day))
    write_pictures(day, tmp_path)
    for name in ("power", "work", "breakers", "coolant"):
        assert "<polyline" in (tmp_path / f"day-short-{name}.svg").read_text("utf-8")
    assert hours_table(day).row_count == 20
    assert promises_table(report).row_count == len(PROMISES)


def test_a_day_can_be_asked_for_another_cut() -> None:
    """The share is of what the site draws; a share that is none is refused."""
    ((_, event),) = story_of("lab", 0.20).scenario.grid
    assert event.target_w == pytest.approx(348_000.0)
    ((_, asked),) = story_of("lab").scenario.grid
    assert asked.target_w == pytest.approx(326_000.0)
    dark = {fault.kind for _, fault in story_of("dark").scenario.faults}
    assert dark == {fault.kind for _, fault in story_of("lab").scenario.faults} - {
        FaultKind.NODE_DOWN
    }
    with pytest.raises(InvalidRequestError, match="share"):
        story_of("lab", 25.0)
    with pytest.raises(InvalidRequestError, match="no day"):
        story_of("monday")


def test_a_minute_in_which_nothing_is_known_stays_unknown() -> None:
    """A limit that did not hold must not be drawn as zero."""
    values = np.array([1.0] * 60 + [np.nan] * 60 + [np.nan] * 30 + [3.0] * 30)
    assert by_minute(values).tolist()[0] == 1.0
    assert np.isnan(by_minute(values)[1])
    assert by_minute(values)[2] == 3.0
