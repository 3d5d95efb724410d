"""What people may override: a quarantine, whether NVSentinel looks at a node, a repair outside.

Source: the overrides of NVSentinel v1.19; each is one patch that carries the resource version of
what was seen, and is verified by what NVSentinel's own modules then do.
"""

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import Field

from interlock_servers.nvsentinel import facts as known
from interlock_servers.nvsentinel import names
from interlock_servers.nvsentinel.acting import (
    AGE_S,
    Ground,
    NodeArguments,
    OnNode,
    RequestName,
    drop_in,
    set_in,
    settled,
)
from interlock_servers.plant_text import plant_text
from interlock_servers.transports.kube.connection import Json
from interlock_servers.transports.kube.kinds import NODES
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.errors import ConflictError, InvalidRequestError
from interlock_tools.fact import FactNeed, FactSet
from interlock_tools.identity import Target
from interlock_tools.operation import DryRun, Effect, Expiry, Happened, Held, ReadBack, Verdict

SETTLES_S: Final = 10.0  # a controller that puts a label back has done so by then
WEEK_S: Final = 7 * 86_400.0


class _PatchNode(OnNode[Any]):
    """One patch of a node as it is seen in that moment."""

    def changes(self, raw: Json, key: str) -> list[Json]:
        """What to change in this object; nothing where it is so already."""
        raise NotImplementedError

    async def dry_run(self, arguments: Any) -> DryRun | None:
        """The API server's own rehearsal of the patch."""
        _, raw = await self._client.node(arguments.node_id)
        if changes := self.changes(raw, "rehearsal"):
            await self._client.kube.patch(NODES, arguments.node_id, changes, seen=raw, dry_run=True)
        return DryRun(would_succeed=True, notes=(f"{len(changes)} changes of the node",))

    async def execute(self, arguments: Any, key: str) -> dict[str, Any]:
        """Patch the node, if it still is what was seen.

        Raises:
            ConflictError: somebody changed it in that moment; nothing was done.
            UnavailableError: no answer.
        """
        _, raw = await self._client.node(arguments.node_id)
        self.still(raw)
        changes = self.changes(raw, key)
        if changes:
            await self._client.kube.patch(NODES, arguments.node_id, changes, seen=raw)
        return {"changed": bool(changes)}

    def still(self, raw: Json) -> None:
        """Look once more at the object that is about to be patched.

        Raises:
            ConflictError: it is no longer what was decided on.
        """


class CancelArguments(NodeArguments):
    """Which node, and which faults its caller knows of."""

    despite_faults: Annotated[
        list[Annotated[str, Field(max_length=316)]],
        Field(max_length=50, description="every check that still shows a fault"),
    ] = Field(default=[])


class CancelQuarantine(_PatchNode):
    """Give a node back that NVSentinel quarantined. All its active events are cancelled at once.

    It is not quarantined again for them. A cordon of anybody else is left alone.
    """

    name = "nvsentinel.cancel_quarantine"
    arguments = CancelArguments
    deadline_s = 300.0

    def forbid(self, arguments: CancelArguments, ground: Ground) -> None:
        """The cordon is NVSentinel's alone, and the caller knows what still shows."""
        quarantine, health = ground.of(known.NODE_QUARANTINE), ground.of(known.NODE_HEALTH)
        ground.runs(names.QUARANTINER)
        ground.is_not_theirs()
        if quarantine["cordoned_by"] != "nvsentinel":
            _no(f"there is no quarantine to cancel: cordoned by {quarantine['cordoned_by']}")
        if not quarantine["readable"]:
            _no("its events cannot be read, so nobody knows what would be cancelled")
        ground.is_free()
        faults = sorted({*health["faults"], *health["unsure"]})
        if sorted(set(arguments.despite_faults)) != faults:
            _no(f"faults still show: {', '.join(faults) or 'none'}; despite_faults must name them")

    def changes(self, raw: Json, key: str) -> list[Json]:
        """Uncordon it."""
        del key
        return [{"op": "replace", "path": "/spec/unschedulable", "value": False}]

    def still(self, raw: Json) -> None:
        """It is still cordoned by NVSentinel."""
        if self._client.reading.node(raw).cordoned_by.value != "nvsentinel":
            raise ConflictError("it is no longer quarantined by NVSentinel; nothing was done")

    async def read_back(self, arguments: CancelArguments) -> ReadBack:
        """It can be scheduled on again, whoever did it."""
        node, _ = await self._client.node(arguments.node_id)
        happened = Happened.NO if node.cordoned else Happened.YES
        return ReadBack(happened=happened, evidence={"cordoned_by": node.cordoned_by.value})

    async def verify(self, arguments: CancelArguments, before: FactSet, since: datetime) -> Verdict:
        """fault-quarantine has taken its annotations away, and nobody has cordoned it again."""
        node, _ = await self._client.node(arguments.node_id)
        over = not node.cordoned and node.quarantine is None
        evidence = {"cordoned_by": node.cordoned_by.value, "noted_by_hand": node.by_hand}
        return Verdict(
            held=Held.YES if over else Held.NOT_YET,
            source="fault-quarantine's annotations on the node",
            evidence=evidence,
        )


class OptOutArguments(NodeArguments):
    """Which node, and for how long."""

    expires_in_s: Annotated[float, Field(ge=60, le=WEEK_S, description="then it opts in again")]


class OptOut(_PatchNode):
    """Keep NVSentinel from quarantining a node for a while: a fault on it is then only shown."""

    name = "nvsentinel.opt_out"
    arguments = OptOutArguments
    effect = Effect.REVERSIBLE
    deadline_s = 120.0
    compensates = True
    compensation_repeats = True

    def forbid(self, arguments: OptOutArguments, ground: Ground) -> None:
        """It is neither quarantined nor opted out, by us or anybody."""
        quarantine = ground.of(known.NODE_QUARANTINE)
        if quarantine["opted_out"]:
            _no(f"it is opted out already, by {quarantine['opted_out_by']}")
        if quarantine["quarantined"]:
            _no("it is quarantined: opting out would leave it so; cancel_quarantine first")
        ground.is_not_released()
        ground.is_free()

    def changes(self, raw: Json, key: str) -> list[Json]:
        """The label, and beside it whose it is."""
        return [
            *set_in(raw, "labels", names.NOT_QUARANTINED, "false"),
            *set_in(raw, "annotations", names.CHANGE, key),
        ]

    def expiry(self, arguments: OptOutArguments, before: FactSet) -> Expiry | None:
        """Nobody has to remember it."""
        return Expiry(
            after_s=arguments.expires_in_s,
            operation=OptIn.name,
            arguments={"node_id": arguments.node_id},
        )

    async def read_back(self, arguments: OptOutArguments) -> ReadBack:
        """The label is there, and ours."""
        node, _ = await self._client.node(arguments.node_id)
        ours = bool(node.opted_out) and node.opted_out_by == self._key
        return ReadBack(happened=Happened.YES if ours else Happened.NO)

    async def verify(self, arguments: OptOutArguments, before: FactSet, since: datetime) -> Verdict:
        """The label is still there after a while: no controller has put it back."""
        node, _ = await self._client.node(arguments.node_id)
        ours = bool(node.opted_out) and node.opted_out_by == self._key
        return _stays(ours, since, self._client.clock.now())

    async def compensate(self, arguments: OptOutArguments, before: FactSet) -> dict[str, Any]:
        """Take our label away."""
        node, raw = await self._client.node(arguments.node_id)
        if node.opted_out_by == self._key:
            await self._client.kube.patch(NODES, node.name, _opting_in(raw), seen=raw)
        return {"opted_in": True}


class OptIn(_PatchNode):
    """Let NVSentinel look at a node again that Interlock opted out."""

    name = "nvsentinel.opt_in"
    arguments = NodeArguments
    effect = Effect.REVERSIBLE
    deadline_s = 120.0

    def forbid(self, arguments: NodeArguments, ground: Ground) -> None:
        """The label is ours; the janitor sets one too, for as long as a repair outside lasts."""
        quarantine = ground.of(known.NODE_QUARANTINE)
        if quarantine["opted_out"] and quarantine["opted_out_by"] == "nobody":
            _no(f"{quarantine['opted_out'][0]}=false was not set by Interlock")

    def changes(self, raw: Json, key: str) -> list[Json]:
        """Our label and our note, where they are there."""
        del key
        return _opting_in(raw)

    async def read_back(self, arguments: NodeArguments) -> ReadBack:
        """The label is gone."""
        gone = await self._gone(arguments)
        return ReadBack(happened=Happened.YES if gone else Happened.NO)

    async def verify(self, arguments: NodeArguments, before: FactSet, since: datetime) -> Verdict:
        """The label stays away."""
        return _stays(await self._gone(arguments), since, self._client.clock.now())

    async def _gone(self, arguments: NodeArguments) -> bool:
        node, _ = await self._client.node(arguments.node_id)
        return names.NOT_QUARANTINED not in node.opted_out


class RepairArguments(NodeArguments):
    """Which repair of which node."""

    request_name: RequestName


class CloseExternalRepair(OnNode[RepairArguments]):
    """Say that a repair outside is done: NVSentinel takes the node back into service.

    Validate the node first.
    """

    name = "nvsentinel.close_external_repair"
    arguments = RepairArguments
    deadline_s = 600.0

    def facts(self, arguments: RepairArguments) -> tuple[FactNeed, ...]:
        """Also the request itself."""
        subject = Target(kind="repair_request", id=arguments.request_name)
        need = FactNeed(kind=known.REQUEST, subject=subject, max_age_s=AGE_S)
        return (*super().facts(arguments), need)

    def blast_radius(self, arguments: RepairArguments, facts: FactSet) -> BlastRadius:
        """The node; NVSentinel must have let go of it for this very repair."""
        subject = Target(kind="repair_request", id=arguments.request_name)
        request = facts.value(known.REQUEST, subject)
        if request["node"] != arguments.node_id:
            raise InvalidRequestError(f"request_name: it is about {request['node'] or 'no node'}")
        if request["released"] != "True":
            raise InvalidRequestError(
                "request_name: NVSentinel has not released the node for it yet"
            )
        if request["repaired"] == "True":
            raise InvalidRequestError("request_name: it is closed already")
        return super().blast_radius(arguments, facts)

    def forbid(self, arguments: RepairArguments, ground: Ground) -> None:
        """The janitor runs, and nothing else is under way on the node."""
        ground.runs(names.JANITOR)
        ground.is_free(but=f"{names.REPAIRS.kind}/{arguments.request_name}")

    async def dry_run(self, arguments: RepairArguments) -> DryRun | None:
        """The API server's own rehearsal."""
        await self._close(arguments, dry_run=True)
        return DryRun(would_succeed=True, notes=("the API server would take the condition",))

    async def execute(self, arguments: RepairArguments, key: str) -> dict[str, Any]:
        """Set the condition that is the outside's to set.

        Raises:
            ConflictError: it changed in that moment; nothing was done.
            UnavailableError: no answer.
        """
        await self._close(arguments, dry_run=False)
        return {"closed": arguments.request_name}

    async def _close(self, arguments: RepairArguments, *, dry_run: bool) -> None:
        _, raw = await self._client.request(names.REPAIRS, arguments.request_name)
        conditions = (raw.get("status") or {}).get("conditions") or []
        ours = {
            "type": names.REPAIRED,
            "status": "True",
            "reason": "RepairedOutside",
            "message": "closed through Interlock",
            "lastTransitionTime": self._client.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        kept = [one for one in conditions if one.get("type") != names.REPAIRED]
        changes = [{"op": "add", "path": "/status/conditions", "value": [*kept, ours]}]
        await self._client.kube.patch(
            names.REPAIRS,
            arguments.request_name,
            changes,
            seen=raw,
            subresource="status",
            dry_run=dry_run,
        )

    async def read_back(self, arguments: RepairArguments) -> ReadBack:
        """The condition stands."""
        found, _ = await self._client.request(names.REPAIRS, arguments.request_name)
        done = found.says(names.REPAIRED) == "True"
        return ReadBack(happened=Happened.YES if done else Happened.NO)

    async def verify(self, arguments: RepairArguments, before: FactSet, since: datetime) -> Verdict:
        """The janitor has taken its taint and its label off the node."""
        node, _ = await self._client.node(arguments.node_id)
        taken = not node.released and names.NOT_MANAGED not in node.opted_out
        return Verdict(
            held=Held.YES if taken else Held.NOT_YET,
            source="the janitor's taint and label on the node",
            evidence={"released": node.released, "opted_out": list(node.opted_out)},
        )


def _opting_in(raw: Json) -> list[Json]:
    """Ours alone: where the note is not there, the label is somebody else's."""
    notes = drop_in(raw, "annotations", names.CHANGE)
    return [*notes, *drop_in(raw, "labels", names.NOT_QUARANTINED)] if notes else []


def _stays(is_so: bool, since: datetime, now: datetime) -> Verdict:
    held = Held.YES if is_so and settled(since, now, SETTLES_S) else Held.NOT_YET
    return Verdict(
        held=held, source="the node, read again after a while", evidence={"is_so": is_so}
    )


def _no(why: str) -> None:
    raise InvalidRequestError(f"node_id: {plant_text(why, 400)}")
