"""What has come to a stand: the ways in which NVSentinel's loop is known to stop, as they show.

Source: issues of NVIDIA/NVSentinel, by number. A finding says what can be seen, never more.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from interlock_servers.nvsentinel import names
from interlock_servers.nvsentinel.client import NvsentinelClient
from interlock_servers.nvsentinel.installed import BreakerState, Installed
from interlock_servers.nvsentinel.models import CordonedBy, Node, Outcome, Request

LOOP_OF: Final = 3  # requests of one kind for one node
LOOP_WITHIN: Final = timedelta(hours=24)
DYING_RESTARTS: Final = 5
_NOISY: Final = ("GpuDcgmConnectivityFailure", "GpuDcgmUnresponsive")


class Finding(NamedTuple):
    """One thing that does not go on.

    Attributes:
        issue: where upstream knows of it; empty where only we do.
        what: one of the words of this file.
    """

    node: str
    what: str
    since: datetime | None
    says: str
    issue: str = ""


def findings(
    client: NvsentinelClient, now: Installed, *, node_id: str | None = None
) -> list[Finding]:
    """Everything that is stuck, by node; what is about no node stands first.

    With `node_id` only what is about this one.
    """
    found = list(_of_all(client, now))
    if node_id is None:
        requests = client.all_requests()
        asked = {name for one in requests for name in one.nodes}
        nodes = [node for node in client.nodes.values() if not node.calm or node.name in asked]
    else:
        requests = client.requests_of(node_id)
        nodes = [node for node in (client.nodes.find(node_id),) if node is not None]
    for node in nodes:
        found += _of_node(client, node, client.requests_of(node.name), now)
    for request in requests:
        found += _of_request(client, request)
    kept = [one for one in found if node_id in {None, one.node}]
    return sorted(kept, key=lambda one: (one.node, one.what, one.says))


def _of_all(client: NvsentinelClient, now: Installed) -> Iterator[Finding]:
    if now.breaker.state is BreakerState.TRIPPED:
        yield Finding(
            "", "breaker_tripped", None, f"the circuit breaker is tripped: {now.breaker.why}"
        )
    if now.breaker.state is BreakerState.STALE:
        says = f"the breaker's ConfigMap says TRIPPED: {now.breaker.why}"
        yield Finding("", "breaker_stale", None, says)
    for module in now.modules.values():
        if module.wanted > module.ready:
            says = f"{module.name}: {module.ready} of {module.wanted} replicas are ready"
            yield Finding("", "module_not_ready", None, says)
    for pod in client.pods.by("restarted", client.settings.namespace):
        if pod.restarts >= DYING_RESTARTS:
            says = f"{pod.name} was restarted {pod.restarts} times: a GPU may be killing it"
            yield Finding(pod.node, "monitor_restarts", None, says, "#1748")


def _of_node(
    client: NvsentinelClient, node: Node, requests: list[Request], now: Installed
) -> Iterator[Finding]:
    quarantine = node.quarantine
    events = () if quarantine is None else quarantine.events or ()
    first = min((one.since for one in node.faults if one.since), default=None)

    def of(what: str, says: str, issue: str = "", since: datetime | None = None) -> Finding:
        return Finding(node.name, what, since or node.cordoned_at or first, says, issue)

    if quarantine is not None and quarantine.events is None:
        yield of("unreadable", quarantine.why)
    if quarantine is not None and not node.cordoned and now.dry_run is True:
        yield of("dry_run", "it is annotated as quarantined, and NVSentinel only runs dry")
    elif quarantine is not None and not node.cordoned:
        yield of("not_cordoned", "it is annotated as quarantined and is not cordoned", "#753")
    if node.cordoned_by is CordonedBy.NVSENTINEL and not node.faults and not node.unsure:
        if now.breaker.state is BreakerState.TRIPPED:
            says = "it has recovered, and stays out because the breaker is tripped"
            yield of("held_by_breaker", says)
        elif _older(client, node.cordoned_at, client.settings.stuck_after_s):
            yield of("not_uncordoned", "no fault shows, and it is still cordoned", "#458 #363")
    if events and node.faults and all(one.action in names.UNSUPPORTED for one in events):
        told = ", ".join(sorted({one.action for one in events}))
        yield of("no_action", f"recommended is {told}: no module acts on that", "#911")
    named = {one.check for one in events}
    unnamed = [one for one in node.faults if one.type not in named]
    if events and unnamed:
        says = f"{', '.join(c.type for c in unnamed[:5])} came later and is not in its quarantine"
        yield of("second_event", says, "#1439", unnamed[0].since)
    if node.stage in {"drain-failed", "remediation-failed"}:
        yield of(node.stage.replace("-", "_"), f"its label says {node.stage}, which is an end")
    if node.stage == "draining" and _older(client, node.cordoned_at, client.settings.stuck_after_s):
        left = [pod for pod in client.pods.by("node", node.name) if client.is_work(pod)]
        says = f"{len(left)} pods have not left; AllowCompletion waits without end"
        yield of("drain_waits", says)
    if node.stage == "remediation-succeeded" and node.faults:
        acted = next((one for one in requests if one.name in node.remediation), None)
        told = "its request is not there" if acted is None else f"its request is {acted.outcome}"
        yield of(
            "label_too_early", f"the label says remediation-succeeded; {told}, and a fault shows"
        )
    if node.by_hand and node.faults and not node.cordoned:
        says = "its quarantine was cancelled by hand, and a fault still shows"
        yield of("cancelled_by_hand", says)
    if node.opted_out and node.faults and not node.released:
        yield of("opted_out", f"{node.opted_out[0]}=false keeps NVSentinel off a node with a fault")
    yield from _false_alarms(node)
    yield from _loops(client, node, requests)


def _false_alarms(node: Node) -> Iterator[Finding]:
    for fault in node.faults:
        if fault.type in _NOISY and not node.bootstrapped:
            says = f"{fault.type} before DCGM had come up once: known to be a false alarm"
            yield Finding(node.name, "false_alarm", fault.since, says, "#1423")
        if "IMEX_UNHEALTHY" in fault.message:
            says = f"{fault.type}: an idle IMEX domain is known to look unhealthy"
            yield Finding(node.name, "false_alarm", fault.since, says, "aicr#2641")


def _loops(client: NvsentinelClient, node: Node, requests: list[Request]) -> Iterator[Finding]:
    since = client.clock.now() - LOOP_WITHIN
    lately = Counter(
        one.kind
        for one in requests
        if one.created_at is not None
        and one.created_at >= since
        and one.kind in {names.REBOOTS.kind, names.TERMINATIONS.kind, names.RESETS.kind}
    )
    for kind, times in lately.items():
        if times >= LOOP_OF:
            says = f"{times} of {kind} within a day: upstream has no limit by default"
            yield Finding(node.name, "remediation_loop", None, says, "#1543")


def _of_request(client: NvsentinelClient, one: Request) -> Iterator[Finding]:
    node = one.nodes[0] if one.nodes else ""
    name = f"{one.kind} {one.name}"
    late = _older(client, one.started_at or one.created_at, client.settings.timeout_s)

    def of(what: str, says: str, issue: str = "") -> Finding:
        return Finding(node, what, one.started_at or one.created_at, f"{name} {says}", issue)

    if one.leaving_since is not None:
        if _older(client, one.leaving_since, client.settings.stuck_after_s):
            yield of("not_let_go", "is deleted, and a finalizer holds it")
        return
    if one.kind == names.MAINTENANCE.kind:
        emitted = one.condition(names.EMITTED)
        if emitted is not None and emitted.status == "False":
            yield of("maintenance_blocked", f"is not emitted: {emitted.reason}")
        elif one.says(names.EMITTED) != "True" and late:
            yield of("maintenance_blocked", "was never taken up")
        return
    if one.kind == names.REPAIRS.kind:
        repaired = one.says(names.REPAIRED)
        if repaired == "False":
            yield of("repair_failed", "was called failed: the node stays released")
        elif one.says(names.RELEASED) == "True" and repaired != "True" and late:
            yield of("repair_waits", "waits for whoever repairs: nobody has closed it")
        return
    if one.outcome is Outcome.OPEN and one.says(names.MANUAL) == "True":
        yield of("manual_mode", "waits for somebody outside: nothing was called")
    elif one.outcome is Outcome.OPEN and late:
        yield of("provider_silent", "has not ended; a failure of the provider looks so", "#1808")
    if one.outcome is Outcome.FAILED and one.kind == names.RESETS.kind:
        told = next((c.reason for c in one.conditions if c.reason and c.status == "False"), "")
        yield of("reset_failed", f"failed ({told}); persistence mode refuses it", "#1692")
    elif one.outcome in {Outcome.FAILED, Outcome.UNKNOWN}:
        yield of("request_failed", f"ended {one.outcome}")


def _older(client: NvsentinelClient, since: datetime | None, than_s: float) -> bool:
    """Whether it is so old; where nobody knows since when, it is."""
    return since is None or (client.clock.now() - since).total_seconds() > than_s
