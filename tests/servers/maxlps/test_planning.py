"""Plans of a site: what is possible instead, dark nodes, jobs in step, and the way back up."""

from dataclasses import replace
from typing import Any

import pytest

from interlock_servers.maxlps.allocator.infeasible import NoRelief, Relief
from interlock_servers.maxlps.node_view import HOST
from interlock_servers.maxlps.picture import Picture
from interlock_servers.maxlps.planning import SitePlan, plan_site
from interlock_servers.maxlps.steps import RISE
from interlock_tools.errors import InvalidRequestError
from tests.servers.maxlps.test_picture import (
    DARK,
    GPUS,
    GROUPS,
    MAX_W,
    MIN_W,
    entity,
    group,
    limits,
    topology,
)

CHAT_FLOOR = 0.95
FULL_W = 1600.0 + HOST.slope * GPUS * MAX_W


def least_of(picture: Picture) -> SitePlan:
    """The plan for a limit that nothing meets."""
    return plan_site(picture, 15_000.0, 0.0)


# ── a limit that floors forbid ────────────────────────────────────────────────────────────────────


def test_what_cannot_be_had_is_answered_by_the_lowest_caps_that_keep_every_floor() -> None:
    """And by the watts at the meter that are still missing, exactly."""
    picture = Picture.of(topology(), GROUPS, limits())

    found = least_of(picture)

    assert not found.feasible
    assert picture.floors_broken(found.caps) == frozenset()
    work = picture.node("node-1a").work_at(found.caps["node-1a"])
    assert CHAT_FLOOR <= work < CHAT_FLOOR + 0.02
    for node_id in ("node-1b", "node-2a", "node-2b"):
        assert found.caps[node_id] == pytest.approx(picture.node(node_id).natural_w / 2, abs=1)
    assert set(found.missing_w) == {"lab"}
    # the missing watts are what a limit would have to be higher, no more and no less
    assert plan_site(picture, 15_000.0 + found.missing_w["lab"], 0.0).feasible
    assert not plan_site(picture, 15_000.0 + found.missing_w["lab"] - 2, 0.0).feasible


def test_only_where_it_does_not_fit_are_caps_at_their_least() -> None:
    """A rack that is too small costs the other rack nothing."""
    tight = topology()
    tight["root"]["children"][0]["children"][0]["budget_w"] = 7_000.0
    groups = [*GROUPS[:1], group("pretrain", "train", None, "node-1b")]
    picture = Picture.of(tight, groups, limits())

    found = plan_site(picture, None, 0.0)

    assert set(found.missing_w) == {"rack-1"}
    assert found.caps["node-1b"] == pytest.approx(picture.node("node-1b").natural_w / 2, abs=1)
    usual = plan_site(Picture.of(topology(), groups, limits()), None, 0.0)
    assert found.caps["node-2a"] == usual.caps["node-2a"] > 600


def test_the_cheapest_work_to_pause_is_named_with_its_cost_and_never_what_has_a_floor() -> None:
    """The smaller of two jobs is enough; the promised one is not touched."""
    groups = [
        group("chat", "serving", CHAT_FLOOR, "node-1a"),
        group("large", "train", None, "node-1b", "node-2a"),
        group("small", "batch", None, "node-2b"),
    ]
    picture = Picture.of(topology(), groups, limits())
    least_w = picture.load_w(least_of(picture).caps)["lab"]

    found = plan_site(picture, least_w - 500.0, 0.0)

    assert isinstance(found.relief, Relief)
    assert found.relief.pause == ("small",)
    assert found.relief.is_proven
    # eight GPUs at half of their draw do some work; checkpoint and restore come on top
    work = picture.node("node-2b").work_at(found.caps["node-2b"])
    assert found.relief.cost == pytest.approx(GPUS * (work + 291 / 3600), rel=0.01)


def test_where_no_pause_is_enough_that_is_said() -> None:
    """Not even everything that may be paused."""
    found = plan_site(Picture.of(topology(), GROUPS, limits()), 6_500.0, 0.0)

    assert isinstance(found.relief, NoRelief)
    assert "lab" in found.relief.nodes


def test_work_moves_to_a_rack_that_stands_free_where_that_is_cheaper() -> None:
    """One rack is too small, the other has a node without work."""
    tight = topology()
    tight["root"]["children"][0]["children"][0]["budget_w"] = 10_500.0
    groups = [
        group("chat", "serving", CHAT_FLOOR, "node-1a"),
        group("fit", "train", None, "node-1b"),
    ]

    found = plan_site(Picture.of(tight, groups, limits()), None, 0.0)

    assert isinstance(found.relief, Relief)
    assert (found.relief.pause, found.relief.move) == ((), (("fit", "rack-2"),))


# ── dark nodes ────────────────────────────────────────────────────────────────────────────────────


def test_a_dark_node_is_left_out_named_and_planned_around_at_its_full_draw() -> None:
    """One node whose BMC is silent must not blind the site."""
    picture = Picture.of(topology(), GROUPS, limits(node_2b=DARK))

    found = plan_site(picture, 27_000.0, 0.0)

    assert found.feasible
    assert found.dark == ("node-2b",)
    assert set(found.caps) == {"node-1a", "node-1b", "node-2a"}
    assert picture.load_w(found.caps)["lab"] <= 27_000.0
    assert picture.budgets_broken(found.caps, 27_000.0) == frozenset()


def test_a_whole_dark_rack_is_no_empty_rack() -> None:
    """Its worst case stays in every budget above."""
    picture = Picture.of(topology(), GROUPS, limits(node_2a=DARK, node_2b=DARK))

    found = plan_site(picture, 2 * FULL_W + 12_500.0, 0.0)

    assert found.feasible
    assert set(found.caps) == {"node-1a", "node-1b"}
    assert not plan_site(picture, 2 * FULL_W + 11_500.0, 0.0).feasible


# ── jobs in step ──────────────────────────────────────────────────────────────────────────────────


def test_the_nodes_of_a_job_in_step_run_at_one_speed() -> None:
    """One node of the job draws more; at one cap for both it would hold the other back."""
    measured = {"set_w": [MAX_W] * GPUS, "min_w": MIN_W, "max_w": MAX_W, "power_w": [670.0] * GPUS}
    picture = Picture.of(topology(), GROUPS, limits(node_2a=measured))

    found = plan_site(picture, 24_000.0, 0.0)

    speeds = [picture.node(n).work_at(found.caps[n]) for n in ("node-1b", "node-2a")]
    assert found.caps["node-2a"] > found.caps["node-1b"] + 20
    assert speeds[0] == pytest.approx(speeds[1], abs=0.005)


def test_a_job_in_step_has_one_floor() -> None:
    """The promise to it is a promise for its slowest node."""
    groups = [group("pretrain", "train", 0.9, "node-1b", "node-2a")]
    picture = Picture.of(topology(), groups, limits())

    found = least_of(picture)

    assert all(picture.node(n).work_at(found.caps[n]) >= 0.9 for n in ("node-1b", "node-2a"))


# ── what moves ────────────────────────────────────────────────────────────────────────────────────


def test_only_what_falls_is_in_a_plan_that_may_only_lower() -> None:
    """So that a tighter limit takes nothing from anybody to give it to others."""
    low = {"set_w": [250.0] * GPUS, "min_w": MIN_W, "max_w": MAX_W, "power_w": [None] * GPUS}
    picture = Picture.of(topology(), GROUPS, limits(node_2b=low))

    found = plan_site(picture, 24_000.0, 0.0, moves="down")

    assert "node-2b" not in found.caps
    assert found.caps
    for node_id, cap_w in found.caps.items():
        fall_w, rise_w = picture.node(node_id).moves_w(cap_w)
        assert fall_w > 0
        assert rise_w == 0


def test_a_domain_that_is_too_full_lowers_what_hangs_under_it_and_nothing_else() -> None:
    """The rest of the site pays nothing for one rack."""
    picture = Picture.of(topology(), GROUPS, limits())

    found = plan_site(picture, None, 0.0, domain_limits_w={"rack-2": 12_000.0}, moves="down")

    assert set(found.caps) <= {"node-2a", "node-2b"}
    assert found.caps
    assert picture.load_w(found.caps)["rack-2"] <= 12_000.0
    with pytest.raises(InvalidRequestError, match="rack-9"):
        plan_site(picture, None, 0.0, domain_limits_w={"rack-9": 1.0})


def test_the_way_back_goes_as_far_as_every_budget_allows_and_to_the_default_where_none_binds() -> (
    None
):
    """A plain release would break the tight rack; a plan does not."""
    tight = topology()
    tight["root"]["children"][0]["children"][1]["budget_w"] = 13_000.0
    now = limits(set_w=320.0)
    picture = Picture.of(tight, GROUPS, now)
    assert picture.budgets_broken(dict.fromkeys(now, 700), None) == {"rack-2"}

    done: dict[str, int] = {}
    for _ in range(len(now)):
        found = plan_site(picture, None, 0.0, moves="up")
        assert picture.budgets_broken(found.caps, None) == frozenset()
        assert not set(found.caps) & set(done)  # each node moves once
        done |= found.caps
        for node_id, cap_w in found.caps.items():
            now[node_id] = {**now[node_id], "set_w": [float(cap_w)] * GPUS}
        picture = Picture.of(tight, GROUPS, now)
        if not found.steps_left:
            break

    assert plan_site(picture, None, 0.0, moves="up").caps == {}
    assert done["node-1a"] == 700  # nothing binds there: the default, not merely what it draws
    assert done["node-2b"] < 700
    assert picture.load_w({})["rack-2"] <= 13_000.0


def test_a_step_up_is_whole_jobs_promised_work_first_and_no_more_than_a_breaker_bears() -> None:
    """Half of a job in step gains nothing by rising alone."""
    groups = [
        group("chat", "serving", CHAT_FLOOR, "node-1a"),
        group("large", "train", None, "node-1b", "node-2a"),
        group("small", "batch", None, "node-2b"),
    ]
    picture = Picture.of(topology(), groups, limits(set_w=350.0))

    first = plan_site(picture, None, 0.0, moves="up")

    assert set(first.caps) == {"node-1a"}
    assert first.steps_left >= 1
    before, after = picture.load_w({}), picture.load_w(first.caps)
    for domain in picture.domains:
        assert after[domain.name] - before[domain.name] <= RISE * domain.budget_w


# ── loops, tenants, and what was measured ─────────────────────────────────────────────────────────


def with_loops(heat_w: float) -> dict[str, Any]:
    """The topology with both racks on one cooling loop."""
    return topology() | {
        "loops": [{"name": "cdu-1", "rack_ids": ["rack-1", "rack-2"], "heat_w": heat_w}]
    }


def test_a_loop_that_takes_less_heat_than_the_feeds_give_binds_plan_and_guard_alike() -> None:
    """Nobody is lifted above what the coolant carries away."""
    picture = Picture.of(with_loops(24_000.0), GROUPS, limits(set_w=350.0))

    found = plan_site(picture, None, 0.0, moves="any")

    assert found.feasible
    assert picture.load_w(found.whole)["cdu-1"] <= 24_000.0
    assert picture.budgets_broken(dict.fromkeys(picture.nodes, 700), None) == {"cdu-1"}
    unfit = plan_site(Picture.of(with_loops(9_000.0), GROUPS, limits()), None, 0.0)
    assert not unfit.feasible
    assert "cdu-1" in unfit.missing_w


def test_a_tenant_gets_the_watts_that_it_was_promised() -> None:
    """Though they would buy more work elsewhere."""
    groups = [
        group("chat", "serving", None, "node-1a"),
        {**group("own", "train", None, "node-2b"), "tenant": "borealis"},
    ]
    promised = topology() | {"tenants_least_w": {"borealis": GPUS * 600.0}}
    without = plan_site(Picture.of(topology(), groups, limits()), 24_000.0, 0.0)

    found = plan_site(Picture.of(promised, groups, limits()), 24_000.0, 0.0)

    assert without.caps["node-2b"] < 590
    assert found.caps["node-2b"] >= 599


def test_work_that_was_measured_is_planned_with_what_was_measured() -> None:
    """Natural draw and curve of the fit instead of the prior, for plan and guard."""
    fit = {"natural_w": 520.0, "p0": 0.1, "gamma": 0.6, "floor_work": 0.0}
    seen = {"set_w": [MAX_W] * GPUS, "min_w": MIN_W, "max_w": MAX_W, "power_w": [None] * GPUS}
    prior = Picture.of(topology(), GROUPS, limits())
    picture = Picture.of(topology(), GROUPS, limits(node_1b={**seen, "fit": fit}))

    assert picture.node("node-1b").natural_w == 520.0 < prior.node("node-1b").natural_w
    assert picture.load_w({})["node-1b"] < prior.load_w({})["node-1b"]
    assert plan_site(picture, None, 0.0).whole["node-1b"] == 520


def test_a_node_of_its_own_budget_is_kept_within_it() -> None:
    """A budget stands at every level of the tree."""
    tree = topology()
    tree["root"]["children"][0]["children"][0]["children"] = [
        entity("node-1a", "node", 6_500.0),
        entity("node-1b", "node", None),
    ]
    picture = Picture.of(tree, [], limits())

    found = plan_site(picture, None, 0.0)

    assert picture.load_w(found.caps)["node-1a"] <= 6_500.0
    assert replace(picture, levels=picture.levels).dark == ()
