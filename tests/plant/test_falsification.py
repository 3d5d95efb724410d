"""The plant against public numbers. A failure is a bug or a wrong parameter: say so, do not tune.

The tests are those of the falsification list of the power model; the long ones run in `make twin`.
Public data are found through `INTERLOCK_DATA`; without them the tests that need them skip. A test
that is known to fail is expected to, with its diagnosis: if it ever holds, that is a failure too.
"""

from pathlib import Path

import numpy as np
import pytest

from interlock_evals.twin import CHECKS, Check, Data, data_from_environment
from interlock_evals.twin.row import CLOCKS, Row, power_left, run
from interlock_plant.arrays import Floats
from interlock_tools.errors import InvalidRequestError
from interlock_tools.svg import Picture, as_svg

SHORT = [check for check in CHECKS if not check.is_long]


def marked(check: Check) -> object:
    """The check as a parameter; expected to fail where its failure is on record."""
    marks = [pytest.mark.xfail(strict=True, reason=check.why_not)] if check.why_not else []
    return pytest.param(check, marks=marks, id=check.key)


@pytest.mark.parametrize("check", [marked(check) for check in SHORT])
def test_the_plant_agrees_with_a_public_number(check: Check) -> None:
    """The number, its bounds and the reason of a failure stand with the check."""
    data = data_from_environment()
    if data is None:
        if check.needs_data:
            pytest.skip("INTERLOCK_DATA does not name the folder of public data")
        data = Data(Path())
    finding = check.run(data)
    assert finding.held, f"{check.what}: {finding.got}, expected {check.expected}"


def test_every_number_of_the_list_has_a_test() -> None:
    """Twelve were agreed; leaving one out quietly would be the cheapest way to pass."""
    assert {check.key[:2] for check in CHECKS} == {f"{number:02d}" for number in range(1, 13)}
    assert len({check.key for check in CHECKS}) == len(CHECKS)


def row(low_w: Floats, high_w: Floats) -> Row:
    """A row with a budget of 1,000 W and no hosts."""
    return Row(low_w, high_w, 0.0, 1000.0)


def test_the_row_policy_caps_low_priority_first_and_brakes_only_over_budget() -> None:
    """The rule of the long test, on loads that can be checked by hand."""
    calm = run(row(np.full(200, 380.0), np.full(200, 380.0)), with_policy=True)
    assert calm == (0, 0.0, 0.0, 0.76, 0.0)
    busy = run(row(np.full(400, 430.0), np.full(400, 430.0)), with_policy=True)
    assert busy.brakes == 0
    assert busy.high_loss == 0.0
    assert busy.low_loss > 0.5 * (1.0 - CLOCKS["low-1"])
    over = run(row(np.full(400, 520.0), np.full(400, 520.0)), with_policy=True)
    assert over.brakes >= 1
    assert power_left(1.0) == 1.0
    assert 0.8 < power_left(CLOCKS["low-1"]) < CLOCKS["low-1"]


def test_a_missing_file_is_named() -> None:
    """Half of a data folder is worse than none."""
    with pytest.raises(InvalidRequestError, match=r"power/none\.csv"):
        Data(Path("/nowhere")).rows("none.csv")
    with pytest.raises(InvalidRequestError, match=r"power/none\.csv"):
        Data(Path("/nowhere")).text("none.csv")


def test_a_picture_is_an_svg_with_every_line_in_it() -> None:
    """No plotting library is needed to see where a curve leaves the points."""
    x = np.arange(4.0)
    svg = as_svg(Picture("a < b", "s", "W", {"flat": (x, np.ones(4)), "plant": (x, x)}))
    assert svg.startswith("<svg")
    assert svg.count("<polyline") == 2
    assert "a &lt; b" in svg
    assert "nan" not in svg
