"""The site as a change of groups sees it: power picture, groups, and what policies allow."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from interlock_servers.maxlps.group_facts import DPS_GROUPS, DPS_NODES, DPS_POLICIES
from interlock_servers.maxlps.group_models import cap_of, unknown_elements
from interlock_servers.maxlps.node_view import Group
from interlock_servers.maxlps.picture import Picture
from interlock_servers.maxlps.reach import GRID_LIMIT
from interlock_tools.errors import InvalidRequestError
from interlock_tools.fact import FactSet
from interlock_tools.identity import Target

NAMED = 5


@dataclass(frozen=True)
class Scene:
    """Everything that a change of groups is judged by, from facts alone."""

    picture: Picture
    groups: Mapping[str, Any]
    policies: Mapping[str, Any]
    unreached: Mapping[str, Any]
    grid: Mapping[str, Any]

    @classmethod
    def of_facts(cls, facts: FactSet, site: Target) -> "Scene":
        """The scene in the facts of a change."""
        return cls(
            picture=Picture.of_facts(facts, site),
            groups=facts.value(DPS_GROUPS, site),
            policies=facts.value(DPS_POLICIES, site),
            unreached=facts.value(DPS_NODES, site),
            grid=facts.value(GRID_LIMIT, site),
        )

    def group(self, name: str) -> Mapping[str, Any]:
        """One group.

        Raises:
            InvalidRequestError: there is none of this name.
        """
        if name not in self.groups:
            raise InvalidRequestError(
                f"group: DPS has no resource group {name!r}; resource_groups lists them"
            )
        found: Mapping[str, Any] = self.groups[name]
        return found

    def settled(self, name: str) -> Mapping[str, Any]:
        """One group that is active or inactive, and not between the two.

        Raises:
            InvalidRequestError: there is none, or it is on its way: DPS refuses changes then.
        """
        group = self.group(name)
        if group["status"] not in {"active", "inactive"}:
            raise InvalidRequestError(
                f"group: {name!r} is {group['status']!r}; wait until it is active or inactive"
            )
        return group

    def holder(self, node_id: str) -> str | None:
        """The group that a node is in."""
        found = (name for name, group in self.groups.items() if node_id in group["node_ids"])
        return next(found, None)

    def free(self, node_ids: Iterable[str]) -> None:
        """Make sure that nodes exist and are in no group.

        Raises:
            InvalidRequestError: one is not; its group is named.
        """
        for node_id in node_ids:
            self.picture.node(node_id)
            if (name := self.holder(node_id)) is not None:
                raise InvalidRequestError(f"node_ids: {node_id} is in the group {name!r}")

    def of_group(self, name: str, node_ids: Iterable[str]) -> None:
        """Make sure that nodes are in a group.

        Raises:
            InvalidRequestError: one is not, or none is named.
        """
        outside = sorted(set(node_ids) - set(self.group(name)["node_ids"]))
        if outside:
            raise InvalidRequestError(f"{', '.join(outside[:NAMED])}: not in the group {name!r}")

    def known_policy(self, name: str) -> Mapping[str, Any]:
        """One policy whose every limit we understand.

        Raises:
            InvalidRequestError: there is none, or it limits something that we do not know.
        """
        if name not in self.policies:
            raise InvalidRequestError(
                f"policy: DPS has no policy {name!r}; there are {', '.join(sorted(self.policies))}"
            )
        policy: Mapping[str, Any] = self.policies[name]
        if strange := unknown_elements(policy):
            raise InvalidRequestError(
                f"policy: {name!r} limits the element type {', '.join(strange)}, which is not "
                "known here, and so is its effect; choose another policy"
            )
        return policy

    def cap(self, node_id: str, policy: str) -> int:
        """The watts that each GPU of a node may draw under a policy.

        Raises:
            InvalidRequestError: nobody can tell: the node is dark, or the policy says nothing.
        """
        view = self.picture.node(node_id)
        least_w, most_w, _ = view.limits
        watts = cap_of(self.known_policy(policy), view.gpu_count, least_w, most_w)
        if watts is None:
            raise InvalidRequestError(
                f"policy: {policy!r} has no limit for GPUs or nodes; its effect is not known"
            )
        return round(watts)

    def released(self, node_ids: Iterable[str]) -> dict[str, int]:
        """The most that nodes may draw once the topology's policy holds: nobody tells which it is.

        So it counts with all that the devices can.
        """
        return {node_id: int(self.picture.node(node_id).limits[1]) for node_id in node_ids}

    def reached(self, node_ids: Iterable[str]) -> None:
        """Make sure that DPS reaches the BMCs of these nodes now.

        Raises:
            InvalidRequestError: one is out of reach, and since when.
        """
        for node_id in node_ids:
            since = self.unreached.get(node_id, "unknown")
            if since is not None:
                raise InvalidRequestError(
                    f"{node_id}: DPS has not reached its BMC since {since}; nothing is written to "
                    "a group of it before that is seen to"
                )

    def joined(self, name: str, node_ids: Iterable[str]) -> "Scene":
        """The scene in which these nodes work for a group, with what that was promised."""
        views = dict(self.picture.nodes)
        members = self.group(name)["node_ids"]
        group = next((views[n].group for n in members if n in views and views[n].group), None)
        for node_id in node_ids:
            mine = group or Group(name, None, None, None)
            views[node_id] = replace(self.picture.node(node_id), group=mine)
        return replace(self, picture=replace(self.picture, nodes=views))

    def losers(self, name: str, node_ids: Sequence[str]) -> dict[str, int]:
        """The least that nodes of other active groups may be left with if DPS takes for this one.

        DPS cannot say whom it would take from. It could be anybody under a power domain that has a
        budget and feeds one of these nodes.
        """
        budgeted = {d.name for d in self.picture.domains if math.isfinite(d.budget_w)}
        above = {domain for n in node_ids for domain in self.picture.node(n).path} & budgeted
        lost: dict[str, int] = {}
        others = (group for group in self.groups.values() if group["name"] != name)
        for group in others:
            for node_id in group["node_ids"] if group["status"] == "active" else ():
                view = self.picture.nodes.get(node_id)
                if view is None or view.is_dark or node_id in node_ids:
                    continue
                if above & set(view.path):
                    lost[node_id] = math.ceil(view.limits[0])
        return lost

    def overtaken(self, name: str, priority: int) -> frozenset[str]:
        """Who loses power earlier than before if a group gets this priority; it may be itself."""
        group = self.group(name)
        was = group["priority"]
        if group["status"] != "active" or was is None:
            return frozenset()
        lost: set[str] = set()
        for other in self.groups.values():
            if other["name"] == name or other["status"] != "active" or other["priority"] is None:
                continue
            before, after = _side(other["priority"], was), _side(other["priority"], priority)
            if after > before:
                lost.add(other["name"])
            elif after < before:
                lost.add(name)
        return frozenset(lost)


def _side(theirs: int, ours: int) -> int:
    """1 where they lose power before us, -1 after us, 0 together."""
    return (theirs > ours) - (theirs < ours)
