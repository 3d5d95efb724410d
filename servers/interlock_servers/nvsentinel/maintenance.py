"""Planned maintenance: the way that upstream means automation to take a node out, and back.

Deleting a MaintenanceRequest is the end of the maintenance, and NVSentinel then gives the node back
even where what was asked for has not been done.
"""

from datetime import datetime
from typing import Any, Final

from interlock_servers.nvsentinel import facts as known
from interlock_servers.nvsentinel import names
from interlock_servers.nvsentinel.acting import AskFor, Ground, NodeArguments, OnNode, RequestName
from interlock_servers.nvsentinel.acting import says as said
from interlock_servers.nvsentinel.models import CordonedBy, Request
from interlock_servers.transports.kube.connection import Json
from interlock_servers.transports.kube.kinds import Kind
from interlock_tools.errors import InvalidRequestError, NotFoundError
from interlock_tools.fact import FactNeed, FactSet
from interlock_tools.identity import Target
from interlock_tools.operation import DryRun, Effect, Happened, Held, ReadBack, Verdict

CHECK: Final = "PlannedMaintenance"


class RequestMaintenance(AskFor[NodeArguments]):
    """Have NVSentinel cordon a node and drain it by its rules; end_maintenance brings it back.

    Done means cordoned: explain_node shows when it is empty, which may take without end.
    """

    name = "nvsentinel.request_maintenance"
    arguments = NodeArguments
    kind = names.MAINTENANCE
    deadline_s = 1200.0
    compensates = True
    compensation_repeats = True  # it looks first

    def forbid(self, arguments: NodeArguments, ground: Ground) -> None:
        """Maintenance is offered, would be carried out, and nobody is at work on the node."""
        ground.serves(names.MAINTENANCE)
        ground.runs(names.LIFECYCLE, names.QUARANTINER, names.DRAINER)
        ground.acts()
        ground.is_not_theirs()
        ground.is_not_released()
        ground.is_free()
        if ground.of(known.NODE_QUARANTINE)["opted_out"]:
            raise InvalidRequestError("node_id: a label keeps NVSentinel off it; opt_in first")

    def spec(self, arguments: NodeArguments, kind: Kind) -> Json:
        """Cordon and drain, and no more."""
        return maintenance_spec(arguments.node_id, "NONE", self.request_name)

    async def verify(self, arguments: NodeArguments, before: FactSet, since: datetime) -> Verdict:
        """The request was taken up, and fault-quarantine has the node cordoned for it."""
        source = "fault-quarantine's annotations on the node"
        found = await self._found(arguments, self.kind)
        if found is None or found.leaving_since is not None:
            return Verdict(held=Held.NO, source=source, evidence={"request": "it is gone"})
        node, _ = await self._client.node(arguments.node_id)
        evidence = {**said(found), "cordoned_by": node.cordoned_by.value}
        emitted = found.says(names.EMITTED) == "True"
        events = (node.quarantine.events or ()) if node.quarantine else ()
        held = emitted and node.cordoned and any(one.check == CHECK for one in events)
        return Verdict(held=Held.YES if held else Held.NOT_YET, source=source, evidence=evidence)

    async def compensate(self, arguments: NodeArguments, before: FactSet) -> dict[str, Any]:
        """Take the request back: a maintenance that did not take hold keeps no node out."""
        try:
            found, raw = await self._client.request(self.kind, self.request_name)
        except NotFoundError:
            return {"request": "it is gone"}
        if found.change_id == self._key and found.leaving_since is None:
            await self._client.kube.delete(self.kind, found.name, seen=raw)
        return {"request": "it was taken back"}


class EndArguments(NodeArguments):
    """Which maintenance of which node."""

    request_name: RequestName
    even_if_unfinished: bool = False


class EndMaintenance(OnNode[EndArguments]):
    """End a maintenance that Interlock began: NVSentinel gives the node back, finished or not.

    One whose reboot has not succeeded needs even_if_unfinished.
    """

    name = "nvsentinel.end_maintenance"
    arguments = EndArguments
    effect = Effect.REVERSIBLE
    deadline_s = 600.0

    def facts(self, arguments: EndArguments) -> tuple[FactNeed, ...]:
        """Also the request itself."""
        return (*super().facts(arguments), _need("maintenance_request", arguments.request_name))

    def blast_radius(self, arguments: EndArguments, facts: FactSet) -> Any:
        """The node; the request must be ours, of that node, and what it asked for done."""
        request = facts.value(
            known.REQUEST, _subject("maintenance_request", arguments.request_name)
        )
        if request["node"] != arguments.node_id:
            raise InvalidRequestError(f"request_name: it is about {request['node'] or 'no node'}")
        if not request["ours"]:
            raise InvalidRequestError(
                "request_name: it is somebody else's, who may be at work there"
            )
        if request["acted"] == "no" and not arguments.even_if_unfinished:
            raise InvalidRequestError(
                f"request_name: it asks for {request['wants']}, and that has not succeeded; "
                "the node would come back as it was. Set even_if_unfinished to end it all the same"
            )
        return super().blast_radius(arguments, facts)

    def forbid(self, arguments: EndArguments, ground: Ground) -> None:
        """NVSentinel takes it back: its breaker is closed, and nothing else is under way."""
        ground.runs(names.LIFECYCLE, names.QUARANTINER)
        if ground.sentinel["breaker"] == "tripped":
            raise InvalidRequestError(
                "node_id: the breaker is tripped, and nothing is given back: reset it first"
            )
        if not arguments.even_if_unfinished:
            own = f"{names.MAINTENANCE.kind}/{arguments.request_name}"
            ground.is_free(but=own, while_drained_by_us=True)

    async def dry_run(self, arguments: EndArguments) -> DryRun | None:
        """The API server's own rehearsal of the delete."""
        found, raw = await self._client.request(names.MAINTENANCE, arguments.request_name)
        await self._client.kube.delete(names.MAINTENANCE, found.name, seen=raw, dry_run=True)
        return DryRun(would_succeed=True, notes=("the API server would delete it",))

    async def execute(self, arguments: EndArguments, key: str) -> dict[str, Any]:
        """Delete the request that is seen now.

        Raises:
            ConflictError: it changed in that moment.
            UnavailableError: no answer.
        """
        try:
            found, raw = await self._client.request(names.MAINTENANCE, arguments.request_name)
        except NotFoundError:
            return {"deleted": False, "why": "it is gone already"}
        await self._client.kube.delete(names.MAINTENANCE, found.name, seen=raw)
        return {"deleted": True, "uid": found.uid}

    async def read_back(self, arguments: EndArguments) -> ReadBack:
        """It is gone, or on its way."""
        found = await self._there(arguments)
        happened = Happened.NO if found and found.leaving_since is None else Happened.YES
        return ReadBack(happened=happened)

    async def verify(self, arguments: EndArguments, before: FactSet, since: datetime) -> Verdict:
        """The request is gone, and the node is no longer cordoned for it."""
        found = await self._there(arguments)
        node, _ = await self._client.node(arguments.node_id)
        events = (node.quarantine.events or ()) if node.quarantine else ()
        others = [one.check for one in events if one.check != CHECK]
        evidence = {
            "request": "gone" if found is None else "leaving",
            "cordoned_by": node.cordoned_by.value,
            "still_quarantined_for": others,
        }
        back = not node.cordoned or node.cordoned_by is CordonedBy.SOMEBODY or bool(others)
        held = found is None and back and not any(one.check == CHECK for one in events)
        return Verdict(
            held=Held.YES if held else Held.NOT_YET,
            source="fault-quarantine's annotations on the node",
            evidence=evidence,
        )

    async def _there(self, arguments: EndArguments) -> Request | None:
        try:
            return (await self._client.request(names.MAINTENANCE, arguments.request_name))[0]
        except NotFoundError:
            return None


def maintenance_spec(node_id: str, action: str, change: str) -> Json:
    """The body that the documentation of v1.25 asks for; it holds no word of a caller."""
    return {
        "healthEvent": {
            "version": 1,
            "nodeName": node_id,
            "isHealthy": False,
            "isFatal": False,
            "componentClass": "Node",
            "agent": names.FIELD_MANAGER,
            "checkName": CHECK,
            "recommendedAction": action,
            "message": f"requested by {change}",
        }
    }


def _subject(kind: str, name: str) -> Target:
    return Target(kind=kind, id=name)


def _need(kind: str, name: str) -> FactNeed:
    return FactNeed(kind=known.REQUEST, subject=_subject(kind, name), max_age_s=30.0)
