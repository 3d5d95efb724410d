"""Limits as they differ from GPU to GPU, and those that nobody knows: what counts against us."""

from typing import Any

import anyio
import pytest

from interlock_guardrails.facts import FactRegistry
from interlock_plant import Plant
from interlock_plant.faults import Fault, FaultKind
from interlock_servers.maxlps.client import DpsClient
from interlock_servers.maxlps.facts import MaxlpsFacts
from interlock_servers.maxlps.operations import (
    ReleaseCaps,
    ReleaseCapsArguments,
    SetCaps,
    SetCapsArguments,
)
from interlock_servers.maxlps.picture import Picture
from interlock_servers.maxlps.reach import GRID_LIMIT, METER_POWER
from interlock_servers.maxlps.twin import DpsTwin, TwinFault
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.errors import ComponentError, InvalidRequestError
from interlock_tools.fact import Fact, FactNeed, FactSet, Nature, Unknown
from interlock_tools.identity import Target
from interlock_tools.operation import Happened, Held
from tests.servers.maxlps.conftest import WakefulClock
from tests.servers.maxlps.test_picture import GPUS, GROUPS, MAX_W, MIN_W, group, limits, topology

PATIENCE_S = 20.0
SITE = Target(kind="site", id="hall")
NODE = "node-003"  # training, without a floor
GPU = 16  # its first GPU


def node(*set_w: float | None) -> dict[str, Any]:
    """A node whose GPUs have these limits."""
    return {"set_w": list(set_w), "min_w": MIN_W, "max_w": MAX_W, "power_w": [None] * len(set_w)}


# ── the picture ───────────────────────────────────────────────────────────────────────────────────


def test_a_limit_that_is_not_known_may_be_the_least_when_power_could_rise() -> None:
    """Read as the greatest it would make every new limit a lowering, and no budget would hold."""
    unknown = limits(set_w=300.0, node_2a=node(*[None] * GPUS))
    tight = Picture.of(topology(rack_budget_w=9_000.0), GROUPS, unknown)

    assert tight.budgets_broken({"node-2a": 650}, None) == {"rack-2"}
    assert tight.node("node-2a").moves_w(650) == (GPUS * 50.0, GPUS * 450.0)


def test_a_rise_of_one_gpu_is_a_rise_though_its_node_goes_down() -> None:
    """Seven GPUs fall and one rises: nobody may call that a lowering."""
    mixed = Picture.of(topology(), GROUPS, limits(node_2a=node(300.0, *[700.0] * 7)))

    assert mixed.node("node-2a").moves_w(500) == (7 * 200.0, 200.0)


def test_the_load_of_a_node_is_that_of_each_of_its_gpus() -> None:
    """One high limit does not lift the seven others."""
    high = Picture.of(topology(), GROUPS, limits(set_w=300.0)).load_w({"node-2a": 600})
    mixed = Picture.of(topology(), GROUPS, limits(set_w=300.0, node_2a=node(*[300.0] * 7, 600.0)))

    assert mixed.load_w({})["node-2a"] < high["node-2a"]
    tight = topology(rack_budget_w=mixed.load_w({})["rack-2"] + 1.0)
    picture = Picture.of(tight, GROUPS, limits(set_w=300.0, node_2a=node(*[300.0] * 7, 600.0)))
    assert picture.budgets_broken({"node-2a": 500}, None) == {"rack-2"}


@pytest.mark.parametrize("name", ["aaa", "zzz"])
def test_another_group_on_a_node_does_not_hide_a_promised_floor(name: str) -> None:
    """An old group without a promise may still name the nodes, before or after the one that has."""
    old = {**group(name, "train", None, "node-1a"), "active": False}
    groups = sorted([{**g, "active": True} for g in GROUPS] + [old], key=lambda g: str(g["name"]))

    picture = Picture.of(topology(), groups, limits(set_w=400.0))

    assert picture.floors_broken({"node-1a": 300}) == {"chat"}


def test_below_half_of_natural_draw_no_floor_is_taken_to_hold() -> None:
    """The curve says nothing there: what it would promise is a guess."""
    groups = [group("chat", "train", 0.3, "node-1a")]
    picture = Picture.of(topology(), groups, limits())

    assert picture.floors_broken({"node-1a": 330}) == frozenset()
    assert picture.floors_broken({"node-1a": 250}) == {"chat"}


def test_a_grid_limit_on_one_part_of_the_site_is_a_budget_of_that_part() -> None:
    """The grid may limit one feed and leave the site without a limit."""
    picture = Picture.of(topology(), GROUPS, limits(set_w=300.0))
    load_w = picture.load_w({})["pdu-1"]
    limit = {"pdu-1": load_w + 100.0, "feed-b": None}

    assert picture.budgets_broken({"node-2a": 400}, None, limit) == {"pdu-1"}
    assert picture.budgets_broken({"node-2a": 250}, None, limit) == frozenset()
    assert picture.budgets_broken({"node-2a": 400}, None, {"feed-b": None}) == frozenset()


def test_a_limited_feed_that_the_topology_does_not_name_could_be_all_of_the_site() -> None:
    """Where it cannot be placed, power does not rise past it anywhere."""
    picture = Picture.of(topology(), GROUPS, limits(set_w=300.0))

    assert picture.budgets_broken({"node-2a": 400}, None, {"north": 1_000.0}) == {"lab"}


# ── the act ───────────────────────────────────────────────────────────────────────────────────────


class GridAndMeter:
    """No limit of the grid, and a meter that shows little."""

    def __init__(self, clock: WakefulClock) -> None:
        self._clock = clock

    @property
    def kinds(self) -> frozenset[str]:
        """What flex and exchange answer elsewhere."""
        return frozenset({GRID_LIMIT, METER_POWER})

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """The same at every moment."""
        grid = need.kind == GRID_LIMIT
        return Fact(
            kind=need.kind,
            subject=need.subject,
            value={"limit_w": None, "feed_limits_w": {}} if grid else {"power_w": 1_000.0},
            origin="test",
            version="1",
            observed_at=self._clock.now(),
            nature=Nature.MEASUREMENT,
        )


@pytest.fixture
def registry(dps: DpsClient, clock: WakefulClock) -> FactRegistry:
    """DPS as the twin shows it; grid and meter as they are put."""
    return FactRegistry([MaxlpsFacts(dps, SITE.id), GridAndMeter(clock)])


@pytest.fixture
def set_caps(dps: DpsClient, registry: FactRegistry) -> SetCaps:
    """The operation on the twin."""
    return SetCaps(dps, registry, SITE.id)


async def facts_of(set_caps: SetCaps, registry: FactRegistry, clock: WakefulClock) -> FactSet:
    """The facts before the act."""
    gathered = await registry.gather(set_caps.facts(to(400)), clock)
    assert gathered.unknown == ()
    return gathered.facts


def to(cap_w: int, *node_ids: str) -> SetCapsArguments:
    """A limit for some nodes."""
    return SetCapsArguments(gpu_cap_w_by_node=dict.fromkeys(node_ids or (NODE,), cap_w))


def limits_of(plant: Plant) -> list[float]:
    """The limits of the node's GPUs in the plant itself."""
    return [float(watts) for watts in plant.gpu_cap_set_w[GPU : GPU + GPUS]]


async def test_every_gpu_that_goes_down_goes_before_any_that_goes_up(
    set_caps: SetCaps, registry: FactRegistry, plant: Plant, twin: DpsTwin, clock: WakefulClock
) -> None:
    """Also inside one node: its GPUs need not stand alike."""
    plant.command_caps(GPU, 300.0)
    with anyio.fail_after(PATIENCE_S):
        facts = await facts_of(set_caps, registry, clock)
        reach: BlastRadius = set_caps.blast_radius(to(500), facts)
        await set_caps.execute(to(500), "chg-1")

    assert (reach.power_rise_w, reach.watts_moved) == (200, 200 + 7 * 200)
    assert twin.calls["UpdateGPUPolicies"] == 2
    assert limits_of(plant) == [500.0] * GPUS


async def test_one_gpu_that_did_not_take_its_limit_is_not_done(
    set_caps: SetCaps, registry: FactRegistry, plant: Plant, clock: WakefulClock
) -> None:
    """The highest of eight says nothing about the lowest."""
    with anyio.fail_after(PATIENCE_S):
        before = await facts_of(set_caps, registry, clock)
        plant.command_caps(list(range(GPU, GPU + GPUS)), 500.0)
        plant.command_caps(GPU, 300.0)
        since = clock.now()
        clock.advance(10.0)
        seen = await set_caps.read_back(to(500))
        verdict = await set_caps.verify(to(500), before, since)

    assert seen.happened is Happened.PARTLY
    assert verdict.held is Held.NOT_YET


async def test_each_gpu_is_brought_back_to_its_own_limit(
    set_caps: SetCaps, registry: FactRegistry, plant: Plant, clock: WakefulClock
) -> None:
    """Seven that were lowered stay low; the one that was raised goes back to where it was."""
    plant.command_caps(GPU, 300.0)
    with anyio.fail_after(PATIENCE_S):
        before = await facts_of(set_caps, registry, clock)
        await set_caps.execute(to(500), "chg-1")
        await set_caps.bring_back(to(500), before, "chg-1")

    assert limits_of(plant) == [300.0] + [500.0] * 7


async def test_a_raise_that_dps_clamped_everywhere_is_brought_back(
    set_caps: SetCaps, registry: FactRegistry, plant: Plant, twin: DpsTwin, clock: WakefulClock
) -> None:
    """Nothing is as it was asked, and yet everything has moved: that is not a no."""
    plant.command_caps(list(range(GPU, GPU + GPUS)), 400.0)
    with anyio.fail_after(PATIENCE_S):
        before = await facts_of(set_caps, registry, clock)
        twin.inject(TwinFault.CLAMP, times=1)
        with pytest.raises(ComponentError, match="another limit than asked"):
            await set_caps.execute(to(700), "chg-1")
        assert limits_of(plant) == [630.0] * GPUS
        seen = await set_caps.read_back(to(700))
        await set_caps.bring_back(to(700), before, "chg-1")

    assert seen.happened is Happened.PARTLY
    assert limits_of(plant) == [400.0] * GPUS


async def test_a_node_that_went_dark_does_not_keep_the_others_from_being_brought_back(
    set_caps: SetCaps, registry: FactRegistry, plant: Plant, clock: WakefulClock
) -> None:
    """What can be lowered is lowered, and that one could not be is said."""
    both = to(600, NODE, "node-004")
    plant.command_caps(list(range(GPU, GPU + 2 * GPUS)), 400.0)
    with anyio.fail_after(PATIENCE_S):
        before = await facts_of(set_caps, registry, clock)
        await set_caps.execute(both, "chg-1")
        plant.inject(Fault(FaultKind.NODE_DOWN, "node-004"))
        plant.step()
        with pytest.raises(ComponentError, match="node-004"):
            await set_caps.bring_back(both, before, "chg-1")

    assert limits_of(plant) == [400.0] * GPUS


async def test_releasing_the_limits_of_no_node_is_an_error(
    dps: DpsClient, registry: FactRegistry, clock: WakefulClock
) -> None:
    """An act on nothing would be verified by nothing."""
    bare = topology()
    bare["root"]["children"] = []
    values = {"power.topology": bare, "power.groups": [], "power.gpu_limits": {}}
    facts = FactSet(
        Fact(
            kind=kind,
            subject=SITE,
            value=value,
            origin="test",
            version="1",
            observed_at=clock.now(),
            nature=Nature.MEASUREMENT,
        )
        for kind, value in values.items()
    )

    with pytest.raises(InvalidRequestError, match="no node"):
        ReleaseCaps(dps, registry, SITE.id).blast_radius(ReleaseCapsArguments(node_ids=[]), facts)
