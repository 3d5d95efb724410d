"""A node agent: who may ask it, and what it sets."""

from pathlib import Path

import pytest

from interlock_plant import Plant
from interlock_servers.devices.models import Outcome
from interlock_servers.devices.node_models import Cap, CapState
from interlock_servers.devices.settings import AgentSettings
from interlock_servers.devices.twin import GpuFault
from interlock_tools.errors import (
    ComponentError,
    ConflictError,
    InvalidRequestError,
)
from tests.servers.devices.nodes import (
    KEY,
    NODE,
    Nodes,
    StepClock,
    agent_settings,
    cap,
    client_of,
    outcomes,
    running,
    shown_w,
)

# ── who may ask ───────────────────────────────────────────────────────────────────────────────


async def test_a_stranger_is_told_nothing(nodes: Nodes, tmp_path: Path) -> None:
    """Not which GPUs there are, not which node it is."""
    (tmp_path / "stranger").write_text("guessed")
    async with client_of(nodes, "stranger") as client:
        view = (await client.read([NODE]))[NODE]
    assert view.answer is None
    assert "UNAUTHENTICATED" in view.why


async def test_a_reader_reads_and_caps_nothing(nodes: Nodes) -> None:
    """Two tokens, so that what only watches holds no power over watts."""
    async with client_of(nodes, "reader") as client:
        view = (await client.read([NODE]))[NODE]
        answer = (await client.set_limits({NODE: [cap()]}, change_id="chg-1"))[NODE]
    assert view.answer is not None
    assert len(view.answer.gpus) == 8
    assert isinstance(answer, ComponentError)
    assert answer.code == "PERMISSION_DENIED"
    assert not any(nodes.twins[NODE].commands)


async def test_an_agent_that_only_reads_refuses_writers_too(
    plant: Plant, step_clock: StepClock, tmp_path: Path
) -> None:
    """The default: setting limits is a switch of its own."""
    async with (
        running(plant, step_clock, tmp_path, takes_writes=False) as nodes,
        client_of(nodes) as client,
    ):
        answer = (await client.set_limits({NODE: [cap()]}, change_id="chg-1"))[NODE]
        view = (await client.read([NODE]))[NODE]
    assert isinstance(answer, InvalidRequestError)
    assert "only reads" in str(answer)
    assert view.answer is not None
    assert not view.answer.takes_writes
    assert not any(nodes.twins[NODE].commands)


@pytest.mark.parametrize(
    "wrong",
    [
        {"reader_token_file": None, "writer_token_file": None},
        {"listen": "0.0.0.0:8480"},
        {"listen": "8480"},
        {"client_ca_file": Path("ca.pem")},
        {"cert_file": Path("cert.pem")},
        {"way": "redfish"},
        {"bmc": {"url": "https://bmc.example.com"}},
    ],
)
def test_an_agent_that_would_answer_anybody_does_not_start(
    wrong: dict[str, object], tmp_path: Path
) -> None:
    """Nobody unknown, nothing in the clear over a network, and one way to the devices."""
    with pytest.raises(ValueError, match=r"(?i)listen|needs|names?|belong|client_ca_file"):
        agent_settings(tmp_path, NODE, **wrong)


# ── setting ───────────────────────────────────────────────────────────────────────────────────


async def test_a_cap_is_set_read_back_and_held(nodes: Nodes) -> None:
    """The answer is what the device says, and the agent says what it holds for whom."""
    async with client_of(nodes) as client:
        answer = (await client.set_limits({NODE: [cap()]}, change_id="chg-1"))[NODE]
        await nodes.step()
        view = (await client.read([NODE]))[NODE]
    assert outcomes(answer) == [Outcome.APPLIED]
    assert shown_w(nodes) == 450.0
    assert view.answer is not None
    (held,) = view.answer.held
    assert (held.key, held.limit_w, held.safe_w, held.state) == (KEY, 450.0, 600.0, CapState.HELD)
    assert (held.controller_id, held.change_id, held.left_s) == ("interlock-1", "chg-1", 29.0)


@pytest.mark.parametrize(
    "caps",
    [
        [cap(s=0.0)],
        [cap(s=-1.0)],
        [cap(s=float("inf"))],
        [cap(s=float("nan"))],
        [cap(s=601.0)],
        [cap(limit_w=100.0)],
        [cap(limit_w=float("nan"))],
        [cap(safe_w=5600.0)],
        [cap(safe_w=float("nan"))],
        [cap(key="GPU-of-somebody-else")],
        [cap(), cap(limit_w=500.0)],
        [cap(), cap(key=f"GPU-{NODE}-1", limit_w=100.0)],
    ],
)
async def test_what_can_never_be_right_sets_nothing_at_all(nodes: Nodes, caps: list[Cap]) -> None:
    """A cap without an end above all: it would outlive whoever set it."""
    async with client_of(nodes) as client:
        answer = (await client.set_limits({NODE: caps}, change_id="chg-1"))[NODE]
    assert isinstance(answer, InvalidRequestError)
    assert not any(nodes.twins[NODE].commands)
    assert nodes.agents[NODE].answer().held == ()


async def test_without_a_change_nothing_is_sent(nodes: Nodes) -> None:
    """The guard's change is the right to cap; an agent refuses without one too."""
    async with client_of(nodes) as client:
        with pytest.raises(InvalidRequestError, match="no change"):
            await client.set_limits({NODE: [cap()]}, change_id="")
    with pytest.raises(InvalidRequestError, match="by what right"):
        await nodes.agents[NODE].set_limits([cap()], controller_id="x", change_id="")


async def test_an_agent_never_goes_above_its_own_ceiling(
    plant: Plant, step_clock: StepClock, tmp_path: Path
) -> None:
    """Whoever asks: what feeds the node may be less than what its GPUs could take."""
    async with running(plant, step_clock, tmp_path, other={"most_w": 500.0}) as nodes:
        for wrong in (
            cap(limit_w=550.0, safe_w=400.0),
            cap(safe_w=550.0),
            cap(safe_w=float("nan")),
        ):
            with pytest.raises(InvalidRequestError):
                await nodes.agents[NODE].set_limits([wrong], controller_id="x", change_id="c")
    assert nodes.twins[NODE].commands[0] == 0


async def test_one_controller_at_a_time(nodes: Nodes) -> None:
    """Two that cap one node would undo each other's work without knowing."""
    async with client_of(nodes) as one, client_of(nodes, controller_id="interlock-2") as two:
        await one.set_limits({NODE: [cap()]}, change_id="chg-1")
        answer = (await two.set_limits({NODE: [cap(limit_w=300.0)]}, change_id="chg-2"))[NODE]
        renewed = (await two.renew({NODE: [KEY]}, expires_in_s=60.0))[NODE]
        ended = (await two.end({NODE: [KEY]}))[NODE]
    assert isinstance(answer, ConflictError)
    assert "interlock-1" in str(answer)
    assert renewed == ()
    assert outcomes(ended) == [Outcome.REFUSED]
    assert shown_w(nodes) == 450.0


async def test_nothing_is_raised_when_a_lowering_did_not_hold(nodes: Nodes) -> None:
    """Power that was not given back cannot be given to another."""
    keys = [f"GPU-{NODE}-{gpu}" for gpu in range(2)]
    async with client_of(nodes) as client:
        await client.set_limits({NODE: [cap(key, 400.0) for key in keys]}, change_id="chg-1")
        await nodes.step()
        nodes.twins[NODE].inject(GpuFault.IGNORES, [1])
        raised, lowered = cap(keys[0], 600.0), cap(keys[1], 300.0)
        answer = (await client.set_limits({NODE: [raised, lowered]}, change_id="chg-2"))[NODE]
    assert outcomes(answer) == [Outcome.REFUSED, Outcome.IGNORED]
    assert [shown_w(nodes, gpu) for gpu in range(2)] == [400.0, 400.0]
    held = {each.key: each.limit_w for each in nodes.agents[NODE].answer().held}
    assert held == dict.fromkeys(keys, 400.0)


@pytest.mark.parametrize(
    ("fault", "outcome", "is_held"),
    [
        (GpuFault.REFUSES, Outcome.REFUSED, False),
        (GpuFault.NO_PERMISSION, Outcome.REFUSED, False),
        (GpuFault.IGNORES, Outcome.IGNORED, False),
        (GpuFault.CLAMPS, Outcome.CLAMPED, True),
        (GpuFault.LOST_ONCE_SET, Outcome.UNKNOWN, True),
    ],
)
async def test_what_may_have_moved_is_held_until_its_end_and_what_did_not_is_not(
    nodes: Nodes, fault: GpuFault, outcome: Outcome, is_held: bool
) -> None:
    """Only what was left as it was has nothing to be brought back."""
    nodes.twins[NODE].inject(fault)
    async with client_of(nodes) as client:
        answer = (await client.set_limits({NODE: [cap()]}, change_id="chg-1"))[NODE]
    assert outcomes(answer) == [outcome]
    assert bool(nodes.agents[NODE].answer().held) == is_held


def test_settings_of_an_agent_over_a_network_ask_for_certificates(tmp_path: Path) -> None:
    """The shape of a real one."""
    settings = AgentSettings(
        node_id=NODE,
        listen="0.0.0.0:8480",
        cert_file=tmp_path / "node.pem",
        key_file=tmp_path / "node.key",
        client_ca_file=tmp_path / "ca.pem",
        readers=frozenset({"interlock-reader"}),
        writers=frozenset({"interlock-guard"}),
    )
    assert settings.needs_certificate
    assert not settings.needs_token
