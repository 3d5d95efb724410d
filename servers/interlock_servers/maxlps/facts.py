"""What DPS can tell the guard about a site: its power tree, its groups, its GPU limits."""

import hashlib
import json
from typing import Any

from interlock_servers.maxlps import COMPONENT
from interlock_servers.maxlps.client import DpsClient
from interlock_servers.maxlps.models import NodePower
from interlock_tools.canonical import digest
from interlock_tools.fact import Fact, FactNeed, Nature, Unknown
from interlock_tools.identity import Target

POWER_TOPOLOGY = "power.topology"
POWER_GROUPS = "power.groups"
POWER_GPU_LIMITS = "power.gpu_limits"


class MaxlpsFacts:
    """The facts of one site; each is asked for anew and stamped when its answer is there.

    - `power.topology` (identity): name, dps_hash, and the tree `root` of name, level, budget_w and
      children.
    - `power.groups` (identity): a list of groups as `ResourceGroup.as_json` gives them.
    - `power.gpu_limits` (measurement): by node `set_w` and `power_w`, lists by GPU id, with
      `min_w` and `max_w` that every GPU of the node takes. null is unknown; every node of the
      topology is there, one that DPS says nothing about with empty lists.
    """

    def __init__(self, client: DpsClient, site_id: str) -> None:
        self._client = client
        self._site = Target(kind="site", id=site_id)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of fact that it answers, all about the site."""
        return frozenset({POWER_TOPOLOGY, POWER_GROUPS, POWER_GPU_LIMITS})

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """The fact now, or `Unknown` for another subject.

        Raises:
            FactoryError: DPS failed or does not answer; nothing was changed.
        """
        if need.subject != self._site:
            why = f"DPS here answers for {self._site} only"
            return Unknown(kind=need.kind, subject=need.subject, why=why)
        match need.kind:
            case "power.topology":
                topology = await self._client.active_topology()
                return self._fact(need, topology.as_json(), topology.version, Nature.IDENTITY)
            case "power.groups":
                groups = [group.as_json() for group in await self._client.resource_groups()]
                return self._fact(need, groups, digest({"groups": groups}), Nature.IDENTITY)
            case "power.gpu_limits":
                limits = await self._limits()
                return self._fact(need, limits, _version(limits), Nature.MEASUREMENT)
        return Unknown(kind=need.kind, subject=need.subject, why="DPS does not answer this kind")

    async def _limits(self) -> dict[str, Any]:
        node_ids = (await self._client.active()).node_ids
        nodes = await self._client.node_power(node_ids)
        return {node_id: limits_json(nodes.get(node_id)) for node_id in node_ids}

    def _fact(self, need: FactNeed, value: Any, version: str, nature: Nature) -> Fact:
        return Fact(
            kind=need.kind,
            subject=need.subject,
            value=value,
            origin=COMPONENT,
            version=version,
            observed_at=self._client.clock.now(),
            nature=nature,
        )


def _version(readings: dict[str, Any]) -> str:
    """Differs with the readings; no canonical form, which takes ten times as long."""
    return hashlib.sha256(json.dumps(readings, sort_keys=True).encode()).hexdigest()


def limits_json(node: NodePower | None) -> dict[str, Any]:
    """One node's part of `power.gpu_limits`; of a node that DPS says nothing about, all unknown."""
    if node is None:
        return {"set_w": [], "min_w": None, "max_w": None, "power_w": []}
    return {
        "set_w": list(node.set_w),
        "min_w": node.min_w,
        "max_w": node.max_w,
        "power_w": list(node.gpu_power_w),
    }
