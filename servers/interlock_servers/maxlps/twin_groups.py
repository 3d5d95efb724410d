"""The twin's resource groups: which nodes hold which policy, and whether the budgets bear it.

Policies reach the plant's GPUs only where a group is active, or where the topology's hold again.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from interlock_plant.plant import Plant

# Of the GPU's greatest cap, the greatest first; chosen.
POLICY_SHARE: Final = {"MaxP": 1.0, "MaxLPS": 0.8, "MaxQ": 0.7}
LEAST: Final = "MaxQ"
Policies = Mapping[str, str]  # of nodes


@dataclass
class Group:
    """One resource group. `applied` is by node; a node that was never reached is not in it."""

    name: str
    external_id: int
    policy: str
    nodes: list[str] = field(default_factory=list)
    status: str = "inactive"
    priority: int = 0
    properties: dict[str, Any] = field(default_factory=dict)
    dpm: bool = True
    prs: bool = False
    profiles: list[int] = field(default_factory=list)
    asked: dict[str, str] = field(default_factory=dict)
    applied: dict[str, str] = field(default_factory=dict)

    def wanted(self, nodes: Sequence[str]) -> dict[str, str]:
        """The policy of each of these nodes, its own or the group's."""
        return {node: self.asked.get(node) or self.policy for node in nodes}


class Budgets:
    """What hangs under each power distribution, in watts at the wall."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def allocation(self, wanted: Policies) -> list[tuple[str, float, float]]:
        """Of each power distribution above these nodes: name, allocated and capacity W.

        Nodes that are not named count with their present limits.
        """
        site, caps_w = self._plant.site, self._plant.gpu_cap_set_w
        rack_w, pdu_w, feed_w = (defaultdict[str, float](float) for _ in range(3))
        touched: set[str] = set()
        pdu_of_rack = {rack.rack_id: rack.pdu_id for rack in site.racks}
        feed_of_pdu = {pdu.pdu_id: pdu.feed_id for pdu in site.pdus}
        for node in site.nodes:
            gpus = site.gpus_of_node(node.node_id)
            if node.node_id in wanted:
                gpu_w = POLICY_SHARE[wanted[node.node_id]] * site.gpu.cap_max_w * len(gpus)
                pdu_id = pdu_of_rack[node.rack_id]
                touched |= {node.rack_id, pdu_id, feed_of_pdu[pdu_id]}
            else:
                gpu_w = float(caps_w[gpus].sum())
            wall_w = site.host.base_w + site.host.slope * gpu_w
            rack_w[node.rack_id] += wall_w
            pdu_w[pdu_of_rack[node.rack_id]] += wall_w
            feed_w[feed_of_pdu[pdu_of_rack[node.rack_id]]] += wall_w
        rows = [(rack.rack_id, rack_w[rack.rack_id], rack.rating_w) for rack in site.racks]
        rows += [(pdu.pdu_id, pdu_w[pdu.pdu_id], pdu.rating_w) for pdu in site.pdus]
        rows += [(feed.feed_id, feed_w[feed.feed_id], feed.rating_w) for feed in site.feeds]
        return [row for row in rows if row[0] in touched]

    def fitting(self, wanted: Policies, *, strict: bool) -> tuple[dict[str, str], bool]:
        """What fits of this, and whether it does; where not strict, a lesser policy for all."""
        if self._fits(wanted):
            return dict(wanted), True
        for policy in () if strict else POLICY_SHARE:
            lesser = {node: max(asked, policy, key=_rank) for node, asked in wanted.items()}
            if self._fits(lesser):
                return lesser, True
        return dict(wanted), False

    def _fits(self, wanted: Policies) -> bool:
        return all(allocated <= capacity for _, allocated, capacity in self.allocation(wanted))


class Groups:
    """All groups of a plant, at first one active group for each of its jobs."""

    def __init__(self, plant: Plant, topology_policy: str = "MaxP") -> None:
        self._plant = plant
        self.budgets = Budgets(plant)
        self.topology_policy = topology_policy
        site = plant.site
        weights = sorted({job.weight for job in plant.jobs}, reverse=True)
        self.by_name = dict[str, Group]()
        for number, job in enumerate(plant.jobs):
            nodes = [
                site.node_ids[n]
                for n in sorted({int(site.node_of_gpu[g]) for g in job.gpu_indices})
            ]
            priority = weights.index(job.weight)  # in DPS the lower number is the more important
            self.by_name[job.job_id] = Group(
                job.job_id,
                number + 1,
                topology_policy,
                nodes,
                "active",
                priority,
                {
                    "tenant": job.tenant_id,
                    "workload_class": job.job_class.value,
                    "slo_floor": job.floor_work,
                    "priority": priority,
                },
                applied=dict.fromkeys(nodes, topology_policy),
            )

    def holder(self, node_id: str) -> Group | None:
        """The group that a node is in, the last that took it where several did."""
        found = [group for group in self.by_name.values() if node_id in group.nodes]
        return found[-1] if found else None

    def applied(self, node_id: str) -> str:
        """The policy that holds on a node: its active group's, or the topology's."""
        group = self.holder(node_id)
        return self.topology_policy if group is None else group.applied.get(node_id, "")

    def command(self, policies: Policies) -> dict[str, str]:
        """Put policies on the hardware; why not, by node, where a BMC does not answer."""
        site, lit = self._plant.site, self._plant.node_is_lit
        caps_w = dict[int, float]()
        failed = dict[str, str]()
        for node, policy in policies.items():
            if not lit[site.node_places[node]]:
                failed[node] = f"BMC of {node} does not answer"
                continue
            watts = round(POLICY_SHARE[policy] * site.gpu.cap_max_w)
            caps_w |= dict.fromkeys(site.gpus_of_node(node).tolist(), watts)
        if caps_w:
            self._plant.command_caps(list(caps_w), list(caps_w.values()))
        return failed

    def take_for(self, wanted: Policies) -> bool:
        """Lower other active groups, the least important first; whether this fits then."""
        others = sorted(self.by_name.values(), key=lambda group: -group.priority)
        for group in others:
            if self.budgets.fitting(wanted, strict=True)[1]:
                return True
            theirs = [node for node in group.applied if node not in wanted]
            if group.status == "active" and theirs:
                self.command(dict.fromkeys(theirs, LEAST))
                group.applied |= dict.fromkeys(theirs, LEAST)
        return self.budgets.fitting(wanted, strict=True)[1]


def _rank(policy: str) -> int:
    return list(POLICY_SHARE).index(policy)
