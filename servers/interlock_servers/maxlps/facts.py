"""What DPS, or the nodes, tell the guard of a site: power tree, groups, GPU limits."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from interlock_servers.maxlps import COMPONENT
from interlock_servers.maxlps.allocator.evidence import Evidence
from interlock_servers.maxlps.allocator.refit import Prior, refit
from interlock_servers.maxlps.models import NodePower, ResourceGroup
from interlock_servers.maxlps.port import PowerPort
from interlock_servers.maxlps.priors import prior_of
from interlock_servers.maxlps.settings import Loop
from interlock_tools.canonical import digest
from interlock_tools.fact import Fact, FactNeed, Nature, Unknown
from interlock_tools.identity import Target

POWER_TOPOLOGY = "power.topology"
POWER_GROUPS = "power.groups"
POWER_GPU_LIMITS = "power.gpu_limits"
Samples = Callable[[str], Evidence | None]
NO_PROMISES: Mapping[str, float] = {}
KEPT_S = 1.0  # a plan, its proposal and its act look within moments of each other, at 10,240 GPUs


class MaxlpsFacts:
    """The facts of one site; each is asked for anew and stamped when its answer is there.

    - `power.topology` (identity): name, dps_hash, and the tree `root` of name, level, budget_w and
      children; `loops` and `tenants_least_w` where the settings have them.
    - `power.groups` (identity): a list of groups as `ResourceGroup.as_json` gives them.
    - `power.gpu_limits` (measurement): by node `set_w` and `power_w`, lists by GPU id, with
      `min_w` and `max_w` that every GPU of the node takes, and `fit` where its work was measured.
      null is unknown; every node of the topology is there, one that DPS says nothing about with
      empty lists.
    """

    def __init__(
        self,
        client: PowerPort,
        site_id: str,
        *,
        loops: Sequence[Loop] = (),
        tenants_least_w: Mapping[str, float] = NO_PROMISES,
        samples: Samples | None = None,
    ) -> None:
        """A source for one site.

        Args:
            client: whoever limits its GPUs.
            site_id: its name.
            loops: cooling loops, of the settings.
            tenants_least_w: GPU watts that tenants were promised, of the settings.
            samples: what was measured of a group's work at full load; None where nothing was.
        """
        self._client = client
        self._more: dict[str, Any] = {}
        if loops:
            self._more["loops"] = [loop.model_dump(mode="json") for loop in loops]
        if tenants_least_w:
            self._more["tenants_least_w"] = dict(tenants_least_w)
        self._samples = samples
        self._kept: dict[str, tuple[Fact, int]] = {}
        self._site = Target(kind="site", id=site_id)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of fact that it answers, all about the site."""
        return frozenset({POWER_TOPOLOGY, POWER_GROUPS, POWER_GPU_LIMITS})

    async def fact(self, need: FactNeed) -> Fact | Unknown:
        """The fact now, or `Unknown` for another subject.

        Raises:
            FactoryError: whoever was asked failed or does not answer; nothing was changed.
        """
        if need.subject != self._site:
            why = f"the power of {self._site} only is known here"
            return Unknown(kind=need.kind, subject=need.subject, why=why)
        if need.kind in self._kept:
            kept, writes = self._kept[need.kind]
            age_s = (self._client.clock.now() - kept.observed_at).total_seconds()
            if writes == self._client.writes and 0 <= age_s < min(KEPT_S, need.max_age_s):
                return kept
        writes = self._client.writes
        found = await self._ask(need)
        if isinstance(found, Fact):
            self._kept[need.kind] = (found, writes)
        return found

    async def _ask(self, need: FactNeed) -> Fact | Unknown:
        match need.kind:
            case "power.topology":
                topology = await self._client.active_topology()
                version = _version({"topology": topology.version, **self._more})
                told = topology.as_json() | self._more
                return self._fact(need, told, version, Nature.IDENTITY)
            case "power.groups":
                groups = [group.as_json() for group in await self._client.resource_groups()]
                return self._fact(need, groups, digest({"groups": groups}), Nature.IDENTITY)
            case "power.gpu_limits":
                limits = await self._limits()
                return self._fact(need, limits, _version(limits), Nature.MEASUREMENT)
        return Unknown(kind=need.kind, subject=need.subject, why="nobody here answers this kind")

    async def _limits(self) -> dict[str, Any]:
        node_ids = (await self._client.active()).node_ids
        nodes = await self._client.node_power(node_ids)
        limits = {node_id: limits_json(nodes.get(node_id)) for node_id in node_ids}
        samples = self._samples
        for group in () if samples is None else await self._client.resource_groups():
            seen = None if samples is None else samples(group.name)
            if seen is None:
                continue
            for node_id in group.node_ids:
                max_w = limits.get(node_id, {}).get("max_w")
                if max_w is not None:
                    limits[node_id]["fit"] = fit_json(group, seen, max_w)
        return limits

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


def fit_json(group: ResourceGroup, seen: Evidence, max_w: float) -> dict[str, float]:
    """What to plan a group's work with, from its prior and its samples; see `Fit.robust`."""
    known = prior_of(group.workload_class)
    prior = Prior(natural_w=known.natural_share * max_w, curve=known.curve)
    fit = refit(prior, seen).robust(group.slo_floor or 0.0)
    return fit._asdict() | {"natural_w": min(fit.natural_w, max_w)}


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
