"""What is known of a cluster, as the modules' own objects show it."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from interlock_servers.nvsentinel import names
from interlock_servers.nvsentinel.client import NvsentinelClient
from interlock_servers.nvsentinel.events import read_events
from interlock_servers.nvsentinel.installed import BreakerState, Mode, installed, read_rules, rules
from interlock_servers.nvsentinel.models import CordonedBy, Outcome
from interlock_servers.nvsentinel.next_step import next_of, stage_of
from interlock_servers.nvsentinel.reading import request_of
from interlock_servers.nvsentinel.rights import examine
from interlock_servers.nvsentinel.stuck import findings
from interlock_servers.transports.kube.cache import Known
from tests.servers.nvsentinel.conftest import following
from tests.servers.nvsentinel.scenes import ended
from tests.servers.nvsentinel.world import (
    AheadClock,
    World,
    condition,
    health_event,
)
from tests.servers.waiting import until

LATER = timedelta(hours=1)
XID = "SysLogsXIDError"


async def found_in(world: World, clock: AheadClock, *, later: timedelta = LATER) -> set[str]:
    """The words of what is stuck, an hour from now."""
    clock.ahead = later
    async with following(world.settings(), clock) as client:
        return {one.what for one in findings(client, installed(client))}


@pytest.mark.trap("NS-02")
@pytest.mark.trap("NS-03")
async def test_a_true_condition_of_a_monitor_is_a_fault(world: World, clock: AheadClock) -> None:
    """The opposite of Ready; any name will do that a policy has given it, and no other reason."""
    other = condition("KernelDeadlock", "True", "DockerHung")  # of another detector
    unsure = condition("GpuPcieWatch", "Unknown", "GpuPcieWatchIsNotHealthy")
    await world.node("n-1")
    await world.status(
        "n-1", faults={"OurOwnPolicyOfFans": "fan 3 stands still"}, other=(other, unsure)
    )
    async with following(world.settings(), clock) as client:
        node = client.nodes.get("n-1")
        assert [one.type for one in node.faults] == ["OurOwnPolicyOfFans"]
        assert node.healthy == ("GpuThermalWatch",)
        assert node.unsure == ("GpuPcieWatch",)
        assert node.ready is True
        assert not node.calm


@pytest.mark.trap("NS-01")
async def test_an_installation_that_only_watches_is_called_so(
    world: World, clock: AheadClock
) -> None:
    """The default: faults are shown, and nobody does anything."""
    await world.node("n-1", faults={XID: "XID 79"})
    async with following(world.settings(), clock) as client:
        assert installed(client).mode is Mode.ABSENT
        await world.module("labeler")
        await until(lambda: installed(client).mode is Mode.MONITORING)
        node = client.nodes.get("n-1")
        said = next_of(node, [], installed(client), 0)
        assert said.startswith("nothing by itself: NVSentinel is monitoring_only")
        await world.module(names.QUARANTINER, "--dry-run=false")
        await until(lambda: installed(client).mode is Mode.QUARANTINE)
        assert installed(client).why == (
            "nodes are cordoned; there is no node-drainer, no fault-remediation, no janitor"
        )


async def test_deployments_that_may_not_be_seen_are_unknown_and_not_absent(
    world: World, clock: AheadClock
) -> None:
    """Forbidden is no answer: neither that it runs nor that it does not."""
    await world.installation()
    settings = world.settings("nobody")
    async with NvsentinelClient(settings, clock) as client:
        await until(lambda: "FORBIDDEN" in client.modules.snapshot().why)
        now = installed(client)
        assert now.mode is Mode.UNKNOWN
        assert now.breaker.state is BreakerState.UNKNOWN
        assert client.unknown(client.nodes) is not None


@pytest.mark.trap("NS-10")
async def test_a_quarantine_that_is_only_rehearsed_is_called_so(
    world: World, clock: AheadClock
) -> None:
    """fault-quarantine writes its annotations in dry run too."""
    await world.installation(dry_run=True)
    await world.node("n-1", faults={XID: "XID 79"})
    await world.quarantine("n-1", health_event(), cordoned=False)
    async with following(world.settings(), clock) as client:
        now = installed(client)
        assert now.dry_run is True
        assert stage_of(client.nodes.get("n-1"), now) == "dry-run"
        assert {one.what for one in findings(client, now)} == {"dry_run"}


async def test_whether_it_runs_dry_is_unknown_where_no_argument_says_so(
    world: World, clock: AheadClock
) -> None:
    """Not `no`: the flag may be set otherwise."""
    await world.module(names.QUARANTINER)
    async with following(world.settings(), clock) as client:
        assert installed(client).dry_run is None


@pytest.mark.trap("NS-11")
async def test_whose_a_cordon_is(world: World, clock: AheadClock) -> None:
    """NVSentinel's only by NVSentinel's own annotation; what was there before stays somebody's."""
    for number in range(4):
        await world.node(f"n-{number}")
    await world.cordon("n-1")
    await world.quarantine("n-2", health_event())
    await world.cordon("n-3")
    await world.quarantine("n-3", health_event(), pre_existing=True)
    async with following(world.settings(), clock) as client:
        assert [client.nodes.get(f"n-{n}").cordoned_by for n in range(4)] == [
            CordonedBy.NOBODY,
            CordonedBy.SOMEBODY,
            CordonedBy.NVSENTINEL,
            CordonedBy.BEFORE,
        ]


@pytest.mark.trap("NS-04")
async def test_remediation_succeeded_only_means_that_a_request_was_made(
    world: World, clock: AheadClock
) -> None:
    """It is not shown as a success, and while a fault shows it is found."""
    await world.installation()
    await world.node("n-1", faults={XID: "XID 79"})
    await world.quarantine("n-1", health_event(), stage="remediation-succeeded")
    await world.request("RebootNode", "maintenance-n-1", {"nodeName": "n-1", "force": False})
    async with following(world.settings(), clock) as client:
        now = installed(client)
        node = client.nodes.get("n-1")
        assert stage_of(node, now) == "remediation-requested"
        said = next_of(node, client.requests_of("n-1"), now, 0)
        assert said == "RebootNode maintenance-n-1 is to end, by its own conditions"
        assert "label_too_early" in {one.what for one in findings(client, now)}


def reboot(status: dict[str, Any]) -> Outcome:
    """How a reboot with this status stands."""
    read = request_of("RebootNode")
    raw = {"metadata": {"name": "r"}, "spec": {"nodeName": "n"}, "status": status}
    return read(raw).outcome


@pytest.mark.trap("NS-17")
def test_a_request_ends_by_its_own_word_alone() -> None:
    """A signal that was sent is no reboot, and an end that does not say how is unknown."""
    sent = {"conditions": [condition("SignalSent", "True", "Succeeded")]}
    ready = {"conditions": [condition("NodeReady", "True", "Succeeded")]}
    assert reboot({}) is Outcome.OPEN
    assert reboot(sent) is Outcome.OPEN
    assert reboot(ready) is Outcome.OPEN
    assert reboot(ended("NodeReady")) is Outcome.SUCCEEDED
    assert reboot(ended("NodeReady", "False", "Timeout")) is Outcome.FAILED
    assert reboot(ended("SignalSent")) is Outcome.UNKNOWN


@pytest.mark.trap("NS-05")
def test_a_reset_without_a_selector_is_shown_as_what_it_is() -> None:
    """Somebody else's request may say nothing, and mean everything."""
    read = request_of("GPUReset")
    for spec in ({"nodeName": "n"}, {"nodeName": "n", "selector": {"uuids": []}}):
        assert read({"metadata": {"name": "r"}, "spec": spec}).wants == "all GPUs"


@pytest.mark.trap("NS-08")
@pytest.mark.parametrize(
    ("status", "enabled", "state"),
    [
        ("CLOSED", True, BreakerState.CLOSED),
        ("TRIPPED", True, BreakerState.TRIPPED),
        ("TRIPPED", False, BreakerState.STALE),
        ("CLOSED", False, BreakerState.OFF),
        ("HALF", True, BreakerState.UNKNOWN),
    ],
)
async def test_the_breaker_is_read_with_its_switch(
    world: World, clock: AheadClock, status: str, enabled: bool, state: BreakerState
) -> None:
    """The ConfigMap keeps TRIPPED when the breaker is switched off."""
    await world.installation(breaker=status, enabled=enabled)
    async with following(world.settings(), clock) as client:
        assert installed(client).breaker.state is state


@pytest.mark.trap("NS-09")
async def test_a_recovered_node_that_the_breaker_holds_is_found(
    world: World, clock: AheadClock
) -> None:
    """Healthy events are not read while it is tripped."""
    await world.installation(breaker="TRIPPED")
    await world.node("n-1")
    await world.quarantine("n-1", health_event())
    found = await found_in(world, clock)
    assert {"breaker_tripped", "held_by_breaker"} <= found
    assert "not_uncordoned" not in found


@pytest.mark.trap("NS-19")
async def test_a_node_that_recovered_and_is_still_out_is_found(
    world: World, clock: AheadClock
) -> None:
    """Known upstream, and easily lost among many."""
    await world.installation()
    await world.node("n-1")
    await world.quarantine("n-1", health_event())
    assert "not_uncordoned" in await found_in(world, clock)


@pytest.mark.trap("NS-15")
async def test_a_fault_for_which_nobody_acts_is_found(world: World, clock: AheadClock) -> None:
    """Cordoned for ever: no module acts on NONE or CONTACT_SUPPORT."""
    await world.installation()
    await world.node("n-1", faults={XID: "XID 48"})
    await world.quarantine("n-1", health_event(recommendedAction="CONTACT_SUPPORT"))
    assert "no_action" in await found_in(world, clock)


@pytest.mark.trap("NS-16")
async def test_a_second_fault_that_is_not_in_the_quarantine_is_found(
    world: World, clock: AheadClock
) -> None:
    """Its cordon and taint are not applied; who recovers from the first comes back with it."""
    await world.installation()
    await world.node("n-1", faults={XID: "XID 79", "GpuMemWatch": "DBE"})
    await world.quarantine("n-1", health_event())
    assert "second_event" in await found_in(world, clock)


@pytest.mark.trap("NS-17")
@pytest.mark.trap("NS-36")
async def test_a_request_that_nobody_carries_out_is_found(world: World, clock: AheadClock) -> None:
    """A provider that failed, and manual mode, both look like work under way."""
    await world.installation()
    await world.node("n-1")
    spec = {"nodeName": "n-1", "force": False}
    await world.request("RebootNode", "r-1", spec)
    manual = {"conditions": [condition(names.MANUAL, "True", "OutsideActorRequired")]}
    await world.request("TerminateNode", "t-1", spec, manual)
    assert await found_in(world, clock, later=timedelta()) == {"manual_mode"}
    assert await found_in(world, clock) == {"provider_silent", "manual_mode"}


@pytest.mark.trap("NS-18")
async def test_a_loop_of_remediations_is_found(world: World, clock: AheadClock) -> None:
    """Upstream's cap is unlimited by default."""
    await world.node("n-1")
    for number in range(3):
        spec = {"nodeName": "n-1", "force": False}
        await world.request("RebootNode", f"r-{number}", spec, ended("NodeReady"))
    assert "remediation_loop" in await found_in(world, clock)


@pytest.mark.trap("NS-35")
async def test_a_drain_that_waits_for_work_to_end_is_found(world: World, clock: AheadClock) -> None:
    """AllowCompletion has no end of its own; a pod of a DaemonSet is not what it waits for."""
    await world.installation()
    await world.node("n-1", faults={XID: "XID 79"})
    await world.quarantine("n-1", health_event(), stage="draining")
    await world.pod("n-1", "train-0")
    await world.pod("n-1", "exporter", owner=("DaemonSet", "dcgm"))
    clock.ahead = LATER
    async with following(world.settings(), clock) as client:
        (found,) = [f for f in findings(client, installed(client)) if f.what == "drain_waits"]
        assert found.says.startswith("1 pods have not left")


@pytest.mark.trap("NS-34")
async def test_faults_that_are_known_to_be_false_alarms_are_marked(
    world: World, clock: AheadClock
) -> None:
    """DCGM that has not come up yet, and an idle IMEX domain."""
    faults = {"GpuDcgmConnectivityFailure": "no DCGM", "GpuNvlinkWatch": "DCGM_FR_IMEX_UNHEALTHY"}
    await world.node("n-1", faults=faults)
    assert "false_alarm" in await found_in(world, clock)


@pytest.mark.trap("NS-33")
async def test_a_monitor_that_is_restarted_again_and_again_is_found(
    world: World, clock: AheadClock
) -> None:
    """A dying GPU takes its own monitor with it, and then no fault is reported."""
    await world.node("n-1")
    await world.pod("n-1", "gpu-health-monitor-x", namespace="nvsentinel", gpus=0)
    state = {"name": "main", "ready": False, "image": "m", "imageID": "", "restartCount": 9}
    path = "/api/v1/namespaces/nvsentinel/pods/gpu-health-monitor-x/status"
    await world.merge(path, {"status": {"containerStatuses": [state]}})
    assert "monitor_restarts" in await found_in(world, clock)


@pytest.mark.trap("NS-23")
@pytest.mark.trap("NS-41")
async def test_a_fault_without_protection_is_found(world: World, clock: AheadClock) -> None:
    """A label, or a quarantine cancelled by hand: NVSentinel looks away and says nothing."""
    await world.installation()
    await world.node("n-1", faults={XID: "XID 79"})
    label = {names.NOT_QUARANTINED: "false"}
    await world.merge("/api/v1/nodes/n-1", {"metadata": {"labels": label}})
    await world.node("n-2", faults={XID: "XID 79"})
    note = {names.UNCORDONED_BY_HAND: "True"}
    await world.merge("/api/v1/nodes/n-2", {"metadata": {"annotations": note}})
    assert {"opted_out", "cancelled_by_hand"} <= await found_in(world, clock)


async def test_requests_that_hang_are_found(world: World, clock: AheadClock) -> None:
    """A maintenance that is blocked, a repair that nobody closes, an object that is not let go."""
    await world.node("n-1")
    spec = {"healthEvent": {"nodeName": "n-1", "version": 1}}
    blocked = {"conditions": [condition(names.EMITTED, "False", "Blocked")]}
    await world.request("MaintenanceRequest", "m-1", spec, blocked)
    waits = {"conditions": [condition(names.RELEASED, "True", "Released")]}
    await world.request("ExternalRemediationRequest", "e-1", spec, waits)
    await world.request("MaintenanceRequest", "m-2", spec, finalizers=["nvsentinel/holds"])
    await world.delete("/apis/nvsentinel.dgxc.nvidia.com/v1/maintenancerequests/m-2")
    assert await found_in(world, clock) >= {"maintenance_blocked", "repair_waits", "not_let_go"}


async def test_a_watch_tells_and_a_node_that_goes_is_gone(world: World, clock: AheadClock) -> None:
    """The caches follow without being asked."""
    async with following(world.settings(), clock) as client:
        await world.node("n-1", faults={XID: "XID 79"})
        await until(lambda: client.nodes.find("n-1") is not None)
        await world.delete("/api/v1/nodes/n-1")
        await until(lambda: client.nodes.find("n-1") is None)
        assert all(one.known is Known.FRESH for one in client.snapshots().values())


async def test_rules_are_read_and_their_conditions_shown_as_text(
    world: World, clock: AheadClock
) -> None:
    """CEL is never run here."""
    toml = '''label-prefix = "k8saas.nvidia.com/"
[[rule-sets]]
enabled = true
name = "GPU fatal error ruleset"
priority = 100
[[rule-sets.match.all]]
kind = "HealthEvent"
expression = """event.agent == 'gpu-health-monitor'
   && event.isFatal == true"""
[rule-sets.cordon]
shouldCordon = true
[rule-sets.taint]
key = "gpu"
value = "bad"
effect = "NoSchedule"
'''
    await world.config(names.QUARANTINER, **{names.RULES_KEY: toml})
    async with following(world.settings(), clock) as client:
        (rule,), why = rules(client)
        assert why == ""
        assert rule.match == (
            "all HealthEvent: event.agent == 'gpu-health-monitor' && event.isFatal == true",
        )
        assert (rule.cordons, rule.taint) == (True, "gpu=bad:NoSchedule")


@pytest.mark.parametrize(
    "text", ["[[rule-sets", "rule-sets = 3", "rule-sets = [1]", "[[rule-sets.match.all]]"]
)
def test_rules_that_cannot_be_read_are_none_with_a_reason(text: str) -> None:
    """A broken file is no empty set of rules."""
    found, why = read_rules(text)
    assert found == []
    assert why.startswith("config.toml cannot be read")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "3",
        '"x"',
        "[3]",
        "[{}]",
        '[{"checkName": 3}]',
        "[" * 100_000,
        '[{"a":1}]',
        json.dumps([{"checkName": "X"}] * 101),
        " " * 300_000,
    ],
)
def test_an_annotation_that_is_no_list_of_events_is_unknown(text: str) -> None:
    """Anybody who may patch a node writes it; it must neither break us nor read as empty."""
    with pytest.raises(ValueError, match=r".*"):
        read_events(text)


async def test_a_quarantine_that_cannot_be_read_is_still_a_quarantine(
    world: World, clock: AheadClock
) -> None:
    """Unknown events are not none."""
    await world.node("n-1")
    await world.quarantine("n-1", text="{broken")
    clock.ahead = LATER
    async with following(world.settings(), clock) as client:
        node = client.nodes.get("n-1")
        assert node.quarantine is not None
        assert node.quarantine.events is None
        assert "unreadable" in {one.what for one in findings(client, installed(client))}


def test_events_are_read_whatever_the_case_of_their_members() -> None:
    """The store writes lower case, the annotation camel case; what is unknown is left out."""
    said = [
        {"checkname": "X", "recommendedaction": 24, "entitiesimpacted": [{"entitytype": "GPU"}]}
    ]
    (event,) = read_events(json.dumps(said))
    assert (event.action, event.is_fatal, event.entities) == ("RESTART_BM", None, (("GPU", ""),))
    custom = {"checkName": "X", "recommendedAction": "CUSTOM", "customRecommendedAction": "swap"}
    assert read_events(json.dumps(custom))[0].action == "CUSTOM swap"
    assert (
        read_events('[{"checkName": "X", "recommendedAction": "DESTROY"}]')[0].action == "UNKNOWN"
    )


async def test_what_is_missing_is_said_by_name(world: World, clock: AheadClock) -> None:
    """For `interlock doctor`: rights as the API server itself refuses them, and kinds."""
    await world.installation()
    settings = world.settings("reader", operations=True)
    async with following(settings, clock) as client:
        seen = await examine(client)
    assert seen.error == ""
    assert seen.missing == ()
    assert set(seen.may_not) == {
        "patch nodes",
        "patch configmaps circuit-breaker in nvsentinel",
        "patch deployments.apps fault-quarantine in nvsentinel",
        "create rebootnodes.janitor.dgxc.nvidia.com",
        "create terminatenodes.janitor.dgxc.nvidia.com",
        "create gpuresets.janitor.dgxc.nvidia.com",
        "patch externalremediationrequests/status.nvsentinel.dgxc.nvidia.com",
        "create maintenancerequests.nvsentinel.dgxc.nvidia.com",
        "delete maintenancerequests.nvsentinel.dgxc.nvidia.com",
        "create validationrequests.nvsentinel.nvidia.com",
    }
    looking = world.settings("reader")
    async with following(looking, clock) as client:
        assert (await examine(client)).may_not == ()


@pytest.mark.trap("NS-29")
def test_nothing_here_publishes_health_events_or_takes_a_lease() -> None:
    """Whoever may publish for other nodes can cordon, drain and reboot all of them."""
    folder = Path(names.__file__).parent
    text = "".join(path.read_text("utf-8") for path in sorted(folder.glob("[!t]*.py")))
    for word in ("grpc", "nvsentinel.sock", "HealthEventOccurred", "create(LEASES", "patch(LEASES"):
        assert word not in text
