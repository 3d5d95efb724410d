"""What is asked of the janitor: reset, reboot, terminate; and a validation of a node.

A request to the janitor skips quarantine, drain, rules and breaker. So a reboot goes by maintenance
wherever that is served, and everything else only to a node that is seen to be empty.
"""

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import Field

from interlock_servers.nvsentinel import facts as known
from interlock_servers.nvsentinel import names
from interlock_servers.nvsentinel.acting import AskFor, Ground, NodeArguments
from interlock_servers.nvsentinel.acting import says as said
from interlock_servers.nvsentinel.maintenance import maintenance_spec
from interlock_servers.nvsentinel.models import Node, Outcome, Request
from interlock_servers.transports.kube.connection import Json
from interlock_servers.transports.kube.kinds import Kind
from interlock_tools.blast_radius import BlastRadius
from interlock_tools.errors import InvalidRequestError, NotFoundError
from interlock_tools.fact import FactSet
from interlock_tools.operation import Effect, Held, Verdict

_UUID: Final = "GPU-[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_PCI: Final = r"[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-9a-fA-F]"
GpuId = Annotated[str, Field(pattern=f"^({_UUID}|{_PCI})$")]
TestName = Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9.]{0,99}$")]


class ResetArguments(NodeArguments):
    """Which GPUs of which node."""

    gpu_ids: Annotated[
        list[GpuId], Field(min_length=1, max_length=16, description="UUIDs or PCI addresses")
    ]


class ResetGpus(AskFor[ResetArguments]):
    """Reset named GPUs of a cordoned node on which nobody uses them.

    The node's GPU services stop meanwhile. GPUs that Kubernetes does not know by that id are
    refused; see known_gpus of explain_node.
    """

    name = "nvsentinel.reset_gpus"
    arguments = ResetArguments
    kind = names.RESETS
    needs = (known.NODE_DRAIN, known.NODE_GPUS)
    deadline_s = 1800.0

    def forbid(self, arguments: ResetArguments, ground: Ground) -> None:
        """They exist there, nobody uses them, and the janitor can act."""
        ground.serves(names.RESETS)
        ground.runs(names.JANITOR)
        ground.is_not_theirs()
        ground.is_not_released()
        ground.is_free(while_drained_by_us=True)
        gpus, drain = ground.of(known.NODE_GPUS), ground.of(known.NODE_DRAIN)
        strange = sorted({*arguments.gpu_ids} - {*gpus["uuids"], *gpus["pci_ids"]})
        if strange:
            raise InvalidRequestError(
                f"gpu_ids: Kubernetes knows no {strange[0]} on {arguments.node_id}; known are "
                + (", ".join([*gpus["uuids"], *gpus["pci_ids"]][:16]) or "none")
            )
        if not drain["cordoned"]:
            raise InvalidRequestError(f"node_id: {arguments.node_id} is not cordoned: drain it")
        by_address = any(not one.startswith("GPU-") for one in arguments.gpu_ids)
        using = [
            one["pod"]
            for one in drain["pods"]
            if one["devices"] == "unknown"
            or (by_address and one["devices"])
            or {*one["devices"]} & {*arguments.gpu_ids}
        ]
        if using or drain["pod_count"] > len(drain["pods"]):
            raise InvalidRequestError(
                f"gpu_ids: these may be in use by {', '.join(using[:3]) or 'too many pods'}"
            )

    def blast_radius(self, arguments: ResetArguments, facts: FactSet) -> BlastRadius:
        """The named GPUs; the jobs beside them too, whose node loses its services meanwhile."""
        whole = super().blast_radius(arguments, facts)
        return whole.model_copy(update={"gpus": len(set(arguments.gpu_ids))})

    def spec(self, arguments: ResetArguments, kind: Kind) -> Json:
        """Never without GPUs: an empty selector would mean all of the node's.

        Raises:
            InvalidRequestError: no GPU is named.
        """
        chosen = sorted(set(arguments.gpu_ids))
        uuids = [one for one in chosen if one.startswith("GPU-")]
        addresses = [one for one in chosen if not one.startswith("GPU-")]
        selector = {"uuids": uuids} if uuids else {}
        selector |= {"pciBusIDs": addresses} if addresses else {}
        if not selector:
            raise InvalidRequestError("gpu_ids: at least one GPU must be named")
        return {"nodeName": arguments.node_id, "selector": selector}

    async def verify(self, arguments: ResetArguments, before: FactSet, since: datetime) -> Verdict:
        """The reset's own end, the node ready, and no fault that names one of these GPUs."""
        source = "the node's conditions"
        found = await self._found(arguments, self.kind)
        if (over := _failed(found, source)) is not None:
            return over
        node, _ = await self._client.node(arguments.node_id)
        named = [
            one.type for one in node.faults if any(gpu in one.message for gpu in arguments.gpu_ids)
        ]
        evidence = {**_state(found), "ready": node.ready, "faults_of_these_gpus": named}
        done = found is not None and found.outcome is Outcome.SUCCEEDED
        held = done and node.ready is True and not named
        return Verdict(held=Held.YES if held else Held.NOT_YET, source=source, evidence=evidence)


class _Reboots(AskFor[NodeArguments]):
    """What reboot and termination share."""

    needs = (known.NODE_DRAIN,)

    def forbid_directly(self, ground: Ground) -> None:
        """What must be so before the janitor is asked without anybody in between."""
        ground.serves(self.kind)
        ground.runs(names.JANITOR, "janitor-provider")
        ground.is_drained()


class RebootNode(_Reboots):
    """Reboot a node; it may take three quarters of an hour.

    Where maintenance is served NVSentinel drains it first, and end_maintenance gives it back.
    Elsewhere it must be cordoned and empty already.
    """

    name = "nvsentinel.reboot_node"
    arguments = NodeArguments
    kind = names.REBOOTS
    deadline_s = 7200.0  # upstream's runbook shows 42 minutes, after a drain

    async def kind_now(self) -> Kind:
        """By maintenance wherever that is served."""
        by_request = await self._client.serves(names.MAINTENANCE)
        return names.MAINTENANCE if by_request else names.REBOOTS

    def forbid(self, arguments: NodeArguments, ground: Ground) -> None:
        """Whichever way it goes, whoever carries it out is there."""
        ground.is_not_theirs()
        ground.is_not_released()
        ground.is_free(while_drained_by_us=True)
        if names.MAINTENANCE.kind in ground.sentinel["serves"]:
            ground.runs(names.LIFECYCLE, names.QUARANTINER, names.DRAINER, names.REMEDIATOR)
            ground.runs(names.JANITOR, "janitor-provider")
            ground.acts()
        else:
            self.forbid_directly(ground)

    def spec(self, arguments: NodeArguments, kind: Kind) -> Json:
        """A maintenance with a restart, or the janitor's own request; never forced."""
        if kind is names.MAINTENANCE:
            return maintenance_spec(arguments.node_id, "RESTART_VM", self.request_name)
        return {"nodeName": arguments.node_id, "force": False}

    async def verify(self, arguments: NodeArguments, before: FactSet, since: datetime) -> Verdict:
        """The kubelet tells another boot than before, the node is ready, its faults are gone."""
        source = "the boot id that the node's kubelet tells"
        kind = await self.kind_now()
        found = await self._found(arguments, kind)
        if kind is names.REBOOTS and (over := _failed(found, source)) is not None:
            return over
        was = before.value(known.NODE_HEALTH, self.target(arguments))
        node, _ = await self._client.node(arguments.node_id)
        still = sorted({one.type for one in node.faults} & {*was["faults"]})
        evidence = {
            **_state(found),
            "boot_id_before": was["boot_id"] or "unknown",
            "boot_id": node.boot_id or "unknown",
            "ready": node.ready,
            "still_faulty": still,
        }
        ended = kind is names.MAINTENANCE or (
            found is not None and found.outcome is Outcome.SUCCEEDED
        )
        rebooted = bool(was["boot_id"] and node.boot_id) and node.boot_id != was["boot_id"]
        held = ended and rebooted and node.ready is True and not still
        return Verdict(held=Held.YES if held else Held.NOT_YET, source=source, evidence=evidence)


class TerminateNode(_Reboots):
    """Delete a node and its machine for ever. It must be cordoned and empty already."""

    name = "nvsentinel.terminate_node"
    arguments = NodeArguments
    effect = Effect.IRREVERSIBLE
    kind = names.TERMINATIONS
    deadline_s = 3600.0

    def forbid(self, arguments: NodeArguments, ground: Ground) -> None:
        """Nobody is on it or at work on it, and NVSentinel has it."""
        ground.is_not_theirs()
        ground.is_not_released()
        ground.is_free(while_drained_by_us=True)
        self.forbid_directly(ground)

    def spec(self, arguments: NodeArguments, kind: Kind) -> Json:
        """Never forced."""
        return {"nodeName": arguments.node_id, "force": False}

    async def verify(self, arguments: NodeArguments, before: FactSet, since: datetime) -> Verdict:
        """The node is gone; one of the same name that came since is another one."""
        source = "the list of nodes"
        found = await self._found(arguments, self.kind)
        if found is not None and (over := _failed(found, source)) is not None:
            return over
        was = before.value(known.NODE_HEALTH, self.target(arguments))["uid"]
        try:
            node: Node | None = (await self._client.node(arguments.node_id))[0]
        except NotFoundError:
            node = None
        gone = node is None or node.uid != was
        evidence = {**_state(found), "node": "gone" if gone else "there"}
        return Verdict(held=Held.YES if gone else Held.NOT_YET, source=source, evidence=evidence)


class ValidateArguments(NodeArguments):
    """Which node, and by which tests."""

    tests: Annotated[
        list[TestName],
        Field(max_length=10, description="empty: NVSentinel's own choice"),
    ] = Field(default=[])


class ValidateNode(AskFor[ValidateArguments]):
    """Test the GPUs of an empty, cordoned node. A pass may lift NVSentinel's cordon by itself."""

    name = "nvsentinel.validate_node"
    arguments = ValidateArguments
    kind = names.VALIDATIONS
    needs = (known.NODE_DRAIN,)
    deadline_s = 5400.0

    def forbid(self, arguments: ValidateArguments, ground: Ground) -> None:
        """It takes the GPUs, and lifts a cordon: nobody's work and nobody else's cordon."""
        ground.serves(names.VALIDATIONS)
        ground.runs(names.LIFECYCLE)
        ground.is_not_theirs()
        if ground.of(known.NODE_QUARANTINE)["cordoned_by"] == "somebody_else_before_nvsentinel":
            raise InvalidRequestError(
                "node_id: somebody had cordoned it before NVSentinel, and a pass would lift that"
            )
        ground.is_free()
        ground.is_drained()

    def spec(self, arguments: ValidateArguments, kind: Kind) -> Json:
        """One node."""
        tests = {"tests": list(arguments.tests)} if arguments.tests else {}
        return {"nodes": [{"name": arguments.node_id}], **tests}

    async def verify(
        self, arguments: ValidateArguments, before: FactSet, since: datetime
    ) -> Verdict:
        """Its tests passed, this node was not skipped, and its monitors find nothing."""
        source = "the tests' own results and the node's conditions"
        found = await self._found(arguments, self.kind)
        if (over := _failed(found, source)) is not None:
            return over
        if found is not None and arguments.node_id in found.skipped:
            return Verdict(held=Held.NO, source=source, evidence={"skipped": True})
        node, _ = await self._client.node(arguments.node_id)
        evidence = {**_state(found), "ready": node.ready, "faults": [c.type for c in node.faults]}
        passed = found is not None and found.outcome is Outcome.SUCCEEDED
        held = passed and node.ready is True and not node.faults
        return Verdict(held=Held.YES if held else Held.NOT_YET, source=source, evidence=evidence)


def _state(found: Request | None) -> dict[str, Any]:
    return {"request": "it is gone"} if found is None else {"name": found.name, **said(found)}


def _failed(found: Request | None, source: str) -> Verdict | None:
    """A no where the request has failed by its own word, or is gone; else nothing."""
    if found is not None and found.outcome not in {Outcome.FAILED, Outcome.UNKNOWN}:
        return None
    return Verdict(held=Held.NO, source=source, evidence=_state(found))
