"""The MCP face of power, through a client, held against the plant itself."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from interlock_plant.faults import Fault, FaultKind
from interlock_tools.change import ChangeState
from interlock_tools.errors import ComponentError
from tests.servers.sites import Lab, open_lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """The lab, nothing limited."""
    async with open_lab(tmp_path) as opened:
        yield opened


async def test_the_tree_shows_budgets_and_room(lab: Lab) -> None:
    """Every domain above the nodes once, the site first, and room that adds up."""
    tree = await lab.call("maxlps", "power_tree")

    site = lab.plant.site
    domains = {domain["id"]: domain for domain in tree["domains"]}
    assert tree["domains"][0]["id"] == site.name
    assert set(domains) == {site.name, *site.feed_ids, *site.pdu_ids, *site.rack_ids}
    for rack in site.racks:
        domain = domains[rack.rack_id]
        assert domain["budget_w"] == rack.rating_w
        room_w = domain["budget_w"] - domain["could_draw_w"]
        assert domain["headroom_w"] == pytest.approx(room_w, abs=1)
    for domain_id, metered_w in zip(site.pdu_ids, lab.plant.pdu_meter_w, strict=True):
        assert domains[domain_id]["could_draw_w"] >= 0.98 * metered_w


async def test_groups_are_the_jobs_with_their_tenants_and_floors(lab: Lab) -> None:
    """A job without a promise has no floor: not zero, absent."""
    groups = {g["name"]: g for g in (await lab.call("maxlps", "list_groups"))["groups"]}

    assert set(groups) == {job.job_id for job in lab.plant.jobs}
    for job in lab.plant.jobs:
        assert groups[job.job_id]["tenant"] == job.tenant_id
        assert groups[job.job_id].get("slo_floor") == (job.floor_work or None)


async def test_nodes_come_in_pages_and_the_pages_make_the_whole(lab: Lab) -> None:
    """The order is that of the tree, nothing is lost or told twice; a made-up cursor is refused."""
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        more = {} if cursor is None else {"cursor": cursor}
        page = await lab.call("maxlps", "list_nodes", limit=25, **more)
        seen += [node["node_id"] for node in page["nodes"]]
        cursor = page.get("next_cursor")
        if cursor is None:
            break

    assert seen == list(lab.plant.site.node_ids)
    with pytest.raises(ComponentError, match="cursor"):
        await lab.call("maxlps", "list_nodes", cursor="node-999")


async def test_nodes_can_be_asked_for_by_group_and_rack(lab: Lab) -> None:
    """Filters meet; a group that is not there has no nodes."""
    both = await lab.call("maxlps", "list_nodes", group="pretrain-atlas", rack_id="rack-02")
    none = await lab.call("maxlps", "list_nodes", group="null")

    assert [n["node_id"] for n in both["nodes"]] == [f"node-{n:03d}" for n in range(9, 17)]
    assert {n["group"] for n in both["nodes"]} == {"pretrain-atlas"}
    assert {n["rack_id"] for n in both["nodes"]} == {"rack-02"}
    assert none["nodes"] == []


async def test_watts_are_of_one_gpu_and_not_of_the_node(lab: Lab) -> None:
    """The trap of this component: both are watts, and they differ by the factor eight."""
    node = (await lab.call("maxlps", "list_nodes", limit=1))["nodes"][0]

    gpus = lab.plant.site.gpus_of_node(node["node_id"])
    assert node["power_w"] == pytest.approx(lab.plant.gpu_power_w[gpus], abs=0.5)
    assert (node["min_w"], node["max_w"], node["set_w"]) == (200.0, 700.0, [700] * len(gpus))


@pytest.mark.parametrize("limit_w", [480_000.0, 400_000.0, 370_000.0])
async def test_a_plan_that_is_followed_keeps_the_plant_below_the_limit(
    lab: Lab, limit_w: float
) -> None:
    """The caps are given to the plant by hand: no budget and no floor breaks in a minute."""
    plan = await lab.call("maxlps", "plan_caps", site_limit_w=limit_w)
    assert plan["feasible"]
    assert plan["could_draw_w"] <= limit_w
    caps = plan["gpu_cap_w_by_node"]
    assert set(caps) == set(lab.plant.site.node_ids)

    caps_w = [caps[lab.plant.site.node_ids[node]] for node in lab.plant.site.node_of_gpu]
    lab.plant.command_caps(np.arange(lab.plant.site.gpu_count), caps_w)
    for _ in range(5):
        lab.plant.step()
    lab.plant.score.mark()
    for _ in range(60):
        lab.plant.step()
        assert lab.plant.site_power_w <= limit_w
    assert not any(lab.plant.score.below_floor_s.values())
    assert not any(lab.plant.score.over_budget_s.values())


async def test_a_tighter_limit_keeps_less_work(lab: Lab) -> None:
    """And none at all keeps everything that the budgets allow."""
    limits_w = (None, 450_000.0, 400_000.0, 370_000.0)
    kept = [
        (await lab.call("maxlps", "plan_caps", site_limit_w=limit_w))["work_kept_pct"]
        for limit_w in limits_w
    ]

    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == len(kept)


async def test_a_limit_that_floors_forbid_is_answered_with_what_is_possible(lab: Lab) -> None:
    """The lowest caps that keep every floor, what is missing, and what people could pause."""
    plan = await lab.call("maxlps", "plan_caps", site_limit_w=326_000.0)

    assert plan["feasible"] is False
    assert set(plan["gpu_cap_w_by_node"]) == set(lab.plant.site.node_ids)
    missing_w = plan["missing_w"]["lab"]
    assert missing_w > plan["could_draw_w"] - 326_000 > 0  # the margin stands on top
    higher = await lab.call("maxlps", "plan_caps", site_limit_w=326_000.0 + missing_w)
    assert higher["feasible"]
    assert f"{plan['missing_w']['lab']} W are missing at lab" in plan["why"]
    promised = {job.job_id for job in lab.plant.jobs if job.floor_work}
    assert plan["pause"]
    assert not promised & set(plan["pause"])
    assert plan["cost_gpu_h"] > 0
    shown = await lab.propose("set_caps", gpu_cap_w_by_node=plan["gpu_cap_w_by_node"], dry_run=True)
    assert shown["needs_people"] == 1  # no floor breaks, so people may say yes


async def test_a_pause_of_what_is_named_makes_the_limit_possible(lab: Lab) -> None:
    """The proposal is worth something: the plant is asked."""
    plan = await lab.call("maxlps", "plan_caps", site_limit_w=326_000.0)
    for job_id in plan["pause"]:
        lab.plant.pause(job_id)
    caps = plan["gpu_cap_w_by_node"]
    caps_w = [caps[lab.plant.site.node_ids[node]] for node in lab.plant.site.node_of_gpu]
    lab.plant.command_caps(np.arange(lab.plant.site.gpu_count), caps_w)
    for _ in range(5):
        lab.plant.step()
    lab.plant.score.mark()
    for _ in range(60):
        lab.plant.step()
        assert lab.plant.site_power_w <= 326_000.0
    broken = {job for job, seconds in lab.plant.score.below_floor_s.items() if seconds}
    assert broken == set()


async def test_one_dark_node_blinds_neither_the_plan_nor_the_change(lab: Lab) -> None:
    """It is named, counts at full draw, and the others are capped and verified."""
    lab.plant.inject(Fault(FaultKind.NODE_DOWN, "node-020"))
    plan = await lab.call("maxlps", "plan_caps", site_limit_w=400_000.0)

    assert plan["feasible"]
    assert plan["dark"] == ["node-020"]
    assert "node-020" not in plan["gpu_cap_w_by_node"]
    change = await lab.propose("set_caps", gpu_cap_w_by_node=plan["gpu_cap_w_by_node"])
    await lab.approve(change)
    assert (await lab.end_of(change)).state is ChangeState.SUCCEEDED
    back = await lab.call("maxlps", "plan_caps", moves="up")
    released = await lab.propose("release_caps", node_ids=list(back["gpu_cap_w_by_node"]))
    assert released["state"] == "awaiting_approval"


async def test_what_if_tells_what_a_loss_and_more_nodes_would_do(lab: Lab) -> None:
    """From the facts as they are; nothing is written, and nonsense is named."""
    grown = await lab.call("maxlps", "what_if", add={"node-001": 2})
    lost = await lab.call("maxlps", "what_if", lose=["pdu-2"])
    tight = await lab.call("maxlps", "what_if", budget_w={"lab": 326_000.0})

    assert (grown["gpus_change"], lost["gpus_change"]) == (16, -256)
    assert grown["feasible"]
    assert grown["work_change_gpus"] > 0 > lost["work_change_gpus"]
    assert tight["feasible"] is False
    assert tight["pause"]
    assert "missing" in tight["why"]
    promised = {job.job_id for job in lab.plant.jobs if job.floor_work}
    assert not promised & set(tight["pause"])
    freed = await lab.call(
        "maxlps", "what_if", budget_w={"lab": 326_000.0}, floor=dict.fromkeys(promised, 0.5)
    )
    assert freed["feasible"]
    with pytest.raises(ComponentError, match="rack-77"):
        await lab.call("maxlps", "what_if", lose=["rack-77"])
    with pytest.raises(ComponentError, match="nothing is changed"):
        await lab.call("maxlps", "what_if")
    assert lab.writes() == 0


async def test_provision_counts_for_the_mix_of_this_site(lab: Lab) -> None:
    """Three ways that rise, with everything that they assume in words."""
    found = await lab.call("maxlps", "provision")

    assert 0 < found["static_pct"] < found["statistical_pct"] < found["capped_pct"]
    assert 0 < found["caps_add_pct"] < 10
    assert "the mix of this site" in found["says"]
    assert "modelled" in found["says"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"site_limit_w": 0}, "site_limit_w"),
        ({"site_limit_w": -5.0}, "site_limit_w"),
        ({"site_limit_w": "400000"}, "site_limit_w"),
        ({"site_limit_w": "null"}, "site_limit_w"),
        ({"margin": 0.5}, "margin"),
        ({"domain_limits_w": {"pdu-1": 0}}, "domain_limits_w"),
        ({"domain_limits_w": {"pdu-9": 5.0}}, "pdu-9"),
        ({"moves": "sideways"}, "moves"),
    ],
)
async def test_a_limit_that_is_no_limit_is_refused(
    lab: Lab, arguments: dict[str, object], names: str
) -> None:
    """Zero watts, or the word null, are no wish of a grid."""
    with pytest.raises(ComponentError, match=names):
        await lab.call("maxlps", "plan_caps", **arguments)


async def test_reading_and_planning_write_nothing(lab: Lab) -> None:
    """Every read of this face, and the plan, leave DPS as it was."""
    for tool in ("power_tree", "list_groups", "list_nodes", "plan_caps", "list_changes"):
        await lab.call("maxlps", tool)

    assert lab.writes() == 0
    assert set(lab.plant.gpu_cap_set_w.tolist()) == {700.0}
