"""The twin gets one fault after the other; each must be caught, with the state said."""

import anyio
import pytest

from interlock_plant import Plant
from interlock_servers.maxlps.client import DpsClient
from interlock_servers.maxlps.twin import DpsTwin, TwinFault
from interlock_tools.errors import ComponentError, FactoryError, UnavailableError
from tests.servers.maxlps.conftest import WakefulClock, settings_for

PATIENCE_S = 20.0
WRITE = "UpdateGPUPolicies"


async def test_status_not_ok_under_grpc_ok_is_failure(
    dps: DpsClient, twin: DpsTwin, plant: Plant
) -> None:
    """Trap: a gRPC OK is not success; `Status.ok` is."""
    twin.inject(TwinFault.OK_FALSE)
    with anyio.fail_after(PATIENCE_S):
        with pytest.raises(ComponentError, match="told to refuse'; nothing was changed") as read:
            await dps.resource_groups()
        with pytest.raises(ComponentError, match=r"told to refuse.*read back") as written:
            await dps.set_gpu_limits({"node-001": {0: 500.0}})
    assert (read.value.code, written.value.code) == ("NOT_OK", "NOT_OK")
    assert plant.gpu_cap_set_w[0] == 700.0


async def test_a_missing_status_is_failure(dps: DpsClient, twin: DpsTwin) -> None:
    """Trap: an answer without Status reads as `ok=false` or as nothing wrong; it is neither."""
    twin.inject(TwinFault.MISSING_STATUS)
    with anyio.fail_after(PATIENCE_S):
        with pytest.raises(ComponentError, match="nothing was changed") as read:
            await dps.node_power(["node-001"])
        with pytest.raises(ComponentError, match="may have been done: read back") as written:
            await dps.set_gpu_limits({"node-001": {0: 500.0}})
        twin.repair(TwinFault.MISSING_STATUS)
        node = (await dps.node_power(["node-001"]))["node-001"]
    assert (read.value.code, written.value.code) == ("NO_STATUS", "NO_STATUS")
    assert node.set_w[0] == 500.0  # it had acted: that is why the error says read back


async def test_a_gpu_without_a_result_is_failure(dps: DpsClient, twin: DpsTwin) -> None:
    """No news of a GPU is not good news."""
    twin.inject(TwinFault.MISSING_RESULT)
    with anyio.fail_after(PATIENCE_S), pytest.raises(ComponentError) as caught:
        await dps.set_gpu_limits({"node-001": {0: 500.0, 1: 500.0}})
    assert caught.value.code == "MISSING_RESULT"
    assert "node-001/0; whether it was set is unknown: read back" in str(caught.value)


async def test_caps_that_were_taken_and_ignored_show_on_read_back(
    dps: DpsClient, twin: DpsTwin
) -> None:
    """The answer says 500 W; only reading again tells the truth."""
    twin.inject(TwinFault.IGNORE_CAPS)
    with anyio.fail_after(PATIENCE_S):
        (result,) = await dps.set_gpu_limits({"node-001": {0: 500.0}})
        node = (await dps.node_power(["node-001"]))["node-001"]
    assert result.set_w == 500.0
    assert node.set_w[0] == 700.0


async def test_a_limit_that_was_clamped_is_reported_so(dps: DpsClient, twin: DpsTwin) -> None:
    """DPS may set less than asked and call it ok."""
    twin.inject(TwinFault.CLAMP)
    with anyio.fail_after(PATIENCE_S):
        (result,) = await dps.set_gpu_limits({"node-001": {0: 500.0}})
        node = (await dps.node_power(["node-001"]))["node-001"]
    assert result.is_clamped
    assert (result.asked_w, result.set_w) == (500.0, 450.0)
    assert node.set_w[0] == 450.0


async def test_a_write_without_an_answer_is_unknown_and_is_not_sent_again(
    plant: Plant, twin: DpsTwin, clock: WakefulClock
) -> None:
    """Trap: it acted, and the answer came too late; another try would be a second act."""
    twin.inject(TwinFault.HANG, times=1)
    with anyio.fail_after(PATIENCE_S):
        async with DpsClient(settings_for(twin.address, deadline_s=0.3), clock) as dps:
            with pytest.raises(UnavailableError, match="is unknown: read it back"):
                await dps.set_gpu_limits({"node-001": {0: 500.0}})
            node = (await dps.node_power(["node-001"]))["node-001"]
    assert twin.calls[WRITE] == 1
    assert plant.gpu_cap_set_w[0] == 500.0
    assert node.set_w[0] == 500.0
    assert clock.slept_s == []


async def test_a_read_that_met_nobody_is_sent_once_more(
    dps: DpsClient, twin: DpsTwin, clock: WakefulClock
) -> None:
    """Trap: reads only are retried, once, after a second of the injected clock."""
    twin.inject(TwinFault.UNAVAILABLE, times=1)
    with anyio.fail_after(PATIENCE_S):
        groups = await dps.resource_groups()
    assert len(groups) == 2
    assert twin.calls["ResourceGroupList"] == 2
    assert clock.slept_s == [1.0]


async def test_a_read_that_meets_nobody_twice_gives_up(dps: DpsClient, twin: DpsTwin) -> None:
    """One retry, of a stream as well; then the caller decides."""
    twin.inject(TwinFault.UNAVAILABLE)
    with anyio.fail_after(PATIENCE_S):
        with pytest.raises(UnavailableError, match="nothing was changed"):
            await dps.active_topology()
        with pytest.raises(UnavailableError, match="nothing was changed"):
            await dps.validate_allocation(["node-001"], "MaxQ")
    assert twin.calls == {"ListTopologies": 2, "ValidateAllocation": 2}


async def test_a_write_that_met_nobody_is_never_sent_again(
    dps: DpsClient, twin: DpsTwin, clock: WakefulClock
) -> None:
    """Trap: reads only are retried; where a write ended is for the plant to say."""
    twin.inject(TwinFault.UNAVAILABLE)
    with anyio.fail_after(PATIENCE_S), pytest.raises(UnavailableError, match="is unknown"):
        await dps.set_gpu_limits({"node-001": {0: 500.0}})
    assert twin.calls == {WRITE: 1}
    assert clock.slept_s == []


async def test_a_server_without_reflection_is_refused_at_connect(
    plant: Plant, clock: WakefulClock
) -> None:
    """Without descriptors we would guess field numbers."""
    with anyio.fail_after(PATIENCE_S):
        async with DpsTwin(plant, clock, faults=[TwinFault.NO_REFLECTION]) as twin:
            assert await refused(twin, clock) == "NO_REFLECTION"


async def test_a_newer_server_is_read_as_well_as_the_one_we_know(
    plant: Plant, clock: WakefulClock
) -> None:
    """0.10 has more fields, calls a budget OperatingLimit and gives groups a priority."""
    with anyio.fail_after(PATIENCE_S):
        async with (
            DpsTwin(plant, clock, faults=[TwinFault.EXTRA_FIELDS]) as twin,
            DpsClient(settings_for(twin.address), clock) as dps,
        ):
            topology = await dps.active_topology()
            groups = await dps.resource_groups()
            (result,) = await dps.set_gpu_limits({"node-001": {0: 500.0}})
    assert topology.root.budget_w == sum(feed.rating_w for feed in plant.site.feeds)
    assert [group.priority for group in groups] == [0, 1]
    assert result.set_w == 500.0


@pytest.mark.parametrize(
    "absent",
    [
        "DeviceMetrics.set_limit",
        "GPUPolicy.gpu_id",
        "UpdateGPUPoliciesResult.ok",
        "UpdateGPUPoliciesResponse.status",
        "ResourceGroupInfo.properties",
        "TopologyManagementService.ValidateAllocation",
    ],
)
async def test_a_version_that_lacks_what_we_need_is_refused_by_name(
    plant: Plant, clock: WakefulClock, absent: str
) -> None:
    """Before anything is written: a field that is not there would be dropped in silence."""
    with anyio.fail_after(PATIENCE_S):
        async with DpsTwin(plant, clock, without=[absent]) as twin:
            assert await refused(twin, clock, match=absent.rpartition(".")[2]) == "UNSUPPORTED"


async def test_nobody_at_the_address_is_unavailable(clock: WakefulClock, plant: Plant) -> None:
    """That is another thing than a server that we refuse."""
    with anyio.fail_after(PATIENCE_S):
        async with DpsTwin(plant, clock) as gone:
            address = gone.address
        with pytest.raises(UnavailableError, match="nothing was changed"):
            await DpsClient(settings_for(address), clock).__aenter__()


async def refused(twin: DpsTwin, clock: WakefulClock, match: str | None = None) -> str:
    """The code of the refusal at connect."""
    client = DpsClient(settings_for(twin.address), clock)
    with pytest.raises(FactoryError, match=match) as caught:
        await client.__aenter__()
    assert isinstance(caught.value, ComponentError)
    return caught.value.code
