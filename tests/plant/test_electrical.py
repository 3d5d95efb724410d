"""Power adds up along the tree, and breakers trip when and as late as real ones do."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from interlock_plant import Plant, SteadyLoad, SyntheticLoad, lab_jobs, lab_site
from interlock_tools.errors import InvalidRequestError

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
LAB = lab_site()
JOBS = lab_jobs(LAB)


def overloaded(ratio: float) -> Plant:
    """The lab at a steady load that is `ratio` times the rating of `pdu-1`."""
    steady = Plant(LAB, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))
    rating_w = float(steady.pdu_power_w[0]) / ratio
    site = replace(LAB, pdus=(replace(LAB.pdus[0], rating_w=rating_w), LAB.pdus[1]))
    return Plant(site, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))


def seconds_to_trip(plant: Plant, limit_s: int) -> int:
    """Seconds until the breaker of `pdu-1` opens; `limit_s` if it does not."""
    for second in range(limit_s):
        if not plant.pdu_breaker_is_closed[0]:
            return second
        plant.step()
    return limit_s


def test_every_parent_is_the_sum_of_its_children() -> None:
    """Energy that appears or vanishes between two meters would make every budget meaningless."""
    plant = Plant(LAB, JOBS, seed=1, start=START, load=SyntheticLoad(JOBS, seed=1))
    plant.command_caps(np.arange(200), 450.0)
    energy_j = 0.0
    for _ in range(30):
        plant.step()
        energy_j += plant.site_power_w
        node_w = 1600.0 + 1.22 * plant.gpu_power_w.reshape(64, 8).sum(axis=1)
        assert plant.node_power_w == pytest.approx(node_w)
        assert plant.rack_power_w == pytest.approx(node_w.reshape(8, 8).sum(axis=1))
        assert plant.pdu_power_w == pytest.approx(plant.rack_power_w.reshape(2, 4).sum(axis=1))
        assert plant.feed_power_w == pytest.approx(plant.pdu_power_w)
        assert plant.site_power_w == pytest.approx(plant.feed_power_w.sum())
    assert plant.score.energy_j == pytest.approx(energy_j)
    host_j = 30 * 64 * 1600.0
    assert plant.score.energy_j == pytest.approx(host_j + 1.22 * plant.gpu_energy_j.sum())


def test_a_breaker_at_110_percent_trips_after_17_minutes() -> None:
    """That time is what a curtailment has; twice too long in the plant is a fire outside."""
    assert seconds_to_trip(overloaded(1.10), 1800) / 60.0 == pytest.approx(17.0, abs=2.0)


def test_a_breaker_at_140_percent_trips_within_two_minutes() -> None:
    """Nobody approves anything in a minute: this must be prevented, not repaired."""
    assert 20 < seconds_to_trip(overloaded(1.40), 300) < 120


def test_a_breaker_at_105_percent_does_not_trip() -> None:
    """Below 1.08 of the rating it is only over budget, and the score says so."""
    plant = overloaded(1.05)
    assert seconds_to_trip(plant, 1800) == 1800
    assert plant.score.over_budget_s == {"pdu-1": 1800}


def test_a_tripped_breaker_takes_its_nodes_dark_and_no_others() -> None:
    """The blast radius of a trip is the PDU: 32 nodes, and every gang that has one of them."""
    plant = overloaded(1.40)
    seconds_to_trip(plant, 300)
    plant.step()
    assert not plant.node_is_lit[:32].any()
    assert plant.node_is_lit[32:].all()
    assert plant.pdu_power_w[0] == 0.0
    assert plant.pdu_power_w[1] > 200_000.0
    assert (plant.gpu_power_w[:256] == 0.0).all()
    assert plant.job_work[0] == 0.0


def test_closing_a_breaker_brings_nodes_back_without_their_caps() -> None:
    """Caps do not survive a loss of power: the load comes back whole, and may trip again."""
    plant = overloaded(1.40)
    plant.command_caps(np.arange(512), 650.0)
    seconds_to_trip(plant, 300)
    plant.command_caps(np.arange(512), 400.0)
    for _ in range(60):
        plant.step()
    assert (plant.gpu_cap_set_w[:256] == 700.0).all()
    assert (plant.gpu_cap_set_w[256:] == 400.0).all()
    plant.close_breaker("pdu-1")
    plant.step()
    assert plant.node_is_lit.all()
    assert plant.pdu_power_w[0] > 150_000.0
    assert seconds_to_trip(plant, 300) < 30  # it was still hot


def test_a_feed_trips_too() -> None:
    """Every PDU may be within its rating while the feed above them is not."""
    steady = Plant(LAB, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))
    weak = replace(LAB.feeds[0], rating_w=float(steady.feed_power_w[0]) / 1.5)
    site = replace(LAB, feeds=(weak, LAB.feeds[1]))
    plant = Plant(site, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))
    for _ in range(60):
        plant.step()
    assert plant.feed_breaker_is_closed.tolist() == [False, True]
    assert plant.pdu_breaker_is_closed.all()
    assert not plant.node_is_lit[:32].any()


def test_an_unknown_breaker_is_refused() -> None:
    """A rack has no breaker of its own."""
    plant = Plant(LAB, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))
    with pytest.raises(InvalidRequestError, match="rack-01"):
        plant.close_breaker("rack-01")
