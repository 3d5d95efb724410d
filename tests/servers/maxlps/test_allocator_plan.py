"""What a whole plan promises: jobs, loops, tenants and failing feeds in one answer, or a no."""

import numpy as np
import pytest

from interlock_evals.gang_instances import cooling_loops, gang_instance, tenants
from interlock_servers.maxlps.allocator.gang import Gangs
from interlock_servers.maxlps.allocator.group_prices import NO_GROUP, Groups
from interlock_servers.maxlps.allocator.plan import (
    CapPlan,
    HostPower,
    Infeasible,
    Ramp,
    Supply,
    plan,
)
from interlock_servers.maxlps.allocator.problem import Leaves
from interlock_servers.maxlps.allocator.tree import PowerTree, TreeNode
from interlock_tools.errors import InvalidRequestError, NotFoundError

NO_HOST = HostPower(fixed_w=0.0, slope=1.0)


def planned(answer: CapPlan | Infeasible) -> CapPlan:
    """The plan, where one is expected."""
    assert isinstance(answer, CapPlan), answer
    return answer


def hall(count: int = 4, budget_w: float = 1e4) -> PowerTree:
    """One hall, GPUs right under it."""
    return PowerTree.from_nodes([TreeNode("hall", None, budget_w)], ["hall"] * count)


def gpus(count: int = 4, floor_work: float | list[float] = 0.0) -> Leaves:
    """GPUs of 600 W on the audited training curve."""
    return Leaves.of(
        natural_w=[600.0] * count,
        p0=0.0,
        gamma=0.61,
        lo_w=200.0,
        hi_w=700.0,
        floor_work=floor_work,
    )


def test_jobs_loops_and_tenants_come_in_one_plan() -> None:
    """Everything is kept, the gap is proven, and a job's work is that of its slowest GPU."""
    site = gang_instance(1_280, seed=0, budget_ratio=0.85)
    parts = [cooling_loops(site.case), tenants(site.case, promised=0.86)]
    answer = planned(
        plan(
            site.case.tree,
            site.case.leaves,
            host=NO_HOST,
            margin=0,
            gangs=site.gangs,
            parts=parts,
        )
    )
    assert (answer.gpu_w <= site.case.budget_w).all()
    for part in parts:
        assert (part.sums(answer.cap_w) <= part.most_w).all()
        assert (part.sums(answer.cap_w) >= part.least_w).all()
    assert 0 <= answer.gap < 0.01
    first = answer.work[site.gangs.job == 0]
    assert (first == first[0]).all()


def test_the_next_plan_may_start_from_the_last_whatever_it_was() -> None:
    """A solution of another kind is left aside, not misread."""
    site = gang_instance(640, seed=1, budget_ratio=0.85)
    loops = [cooling_loops(site.case)]
    case = {"tree": site.case.tree, "leaves": site.case.leaves, "host": NO_HOST, "margin": 0.0}
    plain = planned(plan(**case))  # type: ignore[arg-type]
    for kind in ({"gangs": site.gangs}, {"parts": loops}, {"gangs": site.gangs, "parts": loops}):
        cold = planned(plan(**case, **kind))  # type: ignore[arg-type]
        for last in (plain, cold):
            again = planned(plan(**case, **kind, previous=last.solution))  # type: ignore[arg-type]
            assert again.work.sum() == pytest.approx(cold.work.sum(), rel=5e-3)


def test_a_node_with_spare_feeds_draws_what_the_survivors_carry() -> None:
    """The largest is the one that fails."""
    feeds = Supply("hall", {"a": 1_000.0, "b": 1_100.0, "c": 1_200.0})
    answer = planned(plan(hall(), gpus(), host=NO_HOST, margin=0, supplies=[feeds]))
    assert answer.gpu_w[0] == pytest.approx(2_100.0)
    assert answer.emergency is None


def test_the_reserve_is_used_only_with_caps_armed_for_its_loss() -> None:
    """In normal operation all feeds carry; after a loss the armed caps fit and only lower."""
    feeds = Supply("hall", {"a": 1_000.0, "b": 1_000.0, "c": 1_000.0})
    answer = planned(
        plan(
            hall(6),
            gpus(6),
            host=NO_HOST,
            margin=0,
            supplies=[feeds],
            reserve="used",
            emergency_s=2.0,
        )
    )
    assert answer.emergency is not None
    assert answer.gpu_w[0] == pytest.approx(3_000.0)
    assert answer.emergency.cap_w.sum() <= 2_000.0
    assert (answer.emergency.cap_w <= answer.cap_w).all()
    assert answer.emergency.within_s == 10.0
    assert not len(answer.emergency.floors_broken)


def test_promises_that_a_loss_breaks_are_named_before_it_happens() -> None:
    """People decide whether to use the reserve; they have to know who would pay."""
    feeds = Supply("hall", {"a": 1_000.0, "b": 1_000.0})
    args = {"host": NO_HOST, "margin": 0.0, "supplies": [feeds], "reserve": "used"}
    answer = planned(
        plan(hall(3), gpus(3, [0.9, 0.0, 0.0]), emergency_s=1.0, **args)  # type: ignore[arg-type]
    )
    assert answer.emergency is not None
    assert answer.emergency.floors_broken.tolist() == [0]
    assert answer.emergency.cap_w.sum() <= 1_000.0
    unfit = plan(hall(4), gpus(4), emergency_s=1.0, **args)  # type: ignore[arg-type]
    assert isinstance(unfit, Infeasible)
    assert (unfit.limit, unfit.node) == ("failover", "hall")
    with pytest.raises(InvalidRequestError, match=r"emergency_s.*within 10 s, not 40"):
        plan(hall(3), gpus(3), emergency_s=40.0, **args)  # type: ignore[arg-type]


def test_feeds_that_cannot_be_are_refused_by_name() -> None:
    """Also where nothing would be left."""
    for feeds, told in (
        ({"a": 1.0}, "1 feeds, 1 cannot be spare"),
        ({"a": 1.0, "b": float("nan")}, "at least 0 W"),
        ({"a": 1.0, "b": -1.0}, "at least 0 W"),
    ):
        with pytest.raises(InvalidRequestError, match=told):
            plan(hall(), gpus(), supplies=[Supply("hall", feeds)])
    with pytest.raises(NotFoundError, match="cellar"):
        plan(hall(), gpus(), supplies=[Supply("cellar", {"a": 1.0, "b": 1.0})])
    dead = Supply("hall", {"a": 0.0, "b": 5e3})
    unfit = plan(hall(), gpus(), host=NO_HOST, supplies=[dead])
    assert isinstance(unfit, Infeasible)
    assert unfit.budget_w == 0.0


def test_a_loop_or_a_promise_that_does_not_fit_is_named() -> None:
    """With who holds it, how much is missing, and whether that is proven."""
    loop = Groups.of(["loop"], [0, 0, NO_GROUP, NO_GROUP], most_w=700.0)
    args = {"host": NO_HOST, "margin": 0.0}
    unfit = plan(hall(), gpus(4, [0.8, 0, 0, 0]), parts=[loop], **args)  # type: ignore[arg-type]
    assert isinstance(unfit, Infeasible)
    assert (unfit.limit, unfit.node, unfit.leaves.tolist()) == ("group", "loop", [0])
    assert unfit.shortfall_w == pytest.approx(600 * 0.8 ** (1 / 0.61) + 300 - 700)
    empty = Groups.of(["dry"], [0, 0, NO_GROUP, NO_GROUP], most_w=0.0)
    unfit = plan(hall(), gpus(), parts=[empty], **args)  # type: ignore[arg-type]
    assert isinstance(unfit, Infeasible)
    assert (unfit.node, unfit.leaves.tolist()) == ("dry", [0, 1])
    rich = Groups.of(["a", "b"], [0, 0, 1, 1], least_w=[1_100.0, 1_000.0])
    unfit = plan(hall(4, 2_000.0), gpus(), parts=[rich], **args)  # type: ignore[arg-type]
    assert isinstance(unfit, Infeasible)
    assert (unfit.limit, unfit.proven) == ("promise", True)
    assert {unfit.node, *unfit.also} <= {"a", "b"}
    assert unfit.shortfall_w > 0


def test_margin_and_ramp_hold_for_jobs_too() -> None:
    """The same budgets, whoever solves."""
    gangs = Gangs.of([0, 0, 0, -1], 4)
    ramp = Ramp(target_w=1_000.0, draw_w=2_000.0, limit_w_per_s=20.0, interval_s=5.0)
    answer = planned(plan(hall(), gpus(), host=NO_HOST, margin=0.1, gangs=gangs, ramp=ramp))
    assert answer.gpu_budget_w[0] == pytest.approx(1_900.0 * 0.9)
    assert answer.gpu_w[0] <= 1_900.0 * 0.9
    assert np.ptp(answer.cap_w[:3]) < 1e-6


def test_a_budget_that_falls_to_nothing_is_an_error_or_a_plain_no() -> None:
    """A rating of zero is no rating; a grid target that leaves nothing is an answer."""
    with pytest.raises(InvalidRequestError, match="budget must be above zero: hall"):
        hall(4, 0.0)
    with pytest.raises(InvalidRequestError, match="ramp"):
        plan(hall(), gpus(), host=NO_HOST, ramp=Ramp(0.0, 2e3, 1e6, 1.0))
    unfit = plan(hall(), gpus(), host=NO_HOST, ramp=Ramp(1e-3, 2e3, 1e6, 1.0))
    assert isinstance(unfit, Infeasible)
    assert unfit.leaves.tolist() == [0, 1, 2, 3]


def test_everything_must_speak_of_the_same_gpus() -> None:
    """A table of another day is refused before it is used."""
    with pytest.raises(InvalidRequestError, match="gangs: 3 GPUs"):
        plan(hall(), gpus(), gangs=Gangs.of([0, 0, 0], 3))
    with pytest.raises(InvalidRequestError, match="parts: loop: 2 GPUs"):
        plan(hall(), gpus(), parts=[Groups.of(["loop"], [0, 0])])
