"""How a day is judged: what counts as declared, as to and fro, and as left low for no reason."""

from datetime import timedelta

import numpy as np
import pytest

from interlock_agents.power import Note
from interlock_evals.day.record import UNDER_A_CAP, DayRecord, Spell
from interlock_evals.day.report import (
    DECLARED_S,
    HOUR_S,
    floors_of,
    promises_of,
    reversals_in_an_hour,
)
from interlock_evals.day.rig import START
from interlock_evals.day.run import CONTROL_DELAY_S, Day
from interlock_evals.day.story import story_of
from interlock_plant.jobs import jobs_of
from interlock_plant.load import SteadyLoad
from interlock_plant.plant import Plant

SAID = "chat cannot keep its floor of 0.95 while rack-03 has no coolant: 6 of its 6 nodes"
BY_HEAT = "GPUs without power or shut off by heat, beside leak at rack-03"


def a_day() -> Day:
    """A day of the short story in which nothing was stepped."""
    story = story_of("short")
    jobs = jobs_of(story.site)
    plant = Plant(story.site, jobs, seed=0, start=START, load=SteadyLoad(jobs))
    return Day(story, False, DayRecord(plant, 10, CONTROL_DELAY_S))


def spell(began_s: int, why: str, job: str = "chat") -> Spell:
    """A minute below a floor."""
    found = Spell(job, began_s, seconds=60)
    found.whys[why] += 60
    return found


@pytest.mark.parametrize(
    ("said_s", "why", "job", "is_declared"),
    [
        (100, BY_HEAT, "chat", True),
        (300, BY_HEAT, "chat", False),
        (200 - DECLARED_S - 1, BY_HEAT, "chat", False),
        (100, f"{UNDER_A_CAP}, beside leak at rack-03", "chat", False),
        (100, BY_HEAT, "chat-large", False),
    ],
    ids=["foretold", "said after it", "said long before", "by a cap of ours", "of another job"],
)
def test_only_a_break_that_was_foretold_and_that_no_cap_made_is_declared(
    said_s: int, why: str, job: str, is_declared: bool
) -> None:
    """Everything else breaks the promise."""
    day = a_day()
    day.notes = [Note(START + timedelta(seconds=said_s), "declared", SAID)]
    day.record.floors = [spell(200, why, job)]

    assert bool(floors_of(day, declared=True)) == is_declared
    assert promises_of(day)["slo_floor_broken_s"].held == is_declared


def test_reversals_are_counted_by_domain_within_any_hour() -> None:
    """Not across domains, and not over the whole day."""
    turned = {"pdu-1": [0, HOUR_S - 1, HOUR_S, 5 * HOUR_S], "pdu-2": [10]}

    assert reversals_in_an_hour(turned) == (2, "pdu-1 from 00:00:00")
    assert reversals_in_an_hour({}) == (0, "")


def test_the_record_sees_a_domain_turn_and_no_node_that_only_makes_room() -> None:
    """Down, up and down again at one rack are two turns of the rack and of its PDU."""
    day = a_day()
    plant, record = day.record.plant, day.record
    gpus = np.flatnonzero(plant.site.rack_of_gpu == 0)
    for cap_w in (500.0, 650.0, 600.0, 550.0):
        plant.command_caps(gpus, cap_w)
        plant.step()
        record.take()

    rack, pdu = plant.site.rack_ids[0], plant.site.pdu_ids[int(plant.site.pdu_of_rack[0])]
    assert {name: len(seconds) for name, seconds in record.turned.items()} == {rack: 2, pdu: 2}


def test_a_gpu_that_no_breaker_needs_low_is_left_low_and_one_that_it_needs_is_not() -> None:
    """The small PDU cannot carry all of its GPUs at their default; the other one can."""
    day = a_day()
    plant = day.record.plant
    on_small = plant.site.pdu_of_rack[plant.site.rack_of_gpu] == plant.site.pdu_ids.index("pdu-2")
    plant.command_caps(np.flatnonzero(on_small), 480.0)
    plant.step()
    day.record.take()
    assert promises_of(day)["caps_left_low_at_the_end"].value == 0

    plant.command_caps(np.flatnonzero(on_small), 250.0)  # far lower than its rating needs
    plant.step()
    day.record.take()
    assert promises_of(day)["caps_left_low_at_the_end"].value >= on_small.sum()

    plant.command_caps(np.flatnonzero(on_small), 480.0)
    plant.command_caps(np.flatnonzero(~on_small)[:8], 480.0)  # and the rest of a job in step
    plant.step()
    assert promises_of(day)["caps_left_low_at_the_end"].value == 8
