"""What DPS would answer about a plant: the twin's messages, raw; it knows no network."""

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from interlock_plant.arrays import Bools
from interlock_plant.plant import Plant
from interlock_servers.maxlps.twin_groups import POLICY_SHARE, Groups
from interlock_servers.maxlps.twin_schema import PACKAGE
from interlock_tools.clock import Clock

CLAMP_RATIO = 0.9  # of what was asked, when the fault CLAMP is on


class TwinFault(StrEnum):
    """What the twin can be told to do wrong."""

    OK_FALSE = "ok_false"  # Status.ok is false under gRPC OK; nothing is done
    MISSING_STATUS = "missing_status"  # acts, and leaves Status out
    MISSING_RESULT = "missing_result"  # acts, and leaves the first result out
    IGNORE_CAPS = "ignore_caps"  # answers ok to a write and does nothing
    CLAMP = "clamp"  # sets less than asked and says so
    HANG = "hang"  # acts, and never answers
    UNAVAILABLE = "unavailable"  # gRPC UNAVAILABLE before acting
    ASYNC = "async"  # work on the hardware is answered with the id of an operation
    PARTIAL = "partial"  # the first node of a group is left as it was; Status is ok
    DOWNGRADE = "downgrade"  # applies the least policy, strict or not, and says ok
    UNKNOWN_ELEMENT = "unknown_element"  # policies limit an element type that nobody knows
    NO_REFLECTION = "no_reflection"  # at start
    EXTRA_FIELDS = "extra_fields"  # at start: a newer version


class _Seen(NamedTuple):
    """What the BMCs measure at one moment, GPU by GPU."""

    lit: list[bool]
    power_w: list[float]
    core_c: list[float]
    energy_j: list[float]
    set_w: list[float]


class DpsAnswers:
    """One method for each RPC: a request message in, the answer out. `goes_wrong` asks for faults.

    The topology is the plant's site, with ratings as limits.
    """

    def __init__(
        self,
        plant: Plant,
        clock: Clock,
        pool: DescriptorPool,
        groups: Groups,
        *,
        newer: bool,
        goes_wrong: Callable[[TwinFault], bool],
    ) -> None:
        self._plant = plant
        self._clock = clock
        self._pool = pool
        self._groups = groups
        self._newer = newer
        self._goes_wrong = goes_wrong
        self._dark_since = dict[str, datetime]()

    def new(self, name: str) -> Any:
        """An empty message of the package."""
        return GetMessageClass(self._pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))()

    # ── ResourceGroupManagementService; the rest is in twin_groups ────────────────────────────

    def update_gpu_policies(self, request: Any) -> Any:
        """Caps, each for one GPU, checked against its limits."""
        reply = self.new("UpdateGPUPoliciesResponse")
        ignores = self._goes_wrong(TwinFault.IGNORE_CAPS)
        clamps = self._goes_wrong(TwinFault.CLAMP)
        site, caps_w = self._plant.site, dict[int, float]()
        lit = self._plant.gpu_is_lit
        for name in sorted(request.node_gpu_policies):
            for policy in request.node_gpu_policies[name].policies:
                result = reply.results.add(resource_name=name)
                if policy.HasField("gpu_id"):
                    result.gpu_id = policy.gpu_id
                watts, why = self._wanted(name, policy, lit)
                if why:
                    result.diag_msg = why
                    continue
                if clamps and policy.HasField("power_limit"):
                    watts = max(site.gpu.cap_min_w, CLAMP_RATIO * watts)
                result.ok, result.set_limit = True, watts
                caps_w[int(site.gpus_of_node(name)[policy.gpu_id])] = watts
        if caps_w and not ignores:
            self._plant.command_caps(list(caps_w), list(caps_w.values()))
        reply.status.ok = all(result.ok for result in reply.results)
        if not reply.status.ok:
            reply.status.diag_msg = "not every GPU policy could be applied"
        if reply.results and self._goes_wrong(TwinFault.MISSING_RESULT):
            del reply.results[0]
        return reply

    def _wanted(self, node_id: str, policy: Any, lit: Bools) -> tuple[float, str]:
        """The watts for this one GPU, and why not."""
        site, gpu = self._plant.site, self._plant.site.gpu
        if node_id not in site.node_places:
            return 0.0, f"no such resource: {node_id}"
        gpus = site.gpus_of_node(node_id)
        if not policy.HasField("gpu_id") or policy.gpu_id >= len(gpus):
            return 0.0, f"{node_id} has no such GPU"
        if not lit[gpus[policy.gpu_id]]:
            return 0.0, f"BMC of {node_id} does not answer"
        if not policy.HasField("power_limit"):
            return gpu.cap_max_w, ""
        kind = policy.power_limit.WhichOneof("limit")
        watts = policy.power_limit.watts
        if kind == "percentage":
            watts = gpu.cap_max_w * policy.power_limit.percentage / 100.0
        if not gpu.cap_min_w <= watts <= gpu.cap_max_w:
            return watts, f"{watts:g} W is not in {gpu.cap_min_w:g}..{gpu.cap_max_w:g} W per GPU"
        return watts, ""

    # ── TopologyManagementService ─────────────────────────────────────────────────────────────

    def list_topologies(self, request: Any) -> Any:
        """The active topology and a draft."""
        reply = self.new("ListTopologiesResponse")
        reply.status.ok = True
        site = self._plant.site
        for name, is_active in ((site.name, True), (f"{site.name}-draft", False)):
            if not request.HasField("is_active") or request.is_active == is_active:
                topology = reply.topologies.add(topology_name=name, is_active=is_active)
                topology.leaf_node_names.extend(site.node_ids)
        return reply

    def get_topology_model(self, request: Any) -> list[Any]:
        """The header, then the entities in batches.

        Raises:
            LookupError: there is no such topology.
        """
        site = self._plant.site
        if request.topology_name != site.name:
            raise LookupError(f"no topology {request.topology_name!r}")
        first = self.new("GetTopologyModelResponse")
        entities = self._entities()
        first.header.topology_name = site.name
        raw = json.dumps(entities, sort_keys=True).encode()
        first.header.topology_hash = hashlib.sha256(raw).digest()
        replies = [first]
        for number, (entity, children) in enumerate(entities):
            if number and number % 50 == 0:
                replies.append(self.new("GetTopologyModelResponse"))
            added = replies[-1].entities.add()
            added.entity.update(entity)
            added.children.extend(children)
        return replies

    def _entities(self) -> list[tuple[dict[str, Any], list[str]]]:
        """Every entity with its children, as in a topology file."""
        site = self._plant.site
        limit_key = "OperatingLimit" if self._newer else "Constraints"

        def entity(kind: str, name: str, limit_w: float | None, model: str) -> dict[str, Any]:
            limit = {limit_key: {"PowerValue": {"Value": limit_w, "Type": "W"}}} if limit_w else {}
            return {"Type": kind, "Name": name, "Model": model, **limit}

        grid = "PowerDistribution"
        root_w = sum(feed.rating_w for feed in site.feeds)
        rows = [(entity("PowerDomain", site.name, root_w, "Site"), list(site.feed_ids))]
        for feed in site.feeds:
            children = [pdu.pdu_id for pdu in site.pdus if pdu.feed_id == feed.feed_id]
            rows.append((entity(grid, feed.feed_id, feed.rating_w, "Feed"), children))
        for pdu in site.pdus:
            children = [rack.rack_id for rack in site.racks if rack.pdu_id == pdu.pdu_id]
            rows.append((entity(grid, pdu.pdu_id, pdu.rating_w, "FloorPDU"), children))
        for rack in site.racks:
            children = [node.node_id for node in site.nodes if node.rack_id == rack.rack_id]
            rows.append((entity(grid, rack.rack_id, rack.rating_w, "RackPDU"), children))
        model = f"Node_{site.gpu.model}"
        rows += [
            (entity("ComputerSystem", node.node_id, node.rating_w, model), [])
            for node in site.nodes
        ]
        return rows

    def get_nodes_status(self, request: Any) -> Any:
        """Whether each BMC answers."""
        reply = self.new("GetNodesStatusResponse")
        site, now = self._plant.site, self._clock.now()
        for name in request.nodes:
            if name not in site.node_ids:
                continue
            status = reply.node_statuses[name]
            if self._plant.node_is_lit[site.node_ids.index(name)]:
                self._dark_since.pop(name, None)
                status.last_successful_access_time.FromDatetime(now)
            else:  # dark since it was first asked for: the plant keeps no times
                since = self._dark_since.setdefault(name, now)
                status.inaccessible_since.FromDatetime(since)
                status.last_access_error = "BMC connection failed"
            group = self._groups.holder(name)
            status.current_state.resource_group = "" if group is None else group.name
            status.current_state.allocated_policy_name = self._groups.applied(name)
        return reply

    def validate_allocation(self, request: Any) -> list[Any]:
        """Whether a policy on some nodes fits every budget above them."""
        verdict = self.new("ValidateAllocationResponse")
        result = verdict.allocation_validation_result
        unknown = sorted(set(request.device_names) - set(self._plant.site.node_ids))
        result.status.ok = request.policy_name in POLICY_SHARE and not unknown
        selection = result.allocation_policy_selection
        selection.requested_policy_name = request.policy_name
        if not result.status.ok:
            result.status.diag_msg = f"unknown policy or devices: {request.policy_name} {unknown}"
            return [verdict]
        wanted = dict.fromkeys(request.device_names, request.policy_name)
        selected, fits = self._groups.budgets.fitting(wanted, strict=request.strict)
        selection.selected_policy_name = next(iter(selected.values()), request.policy_name)
        selection.policy_would_be_downgraded = selected != wanted
        replies = []
        for name, allocated_w, capacity_w in self._groups.budgets.allocation(selected):
            device = self.new("ValidateAllocationResponse")
            per_device = device.per_device_allocation_validation_result
            per_device.device_id = name
            power = per_device.device_allocation_status.power_distribution_status
            power.allocated_watts, power.capacity_watts = allocated_w, capacity_w
            replies.append(device)
        result.allocation_would_succeed = fits
        return [*replies, verdict]

    def list_policies(self, request: Any) -> list[Any]:
        """Every policy, its watts those of all GPUs of a node together."""
        del request
        return [self.policy(name) for name in POLICY_SHARE]

    def policy(self, name: str) -> Any:
        """One policy as DPS shows it."""
        gpu = self._plant.site.gpu
        policy = self.new("PolicyObject")
        policy.name = name
        limit = policy.limits.add(element_type=1)
        limit.power_limit.watts = POLICY_SHARE[name] * gpu.cap_max_w * self._gpus_per_node
        policy.properties.update({"PRS": name == "MaxLPS"})
        if self._goes_wrong(TwinFault.UNKNOWN_ELEMENT):
            policy.limits.add(element_type=9).power_limit.watts = 100.0
        if self._newer:
            policy.bundle_types.extend(["ComputerSystemLimits.v1", "DPM.v1"])
        return policy

    @property
    def _gpus_per_node(self) -> int:
        site = self._plant.site
        return len(site.gpus_of_node(site.node_ids[0]))

    def list_devices(self, request: Any) -> list[Any]:
        """The models of the site with their loads."""
        del request
        site = self._plant.site
        gpu = self.new("Device")
        gpu.type, gpu.model = "GPU", site.gpu.model
        gpu.gpu.min_load_watts, gpu.gpu.max_load_watts = site.gpu.cap_min_w, site.gpu.cap_max_w
        node = self.new("Device")
        node.type, node.model = "ComputerSystem", f"Node_{site.gpu.model}"
        node.computerSystem.devices.extend([site.gpu.model] * self._gpus_per_node)
        node.computerSystem.max_load_watts = site.nodes[0].rating_w
        return [gpu, node]

    # ── MetricsManagementService ──────────────────────────────────────────────────────────────

    def metrics_query(self, request: Any) -> Any:
        """What the BMCs say; nodes that do not exist are left out."""
        reply = self.new("MetricsQueryResponse")
        reply.status.ok = True
        plant = self._plant
        seen = _Seen(
            lit=plant.gpu_is_lit.tolist(),
            power_w=plant.gpu_power_w.tolist(),
            core_c=plant.gpu_core_c.tolist(),
            energy_j=plant.gpu_energy_j.tolist(),
            set_w=plant.gpu_cap_set_w.tolist(),
        )
        node_lit, node_w = plant.node_is_lit, plant.node_power_w
        for name in request.nodes:
            place = plant.site.node_places.get(name)
            if place is not None:
                node = reply.nodes.add(name=name)
                gpus = plant.site.gpus_of_node(name)
                node.num_gpus, node.num_cpus, node.num_memory_units = len(gpus), 2, 32
                if node_lit[place]:  # else its BMC does not answer
                    node.power_usage = node_w[place]
                    self._add_gpus(node, gpus.tolist(), seen)
        return reply

    def _add_gpus(self, node: Any, gpus: list[int], seen: _Seen) -> None:
        limits = self._plant.site.gpu
        for gpu_id, gpu in enumerate(gpus):
            device = node.gpus.add(id=str(gpu_id))
            if not seen.lit[gpu]:
                continue
            device.power_usage, device.temperature_celsius = seen.power_w[gpu], seen.core_c[gpu]
            device.energy_usage, device.energy_usage_unit = seen.energy_j[gpu], "Joules"
            device.max_limit, device.min_limit = limits.cap_max_w, limits.cap_min_w
            if "set_limit" in device.DESCRIPTOR.fields_by_name:
                device.set_limit = seen.set_w[gpu]
