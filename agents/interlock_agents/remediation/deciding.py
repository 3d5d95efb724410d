"""The next step of one ill node: drain before reset, reset before reboot, reboot before people.

It follows from what is there now and from nothing that an agent remembers, so that one that was
restarted goes on where it was.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from interlock_agents.remediation.catalogue import Remedy
from interlock_agents.remediation.diagnosing import Diagnosis

WINDOW: Final = timedelta(hours=24)
REPEATS: Final = 2  # repairs within the window, by whomever; after that nothing is tried again
MAINTENANCE: Final = "MaintenanceRequest"
REPAIRS: Final = frozenset({"GPUReset", "RebootNode"})


class Step(StrEnum):
    """What to do."""

    NOTHING = "nothing"
    DRAIN = "drain"
    AWAIT_EMPTY = "await empty"
    RESET = "reset"
    REBOOT = "reboot"
    HOLD = "hold"  # out of service, for people
    RETURN = "return"


@dataclass(frozen=True)
class Asked:
    """What was asked for a node, as `list_remediations` shows it.

    Attributes:
        ours: our maintenances that last, oldest first.
        repairs: kind, beginning and outcome of each reset and reboot of the window.
        busy: something else is open.
    """

    ours: tuple[Mapping[str, Any], ...]
    repairs: tuple[tuple[str, datetime, str], ...]
    busy: str | None

    @property
    def since(self) -> datetime | None:
        """When the oldest of our maintenances began."""
        return _at(self.ours[0]) if self.ours else None

    def tried(self, kind: str) -> bool:
        """Whether this was done to the node since we hold it."""
        return self.since is not None and any(
            one == kind and at >= self.since for one, at, _ in self.repairs
        )


def asked(rows: Iterable[Mapping[str, Any]], now: datetime) -> Asked:
    """The requests of a node, sorted out; one is ours by the change that its note names."""
    rows = sorted(rows, key=lambda row: str(row.get("created_at") or ""))
    kept = [row for row in rows if row["kind"] == MAINTENANCE and row.get("outcome") != "leaving"]
    ours = [row for row in kept if _is_ours(row)]
    repairs = [
        (row["kind"], at, str(row.get("outcome")))
        for row in rows
        if row["kind"] in REPAIRS and (at := _at(row)) is not None and at >= now - WINDOW
    ]
    busy = next(
        (
            f"{row['kind']} {row['name']}"
            for row in rows
            if row.get("outcome") in {"open", "leaving"} and row not in ours
        ),
        None,
    )
    return Asked(tuple(ours), tuple(repairs), busy)


def next_step(
    found: Diagnosis | None, story: Mapping[str, Any], requests: Asked
) -> tuple[Step, str]:
    """What to do, and why, in a few words."""
    held = story["cordoned_by"] == "nvsentinel"
    if requests.busy is not None:
        return Step.NOTHING, f"{requests.busy} has not ended"
    if found is None:
        well = story.get("ready") is True and not story.get("unsure")
        if requests.ours and well:
            return Step.RETURN, "no fault shows any more and its kubelet is ready"
        return Step.NOTHING, "no fault shows" if well else "its kubelet does not call it ready"
    if found.remedy <= Remedy.COOLING:
        return Step.NOTHING, _LEAVE[found.remedy]
    if is_repeat(requests) or found.remedy is Remedy.REPAIR:
        return (Step.HOLD if held else Step.DRAIN), _ticket(found, requests)
    if found.remedy is Remedy.REBOOT or not found.gpu_ids or requests.tried("GPUReset"):
        if requests.tried("RebootNode"):
            return Step.HOLD, "it was rebooted, and the fault still shows"
        if any(row.get("wants") != "NONE" for row in requests.ours):
            return Step.NOTHING, "its reboot is asked for, and has not begun"
        was_reset = requests.tried("GPUReset")
        return Step.REBOOT, "a reset was not enough" if was_reset else "a reset would not do"
    if not held:
        return Step.DRAIN, "before its GPUs are reset"
    if story.get("pods"):
        return Step.AWAIT_EMPTY, "work is still leaving"
    return Step.RESET, "it is empty"


def is_repeat(requests: Asked) -> bool:
    """Whether it was repaired so often lately that another try is no repair."""
    return len(requests.repairs) >= REPEATS


def arguments_of(step: Step, name: str, found: Diagnosis | None, requests: Asked) -> dict[str, Any]:
    """What the tool of a step is to be called with."""
    if step is Step.RESET and found is not None:
        return {"node_id": name, "gpu_ids": list(found.gpu_ids)}
    if step is not Step.RETURN:
        return {"node_id": name}
    last = requests.ours[-1]
    arguments = {"node_id": name, "request_name": last["name"]}
    rebooted = any(kind == "RebootNode" and how == "succeeded" for kind, _, how in requests.repairs)
    if last.get("wants") != "NONE" and not rebooted:
        return {**arguments, "even_if_unfinished": True}  # people repaired what a reboot did not
    return arguments


_LEAVE: Final = {
    Remedy.NOTHING: "the job that met it starts again; nothing is to be done to the node",
    Remedy.WAIT: "known to pass by itself, or to be a false alarm",
    Remedy.COOLING: "its cause is the cooling; nothing that is done to the node helps",
}


def _ticket(found: Diagnosis, requests: Asked) -> str:
    if is_repeat(requests):
        told: Sequence[str] = [f"{kind} at {at:%H:%M:%S}" for kind, at, _ in requests.repairs]
        return f"a repeat offender: {', '.join(told)}, and it is ill again"
    return "people have to look at it"


def _is_ours(row: Mapping[str, Any]) -> bool:
    change = row.get("change_id")
    return change is not None and row["name"] == f"interlock-{change}"


def _at(row: Mapping[str, Any]) -> datetime | None:
    told = row.get("created_at")
    return None if told is None else datetime.fromisoformat(told)
