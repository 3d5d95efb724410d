"""Where a node stands in NVSentinel's loop, and what comes next if nobody does anything."""

from typing import Final

from interlock_servers.nvsentinel import names
from interlock_servers.nvsentinel.client import newest_first
from interlock_servers.nvsentinel.installed import BreakerState, Installed, Mode
from interlock_servers.nvsentinel.models import CordonedBy, Node, Outcome, Quarantine, Request

_ENDS: Final = {
    "drain-failed": "the drain failed: nothing more happens by itself",
    "remediation-failed": "no remediation was possible: nothing more happens by itself",
}
_ACTS: Final = frozenset({names.REBOOTS.kind, names.TERMINATIONS.kind, names.RESETS.kind})


def stage_of(node: Node, now: Installed) -> str:
    """A word for where it stands; what the label says, except where it says too much."""
    if node.quarantine is not None and not node.cordoned and now.dry_run is True:
        return "dry-run"
    if node.stage == "remediation-succeeded":
        return "remediation-requested"  # upstream's word only means that a request was made
    if node.stage is not None:
        return node.stage
    if node.quarantine is not None:
        return "quarantined"
    if node.released:
        return "released-to-external-repair"
    if node.cordoned:
        return "cordoned"
    return "faulty" if node.faults else "unclear" if not node.calm else "in-service"


def next_of(node: Node, requests: list[Request], now: Installed, work: int) -> str:
    """One sentence."""
    about = newest_first(one for one in requests if one.kind in _ACTS)
    open_one = next((one for one in about if one.outcome is Outcome.OPEN), None)
    if now.mode in {Mode.ABSENT, Mode.MONITORING, Mode.UNKNOWN}:
        return f"nothing by itself: NVSentinel is {now.mode} ({now.why})"
    if node.cordoned_by is CordonedBy.SOMEBODY:
        return "it was cordoned by somebody else: NVSentinel leaves that alone, and so do we"
    if node.released:
        return "an external repair has it: it comes back when that is closed"
    if now.breaker.state is BreakerState.TRIPPED and (node.faults or node.quarantine):
        return "the breaker is tripped: neither quarantine nor return goes on until it is reset"
    if node.stage in _ENDS:
        return _ENDS[node.stage]
    if open_one is not None:
        if open_one.says(names.MANUAL) == "True":
            return f"{open_one.kind} {open_one.name} waits for somebody outside (manual mode)"
        return f"{open_one.kind} {open_one.name} is to end, by its own conditions"
    quarantine = node.quarantine
    if quarantine is None:
        if node.opted_out and node.faults:
            return "nothing: its label keeps NVSentinel off"
        return "fault-quarantine is to decide" if node.faults else "nothing"
    return _quarantined(node, quarantine, about, now, work)


def _quarantined(
    node: Node, quarantine: Quarantine, about: list[Request], now: Installed, work: int
) -> str:
    stays = ", and it stays cordoned as it was before" if quarantine.pre_existing else ""
    if now.dry_run is True and not node.cordoned:
        return "nothing: NVSentinel runs dry, its annotations stand for no cordon"
    if not node.faults and not node.unsure:
        return f"no fault shows any more: fault-quarantine is to give it back{stays}"
    events = quarantine.events or ()
    if events and all(one.action in names.UNSUPPORTED for one in events):
        return "no module can act on what is recommended: people must"
    if node.stage == "draining":
        return f"{work} pods are to leave; under AllowCompletion that may take without end"
    if node.stage == "remediation-succeeded" and about:
        return f"{about[0].kind} {about[0].name} ended {about[0].outcome}, and a fault still shows"
    missing = [n for n in (names.DRAINER, names.REMEDIATOR, names.JANITOR) if n not in now.acting]
    if missing:
        return f"it waits for {missing[0]}, which is not there"
    return "it is to be drained, then remediated"
