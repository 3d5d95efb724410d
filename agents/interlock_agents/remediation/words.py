"""Reasons that approvers read; no word of a health message is in them."""

from typing import Final

from interlock_agents.own_changes import tagged
from interlock_agents.remediation.causes import Incident
from interlock_agents.remediation.deciding import Step
from interlock_agents.remediation.diagnosing import Diagnosis

NO_FAULT: Final = "no fault shows any more"
_DOES: Final = {
    Step.DRAIN: "take it out of service and let its work leave",
    Step.RESET: "reset the GPUs that its faults name; it is cordoned and empty",
    Step.REBOOT: "drain it, then reboot it",
    Step.RETURN: "give it back to service",
}


def purpose(node_id: str) -> str:
    """The tag of what is done for one node."""
    return f"return {node_id}"


def node_of(tag: str | None) -> str | None:
    """The node that a tag names; None of a tag that is not ours."""
    word, _, node_id = (tag or "").partition(" ")
    return node_id if word == "return" and node_id else None


def reason(
    node_id: str, step: Step, why: str, found: Diagnosis | None, spare: str | None, cause: str
) -> str:
    """Why a change is asked for."""
    seen = NO_FAULT if found is None else found.evidence
    of_many = "" if cause == node_id else f", one of several ({cause})"
    to = "" if spare is None else f"; {spare} is free for its work"
    told = f"{node_id}{of_many}: {seen}. {_DOES[step].capitalize()}: {why}{to}"
    return tagged(told, purpose(node_id))


def told_of(incident: Incident, flow: str) -> str:
    """An incident of many nodes, in one sentence."""
    first = incident.members[0]
    if incident.is_hot:
        return (
            f"{incident.place} does not cool what hangs on it, first seen at {first.node_id}"
            f"{flow and f'; {flow}'}: nothing that is done to a node helps, people look at the "
            "cooling; what is still ill once it is cool is brought back then"
        )
    names = ", ".join(one.node_id for one in incident.members)
    return f"{len(incident.members)} nodes of {incident.place} show {first.evidence}: {names}"
