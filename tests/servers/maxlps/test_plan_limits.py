"""Plans under further limits: jobs in step over MCP, paused work, feeds that may fail, memory."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from interlock_servers.maxlps.allocator.infeasible import Relief
from interlock_servers.maxlps.node_view import HOST, IDLE_SHARE
from interlock_servers.maxlps.picture import Picture
from interlock_servers.maxlps.planning import plan_site
from interlock_servers.maxlps.priors import PRIORS
from interlock_tools.errors import ComponentError, InvalidRequestError
from interlock_tools.power_curve import throughput
from tests.servers.maxlps.test_picture import (
    GPUS,
    GROUPS,
    MAX_W,
    MIN_W,
    entity,
    group,
    limits,
    topology,
)
from tests.servers.sites import Lab, open_lab

IDLE_W = 72.5
PLANTS_LIMIT_W = 380_000.0  # below what the lab draws, and every floor fits


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The lab, nothing limited."""
    async with open_lab(tmp_path) as opened:
        yield opened


# ── jobs in step ──────────────────────────────────────────────────────────────────────────────────


async def test_over_mcp_the_nodes_of_a_training_job_get_caps_of_one_speed(lab: Lab) -> None:
    """A node whose silicon draws more is given more; equal watts would let it hold up the rest."""
    rows = (await lab.call("maxlps", "list_nodes", group="pretrain-atlas", limit=200))["nodes"]
    plan = await lab.call("maxlps", "plan_caps", site_limit_w=PLANTS_LIMIT_W)

    prior = PRIORS["train"]
    caps = {row["node_id"]: plan["gpu_cap_w_by_node"][row["node_id"]] for row in rows}
    draws_w = {
        row["node_id"]: max(prior.natural_share * MAX_W, max(row["power_w"])) for row in rows
    }
    speeds = [float(throughput(caps[name], draws_w[name], prior.p0, prior.gamma)) for name in caps]

    assert plan["feasible"]
    assert max(draws_w.values()) > min(draws_w.values()) + 5  # else there would be nothing to see
    assert max(caps.values()) > min(caps.values()) + 3
    assert max(speeds) < 1.0
    assert max(speeds) - min(speeds) < 0.006  # whole watts, and draws that the table rounds


# ── paused work ───────────────────────────────────────────────────────────────────────────────────


def with_paused(power_w: float, *, active: bool = False) -> Picture:
    """The site with `pretrain` said to be stopped, its GPUs drawing so much."""
    groups = [GROUPS[0], {**GROUPS[1], "active": active}]
    seen = {"set_w": [MAX_W] * GPUS, "min_w": MIN_W, "max_w": MAX_W, "power_w": [power_w] * GPUS}
    return Picture.of(topology(), groups, limits(node_1b=seen, node_2a=seen))


def test_work_that_is_paused_counts_with_what_it_idles_at_and_is_given_the_least() -> None:
    """At its least limit it would be counted with 128 W a GPU that it does not draw."""
    picture, running = with_paused(IDLE_W), with_paused(IDLE_W, active=True)

    found = plan_site(picture, 15_000.0, 0.0)
    idle_w = 1600.0 + HOST.slope * GPUS * IDLE_W

    assert picture.load_w({})["node-1b"] == pytest.approx(idle_w, abs=1)
    assert found.whole["node-1b"] == found.whole["node-2a"] == MIN_W  # it goes on below, not above
    assert sum(found.missing_w.values()) < sum(plan_site(running, 15_000.0, 0.0).missing_w.values())
    assert not isinstance(found.relief, Relief) or "pretrain" not in found.relief.pause
    alone = found.whole["node-1a"], found.whole["node-2b"]
    kept = sum(
        picture.node(n).work_at(w) for n, w in zip(("node-1a", "node-2b"), alone, strict=True)
    )
    assert found.work_kept == pytest.approx(kept / 2, abs=0.002)


@pytest.mark.parametrize(
    ("power_w", "active"), [(IDLE_SHARE * MAX_W + 1, False), (IDLE_W, True), (None, False)]
)
def test_neither_a_word_nor_a_quiet_moment_alone_makes_work_paused(
    power_w: float | None, active: bool
) -> None:
    """What draws is not paused whatever is said, and what idles may start at any moment."""
    picture = with_paused(power_w, active=active)  # type: ignore[arg-type]

    assert picture.node("node-1b").natural_w >= 0.9 * MAX_W


def test_paused_work_is_not_lifted_by_a_restore() -> None:
    """Nobody waits for its watts, and it would go on at full draw."""
    low = {"set_w": [MIN_W] * GPUS, "min_w": MIN_W, "max_w": MAX_W, "power_w": [IDLE_W] * GPUS}
    groups = [GROUPS[0], {**GROUPS[1], "active": False}]
    picture = Picture.of(topology(), groups, limits(node_1b=low, node_2a=low))

    assert not {"node-1b", "node-2a"} & set(plan_site(picture, moves="up").caps)
    again = Picture.of(topology(), GROUPS, limits(node_1b=low, node_2a=low))
    assert {"node-1b", "node-2a"} <= set(plan_site(again, moves="up").caps)


# ── feeds that may fail ───────────────────────────────────────────────────────────────────────────


def two_feeds(budget_w: float | None) -> dict[str, Any]:
    """A site of two feeds with a PDU each."""
    feeds = [
        entity(
            f"feed-{n}",
            "feed",
            budget_w,
            entity(f"pdu-{n}", "pdu", None, *(entity(f"node-{n}{c}", "node", None) for c in "ab")),
        )
        for n in "12"
    ]
    return {"name": "lab", "dps_hash": "00", "root": entity("lab", "site", None, *feeds)}


def test_with_a_feed_to_spare_the_site_fits_what_the_other_carries() -> None:
    """Each feed alone carries its half at full draw; together they do not fit one of them."""
    picture = Picture.of(two_feeds(24_000.0), GROUPS, limits())

    plain, spare = plan_site(picture), plan_site(picture, any_feed_may_fail=True)

    assert picture.load_w(plain.whole)["lab"] > 24_000.0
    assert picture.load_w(spare.whole)["lab"] <= 24_000.0
    tighter = plan_site(picture, 23_000.0, any_feed_may_fail=True)
    assert picture.load_w(tighter.whole)["lab"] <= 23_000.0


def test_a_site_that_has_no_feed_to_lose_is_told_so() -> None:
    """Or one whose feeds state nothing: that is no reserve."""
    for tree in (topology(), two_feeds(None)):
        with pytest.raises(InvalidRequestError, match="any_feed_may_fail"):
            plan_site(Picture.of(tree, GROUPS, limits()), any_feed_may_fail=True)


async def test_over_mcp_a_plan_keeps_a_feed_to_spare(lab: Lab) -> None:
    """The lab's feeds carry more than one of them does: the largest is the one that is lost."""
    feeds = [d for d in (await lab.call("maxlps", "power_tree"))["domains"] if d["level"] == "feed"]
    if len(feeds) < 2:
        with pytest.raises(ComponentError, match="any_feed_may_fail"):
            await lab.call("maxlps", "plan_caps", any_feed_may_fail=True)
        return
    left_w = sum(d["budget_w"] for d in feeds) - max(d["budget_w"] for d in feeds)

    plan = await lab.call("maxlps", "plan_caps", any_feed_may_fail=True)

    assert plan["could_draw_w"] <= left_w or not plan["feasible"]


# ── at most ───────────────────────────────────────────────────────────────────────────────────────


def test_what_may_have_at_most_so_much_is_not_lifted_above_it() -> None:
    """Neither by a share of the budget nor to its default because it draws no more."""
    picture = Picture.of(topology(), GROUPS[:1], limits(set_w=500.0))
    free = plan_site(picture, moves="up").caps
    assert free["node-1a"] == 700  # it draws 612: to its default
    assert plan_site(picture).whole["node-2b"] > 600  # its share of what the rack carries

    at_most_w = {"node-2b": 520.0, "node-1a": 650.0}
    held = plan_site(picture, moves="up", at_most_w=at_most_w)

    assert held.caps["node-1a"] == 611  # what it draws is less than it may have
    assert held.whole["node-2b"] == 520
    lowered = {"set_w": [520.0] * GPUS, "min_w": MIN_W, "max_w": MAX_W, "power_w": [500.0] * GPUS}
    again = Picture.of(topology(), GROUPS[:1], limits(node_2b=lowered))
    assert "node-2b" in plan_site(again, moves="up").caps
    assert "node-2b" not in plan_site(again, moves="up", at_most_w=at_most_w).caps


def test_a_promise_goes_before_it_and_a_name_of_no_node_limits_nothing() -> None:
    """What was remembered of other work must not break a floor, nor a tree that was rebuilt."""
    picture = Picture.of(topology(), [group("chat", "serving", 0.95, "node-1a")], limits())

    found = plan_site(picture, at_most_w={"node-1a": 250.0, "node-9z": 250.0})

    assert found.feasible
    assert picture.node("node-1a").work_at(found.whole["node-1a"]) >= 0.95
    assert found.whole["node-1a"] < picture.node("node-1a").natural_w
