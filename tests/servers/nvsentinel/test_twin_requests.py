"""What people and other systems ask of NVSentinel's twin, and what it makes of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from interlock_plant import Fault, FaultKind
from interlock_servers.nvsentinel import twin_names as names
from interlock_servers.nvsentinel.twin_rules import default_rules, evaluate, parse_rules
from interlock_servers.transports.kube.kinds import CONFIG_MAPS, DEPLOYMENTS, JOBS, LEASES, NODES
from interlock_tools.errors import InvalidRequestError, NotFoundError
from tests.servers.nvsentinel.twin_world import (
    QUICK,
    World,
    both,
    embedded,
    fatal,
    healthy,
    planned_maintenance,
    trip_and_repair,
    world,
)

RELEASED, COMPLETE = "NVSentinelOwnershipReleased", "ExternalRemediationComplete"


def _breaker(there: World) -> dict[str, str]:
    found = there.twin.cluster.mirrors[CONFIG_MAPS].get(names.BREAKER_MAP, names.SPACE)
    assert found is not None
    data: dict[str, str] = found["data"]
    return data


def _cordoned(there: World) -> set[str]:
    return {
        node["metadata"]["name"]
        for node in there.twin.cluster.all(NODES)
        if node["spec"].get("unschedulable")
    }


@both
async def test_a_maintenance_cordons_and_its_end_uncordons(tmp_path: Path, which: str) -> None:
    """Its event comes from the lifecycle manager, and keeps who asked; deleting it ends it."""
    async with world(tmp_path, which, maintenance=True) as there:
        await there.make(names.MAINTENANCES, planned_maintenance())
        await there.until(lambda: there.is_cordoned("node-006"))
        told = there.notes("node-006")[names.EVENTS]
        assert '"agent":"lifecycle-manager"' in told
        assert f'"{names.REQUESTER}":"somebody"' in told
        cr = there.only(names.MAINTENANCES)
        assert there.told(cr)["HealthEventEmitted"][0] == "True"
        assert cr["metadata"]["finalizers"] == [names.MAINTENANCE_FINALIZER]
        await there.until(lambda: there.labels("node-006").get(names.STATE) == names.DRAINED)
        await there.let(30)
        assert not there.twin.provider.signals  # nothing but a drain was asked
        await there.delete(names.MAINTENANCES, "maintenance-node-006")
        await there.until(lambda: not there.is_cordoned("node-006"))
        await there.until(lambda: not there.twin.cluster.all(names.MAINTENANCES))


async def test_the_end_of_a_maintenance_uncordons_though_its_reboot_goes_on(tmp_path: Path) -> None:
    """Delete is the end, whatever the action has come to."""
    async with world(tmp_path, maintenance=True) as there:
        await there.make(names.MAINTENANCES, planned_maintenance("RESTART_VM"))
        await there.until(lambda: not there.plant.node_is_lit[5])
        await there.delete(names.MAINTENANCES, "maintenance-node-006")
        await there.until(lambda: not there.is_cordoned("node-006"))
        assert not there.plant.node_is_lit[5]


async def test_a_maintenance_of_a_locked_node_is_blocked_until_it_is_free(tmp_path: Path) -> None:
    """The Lease of the node holds it back, and it tries again every half a minute."""
    async with world(tmp_path, maintenance=True) as there:
        body = {"metadata": {"name": "by-hand"}, "spec": {"nodeName": "node-006", "force": False}}
        await there.make(names.REBOOTS, body)
        await there.until(lambda: there.twin.cluster.all(LEASES))
        await there.make(names.MAINTENANCES, planned_maintenance())
        await there.let(3)
        assert there.told(there.only(names.MAINTENANCES))["HealthEventEmitted"] == (
            "False",
            "Blocked",
        )
        assert not there.is_cordoned("node-006")
        await there.until(lambda: there.is_cordoned("node-006"))
        assert "completionTime" in there.only(names.REBOOTS)["status"]


async def test_a_maintenance_is_not_heard_where_its_controller_is_off(tmp_path: Path) -> None:
    """Which is the default."""
    async with world(tmp_path) as there:
        await there.make(names.MAINTENANCES, planned_maintenance())
        await there.let(20)
        assert not there.is_cordoned("node-006")
        assert "status" not in there.only(names.MAINTENANCES)


@both
async def test_a_node_is_handed_to_the_outside_and_taken_back(tmp_path: Path, which: str) -> None:
    """The taint keeps work off it until the outside says that it is repaired."""
    async with world(tmp_path, which) as there:
        there.twin.report(fatal("node-006", action="CUSTOM", custom_action="external-remediation"))
        await there.until(
            lambda: any(
                RELEASED in there.told(raw) for raw in there.twin.cluster.all(names.EXTERNALS)
            )
        )
        cr = there.only(names.EXTERNALS)
        assert cr["spec"]["healthEvent"]["nodeName"] == "node-006"
        (taint,) = there.node("node-006")["spec"]["taints"]
        assert taint == {
            "key": names.RELEASE_TAINT,
            "value": cr["metadata"]["name"],
            "effect": "NoSchedule",
        }
        done = {"type": COMPLETE, "status": "True", "reason": "Repaired", "message": "new board"}
        conditions = [*cr["status"]["conditions"], done]
        await there.merge(
            names.EXTERNALS,
            cr["metadata"]["name"],
            {"status": {"conditions": conditions}},
            part="status",
        )
        await there.until(lambda: not there.is_cordoned("node-006"))
        assert "taints" not in there.node("node-006")["spec"]
        assert "completionTime" in there.only(names.EXTERNALS)["status"]
        await there.delete(names.EXTERNALS, cr["metadata"]["name"])
        await there.until(lambda: not there.twin.cluster.all(names.EXTERNALS))


@embedded
async def test_a_validation_lifts_the_cordon_only_where_it_passes(
    tmp_path: Path, which: str
) -> None:
    """It runs as a Job for its time, and says which nodes failed."""
    async with world(tmp_path, which) as there:
        for node in ("node-005", "node-006"):
            await there.merge(NODES, node, {"spec": {"unschedulable": True}})
        there.plant.inject(Fault(FaultKind.HBM_ERROR, "node-005/gpu-1"))
        for node in ("node-005", "node-006"):
            body = {"metadata": {"name": f"check-{node}"}, "spec": {"nodes": [{"name": node}]}}
            await there.make(names.VALIDATIONS, body)
        await there.until(lambda: names.ACTIVE_VALIDATION in there.notes("node-006"))
        assert len(await there.client.all(JOBS, namespace=names.SPACE)) >= 1
        found = await there.until(
            lambda: all(
                raw.get("status", {}).get("phase") in ("Succeeded", "Failed")
                for raw in there.twin.cluster.all(names.VALIDATIONS)
            )
        )
        assert found >= 15
        phases = {
            raw["metadata"]["name"]: raw["status"]
            for raw in there.twin.cluster.all(names.VALIDATIONS)
        }
        (attempt,) = phases["check-node-005"]["testGroups"][0]["attempts"]
        assert attempt["failureReason"] == "TestFailed"
        assert attempt["failedNodes"] == ["node-005"]
        assert phases["check-node-006"]["phase"] == "Succeeded"
        assert there.is_cordoned("node-005")
        assert not there.is_cordoned("node-006")


@both
async def test_a_terminated_node_is_gone(tmp_path: Path, which: str) -> None:
    """Its Node object is deleted, and its job stands."""
    async with world(tmp_path, which) as there:
        body = {"metadata": {"name": "end"}, "spec": {"nodeName": "node-005", "force": True}}
        await there.make(names.TERMINATIONS, body)
        await there.until(lambda: there.twin.cluster.node("node-005") is None)
        await there.step()
        assert there.told(there.only(names.TERMINATIONS))["NodeTerminated"] == ("True", "Succeeded")
        with pytest.raises(NotFoundError):
            await there.client.get(NODES, "node-005")


async def test_two_reboots_of_one_node_come_one_after_the_other(tmp_path: Path) -> None:
    """The Lease is of the first until it is over."""
    async with world(tmp_path) as there:
        for name in ("a", "b"):
            body = {"metadata": {"name": name}, "spec": {"nodeName": "node-006", "force": False}}
            await there.make(names.REBOOTS, body)
        await there.let(30)
        assert len(there.twin.reboots_of("node-006")) == 1
        await there.until(
            lambda: all(
                "completionTime" in raw.get("status", {})
                for raw in there.twin.cluster.all(names.REBOOTS)
            )
        )
        first, second = there.twin.reboots_of("node-006")
        assert (second - first).total_seconds() >= QUICK.reboot_s


async def test_a_reboot_that_takes_too_long_is_a_timeout(tmp_path: Path) -> None:
    """The CR fails, though the node comes back later."""
    slow = replace(QUICK, reboot_s=200.0, give_up_s=100.0)
    async with world(tmp_path, timings=slow) as there:
        body = {"metadata": {"name": "slow"}, "spec": {"nodeName": "node-006", "force": False}}
        await there.make(names.REBOOTS, body)
        await there.until(lambda: "completionTime" in there.only(names.REBOOTS).get("status", {}))
        assert there.told(there.only(names.REBOOTS))["NodeReady"] == ("False", "Timeout")
        assert not there.plant.node_is_lit[5]
        await there.until(lambda: there.plant.node_is_lit[5])


async def test_in_manual_mode_nobody_is_called(tmp_path: Path) -> None:
    """The CR says that somebody outside has to act."""
    async with world(tmp_path) as there:
        there.twin.janitor.manual = True
        body = {"metadata": {"name": "ours"}, "spec": {"nodeName": "node-006", "force": False}}
        await there.make(names.REBOOTS, body)
        await there.let(20)
        told = there.told(there.only(names.REBOOTS))
        assert told["ManualMode"] == ("True", "OutsideActorRequired")
        assert not there.twin.provider.signals
        assert not there.twin.cluster.all(LEASES)


async def test_a_finished_request_goes_after_its_time_unless_preserved(tmp_path: Path) -> None:
    """The annotation `preserve` keeps it."""
    async with world(tmp_path, timings=replace(QUICK, ttl_s=60.0)) as there:
        for name, node, notes in (
            ("goes", "node-006", {}),
            ("stays", "node-005", {names.PRESERVE: "true"}),
        ):
            about = {"name": name, "annotations": notes}
            body = {"metadata": about, "spec": {"nodeName": node, "force": False}}
            await there.make(names.REBOOTS, body)
        await there.until(lambda: len(there.twin.cluster.all(names.REBOOTS)) == 1)
        assert there.only(names.REBOOTS)["metadata"]["name"] == "stays"


@embedded
async def test_an_uncordon_by_hand_cancels_the_quarantine(tmp_path: Path, which: str) -> None:
    """Its annotations go, a mark stays, the drain ends, and nothing is rebooted."""
    async with world(tmp_path, which) as there:
        there.twin.report(fatal("node-003"))
        await there.until(lambda: there.labels("node-003").get(names.STATE) == names.DRAINING)
        await there.merge(NODES, "node-003", {"spec": {"unschedulable": None}})
        await there.let(100)
        assert not there.is_cordoned("node-003")
        assert there.notes("node-003") == {names.UNCORDONED_MANUALLY: "True"}
        assert names.STATE not in there.labels("node-003")
        assert not there.twin.provider.signals


@both
async def test_a_tripped_breaker_stops_cordons_and_recoveries_alike(
    tmp_path: Path, which: str
) -> None:
    """Setting the ConfigMap back does nothing until the module is restarted."""
    async with world(tmp_path, which) as there:
        await trip_and_repair(there)
        assert _breaker(there)["status"] == "TRIPPED"
        stuck = {"node-004", "node-005", "node-006"}
        assert _cordoned(there) == stuck  # well, and out all the same
        breaker = {"data": {"status": "CLOSED"}}
        await there.merge(CONFIG_MAPS, names.BREAKER_MAP, breaker, namespace=names.SPACE)
        await there.let(310)
        assert _cordoned(there) == stuck
        notes = {"annotations": {"kubectl.kubernetes.io/restartedAt": "2026-11-25T00:10:00Z"}}
        restart = {"spec": {"template": {"metadata": notes}}}
        await there.merge(DEPLOYMENTS, "fault-quarantine", restart, namespace=names.SPACE)
        await there.let(10)
        assert not _cordoned(there)


async def test_a_breaker_set_back_with_create_passes_over_what_waited(tmp_path: Path) -> None:
    """So the nodes that recovered meanwhile stay cordoned: the cursor is a choice."""
    async with world(tmp_path) as there:
        await trip_and_repair(there)
        breaker = {"data": {"status": "CLOSED", "cursor": "CREATE"}}
        await there.merge(CONFIG_MAPS, names.BREAKER_MAP, breaker, namespace=names.SPACE)
        notes = {"annotations": {"kubectl.kubernetes.io/restartedAt": "2026-11-25T00:10:00Z"}}
        restart = {"spec": {"template": {"metadata": notes}}}
        await there.merge(DEPLOYMENTS, "fault-quarantine", restart, namespace=names.SPACE)
        await there.let(10)
        assert _cordoned(there) == {"node-004", "node-005", "node-006"}
        assert _breaker(there) == {"status": "CLOSED", "cursor": "RESUME"}


async def test_a_rule_set_that_taints_is_undone_with_the_cordon(tmp_path: Path) -> None:
    """The live rules are those of the ConfigMap; what they applied is noted and taken away."""
    rules = (
        '[[rule-sets]]\nname = "All"\n[[rule-sets.match.any]]\nkind = "HealthEvent"\n'
        'expression = "event.isFatal && event.errorCode == []"\n'
        "[rule-sets.cordon]\nshouldCordon = true\n"
        '[rule-sets.taint]\nkey = "sick"\nvalue = "yes"\neffect = "NoSchedule"\n'
        '[rule-sets.label]\nkey = "is-sick"\nvalue = "yes"\n'
    )
    async with world(tmp_path) as there:
        body = {"data": {"config.toml": rules}}
        await there.merge(CONFIG_MAPS, names.RULES_MAP, body, namespace=names.SPACE)
        there.twin.report(fatal("node-006"))
        await there.until(lambda: there.is_cordoned("node-006"))
        assert there.node("node-006")["spec"]["taints"] == [
            {"key": "sick", "value": "yes", "effect": "NoSchedule"}
        ]
        assert there.labels("node-006")["is-sick"] == "yes"
        there.twin.report(healthy("node-006"))
        await there.until(lambda: not there.is_cordoned("node-006"))
        assert "taints" not in there.node("node-006")["spec"]
        assert "is-sick" not in there.labels("node-006")


def test_rules_are_read_as_cel_reads_them() -> None:
    """What binds tighter, what is missing, and what is no part of it."""
    given = {"event": {"a": 1, "b": "x", "list": ["x"]}, "node": {"labels": {"k/k": "false"}}}
    assert evaluate("event.a == 1 || event.a == 2 && event.b == 'y'", given)
    assert evaluate("!(event.b in ['y', 'z']) && 'x' in event.list", given)
    assert evaluate("'k/k' in node.labels && node.labels['k/k'] == \"false\"", given)
    assert evaluate("event.none == 1 || event.a == 1", given)
    unreadable = ("event.list.exists(e, e == 'x')", "event.a", "event.a ==", "nobody == 1", "1 ~ 2")
    for wrong in (*unreadable, "event.none == 1"):
        with pytest.raises(InvalidRequestError):
            evaluate(wrong, given)
    assert [rules.name for rules in parse_rules(default_rules(maintenance=True))][-1] == (
        "MaintenanceRequest ruleset"
    )
    assert len(parse_rules(default_rules(maintenance=False))) == 6
