"""Resource groups and policies as our client reads and writes them, against the twin."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from interlock_plant import Fault, FaultKind, Plant
from interlock_servers.maxlps.client import DpsClient
from interlock_servers.maxlps.group_client import GroupClient
from interlock_servers.maxlps.group_models import (
    cap_of,
    each_gpu_w,
    nvml_profile,
    unknown_elements,
)
from interlock_servers.maxlps.group_needs import ACTIVATE, ADD, UPDATE
from interlock_servers.maxlps.twin import DpsTwin, TwinFault
from interlock_tools.errors import (
    ComponentError,
    FactoryError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)
from tests.servers.maxlps.conftest import WakefulClock, settings_for

PATIENCE_S = 20.0
IDLE = ["node-009", "node-010"]


@pytest.fixture
async def groups(dps: DpsClient) -> AsyncIterator[GroupClient]:
    """The groups of the twin; everything on this page is bounded in time."""
    with anyio.fail_after(PATIENCE_S):
        yield GroupClient(dps)


async def made(groups: GroupClient, name: str = "fresh", policy: str = "MaxQ") -> None:
    """An inactive group of two nodes."""
    await groups.create(name, policy, dpm=True, prs=False)
    await groups.add(name, IDLE, None)


def cap_w(plant: Plant, node_id: str) -> set[float]:
    """The limits of a node's GPUs in the plant itself."""
    return set(plant.gpu_cap_set_w[plant.site.gpus_of_node(node_id)].tolist())


# ── what every deployment promises ────────────────────────────────────────────────────────────


async def test_every_policy_applied_is_one_that_dps_lists(any_dps: DpsClient) -> None:
    """Otherwise nobody could tell what a node may draw."""
    with anyio.fail_after(PATIENCE_S):
        groups = GroupClient(any_dps)
        known = {policy.name for policy in await groups.policies()}
        states = await groups.groups()
    for group in states:
        applied = {pair[1] for pair in group.policies.values()} - {""}
        assert applied <= known, group.name


# ── the life of a group ───────────────────────────────────────────────────────────────────────


async def test_a_group_is_made_filled_started_changed_and_ended(
    groups: GroupClient, plant: Plant, twin: DpsTwin
) -> None:
    """Hardware follows only while it is active, and the topology's policy comes back at its end."""
    await made(groups)
    assert cap_w(plant, "node-009") == {700.0}
    fresh = await groups.group("fresh")
    assert (fresh.status, fresh.policy, fresh.node_ids) == ("inactive", "MaxQ", tuple(IDLE))

    told = await groups.activate("fresh", dict.fromkeys(IDLE, "MaxQ"))
    assert told["nodes_asked"] == 2
    assert cap_w(plant, "node-009") == {490.0}

    await groups.set_node_policies("fresh", {"node-009": "MaxLPS"})
    assert (cap_w(plant, "node-009"), cap_w(plant, "node-010")) == ({560.0}, {490.0})
    assert (await groups.group("fresh")).policies["node-009"] == ("MaxLPS", "MaxLPS")

    await groups.set_policy("fresh", "MaxLPS", IDLE)
    assert cap_w(plant, "node-010") == {560.0}
    assert twin.asked["ResourceGroupUpdate"].strict

    await groups.remove("fresh", ["node-010"])
    assert cap_w(plant, "node-010") == {700.0}
    assert await groups.delete("fresh") == {}
    assert cap_w(plant, "node-009") == {700.0}


@pytest.mark.trap("DP-G03")
async def test_every_write_is_strict_and_takes_from_nobody(
    groups: GroupClient, twin: DpsTwin, plant: Plant
) -> None:
    """What does not fit fails: DPS would give MaxLPS for MaxP and say ok."""
    await made(groups, policy="MaxP")
    plant.command_caps(plant.site.gpus_of_node("node-009"), 200.0)

    with pytest.raises(ComponentError, match="does not fit"):
        await groups.activate("fresh", dict.fromkeys(IDLE, "MaxP"))

    for name in ("ActivateResourceGroup", "ResourceGroupAddResources"):
        assert twin.asked[name].strict, name
        assert not twin.asked[name].allow_reprovision, name
    assert cap_w(plant, "node-009") == {200.0}


async def test_taking_from_others_takes_the_least_important_first(
    groups: GroupClient, plant: Plant
) -> None:
    """Only where it is said; the group of the higher number loses."""
    await made(groups, policy="MaxP")

    await groups.activate("fresh", dict.fromkeys(IDLE, "MaxP"), reprovision=True)

    assert cap_w(plant, "node-003") == {490.0}  # pretrain
    assert cap_w(plant, "node-001") == {700.0}  # chat
    pretrain = await groups.group("pretrain")
    assert pretrain.policies["node-003"] == ("MaxP", "MaxQ")


# ── what says ok and is not ───────────────────────────────────────────────────────────────────


@pytest.mark.trap("DP-G01")
@pytest.mark.parametrize(
    ("fault", "code"), [(TwinFault.OK_FALSE, "NOT_OK"), (TwinFault.MISSING_STATUS, "NO_STATUS")]
)
async def test_without_a_status_that_is_ok_it_is_a_failure(
    groups: GroupClient, twin: DpsTwin, fault: TwinFault, code: str
) -> None:
    """For reads and for each write."""
    twin.inject(fault)
    for call in (
        groups.groups(),
        groups.create("fresh", "MaxQ", dpm=False, prs=False),
        groups.add("pretrain", IDLE, "MaxQ"),
        groups.set_policy("pretrain", "MaxQ", ["node-003"]),
        groups.delete("pretrain"),
    ):
        with pytest.raises(ComponentError) as caught:
            await call
        assert caught.value.code == code


@pytest.mark.trap("DP-G12")
async def test_a_node_that_is_not_ok_or_not_told_of_is_a_failure(
    groups: GroupClient, twin: DpsTwin
) -> None:
    """The Status of the whole is ok both times."""
    await made(groups)
    twin.inject(TwinFault.PARTIAL, times=1)
    with pytest.raises(ComponentError, match="1 of 2 nodes were reached: read back") as partly:
        await groups.activate("fresh", dict.fromkeys(IDLE, "MaxQ"))
    twin.inject(TwinFault.MISSING_RESULT, times=1)
    with pytest.raises(ComponentError, match="no status of node-009") as untold:
        await groups.set_policy("fresh", "MaxLPS", IDLE)
    assert (partly.value.code, untold.value.code) == ("NODE_NOT_OK", "MISSING_RESULT")


@pytest.mark.trap("DP-G23")
async def test_a_bmc_that_is_out_of_reach_is_named(groups: GroupClient, plant: Plant) -> None:
    """Its GPUs keep the limit that they have."""
    await made(groups)
    plant.inject(Fault(FaultKind.NODE_DOWN, "node-010"))
    with pytest.raises(ComponentError, match=r"node-010.*BMC of node-010 does not answer"):
        await groups.activate("fresh", dict.fromkeys(IDLE, "MaxQ"))


@pytest.mark.trap("DP-G11")
async def test_an_update_that_did_a_part_is_told_as_a_part(
    groups: GroupClient, twin: DpsTwin
) -> None:
    """DPS says ok; only the group itself shows which node was left out."""
    twin.inject(TwinFault.PARTIAL, times=1)
    with pytest.raises(ComponentError, match="did 1 of 2 nodes; not node-003") as caught:
        await groups.set_node_policies("pretrain", {"node-003": "MaxQ", "node-004": "MaxQ"})
    assert caught.value.code == "PARTIAL"


@pytest.mark.trap("DP-G10")
async def test_a_policy_that_was_downgraded_under_strict_is_a_failure_and_shows(
    groups: GroupClient, twin: DpsTwin
) -> None:
    """And the group shows both names, so that it stays visible."""
    twin.inject(TwinFault.DOWNGRADE, times=1)
    with pytest.raises(ComponentError, match="got 'MaxQ' for MaxLPS") as caught:
        await groups.set_policy("pretrain", "MaxLPS", [f"node-{n:03d}" for n in range(3, 9)])
    assert caught.value.code == "DOWNGRADED"
    assert (await groups.group("pretrain")).policies["node-003"] == ("MaxLPS", "MaxQ")


@pytest.mark.trap("DP-G08")
async def test_what_is_active_already_is_no_failure(groups: GroupClient) -> None:
    """DPS answers FAILED_PRECONDITION; the end is the one that was wanted."""
    assert await groups.activate("pretrain", {}) == {"already_active": True}


@pytest.mark.trap("DP-G09")
async def test_what_is_gone_already_is_no_failure(groups: GroupClient) -> None:
    """Of deleting only: to change a group that is not there is one."""
    assert await groups.delete("nobody") == {"already_gone": True}
    with pytest.raises(NotFoundError):
        await groups.set_policy("nobody", "MaxQ", [])


# ── operations that take their time ───────────────────────────────────────────────────────────


@pytest.mark.trap("DP-G07")
async def test_an_operation_is_asked_about_once_a_step_and_its_answer_kept(
    groups: GroupClient, twin: DpsTwin, clock: WakefulClock
) -> None:
    """The answer that says it is done is also the last that there is."""
    twin.inject(TwinFault.ASYNC)
    await made(groups)
    told = await groups.activate("fresh", dict.fromkeys(IDLE, "MaxQ"))
    assert told == {"operation": "op-1", "nodes_asked": 2}
    assert twin.calls["AsyncOperationStatus"] == 2
    assert clock.slept_s == [1.0]


@pytest.mark.trap("DP-G07")
async def test_a_result_that_somebody_else_read_is_unknown(
    groups: GroupClient, twin: DpsTwin
) -> None:
    """It may have been done: so it is read back and not taken for a failure."""
    twin.inject(TwinFault.ASYNC)
    await made(groups)
    twin.of_groups.forgets = True
    with pytest.raises(UnavailableError, match=r"forgotten the operation 'op-1'.*read it back"):
        await groups.activate("fresh", dict.fromkeys(IDLE, "MaxQ"))
    assert (await groups.group("fresh")).status == "active"


async def test_nodes_of_an_operation_are_checked_when_it_ends(
    groups: GroupClient, twin: DpsTwin
) -> None:
    """What came early said nothing of them."""
    twin.inject(TwinFault.ASYNC)
    await made(groups)
    twin.inject(TwinFault.PARTIAL, times=1)
    with pytest.raises(ComponentError, match="NODE_NOT_OK"):
        await groups.activate("fresh", dict.fromkeys(IDLE, "MaxQ"))


# ── what is never sent ────────────────────────────────────────────────────────────────────────


@pytest.mark.trap("DP-G19")
@pytest.mark.parametrize("fault", [TwinFault.UNAVAILABLE, TwinFault.HANG])
async def test_a_write_without_an_answer_is_sent_once(
    twin: DpsTwin, clock: WakefulClock, fault: TwinFault
) -> None:
    """With HANG it was done."""
    with anyio.fail_after(PATIENCE_S):
        async with DpsClient(settings_for(twin.address, deadline_s=0.5), clock) as dps:
            twin.inject(fault, times=1)
            with pytest.raises(UnavailableError, match="read it back, do not repeat it"):
                await GroupClient(dps).delete("pretrain")
            assert twin.calls["ResourceGroupDelete"] == 1
            names = [group.name for group in await GroupClient(dps).groups()]
    assert ("pretrain" in names) is (fault is TwinFault.UNAVAILABLE)


@pytest.mark.trap("DP-G18")
async def test_an_empty_list_is_never_sent(groups: GroupClient, twin: DpsTwin) -> None:
    """It could be every node of the site."""
    for call in (
        groups.add("pretrain", [], None),
        groups.remove("pretrain", []),
        groups.set_node_policies("pretrain", {}),
    ):
        with pytest.raises(InvalidRequestError, match="an empty request is never sent"):
            await call
    assert not [name for name in twin.calls if name.startswith("ResourceGroup")]


@pytest.mark.trap("DP-G22")
async def test_shared_gpus_are_never_set(groups: GroupClient, twin: DpsTwin) -> None:
    """Whatever is asked of PRS and DPM."""
    await groups.create("steered", "MaxLPS", dpm=True, prs=True)
    request = twin.asked["ResourceGroupCreate"]
    assert (request.dpm_enable, request.prs_enabled, request.shared_gpu_enable) == (
        True,
        True,
        False,
    )
    state = await groups.group("steered")
    assert (state.dpm, state.prs) == (True, True)


# ── versions ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.trap("DP-G15")
@pytest.mark.parametrize(
    ("lacks", "call"),
    [
        ("ResourceGroupUpdateRequest.strict", UPDATE),
        ("ActivateResourceGroupRequest.allow_reprovision", ACTIVATE),
        ("ResourceGroupAddResourcesRequest.policy_name", ADD),
        ("ResourceGroupManagementService.ActivateResourceGroup", ACTIVATE),
    ],
)
async def test_what_a_version_lacks_is_named_and_nothing_of_it_is_sent(
    plant: Plant, clock: WakefulClock, lacks: str, call: Any
) -> None:
    """A write without `strict` would be another write; the rest of DPS goes on."""
    calls = {
        UPDATE: lambda groups: groups.set_policy("pretrain", "MaxQ", []),
        ACTIVATE: lambda groups: groups.activate("pretrain", {}),
        ADD: lambda groups: groups.add("pretrain", IDLE, "MaxQ"),
    }
    with anyio.fail_after(PATIENCE_S):
        async with (
            DpsTwin(plant, clock, without=[lacks]) as twin,
            DpsClient(settings_for(twin.address), clock) as dps,
        ):
            groups = GroupClient(dps)
            with pytest.raises(ComponentError, match=lacks.rpartition(".")[2]) as caught:
                await calls[call](groups)
            assert caught.value.code == "UNSUPPORTED"
            assert twin.calls[call.name] == 0
            assert len(await groups.groups()) == 2
            await dps.set_gpu_limits({"node-001": {0: 500.0}})


@pytest.mark.trap("DP-G15")
@pytest.mark.parametrize(
    ("lacks", "says"),
    [
        ("ResourceGroupInfo.policy_name", r"resource_groups\.policy_name"),
        ("ResourcePolicy.policy_name", r"resource_policies\.policy_name"),
    ],
)
async def test_a_group_whose_policy_has_another_name_is_not_half_read(
    plant: Plant, clock: WakefulClock, lacks: str, says: str
) -> None:
    """It would look like a group without a policy; caps, which do not need it, go on."""
    with anyio.fail_after(PATIENCE_S):
        async with (
            DpsTwin(plant, clock, without=[lacks], faults=[TwinFault.EXTRA_FIELDS]) as twin,
            DpsClient(settings_for(twin.address), clock) as dps,
        ):
            with pytest.raises(ComponentError, match=rf"lacks field .*{says}"):
                await GroupClient(dps).groups()
            assert len(await dps.resource_groups()) == 2
            await dps.set_gpu_limits({"node-001": {0: 500.0}})


@pytest.mark.trap("DP-G16")
async def test_priorities_are_found_by_reflection(
    groups: GroupClient, plant: Plant, clock: WakefulClock, twin: DpsTwin
) -> None:
    """0.8 has none, and is told so; of 0.10 another policy leaves the priority as it is."""
    assert (await groups.group("chat")).priority is None
    with pytest.raises(ComponentError, match=r"lacks field .*ResourceGroupUpdateRequest.priority"):
        await groups.set_priority("chat", 3)
    assert twin.calls["ResourceGroupUpdate"] == 0
    async with (
        DpsTwin(plant, clock, faults=[TwinFault.EXTRA_FIELDS]) as newer,
        DpsClient(settings_for(newer.address), clock) as dps,
    ):
        later = GroupClient(dps)
        await later.set_priority("pretrain", 3)
        assert (await later.group("pretrain")).priority == 3
        await later.set_policy("pretrain", "MaxQ", [])
        assert (await later.group("pretrain")).priority == 3
        await later.set_priority("pretrain", 0)
        assert (await later.group("pretrain")).priority == 0
        assert (await later.policies())[0].bundle_types == ("ComputerSystemLimits.v1", "DPM.v1")


# ── watts and numbers ─────────────────────────────────────────────────────────────────────────


@pytest.mark.trap("DP-G02")
async def test_watts_of_a_policy_are_of_all_gpus_of_a_node(groups: GroupClient) -> None:
    """5600 W on 8 GPUs are 700 W each; taken for one GPU's they would be eight times as much."""
    policies = {policy.name: policy.as_json() for policy in await groups.policies()}
    (limit,) = policies["MaxP"]["limits"]
    assert (limit["element"], limit["watts"]) == ("GPU", 5600.0)
    assert each_gpu_w(5600.0, 8) == 700.0
    assert cap_of(policies["MaxP"], 8, 200.0, 700.0) == 700.0
    assert cap_of(policies["MaxQ"], 8, 200.0, 700.0) == pytest.approx(490.0)


def test_the_narrowest_limit_of_a_policy_counts_and_none_is_not_guessed() -> None:
    """A limit of the whole node leaves its GPUs what the host does not take."""
    node = {"element": "NODE", "watts": 1600.0 + 1.22 * 8 * 400.0, "percentage": None}
    gpus = {"element": "GPU", "watts": 5600.0, "percentage": None}
    share = {"element": "GPU", "watts": None, "percentage": 50.0}
    cpu = {"element": "CPU", "watts": 500.0, "percentage": None}
    assert cap_of({"limits": [gpus, node]}, 8, 200.0, 700.0) == pytest.approx(400.0)
    assert cap_of({"limits": [share]}, 8, 200.0, 700.0) == 350.0
    assert cap_of({"limits": [cpu]}, 8, 200.0, 700.0) is None


@pytest.mark.trap("DP-G14")
async def test_an_element_type_that_we_do_not_know_keeps_its_name(
    groups: GroupClient, twin: DpsTwin
) -> None:
    """It is shown, and whatever has it is not applied by us."""
    twin.inject(TwinFault.UNKNOWN_ELEMENT)
    policy = (await groups.policies())[0]
    assert [limit.element for limit in policy.limits] == ["GPU", "9"]
    assert unknown_elements(policy.as_json()) == ["9"]


@pytest.mark.trap("DP-G13")
async def test_profiles_are_shown_by_nvmls_numbers(groups: GroupClient, twin: DpsTwin) -> None:
    """3 of DPS is 0 (MAX_P) of NVML; a number below cannot be one."""
    assert [nvml_profile(number) for number in (3, 4, 258)] == [0, 1, 255]
    assert nvml_profile(2) is None
    twin.groups.by_name["chat"].profiles = [4, 10]
    assert (await groups.group("chat")).nvml_profiles == (1, 7)
    twin.groups.by_name["chat"].profiles = [1]
    with pytest.raises(FactoryError, match="below 3"):
        await groups.groups()


async def test_devices_are_told_by_type_and_model(groups: GroupClient) -> None:
    """What DPS has figures of."""
    assert [kind for kind, _ in await groups.devices()] == ["ComputerSystem", "GPU"]
