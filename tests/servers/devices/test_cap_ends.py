"""How every cap ends without anybody's help, whatever happens to controller, agent or driver."""

from pathlib import Path

import anyio
import pytest

from interlock_plant import Plant
from interlock_servers.devices.agent import NodeAgent
from interlock_servers.devices.leases import LeaseBook
from interlock_servers.devices.models import Outcome
from interlock_servers.devices.node_models import CapState
from interlock_servers.devices.nvml import NvmlHost
from interlock_servers.devices.twin import GpuFault, HostTwin
from interlock_servers.devices.twin_nvml import NvmlTwin
from interlock_tools.errors import (
    ConflictError,
    FactoryError,
    InvalidRequestError,
    UnavailableError,
)
from tests.servers.devices.nodes import (
    KEY,
    NODE,
    OTHER,
    Nodes,
    StepClock,
    agent_settings,
    cap,
    client_of,
    outcomes,
    running,
    shown_w,
)
from tests.servers.waiting import until

# ── ends ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.trap("DV-G02")
async def test_when_the_controller_is_silent_the_safe_value_comes_back_by_itself(
    nodes: Nodes,
) -> None:
    """The dead man's switch: nobody asks, nobody answers, and the cap ends all the same."""
    async with client_of(nodes) as client:
        await client.set_limits({NODE: [cap()]}, change_id="chg-1")
    await nodes.step(29)
    assert shown_w(nodes) == 450.0
    await nodes.step(1)
    assert shown_w(nodes) == 600.0
    assert nodes.agents[NODE].answer().held == ()


async def test_a_sign_of_life_lets_a_cap_last(nodes: Nodes) -> None:
    """And only the caps that it names."""
    other = f"GPU-{NODE}-1"
    async with client_of(nodes) as client:
        await client.set_limits({NODE: [cap(), cap(other)]}, change_id="chg-1")
        for _ in range(3):
            await nodes.step(20)
            renewed = (await client.renew({NODE: [KEY]}, expires_in_s=30.0))[NODE]
            assert not isinstance(renewed, FactoryError)
            assert [each.key for each in renewed] == [KEY]
        late = (await client.renew({NODE: [other]}, expires_in_s=30.0))[NODE]
    assert late == ()
    assert [shown_w(nodes, gpu) for gpu in range(2)] == [450.0, 600.0]


async def test_an_end_that_comes_early_is_asked_for(nodes: Nodes) -> None:
    """Back to the safe value at once."""
    async with client_of(nodes) as client:
        await client.set_limits({NODE: [cap()]}, change_id="chg-1")
        ended = (await client.end({NODE: [KEY]}))[NODE]
    assert outcomes(ended) == [Outcome.APPLIED]
    assert shown_w(nodes) == 600.0
    assert nodes.agents[NODE].answer().held == ()


async def test_a_device_that_does_not_take_its_safe_value_is_tried_again(nodes: Nodes) -> None:
    """Until it has it; meanwhile everybody is told that the cap is overdue."""
    async with client_of(nodes) as client:
        await client.set_limits({NODE: [cap()]}, change_id="chg-1")
        nodes.twins[NODE].inject(GpuFault.REFUSES)
        await nodes.step(40)
        view = (await client.read([NODE]))[NODE]
        assert view.answer is not None
        assert [held.state for held in view.answer.held] == [CapState.OVERDUE]
        assert shown_w(nodes) == 450.0
        nodes.twins[NODE].repair(GpuFault.REFUSES)
        await nodes.step()
    assert shown_w(nodes) == 600.0
    assert nodes.agents[NODE].answer().held == ()


async def test_what_somebody_else_set_lower_is_not_raised_to_our_safe_value(nodes: Nodes) -> None:
    """An operator who caps to 300 W by hand had a reason."""
    async with client_of(nodes) as client:
        await client.set_limits({NODE: [cap()]}, change_id="chg-1")
    nodes.twins[NODE].set_limit_w(0, 300.0)
    await nodes.step()
    assert nodes.agents[NODE].answer().held[0].state is CapState.REVERTED
    await nodes.step(40)
    assert shown_w(nodes) == 300.0
    assert nodes.agents[NODE].answer().held == ()


@pytest.mark.trap("DV-N10")
async def test_a_limit_that_a_reset_took_away_is_told_and_not_set_again(nodes: Nodes) -> None:
    """The driver forgets limits when it is loaded anew; whoever holds the cap decides."""
    async with client_of(nodes) as client:
        await client.set_limits({NODE: [cap()]}, change_id="chg-1")
        nodes.twins[NODE].set_limit_w(0, 700.0)
        before = nodes.twins[NODE].commands[0]
        await nodes.step()
        view = (await client.read([NODE]))[NODE]
    assert view.answer is not None
    assert view.answer.held[0].state is CapState.REVERTED
    assert nodes.twins[NODE].commands[0] == before


async def test_caps_end_when_the_agent_is_stopped(
    plant: Plant, step_clock: StepClock, tmp_path: Path
) -> None:
    """Nobody would end them afterwards."""
    async with running(plant, step_clock, tmp_path) as nodes, client_of(nodes) as client:
        await client.set_limits({NODE: [cap()]}, change_id="chg-1")
        assert shown_w(nodes) == 450.0
    assert shown_w(nodes) == 600.0


async def test_after_a_crash_overdue_caps_end_before_anything_else(
    plant: Plant, step_clock: StepClock, tmp_path: Path
) -> None:
    """What was held is on disk before it is set, so whoever is started next knows it."""
    twin = HostTwin(plant, NODE)
    settings = agent_settings(tmp_path, NODE)
    library = NvmlTwin(twin)
    crashed = NodeAgent(
        settings, step_clock, lambda: NvmlHost(step_clock, library), takes_writes=True
    )
    await crashed.look()
    await crashed.set_limits([cap()], controller_id="x", change_id="chg-1")
    assert [lease.key for lease in LeaseBook(settings.state_file).all()] == [KEY]
    del crashed  # nobody is told; it is just gone
    step_clock.advance(60)
    plant.step()
    async with NodeAgent(
        settings, step_clock, lambda: NvmlHost(step_clock, library), takes_writes=False
    ) as agent:
        assert agent.answer().held == ()
        assert float(plant.gpu_cap_set_w[twin.gpus[0]]) == 600.0


async def test_a_clock_that_is_set_back_ends_caps_rather_than_prolong_them(nodes: Nodes) -> None:
    """A cap of 30 s must not last a year because the machine believes it is last year."""
    async with client_of(nodes) as client:
        await client.set_limits({NODE: [cap()]}, change_id="chg-1")
    await nodes.step(1)
    nodes.clock.advance(-86_400)
    await nodes.agents[NODE].look()
    assert shown_w(nodes) == 600.0


def test_an_agent_that_cannot_know_what_it_holds_does_not_start(
    step_clock: StepClock, tmp_path: Path
) -> None:
    """It would let caps stand for ever that it was to end."""
    settings = agent_settings(tmp_path, NODE)
    for text in ("{", "[]", '{"format": "interlock.held-caps/1", "held": [{"key": 1}]}'):
        settings.state_file.write_text(text)
        with pytest.raises(InvalidRequestError, match="cannot be read"):
            NodeAgent(settings, step_clock, lambda: NvmlHost(step_clock), takes_writes=True)


# ── a driver that hangs ───────────────────────────────────────────────────────────────────────


@pytest.mark.trap("DV-G01")
async def test_a_limit_that_waited_behind_a_hung_driver_is_never_set(
    plant: Plant, step_clock: StepClock, tmp_path: Path
) -> None:
    """Asked for before the hang, refused in time, it must not come minutes later."""
    quick = {"driver_timeout_s": 0.3}
    async with running(plant, step_clock, tmp_path, node_ids=(NODE,), other=quick) as nodes:
        nodes.twins[NODE].inject(GpuFault.HANGS)
        await nodes.step()
        assert nodes.agents[NODE].answer().failure == "the driver does not answer"
        with pytest.raises(ConflictError, match="nothing was set"):
            await nodes.agents[NODE].set_limits([cap()], controller_id="x", change_id="c")
        nodes.twins[NODE].repair(GpuFault.HANGS)
        with anyio.fail_after(10):
            while nodes.agents[NODE].answer().failure:
                await nodes.step()
        assert nodes.twins[NODE].commands == [0] * 8
        assert nodes.agents[NODE].answer().held == ()


async def test_readers_are_answered_while_the_driver_hangs_and_told_how_old_it_is(
    plant: Plant, step_clock: StepClock, tmp_path: Path
) -> None:
    """An answer never waits for a device."""
    quick = {"driver_timeout_s": 0.3}
    async with (
        running(plant, step_clock, tmp_path, other=quick) as nodes,
        client_of(nodes, fresh_s=5.0) as client,
    ):
        nodes.twins[NODE].inject(GpuFault.HANGS)
        await nodes.step(8)
        views = await client.read()
        nodes.twins[NODE].repair(GpuFault.HANGS)
    assert (views[NODE].state.value, views[OTHER].state.value) == ("stale", "fresh")
    assert views[NODE].why == "the driver does not answer"
    last = views[NODE].answer
    assert last is not None
    assert last.age_s == 8.0


async def test_whatever_breaks_caps_go_on_ending(
    plant: Plant, step_clock: StepClock, tmp_path: Path
) -> None:
    """A driver that fails as no library should must not take the dead man's switch with it."""
    async with running(plant, step_clock, tmp_path, node_ids=(NODE,)) as nodes:
        agent, keys = nodes.agents[NODE], [f"GPU-{NODE}-{gpu}" for gpu in range(3)]
        await agent.set_limits([cap(key) for key in keys], controller_id="x", change_id="c")
        nodes.twins[NODE].inject(GpuFault.BREAKS, [1])
        plant.step()
        for seconds in (10, 30, 1):  # by its own loop: it breaks, and it goes on
            step_clock.advance(seconds)
            step_clock.wake()
            await until(lambda: step_clock.sleepers and "Runtime" in agent.answer().failure)
        assert [shown_w(nodes, gpu) for gpu in range(3)] == [600.0, 450.0, 600.0]
        assert [held.key for held in agent.answer().held] == [keys[1]]
        nodes.twins[NODE].repair(GpuFault.BREAKS)
        await nodes.step()
    assert shown_w(nodes, 1) == 600.0


async def test_an_agent_stops_in_bounded_time_though_its_driver_hangs(
    plant: Plant, step_clock: StepClock, tmp_path: Path
) -> None:
    """One wait, not one for each cap; what is left is on disk for the next start."""
    quick = {"driver_timeout_s": 0.5}
    with anyio.fail_after(3):
        async with running(plant, step_clock, tmp_path, node_ids=(NODE,), other=quick) as nodes:
            caps = [cap(f"GPU-{NODE}-{gpu}") for gpu in range(8)]
            await nodes.agents[NODE].set_limits(caps, controller_id="x", change_id="c")
            nodes.twins[NODE].inject(GpuFault.HANGS)
    nodes.twins[NODE].repair(GpuFault.HANGS)
    assert len(LeaseBook(nodes.agents[NODE].settings.state_file).all()) == 8


async def test_a_machine_without_a_driver_says_so_and_takes_no_cap(
    step_clock: StepClock, tmp_path: Path
) -> None:
    """It is served all the same: why there is nothing is worth knowing."""

    def no_driver() -> NvmlHost:
        raise UnavailableError("NVML: there is no NVIDIA driver")

    async with NodeAgent(
        agent_settings(tmp_path, NODE), step_clock, no_driver, takes_writes=True
    ) as agent:
        answer = agent.answer()
        with pytest.raises((InvalidRequestError, UnavailableError)):
            await agent.set_limits([cap()], controller_id="x", change_id="c")
    assert (answer.gpus, answer.age_s) == ((), None)
    assert "no NVIDIA driver" in answer.failure
