"""The situation of a change: everything that the policy may look at, and nothing else.

The guard measures it. Nothing in it is taken from what a caller claims, but for the names of the
claims that no source of ours confirms.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from interlock_tools.blast_radius import BlastRadius
from interlock_tools.identity import Principal, Target
from interlock_tools.operation import Effect

WHOLE = 1000  # per mille


class Situation(BaseModel):
    """One request and the facts around it, at one moment.

    Attributes:
        principal: who asks, from the channel's authentication.
        operation: its registered name.
        effect: the registered effect of that operation.
        target: what the change is done to.
        site: where.
        blast_radius: whom the change reaches and what it would break.
        open_reach: the union of what other changes have reserved; this one is not in it.
        site_gpus: GPUs of the site; 0 when nobody knows, and then any share counts as the whole.
        site_hosts: hosts of the site; 0 as above.
        overlaps_open: this reach overlaps a reservation of another change.
        frozen: a freeze is in force.
        in_window: the moment lies inside a change window.
        changes_last_hour: changes by this principal in the last hour; this one is not counted.
        agent_budget_spent_permille: the largest share of any of the principal's budgets that would
            be spent with this change, in thousandths, rounded up; 0 where it has none.
        claims_unconfirmed: what the caller claims and no source of ours confirms, such as
            `grid.event of grid_event/gc-1`.
        autonomy_granted: people have let agents do this unattended here, and that is in force.
        protected: ids (`node-001`) or full names (`node/node-001`) that no change may reach.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    principal: Principal
    operation: str
    effect: Effect
    target: Target
    site: str
    blast_radius: BlastRadius
    open_reach: BlastRadius
    site_gpus: int = Field(ge=0)
    site_hosts: int = Field(ge=0)
    overlaps_open: bool
    frozen: bool
    in_window: bool
    changes_last_hour: int = Field(ge=0)
    agent_budget_spent_permille: int = Field(default=0, ge=0)
    claims_unconfirmed: frozenset[str] = frozenset()
    autonomy_granted: bool = False
    protected: frozenset[str] = frozenset()

    def protected_reached(self) -> frozenset[str]:
        """The protected ids that this change would reach, whatever they are ids of."""
        reach = self.blast_radius
        named = frozenset({self.target.id, str(self.target)})
        reached = (
            named,
            reach.hosts,
            reach.racks,
            reach.nvlink_domains,
            reach.power_domains,
            reach.jobs,
            reach.tenants,
        )
        return frozenset().union(*(self.protected & ids for ids in reached))

    def facts(self, *, quorum_voted: bool) -> dict[str, Any]:
        """The context of the Cedar request, in the type `Facts` of the schema.

        `quorum_voted` says under which of its two questions the policy is asked; it is no fact.
        """
        reach, others = self.blast_radius, self.open_reach
        hosts = len(reach.hosts)
        hosts_with_open = hosts + len(others.hosts) - len(reach.hosts & others.hosts)
        return {
            "site": self.site,
            "quorum_voted": quorum_voted,
            "frozen": self.frozen,
            "in_window": self.in_window,
            "overlaps_open": self.overlaps_open or reach.overlaps(others),
            "changes_last_hour": self.changes_last_hour,
            "agent_budget_spent_permille": self.agent_budget_spent_permille,
            "claims_unconfirmed": sorted(self.claims_unconfirmed),
            "autonomy_granted": self.autonomy_granted,
            "gpus": reach.gpus,
            "hosts": hosts,
            "racks": len(reach.racks),
            "nvlink_domains": len(reach.nvlink_domains),
            "power_domains": len(reach.power_domains),
            "jobs": len(reach.jobs),
            "tenants": len(reach.tenants),
            "watts_moved": reach.watts_moved,
            "power_rise_w": reach.power_rise_w,
            "gpu_share_permille": share_permille(reach.gpus, self.site_gpus),
            "host_share_permille": share_permille(hosts, self.site_hosts),
            "open_gpu_share_permille": share_permille(reach.gpus + others.gpus, self.site_gpus),
            "open_host_share_permille": share_permille(hosts_with_open, self.site_hosts),
            "slo_floors_broken": sorted(reach.slo_floors_broken),
            "power_taken_from": sorted(reach.power_taken_from),
            "all_feeds": reach.all_feeds,
            "open_ended": reach.open_ended,
            "budgets_broken": sorted(reach.budgets_broken),
            "protected_reached": sorted(self.protected_reached()),
        }


def share_permille(part: int, whole: int) -> int:
    """`part` of `whole` in thousandths, rounded up: a limit is never passed by rounding.

    Of a whole that nobody knows (0) every part is all of it.
    """
    return -(-part * WHOLE // whole) if whole > 0 else WHOLE


def merged(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A document of a situation, changed by a patch: tables are merged, all else is replaced."""
    out = dict(document)
    for key, value in patch.items():
        below = out.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            out[key] = merged(below, value)
        else:
            out[key] = value
    return out
