"""What a question promises: the new plan or what does not fit, and what changes; nothing acts."""

from dataclasses import replace

import numpy as np
import pytest

from interlock_servers.maxlps.allocator.gang import ALONE
from interlock_servers.maxlps.allocator.group_prices import Groups
from interlock_servers.maxlps.allocator.infeasible import Relief
from interlock_servers.maxlps.allocator.limits import HostPower, Supply
from interlock_servers.maxlps.allocator.plan import CapPlan, Infeasible
from interlock_servers.maxlps.allocator.problem import Leaves
from interlock_servers.maxlps.allocator.site import Site
from interlock_servers.maxlps.allocator.tree import TreeNode
from interlock_servers.maxlps.allocator.what_if import (
    AddNodes,
    Answer,
    Change,
    Difference,
    LoseFeed,
    LoseNode,
    SetBudget,
    SetFloor,
    what_if,
)
from interlock_tools.errors import InvalidRequestError


def site(pdu_w: float = 4_000.0, site_w: float = 10_000.0) -> Site:
    """Three PDUs, two racks each, a server of two GPUs in each; the last PDU's racks can move."""
    nodes = [TreeNode("site", None, site_w)]
    gpu_node: list[str] = []
    for p in (1, 2, 3):
        nodes.append(TreeNode(f"pdu-{p}", "site", pdu_w))
        for r in (1, 2):
            nodes.append(TreeNode(f"rack-{p}{r}", f"pdu-{p}", 3_000.0))
            nodes.append(TreeNode(f"node-{p}{r}", f"rack-{p}{r}", 3_000.0))
            gpu_node += [f"node-{p}{r}"] * 2
    return Site(
        nodes=tuple(nodes),
        gpu_node=tuple(gpu_node),
        leaves=Leaves.of(natural_w=[600.0] * 12, p0=0.0, gamma=0.61, lo_w=200.0, hi_w=700.0),
        gpu_id=np.arange(12),
        job=np.full(12, ALONE),
        alternate={"rack-31": "pdu-1", "rack-32": "pdu-2"},
        host=HostPower(fixed_w=200.0, slope=1.0),
        margin=0.0,
    )


def asked(start: Site, *changes: Change) -> tuple[Answer, CapPlan, Difference]:
    """The answer, where a plan is expected."""
    answer = what_if(start, changes)
    assert isinstance(answer.after, CapPlan)
    assert answer.difference is not None
    assert (answer.after.gpu_w <= answer.after.gpu_budget_w).all()
    return answer, answer.after, answer.difference


def test_nothing_changed_changes_nothing() -> None:
    """The same plan twice."""
    _, _, found = asked(site())
    assert found.work_before == found.work_after
    np.testing.assert_allclose(found.change_w, 0.0, atol=1e-6)
    assert (found.gpus_added, found.gpus_lost, found.newly_full) == (0, 0, ())


def test_ten_more_nodes_in_a_rack_squeeze_it_and_are_counted() -> None:
    """They share what the rack and all above have; the rest of the site barely notices."""
    start = site(pdu_w=9_000.0)
    _, after, found = asked(start, AddNodes("rack-11", like="node-11", count=2))
    assert found.gpus_added == 4
    assert found.work_after > found.work_before
    assert "rack-11" in found.newly_full
    assert (found.change_w[:2] < -1).all()
    assert len(after.cap_w) == 16
    unfit = what_if(start, [AddNodes("rack-11", like="node-11", count=10)])
    assert isinstance(unfit.after, Infeasible)
    assert unfit.after.node == "rack-11"
    assert unfit.difference is None


def test_a_lost_pdu_is_carried_by_the_others_where_racks_have_two_feeds() -> None:
    """The re-fed racks press on their new PDU; nobody goes dark."""
    answer, after, found = asked(site(pdu_w=2_800.0), LoseNode("pdu-3"))
    assert found.gpus_lost == 0
    assert answer.site.node("rack-31").parent == "pdu-1"
    assert "pdu-3" not in {n.name for n in answer.site.nodes}
    assert found.work_after < found.work_before
    at = [n.name for n in answer.site.nodes].index("pdu-1")
    assert after.total_w[at] <= 2_800.0 + 1e-6


def test_without_a_second_feed_a_lost_pdu_takes_its_work_and_stops_its_jobs() -> None:
    """A job that lost a member stands still: its other GPUs draw idle watts and do nothing."""
    job = np.full(12, ALONE)
    job[[3, 4]] = 7  # one GPU on pdu-1, one on pdu-2
    answer, after, found = asked(replace(site(), job=job), LoseNode("pdu-1"))
    assert found.gpus_lost == 4
    assert 4 in found.gpu_id
    idle = answer.site.gpu_id.tolist().index(4)
    assert after.cap_w[idle] == pytest.approx(75.0)
    assert answer.site.leaves.weight @ after.work == pytest.approx(7.0, rel=1e-6)
    both = what_if(site(), [LoseNode("pdu-1"), LoseNode("pdu-3")])
    assert len(both.site.gpu_id) == 6  # rack-31 went dark with its second feed, rack-32 moved


def test_a_lost_feed_leaves_what_the_others_carry() -> None:
    """With the spare gone, the next loss would take the node."""
    feeds = Supply("pdu-1", {"a": 1_500.0, "b": 1_500.0, "c": 1_500.0})
    start = replace(site(), supplies=(feeds,))
    before = start.plan()
    assert isinstance(before, CapPlan)
    answer, after, _ = asked(start, LoseFeed("pdu-1", "b"))
    assert answer.site.supplies == ()
    assert answer.site.node("pdu-1").budget_w == 3_000.0
    assert after.total_w.sum() == pytest.approx(before.total_w.sum())  # that was the plan: N+1
    with pytest.raises(InvalidRequestError, match="no feed 'z'"):
        what_if(start, [LoseFeed("pdu-1", "z")])


def test_less_budget_and_higher_floors_show_what_they_cost_or_whom_to_pause() -> None:
    """Where floors do not fit, the cheapest whole nodes and jobs are named."""
    _, _, found = asked(site(), SetBudget("site", 7_000.0))
    assert found.draw_change_w == pytest.approx(7_000.0 - 8_400.0, rel=1e-6)
    assert found.newly_full == ("site",)
    answer = what_if(site(), [SetBudget("site", 7_000.0), SetFloor(("pdu-1", "pdu-2"), 1.0)])
    assert isinstance(answer.after, Infeasible)
    assert isinstance(answer.relief, Relief)
    assert answer.relief.is_proven
    assert len(answer.relief.pause) == 1
    assert answer.relief.pause[0] in {"node-11", "node-12", "node-21", "node-22"}


def test_a_promise_to_a_tenant_that_lost_everything_is_said() -> None:
    """It cannot be kept, and it must not vanish with its GPUs."""
    tenant = Groups.of(["t"], [0] * 4 + [-1] * 8, least_w=1_000.0)
    answer = what_if(replace(site(), parts=(tenant,)), [LoseNode("pdu-1")])
    assert answer.promises_lost == ("t",)
    assert answer.site.parts == ()


def test_what_cannot_happen_is_refused_by_name() -> None:
    """The change and the node are named."""
    for change, told in (
        (AddNodes("rack-99", "node-11", 1), "rack-99"),
        (AddNodes("rack-11", "rack-11", 1), "a node with GPUs"),
        (AddNodes("rack-11", "node-11", 0), "count"),
        (LoseNode("site"), "feeds everything"),
        (LoseNode("pdu-9"), "pdu-9"),
        (SetBudget("pdu-1", 0.0), "more than 0 W"),
        (SetBudget("pdu-1", float("nan")), "more than 0 W"),
        (SetFloor(("pdu-1",), 1.5), "floor_work"),
    ):
        with pytest.raises(InvalidRequestError, match=told):
            what_if(site(), [change])
