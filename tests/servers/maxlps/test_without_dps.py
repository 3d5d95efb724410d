"""A site without DPS, from an agent's plan to the facility's meters, and everything in between.

Whatever a device or the agent of a node does, a wrong cap is never called a success, the reason has
a name, and in doubt a GPU is at its safe value.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from interlock_guardrails.engine import create_store_engine, create_tables
from interlock_guardrails.store import Store
from interlock_servers.devices.agent import NodeAgent
from interlock_servers.devices.client import NodeClient
from interlock_servers.devices.node_models import Cap
from interlock_servers.devices.nvml import NvmlHost
from interlock_servers.devices.server import NodeServer
from interlock_servers.devices.twin import GpuFault
from interlock_servers.devices.twin_nvml import NvmlTwin
from interlock_servers.maxlps.holding import CapHolder
from interlock_servers.maxlps.node_power import NodePowerClient
from interlock_servers.maxlps.node_settings import NodePowerSettings
from interlock_servers.maxlps.safe_values import unsafe_domains
from interlock_tools.change import Change, ChangeState
from interlock_tools.errors import ComponentError
from tests.servers.devices.nodes import Nodes, client_of
from tests.servers.sites import HOLD_S, Lab, open_lab

TRAINING = ("node-001", "node-002", "node-003")
ONE = TRAINING[0]
SAFE_W = 490.0


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """Four nodes, their agents, meters and the grid; nothing is limited."""
    async with open_lab(tmp_path, without_dps=True) as opened:
        yield opened


def nodes_of(lab: Lab) -> Nodes:
    """The agents."""
    assert lab.nodes is not None
    return lab.nodes


def limits_w(lab: Lab, node_id: str) -> set[float]:
    """What the GPUs of the plant are limited to."""
    return set(lab.plant.gpu_cap_set_w[lab.plant.site.gpus_of_node(node_id)].tolist())


async def set_caps(lab: Lab, node_ids: tuple[str, ...], watts: int, **more: object) -> Change:
    """Propose, approve and see the end."""
    caps = dict.fromkeys(node_ids, watts)
    change = await lab.propose("set_caps", gpu_cap_w_by_node=caps, **more)
    await lab.approve(change)
    return await lab.end_of(change)


def told(change: Change) -> str:
    """All that a person can read of why it ended as it did."""
    return " ".join([*(step.why for step in change.history), str(change.evidence)])


# ── the way that it should go ─────────────────────────────────────────────────────────────────────


async def test_a_grid_limit_is_met_through_the_nodes_and_shown_by_the_facilitys_meters(
    lab: Lab,
) -> None:
    """Plan, propose, vote, act; the meters below the limit, and the change known on each node."""
    limit_w = 25_000.0
    assert lab.plant.site_meter_w > limit_w
    await lab.limit(limit_w)
    plan = await lab.call("maxlps", "plan_caps", site_limit_w=limit_w, moves="down")
    assert plan["feasible"], plan["why"]

    change = await lab.propose("set_caps", gpu_cap_w_by_node=plan["gpu_cap_w_by_node"])
    await lab.approve(change)
    ended = await lab.end_of(change)

    assert ended.state is ChangeState.SUCCEEDED, told(ended)
    assert ended.evidence["verified"]["source"] == "the facility's metering"
    held = nodes_of(lab).agents[ONE].answer().held
    assert {cap.change_id for cap in held} == {change["change_id"]}
    assert not lab.writes()  # DPS is there, and nobody asked it
    lab.plant.score.mark()
    for _ in range(int(HOLD_S) + 20):  # longer than a cap lasts without us
        await lab.second()
        assert lab.plant.site_meter_w <= limit_w
    assert not any(lab.plant.score.below_floor_s.values())


async def test_safe_values_that_break_a_budget_are_told_before_they_are_needed(lab: Lab) -> None:
    """All nodes go there when we are not heard: 490 W of each GPU fit, 700 W do not."""
    settings = lab.site.settings.maxlps
    assert isinstance(settings, NodePowerSettings)
    await lab.call("devices", "list_hosts")
    assert "safe values" not in lab.says("maxlps")
    shown = dict.fromkeys(lab.plant.site.node_ids, 8)
    high = settings.model_copy(update={"safe_w": 700.0})
    small = settings.entities[3].model_copy(update={"budget_w": 26_000.0})
    entities = (*settings.entities[:3], small, *settings.entities[4:])
    async with client_of(nodes_of(lab)) as client:
        tight = high.model_copy(update={"entities": entities})
        topology = await NodePowerClient(tight, client, lab.clock).active_topology()
    assert unsafe_domains(settings, topology, shown) == {}
    assert set(unsafe_domains(tight, topology, shown)) == {"rack-01"}


async def test_the_power_of_a_site_is_what_its_gpus_draw_and_never_zero(lab: Lab) -> None:
    """No node tells its whole power here: what is not known is absent."""
    await lab.second()
    listed = await lab.call("maxlps", "list_nodes")
    drawn_w = lab.plant.gpu_power_w[lab.plant.site.gpus_of_node(ONE)]
    row = next(node for node in listed["nodes"] if node["node_id"] == ONE)
    assert row["power_w"] == [round(float(w)) for w in drawn_w]
    hosts = await lab.call("devices", "list_hosts")
    assert hosts["nodes"][0]["power_w"] == pytest.approx(float(drawn_w.sum()), abs=1)

    nodes_of(lab).twins[ONE].inject(GpuFault.LOST, [2])
    await lab.second()
    hosts = await lab.call("devices", "list_hosts")
    assert "power_w" not in hosts["nodes"][0]
    listed = await lab.call("maxlps", "list_nodes")
    row = next(node for node in listed["nodes"] if node["node_id"] == ONE)
    assert "max_w" not in row  # its limits are not all known: it is dark
    with pytest.raises(ComponentError, match=f"{ONE}: its GPUs' limits are not known"):
        await lab.propose("set_caps", gpu_cap_w_by_node={ONE: 400})


# ── devices that do something else ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (GpuFault.REFUSES, "refused"),
        (GpuFault.NO_PERMISSION, "refused"),
        (GpuFault.IGNORES, "ignored"),
        (GpuFault.CLAMPS, "took another limit than asked"),
    ],
)
async def test_a_device_that_does_not_take_its_limit_is_named_and_nothing_is_called_done(
    lab: Lab, fault: GpuFault, named: str
) -> None:
    """One of 24 GPUs: what was lowered stays low, nothing rises, and the reason is there."""
    nodes_of(lab).twins[ONE].inject(fault, [5])

    ended = await set_caps(lab, TRAINING, 400)

    assert ended.state is ChangeState.COMPENSATED
    assert named in told(ended)
    assert ONE in told(ended)
    assert max(lab.plant.gpu_cap_set_w) <= 700.0
    assert limits_w(lab, TRAINING[1]) == {400.0}


async def test_a_raise_beside_a_device_that_refuses_is_taken_back(lab: Lab) -> None:
    """Half a raise is no raise: every GPU is at or below where it was."""
    assert (await set_caps(lab, TRAINING, 400)).state is ChangeState.SUCCEEDED
    nodes_of(lab).twins[ONE].inject(GpuFault.REFUSES, [5])

    ended = await set_caps(lab, TRAINING, 500)

    assert ended.state is ChangeState.COMPENSATED
    assert f"{ONE}/5: refused" in told(ended)
    assert all(limits_w(lab, node_id) == {400.0} for node_id in TRAINING)


async def test_a_device_that_shows_a_limit_and_does_not_follow_it_is_caught_by_the_meter(
    lab: Lab,
) -> None:
    """The driver says 300 W and draws what it likes: only another source can tell."""
    for node_id in TRAINING:
        nodes_of(lab).twins[node_id].inject(GpuFault.LIES_ABOUT_LIMIT)

    ended = await set_caps(lab, TRAINING, 300)

    assert ended.state is ChangeState.COMPENSATED
    assert "the facility's metering does not show it" in told(ended)


async def test_a_limit_that_reverts_is_never_left_unsaid(lab: Lab) -> None:
    """A reset, or another writer: it is told by name and not set again, two would fight."""
    nodes_of(lab).twins[ONE].inject(GpuFault.REVERTS)

    ended = await set_caps(lab, TRAINING, 400)

    for _ in range(int(HOLD_S)):
        await lab.second()
    assert limits_w(lab, ONE) == {700.0}
    assert ended.state is ChangeState.COMPENSATED or "somebody else changed" in lab.says("devices")
    assert f"{ONE}: " in lab.says("devices")


# ── agents that lie, stop, restart ────────────────────────────────────────────────────────────────


async def test_a_node_that_lies_is_named_and_takes_no_part(lab: Lab) -> None:
    """Its energy counter contradicts the power that it shows: nothing is sent to it."""
    nodes_of(lab).twins[ONE].inject(GpuFault.LIES_ABOUT_POWER)
    for _ in range(6):
        await lab.second()
        hosts = await lab.call("devices", "list_hosts")
    row = next(one for one in hosts["nodes"] if one["node_id"] == ONE)
    assert row["lies"]
    assert "energy counter" in row["why"]

    plan = await lab.call("maxlps", "plan_caps", site_limit_w=25_000.0)
    assert plan["dark"] == [ONE]
    assert ONE not in plan["gpu_cap_w_by_node"]
    with pytest.raises(ComponentError, match=ONE):
        await lab.propose("set_caps", gpu_cap_w_by_node={ONE: 400})
    assert not any(nodes_of(lab).twins[ONE].commands)


async def test_an_agent_that_stops_lets_its_caps_go_and_is_reported(lab: Lab) -> None:
    """A clean stop ends every cap at its safe value; whoever counted on it is told."""
    assert (await set_caps(lab, TRAINING, 400)).state is ChangeState.SUCCEEDED
    await (
        nodes_of(lab)
        .agents[ONE]
        .end([f"GPU-{ONE}-{gpu}" for gpu in range(8)], controller_id="interlock-1")
    )
    for _ in range(int(HOLD_S / 2)):
        await lab.second()

    assert limits_w(lab, ONE) == {SAFE_W}
    assert limits_w(lab, TRAINING[1]) == {400.0}
    assert f"{ONE}: a cap is no longer held" in lab.says("devices")


async def test_a_silent_interlock_leaves_every_gpu_at_its_safe_value(lab: Lab) -> None:
    """Nobody renews: the nodes end their caps by themselves."""
    assert (await set_caps(lab, TRAINING, 400)).state is ChangeState.SUCCEEDED
    await nodes_of(lab).step(int(HOLD_S) + 1)
    assert all(limits_w(lab, node_id) == {SAFE_W} for node_id in TRAINING)


@pytest.mark.trap("DV-G04")
async def test_a_raise_whose_end_cannot_be_brought_is_let_go_to_the_safe_value(lab: Lab) -> None:
    """Nobody renews what is overdue, so the node's own end comes, as soon as the device lets it."""
    nodes = nodes_of(lab)
    assert (await set_caps(lab, TRAINING, 400)).state is ChangeState.SUCCEEDED
    raised = await set_caps(lab, TRAINING[:1], 600, expires_in_s=30)
    assert raised.state is ChangeState.SUCCEEDED
    nodes.twins[ONE].inject(GpuFault.REFUSES)
    for _ in range(30 + 60 + 2 * int(HOLD_S)):
        await lab.second()

    assert limits_w(lab, ONE) == {600.0}  # nothing can move it now, and it is said
    assert f"{raised.change_id} has ended and was not taken back" in lab.says("devices")
    nodes.twins[ONE].repair(GpuFault.REFUSES)
    await lab.second()
    assert limits_w(lab, ONE) == {SAFE_W}
    assert limits_w(lab, TRAINING[1]) == {400.0}


async def test_an_agent_that_dies_and_comes_back_goes_on_with_its_caps(lab: Lab) -> None:
    """Killed, not stopped: what it held stands in its file, and our sign of life finds it again."""
    nodes = nodes_of(lab)
    assert (await set_caps(lab, TRAINING, 400)).state is ChangeState.SUCCEEDED
    left = nodes.agents[ONE].settings.state_file.read_text("utf-8")
    dead = nodes.agents.pop(ONE)
    await nodes.servers.pop(ONE).__aexit__(None, None, None)
    for _ in range(20):
        await lab.second()
    listed = await lab.call("devices", "list_hosts")
    assert listed["nodes"][0]["state"] == "stale"
    assert f"{ONE} does not answer" in lab.says("devices")
    settings = dead.settings.model_copy(
        update={"listen": nodes.addresses[ONE], "state_file": nodes.folder / "again.json"}
    )
    settings.state_file.write_text(left, "utf-8")

    library = NvmlTwin(nodes.twins[ONE])
    agent = NodeAgent(
        settings, nodes.clock, lambda: NvmlHost(nodes.clock, library), takes_writes=True
    )
    async with agent, NodeServer(agent, nodes.clock):
        nodes.agents[ONE] = agent
        for _ in range(int(HOLD_S / 2)):  # gRPC comes back by the machine's time, not by ours
            await lab.second()
            await anyio.sleep(0.1)
            listed = await lab.call("devices", "list_hosts")
            if listed["nodes"][0]["state"] == "fresh":
                break
        for _ in range(2 * int(HOLD_S)):
            await lab.second()
        assert limits_w(lab, ONE) == {400.0}
        assert len(agent.answer().held) == 8
        del nodes.agents[ONE]


# ── two masters ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.trap("DV-G05")
async def test_where_another_controller_holds_a_gpu_nothing_is_sent_anywhere(lab: Lab) -> None:
    """Two masters of one GPU would fight; the other one is named."""
    nodes = nodes_of(lab)
    async with client_of(nodes, controller_id="other-house") as other:
        cap = Cap(f"GPU-{ONE}-0", 350.0, 350.0, 600.0)
        await other.set_limits({ONE: [cap]}, change_id="theirs-1")
    await lab.second()
    sent = {node_id: list(twin.commands) for node_id, twin in nodes.twins.items()}

    ended = await set_caps(lab, TRAINING, 400)

    assert ended.state is ChangeState.COMPENSATED
    assert "other-house holds 350 W" in told(ended)
    assert {node_id: twin.commands for node_id, twin in nodes.twins.items()} == sent


# ── after a restart ───────────────────────────────────────────────────────────────────────────────


def again(lab: Lab, client: NodeClient, store: Store) -> CapHolder:
    """A holder that remembers nothing, as after a restart."""
    settings = lab.site.settings.maxlps
    assert isinstance(settings, NodePowerSettings)
    clock = nodes_of(lab).clock
    return CapHolder(NodePowerClient(settings, client, clock), store, clock, HOLD_S)


async def test_after_a_restart_the_caps_of_known_changes_are_found_and_kept(lab: Lab) -> None:
    """The nodes say what is held and the store by which change: nothing else is remembered."""
    assert (await set_caps(lab, TRAINING, 400)).state is ChangeState.SUCCEEDED
    async with client_of(nodes_of(lab)) as client:
        holder = again(lab, client, lab.site.guard.store)
        for _ in range(4):
            await nodes_of(lab).step(int(HOLD_S / 2))
            await holder.round()
    assert holder.trouble is None
    assert holder.notes() == ()
    assert all(limits_w(lab, node_id) == {400.0} for node_id in TRAINING)


async def test_caps_that_the_store_does_not_know_are_let_go(lab: Lab, tmp_path: Path) -> None:
    """Whoever cannot say why a cap stands does not keep it: it ends at its safe value."""
    assert (await set_caps(lab, TRAINING, 400)).state is ChangeState.SUCCEEDED
    engine = create_store_engine(f"sqlite:///{tmp_path / 'other.db'}")
    create_tables(engine)
    try:
        async with client_of(nodes_of(lab)) as client:
            holder = again(lab, client, Store(engine))
            await nodes_of(lab).step(int(HOLD_S / 2))
            await holder.round()
            assert "is no change of this store" in holder.notes()[0].says
            await nodes_of(lab).step(int(HOLD_S / 2) + 1)
    finally:
        engine.dispose()
    assert all(limits_w(lab, node_id) == {SAFE_W} for node_id in TRAINING)


async def test_where_the_store_cannot_be_read_nothing_is_renewed(lab: Lab, tmp_path: Path) -> None:
    """Then nobody knows what may last, and the trouble has a name."""
    assert (await set_caps(lab, TRAINING, 400)).state is ChangeState.SUCCEEDED
    engine = create_store_engine(f"sqlite:///{tmp_path / 'empty.db'}")  # without tables
    try:
        async with client_of(nodes_of(lab)) as client:
            holder = again(lab, client, Store(engine))
            await nodes_of(lab).step(int(HOLD_S / 2))
            await holder.round()
            assert holder.trouble is not None
            await nodes_of(lab).step(int(HOLD_S / 2) + 1)
    finally:
        engine.dispose()
    assert all(limits_w(lab, node_id) == {SAFE_W} for node_id in TRAINING)
