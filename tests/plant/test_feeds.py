"""Two sides carry what one loses, for as long as the survivor bears it; a UPS buys seconds."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from interlock_plant import (
    Cdu,
    Fault,
    FaultKind,
    Feed,
    Job,
    JobClass,
    Node,
    Pdu,
    Plant,
    Rack,
    SiteSpec,
    SteadyLoad,
    Ups,
)
from interlock_plant.ups import overload_s

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
SIDES = ("a", "b")
SITE = SiteSpec(
    name="pair",
    feeds=tuple(Feed(f"feed-{side}", 80_000.0) for side in SIDES),
    pdus=tuple(Pdu(f"pdu-{side}", f"feed-{side}", 80_000.0) for side in SIDES),
    cdus=(Cdu("cdu-1", 80_000.0, pdu_id="pdu-a"),),
    racks=tuple(Rack(f"rack-{n}", "pdu-a", "cdu-1", 40_000.0, "pdu-b") for n in (1, 2)),
    nodes=tuple(Node(f"node-{n + 1}", f"rack-{n // 4 + 1}") for n in range(8)),
    ups=tuple(Ups(f"ups-{side}", f"feed-{side}", 80_000.0) for side in SIDES),
)
JOBS = (Job("all", "aurora", JobClass.BATCH, tuple(range(64))),)


def plant_on(site: SiteSpec = SITE) -> Plant:
    """Eight nodes at a steady load, 62 kW."""
    return Plant(site, JOBS, seed=1, start=START, load=SteadyLoad(JOBS))


def run(plant: Plant, seconds: int) -> None:
    """Advance."""
    for _ in range(seconds):
        plant.step()


def test_a_rack_on_two_sides_shares_its_load() -> None:
    """Each side carries half, and the pumps of the CDU come on top of their own side."""
    plant = plant_on()
    run(plant, 3)
    pumps_w = float(plant.cdu_pump_w.sum())
    assert pumps_w == pytest.approx(800.0)
    rack_w = float(plant.rack_power_w.sum())
    assert plant.pdu_power_w == pytest.approx([rack_w / 2 + pumps_w, rack_w / 2])
    assert plant.site_power_w == pytest.approx(rack_w + pumps_w)


def test_losing_a_feed_moves_its_load_to_the_other_and_nobody_notices() -> None:
    """The UPS holds its side for 10 s, then the survivor carries everything; no node goes dark."""
    plant = plant_on()
    run(plant, 3)
    before_w = float(plant.rack_power_w.sum())
    plant.inject(Fault(FaultKind.FEED_LOSS, "feed-b"))
    run(plant, 2)
    assert plant.feed_power_w[1] == 0.0
    assert plant.pdu_is_lit.all()
    assert plant.pdu_power_w[1] == pytest.approx(before_w / 2, rel=0.01)
    run(plant, 40)
    assert plant.pdu_is_lit.tolist() == [True, False]
    assert plant.pdu_power_w[1] == 0.0
    assert plant.feed_power_w[0] == pytest.approx(before_w + 800.0, rel=0.01)
    assert plant.node_is_lit.all()
    assert plant.score.work_kept == 1.0
    plant.repair(FaultKind.FEED_LOSS, "feed-b")
    run(plant, 3)
    assert plant.pdu_power_w[1] == pytest.approx(before_w / 2, rel=0.01)


def test_a_survivor_that_is_too_small_trips_and_takes_everything() -> None:
    """Half of the load on each of two 45 kW breakers is fine until one of them has it all."""
    site = replace(SITE, pdus=tuple(replace(pdu, rating_w=45_000.0) for pdu in SITE.pdus), ups=())
    plant = plant_on(site)
    run(plant, 5)
    plant.inject(Fault(FaultKind.FEED_LOSS, "feed-b"))
    run(plant, 2)
    assert plant.pdu_power_w[0] > 60_000.0
    run(plant, 180)
    assert not plant.node_is_lit.any()
    assert plant.score.over_budget_s["pdu-a"] > 20


def test_pumps_stand_still_with_their_side_and_every_tray_warms() -> None:
    """One cause, many victims: the racks live on side b, their coolant died with side a."""
    plant = plant_on(replace(SITE, ups=()))
    run(plant, 5)
    before_c = plant.gpu_core_c.copy()
    plant.inject(Fault(FaultKind.FEED_LOSS, "feed-a"))
    run(plant, 60)
    assert plant.node_is_lit.all()
    assert plant.cdu_pump_w.tolist() == [0.0]
    assert plant.cdu_flow_lpm.tolist() == [0.0]
    assert (plant.gpu_core_c - before_c).min() > 5.0
    run(plant, 600)
    assert plant.gpu_is_throttled.all() or not plant.gpu_is_lit.any()


def test_both_feeds_gone_the_ups_hold_for_their_energy_and_no_longer() -> None:
    """10 s at rating: what a pre-armed emergency cap has. Half the load lasts twice as long."""
    plant = plant_on()
    run(plant, 3)
    for side in SIDES:
        plant.inject(Fault(FaultKind.FEED_LOSS, f"feed-{side}"))
    lit_s = 0
    while plant.node_is_lit.all() and lit_s < 120:
        plant.step()
        lit_s += 1
    # 800 kJ a side; side a has the pumps and is empty first, b then carries the rest alone.
    assert lit_s == pytest.approx(2 * 800_000.0 / 62_500.0, abs=3)
    assert plant.site_power_w == 0.0
    for side in SIDES:
        plant.repair(FaultKind.FEED_LOSS, f"feed-{side}")
    run(plant, 2)
    assert plant.node_is_lit.all()
    assert (plant.ups_stored_j > 0.0).all()
    charging_w = plant.site_power_w - float(plant.pdu_power_w.sum())
    assert charging_w == pytest.approx(2 * 8_000.0)


def test_a_ups_without_service_lets_its_side_fall_at_once() -> None:
    """Bypass is fine until the utility goes."""
    plant = plant_on()
    plant.inject(Fault(FaultKind.UPS_LOSS, "ups-b"))
    run(plant, 3)
    assert plant.node_is_lit.all()
    plant.inject(Fault(FaultKind.FEED_LOSS, "feed-b"))
    run(plant, 1)
    assert plant.pdu_is_lit.tolist() == [True, False]
    plant.repair(FaultKind.UPS_LOSS, "ups-b")
    run(plant, 1)
    assert plant.pdu_is_lit.all()
    assert not plant.ups_is_failed.any()


def test_the_overload_table_uses_the_low_ends() -> None:
    """125 % for 30 s, 150 % for 10 s, 200 % for ten cycles; beyond that it is gone at once."""
    shares = np.array([0.5, 1.0, 1.1, 1.25, 1.3, 1.5, 1.8, 2.0, 2.5])
    expected = [np.inf, np.inf, 30.0, 30.0, 10.0, 10.0, 0.2, 0.2, 1e-3]
    assert overload_s(shares).tolist() == expected


def test_an_overloaded_ups_goes_into_bypass_after_its_time() -> None:
    """The survivor at 130 % lasts ten seconds; after that nothing rides through any more."""
    site = replace(SITE, ups=(replace(SITE.ups[0], rating_w=48_000.0), SITE.ups[1]))
    plant = plant_on(site)
    run(plant, 60)
    assert not plant.ups_is_failed.any()
    plant.inject(Fault(FaultKind.PDU_LOSS, "pdu-b"))
    run(plant, 8)
    assert not plant.ups_is_failed.any()
    run(plant, 4)
    assert plant.ups_is_failed.tolist() == [True, False]
    assert plant.node_is_lit.all()  # the utility is still there
    plant.inject(Fault(FaultKind.FEED_LOSS, "feed-a"))
    run(plant, 1)
    assert not plant.node_is_lit.any()


def test_a_pdu_under_another_adds_to_it_and_falls_with_it() -> None:
    """A busway below a PDU has a breaker of its own and the one above."""
    site = replace(
        SITE,
        pdus=(*SITE.pdus, Pdu("busway", "feed-a", 40_000.0, under="pdu-a")),
        racks=tuple(replace(rack, pdu_id="busway", pdu_b_id=None) for rack in SITE.racks),
    )
    plant = plant_on(replace(site, pdus=(*site.pdus[:2], replace(site.pdus[2], rating_w=80_000.0))))
    run(plant, 3)
    assert plant.pdu_power_w[0] == pytest.approx(plant.pdu_power_w[2] + 800.0)
    assert plant.feed_power_w[0] == pytest.approx(plant.pdu_power_w[0])
    plant.inject(Fault(FaultKind.PDU_LOSS, "pdu-a"))
    run(plant, 1)
    assert plant.pdu_is_lit.tolist() == [False, True, False]
    assert not plant.node_is_lit.any()


def test_chassis_differ_when_the_site_says_so() -> None:
    """Seven of eight measured nodes lie within 5 %: a budget per node must know."""
    plant = plant_on(replace(SITE, chassis_spread=0.019))
    plain = plant_on()
    for each in (plant, plain):
        run(each, 2)
    ratio = plant.node_power_w / plain.node_power_w
    assert 0.005 < ratio.std() < 0.04
    assert ratio.mean() == pytest.approx(1.0, abs=0.03)
