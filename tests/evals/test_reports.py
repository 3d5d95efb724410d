"""What a report keeps: also what did not hold."""

import json
import math
from pathlib import Path

from interlock_evals.reports import Figure, Promise, Report


def test_a_promise_that_does_not_hold_stays_with_its_reason() -> None:
    """It is never dropped, and its limit is never moved."""
    missed = Promise.at_most(3.0, 2.0, "s", "the meter was late")

    assert not missed.held
    assert (missed.value, missed.limit, missed.why_not) == (3.0, 2.0, "the meter was late")


def test_a_promise_that_holds_needs_no_reason() -> None:
    """At its limit it holds."""
    assert Promise.at_least(2.0, 2.0, "s", "unused").why_not is None


def test_what_is_not_a_number_does_not_hold() -> None:
    """A measurement that failed is no success."""
    assert not Promise.at_most(math.nan, 2.0, "s").held
    assert not Promise.unmeasured(2.0, "s", "no meter").held


def test_a_report_is_written_in_the_format_that_others_read(tmp_path: Path) -> None:
    """Name, commit, moment, machine, versions, figures, promises."""
    report = Report.of(
        "demo", {"work_kept_pct": Figure(80.1, "%")}, {"breaks": Promise.at_most(0, 0, "jobs")}
    )
    written = json.loads(report.write(tmp_path).read_text("utf-8"))

    assert set(written) == {
        "name",
        "commit",
        "when",
        "machine",
        "versions",
        "figures",
        "promises",
    }
    assert written["figures"]["work_kept_pct"] == {
        "value": 80.1,
        "unit": "%",
        "n": 1,
        "spread": None,
    }
    assert written["promises"]["breaks"]["held"] is True
