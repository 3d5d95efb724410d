"""DPS over gRPC: every read that we need, the dry run, and one write: limits, per GPU, in watts.

A gRPC OK is not success here: every answer is checked for its Status, and a missing one is failure.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from interlock_servers.maxlps import COMPONENT
from interlock_servers.maxlps.group_needs import WANTS
from interlock_servers.maxlps.models import (
    AllocationCheck,
    CapResult,
    NodePower,
    NodeStatus,
    ResourceGroup,
    Topology,
    TopologyRef,
    power_tree,
)
from interlock_servers.maxlps.port import Limits
from interlock_servers.maxlps.settings import MaxlpsSettings
from interlock_servers.maxlps.wire import (
    allocation_of,
    cap_results_of,
    check_status,
    entity_of,
    failed,
    group_of,
    node_of,
    policy_of,
    status_of,
)
from interlock_servers.transports.grpc_descriptors import MethodNeed
from interlock_servers.transports.grpc_record import Record
from interlock_servers.transports.grpc_reflection import ReflectedChannel, quoted
from interlock_tools.clock import Clock
from interlock_tools.errors import InvalidRequestError, NotFoundError

_GROUPS = "/nvidia.dcpower.v1.ResourceGroupManagementService/"
_TOPOLOGY = "/nvidia.dcpower.v1.TopologyManagementService/"
_METRICS = "/nvidia.dcpower.v1.MetricsManagementService/"
_STATUS = ("status.ok:bool", "status.diag_msg:text")
_DEVICE = "per_device_allocation_validation_result"
_RESULT = "allocation_validation_result"

LIST_GROUPS = MethodNeed(
    _GROUPS + "ResourceGroupList",
    is_read=True,
    response=(
        *_STATUS,
        "resource_groups[].group_name:text",
        "resource_groups[].activation_status:text",
        "resource_groups[].resource_names[]:text",
        "resource_groups[].properties:struct",
    ),
)
UPDATE_GPU_POLICIES = MethodNeed(
    _GROUPS + "UpdateGPUPolicies",
    is_read=False,
    request=(
        "node_gpu_policies{}.policies[].gpu_id:number",
        "node_gpu_policies{}.policies[].power_limit?.watts?:number",
    ),
    response=(
        *_STATUS,
        "results[].resource_name:text",
        "results[].gpu_id?:number",
        "results[].ok:bool",
        "results[].set_limit:number",
        "results[].diag_msg:text",
    ),
)
LIST_TOPOLOGIES = MethodNeed(
    _TOPOLOGY + "ListTopologies",
    is_read=True,
    response=(
        *_STATUS,
        "topologies[].topology_name:text",
        "topologies[].is_active:bool",
        "topologies[].leaf_node_names[]:text",
    ),
)
GET_TOPOLOGY = MethodNeed(
    _TOPOLOGY + "GetTopologyModel",
    is_read=True,
    streams=True,
    request=("topology_name:text",),
    response=(
        "header.topology_name:text",
        "header.topology_hash:bytes",
        "entities[].entity:struct",
        "entities[].children[]:text",
    ),
)
GET_NODES_STATUS = MethodNeed(
    _TOPOLOGY + "GetNodesStatus",
    is_read=True,
    request=("nodes[]:text",),
    response=(
        "node_statuses{}.inaccessible_since:timestamp",
        "node_statuses{}.last_successful_access_time:timestamp",
        "node_statuses{}.last_access_error:text",
        "node_statuses{}.last_policy_error:text",
        "node_statuses{}.current_state.resource_group:text",
        "node_statuses{}.current_state.allocated_policy_name:text",
    ),
)
VALIDATE_ALLOCATION = MethodNeed(
    _TOPOLOGY + "ValidateAllocation",
    is_read=True,
    streams=True,
    request=("device_names[]:text", "policy_name:text", "strict:bool"),
    response=(
        f"{_RESULT}.status.ok:bool",
        f"{_RESULT}.status.diag_msg:text",
        f"{_RESULT}.allocation_would_succeed:bool",
        f"{_RESULT}.allocation_policy_selection.policy_would_be_downgraded:bool",
        f"{_DEVICE}.device_id:text",
        f"{_DEVICE}.device_allocation_status.policy_would_be_downgraded:bool",
        f"{_DEVICE}.device_allocation_status.power_distribution_status.allocated_watts:number",
        f"{_DEVICE}.device_allocation_status.power_distribution_status.capacity_watts:number",
    ),
)
QUERY_METRICS = MethodNeed(
    _METRICS + "MetricsQuery",
    is_read=True,
    request=("nodes[]:text",),
    response=(
        "nodes[].name:text",
        "nodes[].num_gpus:number",
        "nodes[].power_usage:number",
        "nodes[].gpus[].id:text",
        "nodes[].gpus[].power_usage:number",
        "nodes[].gpus[].set_limit:number",
        "nodes[].gpus[].max_limit:number",
        "nodes[].gpus[].min_limit:number",
        "nodes[].gpus[].temperature_celsius:number",
    ),
)
NEEDS = (
    LIST_GROUPS,
    UPDATE_GPU_POLICIES,
    LIST_TOPOLOGIES,
    GET_TOPOLOGY,
    GET_NODES_STATUS,
    VALIDATE_ALLOCATION,
    QUERY_METRICS,
)


class DpsClient:
    """A connection to one DPS; entering it refuses a version that lacks what we need.

    Reads raise UnavailableError where nobody answers, after one retry; nothing was changed then.

    Attributes:
        clock: the clock of its retries, and of whoever stamps its answers.
        writes: how many were sent; what was read before the last is not what holds.
        channel: the connection, for the calls of `GroupClient`.
        deadline_s: of one call.
    """

    def __init__(self, settings: MaxlpsSettings, clock: Clock) -> None:
        self.clock = clock
        self.writes = 0
        self.deadline_s = settings.deadline_s
        self.channel = ReflectedChannel(
            settings, clock, component=COMPONENT, needs=NEEDS, wants=WANTS
        )

    async def __aenter__(self) -> Self:
        await self.channel.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.channel.__aexit__(kind, error, trace)

    # ── reads ─────────────────────────────────────────────────────────────────────────────────

    async def list_topologies(self) -> tuple[TopologyRef, ...]:
        """Every topology that DPS holds; at most one is active."""
        answer = await self._unary(LIST_TOPOLOGIES, {})
        return tuple(
            TopologyRef(t.text("topology_name"), t.flag("is_active"), t.texts("leaf_node_names"))
            for t in answer.records("topologies")
        )

    async def active_topology(self) -> Topology:
        """The topology that holds now, with its budgets.

        Raises:
            NotFoundError: none is active.
            ComponentError: several are, or it is no tree, or a budget's unit is not known.
        """
        name = (await self.active()).name
        parts = await self._stream(GET_TOPOLOGY, {"topology_name": name})
        headers = [header for part in parts if (header := part.record("header"))]
        if len(headers) != 1 or headers[0].text("topology_name") != name:
            raise failed("BAD_TOPOLOGY", f"the header of topology {quoted(name)} is missing")
        entities = [entity_of(entity) for part in parts for entity in part.records("entities")]
        return Topology(name, headers[0].octets("topology_hash").hex(), power_tree(name, entities))

    async def active(self) -> TopologyRef:
        """The topology that holds now, by name, with its nodes.

        Raises:
            NotFoundError: none is active.
            ComponentError: several are.
        """
        active = [topology for topology in await self.list_topologies() if topology.is_active]
        if not active:
            raise NotFoundError("DPS has no active topology")
        if len(active) > 1:
            raise failed("BAD_TOPOLOGY", "DPS names more than one active topology")
        return active[0]

    async def resource_groups(self) -> tuple[ResourceGroup, ...]:
        """Every resource group, active or not, by name."""
        answer = await self._unary(LIST_GROUPS, {})
        groups = (group_of(group) for group in answer.records("resource_groups"))
        return tuple(sorted(groups, key=lambda group: group.name))

    async def node_power(self, node_ids: Iterable[str]) -> dict[str, NodePower]:
        """Power and per-GPU limits of these nodes; a node that DPS says nothing about is absent."""
        asked = sorted(set(node_ids))
        if not asked:
            return {}  # what DPS takes an empty list for is not public
        answer = await self._unary(QUERY_METRICS, {"nodes": asked})
        nodes = (node_of(node) for node in answer.records("nodes"))
        wanted = set(asked)
        return {node.node_id: node for node in nodes if node.node_id in wanted}

    async def nodes_status(self, node_ids: Iterable[str]) -> dict[str, NodeStatus]:
        """Whether DPS reaches these nodes; a node that it does not know is absent."""
        asked = sorted(set(node_ids))
        if not asked:
            return {}
        answer = await self._unary(GET_NODES_STATUS, {"nodes": asked})
        statuses = answer.records_by_key("node_statuses")
        return {name: status_of(name, statuses[name]) for name in asked if name in statuses}

    async def validate_allocation(
        self, node_ids: Sequence[str], policy_name: str
    ) -> AllocationCheck:
        """DPS's own dry run, strict: would this policy fit on these nodes? Changes nothing.

        It cannot say who would lose power: upstream has not implemented that.

        Raises:
            ComponentError: DPS could not answer.
        """
        fields = {"device_names": list(node_ids), "policy_name": policy_name, "strict": True}
        parts = await self._stream(VALIDATE_ALLOCATION, fields)
        verdicts = [verdict for part in parts if (verdict := part.record(_RESULT))]
        if len(verdicts) != 1:
            raise failed("NO_RESULT", "ValidateAllocation gave no verdict; nothing was changed")
        check_status(verdicts[0], VALIDATE_ALLOCATION)
        devices = [device for part in parts if (device := part.record(_DEVICE))]
        return allocation_of(verdicts[0], devices)

    # ── the write ─────────────────────────────────────────────────────────────────────────────

    async def set_gpu_limits(self, limits: Limits, *, change_id: str = "") -> tuple[CapResult, ...]:
        """Set or clear limits, each of one GPU; sent once, never again.

        Args:
            limits: by node and GPU id, watts of that one GPU, or None to clear its limit, which
                lets its power rise to whatever policy holds then.
            change_id: the change that allows it; DPS has no place for it, the ledger has.

        Returns:
            What DPS says that it set, in the order asked. It may be clamped; what the devices
            follow is to be read elsewhere.

        Raises:
            InvalidRequestError: empty, or a limit that is no positive number; nothing was sent.
            ComponentError: DPS failed for some GPU, or gave no Status or no result for it. The
                others may have been set: read back.
            UnavailableError: no answer; the state is unknown: read back.
        """
        del change_id
        asked = {
            (node_id, gpu_id): watts
            for node_id, gpus in limits.items()
            for gpu_id, watts in gpus.items()
        }
        _check_limits(asked)
        self.writes += 1
        policies = {
            node_id: {"policies": [policy_of(gpu_id, watts) for gpu_id, watts in gpus.items()]}
            for node_id, gpus in limits.items()
            if gpus
        }
        try:
            answer = await self.channel.unary(
                UPDATE_GPU_POLICIES.path,
                {"node_gpu_policies": policies},
                deadline_s=self.deadline_s,
            )
        finally:
            self.writes += 1  # what was read meanwhile may be of before it, too
        return cap_results_of(asked, answer, UPDATE_GPU_POLICIES)

    # ── shared ────────────────────────────────────────────────────────────────────────────────

    async def _unary(self, need: MethodNeed, fields: Mapping[str, object]) -> Record:
        answer = await self.channel.unary(need.path, fields, deadline_s=self.deadline_s)
        if answer.has_field("status"):  # GetNodesStatus has none, and not every one is public
            check_status(answer, need)
        return answer

    async def _stream(self, need: MethodNeed, fields: Mapping[str, object]) -> list[Record]:
        return await self.channel.stream(need.path, fields, deadline_s=self.deadline_s)


def _check_limits(asked: Mapping[tuple[str, int], float | None]) -> None:
    if not asked:
        raise InvalidRequestError("no GPU is named; an empty request is never sent")
    for (node_id, gpu_id), watts in asked.items():
        if not node_id or gpu_id < 0:
            raise InvalidRequestError(f"{node_id!r}/{gpu_id} names no GPU")
        if watts is not None and not (math.isfinite(watts) and watts > 0):
            raise InvalidRequestError(f"{node_id}/{gpu_id}: {watts} is not a limit in watts")
