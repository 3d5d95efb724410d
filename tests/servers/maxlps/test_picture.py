"""The power picture: what is known, what is assumed, and what limits would break."""

from typing import Any

import pytest

from interlock_servers.maxlps.facts import POWER_GPU_LIMITS, POWER_GROUPS, POWER_TOPOLOGY
from interlock_servers.maxlps.node_view import FLOOR_RESERVE, HOST
from interlock_servers.maxlps.picture import Picture
from interlock_servers.maxlps.planning import plan_site
from interlock_tools.errors import InvalidRequestError
from interlock_tools.fact import Fact, FactSet, Nature
from interlock_tools.identity import Target
from tests.servers.sites import START

GPUS = 8
MIN_W, MAX_W = 200.0, 700.0
SITE_BUDGET_W, RACK_BUDGET_W = 40_000.0, 16_500.0


def entity(name: str, level: str, budget_w: float | None, *children: Any) -> dict[str, Any]:
    """One entity of the topology fact."""
    return {"name": name, "level": level, "budget_w": budget_w, "children": list(children)}


def topology(rack_budget_w: float | None = RACK_BUDGET_W) -> dict[str, Any]:
    """A site with one PDU and two racks of two nodes."""
    racks = [
        entity(
            f"rack-{rack}",
            "rack",
            rack_budget_w,
            *(entity(f"node-{rack}{node}", "node", None) for node in "ab"),
        )
        for rack in "12"
    ]
    root = entity("lab", "site", SITE_BUDGET_W, entity("pdu-1", "pdu", None, *racks))
    return {"name": "lab", "dps_hash": "00", "root": root}


def group(name: str, work: str | None, floor: float | None, *node_ids: str) -> dict[str, Any]:
    """One resource group of the groups fact."""
    return {
        "name": name,
        "tenant": "aurora",
        "workload_class": work,
        "slo_floor": floor,
        "node_ids": list(node_ids),
    }


GROUPS = [
    group("chat", "serving", 0.95, "node-1a"),
    group("pretrain", "train", None, "node-1b", "node-2a"),
]


def limits(set_w: float = MAX_W, power_w: float | None = 500.0, **nodes: Any) -> dict[str, Any]:
    """The limits of every node, but for those given."""
    usual = {
        "set_w": [set_w] * GPUS,
        "min_w": MIN_W,
        "max_w": MAX_W,
        "power_w": [power_w] * GPUS,
    }
    names = [child["name"] for rack in racks() for child in rack["children"]]
    return {name: nodes.get(name.replace("-", "_"), usual) for name in names}


DARK = {"set_w": [None] * GPUS, "min_w": None, "max_w": None, "power_w": [None] * GPUS}


def racks() -> list[dict[str, Any]]:
    """The racks of the topology."""
    found: list[dict[str, Any]] = topology()["root"]["children"][0]["children"]
    return found


def test_every_node_knows_its_place_and_its_work() -> None:
    """Rack, PDU, group and the count of GPUs; a node without a group has none."""
    picture = Picture.of(topology(), GROUPS, limits())

    view = picture.node("node-1a")
    assert (view.rack_id, view.pdu_id, view.gpu_count) == ("rack-1", "pdu-1", GPUS)
    assert view.path == ("rack-1", "pdu-1", "lab")
    assert view.group is not None
    assert view.group.slo_floor == 0.95
    assert picture.node("node-2b").group is None
    with pytest.raises(InvalidRequestError, match="node-3a"):
        picture.node("node-3a")


def test_the_picture_in_the_facts_of_a_change_is_the_same() -> None:
    """The guard decides on what the planner saw."""
    site = Target(kind="site", id="lab")
    values = {POWER_TOPOLOGY: topology(), POWER_GROUPS: GROUPS, POWER_GPU_LIMITS: limits()}
    facts = FactSet(
        Fact(
            kind=kind,
            subject=site,
            value=value,
            origin="maxlps",
            version="1",
            observed_at=START,
            nature=Nature.MEASUREMENT,
        )
        for kind, value in values.items()
    )

    assert Picture.of_facts(facts, site) == Picture.of(topology(), GROUPS, limits())


def test_what_is_unknown_of_one_gpu_is_unknown_of_the_node() -> None:
    """The highest of seven readings says nothing about the eighth."""
    partly = {
        "set_w": [500.0] * 7 + [None],
        "min_w": MIN_W,
        "max_w": MAX_W,
        "power_w": [400.0] * 7 + [None],
    }
    view = Picture.of(topology(), GROUPS, limits(node_1a=partly)).node("node-1a")

    assert view.set_w is None
    assert view.power_w is None
    assert view.limits == (MIN_W, MAX_W, MAX_W)  # a limit that is not known limits nothing


def test_a_dark_node_counts_with_its_full_draw_and_can_be_given_nothing() -> None:
    """Unknown is never harmless: it may draw all that the largest known node may."""
    picture = Picture.of(topology(), GROUPS, limits(set_w=300.0, node_2b=DARK))
    lit = Picture.of(topology(), GROUPS, limits(set_w=300.0)).load_w({})
    full_w = 1600.0 + HOST.slope * GPUS * MAX_W

    load = picture.load_w({})
    assert picture.dark == ("node-2b",)
    assert load["node-2b"] == full_w
    assert load["lab"] == pytest.approx(lit["lab"] - lit["node-2b"] + full_w)
    assert picture.allowed_w()["rack-2"] == pytest.approx(
        picture.node("node-2a").limited_w + full_w
    )
    with pytest.raises(InvalidRequestError, match="node-2b"):
        picture.load_w({"node-2b": 300})


def test_beside_a_dark_node_power_rises_only_as_far_as_its_worst_case_leaves() -> None:
    """The others stay usable, within what is left of each budget above it."""
    full_w = 1600.0 + HOST.slope * GPUS * MAX_W
    room_w = 1600.0 + HOST.slope * GPUS * 500.0
    tight = topology(rack_budget_w=full_w + room_w)
    picture = Picture.of(tight, GROUPS, limits(set_w=300.0, node_2b=DARK))

    assert picture.budgets_broken({"node-2a": 500}, None) == frozenset()
    assert picture.budgets_broken({"node-2a": 501}, None) == {"rack-2"}
    assert picture.budgets_broken({"node-2a": 250}, None) == frozenset()


def test_of_a_site_that_is_all_dark_nothing_is_said() -> None:
    """There is not even a largest node to think of."""
    names: dict[str, Any] = {name.replace("-", "_"): DARK for name in limits()}

    with pytest.raises(InvalidRequestError, match="no node"):
        Picture.of(topology(), GROUPS, limits(**names))


def test_a_draw_that_is_seen_above_the_estimate_raises_it_held_back_by_a_limit_or_not() -> None:
    """The hottest GPUs of a job run into their default limit: they draw that much at least."""
    prior_w = Picture.of(topology(), GROUPS, limits(power_w=None)).node("node-1a").natural_w
    free = Picture.of(topology(), GROUPS, limits(power_w=660.0)).node("node-1a")
    at_default = Picture.of(topology(), GROUPS, limits(power_w=693.0)).node("node-1a")
    held = Picture.of(topology(), GROUPS, limits(set_w=400.0, power_w=399.0)).node("node-1a")
    idle = Picture.of(topology(), GROUPS, limits(power_w=80.0)).node("node-1a")

    assert prior_w < 649.0
    assert free.natural_w == 660.0
    assert at_default.natural_w == 693.0
    assert held.natural_w == prior_w  # below the estimate a limit shows nothing
    assert idle.natural_w == prior_w  # idle now is not idle for ever


def test_loads_add_up_the_tree_and_follow_the_caps() -> None:
    """Each domain carries what hangs on it; a cap on one node is seen all the way up."""
    picture = Picture.of(topology(), GROUPS, limits())
    before, after = picture.load_w({}), picture.load_w({"node-1b": 300})

    assert before["lab"] == pytest.approx(before["rack-1"] + before["rack-2"])
    assert before["rack-1"] == pytest.approx(before["node-1a"] + before["node-1b"])
    saved_w = before["node-1b"] - after["node-1b"]
    assert saved_w == pytest.approx(HOST.slope * GPUS * (picture.node("node-1b").natural_w - 300))
    assert before["lab"] - after["lab"] == pytest.approx(saved_w)
    assert after["rack-2"] == before["rack-2"]


def test_a_lowering_below_the_floor_breaks_it_and_a_rise_does_not() -> None:
    """Only what goes down can break a promise, and only where one was given."""
    picture = Picture.of(topology(), GROUPS, limits(set_w=400.0))

    assert picture.floors_broken({"node-1a": 300}) == {"chat"}
    assert picture.floors_broken({"node-1a": 400}) == frozenset()  # no lower than it is
    assert picture.floors_broken({"node-1a": 450}) == frozenset()
    assert picture.floors_broken({"node-1b": 200, "node-2a": 200, "node-2b": 200}) == frozenset()


def test_only_a_rise_breaks_a_budget_and_the_grid_limit_is_one() -> None:
    """A site above its limit may always go down, even where that is not yet enough."""
    low = Picture.of(topology(), GROUPS, limits(set_w=300.0))
    load_w = low.load_w({})["lab"]

    assert low.budgets_broken({"node-2a": 400}, None) == frozenset()
    assert low.budgets_broken({"node-2a": 400}, load_w - 1_000) == {"lab"}
    assert low.budgets_broken({"node-2a": 250}, load_w - 1_000) == frozenset()
    assert low.budgets_broken({"node-2a": 400, "node-2b": 200}, load_w - 1_000) == frozenset()
    tight = Picture.of(topology(rack_budget_w=9_000.0), GROUPS, limits(set_w=300.0))
    assert tight.budgets_broken({"node-2a": 700}, None) == {"rack-2"}


@pytest.mark.parametrize("site_limit_w", [None, 27_000.0, 22_500.0])
def test_a_plan_keeps_every_budget_and_every_floor_in_whole_watts(
    site_limit_w: float | None,
) -> None:
    """What plan_caps gives can be proposed as it stands."""
    picture = Picture.of(topology(), GROUPS, limits())

    found = plan_site(picture, site_limit_w, 0.0)

    assert found.feasible
    caps = found.caps
    assert set(caps) == set(picture.nodes)
    assert all(isinstance(cap_w, int) and MIN_W <= cap_w <= MAX_W for cap_w in caps.values())
    load_w = picture.load_w(caps)
    assert load_w["lab"] <= (site_limit_w or SITE_BUDGET_W)
    assert max(load_w["rack-1"], load_w["rack-2"]) <= RACK_BUDGET_W
    assert picture.floors_broken(caps) == frozenset()
    assert picture.budgets_broken(caps, site_limit_w) == frozenset()


def test_a_floor_is_planned_with_a_reserve() -> None:
    """Natural draw is known to one or two per cent: a plan at the floor itself would break it."""
    picture = Picture.of(topology(), GROUPS, limits())

    found = plan_site(picture, 22_500.0, 0.0)  # so little that the floor holds the cap up

    assert found.feasible
    work = picture.node("node-1a").work_at(found.caps["node-1a"])
    assert 0.95 + FLOOR_RESERVE <= work < 0.95 + 2 * FLOOR_RESERVE
