"""The arguments of what may change in resource groups."""

from typing import Annotated

from pydantic import Field

from interlock_servers.maxlps.wire import MAX_PRIORITY
from interlock_tools.operation import Arguments

Name = Annotated[str, Field(min_length=1, max_length=200)]
NodeIds = Annotated[list[Name], Field(min_length=1, max_length=4096)]
Takes = Annotated[bool, Field(description="DPS may take power from other groups")]


class GroupArguments(Arguments):
    """Which group."""

    group: Name


class CreateArguments(GroupArguments):
    """Which group, its policy, and whether DPS may steer it."""

    policy: Name
    dpm: Annotated[bool, Field(description="DPS may move its limits")] = False
    prs: bool = False


class ActivateArguments(GroupArguments):
    """Which group."""

    allow_reprovision: Takes = False


class PolicyArguments(GroupArguments):
    """Which group, which policy, and for how long."""

    policy: Name
    expires_in_s: Annotated[
        float | None,
        Field(gt=0, le=7 * 86_400, description="a raise then goes back"),
    ] = None


class NodePoliciesArguments(GroupArguments):
    """Which group, and the policy of each of its nodes that shall have another."""

    policy_by_node: Annotated[dict[Name, Name], Field(min_length=1, max_length=4096)]


class AddArguments(GroupArguments):
    """Which group, and which nodes with which policy."""

    node_ids: NodeIds
    policy: Annotated[Name | None, Field(description="none: the group's")] = None
    allow_reprovision: Takes = False


class RemoveArguments(GroupArguments):
    """Which group, and which of its nodes."""

    node_ids: NodeIds


class PriorityArguments(GroupArguments):
    """Which group, and its rank: the lower number loses power last."""

    priority: Annotated[int, Field(ge=0, le=MAX_PRIORITY, description="lower loses last")]
