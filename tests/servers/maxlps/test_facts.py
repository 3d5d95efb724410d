"""What the guard learns of a site's power, and how it can tell one state from another."""

import json
from datetime import timedelta
from typing import Any

import anyio
import pytest
from google.protobuf.message_factory import GetMessageClass

from interlock_plant import Fault, FaultKind, Plant
from interlock_servers.maxlps.allocator.evidence import Evidence
from interlock_servers.maxlps.client import DpsClient
from interlock_servers.maxlps.facts import KEPT_S, POWER_GPU_LIMITS, MaxlpsFacts
from interlock_servers.maxlps.models import Entity, Level, Topology, power_tree
from interlock_servers.maxlps.settings import Loop
from interlock_servers.maxlps.twin import DpsTwin, TwinFault
from interlock_servers.maxlps.twin_schema import build_pool
from interlock_servers.maxlps.wire import entity_of, group_of, node_of
from interlock_servers.transports.grpc_record import Record
from interlock_tools.errors import ComponentError
from interlock_tools.fact import Fact, FactNeed, Nature, Unknown
from interlock_tools.identity import Target
from tests.servers.maxlps.conftest import START, WakefulClock

PATIENCE_S = 20.0
SITE = Target(kind="site", id="hall")


async def ask(dps: DpsClient, kind: str) -> Fact:
    """One fact of the site, which must be known."""
    with anyio.fail_after(PATIENCE_S):
        answer = await MaxlpsFacts(dps, "hall").fact(FactNeed(kind=kind, subject=SITE, max_age_s=9))
    assert isinstance(answer, Fact)
    json.dumps(answer.value)
    return answer


@pytest.mark.parametrize(
    ("kind", "nature"),
    [
        ("power.topology", Nature.IDENTITY),
        ("power.groups", Nature.IDENTITY),
        ("power.gpu_limits", Nature.MEASUREMENT),
    ],
)
async def test_a_fact_says_where_it_came_from_and_of_when_it_is(
    dps: DpsClient, clock: WakefulClock, kind: str, nature: Nature
) -> None:
    """And the same state twice has the same version."""
    clock.advance(30)
    fact = await ask(dps, kind)
    assert (fact.origin, fact.nature, fact.subject) == ("maxlps", nature, SITE)
    assert fact.observed_at == START + timedelta(seconds=30)
    assert fact.version == (await ask(dps, kind)).version


async def test_a_fact_is_as_old_as_its_answer_and_not_as_the_question(
    dps: DpsClient, twin: DpsTwin
) -> None:
    """A retry took a second; the answer is of afterwards."""
    twin.inject(TwinFault.UNAVAILABLE, times=1)
    fact = await ask(dps, "power.groups")
    assert fact.observed_at == START + timedelta(seconds=1)


async def test_limits_are_given_per_gpu_and_change_their_version(dps: DpsClient) -> None:
    """A list by GPU id, for every node of the topology."""
    before = await ask(dps, "power.gpu_limits")
    await dps.set_gpu_limits({"node-001": {2: 400.0}})
    after = await ask(dps, "power.gpu_limits")
    node = after.value["node-001"]
    assert node["set_w"] == [700.0, 700.0, 400.0, *[700.0] * 5]
    assert (node["min_w"], node["max_w"], len(node["power_w"])) == (200.0, 700.0, 8)
    assert before.version != after.version
    assert set(after.value) == {f"node-{number:03d}" for number in range(1, 13)}


async def test_the_limits_of_a_dark_node_are_null(dps: DpsClient, plant: Plant) -> None:
    """Unknown is a value of its own."""
    plant.inject(Fault(FaultKind.NODE_DOWN, "node-003"))
    value = (await ask(dps, "power.gpu_limits")).value["node-003"]
    nothing = [None] * 8
    assert value == {"set_w": nothing, "min_w": None, "max_w": None, "power_w": nothing}


async def test_groups_and_topology_are_whole(dps: DpsClient) -> None:
    """Names, promises, levels and budgets arrive as JSON."""
    groups = (await ask(dps, "power.groups")).value
    root = (await ask(dps, "power.topology")).value["root"]
    assert [group["name"] for group in groups] == ["chat", "pretrain"]
    assert groups[0]["slo_floor"] == 0.95
    feed = root["children"][0]
    assert (root["level"], feed["level"], feed["budget_w"]) == ("site", "feed", 120_000.0)


async def test_another_site_and_another_kind_are_unknown(dps: DpsClient) -> None:
    """A source answers for what it sees, and says what it does not."""
    facts = MaxlpsFacts(dps, "hall")
    elsewhere = FactNeed(kind="power.groups", subject=Target(kind="site", id="other"), max_age_s=9)
    other_kind = FactNeed(kind="power.colour", subject=SITE, max_age_s=9)
    with anyio.fail_after(PATIENCE_S):
        assert isinstance(await facts.fact(elsewhere), Unknown)
        assert isinstance(await facts.fact(other_kind), Unknown)


def test_another_budget_is_another_topology_even_under_the_same_hash() -> None:
    """What DPS's hash covers is not public; a vote on 200 kW must not stand for 100 kW."""
    versions = set()
    for budget_w in (100e3, 200e3):
        entities = [
            Entity("site", "PowerDomain", budget_w, ("node",)),
            Entity("node", "ComputerSystem", None, ()),
        ]
        versions.add(Topology("t", "same", power_tree("t", entities)).version)
    assert len(versions) == 2


def test_several_power_domains_hang_under_a_site_without_a_budget() -> None:
    """No budget is made up for a root that DPS does not have."""
    entities = [
        Entity("feed-a", "PowerDomain", 1e5, ("rack-1",)),
        Entity("feed-b", "PowerDomain", 1e5, ()),
        Entity("rack-1", "PowerDistribution", None, ("n1",)),
        Entity("n1", "ComputerSystem", None, ()),
    ]
    root = power_tree("lab", entities)
    assert (root.name, root.level, root.budget_w) == ("lab", Level.SITE, None)
    levels = [(node.name, node.level.value) for node in root.walk()]
    assert levels[1:] == [
        ("feed-a", "feed"),
        ("rack-1", "rack"),
        ("n1", "node"),
        ("feed-b", "feed"),
    ]


def entity(name: str, *children: str) -> Entity:
    """A distribution with these children."""
    return Entity(name, "PowerDistribution", 1e3, children)


@pytest.mark.parametrize(
    ("entities", "why"),
    [
        ([], "twice, or none"),
        ([entity("a"), entity("a")], "twice"),
        ([entity("a", "b")], "does not hold"),
        ([entity("a", "c"), entity("b", "c"), entity("c")], "two parents"),
        ([entity("a"), entity("b", "c"), entity("c", "b")], "circle"),
        ([entity(f"e{n}", f"e{n + 1}") for n in range(40)] + [entity("e40")], "deeper"),
    ],
)
def test_what_is_no_tree_is_refused(entities: list[Entity], why: str) -> None:
    """Budgets add up on trees only."""
    with pytest.raises(ComponentError, match=why):
        power_tree("lab", entities)


def message(name: str) -> Any:
    """An empty message of DPS."""
    return GetMessageClass(build_pool().FindMessageTypeByName(f"nvidia.dcpower.v1.{name}"))()


@pytest.mark.parametrize(
    "power",
    [
        {"Value": 100, "Type": "kW"},
        {"Value": 100_000, "Type": "VA"},
        {"Value": 80, "Type": "%"},
        {"Value": 100_000},
        {"Value": "100000", "Type": "W"},
        {"Value": -1, "Type": "W"},
    ],
)
def test_a_budget_that_is_not_in_watts_is_refused_and_not_guessed(power: dict[str, Any]) -> None:
    """A thousandfold misread in either direction would pass for a number of watts."""
    raw = message("TopologyEntity")
    raw.entity.update({"Name": "pdu", "Type": "PowerDistribution"})
    assert entity_of(Record(raw)).budget_w is None
    raw.entity.update({"Constraints": {"PowerValue": power}})
    with pytest.raises(ComponentError, match="not in watts"):
        entity_of(Record(raw))


@pytest.mark.parametrize("floor", ["often", 1.5, 0, -0.5, True, ["0.9"]])
def test_a_promise_that_cannot_be_read_is_not_no_promise(floor: Any) -> None:
    """Its owner meant something; capping as if there were none would break it."""
    raw = message("ResourceGroupInfo")
    raw.group_name = "chat"
    raw.properties.update({"slo_floor": "0.95"})
    assert group_of(Record(raw)).slo_floor == 0.95
    raw.properties.update({"slo_floor": floor})
    with pytest.raises(ComponentError, match="slo_floor"):
        group_of(Record(raw))


@pytest.mark.parametrize("ids", [("0", "0"), ("8",), ("GPU-0",), ("",)])
def test_gpus_that_cannot_be_told_apart_are_refused(ids: tuple[str, ...]) -> None:
    """A limit would go to another GPU than the one it was read from."""
    raw = message("NodeMetrics")
    raw.name, raw.num_gpus = "node-001", 8
    for gpu_id in ids:
        raw.gpus.add(id=gpu_id)
    with pytest.raises(ComponentError, match="node-001"):
        node_of(Record(raw))


async def test_an_answer_is_kept_for_moments_and_never_beyond_a_write(
    dps: DpsClient, clock: WakefulClock, twin: DpsTwin
) -> None:
    """A plan and its proposal look at once; what was written must be read anew."""
    facts = MaxlpsFacts(dps, "hall")
    need = FactNeed(kind=POWER_GPU_LIMITS, subject=SITE, max_age_s=30.0)

    first = await facts.fact(need)
    assert await facts.fact(need) is first
    assert twin.calls["MetricsQuery"] == 1
    await dps.set_gpu_limits({"node-003": {0: 400.0}})
    after = await facts.fact(need)
    assert isinstance(after, Fact)
    assert after.value["node-003"]["set_w"][0] == 400.0
    clock.advance(KEPT_S)
    assert await facts.fact(need) is not after
    assert twin.calls["MetricsQuery"] == 3


async def test_loops_and_promises_of_the_settings_are_part_of_the_topology(dps: DpsClient) -> None:
    """DPS knows neither; whoever plans and whoever judges sees both, and a change of them."""
    need = FactNeed(kind="power.topology", subject=SITE, max_age_s=30.0)
    bare = await MaxlpsFacts(dps, "hall").fact(need)
    loop = Loop(name="cdu-1", rack_ids=("rack-01",), heat_w=60_000.0)

    told = await MaxlpsFacts(dps, "hall", loops=(loop,), tenants_least_w={"aurora": 9_000.0}).fact(
        need
    )

    assert isinstance(bare, Fact)
    assert isinstance(told, Fact)
    assert told.value["loops"] == [{"name": "cdu-1", "rack_ids": ["rack-01"], "heat_w": 60_000.0}]
    assert told.value["tenants_least_w"] == {"aurora": 9_000.0}
    assert told.version != bare.version


async def test_work_that_was_measured_comes_with_its_limits(dps: DpsClient) -> None:
    """A fit of the group's samples, at the pessimistic end for what was promised."""
    cap_w = [350.0, 420.0, 490.0, 560.0, 630.0, 700.0] * 20
    power_w = [min(0.99 * cap, 560.0) for cap in cap_w]
    rate = [min(1.0, cap / 560.0) ** 0.6 for cap in cap_w]
    seen = Evidence.of(cap_w, power_w, rate)

    def samples(group: str) -> Evidence | None:
        return seen if group == "pretrain" else None

    facts = MaxlpsFacts(dps, "hall", samples=samples)
    limits = await facts.fact(FactNeed(kind=POWER_GPU_LIMITS, subject=SITE, max_age_s=30.0))

    assert isinstance(limits, Fact)
    assert limits.value["node-003"]["fit"]["natural_w"] == pytest.approx(560.0, rel=0.03)
    assert "fit" not in limits.value["node-001"]  # chat: nobody measured it
