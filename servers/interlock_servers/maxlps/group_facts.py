"""What DPS can tell the guard about its groups, policies and nodes, beside the limits of GPUs."""

from typing import Any, Final

from interlock_servers.maxlps import COMPONENT
from interlock_servers.maxlps.group_client import GroupClient
from interlock_tools.canonical import digest
from interlock_tools.fact import Fact, FactNeed, Nature, Unknown
from interlock_tools.identity import Target

DPS_GROUPS: Final = "dps.groups"
DPS_POLICIES: Final = "dps.policies"
DPS_NODES: Final = "dps.nodes"


class GroupFacts:
    """The facts of one site; each is asked for anew.

    - `dps.groups` (identity): by name what `GroupState.as_json` gives. What DPS applies moves by
      itself while work runs, and so does not make another group of it; what was asked for does.
    - `dps.policies` (identity): by name what `Policy.as_json` gives.
    - `dps.nodes` (measurement): by node of the active topology since when DPS does not reach it
      (null: it does), or `unknown` where DPS says nothing.
    """

    def __init__(self, groups: GroupClient, site_id: str) -> None:
        self._groups = groups
        self._site = Target(kind="site", id=site_id)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of fact that it answers, all about the site."""
        return frozenset({DPS_GROUPS, DPS_POLICIES, DPS_NODES})

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """The fact now, or `Unknown` for another subject.

        Raises:
            FactoryError: DPS failed, does not answer, or lacks what it takes; nothing was changed.
        """
        if need.subject != self._site or need.kind not in self.kinds:
            why = f"DPS here answers for {self._site} only"
            return Unknown(kind=need.kind, subject=need.subject, why=why)
        value: dict[str, Any]
        if need.kind == DPS_GROUPS:
            value = {group.name: group.as_json() for group in await self._groups.groups()}
            version = digest({name: _asked(group) for name, group in value.items()})
        elif need.kind == DPS_POLICIES:
            value = {policy.name: policy.as_json() for policy in await self._groups.policies()}
            version = digest(value)
        else:
            value = await self._nodes()
            version = digest(value)
        return Fact(
            kind=need.kind,
            subject=need.subject,
            value=value,
            origin=COMPONENT,
            version=version,
            observed_at=self._groups.dps.clock.now(),
            nature=Nature.MEASUREMENT if need.kind == DPS_NODES else Nature.IDENTITY,
        )

    async def _nodes(self) -> dict[str, Any]:
        node_ids = (await self._groups.dps.active()).node_ids
        statuses = await self._groups.dps.nodes_status(node_ids)
        since = {
            node_id: None if status.inaccessible_since is None else str(status.inaccessible_since)
            for node_id, status in statuses.items()
        }
        return {node_id: since.get(node_id, "unknown") for node_id in node_ids}


def _asked(group: dict[str, Any]) -> dict[str, Any]:
    asked = {node: pair[0] for node, pair in group["policies"].items()}
    return group | {"policies": asked}
