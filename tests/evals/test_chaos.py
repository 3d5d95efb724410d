"""Killed anywhere, it acts once; and the judge of that sees what it is there to see."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interlock_evals.chaos.__main__ import NONE_OF, report_of
from interlock_evals.chaos.checks import Found
from interlock_evals.chaos.plant import START_PCT, Act
from interlock_evals.chaos.processes import House
from interlock_evals.chaos.runs import Ground, ground_of
from interlock_evals.chaos.scenario import POINTS, Scenario, race_of, scenario_of
from tests.guardrails.stores import require_postgres

SEED = 2026
KILLS = {"sqlite": 40, "postgresql": 10}
WITHIN_S = 240.0

TAKE_OVER = """
import json, sys
from interlock_evals.chaos.runs import ground_of, run_one
from interlock_evals.chaos.scenario import Ask, Kill, Move, Scenario
ask = Ask((Move("valve-1", 40),), approved=True)
kill = Kill(sys.argv[2])
scenario = Scenario(1, 0, (ask,), {}, (kill,), standby=True, voted_first=True)
with ground_of(sys.argv[1]) as ground:
    found = run_one(ground, scenario)
print(json.dumps([found.kills, found.acts, dict(found.states), found.wrong]))
"""


@pytest.fixture(params=list(KILLS))
def store(request: pytest.FixtureRequest) -> str:
    """Which store."""
    if request.param == "postgresql":
        require_postgres()
    return str(request.param)


def python(folder: Path, *arguments: str) -> str:
    """What a fresh process says: only one without threads may be forked."""
    done = subprocess.run(  # noqa: S603 - our own interpreter, our own words
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_killed_at_any_point_nothing_is_done_twice_or_without_its_intent(
    store: str, tmp_path: Path
) -> None:
    """Each process is killed and another brings every change to its end; and 64 reach for one."""
    kills = str(KILLS[store])
    options = ["--kills", kills, "--races", "1", "--seed", str(SEED), "--store", store]
    python(tmp_path, "-m", "interlock_evals.chaos", *options)

    report: dict[str, Any] = json.loads((tmp_path / "reports/chaos.json").read_text("utf-8"))
    promises = report["promises"]
    assert set(promises) == {f"{key}_{store}" for key in ("kills", *NONE_OF)}
    assert all(promise["held"] for promise in promises.values()), promises
    assert report["figures"][f"{store}_acts"]["value"] > 0


@pytest.mark.parametrize(
    ("point", "ends"),
    [("before_act", "failed"), ("inside_act", "succeeded")],
)
def test_whoever_stands_by_takes_over_from_a_process_that_is_killed(
    store: str, point: str, ends: str, tmp_path: Path
) -> None:
    """It asks the plant: what was not sent is called failed, what was sent is verified."""
    kills, acts, states, wrong = json.loads(python(tmp_path, "-c", TAKE_OVER, store, point))

    assert (kills, states, wrong) == (1, {ends: 1}, [])
    assert acts == (point == "inside_act")


def test_a_scenario_follows_from_its_seed_and_number() -> None:
    """So what went wrong can be run again; and no point is left out."""
    assert scenario_of(SEED, 7) == scenario_of(SEED, 7)
    assert scenario_of(SEED, 7) != scenario_of(SEED + 1, 7)
    kills = [kill for number in range(50) for kill in scenario_of(SEED, number).kills]
    assert {kill.point for kill in kills} == set(POINTS)


@pytest.fixture
def judged() -> Iterator[tuple[Ground, House, Scenario]]:
    """An empty store and plant, where nothing was asked for."""
    scenario = race_of(SEED, 0)
    with ground_of("sqlite") as ground:
        yield ground, ground.house(scenario), scenario


def test_the_judge_sees_an_act_that_nobody_approved_announced_or_did_once(
    judged: tuple[Ground, House, Scenario],
) -> None:
    """An act stands in the plant, and the store knows nothing of it."""
    ground, house, _ = judged
    for _ in range(2):
        house.valves.write(Act("act", "chg-1", "valve-1", START_PCT + 10, flow_follows=True))
    found = ground.look(house)

    assert found.double_executions == 1
    assert found.acts_without_intent == 1
    assert found.acts_without_approval == 1
    assert found.ledgers_broken == 1  # it is empty, and nobody signed that


def test_a_store_that_was_not_tried_promises_nothing() -> None:
    """Its promises are in the report, not held, with the reason; those of the other are judged."""
    wrong = Found(kills=3, double_executions=1, wrong=["run 1/2: done twice"])
    report = report_of({"sqlite": wrong}, {"postgresql": "no server"}, 3)

    assert report.promises["kills_sqlite"].held
    assert not report.promises["double_executions_sqlite"].held
    assert report.promises["double_executions_sqlite"].why_not == "run 1/2: done twice"
    assert report.promises["approvals_reused_sqlite"].held
    assert not report.promises["kills_postgresql"].held
    assert report.promises["kills_postgresql"].why_not == "no server"
