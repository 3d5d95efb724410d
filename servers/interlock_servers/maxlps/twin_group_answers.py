"""What DPS would answer about resource groups: the twin's messages, raw."""

from collections.abc import Callable, Mapping
from typing import Any

import grpc

from interlock_servers.maxlps.twin_answers import DpsAnswers, TwinFault
from interlock_servers.maxlps.twin_groups import LEAST, POLICY_SHARE, Group, Groups

ASKED_BEFORE_DONE = 2  # how often an operation is asked about until it is done; chosen


class GrpcRefusalError(Exception):
    """A call that gRPC itself answers with no."""

    def __init__(self, code: grpc.StatusCode, says: str) -> None:
        super().__init__(says)
        self.code = code


class GroupAnswers:
    """One method for each RPC of resource groups.

    Attributes:
        when_written: called in every write, so that a test can act in that very moment.
        forgets: whether the results of operations are gone before they are asked for.
    """

    def __init__(
        self,
        answers: DpsAnswers,
        groups: Groups,
        *,
        newer: bool,
        goes_wrong: Callable[[TwinFault], bool],
    ) -> None:
        self._answers = answers
        self._groups = groups
        self._newer = newer
        self._goes_wrong = goes_wrong
        self._running = dict[str, tuple[int, Any]]()
        self._started = 0
        self.forgets = False
        self.when_written: Callable[[], None] = lambda: None

    def resource_group_list(self, request: Any) -> Any:
        """Every group with the policy of each of its nodes."""
        reply = self._ok("ResourceGroupListAllResponse")
        for group in self._groups.by_name.values():
            if request.list_active_only and group.status != "active":
                continue
            shown = reply.resource_groups.add(group_name=group.name, external_id=group.external_id)
            shown.activation_status = group.status
            shown.resource_names.extend(sorted(group.nodes))
            shown.dpm_enable, shown.prs_enabled = group.dpm, group.prs
            if "policy_name" in shown.DESCRIPTOR.fields_by_name:
                shown.policy_name = group.policy
            shown.properties.update(group.properties)
            shown.workload_profile_ids.extend(group.profiles)
            for node, policy in group.wanted(sorted(group.nodes)).items():
                one = shown.resource_policies.add(resource_name=node)
                one.applied_policy_name = group.applied.get(node, "")
                if "policy_name" in one.DESCRIPTOR.fields_by_name:
                    one.policy_name = policy
            if self._newer:
                shown.priority, shown.policy_bundle = group.priority, group.policy
        return reply

    def create(self, request: Any) -> Any:
        """A group without nodes; nothing on the hardware."""
        name = request.group_name
        if name in self._groups.by_name:
            return self._no("ResourceGroupCreateResponse", f"group {name} exists")
        if request.policy_name not in POLICY_SHARE:
            return self._no("ResourceGroupCreateResponse", f"no policy {request.policy_name!r}")
        if self._writes():
            group = Group(name, request.external_id, request.policy_name)
            group.dpm, group.prs = request.dpm_enable, request.prs_enabled
            group.properties = dict(request.properties.items())
            group.priority = request.priority if self._newer else 0
            self._groups.by_name[name] = group
        return self._ok("ResourceGroupCreateResponse")

    def add(self, request: Any) -> Any:
        """Nodes into a group; where it is active, its policy is on them at once."""
        group, nodes = self._group(request), list(request.resource_names)
        response = "ResourceGroupAddResourcesResponse"
        taken = [node for node in nodes if self._groups.holder(node) is not None]
        if taken:
            return self._no(response, f"{taken[0]} is in another group")
        policy = request.policy_name or group.policy
        wanted = dict.fromkeys(nodes, policy)
        if group.status == "active":
            wanted, why = self._allocated(wanted, request.strict, request.allow_reprovision)
            if why:
                return self._no(response, why)
        if self._writes():
            group.nodes += nodes
            if request.policy_name:
                group.asked |= dict.fromkeys(nodes, policy)
            if group.status == "active":
                self._apply(group, wanted)
        return self._ok(response)

    def remove(self, request: Any) -> Any:
        """Nodes out of a group; the topology's policy is on them again."""
        group, nodes = self._group(request), list(request.resource_names)
        if self._writes():
            self._release(group, nodes)
        return self._ok("ResourceGroupRemoveResourcesResponse")

    def activate(self, request: Any) -> Any:
        """The policies of a group on its hardware."""
        group = self._group(request)
        if group.status == "active":
            code = grpc.StatusCode.FAILED_PRECONDITION
            raise GrpcRefusalError(code, f"resource group {group.name} is already active")
        response = "ActivateResourceGroupResponse"
        wanted = group.wanted(group.nodes)
        wanted, why = self._allocated(wanted, request.strict, request.allow_reprovision)
        if why:
            return self._no(response, why)
        reply = self._ok(response)
        if self._writes():
            group.status = "active"
            self._say_nodes(reply, self._apply(group, wanted), wanted)
        else:
            self._say_nodes(reply, {}, wanted)
        return self._sooner_or_later("activate", reply)

    def update(self, request: Any) -> Any:
        """Another policy for a group; single nodes keep none of their own."""
        group = self._group(request)
        reply = self._ok("ResourceGroupUpdateResponse")
        if self._newer and request.HasField("priority") and self._writes():
            group.priority = request.priority
        if not request.policy_name:
            return reply
        wanted = dict.fromkeys(group.nodes, request.policy_name)
        if group.status == "active":
            wanted, why = self._allocated(wanted, request.strict, reprovision=False)
            if why:
                return self._no("ResourceGroupUpdateResponse", why)
        failed = dict[str, str]()
        if self._writes():
            group.policy = request.policy_name
            group.asked.clear()
            if group.status == "active":
                failed = self._apply(group, wanted)
        if group.status == "active":
            self._say_nodes(reply, failed, wanted)
        return self._sooner_or_later("update", reply)

    def update_resources(self, request: Any) -> Any:
        """Policies of single nodes, as many as can be; it says ok for the rest too."""
        group = self._group(request)
        if self._writes():
            asked = {one.resource_name: one.policy_name for one in request.updates}
            known = {n: p for n, p in asked.items() if n in group.nodes and p in POLICY_SHARE}
            group.asked |= known
            if group.status == "active":
                self._apply(group, known)
        return self._ok("ResourceGroupUpdateResourcesResponse")

    def delete(self, request: Any) -> Any:
        """The group is gone for good; the topology's policies are on its nodes again."""
        group = self._group(request)
        if self._writes():
            self._release(group, list(group.nodes))
            del self._groups.by_name[group.name]
        return self._ok("ResourceGroupDeleteResponse")

    def operation_status(self, request: Any) -> Any:
        """How far an operation is; once it is done and told, it is forgotten."""
        name = request.operation_id
        if name not in self._running or self.forgets:
            raise LookupError(f"no operation {name!r}")
        left, done = self._running[name]
        reply = self._answers.new("AsyncOperationStatusResponse")
        reply.operation_id, reply.n_hosts = name, len(done[1].node_statuses)
        if left > 1:
            self._running[name] = (left - 1, done)
            reply.n_in_progress = reply.n_hosts
            return reply
        del self._running[name]
        reply.completed, reply.n_success = True, reply.n_hosts
        getattr(reply, done[0]).CopyFrom(done[1])
        return reply

    # ── shared ────────────────────────────────────────────────────────────────────────────────

    def _group(self, request: Any) -> Group:
        group = self._groups.by_name.get(request.group_name)
        if group is None:
            raise LookupError(f"no resource group {request.group_name!r}")
        return group

    def _writes(self) -> bool:
        """Whether this write is done; it is noticed either way."""
        self.when_written()
        return not self._goes_wrong(TwinFault.IGNORE_CAPS)

    def _allocated(
        self, wanted: dict[str, str], strict: bool, reprovision: bool
    ) -> tuple[dict[str, str], str]:
        """The policies that the budgets bear, and why not."""
        if self._goes_wrong(TwinFault.DOWNGRADE):
            return dict.fromkeys(wanted, LEAST), ""
        selected, fits = self._groups.budgets.fitting(wanted, strict=strict)
        if fits or (reprovision and self._groups.take_for(wanted)):
            return selected, ""
        return wanted, "the allocation does not fit its power distribution"

    def _apply(self, group: Group, wanted: Mapping[str, str]) -> dict[str, str]:
        """Onto the hardware; why not, by node."""
        left_out = dict[str, str]()
        if wanted and self._goes_wrong(TwinFault.PARTIAL):
            left_out[next(iter(wanted))] = "the twin was told to leave it out"
        reached = {node: policy for node, policy in wanted.items() if node not in left_out}
        failed = self._groups.command(reached) | left_out
        group.applied |= {n: policy for n, policy in wanted.items() if n not in failed}
        return failed

    def _release(self, group: Group, nodes: list[str]) -> None:
        group.nodes = [node for node in group.nodes if node not in nodes]
        for node in nodes:
            group.asked.pop(node, None)
            group.applied.pop(node, None)
        if group.status == "active":
            self._groups.command(dict.fromkeys(nodes, self._groups.topology_policy))

    def _say_nodes(self, reply: Any, failed: Mapping[str, str], wanted: Mapping[str, str]) -> None:
        for number, (node, policy) in enumerate(wanted.items()):
            if number == 0 and self._goes_wrong(TwinFault.MISSING_RESULT):
                continue
            said = reply.node_statuses[node].policy_apply_status
            said.policy.name = policy
            said.status.ok, said.status.diag_msg = node not in failed, failed.get(node, "")

    def _sooner_or_later(self, kind: str, reply: Any) -> Any:
        """The answer, or with the fault ASYNC an operation that will have it."""
        if not self._goes_wrong(TwinFault.ASYNC):
            return reply
        self._started += 1
        name = f"op-{self._started}"
        self._running[name] = (ASKED_BEFORE_DONE, (kind, reply))
        early = type(reply)(operation_id=name)
        early.status.ok = True
        return early

    def _ok(self, name: str) -> Any:
        reply = self._answers.new(name)
        reply.status.ok = True
        return reply

    def _no(self, name: str, why: str) -> Any:
        reply = self._answers.new(name)
        reply.status.diag_msg = why
        return reply
