"""One site as the policies are told of it and as it really is, in seven variants."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal

import numpy as np

from interlock_evals.gang_instances import cooling_loops, gang_instance, tenants
from interlock_evals.instances import (
    CLASSES,
    LEAST_CAP_W,
    OVERSUBSCRIBED,
    CurveSet,
    Floats,
    Instance,
    instance,
)
from interlock_servers.maxlps.allocator.gang import Gangs
from interlock_servers.maxlps.allocator.group_prices import Groups
from interlock_servers.maxlps.allocator.problem import Problem

Variant = Literal["plain", "floors", "gang", "loops", "tenants", "noisy", "pessimistic"]
CURVES: Final[tuple[CurveSet, ...]] = ("prior", "h200")
BUDGETS: Final = (0.95, 0.90, 0.85, 0.80, 0.75, 0.70)  # of the site, over natural draw
FLOOR: Final = 0.95  # relative work promised to prefill and decode, in the variant `floors`
NOISE: Final = 0.05  # largest error of an estimate of natural draw; uniform, GPU by GPU
DECODE: Final = next(i for i, work in enumerate(CLASSES) if work.name == "decode")

# The tenth percentile of public training sweeps, p0 and gamma, for all classes: that of decode is
# convex, and convex curves are outside what any policy here can plan with.
PESSIMISTIC: Final = (0.302, 0.777)


@dataclass(frozen=True)
class Case:
    """A site; budgets are GPU watts, host power and margin already taken off.

    Attributes:
        variant: what is special about it.
        gpus: how many.
        seed: of the generator.
        curves: curve set, or `pessimistic`.
        budget_ratio: budget of the site over the natural draw of all its GPUs.
        seen: what the policies are told.
        true: the curves that the GPUs really follow.
        gangs: synchronous jobs, where there are any; the simple policies do not use them.
        parts: cooling loops, or tenants with a promise.
    """

    variant: Variant
    gpus: int
    seed: int
    curves: str
    budget_ratio: float
    seen: Instance
    true: Problem
    gangs: Gangs | None = None
    parts: tuple[Groups, ...] = ()

    @cached_property
    def bare(self) -> Problem:
        """What the simple policies solve: no promise raises a GPU's least cap."""
        return replace(self.seen.leaves, floor_work=np.zeros(self.gpus)).problem()

    def work(self, cap_w: Floats) -> Floats:
        """Relative work that these caps really do, by GPU; in a job, that of its slowest."""
        if self.gangs is None:
            return self.true.work(cap_w)
        return self.gangs.work(self.true, cap_w)

    def utility(self, cap_w: Floats) -> float:
        """Weighted useful work, as a share of what the site does without caps."""
        weight = self.true.weight
        return float((weight * self.work(cap_w)).sum() / weight.sum())


def draw(variant: Variant, gpus: int, seed: int, curves: CurveSet, budget_ratio: float) -> Case:
    """The site of these arguments, always the same one."""
    if variant == "gang":
        jobs = gang_instance(gpus, seed=seed, budget_ratio=budget_ratio, curves=curves)
        true = jobs.case.problem
        return Case(variant, gpus, seed, curves, budget_ratio, jobs.case, true, jobs.gangs)
    floor = FLOOR if variant == "floors" else 0.0
    site = instance(gpus, seed=seed, budget_ratio=budget_ratio, curves=curves)
    serving = site.priority == 0
    p0, gamma = site.leaves.p0, site.leaves.gamma
    if variant == "pessimistic":
        p0, gamma = np.full(gpus, PESSIMISTIC[0]), np.full(gpus, PESSIMISTIC[1])
    leaves = replace(site.leaves, p0=p0, gamma=gamma, floor_work=np.where(serving, floor, 0.0))
    true = replace(leaves, floor_work=np.zeros(gpus)).problem()
    if variant == "noisy":
        error = np.random.default_rng([seed, gpus]).uniform(-NOISE, NOISE, gpus)
        leaves = replace(leaves, natural_w=leaves.natural_w * (1 + error))
    site = replace(site, leaves=leaves)
    parts: tuple[Groups, ...] = ()
    if variant == "loops":
        parts = (cooling_loops(site, seed=seed),)
    if variant == "tenants":
        parts = (tenants(site, seed=seed),)
    told = "pessimistic" if variant == "pessimistic" else curves
    return Case(variant, gpus, seed, told, budget_ratio, site, true, parts=parts)


def rated(site: Case, slack: float) -> Case:
    """The same site with racks and PDUs rated at `slack` of their share of the site's budget.

    Before derating. The generator's is fitted to the published tables; this asks what hangs on it.
    """
    tree = site.seen.tree
    uneven = np.array([name.startswith(("rack-", "pdu-")) for name in tree.names])
    factor = np.where(uneven, slack / OVERSUBSCRIBED, 1.0)
    tree = replace(tree, budget_w=tree.budget_w * factor)
    return replace(site, seen=replace(site.seen, tree=tree))


def cooler_decode(site: Case, less_w: float) -> Case:
    """The same site with decode drawing `less_w` watts less, and budgets in the same ratio.

    Natural draw of decode depends most on what is assumed: its load, and the model served.
    """
    tree, leaves = site.seen.tree, site.seen.leaves
    is_decode = site.seen.work_class == DECODE
    natural_w = np.where(
        is_decode, np.maximum(leaves.natural_w - less_w, LEAST_CAP_W), leaves.natural_w
    )
    share = natural_w.sum() / leaves.natural_w.sum()
    is_server = np.array([name.startswith("server-") for name in tree.names])
    tree = replace(tree, budget_w=tree.budget_w * np.where(is_server, 1.0, share))
    leaves = replace(leaves, natural_w=natural_w)
    seen = replace(site.seen, tree=tree, leaves=leaves)
    return replace(site, seen=seen, true=leaves.problem())
