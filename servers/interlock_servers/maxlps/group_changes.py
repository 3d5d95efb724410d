"""The changes of resource groups, one call to DPS each."""

from collections.abc import Sequence
from typing import Any

from interlock_guardrails.facts import FactRegistry
from interlock_servers.maxlps.group_arguments import (
    ActivateArguments,
    AddArguments,
    CreateArguments,
    GroupArguments,
    NodePoliciesArguments,
    PolicyArguments,
    PriorityArguments,
    RemoveArguments,
)
from interlock_servers.maxlps.group_client import GroupClient, has_policy
from interlock_servers.maxlps.group_models import GroupState
from interlock_servers.maxlps.group_operations import GroupOperation, Policies
from interlock_servers.maxlps.group_scene import Scene
from interlock_servers.maxlps.picture import Picture
from interlock_tools.errors import InvalidRequestError
from interlock_tools.fact import FactSet
from interlock_tools.operation import Expiry


class CreateGroup(GroupOperation[CreateArguments]):
    """Create an empty, inactive group with a policy; then add_nodes and activate_group."""

    name = "maxlps.create_group"
    arguments = CreateArguments
    at_rest = True

    def check(self, arguments: CreateArguments, scene: Scene) -> None:
        """It is new, and its policy is understood."""
        if arguments.group in scene.groups:
            raise InvalidRequestError(f"group: DPS already has a group {arguments.group!r}")
        scene.known_policy(arguments.policy)

    def stands(self, arguments: CreateArguments, group: GroupState | None) -> bool:
        """It is there with its policy."""
        return group is not None and group.policy == arguments.policy

    async def act(self, arguments: CreateArguments, scene: Scene) -> dict[str, Any]:
        """Create it."""
        await self._groups.create(
            arguments.group, arguments.policy, dpm=arguments.dpm, prs=arguments.prs
        )
        return {}

    async def compensate(self, arguments: CreateArguments, before: FactSet) -> dict[str, Any]:
        """Remove it while nobody uses it: inactive, and without nodes."""
        group = await self._group(arguments.group)
        unused = group is not None and group.status == "inactive" and not group.node_ids
        if unused:
            await self._groups.delete(arguments.group)
        return {"removed": unused}


class ActivateGroup(GroupOperation[ActivateArguments]):
    """Put a group's policies on its nodes' hardware. Only delete_group ends it."""

    name = "maxlps.activate_group"
    arguments = ActivateArguments

    def check(self, arguments: ActivateArguments, scene: Scene) -> None:
        """It is inactive and has nodes."""
        group = scene.settled(arguments.group)
        if group["status"] == "active":
            raise InvalidRequestError(f"group: {arguments.group!r} is active already")
        if not group["node_ids"]:
            raise InvalidRequestError(f"group: {arguments.group!r} has no nodes; add_nodes first")

    def is_live(self, arguments: ActivateArguments, scene: Scene) -> bool:
        """Always: that is what it is for."""
        return True

    def policies(self, arguments: ActivateArguments, scene: Scene) -> Policies:
        """Of each node its own policy, or the group's."""
        return asked_of(scene, arguments.group)

    def takes(self, arguments: ActivateArguments) -> bool:
        """Where it is said."""
        return arguments.allow_reprovision

    def stands(self, arguments: ActivateArguments, group: GroupState | None) -> bool:
        """It is active, and every node has what was asked for."""
        if group is None or group.status != "active":
            return False
        return all(has_policy(group, n, group.policies.get(n, ("",))[0]) for n in group.node_ids)

    async def act(self, arguments: ActivateArguments, scene: Scene) -> dict[str, Any]:
        """Activate it."""
        wanted = self.policies(arguments, scene)
        return await self._groups.activate(
            arguments.group, wanted, reprovision=arguments.allow_reprovision
        )


class SetGroupPolicy(GroupOperation[PolicyArguments]):
    """Give a group another policy, on all its nodes; while it is active their limits follow."""

    name = "maxlps.set_group_policy"
    arguments = PolicyArguments

    def check(self, arguments: PolicyArguments, scene: Scene) -> None:
        """Group and policy exist."""
        scene.settled(arguments.group)
        scene.known_policy(arguments.policy)

    def policies(self, arguments: PolicyArguments, scene: Scene) -> Policies:
        """The same for all."""
        return dict.fromkeys(scene.group(arguments.group)["node_ids"], arguments.policy)

    def stands(self, arguments: PolicyArguments, group: GroupState | None) -> bool:
        """The group has it, and every node of it."""
        return (
            group is not None
            and group.policy == arguments.policy
            and all(has_policy(group, node_id, arguments.policy) for node_id in group.node_ids)
        )

    async def act(self, arguments: PolicyArguments, scene: Scene) -> dict[str, Any]:
        """Update it."""
        live = self.is_live(arguments, scene)
        nodes = scene.group(arguments.group)["node_ids"] if live else ()
        return await self._groups.set_policy(arguments.group, arguments.policy, nodes)

    def expiry(self, arguments: PolicyArguments, before: FactSet) -> Expiry | None:
        """Back to the policy before, where that is no raise on any node."""
        if arguments.expires_in_s is None:
            return None
        scene = Scene.of_facts(before, self._site)
        was = scene.group(arguments.group)["policy"]
        held = set(asked_of(scene, arguments.group).values())
        caps = self.caps(arguments, scene)
        if was is None or held - {was} or not caps:
            return None
        if any(scene.cap(node_id, was) > cap_w for node_id, cap_w in caps.items()):
            return None
        return Expiry(
            after_s=arguments.expires_in_s,
            operation=self.name,
            arguments={"group": arguments.group, "policy": was},
        )


class SetNodePolicies(GroupOperation[NodePoliciesArguments]):
    """Give nodes of one group policies of their own; while it is active their limits follow."""

    name = "maxlps.set_node_policies"
    arguments = NodePoliciesArguments

    def check(self, arguments: NodePoliciesArguments, scene: Scene) -> None:
        """Nodes of the group, and policies that exist."""
        scene.settled(arguments.group)
        scene.of_group(arguments.group, arguments.policy_by_node)
        for policy in arguments.policy_by_node.values():
            scene.known_policy(policy)

    def policies(self, arguments: NodePoliciesArguments, scene: Scene) -> Policies:
        """The map itself."""
        return arguments.policy_by_node

    def stands(self, arguments: NodePoliciesArguments, group: GroupState | None) -> bool:
        """Every node has its own."""
        wanted = arguments.policy_by_node.items()
        return group is not None and all(has_policy(group, n, policy) for n, policy in wanted)

    async def act(self, arguments: NodePoliciesArguments, scene: Scene) -> dict[str, Any]:
        """Update them."""
        await self._groups.set_node_policies(arguments.group, arguments.policy_by_node)
        return {}


class AddNodes(GroupOperation[AddArguments]):
    """Put free nodes into a group; while it is active its policy is on them at once."""

    name = "maxlps.add_nodes"
    arguments = AddArguments

    def check(self, arguments: AddArguments, scene: Scene) -> None:
        """Nodes of nobody, and a policy that exists."""
        scene.settled(arguments.group)
        scene.free(arguments.node_ids)
        for policy in set(self.policies(arguments, scene).values()):
            scene.known_policy(policy)

    def policies(self, arguments: AddArguments, scene: Scene) -> Policies:
        """The policy given, or the group's."""
        policy = arguments.policy or scene.group(arguments.group)["policy"]
        if policy is None:
            raise InvalidRequestError(f"policy: {arguments.group!r} has none of its own; name one")
        return dict.fromkeys(arguments.node_ids, policy)

    def takes(self, arguments: AddArguments) -> bool:
        """Where it is said."""
        return arguments.allow_reprovision

    def pictured(self, arguments: AddArguments, scene: Scene) -> Picture:
        """With the nodes at work for the group, under what it was promised."""
        return scene.joined(arguments.group, arguments.node_ids).picture

    def stands(self, arguments: AddArguments, group: GroupState | None) -> bool:
        """They are in it, with their policy."""
        if group is None or not set(arguments.node_ids) <= set(group.node_ids):
            return False
        policy = arguments.policy or group.policy or ""
        return all(has_policy(group, node_id, policy) for node_id in arguments.node_ids)

    async def act(self, arguments: AddArguments, scene: Scene) -> dict[str, Any]:
        """Add them."""
        await self._groups.add(
            arguments.group,
            arguments.node_ids,
            arguments.policy,
            reprovision=arguments.allow_reprovision,
        )
        return {}


class RemoveNodes(GroupOperation[RemoveArguments]):
    """Take nodes out of a group. Of an active one the topology's policy returns: power may rise."""

    name = "maxlps.remove_nodes"
    arguments = RemoveArguments

    def check(self, arguments: RemoveArguments, scene: Scene) -> None:
        """Nodes of the group."""
        scene.settled(arguments.group)
        scene.of_group(arguments.group, arguments.node_ids)

    def freed(self, arguments: RemoveArguments, scene: Scene) -> Sequence[str]:
        """All of them."""
        return arguments.node_ids

    def stands(self, arguments: RemoveArguments, group: GroupState | None) -> bool:
        """They are no longer in it."""
        return group is not None and not set(arguments.node_ids) & set(group.node_ids)

    async def act(self, arguments: RemoveArguments, scene: Scene) -> dict[str, Any]:
        """Remove them."""
        await self._groups.remove(arguments.group, arguments.node_ids)
        return {}


class DeleteGroup(GroupOperation[GroupArguments]):
    """Delete a group for good. Its nodes go back to the topology's policy: power may rise.

    Not to the policy that they had before the group.
    """

    name = "maxlps.delete_group"
    arguments = GroupArguments

    def check(self, arguments: GroupArguments, scene: Scene) -> None:
        """It exists and is not on its way."""
        scene.settled(arguments.group)

    def freed(self, arguments: GroupArguments, scene: Scene) -> Sequence[str]:
        """All its nodes."""
        nodes: Sequence[str] = scene.group(arguments.group)["node_ids"]
        return nodes

    def stands(self, arguments: GroupArguments, group: GroupState | None) -> bool:
        """It is gone."""
        return group is None

    async def act(self, arguments: GroupArguments, scene: Scene) -> dict[str, Any]:
        """Delete it."""
        return await self._groups.delete(arguments.group)


class SetGroupPriority(GroupOperation[PriorityArguments]):
    """Change who loses power first: the group of the highest number does. DPS 0.10 and later."""

    name = "maxlps.set_group_priority"
    arguments = PriorityArguments
    at_rest = True

    def check(self, arguments: PriorityArguments, scene: Scene) -> None:
        """DPS takes priorities, and this is another one."""
        group = scene.settled(arguments.group)
        if group["priority"] is None:
            raise InvalidRequestError(
                "priority: this DPS shows no priority of groups (the field "
                "ResourceGroupInfo.priority, of 0.10); it takes none either"
            )
        if (lacks := self._groups.why_no_priority()) is not None:
            raise InvalidRequestError(f"priority: {lacks}")
        if group["priority"] == arguments.priority:
            raise InvalidRequestError(f"priority: it is {arguments.priority} already")

    def losers(self, arguments: PriorityArguments, scene: Scene) -> frozenset[str]:
        """Who will lose power earlier than before."""
        return scene.overtaken(arguments.group, arguments.priority)

    def freed(self, arguments: PriorityArguments, scene: Scene) -> Sequence[str]:
        """Its nodes are reached; no limit moves by itself."""
        nodes: Sequence[str] = scene.group(arguments.group)["node_ids"]
        return nodes

    def stands(self, arguments: PriorityArguments, group: GroupState | None) -> bool:
        """It has that number."""
        return group is not None and group.priority == arguments.priority

    async def act(self, arguments: PriorityArguments, scene: Scene) -> dict[str, Any]:
        """Set it."""
        await self._groups.set_priority(arguments.group, arguments.priority)
        return {}

    async def compensate(self, arguments: PriorityArguments, before: FactSet) -> dict[str, Any]:
        """The number that it had."""
        was = Scene.of_facts(before, self._site).group(arguments.group)["priority"]
        await self._groups.set_priority(arguments.group, was)
        return {"priority": was}


def asked_of(scene: Scene, name: str) -> dict[str, str]:
    """The policy asked for on each node of a group: its own, or the group's.

    Raises:
        InvalidRequestError: a node has neither; then DPS's effect on it is not known.
    """
    group = scene.group(name)
    wanted: dict[str, str] = {}
    for node_id in group["node_ids"]:
        policy = group["policies"].get(node_id, ("", ""))[0] or group["policy"]
        if not policy:
            raise InvalidRequestError(f"group: {node_id} of {name!r} has no policy; give it one")
        wanted[node_id] = policy
    return wanted


# Who is in which group; the others change what a group is given.
MEMBERSHIP: tuple[type[GroupOperation[Any]], ...] = (
    CreateGroup,
    AddNodes,
    ActivateGroup,
    RemoveNodes,
    DeleteGroup,
)


def group_operations(
    groups: GroupClient, facts: FactRegistry, site_id: str
) -> tuple[GroupOperation[Any], ...]:
    """Everything that may change in groups here."""
    return (
        CreateGroup(groups, facts, site_id),
        ActivateGroup(groups, facts, site_id),
        SetGroupPolicy(groups, facts, site_id),
        SetNodePolicies(groups, facts, site_id),
        AddNodes(groups, facts, site_id),
        RemoveNodes(groups, facts, site_id),
        DeleteGroup(groups, facts, site_id),
        SetGroupPriority(groups, facts, site_id),
    )
